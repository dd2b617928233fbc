//! What it costs on this processor to receive a large frame into a buffer that begins with a page. It says whether
//! S3 of this run can show a badly placed buffer at all: some processors copy as fast to any place.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::stats::median;

/// The largest frame that MTAs send: 65,535 bytes, and its length and command.
const FRAME: usize = 65_540;
const PAGE: usize = 4096;
/// Where bare servers have theirs, see `wire.h`.
const PLACE: usize = 256;

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the variable that it is given, and to nothing else.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } != 0;
    assert!(!failed, "every thread has a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How many times as long it takes to receive a frame at the start of a page as 256 bytes behind it.
pub fn cost_of_page_start() -> io::Result<f64> {
    const ROUNDS: usize = 300;
    let (mut sender, mut receiver) = UnixStream::pair()?;
    let frame = vec![b'x'; FRAME];
    let mut memory = vec![0; FRAME + 2 * PAGE];
    let start = memory.as_ptr().align_offset(PAGE);
    let mut receive = |place| {
        sender.write_all(&frame)?;
        let before = cpu_time();
        receiver.read_exact(&mut memory[start + place..][..FRAME])?;
        io::Result::Ok((cpu_time() - before).as_secs_f64())
    };
    let mut ratios = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        ratios.push(receive(0)? / receive(PLACE)?);
    }
    Ok(median(ratios).expect("some rounds"))
}
