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
#[unsafe(naked)]
pub(super) unsafe extern "C" fn outermost(
    ctx: *mut SMFICTX,
    first: *mut c_void,
    second: *mut c_void,
    callback: Code,
) -> sfsistat {
    #[cfg(target_arch = "x86_64")]
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
    #[cfg(target_arch = "aarch64")]
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
    #[cfg(target_arch = "riscv64")]
    core::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined ra",
        "addi sp, sp, -16",
        "sd ra, 8(sp)",
        "sd s0, 0(sp)",
        "addi s0, sp, 16",
        "jalr a3",
        "ld s0, 0(sp)",
        "ld ra, 8(sp)",
        "addi sp, sp, 16",
        "ret",
        ".cfi_endproc",
    );
    #[cfg(target_arch = "s390x")]
    core::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined %r14",
        "stmg %r14, %r15, 112(%r15)",
        "lgr %r1, %r15",
        "aghi %r15, -160",
        "stg %r1, 0(%r15)",
        "basr %r14, %r5",
        "lmg %r14, %r15, 272(%r15)",
        "br %r14",
        ".cfi_endproc",
    );
    // A function that is called through a pointer wants its address in r12, and may change r2. 65 is the link register.
    #[cfg(target_arch = "powerpc64")]
    core::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined 65",
        "mflr 0",
        "std 0, 16(1)",
        "stdu 1, -32(1)",
        "std 2, 24(1)",
        "mr 12, 6",
        "mtctr 12",
        "bctrl",
        "ld 2, 24(1)",
        "addi 1, 1, 32",
        "ld 0, 16(1)",
        "mtlr 0",
        "blr",
        ".cfi_endproc",
    );
    // Its unwinder has tables of its own, in which this has a word.
    #[cfg(target_arch = "arm")]
    core::arch::naked_asm!(
        ".fnstart",
        ".cantunwind",
        "push {{r11, lr}}",
        "mov r11, sp",
        "blx r3",
        "pop {{r11, pc}}",
        ".fnend",
    );
    #[cfg(target_arch = "x86")]
    core::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined eip",
        "push ebp",
        "mov ebp, esp",
        "sub esp, 24",
        "mov eax, [ebp + 16]",
        "mov [esp + 8], eax",
        "mov eax, [ebp + 12]",
        "mov [esp + 4], eax",
        "mov eax, [ebp + 8]",
        "mov [esp], eax",
        "call [ebp + 20]",
        "leave",
        "ret",
        ".cfi_endproc",
    );
}
