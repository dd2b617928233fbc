//! What a session needs from a mail filter: one method per stage. The C callbacks implement it in `ffi`, tests
//! in Rust.

use super::context::Context;
use crate::protocol::{Arguments, Choice, Kind, Offer, Peer, Refusal, Text, Wants};
use std::ffi::CStr;

/// What a filter answers at a stage: a callback's return value, `SMFIS_*`. Any number but these ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict(pub i32);

impl Verdict {
    /// SMFIS_CONTINUE: go on
    pub const CONTINUE: Self = Self(0);
    /// SMFIS_REJECT: reject the message, or this recipient
    pub const REJECT: Self = Self(1);
    /// SMFIS_DISCARD: take the message and throw it away
    pub const DISCARD: Self = Self(2);
    /// SMFIS_ACCEPT: take the message, ask no more
    pub const ACCEPT: Self = Self(3);
    /// SMFIS_TEMPFAIL: not now
    pub const TEMPFAIL: Self = Self(4);
    /// SMFIS_NOREPLY: no answer
    pub const NOREPLY: Self = Self(7);
    /// SMFIS_SKIP: no more of these commands
    pub const SKIP: Self = Self(8);
}

/// There is no memory for what a callback needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMemory;

/// A mail filter. One value serves all sessions; what belongs to one session hangs on its [`Context`].
///
/// A session calls its methods one after the other, but perhaps from different threads. It calls the method
/// for a command only if the filter [has](Self::has) it.
pub trait Filter: Send + Sync + 'static {
    /// The name in front of log lines.
    fn name(&self) -> &CStr;

    /// What it registered.
    fn wants(&self) -> Wants;

    /// Whether it wants to see this command. If not, the command is not even decoded, and the answer, where
    /// one is due, is "continue". For negotiation, macros, BODYEOB, ABORT and QUIT it is always so.
    fn has(&self, kind: Kind) -> bool;

    /// The MTA offers its services.
    ///
    /// # Errors
    /// The filter does not want this session.
    fn negotiate(&self, ctx: &Context, offer: &Offer) -> Result<Choice, Refusal>;

    /// An SMTP client has connected: its host name and address.
    fn connect(&self, ctx: &Context, host: Text<'_>, peer: Peer<'_>) -> Verdict;

    /// HELO or EHLO.
    fn helo(&self, ctx: &Context, name: Text<'_>) -> Verdict;

    /// The sender and ESMTP arguments.
    ///
    /// # Errors
    /// The list of the arguments could not be made.
    fn mail(&self, ctx: &Context, arguments: Arguments<'_>) -> Result<Verdict, NoMemory>;

    /// A recipient and ESMTP arguments.
    ///
    /// # Errors
    /// As of [`Self::mail`].
    fn rcpt(&self, ctx: &Context, arguments: Arguments<'_>) -> Result<Verdict, NoMemory>;

    /// DATA.
    fn data(&self, ctx: &Context) -> Verdict;

    /// A header field.
    fn header(&self, ctx: &Context, name: Text<'_>, value: Text<'_>) -> Verdict;

    /// The end of the header.
    fn end_of_header(&self, ctx: &Context) -> Verdict;

    /// A piece of the body. One NUL that is not part of it stands behind it.
    fn body(&self, ctx: &Context, piece: &mut [u8]) -> Verdict;

    /// The end of the message.
    fn end_of_message(&self, ctx: &Context) -> Verdict;

    /// An SMTP command that the MTA does not know. One NUL stands behind it.
    fn unknown(&self, ctx: &Context, line: &mut [u8]) -> Verdict;

    /// The message is given up.
    fn abort(&self, ctx: &Context);

    /// The session ends.
    fn close(&self, ctx: &Context);
}
