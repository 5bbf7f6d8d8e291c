//! sipalg: a transparent SIP ALG for Linux routers that does no harm.
//!
//! Phones behind a NAT router register, call, hear and are heard, with nothing configured. The kernel hands SIP packets
//! to this program through NFQUEUE; it replaces the addresses in them, and opens the NAT for the media that they
//! announce. Media itself never comes here. README.md says what that means for an administrator; this page is for who
//! wants to read or change the program.
//!
//! # The layers
//!
//! From the bottom up. Each names only what stands below it.
//!
//! - Leaves, which know nothing of packets or SIP: [`span`] (positions in a buffer), [`edit`] (disjoint replacements on
//!   an original text), [`expiring`] (a bounded map whose entries die), [`netlink`] (the codec of netlink messages),
//!   [`ip_text`] (addresses as text, without an allocation), [`search`] (bytes in short texts).
//! - Text and bytes: [`packet`] (IP and UDP: validated once, rebuilt with another payload), [`sip`] and [`sdp`]
//!   (messages read into spans; nothing is ever re-created from a parse).
//! - The engine, [`alg`]: which flow a packet belongs to, what the NAT made of it, what a message means for calls and
//!   registrations, what must be replaced in it, and what the kernel must do first. It is pure: no socket, no file, no
//!   clock, no lock, no randomness. The same inputs give the same outputs.
//! - Shells, which do what the engine asks: [`queue`] (packets in, verdicts out), [`kernel`] (nftables elements,
//!   conntrack entries, the ruleset, the probe, seccomp filters), [`config`] (the administrator's file, turned into [`alg::Policy`]).
//! - [`control`]: how other programs ask a running gateway: a socket, and what is said over it.
//! - `fuzzing`, behind the feature of that name, is no part of the program: the bodies of the fuzz targets.
//! - Programs: [`daemon`] (start-up order, what is given up after it, the packet thread, signals), [`lab`] (a network in namespaces, for the demo),
//!   and [`cli`], which is the command line around all of it.
//!
//! # Who may import whom
//!
//! Each line may import only what stands to its right; a test reads the sources and holds this.
//!
//! ```text
//! main -> cli -> { daemon, lab } -> control -> { queue, kernel, config, fuzzing } -> alg -> { sip, sdp, packet } -> { edit, expiring, netlink, ip_text } -> { span, search }
//! ```
//!
//! - `sip` and `sdp` know no IP packets, `packet` knows no SIP; only `alg` knows both.
//! - `queue` and `kernel` take plain types of `alg` ([`alg::Command`], [`alg::Verdict`]); they never import each other.
//! - `config` builds [`alg::Policy`]; `alg` knows no TOML and no JSON.
//! - `unsafe` is denied in the whole crate; files of `queue` and `kernel` that call the system allow it, and the lab's one file
//!   that enters namespaces, each with a reason.
//!
//! # The contract of a run
//!
//! One thread owns the engine, a queue and the kernel's sockets; nothing is shared and nothing locked. Who wants something
//! of the engine hands in an order ([`daemon::orders`]), which that thread carries out between two batches.
//!
//! 1. The queue yields a packet. It goes to [`alg::Engine::handle`] with the time.
//! 2. Then *all* outputs are drained, first in, first out, before the next input.
//! 3. [`alg::Output::Command`]: the kernel must change. Commands are carried out, many in one transaction if one likes,
//!    and each result goes back as an input. The verdict of the packet that needs them comes out only after that, so
//!    nobody ever learns an address that is still closed.
//! 4. [`alg::Output::Verdict`]: let the packet go as it is, with edits, or not at all; always with a reason that is
//!    counted. `edit` makes the new payload, `packet` mends lengths and sums, `queue` sends it.
//! 5. Nothing left to drain: wait for a packet, for news from conntrack, or for [`alg::Engine::poll_timeout`].
//!
//! Whatever is opened in the kernel has a timeout there, so that nothing stays open if this program dies.
//!
//! # Reading order
//!
//! [`alg`]'s front page, then `alg/io.rs`, `alg/command.rs` and `alg/verdict.rs`: the whole vocabulary. Then the engine,
//! with a test of `tests/harm` beside it. `sipalg explain --json` shows the same vocabulary for real messages.

pub mod alg;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod edit;
pub mod expiring;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod ip_text;
pub mod kernel;
pub mod lab;
pub mod netlink;
pub mod packet;
pub mod queue;
pub mod sdp;
pub mod search;
pub mod sip;
pub mod span;
