//! Our conntrack helper: a name in the kernel's list of helpers, and nothing behind it.
//!
//! conntrack lets only flows with a helper have expectations. So one is registered through nfnetlink_cthelper, with status
//! "disabled": the kernel hands no packet to anybody for it. Rules attach it to signalling flows by its name.
//!
//! The kernel has one list for all network namespaces, and it counts only who names a helper in a ruleset. So on one
//! machine all routers share the entry: whoever starts registers it, which changes nothing if it is there (left by a
//! crash, or another router's), and whoever unloads his ruleset tries to remove it, which the kernel refuses (EBUSY) for
//! as long as another ruleset names it. Between a router's registration and its ruleset another may take the name away:
//! [`super::ruleset`] then registers again.

use std::io;

use super::socket::NetlinkSocket;
use crate::netlink::{MessageType, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, Writer};

/// The helper's name.
pub(super) const NAME: &str = "sipalg";

const CTHELPER: u8 = 9;
const NEW: u8 = 0;
const GET: u8 = 1;
const DEL: u8 = 2;

const NFCTH_NAME: u16 = 1;
const NFCTH_TUPLE: u16 = 2;
const NFCTH_QUEUE_NUM: u16 = 3;
const NFCTH_POLICY: u16 = 4;
const NFCTH_PRIV_DATA_LEN: u16 = 5;
const NFCTH_STATUS: u16 = 6;

const NFCTH_TUPLE_L3PROTONUM: u16 = 1;
const NFCTH_TUPLE_L4PROTONUM: u16 = 2;
const NFCTH_POLICY_SET_NUM: u16 = 1;
const NFCTH_POLICY_SET1: u16 = 2;
const NFCTH_POLICY_NAME: u16 = 1;
const NFCTH_POLICY_EXPECT_MAX: u16 = 2;
const NFCTH_POLICY_EXPECT_TIMEOUT: u16 = 3;
const DISABLED: u32 = 0;

/// Expectations of one signalling flow, by the kind of media. The kernel takes no more than four kinds and 255 of each.
const POLICIES: [&str; 4] = ["audio", "video", "image", "other"];
const EXPECT_MAX: u32 = 255;
/// Seconds, if nobody says otherwise.
const EXPECT_TIMEOUT: u32 = 64;

/// Whether this kernel has helpers in user space at all.
///
/// # Errors
/// It has none.
pub(super) fn probe(socket: &mut NetlinkSocket) -> io::Result<()> {
    let mut writer = Writer::new();
    writer.message(kind(GET), NLM_F_DUMP, 1, libc::AF_UNSPEC as u8, 0, |_| ());
    socket.call(writer.bytes(), |_| ())
}

/// Registers the helper for both families. One that is there is left as it is.
///
/// # Errors
/// EPERM: only the first user namespace may. EBUSY: there is one of this name that is another.
pub(super) fn register(socket: &mut NetlinkSocket) -> io::Result<()> {
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut writer = Writer::new();
        writer.message(kind(NEW), NLM_F_ACK | NLM_F_CREATE, 1, libc::AF_UNSPEC as u8, 0, |w| {
            put_name_and_tuple(w, family);
            w.put_u32(NFCTH_QUEUE_NUM, 0);
            w.nest(NFCTH_POLICY, |w| {
                w.put_u32(NFCTH_POLICY_SET_NUM, POLICIES.len() as u32);
                for (attribute, name) in (NFCTH_POLICY_SET1..).zip(POLICIES) {
                    w.nest(attribute, |w| {
                        put_text(w, NFCTH_POLICY_NAME, name);
                        w.put_u32(NFCTH_POLICY_EXPECT_MAX, EXPECT_MAX);
                        w.put_u32(NFCTH_POLICY_EXPECT_TIMEOUT, EXPECT_TIMEOUT);
                    });
                }
            });
            w.put_u32(NFCTH_PRIV_DATA_LEN, 0);
            w.put_u32(NFCTH_STATUS, DISABLED);
        });
        socket.call(writer.bytes(), |_| ())?;
    }
    Ok(())
}

/// Takes the helper off the list, unless somebody's ruleset still names it. Answers whether it is gone.
///
/// # Errors
/// Those of netlink; EBUSY is none.
pub(super) fn unregister(socket: &mut NetlinkSocket) -> io::Result<bool> {
    let mut is_gone = true;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut writer = Writer::new();
        writer.message(kind(DEL), NLM_F_ACK, 1, libc::AF_UNSPEC as u8, 0, |w| put_name_and_tuple(w, family));
        match socket.call(writer.bytes(), |_| ()) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => is_gone = false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => (),
            result => result?,
        }
    }
    Ok(is_gone)
}

fn put_name_and_tuple(w: &mut Writer, family: i32) {
    put_text(w, NFCTH_NAME, NAME);
    w.nest(NFCTH_TUPLE, |w| {
        w.put_u16(NFCTH_TUPLE_L3PROTONUM, family as u16);
        w.put(NFCTH_TUPLE_L4PROTONUM, &[libc::IPPROTO_UDP as u8]);
    });
}

fn put_text(w: &mut Writer, attribute: u16, text: &str) {
    w.put_with(attribute, |bytes| {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    });
}

fn kind(message: u8) -> MessageType {
    MessageType { subsystem: CTHELPER, message }
}
