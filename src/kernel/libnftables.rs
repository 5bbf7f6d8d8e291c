//! nft's language, spoken within this process: `libnftables`, which is also what the program `nft` is made of.
//!
//! Used for whole rulesets only; elements and rules go by netlink ([`super::nft`]). A program would do as well, but then
//! the gateway would need the right to start programs for as long as it runs: a flushed ruleset has to be mended at any
//! time. What is parsed here is our own text.
#![allow(unsafe_code)] // calls into a C library

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// What becomes of a ruleset that the kernel would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is loaded, as one transaction.
    Commit,
    /// Nothing.
    Check,
}

/// Older versions of the library keep tables of their own that are not locked.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Loads a piece of ruleset in the network namespace of this thread, or only asks the kernel about it.
///
/// # Errors
/// What nft would have said.
pub(super) fn run(text: &str, mode: Mode) -> Result<(), String> {
    let (_file, path) = file_of(text).map_err(|error| format!("a file in memory can't be made: {error}"))?;
    let name = CString::new(path.as_str()).map_err(|error| error.to_string())?;
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let context = Context::new().ok_or("libnftables can't be used: no memory")?;
    // SAFETY: the context lives through all calls, the name is a C string, and what is read of the error buffer is copied
    // before the context goes.
    let said = unsafe {
        nft_ctx_set_dry_run(context.0.as_ptr(), mode == Mode::Check);
        nft_ctx_buffer_error(context.0.as_ptr());
        if nft_run_cmd_from_filename(context.0.as_ptr(), name.as_ptr()) == 0 {
            return Ok(());
        }
        let said = nft_ctx_get_error_buffer(context.0.as_ptr());
        if said.is_null() { c"" } else { CStr::from_ptr(said) }
    };
    Err(said.to_string_lossy().trim().replace(&path, "sipalg.nft"))
}

/// A file with this text, in memory, and its path while it is open. Only of a file does the library show the line that is
/// wrong.
fn file_of(text: &str) -> io::Result<(File, String)> {
    // SAFETY: the name is a C string.
    let descriptor = unsafe { libc::memfd_create(c"sipalg.nft".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened and nobody else has it.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(text.as_bytes())?;
    Ok((file, format!("/proc/self/fd/{descriptor}")))
}

struct Context(NonNull<nft_ctx>);

impl Context {
    fn new() -> Option<Self> {
        // SAFETY: takes no pointer.
        NonNull::new(unsafe { nft_ctx_new(0) }).map(Self)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `nft_ctx_new`, and owned by nobody else.
        unsafe { nft_ctx_free(self.0.as_ptr()) }
    }
}

#[repr(C)]
#[allow(non_camel_case_types)] // its name in nftables/libnftables.h
struct nft_ctx {
    _opaque: [u8; 0],
}

#[link(name = "nftables")]
unsafe extern "C" {
    fn nft_ctx_new(flags: u32) -> *mut nft_ctx;
    fn nft_ctx_free(context: *mut nft_ctx);
    fn nft_ctx_set_dry_run(context: *mut nft_ctx, dry: bool);
    fn nft_ctx_buffer_error(context: *mut nft_ctx) -> c_int;
    fn nft_ctx_get_error_buffer(context: *mut nft_ctx) -> *const c_char;
    fn nft_run_cmd_from_filename(context: *mut nft_ctx, name: *const c_char) -> c_int;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_in_the_words_of_nft() {
        let said = run("table inet sipalg_probe { nonsense }\n", Mode::Check).unwrap_err();
        assert!(said.starts_with("sipalg.nft:1:") && said.contains("syntax error, unexpected"), "{said}");
    }
}
