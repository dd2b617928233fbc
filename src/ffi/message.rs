//! Exports that change the message (contract 2.3). All but smfi_progress work only at the end of a message, and
//! only if the action was agreed on with the MTA.

use super::types::SMFICTX;
use super::{bytes, context, entry_if, filled};
use crate::protocol::{Actions, Modification};
use std::ffi::{c_char, c_int, c_uchar};

/// Sends a modification, if `action` is allowed now.
///
/// # Safety
/// As the module `ffi` says of `ctx`.
unsafe fn modify(ctx: *mut SMFICTX, action: Actions, modification: Modification<'_>) -> Option<()> {
    // SAFETY: the caller's promise.
    unsafe { context(ctx) }?.modify(action, modification).ok()
}

/// Adds a header field at the end.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_addheader(
    ctx: *mut SMFICTX,
    headerf: *mut c_char,
    headerv: *mut c_char,
) -> c_int {
    // SAFETY: the caller keeps the promises of `ffi`.
    entry_if(|| unsafe {
        let (name, value) = (filled(headerf)?, bytes(headerv)?);
        modify(ctx, Actions::ADDHDRS, Modification::AddHeader { name, value })
    })
}

/// Inserts a header field so that `hdridx` fields stand before it.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_insheader(
    ctx: *mut SMFICTX,
    hdridx: c_int,
    headerf: *mut c_char,
    headerv: *mut c_char,
) -> c_int {
    // SAFETY: the caller keeps the promises of `ffi`.
    entry_if(|| unsafe {
        let (index, name, value) = (u32::try_from(hdridx).ok()?, filled(headerf)?, bytes(headerv)?);
        modify(ctx, Actions::ADDHDRS, Modification::InsertHeader { index, name, value })
    })
}

/// Changes the `hdridx`-th field of this name, or deletes it if the value is NULL or empty.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_chgheader(
    ctx: *mut SMFICTX,
    headerf: *mut c_char,
    hdridx: c_int,
    headerv: *mut c_char,
) -> c_int {
    // SAFETY: the caller keeps the promises of `ffi`.
    entry_if(|| unsafe {
        let (index, name) = (u32::try_from(hdridx).ok()?, filled(headerf)?);
        let value = bytes(headerv).unwrap_or_default();
        modify(ctx, Actions::CHGHDRS, Modification::ChangeHeader { index, name, value })
    })
}

/// Changes the envelope sender; `args` are ESMTP arguments or NULL.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_chgfrom(ctx: *mut SMFICTX, mail: *mut c_char, args: *mut c_char) -> c_int {
    // SAFETY: the caller keeps the promises of `ffi`.
    entry_if(|| unsafe {
        let (address, arguments) = (filled(mail)?, bytes(args));
        modify(ctx, Actions::CHGFROM, Modification::ChangeSender { address, arguments })
    })
}

/// Adds a recipient.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_addrcpt(ctx: *mut SMFICTX, rcpt: *mut c_char) -> c_int {
    // SAFETY: the caller keeps the promises of `ffi`.
    entry_if(|| unsafe { modify(ctx, Actions::ADDRCPT, Modification::AddRecipient(filled(rcpt)?)) })
}

/// Adds a recipient; `args` are ESMTP arguments or NULL.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_addrcpt_par(ctx: *mut SMFICTX, rcpt: *mut c_char, args: *mut c_char) -> c_int {
    // SAFETY: the caller keeps the promises of `ffi`.
    entry_if(|| unsafe {
        let (address, arguments) = (filled(rcpt)?, bytes(args));
        modify(ctx, Actions::ADDRCPT_PAR, Modification::AddRecipientWith { address, arguments })
    })
}

/// Removes a recipient.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_delrcpt(ctx: *mut SMFICTX, rcpt: *mut c_char) -> c_int {
    // SAFETY: the caller keeps the promises of `ffi`.
    entry_if(|| unsafe { modify(ctx, Actions::DELRCPT, Modification::DeleteRecipient(filled(rcpt)?)) })
}

/// Replaces the body; several calls send the parts of the new body one after the other.
///
/// # Safety
/// See the module `ffi`; `bodyp` is NULL or points to `bodylen` bytes that nobody changes during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_replacebody(ctx: *mut SMFICTX, bodyp: *mut c_uchar, bodylen: c_int) -> c_int {
    entry_if(|| {
        let length = usize::try_from(bodylen).ok()?;
        let body = match (bodyp.is_null(), length) {
            (_, 0) => &[],
            (true, _) => return None,
            // SAFETY: the caller promises so many bytes.
            (false, length) => unsafe { std::slice::from_raw_parts(bodyp, length) },
        };
        // SAFETY: the caller keeps the promises of `ffi`.
        unsafe { context(ctx) }?.replace_body(body).ok()
    })
}

/// Asks the MTA to hold the message.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_quarantine(ctx: *mut SMFICTX, reason: *mut c_char) -> c_int {
    // SAFETY: the caller keeps the promises of `ffi`.
    entry_if(|| unsafe { modify(ctx, Actions::QUARANTINE, Modification::Quarantine(filled(reason)?)) })
}

/// Tells the MTA at once that the filter is still working.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_progress(ctx: *mut SMFICTX) -> c_int {
    // SAFETY: the caller keeps the promises of `ffi`.
    entry_if(|| unsafe { context(ctx) }?.progress().ok())
}
