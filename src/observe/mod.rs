//! What an administrator wants to see of sessions, and the one seam by which the session and the engine tell of it. Who
//! sets no variable (docs/man/libmilter.7) has no [`Observer`], and a session then asks no more than whether there is one.
//!
//! Nothing here changes a byte that is sent, or waits for whoever asks for metrics; for a disk that begins to hang it waits a
//! second, once. Who observes must not be able to hold up mail.
#![forbid(unsafe_code)]
#![cfg_attr(not(feature = "metrics"), allow(unused_variables, dead_code))]

mod check;
#[cfg(feature = "metrics")]
mod endpoint;
#[cfg(feature = "metrics")]
mod exposition;
#[cfg(feature = "metrics")]
mod metrics;
pub mod trace;
mod writer;

use crate::protocol::{Actions, Agreement, Choice, Kind, Modification, Offer, SmtpReply};
use crate::sys::clock;
use check::{Check, Facts};
use std::ffi::CStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use trace::{Trace, Traced};
use writer::Writer;

/// A callback that runs for so long counts as stuck, unless an administrator says what is slow.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Where the endpoint for Prometheus listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Inet(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

#[cfg(feature = "metrics")]
impl Address {
    /// Reads `address:port` or `unix:/path`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some(path) => path.starts_with('/').then(|| Self::Unix(path.into())),
            None => text.parse().ok().map(Self::Inet),
        }
    }
}

/// What is to be seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Numbers, for whoever asks there.
    pub metrics: Option<Address>,
    /// After how long a callback counts as stuck, if not after [`STUCK_AFTER`].
    pub stuck_after: Option<Duration>,
    /// The dialogue, in a file.
    pub trace: Option<trace::Settings>,
    /// What the filter does wrongly, in the log.
    pub check: bool,
}

/// Why a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The MTA said QUIT.
    Quit,
    /// The MTA closed the connection.
    Closed,
    /// The process stops.
    Stopped,
    /// The MTA did not speak, or listen, in time.
    TimedOut,
    /// There was no memory.
    NoMemory,
    /// The connection broke.
    Broken,
    /// The connection broke before anything had come.
    Unused,
    /// What the MTA sent is not the protocol.
    Fault(Fault),
    /// MTA and filter did not agree.
    NoAgreement,
    /// A callback returned what is no status.
    BadStatus,
    /// What the filter wanted to send does not fit into a frame.
    TooLarge,
    /// A bug in this library.
    Internal,
}

impl Ending {
    /// What it is called in metrics and traces.
    fn name(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Closed => "closed",
            Self::Stopped => "stopped",
            Self::TimedOut => "timeout",
            Self::NoMemory => "no_memory",
            Self::Broken => "broken",
            Self::Unused => "unused",
            Self::Fault(_) => "protocol_error",
            Self::NoAgreement => "no_agreement",
            Self::BadStatus => "bad_status",
            Self::TooLarge => "too_large",
            Self::Internal => "internal",
        }
    }
}

/// What an MTA does against the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A frame that is none.
    Frame,
    /// A command that nobody knows.
    UnknownCommand,
    /// A command without its data.
    NoData,
    /// A string that does not end.
    Unterminated,
    /// A header field that is none.
    Header,
    /// A client's address that is none.
    Address,
    /// An offer that cannot be answered.
    Negotiation,
    /// A command at the wrong time. The session goes on.
    OutOfOrder,
}

/// All that is seen of a server.
#[derive(Debug)]
pub struct Observer {
    #[cfg(feature = "metrics")]
    metrics: Option<metrics::Metrics>,
    trace: Option<Trace>,
    check: Option<Check>,
    /// How many sessions there were.
    sessions: AtomicU64,
}

/// One session, as it is seen.
#[derive(Debug)]
pub struct Observed {
    observer: Arc<Observer>,
    /// Its number; 1 is the first.
    #[cfg(feature = "metrics")]
    number: u64,
    traced: Traced,
    facts: Facts,
    #[cfg(feature = "metrics")]
    running: metrics::Running,
}

/// The threads that work for an observer: one that serves those who ask, one that writes. They end on drop.
#[derive(Debug)]
pub struct Helpers {
    #[cfg(feature = "metrics")]
    _endpoint: Option<endpoint::Endpoint>,
    _writer: Option<Writer>,
}

impl Observer {
    /// Begins to observe, if anything is to be seen. What cannot be had is logged in the name of the filter, and mail goes on
    /// without it.
    pub fn start(name: &CStr, settings: &Settings) -> (Option<Arc<Self>>, Helpers) {
        #[cfg(feature = "metrics")]
        let listener = settings.metrics.as_ref().and_then(|address| endpoint::listen(name, address));
        let (trace, writer) =
            settings.trace.as_ref().and_then(|settings| Trace::start(name, settings)).unzip();
        let observer = Arc::new(Self {
            #[cfg(feature = "metrics")]
            metrics: listener
                .is_some()
                .then(|| metrics::Metrics::new(name, settings.stuck_after.unwrap_or(STUCK_AFTER))),
            trace,
            check: settings.check.then(|| Check::new(name)),
            sessions: AtomicU64::new(0),
        });
        #[cfg(feature = "metrics")]
        let endpoint =
            listener.and_then(|listener| endpoint::Endpoint::start(name, listener, Arc::clone(&observer)));
        let helpers = Helpers {
            #[cfg(feature = "metrics")]
            _endpoint: endpoint,
            _writer: writer,
        };
        (observer.is_wanted().then_some(observer), helpers)
    }

    fn is_wanted(&self) -> bool {
        #[cfg(feature = "metrics")]
        if self.metrics.is_some() {
            return true;
        }
        self.trace.is_some() || self.check.is_some()
    }

    /// A session begins.
    pub fn session(self: &Arc<Self>) -> Arc<Observed> {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let observed = Arc::new(Observed {
            observer: Arc::clone(self),
            #[cfg(feature = "metrics")]
            number,
            traced: Traced::new(number),
            facts: Facts::default(),
            #[cfg(feature = "metrics")]
            running: metrics::Running::default(),
        });
        #[cfg(feature = "metrics")]
        if let Some(metrics) = &self.metrics {
            metrics.session_begins(&observed);
        }
        if let Some(trace) = &self.trace {
            trace.begins(&observed.traced);
        }
        observed
    }

    /// A connection was refused for want of something.
    pub fn refused(&self, missing: &str) {
        #[cfg(feature = "metrics")]
        if let Some(metrics) = &self.metrics {
            metrics.refused(missing);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = missing;
    }
}

impl Observed {
    #[cfg(feature = "metrics")]
    fn metrics(&self) -> Option<&metrics::Metrics> {
        self.observer.metrics.as_ref()
    }

    fn trace(&self) -> Option<&Trace> {
        self.observer.trace.as_ref()
    }

    /// A command has come, or what should be one.
    #[cold]
    pub fn received(&self, kind: u8, payload: &[u8]) {
        #[cfg(feature = "metrics")]
        if let Some(metrics) = self.metrics() {
            metrics.received(kind, payload.len());
        }
        if let Some(trace) = self.trace() {
            trace.received(&self.traced, kind, payload);
        }
        if kind == u8::from(Kind::EndOfMessage) {
            Check::end_of_message(&self.facts);
        }
    }

    /// All these frames have been sent.
    #[cold]
    pub fn sent(&self, frames: &[u8]) {
        #[cfg(feature = "metrics")]
        if let Some(metrics) = self.metrics() {
            metrics.sent(frames);
        }
        if let Some(trace) = self.trace() {
            trace.sent(&self.traced, frames);
        }
    }

    /// A callback begins; when, in [nanoseconds](clock::nanoseconds).
    #[cold]
    pub fn callback_begins(&self) -> u64 {
        let now = clock::nanoseconds();
        #[cfg(feature = "metrics")]
        if self.metrics().is_some() {
            self.running.begin(now);
        }
        now
    }

    /// A callback that began then has ended; QUIT stands for close.
    #[cold]
    pub fn callback_ends(&self, kind: Kind, status: Option<i32>, since: u64) {
        let time = clock::nanoseconds().saturating_sub(since);
        #[cfg(feature = "metrics")]
        if let Some(metrics) = self.metrics() {
            self.running.end();
            metrics.called(kind, status, time);
        }
        if let Some(trace) = self.trace() {
            trace.called(&self.traced, kind, status, Duration::from_nanos(time));
        }
        if let (Some(check), Some(status)) = (self.check(), status) {
            check.returns(&self.facts, kind, status);
        }
    }

    fn check(&self) -> Option<&Check> {
        self.observer.check.as_ref()
    }

    /// The filter answers the offer.
    #[cold]
    pub fn chooses(&self, offer: &Offer, choice: &Choice, registered: Actions) {
        if let Some(check) = self.check() {
            check.chooses(offer, choice, registered);
        }
    }

    /// Mail server and filter have agreed; the filter has asked for macros.
    #[cold]
    pub fn agrees(&self, agreement: &Agreement, has_lists: bool) {
        if let Some(check) = self.check() {
            check.agrees(&self.facts, agreement, has_lists);
        }
    }

    /// The filter asks for macros.
    #[cold]
    pub fn asks_for_macros(&self) {
        if let Some(check) = self.check() {
            check.asks_for_macros(&self.facts);
        }
    }

    /// The filter makes a modification, if it may.
    #[cold]
    pub fn modifies(&self, modification: &Modification<'_>) {
        if let Some(check) = self.check() {
            check.modifies(&self.facts, modification);
        }
    }

    /// The filter has set a reply.
    #[cold]
    pub fn sets_reply(&self, reply: &SmtpReply) {
        if let Some(check) = self.check() {
            check.sets_reply(reply.as_bytes());
        }
    }

    /// The filter has asked for a macro that is not there.
    #[cold]
    pub fn misses_macro(&self, name: &[u8]) {
        #[cfg(feature = "metrics")]
        if let Some(metrics) = self.metrics() {
            metrics.macro_is_missing(name);
        }
    }

    /// The MTA has done something against the protocol, and the session goes on.
    #[cold]
    pub fn fault(&self, fault: Fault) {
        #[cfg(feature = "metrics")]
        if let Some(metrics) = self.metrics() {
            metrics.fault(fault);
        }
    }

    /// The session has ended.
    #[cold]
    pub fn ended(&self, ending: Ending) {
        #[cfg(feature = "metrics")]
        if let Some(metrics) = self.metrics() {
            metrics.session_ends(self, ending);
        }
        if let Some(trace) = self.trace() {
            trace.ends(&self.traced, ending);
        }
    }
}

/// The frames in what was sent: kind and payload.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (frame, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        bytes = rest;
        let (kind, payload) = frame.split_first()?;
        Some((*kind, payload))
    })
}
