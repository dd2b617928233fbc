//! The signal thread: it turns SIGHUP, SIGTERM, SIGINT and smfi_stop into [`Event`]s. What it changed is put
//! back on drop, unless a signal has come. No handler is installed, and no other signal is touched. SIGHUP may be the
//! filter's ([`Hangup::Ignore`]).
//!
//! It waits with rt_sigtimedwait(2), not with a descriptor: a program that handles these signals in a thread of its own,
//! as Python does, must get them there, and a signalfd would compete with it.

use super::event::Event;
use super::settings::Hangup;
use crate::sys::signal::{self, Blocked, Ignored, Received, SignalSet};
use crate::sys::thread::ThreadGroup;
use crossbeam_channel::Sender;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Far longer than the signal thread takes to end.
const THREAD_END: Duration = Duration::from_secs(60);

/// Whether smfi_stop was called and has not been heeded yet.
static STOP_REQUESTED: AtomicBool = AtomicBool::new(false);

/// The number of the signal thread; 0 while there is none.
static SIGNAL_THREAD: AtomicI32 = AtomicI32::new(0);

/// What was asked for last, see [`requested`].
static REQUESTED: AtomicU8 = AtomicU8::new(GO_ON);
const GO_ON: u8 = 0;
const STOP: u8 = 1;
const ABORT: u8 = 2;

/// What this process's server was asked for, or the last one if it has ended: to go on (0), to stop (1), to stop at
/// once (2).
pub fn requested() -> u8 {
    REQUESTED.load(Ordering::SeqCst)
}

/// Asks the server of this process to stop; one that has not started yet stops as soon as it starts.
/// Async-signal-safe, because filters call smfi_stop from signal handlers.
pub fn request_stop() {
    STOP_REQUESTED.store(true, Ordering::SeqCst);
    REQUESTED.fetch_max(STOP, Ordering::SeqCst);
    wake_signal_thread();
}

/// Makes the signal thread look at the flags. In a forked child, where it does not exist, nothing happens.
fn wake_signal_thread() {
    match SIGNAL_THREAD.load(Ordering::SeqCst) {
        0 => {} // it looks at the flags before it waits for the first time
        // Blocked there, and waited for, whatever the process does with it elsewhere.
        thread => signal::wake(thread, libc::SIGTERM),
    }
}

/// The running signal thread. On drop it ends, and the calling thread's signal mask is what it was. But if a signal has
/// come, they stay blocked: whoever stops the filter may send another one, which must not end it while it cleans up.
pub struct Watch {
    shared: Arc<Shared>,
    thread: Arc<ThreadGroup>,
    /// `None` only during the drop.
    blocked: Option<Blocked>,
    /// SIGHUP, if it is ignored and would else end the process.
    ignored: Option<Ignored>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    signal_has_come: AtomicBool,
}

/// Blocks SIGHUP (unless it is ignored), SIGTERM and SIGINT in the calling thread, so in all threads that it starts from
/// now on, and starts the thread that waits for them.
///
/// # Errors
/// No thread is to be had.
pub fn watch(events: Sender<Event>, hangup: Hangup) -> io::Result<Watch> {
    REQUESTED.store(GO_ON, Ordering::SeqCst);
    if STOP_REQUESTED.load(Ordering::SeqCst) {
        REQUESTED.store(STOP, Ordering::SeqCst);
    }
    let (ours, ignored) = match hangup {
        Hangup::Stop => (SignalSet::of(&[libc::SIGHUP, libc::SIGTERM, libc::SIGINT]), None),
        Hangup::Ignore => {
            (SignalSet::of(&[libc::SIGTERM, libc::SIGINT]), Ignored::unless_wanted(libc::SIGHUP))
        }
    };
    let blocked = Blocked::new(&ours)?;
    let shared = Arc::new(Shared::default());
    let thread = Arc::new(ThreadGroup::default());
    {
        let shared = Arc::clone(&shared);
        // The thread must not take signals that belong to the filter.
        let _all = Blocked::new(&SignalSet::all())?;
        thread.spawn(Box::new(move || {
            SIGNAL_THREAD.store(signal::thread_number(), Ordering::SeqCst);
            forward(&ours, &shared, &events);
            SIGNAL_THREAD.store(0, Ordering::SeqCst);
        }))?;
    }
    Ok(Watch { shared, thread, blocked: Some(blocked), ignored })
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        wake_signal_thread();
        // The thread does nothing but wait, so it ends at once.
        self.thread.wait(Instant::now() + THREAD_END);
        // Whoever asked this server to stop did not mean the next one.
        STOP_REQUESTED.store(false, Ordering::SeqCst);
        if self.shared.signal_has_come.load(Ordering::SeqCst) {
            self.blocked.take().into_iter().for_each(Blocked::keep);
            self.ignored.take().into_iter().for_each(Ignored::keep);
        }
    }
}

/// The signal thread's work. The receiver of the events lives longer than the thread.
fn forward(signals: &SignalSet, shared: &Shared, events: &Sender<Event>) {
    while !shared.over.load(Ordering::SeqCst) {
        if STOP_REQUESTED.swap(false, Ordering::SeqCst) {
            let _ = events.send(Event::Stop);
        }
        if let Received::Signal(signal) = signal::wait(signals) {
            shared.signal_has_come.store(true, Ordering::SeqCst);
            let (what, event) =
                if signal == libc::SIGINT { (ABORT, Event::Abort) } else { (STOP, Event::Stop) };
            REQUESTED.fetch_max(what, Ordering::SeqCst);
            let _ = events.send(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use std::time::Duration;

    #[test]
    fn a_stop_counts_for_one_server() {
        let wait = Duration::from_secs(30);
        for _ in 0..200 {
            let (events, inbox) = unbounded();
            request_stop();
            let watch = watch(events, Hangup::Stop).unwrap();
            assert!(matches!(inbox.recv_timeout(wait), Ok(Event::Stop)), "asked before the start");
            // Asked twice, and perhaps too late for the thread to see it.
            request_stop();
            drop(watch);
            assert!(!STOP_REQUESTED.load(Ordering::SeqCst), "the next server must not stop for it");
            assert!(!is_blocked(), "smfi_stop leaves the mask as it was");
        }
    }

    /// Whether SIGTERM is blocked in this thread.
    fn is_blocked() -> bool {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
        u64::from_str_radix(mask, 16).unwrap() & (1 << (libc::SIGTERM - 1)) != 0
    }
}
