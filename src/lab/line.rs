//! One SIP port of a phone or a server, and the conversations on it.
//!
//! One idea: a single thread ([`Line::pump`]) reads the socket and hands each message to the conversation of its
//! Call-ID, so that every call can be written as a script that reads from top to bottom. What needs no thought is done
//! right there: a repeated request gets the answer that it got before, a repeated 2xx its ACK.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rsip::Method;

use super::Trouble;
use super::message::{self, Heard};
use super::stop::Stop;

/// RFC 3261's T1: the first interval between repetitions.
const T1: Duration = Duration::from_millis(500);
/// RFC 3261's T2: the longest one.
const T2: Duration = Duration::from_secs(4);
/// How often a waiting thread looks whether it shall end.
const TICK: Duration = Duration::from_millis(50);

/// A socket with its conversations.
#[derive(Debug)]
pub(super) struct Line {
    socket: UdpSocket,
    address: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By Call-ID.
    conversations: HashMap<String, Sender<Heard>>,
    /// Who waits to be called, by user part of the Request-URI.
    callees: HashMap<String, Sender<Heard>>,
    /// Last answer to each server transaction, by branch and method.
    answered: HashMap<(String, String), (Vec<u8>, SocketAddr)>,
    /// ACKs by Call-ID and number.
    acknowledged: HashMap<(String, u32), (Vec<u8>, SocketAddr)>,
}

impl Line {
    /// Takes a bound socket.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_read_timeout(Some(TICK))?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, state: Mutex::default() })
    }

    /// Its own address and port.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads until the end. `first` sees every message and may take it away by answering true.
    pub(super) fn pump(&self, stop: &Stop, first: impl Fn(&Heard) -> bool) {
        let mut datagram = vec![0; 65536];
        while !stop.is_raised() {
            let Ok((length, source)) = self.socket.recv_from(&mut datagram) else { continue };
            let heard = datagram.get(..length).and_then(|bytes| Heard::read(bytes, source));
            if let Some(heard) = heard
                && !first(&heard)
            {
                self.deliver(heard);
            }
        }
    }

    /// Sends. What gets lost is repeated by whoever waits for the answer, and ICMP errors are no news.
    pub(super) fn send(&self, bytes: &[u8], to: SocketAddr) {
        let _ = self.socket.send_to(bytes, to);
    }

    /// Answers a request: what `response` made of it goes back the way it came, and again for each repetition.
    pub(super) fn answer(&self, request: &Heard, bytes: Vec<u8>) {
        let via = Heard::read(&bytes, self.address).and_then(|made| {
            let to = message::reply_address(made.vias().first()?)?;
            Some((made.branch().to_owned(), to))
        });
        let Some((branch, to)) = via else { return };
        self.send(&bytes, to);
        self.state().answered.insert((branch, request.method().to_string()), (bytes, to));
    }

    /// Whoever is asked for by this name will be told.
    pub(super) fn listen(&self, user: &str) -> Receiver<Heard> {
        let (sender, receiver) = channel();
        self.state().callees.insert(user.to_owned(), sender);
        receiver
    }

    /// Opens a conversation: from now on messages of this Call-ID go there.
    pub(super) fn conversation<'l>(&'l self, call_id: &str, stop: &'l Stop) -> Conversation<'l> {
        let (sender, inbox) = channel();
        self.state().conversations.insert(call_id.to_owned(), sender);
        Conversation { line: self, inbox, later: VecDeque::new(), stop }
    }

    fn deliver(&self, heard: Heard) {
        let mut state = self.state();
        let again = match heard.status() {
            0 => state.answered.get(&(heard.branch().to_owned(), heard.method().to_string())),
            200..=299 => state.acknowledged.get(&(heard.call_id().to_owned(), heard.cseq().0)),
            _ => None,
        };
        if let Some((bytes, to)) = again
            && (heard.status() == 0 || heard.method() == Method::Invite)
        {
            self.send(bytes, *to);
            return;
        }
        if let Some(inbox) = state.conversations.get(heard.call_id()) {
            let _ = inbox.send(heard);
        } else if heard.asks(Method::Invite) {
            let user = message::user(&heard.request_uri).unwrap_or_default().to_owned();
            // The callee opens the conversation; until then a repetition finds neither and is dropped.
            if let Some(callee) = state.callees.remove(&user) {
                let _ = callee.send(heard);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request with what is needed to know its answer.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    pub(super) to: SocketAddr,
    pub(super) branch: String,
    pub(super) method: Method,
}

/// The messages of one Call-ID.
#[derive(Debug)]
pub(super) struct Conversation<'l> {
    line: &'l Line,
    inbox: Receiver<Heard>,
    /// What came while something else was waited for.
    later: VecDeque<Heard>,
    stop: &'l Stop,
}

impl Conversation<'_> {
    pub(super) fn line(&self) -> &Line {
        self.line
    }

    /// Sends a request, repeats it as RFC 3261 17.1 says, and gives its final response. `provisional` sees the others.
    pub(super) fn ask(
        &mut self,
        request: &Outgoing,
        patience: Duration,
        mut provisional: impl FnMut(&Heard),
    ) -> Result<Heard, Trouble> {
        let deadline = Instant::now() + patience;
        let mut interval = T1;
        let mut again = Some(Instant::now());
        loop {
            if again.is_some_and(|at| at <= Instant::now()) {
                self.line.send(&request.bytes, request.to);
                again = Some(Instant::now() + interval);
                interval = (interval * 2).min(T2);
            }
            let until = again.map_or(deadline, |at| at.min(deadline));
            let Some(heard) = self.next(until)? else {
                if Instant::now() >= deadline {
                    return Err(Trouble::NoAnswer(request.method));
                }
                continue;
            };
            if heard.status() == 0 || heard.branch() != request.branch || heard.method() != request.method {
                self.later.push_back(heard);
            } else if heard.status() < 200 {
                if request.method == Method::Invite {
                    again = None;
                }
                provisional(&heard);
            } else {
                return Ok(heard);
            }
        }
    }

    /// Answers an INVITE with success, and repeats that until the ACK comes (RFC 3261 13.3.1.4).
    pub(super) fn answer_until_acknowledged(
        &mut self,
        invite: &Heard,
        bytes: Vec<u8>,
        patience: Duration,
    ) -> Result<Heard, Trouble> {
        let deadline = Instant::now() + patience;
        let mut interval = T1;
        loop {
            self.line.answer(invite, bytes.clone());
            let repeat = (Instant::now() + interval).min(deadline);
            interval = (interval * 2).min(T2);
            while let Some(heard) = self.next(repeat)? {
                if heard.asks(Method::Ack) {
                    return Ok(heard);
                }
                self.later.push_back(heard);
            }
            if Instant::now() >= deadline {
                return Err(Trouble::NoAck);
            }
        }
    }

    /// Sends the ACK to a 2xx, now and for each repetition of that.
    pub(super) fn acknowledge(&self, accepted: &Heard, ack: &Outgoing) {
        self.line.send(&ack.bytes, ack.to);
        let key = (accepted.call_id().to_owned(), accepted.cseq().0);
        self.line.state().acknowledged.insert(key, (ack.bytes.clone(), ack.to));
    }

    /// Waits for a request of this method.
    pub(super) fn await_request(&mut self, method: Method, patience: Duration) -> Result<Heard, Trouble> {
        if let Some(index) = self.later.iter().position(|heard| heard.asks(method)) {
            return self.later.remove(index).ok_or(Trouble::NotAsked(method));
        }
        let deadline = Instant::now() + patience;
        while let Some(heard) = self.next(deadline)? {
            if heard.asks(method) {
                return Ok(heard);
            }
        }
        Err(Trouble::NotAsked(method))
    }

    fn next(&mut self, deadline: Instant) -> Result<Option<Heard>, Trouble> {
        receive(&self.inbox, deadline, self.stop)
    }
}

/// Waits for a message until the deadline.
pub(super) fn receive(
    inbox: &Receiver<Heard>,
    deadline: Instant,
    stop: &Stop,
) -> Result<Option<Heard>, Trouble> {
    loop {
        if stop.is_raised() {
            return Err(Trouble::Interrupted);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match inbox.recv_timeout(left.min(TICK)) {
            Ok(heard) => return Ok(Some(heard)),
            Err(RecvTimeoutError::Timeout) if left > TICK => (),
            Err(_) => return Ok(None),
        }
    }
}
