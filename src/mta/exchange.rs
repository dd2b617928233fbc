//! One command and what came of it.

use super::change::Change;
use super::disposition::Disposition;
use super::error::Error;
use super::macros::Definitions;
use super::warning::Warning;
use crate::protocol::{Kind, Reply};

/// A filter's answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// No more questions: accepted.
    Accept,
    /// Refused for good.
    Reject,
    /// Refused for now.
    TempFail,
    /// Accepted, as far as the client knows, and thrown away.
    Discard,
    /// Enough seen; how much is left out depends on the MTA.
    Skip,
    /// Refused with an SMTP reply of the filter's own; `4` in front means for now.
    Custom(Vec<u8>),
    /// The MTA shall hang up. Only Postfix knows that.
    Shutdown,
}

impl From<Reply> for Verdict {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Continue => Self::Continue,
            Reply::Accept => Self::Accept,
            Reply::Reject => Self::Reject,
            Reply::TempFail => Self::TempFail,
            Reply::Discard => Self::Discard,
            Reply::Skip => Self::Skip,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The filter answered.
    Answered(Verdict),
    /// It was sent; the filter had said that it would not answer.
    NotAwaited,
    /// It was sent; there never is an answer.
    NoneDue,
    /// It was not sent.
    NotSent(Omission),
    /// The MTA refused what the filter answered: why.
    Refused(String),
    /// The filter failed, and the MTA goes on without it.
    Failed(Failure),
}

/// How a filter failed without which its MTA goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The [`Error`] in words.
    pub text: String,
    /// Whether the filter broke the protocol, or closed the connection; not so if it was too slow, or the system
    /// failed.
    pub broke_protocol: bool,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self { text: error.to_string(), broke_protocol: matches!(error, Error::Protocol { .. }) }
    }
}

/// Why a command was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Omission {
    /// The filter does not want to see it at all.
    SwitchedOff,
    /// The filter has seen enough of this kind.
    Skipped,
    /// The protocol version does not have it.
    Version,
    /// The MTA has given the filter up.
    Lost,
    /// The filter has answered "quarantine", and hears of the messages alone.
    Held,
    /// The MTA has refused the recipient, and the filter does not ask for such.
    Refused,
}

/// One command and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The command.
    pub command: Kind,
    /// What it carried, for people.
    pub argument: Vec<u8>,
    /// The macros that were sent with it, name and value; `None` if no macro frame was sent.
    pub macros: Option<Definitions>,
    /// How often the filter asked for more time.
    pub progress: usize,
    /// What the filter wanted changed.
    pub changes: Vec<Change>,
    /// How it ended.
    pub outcome: Outcome,
    /// What it decides on the message, or on the whole SMTP session, if anything.
    pub decision: Option<Disposition>,
    /// What the SMTP client reads because of it. To SMTP, all parts of a message are one question: this answers it.
    pub reply: Option<Vec<u8>>,
    /// Why the message is to be held, if the filter, or its failure, holds it before its end.
    pub quarantine: Option<Vec<u8>>,
    /// What the MTA repairs, ignores or answers otherwise than the filter meant.
    pub warnings: Vec<Warning>,
}

impl Exchange {
    /// Starts with nothing but the question.
    pub fn new(command: Kind, argument: Vec<u8>) -> Self {
        Self {
            command,
            argument,
            macros: None,
            progress: 0,
            changes: Vec::new(),
            outcome: Outcome::NoneDue,
            decision: None,
            reply: None,
            quarantine: None,
            warnings: Vec::new(),
        }
    }

    /// The verdict; a filter that says nothing wants to go on.
    pub fn verdict(&self) -> &Verdict {
        match &self.outcome {
            Outcome::Answered(verdict) => verdict,
            _ => &Verdict::Continue,
        }
    }
}
