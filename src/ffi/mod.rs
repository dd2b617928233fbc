//! The C interface: the only `extern "C"` of the crate. An export is a mapping of a few lines that ends in a
//! safe call; the oddities of smfi_* live here and nowhere below.
//!
//! # Safety
//!
//! What holds for every export and is not repeated there:
//! - `ctx` is NULL or the pointer that a callback of a session received. A context whose session ended a while ago
//!   is still recognised, and calls with it fail; one that ended long ago must not be used.
//! - A `char *` is NULL or points to a string that ends with NUL and that nobody changes during the call.
//! - No panic leaves an export: it becomes the failure value of the return type.

mod callbacks;
mod context;
mod library;
mod message;
pub mod mfdef;
pub mod types;
mod undeclared;
mod variadic;

use crate::session::Context;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// Runs the body of an export; a panic becomes a failure.
fn entry<T: Failure>(body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(T::FAILURE)
}

/// [`entry`] for a body that gives up with `None`.
fn entry_if(body: impl FnOnce() -> Option<()>) -> c_int {
    entry(|| if body().is_some() { MI_SUCCESS } else { MI_FAILURE })
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
