//! Why a session ends, and what of it is logged.

use super::context::Context;
use super::foreign;
use super::link::Link;
use crate::log::{self, LineKind};
use crate::observe::{Ending, Fault};
use crate::panics::Panic;
use crate::protocol::{FrameError, Kind, Malformed, Refusal, Stage};
use std::ffi::CStr;
use std::io;
use std::time::Duration;

/// Of the sessions that end in disorder in the same way, one is logged in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// The MTA said QUIT.
    Quit,
    /// The MTA closed the connection.
    Closed,
    /// The process stops.
    Shutdown,
    /// Nothing came, or not a whole frame, or the MTA did not take a reply in time.
    TimedOut,
    /// There is no memory for what the MTA sends.
    NoMemory,
    /// The connection broke.
    Broken(io::Error),
    /// The connection broke before the MTA had sent anything: somebody looked whether the filter listens.
    Unused,
    /// A frame that is none.
    Frame(FrameError),
    /// A command that is none.
    Malformed(Malformed),
    /// MTA and filter do not agree.
    Refused(Refusal),
    /// A callback's status is none.
    Status(Kind, i32),
    /// The filter's own SMTP reply does not fit into a frame.
    ReplyTooLarge,
    /// The answer to the negotiation does not fit into a frame.
    NegotiationTooLarge,
    /// A bug in this library.
    Panicked(Box<Panic>),
}

impl std::fmt::Display for End {
    /// What to log, unless the end is an orderly one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Quit | Self::Closed | Self::Shutdown | Self::Unused => f.write_str("session ended"),
            Self::TimedOut => f.write_str("timed out waiting for the MTA, session ended"),
            Self::Broken(error) => write!(f, "connection to the MTA broke: {error}"),
            Self::Frame(error) => write!(f, "protocol error: {error}, session ended"),
            Self::Malformed(error) => write!(f, "protocol error: {error}, session ended"),
            Self::Refused(refusal) => write!(f, "{refusal}, session ended"),
            Self::ReplyTooLarge => {
                f.write_str("the SMTP reply is larger than smfi_setmaxdatasize allows, session ended")
            }
            Self::NegotiationTooLarge => f.write_str(
                "negotiation: the answer is larger than smfi_setmaxdatasize allows, session ended",
            ),
            Self::NoMemory => f.write_str("no memory for what the MTA sends, session ended"),
            Self::Panicked(panic) => write!(f, "internal error: {panic}, session ended"),
            Self::Status(kind, status) => {
                let name = kind.name();
                write!(f, "the {name} callback returned {status}, which is no status, session ended")
            }
        }
    }
}

impl End {
    /// Whether there is nothing to complain about.
    pub(super) fn is_orderly(&self) -> bool {
        matches!(self, Self::Quit | Self::Closed | Self::Shutdown | Self::Unused)
    }

    /// Why, in a word or two, for whoever sorts lines.
    fn reason(&self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Closed => "closed",
            Self::Shutdown => "stop",
            Self::Unused => "unused",
            _ => self.kind().0,
        }
    }

    /// The protocol that the other end speaks, if the first frame is none and it is a known one.
    fn foreign_protocol(&self) -> Option<&'static str> {
        let Self::Frame(FrameError::TooLong { payload, .. }) = self else { return None };
        foreign::protocol(u32::try_from(payload + 1).ok()?.to_be_bytes())
    }

    /// What the complaint is about: ends of the same kind differ only in numbers.
    fn kind(&self) -> LineKind {
        let of = |about, kind: Kind| LineKind(about, u8::from(kind).into());
        match self {
            Self::Quit | Self::Closed | Self::Shutdown | Self::Unused => LineKind("orderly", 0),
            Self::TimedOut => LineKind("timed out", 0),
            Self::NoMemory => LineKind("no memory", 0),
            Self::Broken(_) => LineKind("broken", 0),
            Self::Frame(FrameError::Empty) => LineKind("frame", 0),
            Self::Frame(FrameError::TooLong { .. }) => LineKind("frame", 1),
            Self::Malformed(error) => match error {
                Malformed::UnknownCommand(_) => LineKind("unknown command", 0),
                Malformed::NoData(kind) => of("no data", *kind),
                Malformed::Unterminated(kind) => of("unterminated", *kind),
                Malformed::NotTwoStrings => LineKind("header", 0),
                Malformed::Address { .. } => LineKind("address", 0),
                Malformed::Offer(refusal) => Self::refusal_kind(refusal),
            },
            Self::Refused(refusal) => Self::refusal_kind(refusal),
            Self::Status(kind, _) => of("status", *kind),
            Self::ReplyTooLarge => LineKind("too large", 0),
            Self::NegotiationTooLarge => LineKind("too large", 1),
            Self::Panicked(panic) => LineKind("internal error", panic.line()),
        }
    }

    /// What those hear of it who observe the session.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Quit => Ending::Quit,
            Self::Closed => Ending::Closed,
            Self::Shutdown => Ending::Stopped,
            Self::TimedOut => Ending::TimedOut,
            Self::NoMemory => Ending::NoMemory,
            Self::Broken(_) => Ending::Broken,
            Self::Unused => Ending::Unused,
            Self::Frame(_) => Ending::Fault(Fault::Frame),
            Self::Malformed(error) => Ending::Fault(match error {
                Malformed::UnknownCommand(_) => Fault::UnknownCommand,
                Malformed::NoData(_) => Fault::NoData,
                Malformed::Unterminated(_) => Fault::Unterminated,
                Malformed::NotTwoStrings => Fault::Header,
                Malformed::Address { .. } => Fault::Address,
                Malformed::Offer(_) => Fault::Negotiation,
            }),
            Self::Refused(_) => Ending::NoAgreement,
            Self::Status(..) => Ending::BadStatus,
            Self::ReplyTooLarge | Self::NegotiationTooLarge => Ending::TooLarge,
            Self::Panicked(_) => Ending::Internal,
        }
    }

    fn refusal_kind(refusal: &Refusal) -> LineKind {
        LineKind(
            "negotiation",
            match refusal {
                Refusal::Short { .. } => 0,
                Refusal::Version(_) => 1,
                Refusal::Callback(_) => 2,
                Refusal::Actions { .. } => 3,
                Refusal::Steps { .. } => 4,
            },
        )
    }

    /// Logs the end of a session, if it is out of order or somebody wants to know of each.
    #[cold]
    pub(super) fn log(&self, name: &CStr, stage: Stage, ctx: &Context, link: &Link) {
        if log::debug_wanted(1) {
            log::debug(name, format_args!("session ends at stage {stage:?}: {self:?}"));
        }
        if log::details_wanted() {
            self.log_with_details(name, stage, ctx, link);
        } else if !self.is_orderly() {
            log::error_at_most(COMPLAIN_EVERY, self.kind(), name, format_args!("{self}"));
        }
    }

    #[cold]
    fn log_with_details(&self, name: &CStr, stage: Stage, ctx: &Context, link: &Link) {
        let is_cut_off = matches!(self, Self::Shutdown) && stage.in_message();
        let priority = match self {
            _ if !self.is_orderly() => libc::LOG_ERR,
            _ if is_cut_off => libc::LOG_WARNING,
            _ => libc::LOG_INFO,
        };
        if !log::is_wanted(priority) {
            return;
        }
        let mut queue_id = Vec::new();
        ctx.copy_queue_id(&mut queue_id);
        let about = log::About {
            session: ctx.number(),
            peer: ctx.peer(link).to_string(),
            queue_id,
            reason: Some(self.reason()),
        };
        // Whoever wants to know of each session gets a line for each.
        let kind = if is_cut_off { LineKind("cut off", 0) } else { self.kind() };
        let limit = (!log::is_wanted(libc::LOG_INFO)).then_some((COMPLAIN_EVERY, kind));
        let log = |message: std::fmt::Arguments<'_>| {
            log::about_session(priority, limit, name, message, &about);
        };
        let foreign = if stage == Stage::Init { self.foreign_protocol() } else { None };
        match (self, foreign) {
            (Self::Quit, _) => log(format_args!("the MTA has ended the session")),
            (Self::Closed, _) => log(format_args!("the MTA has closed the connection, session ended")),
            (Self::Shutdown, _) if is_cut_off => {
                log(format_args!("the filter stops: a message is cut off, session ended"));
            }
            (Self::Shutdown, _) => log(format_args!("the filter stops, session ended")),
            (Self::Unused, _) => log(format_args!("a connection was not used")),
            (_, Some(protocol)) => log(format_args!("{self}: the other end speaks {protocol}")),
            _ => log(format_args!("{self}")),
        }
    }
}

/// Not inlined, or the error would be prepared for every command.
#[cold]
#[inline(never)]
pub(super) fn malformed(error: Malformed) -> End {
    End::Malformed(error)
}

#[cold]
pub(super) fn broken(error: impl Into<io::Error>) -> End {
    let error = error.into();
    match error.kind() {
        io::ErrorKind::TimedOut => End::TimedOut,
        io::ErrorKind::ConnectionAborted => End::Shutdown,
        io::ErrorKind::OutOfMemory => End::NoMemory,
        _ => End::Broken(error),
    }
}
