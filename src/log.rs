//! Log lines: syslog(3) with the identity and facility that the process itself chose by openlog(). Every line
//! begins with the filter's name. Debug output goes to standard error. An administrator may have the lines elsewhere, and
//! then those about a session say which one.

use crate::sys::clock;
use parking_lot::Mutex;
use std::ffi::{CStr, CString};
use std::fmt::{Arguments, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// How much debug output is wanted; 0 is none.
static DEBUG_LEVEL: AtomicI32 = AtomicI32::new(0);

/// Where lines go: a [`Destination`].
static DESTINATION: AtomicU8 = AtomicU8::new(Destination::Default as u8);

/// The priority of the least important lines that are logged.
static LEVEL: AtomicI32 = AtomicI32::new(libc::LOG_WARNING);

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Destination {
    /// To syslog(3), as the documented interface has it.
    Default,
    /// To syslog(3), with details of sessions.
    Syslog,
    /// To standard error, with details of sessions.
    Stderr,
    /// To standard error, a JSON object each.
    Json,
}

impl Destination {
    fn current() -> Self {
        let all = [Self::Default, Self::Syslog, Self::Stderr, Self::Json];
        all[usize::from(DESTINATION.load(Ordering::Relaxed)) % all.len()]
    }
}

/// The session that a line is about.
#[derive(Debug)]
pub struct About {
    /// Its number.
    pub session: u64,
    /// Who is at the other end.
    pub peer: String,
    /// The queue id of its message; empty if there is none.
    pub queue_id: Vec<u8>,
    /// Why it ends, in a word or two that are always the same; not for lines about something else.
    pub reason: Option<&'static str>,
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session {}, peer {}, ", self.session, self.peer)?;
        match &*self.queue_id {
            b"" => f.write_str("no queue id"),
            id => write!(f, "queue id {}", String::from_utf8_lossy(id)),
        }
    }
}

/// Sets where lines go from now on, and the priority of the least important ones (syslog(3)).
pub fn set_up(destination: Destination, level: libc::c_int) {
    DESTINATION.store(destination as u8, Ordering::Relaxed);
    LEVEL.store(level, Ordering::Relaxed);
}

/// Whether the ends of sessions are wanted with details.
#[inline]
pub fn details_wanted() -> bool {
    DESTINATION.load(Ordering::Relaxed) != Destination::Default as u8
}

/// Whether lines of this priority are wanted.
pub fn is_wanted(priority: libc::c_int) -> bool {
    priority <= LEVEL.load(Ordering::Relaxed)
}

/// What has been logged by [`error_at_most`].
static REPEATED: Repeated = Repeated::new();

/// Something failed.
pub fn error(name: &CStr, message: Arguments<'_>) {
    write(libc::LOG_ERR, name, message, None);
}

/// Something failed that may fail again and again: of the lines of a kind only one is logged in a time, and it tells
/// how many were held back before it.
#[cold]
pub fn error_at_most(every: Duration, kind: LineKind, name: &CStr, message: Arguments<'_>) {
    at_most(every, kind, message, |message| error(name, message));
}

fn at_most(every: Duration, kind: LineKind, message: Arguments<'_>, log: impl FnOnce(Arguments<'_>)) {
    match REPEATED.admit(kind, every, Instant::now()) {
        None => {}
        Some(0) => log(message),
        Some(held_back) => {
            log(format_args!("{message} ({held_back} more like this since the last such line)"));
        }
    }
}

/// A line about a session. With a limit, only one of its kind is logged in a time, as by [`error_at_most`].
#[cold]
pub fn about_session(
    priority: libc::c_int,
    limit: Option<(Duration, LineKind)>,
    name: &CStr,
    message: Arguments<'_>,
    about: &About,
) {
    if !is_wanted(priority) {
        return;
    }
    match limit {
        None => write(priority, name, message, Some(about)),
        Some((every, kind)) => {
            at_most(every, kind, message, |message| write(priority, name, message, Some(about)));
        }
    }
}

/// Something is not as it should be.
pub fn warning(name: &CStr, message: Arguments<'_>) {
    write(libc::LOG_WARNING, name, message, None);
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

fn write(priority: libc::c_int, name: &CStr, message: Arguments<'_>, about: Option<&About>) {
    if !is_wanted(priority) {
        return;
    }
    let destination = Destination::current();
    if destination == Destination::Json {
        return print(&json(priority, name, message, about));
    }
    let text = match about {
        None => printable(message),
        Some(about) => printable(format_args!("{message} ({about})")),
    };
    if destination == Destination::Stderr {
        return print(&format!("{}: {}: {text}", name.to_string_lossy(), level_name(priority)));
    }
    // What is printable holds no NUL.
    deliver(priority, name, &CString::new(text).unwrap_or_default());
}

/// Prints a line, at once and as a whole.
fn print(line: &str) {
    // Nobody reads it, or the disk is full: no reason to do anything else than without it.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// The word for a priority.
fn level_name(priority: libc::c_int) -> &'static str {
    match priority {
        libc::LOG_ERR => "error",
        libc::LOG_WARNING => "warning",
        _ => "info",
    }
}

fn json(priority: libc::c_int, name: &CStr, message: Arguments<'_>, about: Option<&About>) -> String {
    let mut line = String::from("{");
    let mut add = |key: &str, value: &str| {
        line.push_str(if line.len() == 1 { "" } else { "," });
        quote(&mut line, key);
        line.push(':');
        quote(&mut line, value);
    };
    add("time", &clock::timestamp());
    add("level", level_name(priority));
    add("filter", &name.to_string_lossy());
    add("message", &message.to_string());
    if let Some(about) = about {
        if let Some(reason) = about.reason {
            add("reason", reason);
        }
        add("peer", &about.peer);
        if !about.queue_id.is_empty() {
            add("queue_id", &String::from_utf8_lossy(&about.queue_id));
        }
        // Writing to a string does not fail.
        let _ = write!(line, ",\"session\":{}", about.session);
    }
    line.push('}');
    line
}

/// Appends a JSON string.
fn quote(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        // Writing to a string does not fail.
        let _ = match character {
            '"' | '\\' => write!(line, "\\{character}"),
            _ if character.is_control() => write!(line, "\\u{:04x}", u32::from(character)),
            _ => write!(line, "{character}"),
        };
    }
    line.push('"');
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
    fn json_holds_whatever_was_said() {
        let about = About {
            session: 3,
            peer: "192.0.2.1:25".into(),
            queue_id: b"4X\"\xff".to_vec(),
            reason: Some("frame"),
        };
        let text = "a \"b\" \\ \n \u{85} \u{e4}";
        let line = json(libc::LOG_ERR, c"name", format_args!("{text}"), Some(&about));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["message"], text);
        assert_eq!(value["level"], "error");
        assert_eq!(value["queue_id"], "4X\"\u{fffd}");
        assert_eq!((&value["session"], &value["peer"]), (&3.into(), &"192.0.2.1:25".into()));
        assert!(!line.contains('\n'));
        let plain = json(libc::LOG_WARNING, c"name", format_args!("x"), None);
        assert!(plain.ends_with(",\"level\":\"warning\",\"filter\":\"name\",\"message\":\"x\"}"), "{plain}");
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
