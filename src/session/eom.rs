//! The right to change the message. Only an [`EomScope`] can send a modification, and only the context hands one
//! out: between BODYEOB and the next command, to a filter that has negotiated the action.

use super::context::Context;
use crate::protocol::Modification;

/// The largest piece of a new body in one frame, in bytes.
pub const BODY_PIECE: usize = 65_535;

/// The right to change the message, for one call.
#[derive(Debug)]
pub struct EomScope<'a> {
    ctx: &'a Context,
}

/// A modification that could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// Larger than the largest frame.
    TooLarge,
    /// The connection is broken or the session has ended.
    Disconnected,
}

impl<'a> EomScope<'a> {
    pub(super) fn new(ctx: &'a Context) -> Self {
        Self { ctx }
    }

    /// Sends one modification, at the latest with the answer to BODYEOB.
    ///
    /// # Errors
    /// It is too large, or the connection is broken.
    pub fn send(&self, modification: Modification<'_>) -> Result<(), NotSent> {
        self.ctx.emit(modification, false)
    }

    /// Sends `body` in pieces, as one more part of the new body; an empty one is sent as one empty piece.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn replace_body(&self, body: &[u8]) -> Result<(), NotSent> {
        if body.is_empty() {
            return self.send(Modification::ReplaceBody(body));
        }
        body.chunks(BODY_PIECE).try_for_each(|piece| self.send(Modification::ReplaceBody(piece)))
    }
}
