//! Threads that wait for work and do it: how many wait, how many are spare, when they end. What they wait for and
//! what they do is the [`Job`]'s business.
//!
//! A thread that finds work does it itself; no thread hands work to another. Work of which nobody knows how long it
//! takes ([`Effort::Long`]) is begun only when another thread waits in this one's place. Short work is done at once, one
//! piece after the other, with nobody else awake: that saves the switches of threads. In case one piece takes longer than
//! expected, a spare thread looks every [`TICK`] whether somebody has waited since; if not, it takes over what is left.
//!
//! Where the system has no thread to give, a pool [borrows](Pool::help) those of another one that have nothing to do there.

use super::sync::{AtomicBool, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, ThreadGroup};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a thread that is not needed waits before it ends.
pub const THREAD_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the only thread that waits does so when nothing has come for a while: so that a process at rest uses no
/// processor worth speaking of.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// How often the monitor looks. With 1 ms a session waits for at most 2 ms behind the callback of another one, and the
/// monitor costs half a percent of a processor while short work is done.
const TICK: Duration = Duration::from_millis(1);

/// After so many ticks in which nothing happened the monitor is an ordinary spare thread again.
const IDLE_TICKS: u32 = if cfg!(feature = "model") { 3 } else { 100 };

/// What the threads of a pool do.
pub trait Job: Send + Sync + 'static {
    /// One piece of work.
    type Work: Send + 'static;
    /// What a thread keeps from one piece of work to the next.
    type Kept: Default;

    /// How many threads may wait at the same time.
    const MAX_WAITING: usize;

    /// A thread begins.
    fn begin(&self) {}

    /// Waits for work, and appends it to `found`; not longer than `time`, and not beyond [`Self::wake`].
    fn wait(&self, time: Duration, found: &mut VecDeque<Self::Work>) -> Waited;

    /// Ends a [`Self::wait`], one that is under way or else the next one.
    fn wake(&self);

    /// How long the work is expected to take.
    fn effort(&self, work: &Self::Work) -> Effort;

    /// Does the work.
    fn work(&self, work: Self::Work, turn: &Turn<'_>, kept: &mut Self::Kept);

    /// A thread was needed and could not be started: [`Pool::restock`] should be called soon.
    fn thread_is_missing(&self);

    /// Whether another pool needs a thread more than this one, in which somebody waits.
    fn is_needed_elsewhere(&self) -> bool {
        false
    }

    /// [Helps](Pool::help) that pool.
    fn help_elsewhere(&self) {}
}

/// What a wait has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// Work, or a reason to look around.
    Found,
    /// Nothing in all the time.
    Nothing,
    /// There will never be work again.
    Over,
}

/// How long a piece of work is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Microseconds, but nobody can promise that.
    Short,
    /// Perhaps very long.
    Long,
}

/// One thread's turn at one piece of work.
#[derive(Debug)]
pub struct Turn<'a> {
    /// How long the work is expected to take.
    pub effort: Effort,
    /// No other thread waits meanwhile, or looks after this work, and none can be started.
    pub is_alone: bool,
    takeovers: &'a AtomicUsize,
    takeovers_before: usize,
}

impl Turn<'_> {
    /// Whether short work took so long that another thread took over what was left.
    pub fn was_overtaken(&self) -> bool {
        self.takeovers.load(Ordering::Relaxed) != self.takeovers_before
    }
}

/// The threads of one job.
pub struct Pool<J: Job> {
    job: J,
    threads: Arc<ThreadGroup>,
    state: Mutex<State<J::Work>>,
    /// Spare threads wait here: a call, the office of the monitor, or the end.
    spare: Condvar,
    /// How often the monitor has taken over.
    takeovers: AtomicUsize,
    /// The system had no thread to give, and none of another pool has come since.
    lacks_thread: AtomicBool,
}

struct State<W> {
    /// Found and not begun.
    ready: VecDeque<W>,
    /// Threads in [`Job::wait`].
    waiting: usize,
    /// Threads that were called or started and will look for work in a moment.
    coming: usize,
    /// Counts the beginnings and ends of waits.
    waits: u64,
    /// Spare threads that have not been called.
    spares: usize,
    /// Calls that no spare thread has answered yet.
    calls: usize,
    monitor: Monitor,
    /// How many threads the monitor calls when it takes over: more with each time that this has not helped.
    reinforcements: usize,
    is_over: bool,
}

/// Whether a spare thread looks after short work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Monitor {
    None,
    /// A spare thread, or one that is being started, will.
    Wanted,
    Present,
}

/// How a thread begins.
#[derive(Clone, Copy)]
enum Begin {
    Waiting,
    Spare,
}

impl<J: Job> Pool<J> {
    /// A pool without threads; [`Self::restock`] starts the first one.
    pub fn new(job: J, threads: Arc<ThreadGroup>) -> Arc<Self> {
        let state = State {
            ready: VecDeque::new(),
            waiting: 0,
            coming: 0,
            waits: 0,
            spares: 0,
            calls: 0,
            monitor: Monitor::None,
            reinforcements: 1,
            is_over: false,
        };
        Arc::new(Self {
            job,
            threads,
            state: Mutex::new(state),
            spare: Condvar::new(),
            takeovers: AtomicUsize::new(0),
            lacks_thread: AtomicBool::new(false),
        })
    }

    /// Makes sure that somebody waits for work.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn restock(self: &Arc<Self>) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.is_over || state.waiting + state.coming > 0 {
            return Ok(());
        }
        self.add_waiter(&mut state)
    }

    /// Whether a thread of another pool should come to [`Self::help`].
    pub fn lacks_thread(&self) -> bool {
        self.lacks_thread.load(Ordering::Relaxed)
    }

    /// Lets the calling thread, which is another pool's, be one of this pool's for as long as it is of use; not at all
    /// if somebody waits for work already.
    pub fn help(self: &Arc<Self>) {
        let mut state = self.state.lock();
        self.lacks_thread.store(false, Ordering::Relaxed);
        if state.is_over || state.waiting + state.coming > 0 {
            return;
        }
        state.coming += 1;
        drop(state);
        self.run(Begin::Waiting);
    }

    /// Ends all threads that have nothing to do; the others end when their work is done.
    pub fn close(&self) {
        self.state.lock().is_over = true;
        self.spare.notify_all();
        self.job.wake();
    }

    /// Lets one more thread look for work: a spare one, or a new one.
    fn add_waiter(self: &Arc<Self>, state: &mut MutexGuard<'_, State<J::Work>>) -> io::Result<()> {
        // It is counted before it can run: it may have found work before this thread goes on.
        state.coming += 1;
        if state.spares > 0 {
            state.spares -= 1;
            state.calls += 1;
            self.spare.notify_one();
            return Ok(());
        }
        self.start(state, Begin::Waiting).inspect_err(|_| state.coming -= 1)
    }

    /// Makes sure that a spare thread looks after short work.
    ///
    /// # Errors
    /// There is none.
    fn ensure_monitor(self: &Arc<Self>, state: &mut MutexGuard<'_, State<J::Work>>) -> io::Result<()> {
        if state.monitor != Monitor::None {
            return Ok(());
        }
        state.monitor = Monitor::Wanted;
        if state.spares > 0 {
            self.spare.notify_one();
        } else if let Err(error) = self.start(state, Begin::Spare)
            && state.spares == 0
        {
            state.monitor = Monitor::None;
            return Err(error);
        }
        Ok(())
    }

    fn start(self: &Arc<Self>, state: &mut MutexGuard<'_, State<J::Work>>, begin: Begin) -> io::Result<()> {
        let pool = Arc::clone(self);
        // Not under the lock: starting a thread takes longer than many pieces of work.
        MutexGuard::unlocked(state, || self.threads.spawn(Box::new(move || pool.run(begin))))
            .inspect_err(|_| self.lacks_thread.store(true, Ordering::Relaxed))
    }

    /// A thread's life.
    fn run(self: &Arc<Self>, begin: Begin) {
        self.job.begin();
        let mut kept = J::Kept::default();
        let mut found = VecDeque::new();
        let mut time = THREAD_IDLE_TIMEOUT;
        let mut state = self.state.lock();
        match begin {
            Begin::Waiting => state.coming -= 1,
            Begin::Spare => {
                state.spares += 1;
                if !self.wait_as_spare(&mut state) {
                    return;
                }
            }
        }
        loop {
            if let Some(work) = state.ready.pop_front() {
                let turn = self.take_turn(&mut state, self.job.effort(&work));
                drop(state);
                self.job.work(work, &turn, &mut kept);
                state = self.state.lock();
            } else if state.is_over {
                return;
            } else if state.waiting > 0 && self.job.is_needed_elsewhere() {
                // Who is only coming may be a thread that is not to be had.
                drop(state);
                kept = J::Kept::default();
                self.job.help_elsewhere();
                state = self.state.lock();
            } else if state.waiting < J::MAX_WAITING {
                state.waiting += 1;
                state.waits += 1;
                drop(state);
                let waited = self.job.wait(time, &mut found);
                if waited == Waited::Nothing {
                    kept = J::Kept::default();
                }
                state = self.state.lock();
                state.waiting -= 1;
                state.waits += 1;
                if state.ready.is_empty() {
                    // As nearly always; it saves 90 instructions for each connection.
                    std::mem::swap(&mut state.ready, &mut found);
                } else {
                    state.ready.append(&mut found);
                }
                time = match waited {
                    Waited::Found => THREAD_IDLE_TIMEOUT,
                    Waited::Nothing if state.waiting == 0 => LONG_WAIT,
                    Waited::Nothing | Waited::Over => return,
                };
            } else {
                state.spares += 1;
                if !self.wait_as_spare(&mut state) {
                    return;
                }
            }
        }
    }

    /// Arranges for those who wait, before work is begun that takes this `effort`.
    fn take_turn(self: &Arc<Self>, state: &mut MutexGuard<'_, State<J::Work>>, effort: Effort) -> Turn<'_> {
        let mut is_alone = false;
        if state.waiting + state.coming == 0 && !state.is_over {
            let somebody = match effort {
                Effort::Short => self.ensure_monitor(state),
                Effort::Long => self.add_waiter(state),
            };
            is_alone = somebody.is_err();
            if is_alone {
                self.job.thread_is_missing();
            }
        }
        let takeovers_before = self.takeovers.load(Ordering::Relaxed);
        Turn { effort, is_alone, takeovers: &self.takeovers, takeovers_before }
    }

    /// Waits until the thread is needed; `false` if it should end.
    fn wait_as_spare(self: &Arc<Self>, state: &mut MutexGuard<'_, State<J::Work>>) -> bool {
        let deadline = Instant::now() + THREAD_IDLE_TIMEOUT;
        loop {
            if state.calls > 0 {
                state.calls -= 1;
                state.coming -= 1;
                if state.spares == 0 && state.monitor == Monitor::Wanted {
                    // This thread was meant. It looks for work itself now.
                    state.monitor = Monitor::None;
                }
                return true;
            }
            if state.is_over {
                state.spares -= 1;
                return false;
            }
            if state.monitor == Monitor::Wanted {
                state.monitor = Monitor::Present;
                let takes_over = self.monitor(state);
                state.monitor = Monitor::None;
                if takes_over {
                    state.spares -= 1;
                    self.takeovers.fetch_add(1, Ordering::Relaxed);
                    self.reinforce(state);
                    return true;
                }
                continue;
            }
            if self.spare.wait_until(state, deadline).timed_out()
                && state.calls == 0
                && state.monitor != Monitor::Wanted
            {
                state.spares -= 1;
                return false;
            }
        }
    }

    /// Lets more threads look for work when the monitor takes over, if there is work for them.
    fn reinforce(self: &Arc<Self>, state: &mut MutexGuard<'_, State<J::Work>>) {
        // One piece is for the thread itself.
        let count = state.reinforcements.min(state.ready.len().saturating_sub(1));
        state.reinforcements = state.reinforcements.saturating_mul(2);
        for _ in 0..count {
            if self.add_waiter(state).is_err() {
                return;
            }
        }
    }

    /// Looks after short work; `true` if it takes too long. Otherwise there is nothing to look after any more, or the
    /// thread is called.
    fn monitor(&self, state: &mut MutexGuard<'_, State<J::Work>>) -> bool {
        let (mut waits, mut idle_ticks) = (state.waits, 0);
        loop {
            let is_tick = self.spare.wait_for(state, TICK).timed_out();
            if state.calls > 0 || state.is_over {
                return false;
            }
            if !is_tick {
                // Another spare thread was faster.
            } else if state.waits != waits {
                (waits, idle_ticks) = (state.waits, 0);
                state.reinforcements = 1;
            } else if state.waiting + state.coming == 0 {
                return true;
            } else {
                idle_ticks += 1;
                if idle_ticks == IDLE_TICKS {
                    return false;
                }
            }
        }
    }
}
