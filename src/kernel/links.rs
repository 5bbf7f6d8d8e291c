//! stub

/// What is known of the network interfaces.
#[derive(Debug, Default)]
pub struct Links {}

impl Links {
    /// Nothing asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The MTU of an interface in bytes; `None` if there is no such interface.
    pub fn mtu(&mut self, index: u32) -> Option<u32> {
        let _ = index;
        todo!()
    }

    /// The name of an interface; `#7` if there is none.
    pub fn name(&mut self, index: u32) -> String {
        let _ = index;
        todo!()
    }
}
