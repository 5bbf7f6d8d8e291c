//! Media with a checked payload: what arrives says who sent it, as answer to what, and where the question came from.
//!
//! A [`Handset`] answers each RTP packet to where it came from, as phones with symmetric RTP do (RFC 4961). A
//! [`Speaker`] speaks first, to the endpoint that a message named, and demands that the answer comes from just there.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::net::Namespace;
use super::wait;

/// One RTP packet of PCMU (RFC 3550 section 5.1) with a text for a payload.
fn packet(sequence: u16, text: &str) -> Vec<u8> {
    let mut bytes = vec![0x80, 0];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend((u32::from(sequence) * 160).to_be_bytes());
    bytes.extend(0x5349_5041_u32.to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// The sequence number and the text of a packet made by [`packet`].
fn parse(bytes: &[u8]) -> Option<(u16, &str)> {
    let (header, text) = bytes.split_at_checked(12)?;
    (header[..2] == [0x80, 0]).then_some(())?;
    Some((u16::from_be_bytes([header[2], header[3]]), str::from_utf8(text).ok()?))
}

/// A socket at `address`. What was closed just now is still open in a process that another test is about to start.
fn bind(address: SocketAddr) -> UdpSocket {
    wait::until("the media port to be free", || UdpSocket::bind(address).ok())
}

/// Packets by source.
type Heard = Mutex<HashMap<SocketAddr, usize>>;

/// Answers on many ports of one phone, on one thread.
pub(crate) struct Handset {
    stop: Arc<AtomicBool>,
    heard: Arc<Heard>,
    thread: Option<JoinHandle<()>>,
}

impl Handset {
    /// A phone called `name` that answers media on `ports` of `address`.
    pub(crate) fn start(
        namespace: &Namespace,
        name: &str,
        address: Ipv4Addr,
        ports: impl IntoIterator<Item = u16> + Send,
    ) -> Self {
        let sockets: Vec<UdpSocket> =
            namespace.within(|| ports.into_iter().map(|port| bind((address, port).into())).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(Mutex::new(HashMap::new()));
        let thread = thread::spawn({
            let (stop, heard, name) = (Arc::clone(&stop), Arc::clone(&heard), name.to_owned());
            move || answer_all(&name, sockets, &stop, &heard)
        });
        Self { stop, heard, thread: Some(thread) }
    }

    /// How many packets have come from `source`.
    pub(crate) fn heard_from(&self, source: SocketAddr) -> usize {
        self.heard.lock().expect("nobody panics with it").get(&source).copied().unwrap_or(0)
    }

    /// All sources that have been heard.
    pub(crate) fn sources(&self) -> Vec<SocketAddr> {
        self.heard.lock().expect("nobody panics with it").keys().copied().collect()
    }
}

impl Drop for Handset {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking(), "a handset failed");
        }
    }
}

fn answer_all(name: &str, sockets: Vec<UdpSocket>, stop: &AtomicBool, heard: &Arc<Heard>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async {
        for socket in sockets {
            let (name, heard) = (name.to_owned(), Arc::clone(heard));
            socket.set_nonblocking(true).expect("a socket can be non-blocking");
            let socket = tokio::net::UdpSocket::from_std(socket).expect("the runtime is running");
            tokio::spawn(async move { answer(&name, &socket, &heard).await });
        }
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

async fn answer(name: &str, socket: &tokio::net::UdpSocket, heard: &Heard) {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error of a packet sent before shows up here; media goes on.
        let Ok((length, source)) = socket.recv_from(&mut buffer).await else { continue };
        *heard.lock().expect("nobody panics with it").entry(source).or_insert(0) += 1;
        if let Some((sequence, text)) = parse(&buffer[..length]) {
            let _ = socket.send_to(&packet(sequence, &heard_text(name, text, source)), source).await;
        }
    }
}

fn heard_text(name: &str, text: &str, source: SocketAddr) -> String {
    format!("{name} heard {text} from {source}")
}

/// Somebody who speaks first, from one socket to many, and checks what comes back.
pub(crate) struct Speaker {
    socket: UdpSocket,
    address: SocketAddr,
    sequence: u16,
}

impl Speaker {
    /// A socket at `address`.
    pub(crate) fn bind(namespace: &Namespace, address: impl Into<SocketAddr>) -> Self {
        let address = address.into();
        let socket = namespace.within(|| bind(address));
        Self { socket, address, sequence: 0 }
    }

    /// Speaks to `endpoint` until the handset called `name` answers from there, having heard this very socket.
    pub(crate) fn asks(&mut self, endpoint: SocketAddr, name: &str) {
        self.until_answered(endpoint, |question, me| heard_text(name, question, me));
    }

    /// Speaks to `endpoint` until the same comes back from there.
    pub(crate) fn is_echoed_by(&mut self, endpoint: SocketAddr) {
        self.until_answered(endpoint, |question, _| question.to_owned());
    }

    /// Speaks `count` times to `endpoint`: each packet, the first one too, must arrive and be answered, in order.
    pub(crate) fn asks_without_loss(&mut self, endpoint: SocketAddr, name: &str, count: u16) {
        for _ in 0..count {
            let (question, sent) = self.speak(endpoint);
            let answer = self.hear(wait::LONG);
            let expected = (sent, heard_text(name, &question, self.address), endpoint);
            assert_eq!(answer, Some(expected), "media to {endpoint}");
        }
    }

    /// Speaks once, and waits for nothing. Returns what was said, and under which sequence number.
    pub(crate) fn speak(&mut self, endpoint: SocketAddr) -> (String, u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let question = format!("question {} to {endpoint}", self.sequence);
        self.socket.send_to(&packet(self.sequence, &question), endpoint).expect("there is a route");
        (question, self.sequence)
    }

    /// Speaks to `endpoint` until `expected` of what was said, and of who said it, comes back from there.
    pub(crate) fn until_answered(
        &mut self,
        endpoint: SocketAddr,
        expected: impl Fn(&str, SocketAddr) -> String,
    ) {
        let mut questions = HashMap::new();
        let deadline = Instant::now() + wait::LONG;
        while Instant::now() < deadline {
            let (question, sequence) = self.speak(endpoint);
            questions.insert(sequence, question);
            let Some((sequence, answer, source)) = self.hear(Duration::from_millis(100)) else { continue };
            // Late answers to earlier calls on this socket are no answers to these questions.
            let Some(question) = questions.get(&sequence) else { continue };
            assert_eq!(answer, expected(question, self.address), "from {source}");
            assert_eq!(source, endpoint, "the answer must come from where the question went");
            return;
        }
        panic!("{endpoint} did not answer {} packets from {}", questions.len(), self.address);
    }

    fn hear(&self, limit: Duration) -> Option<(u16, String, SocketAddr)> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .expect("a timeout above zero");
            if let Ok((length, source)) = self.socket.recv_from(&mut buffer)
                && let Some((sequence, text)) = parse(&buffer[..length])
            {
                return Some((sequence, text.to_owned(), source));
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }
}
