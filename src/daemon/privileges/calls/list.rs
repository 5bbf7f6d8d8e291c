//! The list of system calls, and the filter that it becomes.
//!
//! A list of what is allowed; everything else answers EPERM, and the kernel logs it (`audit: type=1326 … syscall=N`). Not
//! SIGKILL: a call that a new library makes, and that can do without, would end every call on the router; who took the
//! process over is stopped by EPERM as well. Calls that are newer than this list, and clone3, whose flags lie in memory
//! and can't be judged, answer ENOSYS: then the C library takes the old way, which can.
//!
//! The list is more than what one glibc uses (Debian 12 has 2.36, 13 has 2.41), and more than what is used today where a
//! call lets nobody do more than another one on it. Not on it, among others: execve, fork, ptrace, process_vm_writev, kill,
//! mount, unshare, setns, bpf, io_uring, keyctl, perf_event_open, init_module, setuid.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::process;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use crate::kernel::seccomp::{self, Refusals};

/// Confines this thread, and those that it will start.
///
/// # Errors
/// The kernel has no seccomp, or refuses.
pub(in crate::daemon::privileges) fn confine() -> io::Result<()> {
    let program = program().map_err(io::Error::other)?;
    // Two filters, of which the stricter answer holds: the C library asks for clone3 with its first thread, and that is
    // nothing to tell anybody.
    let mut unknown = unknown_calls(ERRNO | libc::ENOSYS as u32);
    unknown.push(sock_filter { code: RETURN, jt: 0, jf: 0, k: ALLOW });
    seccomp::install(&unknown, Refusals::Silent)?;
    seccomp::install(&program, Refusals::Logged)
}

/// The list as the kernel takes it. Calls that it does not know are the other filter's.
fn program() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALWAYS.iter().chain(OLD).map(|call| (*call, Vec::new())).collect();
    rules.extend(conditional()?);
    let architecture = env::consts::ARCH.try_into()?;
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?;
    let mut program = unknown_calls(ALLOW);
    program.append(&mut filter.try_into()?);
    Ok(program)
}

// linux/bpf_common.h and linux/seccomp.h
const LOAD_WORD: u16 = 0x20;
const JUMP_GREATER: u16 = 0x25;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// Instructions for what is not to be judged at all; other calls go on behind them.
fn unknown_calls(answer: u32) -> BpfProgram {
    // The call's number is the first word of struct seccomp_data.
    let code = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        code(LOAD_WORD, 0, 0, 0),
        code(JUMP_GREATER, 1, 0, NEWEST),
        code(JUMP_EQUAL, 0, 1, libc::SYS_clone3 as u32),
        code(RETURN, 0, 0, answer),
    ]
}

/// `lsm_list_modules` (Linux 6.8): no call up to here was forgotten by mistake.
const NEWEST: u32 = 461;

/// Calls that depend on an argument.
fn conditional() -> Result<Vec<(i64, Vec<SeccompRule>)>, BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq};
    const INT: SeccompCmpArgLen = SeccompCmpArgLen::Dword;
    let is = |argument, value: i32| SeccompCondition::new(argument, INT, Eq, value as u32 as u64);
    let has = |argument, mask: i32, value: i32| {
        SeccompCondition::new(argument, INT, MaskedEq(mask as u32 as u64), value as u32 as u64)
    };
    let rule = |conditions: Vec<SeccompCondition>| SeccompRule::new(conditions);
    let one_of = |argument, values: &[i32]| -> Result<Vec<SeccompRule>, BackendError> {
        values.iter().map(|value| rule(vec![is(argument, *value)?])).collect()
    };
    // Without SOCK_NONBLOCK and SOCK_CLOEXEC.
    const KIND: i32 = 0xf;
    let datagrams = |family| -> Result<SeccompRule, BackendError> {
        rule(vec![is(0, family)?, has(1, KIND, libc::SOCK_DGRAM)?])
    };
    Ok(vec![
        // Threads, never processes.
        (libc::SYS_clone, vec![rule(vec![has(0, libc::CLONE_THREAD, libc::CLONE_THREAD)?])?]),
        // The control socket, journald, systemd; the kernel; and whether a public port is free, which is tried by
        // taking it (`kernel::has_taken_port`).
        (
            libc::SYS_socket,
            vec![
                rule(vec![is(0, libc::AF_UNIX)?])?,
                rule(vec![is(0, libc::AF_NETLINK)?])?,
                datagrams(libc::AF_INET)?,
                datagrams(libc::AF_INET6)?,
            ],
        ),
        (libc::SYS_socketpair, vec![rule(vec![is(0, libc::AF_UNIX)?])?]),
        // Memory is never code that was written here.
        (libc::SYS_mmap, vec![rule(vec![has(2, libc::PROT_EXEC, 0)?])?]),
        (libc::SYS_mprotect, vec![rule(vec![has(2, libc::PROT_EXEC, 0)?])?]),
        (libc::SYS_ioctl, one_of(1, &REQUESTS)?),
        (libc::SYS_prctl, one_of(0, &[libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA])?),
        // What raise(3) and abort(3) do.
        (libc::SYS_tgkill, one_of(0, &[process::id() as i32])?),
        // glibc reads its limits, and its own only.
        (libc::SYS_prlimit64, one_of(0, &[0])?),
    ])
}

/// Sockets without waiting, whether standard error is a terminal, and an interface's MTU (`queue::mtu`).
const REQUESTS: [i32; 7] = [
    libc::FIONBIO as i32,
    libc::FIONREAD as i32,
    libc::FIOCLEX as i32,
    libc::TCGETS as i32,
    libc::SIOCGIFNAME as i32,
    libc::SIOCGIFMTU as i32,
    libc::SIOCGIFINDEX as i32,
];

const ALWAYS: &[i64] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_membarrier,
    libc::SYS_memfd_create, // long journal entries
    // Threads and signals.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    454, // futex_wake
    455, // futex_wait
    libc::SYS_get_robust_list,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    // Who and what.
    libc::SYS_capget,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_umask,
    // Time.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    // Descriptors.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_fcntl,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_write,
    libc::SYS_writev,
    // Files, which landlock chooses.
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    452, // fchmodat2
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    // Sockets, which `socket` chooses.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// The same under names that younger architectures never had.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_fits_into_what_the_kernel_takes() {
        let program = program().unwrap();
        assert!((100..4096).contains(&program.len()), "{}", program.len());
    }

    #[test]
    fn no_call_stands_twice_and_none_is_newer_than_the_list() {
        let mut all: Vec<i64> = ALWAYS.iter().chain(OLD).copied().collect();
        all.extend(conditional().unwrap().into_iter().map(|(call, _)| call));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|call| *call <= i64::from(NEWEST)));
        assert!(!all.contains(&libc::SYS_execve) && !all.contains(&libc::SYS_ptrace));
    }
}
