//! Log lines: syslog(3) with the identity and facility that the process itself chose by openlog(). Every line
//! begins with the filter's name. Debug output goes to standard error.

use parking_lot::Mutex;
use std::ffi::{CStr, CString};
use std::fmt::{Arguments, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// How much debug output is wanted; 0 is none.
static DEBUG_LEVEL: AtomicI32 = AtomicI32::new(0);

/// What has been logged by [`error_at_most`].
static REPEATED: Repeated = Repeated::new();

/// Something failed.
pub fn error(name: &CStr, message: Arguments<'_>) {
    write(libc::LOG_ERR, name, message);
}

/// Something failed that may fail again and again: of the lines of a kind only one is logged in a time, and it tells
/// how many were held back before it.
#[cold]
pub fn error_at_most(every: Duration, kind: LineKind, name: &CStr, message: Arguments<'_>) {
    match REPEATED.admit(kind, every, Instant::now()) {
        None => {}
        Some(0) => error(name, message),
        Some(held_back) => {
            error(name, format_args!("{message} ({held_back} more like this since the last such line)"));
        }
    }
}

/// Something is not as it should be.
pub fn warning(name: &CStr, message: Arguments<'_>) {
    write(libc::LOG_WARNING, name, message);
}

/// Sets how much debug output is wanted.
pub fn set_debug_level(level: i32) {
    DEBUG_LEVEL.store(level, Ordering::Relaxed);
}

/// Whether debug output of this level is wanted. To be asked first: making the message costs more than asking.
#[inline]
pub fn debug_wanted(level: i32) -> bool {
    DEBUG_LEVEL.load(Ordering::Relaxed) >= level
}

/// Writes a line of debug output.
#[cold]
pub fn debug(name: &CStr, message: Arguments<'_>) {
    let line = format!("{}: {}\n", name.to_string_lossy(), printable(message));
    // Nobody reads it, or the disk is full: no reason to do anything else than without it.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn write(priority: libc::c_int, name: &CStr, message: Arguments<'_>) {
    // What is printable holds no NUL.
    let text = CString::new(printable(message)).unwrap_or_default();
    deliver(priority, name, &text);
}

#[cfg(not(test))]
use crate::sys::syslog::write as deliver;

/// The message, with control characters escaped: what it quotes comes from outside.
fn printable(message: Arguments<'_>) -> String {
    let text = message.to_string();
    if !text.contains(char::is_control) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        let _ = match u8::try_from(character) {
            Ok(byte) if byte.is_ascii_control() => write!(escaped, "{}", byte.escape_ascii()),
            _ if character.is_control() => write!(escaped, "{}", character.escape_unicode()),
            _ => write!(escaped, "{character}"),
        };
    }
    escaped
}

/// What a line is about. Lines of the same kind say the same, but for numbers and quotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineKind(pub &'static str, pub u32);

/// When a line of each kind was logged last.
#[derive(Debug)]
struct Repeated(Mutex<Vec<Logged>>);

#[derive(Debug)]
struct Logged {
    kind: LineKind,
    last: Instant,
    held_back: u64,
}

impl Repeated {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Whether a line may be logged now, and how many of its kind were held back since the last one.
    fn admit(&self, kind: LineKind, every: Duration, now: Instant) -> Option<u64> {
        let all = &mut *self.0.lock();
        let Some(logged) = all.iter_mut().find(|logged| logged.kind == kind) else {
            all.push(Logged { kind, last: now, held_back: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(logged.last) < every {
            logged.held_back += 1;
            return None;
        }
        logged.last = now;
        Some(std::mem::take(&mut logged.held_back))
    }
}

#[cfg(test)]
thread_local! {
    static LINES: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// In unit tests a thread keeps its lines.
#[cfg(test)]
fn deliver(priority: libc::c_int, name: &CStr, text: &CStr) {
    let line = format!("{priority} {}: {}", name.to_string_lossy(), text.to_string_lossy());
    LINES.with_borrow_mut(|lines| lines.push(line));
}

/// The lines that this thread has logged since it was asked last.
#[cfg(test)]
pub fn take_lines() -> Vec<String> {
    LINES.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        error(c"name", format_args!("a \"{}\" \u{e4}\u{85} \\", "\x1b[2J\n\0\x7f"));
        assert_eq!(take_lines(), ["3 name: a \"\\x1b[2J\\n\\x00\\x7f\" \u{e4}\\u{85} \\"]);
    }

    #[test]
    fn each_kind_of_line_has_its_own_limit() {
        let (one, other) = (LineKind("one", 0), LineKind("one", 1));
        let minute = Duration::from_secs(60);
        let repeated = Repeated::new();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(repeated.admit(one, minute, after(0)), Some(0));
        assert_eq!(repeated.admit(one, minute, after(1)), None);
        assert_eq!(repeated.admit(other, minute, after(1)), Some(0));
        assert_eq!(repeated.admit(one, minute, after(59)), None);
        assert_eq!(repeated.admit(one, minute, after(60)), Some(2));
        assert_eq!(repeated.admit(one, minute, after(100)), None);
        assert_eq!(repeated.admit(other, minute, after(130)), Some(0));
        assert_eq!(repeated.admit(one, minute, after(130)), Some(1));
    }

    #[test]
    fn the_next_line_tells_how_many_were_held_back() {
        let kind = LineKind("tells", 0);
        for number in 1..=3 {
            error_at_most(Duration::MAX, kind, c"name", format_args!("error {number}"));
        }
        error_at_most(Duration::ZERO, kind, c"name", format_args!("error 4"));
        assert_eq!(
            take_lines(),
            ["3 name: error 1", "3 name: error 4 (2 more like this since the last such line)"]
        );
    }
}
