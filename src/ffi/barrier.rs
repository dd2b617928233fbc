//! The way into a callback, through which nothing comes back but a return. Unwinding (a C++ exception, pthread_exit,
//! another program's panic) must not go on through this library, whose frames know nothing of it. So a callback is called
//! by an entry that says to the unwinder: this is the outermost frame of the thread.
//!
//! - An exception that the callback does not catch finds no handler then. The C++ runtime ends the process where it was
//!   thrown, as with the reference: its message is printed, the filter's terminate handler called, the stack is in the
//!   core. Without this the search would find the `catch_unwind` that keeps this library's own bugs off the process.
//! - pthread_exit and cancellation unwind up to here and end the thread; `sys::thread` sees that, and ends the process.

use super::types::{SMFICTX, sfsistat};
use std::ffi::c_void;

/// A callback of any type.
pub(super) type Code = *const c_void;

/// Calls `callback` as if by nobody, with as many of the arguments as it takes.
///
/// # Safety
/// `callback` is a function that takes the context and up to two more arguments, all pointers or integers that these
/// are good for.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn outermost(
    ctx: *mut SMFICTX,
    first: *mut c_void,
    second: *mut c_void,
    callback: Code,
) -> sfsistat {
    core::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "push rbp",
        "mov rbp, rsp",
        "call rcx",
        "pop rbp",
        "ret",
        ".cfi_endproc",
    );
}

/// Calls `callback` as if by nobody, with as many of the arguments as it takes.
///
/// # Safety
/// `callback` is a function that takes the context and up to two more arguments, all pointers or integers that these
/// are good for.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn outermost(
    ctx: *mut SMFICTX,
    first: *mut c_void,
    second: *mut c_void,
    callback: Code,
) -> sfsistat {
    core::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined x30",
        "stp x29, x30, [sp, #-16]!",
        "mov x29, sp",
        "blr x3",
        "ldp x29, x30, [sp], #16",
        "ret",
        ".cfi_endproc",
    );
}
