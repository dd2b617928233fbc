//! smfi_setmlreply, the one variadic export. Defining C-variadic functions is not stable in Rust, but here all
//! variable arguments are `char *`, so they are in integer registers and then on the stack. The entry puts the
//! registers into memory and passes two arrays on. C's view of it, the prototype, stands in cbindgen.toml.

use super::types::SMFICTX;
use super::{bytes, context, entry_if};
use crate::protocol::SmtpReply;
use std::ffi::{c_char, c_int};

/// How many variable arguments come in registers.
#[cfg(target_arch = "x86_64")]
const IN_REGISTERS: usize = 3;

/// The entry for the System V calling convention: rdi, rsi, rdx are named arguments; rcx, r8, r9 and then the
/// caller's stack hold the variable ones.
///
/// # Safety
/// See the module `ffi`; the variable arguments are strings, and NULL behind the last.
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn smfi_setmlreply() {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "sub rsp, 24",
        ".cfi_adjust_cfa_offset 24",
        "mov [rsp], rcx",
        "mov [rsp + 8], r8",
        "mov [rsp + 16], r9",
        "mov rcx, rsp",
        "lea r8, [rsp + 32]",
        "call {inner}",
        "add rsp, 24",
        ".cfi_adjust_cfa_offset -24",
        "ret",
        ".cfi_endproc",
        inner = sym set_reply_of_lines,
    );
}

/// How many variable arguments come in registers.
#[cfg(target_arch = "aarch64")]
const IN_REGISTERS: usize = 5;

/// The entry for AAPCS64 as Linux uses it: x0 to x2 are named arguments; x3 to x7 and then the caller's stack hold
/// the variable ones.
///
/// # Safety
/// See the module `ffi`; the variable arguments are strings, and NULL behind the last.
#[cfg(target_arch = "aarch64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn smfi_setmlreply() {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "sub sp, sp, #48",
        ".cfi_adjust_cfa_offset 48",
        "str x30, [sp, #40]",
        ".cfi_rel_offset x30, 40",
        "stp x3, x4, [sp]",
        "stp x5, x6, [sp, #16]",
        "str x7, [sp, #32]",
        "mov x3, sp",
        "add x4, sp, #48",
        "bl {inner}",
        "ldr x30, [sp, #40]",
        ".cfi_restore x30",
        "add sp, sp, #48",
        ".cfi_adjust_cfa_offset -48",
        "ret",
        ".cfi_endproc",
        inner = sym set_reply_of_lines,
    );
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("smfi_setmlreply needs an entry for this architecture's calling convention");

/// The function proper: `registers` holds the first variable arguments, `stack` the others.
///
/// # Safety
/// As the entry; no argument behind the first NULL is read.
unsafe extern "C" fn set_reply_of_lines(
    ctx: *mut SMFICTX,
    rcode: *const c_char,
    xcode: *const c_char,
    registers: *const *const c_char,
    stack: *const *const c_char,
) -> c_int {
    entry_if(|| {
        // SAFETY: the caller keeps the promises of `ffi`.
        let (ctx, code, enhanced) = unsafe { (context(ctx)?, bytes(rcode)?, bytes(xcode)) };
        let lines = (0..).map_while(|index: usize| {
            // SAFETY: arguments are read in order up to the first NULL, so this one was passed; the first ones
            // stand in `registers`, the others in `stack`.
            unsafe {
                let argument = match index.checked_sub(IN_REGISTERS) {
                    None => registers.add(index),
                    Some(index) => stack.add(index),
                };
                bytes(*argument)
            }
        });
        ctx.set_reply(SmtpReply::multi(code, enhanced, lines).ok()?);
        Some(())
    })
}
