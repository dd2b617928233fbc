//! What can be set before a server starts, with its defaults.

use crate::protocol::frame::DEFAULT_MAX_PAYLOAD;
use crate::session::Timeouts;
use std::time::Duration;

/// The environment variable that ties sessions to threads.
const THREADS_VARIABLE: &str = "LIBMILTER_THREADS";

/// Which threads serve a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// A silent session gives its thread back and may go on in another one.
    Shared,
    /// One thread for the session's whole life.
    PerSession,
}

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many connections may wait to be accepted: listen(2).
    pub backlog: i32,
    /// How long the MTA may take.
    pub timeouts: Timeouts,
    /// The largest payload of a frame, in bytes.
    pub max_payload: usize,
    /// How long messages may go on after a stop.
    pub drain: Duration,
    /// Which threads serve a session.
    pub threads: Threads,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backlog: 20,
            timeouts: Timeouts::from_seconds(7210),
            max_payload: DEFAULT_MAX_PAYLOAD,
            drain: Duration::from_secs(5),
            threads: Threads::Shared,
        }
    }
}

impl Settings {
    /// The settings with what the environment says: `LIBMILTER_THREADS=session` gives each session a thread of
    /// its own.
    pub fn with_environment(mut self) -> Self {
        if std::env::var_os(THREADS_VARIABLE).is_some_and(|value| value == "session") {
            self.threads = Threads::PerSession;
        }
        self
    }
}
