//! Threads as pthread_create(3) makes them for a C program: the default stack, no extra signal stack, no
//! bookkeeping. A thread for each connection should cost what the system charges and not more.

use super::pages::Pages;
use parking_lot::{Condvar, Mutex};
use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Callbacks were written for the stacks of C programs; musl's default is far smaller than glibc's.
const LEAST_STACK: usize = 1 << 20;

/// What a thread more than ever before must leave of a limit on the address space, in bytes: the filter, the C library
/// and the sessions that are open need memory too, and for some of what they need there is no way to say that there is
/// none. (For as many as there were before, the C library may have the stacks still.)
const LEFT: usize = 16 << 20;

/// The rule does not hold for so many: without them nobody is served.
const FEW: usize = 6;

/// How many threads there are, and how many there were at most.
static ALIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(FEW);
/// The size of the stack of threads, in bytes; 0 for that which the process's limits give.
static STACK: AtomicUsize = AtomicUsize::new(0);
/// How many threads there may be.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// How many threads of this library there are.
#[cfg(feature = "metrics")]
pub fn count() -> usize {
    ALIVE.load(Ordering::Relaxed)
}

/// Sets the size of the stack that threads have from now on; `None` for that which the process's limits give.
pub fn set_stack_size(bytes: Option<NonZero<usize>>) {
    STACK.store(bytes.map_or(0, NonZero::get), Ordering::Relaxed);
}

/// Sets how many threads there may be from now on, besides one that waits for signals.
pub fn set_most(threads: Option<NonZero<usize>>) {
    LIMIT.store(threads.map_or(usize::MAX, |most| most.get().saturating_add(1)), Ordering::Relaxed);
}

/// Lets there be one thread more: one that serves no session.
pub fn allow_another() {
    // It stays where it is without a limit.
    let _ = LIMIT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |limit| limit.checked_add(1));
}

/// Threads that are started one by one and waited for together. Each, as its last act, joins the one that has left
/// before it, and [`Self::wait`] joins the last. So none is left behind as a zombie, and none runs code of this library
/// once all have left.
#[derive(Debug, Default)]
pub struct ThreadGroup {
    state: Mutex<State>,
    all_left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Threads that have not left.
    running: usize,
    /// The thread that has left last.
    last: Option<Handle>,
}

/// A thread that was never detached.
#[derive(Debug)]
struct Handle(libc::pthread_t);

// SAFETY: a pthread_t names a thread of the process in all of its threads; on some systems its type is a pointer.
unsafe impl Send for Handle {}

/// What a new thread gets.
struct Start {
    group: Arc<ThreadGroup>,
    body: Box<dyn FnOnce() + Send>,
}

impl ThreadGroup {
    /// Starts a thread that runs `body`.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn(self: &Arc<Self>, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.state.lock().running += 1;
        let argument = Box::into_raw(Box::new(Start { group: Arc::clone(self), body }));
        let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
        let result = with_attributes(|attributes| {
            // SAFETY: `attributes` is initialised; `start` takes what `argument` is, and takes it exactly once.
            unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes, start, argument.cast()) }
        });
        if result == 0 {
            return Ok(());
        }
        // SAFETY: no thread was started, so the box is still ours.
        drop(unsafe { Box::from_raw(argument) });
        self.state.lock().running -= 1;
        Err(io::Error::from_raw_os_error(result))
    }

    /// Waits until all threads have ended, but not beyond `deadline`; whether they have.
    pub fn wait(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while state.running > 0 {
            if self.all_left.wait_until(&mut state, deadline).timed_out() && state.running > 0 {
                break;
            }
        }
        let (all, last) = (state.running == 0, state.last.take());
        drop(state);
        join(last);
        all
    }

    /// The calling thread, which this group has started, ends.
    fn leave(&self) {
        // SAFETY: pthread_self has no preconditions.
        let this = Handle(unsafe { libc::pthread_self() });
        let mut state = self.state.lock();
        let before = state.last.replace(this);
        state.running -= 1;
        if state.running == 0 {
            self.all_left.notify_all();
        }
        drop(state);
        join(before);
    }
}

/// Calls `create` with the process's default thread attributes, the stack as it is set, or else enlarged where it is tiny.
fn with_attributes(create: impl FnOnce(*const libc::pthread_attr_t) -> libc::c_int) -> libc::c_int {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: pthread_attr_init fills in the attributes that the pointer leads to.
    let result = unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) };
    if result != 0 {
        return result;
    }
    let mut default = 0;
    // SAFETY: the attributes are initialised, and `default` is a live variable.
    unsafe { libc::pthread_attr_getstacksize(attributes.as_ptr(), &raw mut default) };
    let size = match STACK.load(Ordering::Relaxed) {
        0 => default.max(LEAST_STACK),
        set => set,
    };
    if size != default {
        // SAFETY: the attributes are initialised.
        unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), size) };
    }
    let alive = ALIVE.fetch_add(1, Ordering::Relaxed) + 1;
    let is_allowed = alive <= LIMIT.load(Ordering::Relaxed);
    let is_room = alive <= MOST.load(Ordering::Relaxed) || Pages::new(size + LEFT).is_ok();
    let result = if is_allowed && is_room { create(attributes.as_ptr()) } else { libc::EAGAIN };
    if result == 0 {
        MOST.fetch_max(alive, Ordering::Relaxed);
    } else {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
    // SAFETY: initialised above, and not used any more.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    result
}

extern "C" fn start(argument: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `argument` is the box that `spawn` leaked for this thread.
    let Start { group, body } = *unsafe { Box::from_raw(argument.cast::<Start>()) };
    body();
    LOST.with(|lost| lost.0.take());
    ALIVE.fetch_sub(1, Ordering::Relaxed);
    group.leave();
    std::ptr::null_mut()
}

/// What to do when a thread ends in the midst of its work.
struct Lost(Cell<Option<Box<dyn FnOnce()>>>);

impl Drop for Lost {
    fn drop(&mut self) {
        if let Some(report) = self.0.take() {
            report();
            std::process::abort();
        }
    }
}

thread_local! {
    static LOST: Lost = const { Lost(Cell::new(None)) };
}

/// Says what the calling thread is to do if something ends it before its body has returned: pthread_exit or
/// cancellation in foreign code that it calls. Behind that the process ends: what the thread was at would stay undone
/// for ever.
pub fn if_lost(report: impl FnOnce() + 'static) {
    LOST.with(|lost| lost.0.set(Some(Box::new(report))));
}

fn join(thread: Option<Handle>) {
    if let Some(Handle(thread)) = thread {
        // SAFETY: only `leave` makes handles, each of its own thread, which was never detached and ends right after
        // that; whoever takes a handle out of the group joins it, so it is joined once.
        unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_group_is_waited_for_as_a_whole() {
        let group = Arc::new(ThreadGroup::default());
        let (gate, count) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
        let closed = gate.lock();
        for _ in 0..20 {
            let (gate, count) = (Arc::clone(&gate), Arc::clone(&count));
            let body = move || {
                drop(gate.lock());
                count.fetch_add(1, Ordering::SeqCst);
            };
            group.spawn(Box::new(body)).unwrap();
        }
        assert!(!group.wait(Instant::now()), "they wait at the gate");
        drop(closed);
        assert!(group.wait(Instant::now() + Duration::from_secs(60)));
        assert_eq!(count.load(Ordering::SeqCst), 20);
        assert!(group.wait(Instant::now()), "nobody is left");
    }
}
