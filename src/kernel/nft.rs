#![allow(unsafe_code)] // nftnl has no safe calls for elements of maps, for listing, and for `queue` and `target`
//! nf_tables transactions, through libnftnl.
//!
//! A transaction is done whole or not at all, and the kernel names every message of it that was at fault: that is what
//! [`commit`] hands back. What is worth changing is decided elsewhere ([`super::maps`], [`super::ruleset`]).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::io;
use std::ptr::NonNull;
use std::time::Duration;

use nftnl::nftnl_sys as sys;
use nftnl::{Batch, Chain, MsgType, NlMsg, ProtoFamily, Table};

use super::element::Element;
use super::ruleset::{Absent, Point, QueueForm};
use super::socket::NetlinkSocket;

/// The name of our table.
pub(super) const TABLE: &CStr = c"sipalg";

/// One page of libnftnl's batches; each has 68 KiB of slack behind it.
const PAGE: u32 = 4096;
/// A netlink header and an `nfgenmsg`: the message that ends a batch.
const END: usize = 20;

/// What happens to an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Fails with EEXIST if the key is there.
    Create,
    /// Fails with EEXIST if the key is there with other data. Whether the timeout of one that is there changes depends
    /// on the kernel.
    Ensure,
    /// Fails with ENOENT if the key is not there.
    Delete,
}

/// One change to one element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    pub(super) element: &'a Element,
    pub(super) verb: Verb,
    pub(super) timeout: Duration,
}

/// A message of a transaction that was at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Its place in the transaction.
    pub(super) at: usize,
    /// The error number, positive.
    pub(super) code: i32,
}

/// Makes all `changes` or none. Answers who was at fault: nobody, if they were made.
///
/// # Errors
/// The transaction as a whole was refused.
pub(super) fn change(socket: &mut NetlinkSocket, changes: &[Change<'_>]) -> io::Result<Vec<Fault>> {
    let messages: Vec<_> = changes.iter().map(|change| Numbered::new(ElementMessage(*change))).collect();
    let mut batch = Batch::with_page_size(PAGE);
    for message in &messages {
        let kind = if message.inner.0.verb == Verb::Delete { MsgType::Del } else { MsgType::Add };
        batch.add(message, kind);
    }
    let numbers: Vec<_> = messages.iter().map(|message| message.sequence.get()).collect();
    commit(socket, &bytes(batch), &numbers)
}

/// Puts one queue rule into each of `points` and takes away what was there. The first queue has number `base`. A point that
/// is `left_out` gets a rule that accepts, which is what a queue without a reader does.
pub(super) fn fill_queue_points(
    socket: &mut NetlinkSocket,
    form: QueueForm,
    base: u16,
    points: &[Point],
    left_out: Option<&CStr>,
) -> io::Result<Vec<Fault>> {
    let mut batch = Batch::with_page_size(PAGE);
    let mut numbers = Vec::new();
    for &Point { chain, queue, absent } in points {
        let queue = Some(base.saturating_add(queue)).filter(|_| Some(chain) != left_out);
        let message = Numbered::new(QueueRule { table: TABLE, chain, queue, absent, form });
        batch.add(&message, MsgType::Del);
        numbers.push(message.sequence.get());
        batch.add(&message, MsgType::Add);
        numbers.push(message.sequence.get());
    }
    commit(socket, &bytes(batch), &numbers)
}

/// Whether the kernel would take a queue rule of this form. Nothing is changed: a batch without an end is undone.
pub(super) fn knows_queue_form(socket: &mut NetlinkSocket, form: QueueForm) -> io::Result<bool> {
    let table = Table::new(c"sipalg_probe", ProtoFamily::Inet);
    let chain = Chain::new(c"probe", &table);
    let rule = Numbered::new(QueueRule {
        table: c"sipalg_probe",
        chain: c"probe",
        queue: Some(0),
        absent: Absent::Pass,
        form,
    });
    let mut batch = Batch::with_page_size(PAGE);
    batch.add(&table, MsgType::Add);
    batch.add(&chain, MsgType::Add);
    batch.add(&rule, MsgType::Add);
    let mut request = bytes(batch);
    request.truncate(request.len().saturating_sub(END));
    let mut refused = None;
    socket.exchange(&request, |message| {
        refused = refused.or(message.error().filter(|code| *code != 0).map(|code| (message.sequence, code)));
    })?;
    match refused {
        None => Ok(true),
        Some((sequence, _)) if sequence == rule.sequence.get() => Ok(false),
        Some((_, code)) => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Deletes our table with everything in it. Answers whether it was there.
pub(super) fn delete_table(socket: &mut NetlinkSocket) -> io::Result<bool> {
    let table = Numbered::new(Table::new(TABLE, ProtoFamily::Inet));
    let mut batch = Batch::with_page_size(PAGE);
    batch.add(&table, MsgType::Del);
    let faults = commit(socket, &bytes(batch), &[table.sequence.get()])?;
    match faults.first().map(|fault| fault.code) {
        None => Ok(true),
        Some(libc::ENOENT) => Ok(false),
        Some(code) => Err(io::Error::from_raw_os_error(code)),
    }
}

/// What an element maps to, and the time that is left to it.
pub(super) type Content = (Vec<u8>, Duration);

/// The elements of a set by their keys.
///
/// The kernel walks its hash table anew for every part of a dump and skips as many elements as it has told already; when
/// the table grows meanwhile, some come twice and others not at all. So it is read until a pass brings nothing new.
pub(super) fn list(socket: &mut NetlinkSocket, set: &CStr) -> io::Result<BTreeMap<Vec<u8>, Content>> {
    let request = list_request(set);
    let mut elements = BTreeMap::new();
    for _ in 0..PASSES {
        let before = elements.len();
        dump(socket, &request, |key, data, left| {
            elements.insert(key.to_vec(), (data.to_vec(), left));
        })?;
        if elements.len() == before {
            break;
        }
    }
    Ok(elements)
}

/// An empty set takes one, a set at rest two.
const PASSES: usize = 8;

fn dump(
    socket: &mut NetlinkSocket,
    request: &[u8],
    mut sink: impl FnMut(&[u8], &[u8], Duration),
) -> io::Result<()> {
    let mut refused = None;
    socket.exchange_raw(request, |datagram| {
        let mut start = 0;
        for message in crate::netlink::messages(datagram) {
            let end = start + size_of::<libc::nlmsghdr>() + message.body.len();
            match message.error() {
                Some(code) => refused = refused.or(Some(code).filter(|code| *code != 0)),
                None if message.is_done() => (),
                None => parse_elements(datagram.get(start..end).unwrap_or_default(), &mut sink),
            }
            start = end.next_multiple_of(4);
        }
    })?;
    refused.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
}

/// Sends a batch and sorts the answers by the messages' sequence numbers.
fn commit(socket: &mut NetlinkSocket, batch: &[u8], numbers: &[u32]) -> io::Result<Vec<Fault>> {
    let (mut faults, mut refused) = (Vec::new(), None);
    socket.exchange(batch, |message| {
        let Some(code) = message.error().filter(|code| *code != 0) else { return };
        match numbers.iter().position(|number| *number == message.sequence) {
            Some(at) => faults.push(Fault { at, code }),
            None => refused = Some(code),
        }
    })?;
    match refused {
        Some(code) if faults.is_empty() => Err(io::Error::from_raw_os_error(code)),
        _ => Ok(faults),
    }
}

/// The batch as one request: pages sent one by one would be transactions of their own.
fn bytes(batch: Batch) -> Vec<u8> {
    batch.finalize().iter().flatten().copied().collect()
}

/// A message that remembers the number that it was given.
struct Numbered<M> {
    inner: M,
    sequence: Cell<u32>,
}

impl<M> Numbered<M> {
    fn new(inner: M) -> Self {
        Self { inner, sequence: Cell::new(0) }
    }
}

// SAFETY: writes what `M` writes.
unsafe impl<M: NlMsg> NlMsg for Numbered<M> {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, kind: MsgType) {
        self.sequence.set(sequence);
        // SAFETY: the caller's promise about `buffer` is handed on.
        unsafe { self.inner.write(buffer, sequence, kind) }
    }
}

struct ElementMessage<'a>(Change<'a>);

// SAFETY: one element with a key and data of at most 40 bytes each: far below the largest message.
unsafe impl NlMsg for ElementMessage<'_> {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        let Change { element, verb, timeout } = self.0;
        let (message, flags) = match verb {
            Verb::Create => (libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE | libc::NLM_F_EXCL),
            Verb::Ensure => (libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE),
            Verb::Delete => (libc::NFT_MSG_DELSETELEM, 0),
        };
        let family = ProtoFamily::Inet as u16;
        let set = SetHandle::new(element.set.name());
        // SAFETY: `buffer` has room for the largest message. libnftnl copies key and data, which are valid for the
        // given lengths; `set` owns the element after `nftnl_set_elem_add` and frees it.
        unsafe {
            let item =
                NonNull::new(sys::nftnl_set_elem_alloc()).unwrap_or_else(|| std::process::abort()).as_ptr();
            let (key, data) = (&element.key, &element.data);
            let set_bytes = |attribute: u32, bytes: &[u8]| {
                sys::nftnl_set_elem_set(item, attribute as u16, bytes.as_ptr().cast(), bytes.len() as u32);
            };
            set_bytes(sys::NFTNL_SET_ELEM_KEY, key);
            if verb != Verb::Delete {
                if !data.is_empty() {
                    set_bytes(sys::NFTNL_SET_ELEM_DATA, data);
                }
                // 0 would mean for ever.
                let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
                sys::nftnl_set_elem_set_u64(item, sys::NFTNL_SET_ELEM_TIMEOUT as u16, milliseconds);
            }
            sys::nftnl_set_elem_add(set.0.as_ptr(), item);
            let header = sys::nftnl_nlmsg_build_hdr(
                buffer.cast::<c_char>(),
                message as u16,
                family,
                flags as u16,
                sequence,
            );
            sys::nftnl_set_elems_nlmsg_build_payload(header, set.0.as_ptr());
        }
    }
}

/// The one rule of a queue point. Deleted: everything in its chain.
struct QueueRule<'a> {
    table: &'a CStr,
    chain: &'a CStr,
    /// `None`: the rule accepts.
    queue: Option<u16>,
    absent: Absent,
    form: QueueForm,
}

impl QueueRule<'_> {
    fn flags(&self) -> u16 {
        match self.absent {
            Absent::Pass => BYPASS,
            Absent::Drop => 0,
        }
    }

    /// nft: `accept`
    fn accept() -> *mut sys::nftnl_expr {
        // SAFETY: the name is a C string, and both attributes belong to this expression.
        unsafe {
            let accept = allocated(sys::nftnl_expr_alloc(c"immediate".as_ptr()));
            sys::nftnl_expr_set_u32(accept, sys::NFTNL_EXPR_IMM_DREG as u16, libc::NFT_REG_VERDICT as u32);
            sys::nftnl_expr_set_u32(accept, sys::NFTNL_EXPR_IMM_VERDICT as u16, libc::NF_ACCEPT as u32);
            accept
        }
    }

    /// nft: `queue flags bypass to N`
    fn native(&self, queue_number: u16) -> *mut sys::nftnl_expr {
        // SAFETY: the name is a C string, and every attribute belongs to this expression.
        unsafe {
            let queue = allocated(sys::nftnl_expr_alloc(c"queue".as_ptr()));
            sys::nftnl_expr_set_u16(queue, sys::NFTNL_EXPR_QUEUE_NUM as u16, queue_number);
            sys::nftnl_expr_set_u16(queue, sys::NFTNL_EXPR_QUEUE_TOTAL as u16, 1);
            sys::nftnl_expr_set_u16(queue, sys::NFTNL_EXPR_QUEUE_FLAGS as u16, self.flags());
            queue
        }
    }

    /// iptables: `-j NFQUEUE --queue-num N --queue-bypass`, revision 3: number, how many, flags, padding; host order.
    fn compat(&self, queue_number: u16) -> *mut sys::nftnl_expr {
        let fields = [queue_number, 1, self.flags(), 0];
        let length = size_of_val(&fields);
        // SAFETY: the target takes over `info`, which it frees with `free`: so it comes from `malloc`, and has `length`
        // bytes. A null pointer ends the process as in all allocations of libnftnl.
        unsafe {
            let target = allocated(sys::nftnl_expr_alloc(c"target".as_ptr()));
            sys::nftnl_expr_set_str(target, sys::NFTNL_EXPR_TG_NAME as u16, c"NFQUEUE".as_ptr());
            sys::nftnl_expr_set_u32(target, sys::NFTNL_EXPR_TG_REV as u16, 3);
            let info = allocated(libc::malloc(length));
            std::ptr::copy_nonoverlapping(fields.as_ptr().cast(), info, length);
            sys::nftnl_expr_set(target, sys::NFTNL_EXPR_TG_INFO as u16, info.cast_const(), length as u32);
            target
        }
    }
}

/// `NFT_QUEUE_FLAG_BYPASS`, `NFQ_FLAG_BYPASS`: no reader, no queue.
const BYPASS: u16 = 1;

// SAFETY: two short names and one expression: far below the largest message.
unsafe impl NlMsg for QueueRule<'_> {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, kind: MsgType) {
        let (message, flags) = match kind {
            MsgType::Add => (libc::NFT_MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND),
            MsgType::Del => (libc::NFT_MSG_DELRULE, 0),
        };
        // SAFETY: `buffer` has room for the largest message; the names are C strings, which libnftnl copies; the rule owns
        // its expression and is freed once.
        unsafe {
            let rule = allocated(sys::nftnl_rule_alloc());
            sys::nftnl_rule_set_str(rule, sys::NFTNL_RULE_TABLE as u16, self.table.as_ptr());
            sys::nftnl_rule_set_str(rule, sys::NFTNL_RULE_CHAIN as u16, self.chain.as_ptr());
            if kind == MsgType::Add {
                let expression = match (self.queue, self.form) {
                    (Some(number), QueueForm::Native) => self.native(number),
                    (Some(number), QueueForm::Compat) => self.compat(number),
                    (None, _) => Self::accept(),
                };
                sys::nftnl_rule_add_expr(rule, expression);
            }
            let family = ProtoFamily::Inet as u16;
            let header = sys::nftnl_nlmsg_build_hdr(
                buffer.cast::<c_char>(),
                message as u16,
                family,
                flags as u16,
                sequence,
            );
            sys::nftnl_rule_nlmsg_build_payload(header, rule);
            sys::nftnl_rule_free(rule);
        }
    }
}

/// A set of our table, to hang elements on; freed with them.
struct SetHandle(NonNull<sys::nftnl_set>);

impl SetHandle {
    fn new(name: &CStr) -> Self {
        // SAFETY: both strings are C strings, and libnftnl copies them.
        unsafe {
            let set = allocated(sys::nftnl_set_alloc());
            sys::nftnl_set_set_str(set, sys::NFTNL_SET_TABLE as u16, TABLE.as_ptr());
            sys::nftnl_set_set_str(set, sys::NFTNL_SET_NAME as u16, name.as_ptr());
            Self(NonNull::new_unchecked(set))
        }
    }
}

impl Drop for SetHandle {
    fn drop(&mut self) {
        // SAFETY: made by `nftnl_set_alloc`, and owned by nobody else.
        unsafe { sys::nftnl_set_free(self.0.as_ptr()) }
    }
}

/// Where libnftnl has no memory, there is none for anything else.
fn allocated<T>(pointer: *mut T) -> *mut T {
    if pointer.is_null() {
        std::process::abort();
    }
    pointer
}

fn list_request(set: &CStr) -> Vec<u8> {
    let mut buffer = vec![0u64; nftnl::nft_nlmsg_maxsize() as usize / 8 + 1];
    let set = SetHandle::new(set);
    // SAFETY: the buffer has room for the largest message and is aligned for its header, which is read back as it was
    // written; `nlmsg_len` is what has been written.
    unsafe {
        let header = sys::nftnl_nlmsg_build_hdr(
            buffer.as_mut_ptr().cast::<c_char>(),
            libc::NFT_MSG_GETSETELEM as u16,
            ProtoFamily::Inet as u16,
            libc::NLM_F_DUMP as u16,
            1,
        );
        sys::nftnl_set_elems_nlmsg_build_payload(header, set.0.as_ptr());
        let length = (*header).nlmsg_len as usize;
        std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length).to_vec()
    }
}

/// One message of a dump.
fn parse_elements(message: &[u8], sink: &mut impl FnMut(&[u8], &[u8], Duration)) {
    // A copy, aligned as its header asks.
    let mut aligned = vec![0u32; message.len().div_ceil(4)];
    // SAFETY: the copy has room for all of `message`, whose header's length is its length: `crate::netlink` has checked it,
    // and libnftnl reads no further than that. An element's attributes are valid for the lengths that come with them
    // until the set is freed, and are not used after the call of `sink`.
    unsafe {
        std::ptr::copy_nonoverlapping(message.as_ptr(), aligned.as_mut_ptr().cast::<u8>(), message.len());
        let set = SetHandle::new(c"");
        if message.len() < END
            || sys::nftnl_set_elems_nlmsg_parse(aligned.as_ptr().cast(), set.0.as_ptr()) < 0
        {
            return;
        }
        let elements = allocated(sys::nftnl_set_elems_iter_create(set.0.as_ptr()));
        loop {
            let element = sys::nftnl_set_elems_iter_next(elements);
            if element.is_null() {
                break;
            }
            let attribute = |attribute: u32| {
                let mut length = 0u32;
                let bytes = sys::nftnl_set_elem_get(element, attribute as u16, &raw mut length);
                let length = length as usize;
                if bytes.is_null() { &[][..] } else { std::slice::from_raw_parts(bytes.cast::<u8>(), length) }
            };
            let milliseconds = attribute(sys::NFTNL_SET_ELEM_EXPIRATION);
            let left = <[u8; 8]>::try_from(milliseconds).map_or(0, u64::from_ne_bytes);
            let (key, data) = (attribute(sys::NFTNL_SET_ELEM_KEY), attribute(sys::NFTNL_SET_ELEM_DATA));
            sink(key, data, Duration::from_millis(left));
        }
        sys::nftnl_set_elems_iter_destroy(elements);
    }
}
