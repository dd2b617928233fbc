//! Which process this is, in the line of those that forked one another, and whether it has children: pthread_atfork(3)
//! tells, without a system call for each look. A fork by clone(2) itself is not seen.

use std::sync::Once;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// How many forks lie between the process that called [`watch`] first and this one.
static GENERATION: AtomicU16 = AtomicU16::new(0);

/// How often this process or one that it descends from has forked.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Begins to look out for forks.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers do nothing but what is allowed between fork and exec; the C library forgets them when this
        // library is unloaded. The only possible failure is that memory is short; then forks are not seen.
        let _ = unsafe { libc::pthread_atfork(None, Some(in_parent), Some(in_child)) };
    });
}

unsafe extern "C" fn in_parent() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// A process, as far as its memory can tell it from those that it has forked or was forked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(u16);

impl Process {
    /// This one.
    pub fn current() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }
}

/// A moment in the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(u32);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Whether there has been a fork since then, on either side of which this process may be.
    pub fn is_before_a_fork(self) -> bool {
        Self::now() != self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_a_fork_know_of_it() {
        watch();
        let (process, moment) = (Process::current(), Moment::now());
        // SAFETY: the child does nothing but compare numbers and end.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let knows = Process::current() != process && moment.is_before_a_fork();
            // SAFETY: it ends the child at once.
            unsafe { libc::_exit(i32::from(!knows)) };
        }
        assert!(child > 0);
        let mut status = -1;
        // SAFETY: the child is this test's own.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        assert!(Process::current() == process && moment.is_before_a_fork());
    }
}
