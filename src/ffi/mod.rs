//! The C interface: the only `extern "C"` of the crate. An export is a mapping of a few lines that ends in a
//! safe call; the oddities of smfi_* live here and nowhere below.
//!
//! # Safety
//!
//! What holds for every export and is not repeated there:
//! - `ctx` is NULL or the pointer that a callback of a session received. A context whose session ended a while ago
//!   is still recognised, and calls with it fail; one that ended long ago must not be used.
//! - A `char *` is NULL or points to a string that ends with NUL and that nobody changes during the call.
//! - No panic leaves an export: it is logged, and becomes the failure value of the return type.

mod barrier;
#[cfg(not(fuzzing))]
mod callbacks;
#[cfg(fuzzing)]
pub mod callbacks;
mod context;
mod library;
mod message;
pub mod mfdef;
pub mod types;
mod undeclared;
mod variadic;

use crate::panics::{self, Panic};
use crate::session::Context;
use std::ffi::{CStr, c_char, c_int, c_void};
use types::{MI_FAILURE, MI_SUCCESS, SMFICTX};

/// The one answer of a return type that says "failed".
trait Failure {
    const FAILURE: Self;
}

impl Failure for c_int {
    const FAILURE: Self = MI_FAILURE;
}

impl Failure for usize {
    const FAILURE: Self = 0;
}

impl Failure for *mut c_char {
    const FAILURE: Self = std::ptr::null_mut();
}

impl Failure for *mut c_void {
    const FAILURE: Self = std::ptr::null_mut();
}

/// Runs the body of an export, a closure; a panic becomes a failure, and a line in the log.
fn entry<T: Failure, B: FnOnce() -> T>(body: B) -> T {
    panics::catch(body).unwrap_or_else(|panic| failed(export_of::<B>(), &panic))
}

/// [`entry`] for a body that gives up with `None`.
fn entry_if<B: FnOnce() -> Option<()>>(body: B) -> c_int {
    let body_of_int = || if body().is_some() { MI_SUCCESS } else { MI_FAILURE };
    panics::catch(body_of_int).unwrap_or_else(|panic| failed(export_of::<B>(), &panic))
}

/// The name of the function that a closure stands in.
fn export_of<B>() -> &'static str {
    let name = std::any::type_name::<B>().trim_end_matches("::{{closure}}");
    match name.rsplit("::").next() {
        // What the naked function calls.
        Some("set_reply_of_lines") => "smfi_setmlreply",
        last => last.unwrap_or(name),
    }
}

#[cold]
fn failed<T: Failure>(export: &str, panic: &Panic) -> T {
    // If it fails, nobody is there to read the line.
    let _ = panics::catch(|| library::complain(format_args!("internal error in {export}: {panic}")));
    T::FAILURE
}

/// The context behind a pointer, unless it is NULL or its session has ended.
///
/// # Safety
/// As the module says of `ctx`.
unsafe fn context<'a>(ctx: *mut SMFICTX) -> Option<&'a Context> {
    // SAFETY: a pointer that a callback received is that of a `Context`, which the engine keeps for a while after
    // the session; all its methods take `&self`.
    unsafe { ctx.cast::<Context>().as_ref() }.filter(|ctx| !ctx.has_ended())
}

/// The bytes of a C string, without its NUL; `None` for NULL.
///
/// # Safety
/// As the module says of `char *`.
unsafe fn bytes<'a>(string: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: not NULL, so it ends with NUL.
    (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) }.to_bytes())
}

/// [`bytes`] that must not be empty.
///
/// # Safety
/// As [`bytes`].
unsafe fn filled<'a>(string: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe { bytes(string) }.filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log;

    fn smfi_example(fails: bool) -> c_int {
        entry_if(|| {
            assert!(!fails, "a bug");
            Some(())
        })
    }

    #[test]
    fn a_panic_is_logged_with_the_name_of_the_export() {
        assert_eq!((smfi_example(false), log::take_lines().len()), (MI_SUCCESS, 0));
        assert_eq!(smfi_example(true), MI_FAILURE);
        let lines = log::take_lines();
        let begin = format!("3 libmilter: internal error in smfi_example: a bug at {}:", file!());
        assert!(lines.len() == 1 && lines[0].starts_with(&begin), "{lines:?}");
        let pointer: *mut c_void = entry(|| panic!("another"));
        assert!(pointer.is_null());
        assert!(
            log::take_lines()[0]
                .contains("internal error in a_panic_is_logged_with_the_name_of_the_export: ")
        );
    }
}
