//! Signal masks, and waiting for blocked signals.

use std::io;
use std::mem::MaybeUninit;

/// A set of signals.
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// These signals.
    pub fn of(signals: &[libc::c_int]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset fills in the set; sigaddset takes an initialised set and a valid signal number.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            Self(set.assume_init())
        }
    }

    /// All signals.
    pub fn all() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset fills in the set.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }
}

/// Signals that are blocked in the calling thread for as long as this value lives.
pub struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    /// Blocks the signals in the calling thread, and so in the threads that it starts.
    ///
    /// # Errors
    /// As pthread_sigmask(3).
    pub fn new(signals: &SignalSet) -> io::Result<Self> {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are live; the call fills in `before`.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals.0, before.as_mut_ptr()) } {
            // SAFETY: the call succeeded.
            0 => Ok(Self { before: unsafe { before.assume_init() } }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Blocked {
    /// Leaves the signals blocked.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is live and was filled in by the system.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// The size of the kernel's own set of signals, in bytes: 64 signals.
const KERNEL_SET_SIZE: usize = 8;

/// A signal that a thread has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Sent to the process.
    Signal(libc::c_int),
    /// Sent to the waiting thread, by [`wake`].
    Woken,
}

/// Waits for one of these signals, which should be [`Blocked`]. A thread that has one of them unblocked, with a
/// handler, gets it first.
pub fn wait(signals: &SignalSet) -> Received {
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
        // Not sigwaitinfo(3): glibc's does not tell who has sent the signal.
        // SAFETY: the set is live, longer than the size says, and that is the size that the kernel knows; the call
        // fills in `info`. NULL means to wait for as long as it takes.
        let signal = unsafe {
            let no_timeout = std::ptr::null::<libc::timespec>();
            let set = &raw const signals.0;
            libc::syscall(libc::SYS_rt_sigtimedwait, set, info.as_mut_ptr(), no_timeout, KERNEL_SET_SIZE)
        };
        let Ok(signal @ 1..) = libc::c_int::try_from(signal) else {
            continue; // interrupted by another signal
        };
        // SAFETY: the call succeeded.
        let from_thread = unsafe { info.assume_init() }.si_code == libc::SI_TKILL;
        return if from_thread { Received::Woken } else { Received::Signal(signal) };
    }
}

/// The calling thread's number, for [`wake`].
pub fn thread_number() -> libc::pid_t {
    // SAFETY: gettid has no preconditions.
    unsafe { libc::gettid() }
}

/// Sends a signal to a thread of this process, so that its [`wait`] ends. Async-signal-safe: errno stays what it was.
pub fn wake(thread: libc::pid_t, signal: libc::c_int) {
    // SAFETY: tgkill takes numbers only. If there is no such thread in this process, nothing happens. The address of
    // errno is that of the calling thread's own variable.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal);
        *errno = before;
    }
}

/// A signal that the process ignores for as long as this value lives, unless it does something with it.
pub struct Ignored(libc::c_int);

impl Ignored {
    /// Ignores a signal that would end the process. If the program handles it, ignores it, or has blocked it in the calling
    /// thread, to wait for it in another, it is left alone: `None`.
    pub fn unless_wanted(signal: libc::c_int) -> Option<Self> {
        if disposition(signal) != Some(libc::SIG_DFL) || is_blocked(signal) {
            return None;
        }
        set_disposition(signal, libc::SIG_IGN);
        Some(Self(signal))
    }

    /// Goes on to ignore the signal.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Ignored {
    fn drop(&mut self) {
        // Else the program has taken it for itself by now.
        if is_ignored(self.0) {
            set_disposition(self.0, libc::SIG_DFL);
        }
    }
}

/// Whether a signal is blocked in the calling thread.
fn is_blocked(signal: libc::c_int) -> bool {
    let mut mask = MaybeUninit::uninit();
    // SAFETY: without a new mask the call only fills in the old one, and cannot fail.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr());
        libc::sigismember(mask.as_ptr(), signal) == 1
    }
}

fn set_disposition(signal: libc::c_int, disposition: libc::sighandler_t) {
    // SAFETY: callers give SIG_IGN or SIG_DFL, which are valid for every signal that they give.
    unsafe { libc::signal(signal, disposition) };
}

/// Whether the process ignores a signal, as programs do that nohup(1) has started.
pub fn is_ignored(signal: libc::c_int) -> bool {
    disposition(signal) == Some(libc::SIG_IGN)
}

/// What happens at a signal: its handler, `SIG_IGN` or `SIG_DFL`.
fn disposition(signal: libc::c_int) -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action sigaction only fills in the old one.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: the call succeeded.
    (result == 0).then(|| unsafe { action.assume_init() }.sa_sigaction)
}

/// Ends the process by a signal that it does not handle, even if the signal is [`Blocked`] here, so that its parent
/// sees what has ended it.
pub fn end_by(signal: libc::c_int) -> ! {
    let set = SignalSet::of(&[signal]);
    // SAFETY: the set is live; nobody wants the old one. raise takes a number only.
    unsafe {
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set.0, std::ptr::null_mut());
        libc::raise(signal);
    }
    // Somebody handles or ignores it after all.
    std::process::exit(128 + signal);
}

/// Ignores SIGPIPE in the whole process.
pub fn ignore_sigpipe() {
    set_disposition(libc::SIGPIPE, libc::SIG_IGN);
}
