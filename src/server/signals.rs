//! The signal thread: it turns SIGHUP, SIGTERM, SIGINT and smfi_stop into [`Event`]s. What it changed is put
//! back on drop. No handler is installed, and no other signal is touched.

use super::Event;
use crate::sys::event::{Event as Flag, LeakedEvent};
use crate::sys::signal::{Blocked, SignalSet, SignalSource};
use crate::sys::thread::{self, Reaper};
use crate::sys::{self, Interest};
use crossbeam_channel::Sender;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A wait without end; the flag ends it.
const A_LONG_TIME: Duration = Duration::from_secs(1 << 30);

/// Whether smfi_stop was called and has not been heeded yet.
static STOP_REQUESTED: AtomicBool = AtomicBool::new(false);

/// The descriptor of the flag that wakes the signal thread; -1 before the first server. It is never closed, so that
/// a stop from a signal handler can't write to somebody else's file.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// The process that made the flag: a forked child must not wake its parent.
static WAKE_OWNER: AtomicU32 = AtomicU32::new(0);

/// Asks the server of this process to stop; one that has not started yet stops as soon as it starts.
/// Async-signal-safe, because filters call smfi_stop from signal handlers.
pub fn request_stop() {
    STOP_REQUESTED.store(true, Ordering::SeqCst);
    if let Some(flag) = existing_flag() {
        flag.raise();
    }
}

/// The running signal thread. On drop it ends, and the calling thread's signal mask is what it was.
pub struct Watch {
    wake: LeakedEvent,
    over: Arc<AtomicBool>,
    thread: Arc<Reaper>,
    ended: crossbeam_channel::Receiver<()>,
    _blocked: Blocked,
}

/// Blocks SIGHUP, SIGTERM and SIGINT in the calling thread, so in all threads that it starts from now on, and
/// starts the thread that waits for them.
///
/// # Errors
/// No descriptor or no thread is to be had.
pub fn watch(events: Sender<Event>) -> io::Result<Watch> {
    let wake = wake_flag()?;
    let ours = SignalSet::of(&[libc::SIGHUP, libc::SIGTERM, libc::SIGINT]);
    let blocked = Blocked::new(&ours)?;
    let source = SignalSource::new(&ours)?;
    let over = Arc::new(AtomicBool::new(false));
    let reaper = Arc::new(Reaper::default());
    let (alive, ended) = crossbeam_channel::bounded(1);
    {
        let (over, reaper) = (Arc::clone(&over), Arc::clone(&reaper));
        // The thread must not take signals that belong to the filter.
        let _all = Blocked::new(&SignalSet::all())?;
        thread::spawn(Box::new(move || {
            forward(&source, wake, &over, &events);
            reaper.leave();
            // Nobody waits for it if the server did not start.
            let _ = alive.send(());
        }))?;
    }
    Ok(Watch { wake, over, thread: reaper, ended, _blocked: blocked })
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.wake.raise();
        // The thread does nothing but wait, so it ends at once.
        let _ = self.ended.recv();
        self.thread.join();
        // Whoever asked this server to stop did not mean the next one.
        STOP_REQUESTED.store(false, Ordering::SeqCst);
    }
}

/// The signal thread's work.
fn forward(source: &SignalSource, wake: LeakedEvent, over: &AtomicBool, events: &Sender<Event>) {
    while !over.load(Ordering::SeqCst) {
        if STOP_REQUESTED.swap(false, Ordering::SeqCst) {
            // The receiver lives longer than this thread.
            let _ = events.send(Event::Stop);
        }
        while let Some(signal) = source.take() {
            let _ = events.send(if signal == libc::SIGINT { Event::Abort } else { Event::Stop });
        }
        // A wait that fails is tried again.
        let _ = sys::wait(source.as_fd(), Interest::Read, wake.as_fd(), Instant::now() + A_LONG_TIME);
        wake.lower();
    }
}

/// The flag that wakes the signal thread, if this process has made one.
fn existing_flag() -> Option<LeakedEvent> {
    (WAKE_OWNER.load(Ordering::SeqCst) == std::process::id()).then(|| {
        // SAFETY: `wake_flag` leaked it before it named this process as its owner.
        unsafe { LeakedEvent::from_number(WAKE.load(Ordering::SeqCst)) }
    })
}

/// The flag that wakes the signal thread.
fn wake_flag() -> io::Result<LeakedEvent> {
    if let Some(flag) = existing_flag() {
        return Ok(flag);
    }
    let flag = Flag::new()?.leak();
    WAKE.store(flag.number(), Ordering::SeqCst);
    WAKE_OWNER.store(std::process::id(), Ordering::SeqCst);
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    #[test]
    fn a_stop_counts_for_one_server() {
        let wait = Duration::from_secs(30);
        for _ in 0..200 {
            let (events, inbox) = unbounded();
            request_stop();
            let watch = watch(events).unwrap();
            assert!(matches!(inbox.recv_timeout(wait), Ok(Event::Stop)), "asked before the start");
            // Asked twice, and perhaps too late for the thread to see it.
            request_stop();
            drop(watch);
            assert!(!STOP_REQUESTED.load(Ordering::SeqCst), "the next server must not stop for it");
        }
    }
}
