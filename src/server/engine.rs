//! Sessions and the threads that serve them, as the supervisor sees them: start, stop, finish.

use super::acceptor::Acceptor;
use super::event::Event;
use super::listener::Listener;
use super::pool::{Pool, THREAD_IDLE_TIMEOUT};
use super::sessions::Sessions;
use super::settings::Settings;
use super::sync::ThreadGroup;
use super::watch::Watch;
use super::worker::Worker;
use crate::observe::Observer;
use crate::session::Filter;
use crossbeam_channel::Sender;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The server's handle on sessions and threads.
pub struct Engine<F: Filter> {
    sessions: Arc<Sessions<F>>,
    acceptors: Arc<Pool<Acceptor<F>>>,
    workers: Arc<Pool<Worker<F>>>,
    threads: Arc<ThreadGroup>,
}

impl<F: Filter> Engine<F> {
    /// Starts to accept connections.
    ///
    /// # Errors
    /// No descriptor or no thread is left.
    pub fn start(
        filter: F,
        listener: Listener,
        settings: Settings,
        watch: Option<Arc<Watch>>,
        observer: Option<Arc<Observer>>,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        let sessions = Arc::new(Sessions::new(filter, settings, watch, observer, events)?);
        let threads = Arc::new(ThreadGroup::default());
        let workers = Pool::new(Worker::new(Arc::clone(&sessions)), Arc::clone(&threads));
        let acceptor = Acceptor::new(Arc::clone(&sessions), listener, Arc::clone(&workers));
        let acceptors = Pool::new(acceptor, Arc::clone(&threads));
        let engine = Self { sessions, acceptors, workers, threads };
        match engine.restock() {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.stop();
                engine.finish(THREAD_IDLE_TIMEOUT);
                Err(error)
            }
        }
    }

    /// Starts threads where none waits for work.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn restock(&self) -> io::Result<()> {
        self.workers.restock()?;
        self.acceptors.restock()
    }

    /// Looks after callbacks that take long; when to look again, if they are watched.
    pub fn look_at_callbacks(&self) -> Option<Instant> {
        self.sessions.look_at_callbacks()
    }

    /// How many sessions have not ended.
    pub fn live_sessions(&self) -> usize {
        self.sessions.count()
    }

    /// No new connections; sessions end as soon as they are outside a message.
    pub fn stop(&self) {
        self.sessions.shutdown().stop();
        self.end_sessions();
    }

    /// No new connections; all sessions end at their next communication with the MTA.
    pub fn abort(&self) {
        self.sessions.shutdown().abort();
        self.end_sessions();
    }

    /// Sessions that are stuck in a callback end without another one.
    pub fn abandon(&self) {
        self.sessions.shutdown().abandon();
    }

    fn end_sessions(&self) {
        self.acceptors.close();
        self.sessions.release_ending();
    }

    /// Ends sessions whose MTA was silent for too long; when to look again.
    pub fn expire_silent(&self) -> Instant {
        self.sessions.expire_silent()
    }

    /// Ends all threads, and waits for them for at most `grace`. Threads that are stuck in a callback stay.
    pub fn finish(self, grace: Duration) {
        self.acceptors.close();
        self.workers.close();
        self.threads.wait(Instant::now() + grace);
    }
}
