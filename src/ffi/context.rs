//! Exports that a filter may call at any time of a session (contract 2.3): macros, private data, replies.

use super::types::SMFICTX;
use super::variadic::{Variable, variadic};
use super::{bytes, context, entry, entry_if, filled};
use crate::protocol::{MacroStage, SmtpReply};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::{NonNull, null_mut};

/// The value of a macro, or NULL if the MTA has not sent it. `x` and `{x}` are the same name.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_getsymval(ctx: *mut SMFICTX, symname: *mut c_char) -> *mut c_char {
    entry(|| {
        // SAFETY: the caller keeps the promises of `ffi`.
        let (ctx, name) = unsafe { (context(ctx), filled(symname)) };
        let value = ctx.zip(name).and_then(|(ctx, name)| ctx.macro_value(name));
        value.map_or(null_mut(), |value: NonNull<u8>| value.as_ptr().cast())
    })
}

/// Sets the pointer that belongs to the filter in this session.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setpriv(ctx: *mut SMFICTX, privatedata: *mut c_void) -> c_int {
    // SAFETY: the caller keeps the promises of `ffi`.
    entry_if(|| unsafe { context(ctx) }.map(|ctx| ctx.set_private(privatedata)))
}

/// The pointer that smfi_setpriv has set, else NULL.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_getpriv(ctx: *mut SMFICTX) -> *mut c_void {
    // SAFETY: the caller keeps the promises of `ffi`.
    entry(|| unsafe { context(ctx) }.map_or(null_mut(), crate::session::Context::private))
}

/// Sets the SMTP reply of one line that stands for the next SMFIS_REJECT (code 5xx) or SMFIS_TEMPFAIL (4xx).
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setreply(
    ctx: *mut SMFICTX,
    rcode: *mut c_char,
    xcode: *mut c_char,
    message: *mut c_char,
) -> c_int {
    entry_if(|| {
        // SAFETY: the caller keeps the promises of `ffi`.
        let (ctx, code, enhanced, text) =
            unsafe { (context(ctx)?, bytes(rcode)?, bytes(xcode), bytes(message)) };
        ctx.set_reply(SmtpReply::single(code, enhanced, text).ok()?);
        Some(())
    })
}

variadic! {
    /// Sets the SMTP reply of one to 32 lines, the last argument being NULL, that stands for the next SMFIS_REJECT (code
    /// 5xx) or SMFIS_TEMPFAIL (4xx).
    smfi_setmlreply => set_reply_of_lines
}

/// The function proper.
///
/// # Safety
/// See the module `ffi`; the lines are strings, and NULL stands behind the last. No argument behind that is read.
unsafe extern "C" fn set_reply_of_lines(
    ctx: *mut SMFICTX,
    rcode: *const c_char,
    xcode: *const c_char,
    lines: &Variable,
) -> c_int {
    entry_if(|| {
        // SAFETY: the caller keeps the promises of `ffi`.
        let (ctx, code, enhanced) = unsafe { (context(ctx)?, bytes(rcode)?, bytes(xcode)) };
        // SAFETY: they are read in order up to the first NULL, so each was passed.
        let lines = (0..).map_while(|index| unsafe { bytes(lines.get(index)) });
        ctx.set_reply(SmtpReply::multi(code, enhanced, lines).ok()?);
        Some(())
    })
}

/// Asks for the macros of a stage (SMFIM_*): names separated by space. To be called in the negotiate callback.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setsymlist(ctx: *mut SMFICTX, stage: c_int, macros: *mut c_char) -> c_int {
    entry_if(|| {
        // SAFETY: the caller keeps the promises of `ffi`.
        let (ctx, names) = unsafe { (context(ctx)?, bytes(macros)?) };
        ctx.request_macros(MacroStage::from_number(stage)?, names).then_some(())
    })
}
