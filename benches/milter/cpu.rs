//! Where and how eagerly a thread runs. The single-connection scenarios bind client and server to one CPU,
//! some of them keep the client from interrupting the server; everything is put back when the value goes away.

use std::io;
use std::mem::MaybeUninit;

/// The CPU that client and server share: the last, where least else happens.
pub fn shared() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) - 1
}

/// Binds the calling thread, and what it starts, to one CPU; `None` lets it run on all.
pub fn pin(cpu: Option<usize>) -> io::Result<()> {
    // SAFETY: cpu_set_t is an array of integers, for which all bits zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    for index in 0..libc::CPU_SETSIZE as usize {
        if cpu.is_none_or(|wanted| wanted == index) {
            // SAFETY: the index is below CPU_SETSIZE.
            unsafe { libc::CPU_SET(index, &mut set) };
        }
    }
    // SAFETY: the set lives through the call and its size is the one given.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the thread may interrupt another that it shares the CPU with, as soon as there is something for it.
fn interrupting(may: bool) -> io::Result<()> {
    let policy = if may { libc::SCHED_OTHER } else { libc::SCHED_BATCH };
    let no_priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter lives through the call.
    match unsafe { libc::sched_setscheduler(0, policy, &no_priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// While it lives, this thread and what it starts share one CPU with the server.
pub struct SharedCpu;

impl SharedCpu {
    /// A client under SCHED_BATCH leaves the CPU to the server until the server waits.
    pub fn enter(batch: bool) -> io::Result<Self> {
        pin(Some(shared()))?;
        interrupting(!batch)?;
        Ok(Self)
    }
}

impl Drop for SharedCpu {
    fn drop(&mut self) {
        let freed = interrupting(true).and_then(|()| pin(None));
        freed.expect("what was allowed before");
    }
}
