//! The threads that wait for parked sessions.

use super::event::Event;
use super::pool::{Effort, Job, Turn, Waited};
use super::sessions::{Connection, RETRY_DELAY, Sessions};
use crate::session::{Buffers, Cause, Filter};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Each serves sessions that go on.
pub struct Worker<F: Filter>(Arc<Sessions<F>>);

impl<F: Filter> Worker<F> {
    /// Those of these sessions.
    pub fn new(sessions: Arc<Sessions<F>>) -> Self {
        Self(sessions)
    }
}

impl<F: Filter> Job for Worker<F> {
    /// A session that goes on.
    type Work = (Box<Connection>, Cause);
    type Kept = Buffers;

    const MAX_WAITING: usize = 1;

    fn begin(&self) {
        self.0.begin_thread();
    }

    fn wait(&self, time: Duration, found: &mut VecDeque<Self::Work>) -> Waited {
        match self.0.next(time, found) {
            Ok(()) if found.is_empty() => Waited::Nothing,
            Ok(()) => Waited::Found,
            Err(error) => {
                // If the server stops already, it may be because of this: there are still sessions to end.
                self.0.tell(Event::PollerBroken(error));
                if found.is_empty() {
                    std::thread::sleep(RETRY_DELAY);
                }
                Waited::Found
            }
        }
    }

    fn wake(&self) {
        self.0.wake();
    }

    fn effort(&self, (connection, _): &Self::Work) -> Effort {
        self.0.effort(connection.is_slow())
    }

    fn work(&self, (connection, cause): Self::Work, turn: &Turn<'_>, buffers: &mut Buffers) {
        self.0.go_on(connection, cause, turn, buffers);
    }

    fn thread_is_missing(&self) {
        self.0.thread_is_missing();
    }
}
