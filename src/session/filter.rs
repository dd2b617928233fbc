//! What a session needs from a mail filter: one method per stage. The C callbacks implement it in `ffi`, tests
//! in Rust.

use super::context::Context;
use crate::protocol::{Arguments, Choice, Kind, Offer, Peer, Refusal, Text, Wants};
use std::ffi::CStr;

/// What a filter answers at a stage: `SMFIS_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// 0 SMFIS_CONTINUE: go on
    Continue,
    /// 1 SMFIS_REJECT: reject the message, or this recipient
    Reject,
    /// 2 SMFIS_DISCARD: take the message and throw it away
    Discard,
    /// 3 SMFIS_ACCEPT: take the message, ask no more
    Accept,
    /// 4 SMFIS_TEMPFAIL: not now
    TempFail,
    /// 7 SMFIS_NOREPLY: no answer
    NoReply,
    /// 8 SMFIS_SKIP: no more of these commands
    Skip,
    /// No status at all.
    Invalid(i32),
}

impl Verdict {
    /// The return value that it stands for.
    pub fn to_raw(self) -> i32 {
        match self {
            Self::Continue => 0,
            Self::Reject => 1,
            Self::Discard => 2,
            Self::Accept => 3,
            Self::TempFail => 4,
            Self::NoReply => 7,
            Self::Skip => 8,
            Self::Invalid(status) => status,
        }
    }

    /// Reads a callback's return value; every value has a meaning.
    pub fn from_raw(status: i32) -> Self {
        match status {
            0 => Self::Continue,
            1 => Self::Reject,
            2 => Self::Discard,
            3 => Self::Accept,
            4 => Self::TempFail,
            7 => Self::NoReply,
            8 => Self::Skip,
            other => Self::Invalid(other),
        }
    }
}

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
    fn mail(&self, ctx: &Context, arguments: Arguments<'_>) -> Verdict;

    /// A recipient and ESMTP arguments.
    fn rcpt(&self, ctx: &Context, arguments: Arguments<'_>) -> Verdict;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statuses_of_c_and_all_others() {
        assert_eq!(Verdict::from_raw(0), Verdict::Continue);
        assert_eq!(Verdict::from_raw(7), Verdict::NoReply);
        assert_eq!(Verdict::from_raw(8), Verdict::Skip);
        assert!((-1..30).all(|status| Verdict::from_raw(status).to_raw() == status));
        for status in [-1, 5, 6, 9, 10, 11, 20, 21, 22, i32::MAX] {
            assert_eq!(Verdict::from_raw(status), Verdict::Invalid(status));
        }
    }
}
