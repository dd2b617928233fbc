//! The time of day, and time as it passes.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in UTC, as RFC 3339 has it, to the millisecond.
pub fn timestamp() -> String {
    // A clock before 1970 is wrong anyway.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format_at(since.as_secs(), since.subsec_millis())
}

fn format_at(seconds: u64, milliseconds: u32) -> String {
    let time = libc::time_t::try_from(seconds).unwrap_or_default();
    // SAFETY: all-zero is a valid tm.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers lead to live variables. It fails only for years that do not fit an int.
    unsafe { libc::gmtime_r(&raw const time, &raw mut parts) };
    let (year, month, day) = (parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
    let (hour, minute, second) = (parts.tm_hour, parts.tm_min, parts.tm_sec);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// The nanoseconds of a clock that is never set back, for what is measured twice in every command: an
/// [`Instant`](std::time::Instant) takes three times the instructions, most of them to subtract.
pub fn nanoseconds() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer leads to a live variable. It does not fail: each system has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(format_at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_at(1_709_251_199, 7), "2024-02-29T23:59:59.007Z");
    }
}
