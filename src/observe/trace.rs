//! The dialogue of sessions, as JSON lines in a file: what came and went, frame by frame, how long callbacks took, how sessions
//! ended. `milter-send --replay` plays it again. Addresses and content are masked unless they are wanted: letters become
//! `x`, digits `0`, and what is left still is the same dialogue.
//!
//! The file is bounded: one that is full becomes `PATH.1`, in place of the one before. It is written by a thread of its own
//! ([`super::writer`]).

use super::writer::{Lines, Wait, Writer};
use super::{Ending, frames};
use crate::log;
use crate::protocol::Kind;
use std::ffi::CStr;
use std::fmt::{Arguments, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What to write down, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// Whether addresses and content are written as they are.
    pub has_content: bool,
    /// How large the file may become, in bytes.
    pub size: u64,
}

/// The trace.
#[derive(Debug)]
pub struct Trace {
    has_content: bool,
    lines: Arc<Lines>,
}

/// A session in it.
#[derive(Debug)]
pub struct Traced {
    /// Its number; 1 is the first.
    number: u64,
    /// A line of it was lost, and no other is written.
    is_cut: AtomicBool,
}

impl Traced {
    pub fn new(number: u64) -> Self {
        Self { number, is_cut: AtomicBool::new(false) }
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Mta,
    Filter,
}

impl Trace {
    /// Opens the file; if that fails, it is logged. The trace ends with the writer.
    pub fn start(name: &CStr, settings: &Settings) -> Option<(Self, Writer)> {
        let head = head(name, settings.has_content);
        match Writer::start(name, &settings.path, settings.size, head) {
            Ok(writer) => Some((Self { has_content: settings.has_content, lines: writer.lines() }, writer)),
            Err(error) => {
                let path = settings.path.display();
                log::error(name, format_args!("LIBMILTER_TRACE: {path}: {error}, there is no trace"));
                None
            }
        }
    }

    pub fn begins(&self, session: &Traced) {
        self.event(session, format_args!(",\"event\":\"begin\""));
    }

    /// Who is told of a command waits, if it is not for long: the callback may be the last thing that the process does.
    pub fn received(&self, session: &Traced, kind: u8, payload: &[u8]) {
        self.frame(session, Side::Mta, kind, payload, Wait::IfQuick);
    }

    pub fn sent(&self, session: &Traced, bytes: &[u8]) {
        for (kind, payload) in frames(bytes) {
            self.frame(session, Side::Filter, kind, payload, Wait::No);
        }
    }

    pub fn called(&self, session: &Traced, kind: Kind, status: Option<i32>, time: Duration) {
        let name = if kind == Kind::Quit { "close" } else { kind.name() };
        let status = status.map(|status| format!(",\"status\":{status}")).unwrap_or_default();
        let seconds = time.as_secs_f64();
        let what =
            format_args!(",\"event\":\"callback\",\"callback\":\"{name}\"{status},\"seconds\":{seconds:.6}");
        self.event(session, what);
    }

    pub fn ends(&self, session: &Traced, ending: Ending) {
        self.event(session, format_args!(",\"event\":\"end\",\"reason\":\"{}\"", ending.name()));
    }

    fn event(&self, session: &Traced, what: Arguments<'_>) {
        if !session.is_cut.load(Ordering::Relaxed) {
            self.write(session, &format!("{}{what}}}\n", start(session.number)), Wait::No);
        }
    }

    fn frame(&self, session: &Traced, side: Side, kind: u8, payload: &[u8], wait: Wait) {
        if session.is_cut.load(Ordering::Relaxed) {
            return;
        }
        let mut line = start(session.number);
        let (from, name) = match side {
            Side::Mta => ("mta", Kind::try_from(kind).map_or("?", Kind::name)),
            Side::Filter => ("filter", reply_name(kind)),
        };
        let _ = write!(line, ",\"from\":\"{from}\",\"name\":\"{name}\",\"kind\":");
        quote(&mut line, &char::from(kind).to_string());
        if self.has_content {
            put_payload(&mut line, payload);
        } else if payload.is_empty() || !is_bulk(side, kind) {
            put_payload(&mut line, &masked(side, kind, payload));
        } else {
            let _ = write!(line, ",\"bytes\":{}", payload.len());
        }
        line.push_str("}\n");
        self.write(session, &line, wait);
    }

    /// A session of which a line is lost is not in the trace any more: its beginning alone can still be played, but not a
    /// session with holes.
    fn write(&self, session: &Traced, line: &str, wait: Wait) {
        if !self.lines.add(line, wait) && !session.is_cut.swap(true, Ordering::Relaxed) {
            self.lines.is_lost();
        }
    }
}

/// The first line of a file, and of each process in it.
fn head(name: &CStr, has_content: bool) -> String {
    let mut line = format!("{{\"trace\":1,\"version\":\"{}\",\"filter\":", env!("CARGO_PKG_VERSION"));
    quote(&mut line, &name.to_string_lossy());
    let _ = writeln!(line, ",\"content\":{has_content}}}");
    line
}

/// The start of a line.
fn start(session: u64) -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{{\"time\":{}.{:06},\"session\":{session}", time.as_secs(), time.subsec_micros())
}

fn reply_name(kind: u8) -> &'static str {
    match kind {
        b'O' => "OPTNEG",
        b'c' => "CONTINUE",
        b'a' => "ACCEPT",
        b'r' => "REJECT",
        b't' => "TEMPFAIL",
        b'd' => "DISCARD",
        b's' => "SKIP",
        b'y' => "REPLYCODE",
        b'h' => "ADDHEADER",
        b'i' => "INSHEADER",
        b'm' => "CHGHEADER",
        b'e' => "CHGFROM",
        b'+' => "ADDRCPT",
        b'2' => "ADDRCPT_PAR",
        b'-' => "DELRCPT",
        b'b' => "REPLBODY",
        b'q' => "QUARANTINE",
        b'p' => "PROGRESS",
        _ => "?",
    }
}

/// A payload as text if it is one, else in hexadecimal: nothing is lost.
fn put_payload(line: &mut String, payload: &[u8]) {
    match std::str::from_utf8(payload) {
        Ok("") => {}
        Ok(text) => {
            line.push_str(",\"text\":");
            quote(line, text);
        }
        Err(_) => {
            line.push_str(",\"hex\":\"");
            for byte in payload {
                let _ = write!(line, "{byte:02x}");
            }
            line.push('"');
        }
    }
}

fn quote(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(control));
            }
            other => line.push(other),
        }
    }
    line.push('"');
}

/// Whether masked content would be long and tell nothing.
fn is_bulk(side: Side, kind: u8) -> bool {
    match side {
        Side::Mta => matches!(kind, b'B' | b'E'),
        Side::Filter => kind == b'b',
    }
}

fn mask(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(bytes.iter().map(|byte| match byte {
        b'0'..=b'9' => b'0',
        b'A'..=b'Z' | b'a'..=b'z' | 0x80.. => b'x',
        other => *other,
    }));
}

/// The payload without names, addresses and content. What the protocol needs stays: numbers of the negotiation, names of
/// header fields and macros, queue ids, reply codes.
fn masked(side: Side, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len());
    match (side, kind) {
        (_, b'O') => out.extend_from_slice(payload),
        (Side::Mta, b'D') => mask_macros(&mut out, payload),
        (Side::Mta, b'C') => mask_client(&mut out, payload),
        (Side::Mta, b'M' | b'R') => mask_envelope(&mut out, payload),
        (Side::Mta, b'L') => mask_value(&mut out, payload),
        (Side::Filter, b'h') => mask_value(&mut out, payload),
        (Side::Filter, b'i' | b'm') => {
            let (index, field) = payload.split_at(payload.len().min(4));
            out.extend_from_slice(index);
            mask_value(&mut out, field);
        }
        (Side::Filter, b'y') => {
            for (place, line) in payload.split(|byte| *byte == b'\n').enumerate() {
                if place > 0 {
                    out.push(b'\n');
                }
                let is_code = |byte: &u8| byte.is_ascii_digit() || b"-. ".contains(byte);
                let code = line.iter().position(|byte| !is_code(byte)).unwrap_or(line.len());
                out.extend_from_slice(&line[..code]);
                mask(&mut out, &line[code..]);
            }
        }
        _ => mask(&mut out, payload),
    }
    out
}

/// A stage, and then names and values.
fn mask_macros(out: &mut Vec<u8>, payload: &[u8]) {
    let (stage, definitions) = payload.split_at(payload.len().min(1));
    out.extend_from_slice(stage);
    let mut name: Option<&[u8]> = None;
    for (place, text) in definitions.split(|byte| *byte == 0).enumerate() {
        if place > 0 {
            out.push(0);
        }
        match name.take() {
            None => {
                out.extend_from_slice(text);
                name = Some(text);
            }
            // The queue id is how a message is found in the log of the mail server.
            Some(b"i" | b"{i}") => out.extend_from_slice(text),
            Some(_) => mask(out, text),
        }
    }
}

/// A name, a family, a port and an address, which must stay one.
fn mask_client(out: &mut Vec<u8>, payload: &[u8]) {
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    mask(out, &payload[..end]);
    out.extend_from_slice(&payload[end..payload.len().min(end + 4)]);
    let address = payload.get(end + 4..).unwrap_or_default();
    match payload.get(end + 1) {
        Some(b'4') => out.extend_from_slice(b"192.0.2.1\0"),
        Some(b'6') => out.extend_from_slice(b"IPv6:2001:db8::1\0"),
        _ => mask(out, address),
    }
}

/// An address, and then ESMTP arguments, whose names stay.
fn mask_envelope(out: &mut Vec<u8>, payload: &[u8]) {
    for (place, text) in payload.split(|byte| *byte == 0).enumerate() {
        if place > 0 {
            out.push(0);
        }
        let is_sign = |byte: &u8| *byte == b'=';
        let name = text.iter().position(is_sign).filter(|_| place > 0).unwrap_or_default();
        out.extend_from_slice(&text[..name]);
        mask(out, &text[name..]);
    }
}

/// A name, which stays, and a value.
fn mask_value(out: &mut Vec<u8>, field: &[u8]) {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    out.extend_from_slice(&field[..end]);
    mask(out, &field[end..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn text(side: Side, kind: u8, payload: &[u8]) -> String {
        String::from_utf8(masked(side, kind, payload)).unwrap()
    }

    #[test]
    fn names_addresses_and_content_are_masked() {
        let mta = |kind, payload: &[u8]| text(Side::Mta, kind, payload);
        assert_eq!(mta(b'C', b"mx.b7.example\x004\0\x1910.1.2.3\0"), "xx.x0.xxxxxxx\x004\0\x19192.0.2.1\0");
        assert_eq!(mta(b'C', b"a\x006\0\0IPv6:2001:db8::7\0"), "x\x006\0\0IPv6:2001:db8::1\0");
        assert_eq!(mta(b'C', b"localhost\0U"), "xxxxxxxxx\0U");
        assert_eq!(mta(b'M', b"<ann@example.org>\0SIZE=12\0"), "<xxx@xxxxxxx.xxx>\0SIZE=00\0");
        assert_eq!(mta(b'L', b"Subject\0Hello, 7 \xc3\xa4\0"), "Subject\0xxxxx, 0 xx\0");
        assert_eq!(mta(b'D', b"Mi\0QUEUE1\0{mail_addr}\0a@b\0"), "Mi\0QUEUE1\0{mail_addr}\0x@x\0");
        let filter = |kind, payload: &[u8]| text(Side::Filter, kind, payload);
        assert_eq!(
            filter(b'y', b"550-5.7.1 No, Ann\r\n550 5.7.1 Bye\0"),
            "550-5.7.1 xx, xxx\r\n550 5.7.1 xxx\0"
        );
        assert_eq!(filter(b'i', b"\0\0\0\x01X-A\0b1\0"), "\0\0\0\x01X-A\0x0\0");
        assert_eq!(filter(b'+', b"<ann@example.org>\0"), "<xxx@xxxxxxx.xxx>\0");
    }

    #[test]
    fn any_payload_is_json() {
        let shown = |payload: &[u8]| {
            let mut line = String::new();
            put_payload(&mut line, payload);
            line
        };
        assert_eq!(shown(b""), "");
        assert_eq!(shown(b"a\0\"\\\r\n\x7f"), ",\"text\":\"a\\u0000\\\"\\\\\\r\\n\\u007f\"");
        assert_eq!(shown(b"\xff\0"), ",\"hex\":\"ff00\"");
    }

    #[test]
    fn a_full_file_gives_way_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let settings = Settings { path: path.clone(), has_content: true, size: 1000 };
        let (trace, writer) = Trace::start(c"name", &settings).unwrap();
        let session = Traced::new(1);
        for _ in 0..100 {
            trace.received(&session, b'H', b"a name\0");
        }
        drop(writer);
        let old = dir.path().join("trace.1");
        for file in [&path, &old] {
            let text = fs::read_to_string(file).unwrap();
            assert!(text.len() <= 1000 && text.starts_with("{\"trace\":1,"), "{text}");
            assert!(text.ends_with("\"text\":\"a name\\u0000\"}\n"), "{text}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        let link = Settings { path: dir.path().join("link"), ..settings };
        assert!(Trace::start(c"name", &link).is_none());
        assert!(log::take_lines()[0].starts_with("3 name: LIBMILTER_TRACE: "));
    }
}
