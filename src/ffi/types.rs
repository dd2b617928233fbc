//! The types and constants of the C API: what cbindgen prints, together with the exported functions, as
//! `libmilter/mfapi.h`. Nothing here does anything; what only C can say (conditional definitions, macros with
//! arguments) stands in cbindgen.toml.

#![expect(dead_code, reason = "the constants are for C programs: cbindgen prints them")]
#![expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "the names of the C API")]

use libc::sockaddr;
use std::ffi::{c_char, c_int, c_long, c_uchar, c_ulong};

/// The version of the API that a filter asks for: `major << 24 | minor << 8 | patch level`.
pub const SMFI_VERSION: c_int = 0x0100_0001;

/// The call succeeded.
pub const MI_SUCCESS: c_int = 0;
/// The call failed, and changed nothing.
pub const MI_FAILURE: c_int = -1;

/// No action.
pub const SMFIF_NONE: c_long = 0x0000_0000;
/// The filter may add headers.
pub const SMFIF_ADDHDRS: c_long = 0x0000_0001;
/// The filter may replace the body.
pub const SMFIF_CHGBODY: c_long = 0x0000_0002;
/// The filter may replace the body: the older name.
pub const SMFIF_MODBODY: c_long = SMFIF_CHGBODY;
/// The filter may add recipients.
pub const SMFIF_ADDRCPT: c_long = 0x0000_0004;
/// The filter may delete recipients.
pub const SMFIF_DELRCPT: c_long = 0x0000_0008;
/// The filter may change or delete headers.
pub const SMFIF_CHGHDRS: c_long = 0x0000_0010;
/// The filter may quarantine messages.
pub const SMFIF_QUARANTINE: c_long = 0x0000_0020;
/// The filter may change the sender.
pub const SMFIF_CHGFROM: c_long = 0x0000_0040;
/// The filter may add recipients with ESMTP parameters.
pub const SMFIF_ADDRCPT_PAR: c_long = 0x0000_0080;
/// The filter may say which macros it wants.
pub const SMFIF_SETSYMLIST: c_long = 0x0000_0100;

/// No stage of macros.
pub const SMFIM_NOMACROS: c_int = -1;
/// The first stage of macros.
pub const SMFIM_FIRST: c_int = 0;
/// Macros of the connection.
pub const SMFIM_CONNECT: c_int = 0;
/// Macros of HELO.
pub const SMFIM_HELO: c_int = 1;
/// Macros of MAIL.
pub const SMFIM_ENVFROM: c_int = 2;
/// Macros of RCPT.
pub const SMFIM_ENVRCPT: c_int = 3;
/// Macros of DATA.
pub const SMFIM_DATA: c_int = 4;
/// Macros of the end of message.
pub const SMFIM_EOM: c_int = 5;
/// Macros of the end of the header.
pub const SMFIM_EOH: c_int = 6;
/// The last stage of macros.
pub const SMFIM_LAST: c_int = 6;

/// What a callback returns: one of the SMFIS_ values.
pub type sfsistat = c_int;

/// Go on.
pub const SMFIS_CONTINUE: c_int = 0;
/// Reject: the client, the command, the recipient or the message, by stage.
pub const SMFIS_REJECT: c_int = 1;
/// Accept the message for the client, but do not deliver it.
pub const SMFIS_DISCARD: c_int = 2;
/// Accept, and do not ask this filter again.
pub const SMFIS_ACCEPT: c_int = 3;
/// Reject for now: the client may try again later.
pub const SMFIS_TEMPFAIL: c_int = 4;
/// Do not answer: only where SMFIP_NR_ was negotiated.
pub const SMFIS_NOREPLY: c_int = 7;
/// Send no more of this kind (recipients, headers, pieces of the body): only where SMFIP_SKIP was negotiated.
pub const SMFIS_SKIP: c_int = 8;
/// Negotiate: everything that the MTA offers.
pub const SMFIS_ALL_OPTS: c_int = 10;

/// A session with the MTA: opaque. Callbacks receive it and hand it on to the functions of the library.
pub struct smfi_str {
    _opaque: [u8; 0],
}
/// A session with the MTA.
pub type SMFICTX = smfi_str;
/// A pointer to a session.
pub type SMFICTX_PTR = *mut SMFICTX;

/// `bool` of a C caller: `int` from old C, `_Bool` from others. A register holds either. (For a `u8` the compiler could assume
/// that the caller has cleared the rest.)
pub type sm_bool = c_int;

/// A filter: its name, the version of the API that it was written for, the actions (SMFIF_) that it may take, and
/// its callbacks. NULL for a callback: the MTA need not send what it is for.
///
/// Texts and bytes that a callback receives are its own until it returns: it may write to them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct smfiDesc {
    /// The filter's name, for the log.
    pub xxfi_name: *mut c_char,
    /// SMFI_VERSION.
    pub xxfi_version: c_int,
    /// SMFIF_ values.
    pub xxfi_flags: c_ulong,
    /// A client has connected; hostaddr is NULL when its address is unknown.
    pub xxfi_connect: Option<
        unsafe extern "C-unwind" fn(
            ctx: *mut SMFICTX,
            hostname: *mut c_char,
            hostaddr: *mut sockaddr,
        ) -> sfsistat,
    >,
    /// HELO or EHLO.
    pub xxfi_helo: Option<unsafe extern "C-unwind" fn(ctx: *mut SMFICTX, helohost: *mut c_char) -> sfsistat>,
    /// MAIL FROM: the address, its ESMTP parameters, NULL.
    pub xxfi_envfrom:
        Option<unsafe extern "C-unwind" fn(ctx: *mut SMFICTX, argv: *mut *mut c_char) -> sfsistat>,
    /// RCPT TO: the address, its ESMTP parameters, NULL.
    pub xxfi_envrcpt:
        Option<unsafe extern "C-unwind" fn(ctx: *mut SMFICTX, argv: *mut *mut c_char) -> sfsistat>,
    /// A header line.
    pub xxfi_header: Option<
        unsafe extern "C-unwind" fn(
            ctx: *mut SMFICTX,
            headerf: *mut c_char,
            headerv: *mut c_char,
        ) -> sfsistat,
    >,
    /// The end of the header.
    pub xxfi_eoh: Option<unsafe extern "C-unwind" fn(ctx: *mut SMFICTX) -> sfsistat>,
    /// A piece of the body.
    pub xxfi_body:
        Option<unsafe extern "C-unwind" fn(ctx: *mut SMFICTX, bodyp: *mut c_uchar, len: usize) -> sfsistat>,
    /// The end of the message: the one place where it may be changed.
    pub xxfi_eom: Option<unsafe extern "C-unwind" fn(ctx: *mut SMFICTX) -> sfsistat>,
    /// The message is given up.
    pub xxfi_abort: Option<unsafe extern "C-unwind" fn(ctx: *mut SMFICTX) -> sfsistat>,
    /// The session is over.
    pub xxfi_close: Option<unsafe extern "C-unwind" fn(ctx: *mut SMFICTX) -> sfsistat>,
    /// An SMTP command that the MTA does not know. Read only if xxfi_version is above 2.
    pub xxfi_unknown: Option<unsafe extern "C-unwind" fn(ctx: *mut SMFICTX, arg: *const c_char) -> sfsistat>,
    /// DATA. Read only if xxfi_version is above 3.
    pub xxfi_data: Option<unsafe extern "C-unwind" fn(ctx: *mut SMFICTX) -> sfsistat>,
    /// What the MTA offers (actions, steps), and what the filter takes of it. Read only if xxfi_version is above 4.
    pub xxfi_negotiate: Option<
        unsafe extern "C-unwind" fn(
            ctx: *mut SMFICTX,
            f0: c_ulong,
            f1: c_ulong,
            f2: c_ulong,
            f3: c_ulong,
            pf0: *mut c_ulong,
            pf1: *mut c_ulong,
            pf2: *mut c_ulong,
            pf3: *mut c_ulong,
        ) -> sfsistat,
    >,
}
/// The same, as a type name.
pub type smfiDesc_str = smfiDesc;
/// A pointer to it.
pub type smfiDesc_ptr = *mut smfiDesc;
