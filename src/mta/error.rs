//! What can go wrong between MTA and filter, told so that the author of a filter knows where to look.

use std::fmt;
use std::io;
use std::time::Duration;

use super::warning::Warning;
use crate::count::Count;
use crate::protocol::{Actions, FrameError, Kind, Steps};

/// Why a conversation with a filter ended too early.
#[derive(Debug)]
pub enum Error {
    /// No connection to the filter.
    Connect {
        /// The filter's address, as it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Sending or receiving failed.
    Io {
        /// The command under way.
        during: Kind,
        /// What the system said.
        source: io::Error,
    },
    /// The filter did not answer in time.
    Timeout {
        /// The command that was not answered.
        during: Kind,
        /// How long it had.
        after: Duration,
    },
    /// The filter did what the protocol does not allow.
    Protocol {
        /// The command under way.
        during: Kind,
        /// What it did.
        fault: Fault,
    },
}

/// How a filter can break the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It closed the connection instead of answering.
    Closed,
    /// It closed the connection inside a frame.
    Truncated,
    /// It sent what cannot be a frame.
    Frame(FrameError),
    /// It is no filter: it speaks this protocol.
    OtherProtocol(&'static str),
    /// It sent a frame that no filter may send, or that is not built as it must be.
    Malformed {
        /// The frame's command byte.
        kind: u8,
        /// Its payload, in bytes.
        length: usize,
    },
    /// It sent something else than was due: an answer to a negotiation in the middle of a message, say.
    OutOfPlace {
        /// The frame's command byte.
        kind: u8,
    },
    /// It answered the negotiation with a version that does not exist or is newer than what was offered.
    Version(u32),
    /// It wants modifications that were not offered.
    Actions(Actions),
    /// It wants steps left out, or unanswered, that were not offered.
    Steps(Steps),
    /// It sent something that nobody had asked for; the byte of the frame, if that has come.
    Unasked(Option<u8>),
    /// It did what its MTA would have got over, and that shall not pass.
    Warned(Warning),
}

impl Error {
    /// Whether it is the filter's connection or the filter itself that failed, so that an MTA takes its default
    /// action. What [`Fault::Unasked`] and [`Fault::Warned`] tell of, an MTA does not notice or does not mind.
    pub(super) fn loses_the_filter(&self) -> bool {
        !matches!(self, Self::Protocol { fault: Fault::Unasked(_) | Fault::Warned(_), .. })
    }

    /// Whether a frame has come that has no place where it came, and not a failure of the connection.
    pub(super) fn is_unexpected_frame(&self) -> bool {
        use Fault::{Malformed, OutOfPlace};
        let Self::Protocol { fault, .. } = self else { return false };
        matches!(fault, Malformed { .. } | OutOfPlace { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { address, source } => write!(f, "cannot connect to {address}: {source}"),
            Self::Io { during, source } => write!(f, "{}: {source}", during.name()),
            Self::Timeout { during, after } => {
                write!(f, "{}: no answer within {after:?}", during.name())
            }
            Self::Protocol { during, fault } => write!(f, "{}: {fault}", during.name()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the filter closed the connection"),
            Self::Truncated => f.write_str("the filter closed the connection inside a frame"),
            Self::Frame(error) => error.fmt(f),
            Self::OtherProtocol(name) => write!(f, "the peer speaks {name}, not the milter protocol"),
            Self::Malformed { kind, length } => {
                let (kind, data) = (kind.escape_ascii(), Count(*length, "byte"));
                write!(f, "the filter sent '{kind}' with {data}, which it must not")
            }
            Self::OutOfPlace { kind } => {
                write!(f, "the filter sent '{}', which has no place here", kind.escape_ascii())
            }
            Self::Version(version) => write!(f, "the filter answered with version {version}"),
            Self::Actions(actions) => write!(f, "the filter wants {}, not offered", flag_names(actions)),
            Self::Steps(steps) => write!(f, "the filter wants {}, not offered", flag_names(steps)),
            Self::Unasked(kind) => {
                let kind =
                    kind.map_or_else(|| "something".to_owned(), |kind| format!("'{}'", kind.escape_ascii()));
                write!(
                    f,
                    "the filter sent {kind} unasked: a second answer, or one to a command that has none; \
                     to an MTA each further answer comes one command too early"
                )
            }
            Self::Warned(warning) => warning.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect { source, .. } | Self::Io { source, .. } => Some(source),
            Self::Protocol { fault: Fault::Frame(error), .. } => Some(error),
            Self::Timeout { .. } | Self::Protocol { .. } => None,
        }
    }
}

/// The names of flags; those that have none are one number at the end.
pub fn flag_list<F: bitflags::Flags<Bits = u32>>(flags: &F) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut named = 0;
    for (name, flag) in flags.iter_names() {
        named |= flag.bits();
        names.push(name.to_owned());
    }
    let unnamed = flags.bits() & !named;
    if unnamed != 0 {
        names.push(format!("{unnamed:#x}"));
    }
    names
}

/// [`flag_list`] as a line.
pub fn flag_names<F: bitflags::Flags<Bits = u32>>(flags: &F) -> String {
    let names = flag_list(flags);
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_names_or_a_number() {
        assert_eq!(flag_names(&Actions::empty()), "none");
        assert_eq!(flag_names(&(Actions::ADDHDRS | Actions::QUARANTINE)), "ADDHDRS QUARANTINE");
        assert_eq!(flag_names(&Steps::from_bits_retain(0x8000_0001)), "NOCONNECT 0x80000000");
    }

    #[test]
    fn an_error_names_the_command() {
        let error = Error::Timeout { during: Kind::Helo, after: Duration::from_millis(1500) };
        assert_eq!(error.to_string(), "HELO: no answer within 1.5s");
        let error = Error::Protocol { during: Kind::EndOfMessage, fault: Fault::OutOfPlace { kind: b'O' } };
        assert_eq!(error.to_string(), "BODYEOB: the filter sent 'O', which has no place here");
    }
}
