//! The way into a callback, through which nothing comes back but a return. Unwinding (a C++ exception, pthread_exit,
//! another program's panic) cannot go on through this library, whose frames know nothing of it:
//!
//! - An exception that the callback does not catch finds no handler, because the search for one ends at the entry below,
//!   which says that it is the outermost frame. So the C++ runtime ends the process where the exception was thrown, as it
//!   does with the reference: its message is printed, the filter's terminate handler called, the stack is in the core.
//! - pthread_exit and cancellation search for nothing, they unwind at once. They end the process at [`Barrier`].

use crate::log;
use std::ffi::{CStr, c_void};

/// Ends the process when it is dropped: whoever returns forgets it.
struct Barrier<'a> {
    filter: &'a CStr,
    callback: &'static str,
}

impl Drop for Barrier<'_> {
    fn drop(&mut self) {
        let callback = self.callback;
        log::error(self.filter, format_args!("pthread_exit left the {callback} callback, the process ends"));
        std::process::abort();
    }
}

/// A call and what comes of it.
struct Call<'a, F, T> {
    filter: &'a CStr,
    callback: &'static str,
    body: Option<F>,
    result: Option<T>,
}

/// Calls a callback of `filter`: `body` returns, or the process ends.
#[inline]
pub(super) fn enclosed<F: FnOnce() -> T, T>(filter: &CStr, callback: &'static str, body: F) -> T {
    let mut call = Call { filter, callback, body: Some(body), result: None };
    // SAFETY: `run` is made for this call, which lives until it has returned.
    unsafe { outermost(run::<F, T>, (&raw mut call).cast()) };
    call.result.expect("it has returned")
}

/// Makes a [`Call`].
///
/// # Safety
/// `call` leads to a `Call<F, T>` that nobody else uses meanwhile.
unsafe extern "C-unwind" fn run<F: FnOnce() -> T, T>(call: *mut c_void) {
    // SAFETY: the caller's promise.
    let call = unsafe { &mut *call.cast::<Call<'_, F, T>>() };
    let barrier = Barrier { filter: call.filter, callback: call.callback };
    call.result = call.body.take().map(|body| body());
    std::mem::forget(barrier);
}

/// Calls `body` with `argument`, as if by nobody: the unwinder takes this for the first frame of the thread.
///
/// # Safety
/// `body` may be called with `argument`, and unwinds only for reasons that look for no handler.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn outermost(body: unsafe extern "C-unwind" fn(*mut c_void), argument: *mut c_void) {
    core::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "push rbp",
        "mov rbp, rsp",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "pop rbp",
        "ret",
        ".cfi_endproc",
    );
}

/// Calls `body` with `argument`, as if by nobody: the unwinder takes this for the first frame of the thread.
///
/// # Safety
/// `body` may be called with `argument`, and unwinds only for reasons that look for no handler.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn outermost(body: unsafe extern "C-unwind" fn(*mut c_void), argument: *mut c_void) {
    core::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined x30",
        "stp x29, x30, [sp, #-16]!",
        "mov x29, sp",
        "mov x8, x0",
        "mov x0, x1",
        "blr x8",
        "ldp x29, x30, [sp], #16",
        "ret",
        ".cfi_endproc",
    );
}
