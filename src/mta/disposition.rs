//! What becomes of a message.

use std::str::FromStr;

/// What is decided on a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// It goes on its way; perhaps only into quarantine.
    Accepted,
    /// Refused for good; the SMTP client reads this reply.
    Rejected(Vec<u8>),
    /// Refused for now; the SMTP client reads this reply.
    TempFailed(Vec<u8>),
    /// Thrown away.
    Discarded,
    /// The client gave up before the filter could decide.
    GivenUp,
}

impl Disposition {
    /// What a reply of class 4 or 5 decides.
    pub(super) fn of_class(reply: Vec<u8>) -> Self {
        if reply.starts_with(b"4") { Self::TempFailed(reply) } else { Self::Rejected(reply) }
    }

    /// What the SMTP client reads if the message is refused: all that the MTA writes, but for the last line end.
    pub fn reply(&self) -> Option<&[u8]> {
        match self {
            Self::Rejected(reply) | Self::TempFailed(reply) => Some(reply),
            Self::Accepted | Self::Discarded | Self::GivenUp => None,
        }
    }

    /// Whether the MTA closes the connection to its client behind the reply.
    pub fn hangs_up(&self) -> bool {
        self.reply().is_some_and(|reply| reply.starts_with(b"421"))
    }
}

/// What the MTA does when a filter fails: Postfix's `milter_default_action`, Sendmail's `F=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultAction {
    /// Refuse for now (`F=T`).
    TempFail,
    /// Refuse for good (`F=R`).
    Reject,
    /// Go on as if there were no filter (no `F=`).
    Accept,
    /// Accept, and hold. Sendmail has no such setting.
    Quarantine,
    /// Answer 421 and hang up (`F=4`). Postfix has it since 3.11, and in 3.7 since 3.7.20.
    Shutdown,
}

impl FromStr for DefaultAction {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "tempfail" => Self::TempFail,
            "reject" => Self::Reject,
            "accept" => Self::Accept,
            "quarantine" => Self::Quarantine,
            "shutdown" => Self::Shutdown,
            _ => return Err("expected tempfail, reject, accept, quarantine or shutdown"),
        })
    }
}
