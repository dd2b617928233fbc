//! Plays the sessions of a trace (`LIBMILTER_TRACE`) to a filter, one after the other, and tells where the filter answers
//! otherwise than it did then.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use milter::mta::{Error, Link};
use milter::protocol::{Kind, frame};
use serde::Deserialize;

use super::Exit;
use super::options::Options;

/// One line of a trace, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    trace: u32,
    #[serde(default)]
    content: bool,
    #[serde(default)]
    session: u64,
    from: Option<Side>,
    kind: Option<char>,
    text: Option<String>,
    hex: Option<String>,
    #[serde(default)]
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Mta,
    Filter,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

/// One session: frames, and in which line of the trace each stands.
#[derive(Debug, Default)]
struct Recorded {
    frames: Vec<(Side, Frame, usize)>,
    /// Payloads are those of the session, not masked.
    has_content: bool,
}

/// Plays all of it.
pub fn run(options: &Options, path: &Path) -> Exit {
    let sessions =
        match std::fs::read_to_string(path).map_err(|error| error.to_string()).and_then(|text| read(&text)) {
            Ok(sessions) => sessions,
            Err(error) => {
                eprintln!("milter-send: {}: {error}", path.display());
                return Exit::Usage;
            }
        };
    let mut exit = Exit::Accepted;
    let is_of_one_process = sessions.keys().all(|(process, _)| *process == 1);
    for ((process, number), session) in sessions {
        let title = match is_of_one_process {
            true => format!("session {number}"),
            false => format!("session {number} of process {process}"),
        };
        match session.begins().then(|| play(options, &session)) {
            None => tell(&format!("{title}: not played, its beginning is not in the trace")),
            Some(Ok(differences)) if differences.is_empty() => {
                let count = session.frames.iter().filter(|(side, ..)| *side == Side::Mta).count();
                tell(&format!("{title}: {count} commands, answered as in the trace"));
            }
            Some(Ok(differences)) => {
                exit = Exit::Unexpected;
                tell(&format!("{title}: answered otherwise than in the trace\n{differences}"));
            }
            Some(Err(error)) => {
                tell(&format!("{title}: {error}"));
                exit = Exit::from(&error);
            }
        }
    }
    exit
}

fn tell(text: &str) {
    // Nobody listens; the exit status still tells.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

/// The sessions of a trace, by the number of their process in it and their own.
fn read(text: &str) -> Result<BTreeMap<(u32, u64), Recorded>, String> {
    let mut sessions = BTreeMap::<(u32, u64), Recorded>::new();
    let (mut process, mut has_content) = (0, false);
    for (place, line) in text.lines().enumerate() {
        let place = place + 1;
        let line: Line = serde_json::from_str(line).map_err(|error| format!("line {place}: {error}"))?;
        match line.trace {
            0 => {}
            1 => {
                (process, has_content) = (process + 1, line.content);
                continue;
            }
            version => return Err(format!("line {place}: a trace of version {version}, which is not known")),
        }
        if process == 0 {
            return Err(format!("line {place}: this is no trace"));
        }
        let (Some(side), Some(kind)) = (line.from, line.kind) else { continue };
        let payload = payload(&line).ok_or_else(|| format!("line {place}: bad hexadecimal digits"))?;
        let kind = u8::try_from(kind).map_err(|_| format!("line {place}: no kind of frame"))?;
        let session = sessions.entry((process, line.session)).or_default();
        session.has_content = has_content;
        session.frames.push((side, Frame { kind, payload }, place));
    }
    Ok(sessions)
}

/// A payload, or as many bytes as there were: lines of text.
fn payload(line: &Line) -> Option<Vec<u8>> {
    const TEXT: &[u8] = b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n";
    match (&line.text, &line.hex) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(hex)) => {
            let digits = hex.as_bytes().chunks(2);
            digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
        }
        (None, None) => Some(TEXT.iter().copied().cycle().take(line.bytes).collect()),
    }
}

impl Recorded {
    /// Whether it is there from its beginning on.
    fn begins(&self) -> bool {
        self.frames.first().is_some_and(|(side, frame, _)| *side == Side::Mta && frame.kind == b'O')
    }
}

/// Whether it is the answer to a command, which no other frame follows before the next command.
fn is_answer(kind: u8) -> bool {
    b"Ocartdsyf4".contains(&kind)
}

/// Plays a session; the differences, one in a line.
fn play(options: &Options, session: &Recorded) -> Result<String, Error> {
    let limits = options.limits();
    let stream = options
        .socket
        .connect(limits.connect)
        .map_err(|source| Error::Connect { address: options.socket.to_string(), source })?;
    let mut link = Link::with_limits(stream, limits);
    let mut differences = String::new();
    let mut during = Kind::Negotiate;
    let mut rest = &session.frames[..];
    while let [(_, command, place), behind @ ..] = rest {
        let end = behind.iter().position(|(side, ..)| *side == Side::Mta).unwrap_or(behind.len());
        during = Kind::try_from(command.kind).unwrap_or(during);
        frame::append(link.outgoing(), command.kind, &[&command.payload]);
        link.flush(during)?;
        let wanted: Vec<&Frame> =
            behind[..end].iter().map(|(_, frame, _)| frame).filter(|frame| frame.kind != b'p').collect();
        let answers = wanted.iter().filter(|frame| is_answer(frame.kind)).count();
        let found = hear(&mut link, during, answers)?;
        compare(&mut differences, during, *place, &wanted, &found, session.has_content);
        let answers = |frame: &&Frame| is_answer(frame.kind);
        let then = wanted.iter().copied().filter(answers).map(|frame| frame.kind);
        if !found.iter().filter(answers).map(|frame| frame.kind).eq(then) {
            // What follows in the trace the filter may not even expect.
            let _ = writeln!(differences, "  the rest of the session is not played");
            break;
        }
        rest = &behind[end..];
    }
    // What it says now, nobody has asked for.
    link.close();
    Ok(differences)
}

/// Receives so many answers, and what comes in front of them.
fn hear(link: &mut Link, during: Kind, mut answers: usize) -> Result<Vec<Frame>, Error> {
    let mut found = Vec::new();
    while answers > 0 {
        let frame = link.receive(during)?;
        let frame = Frame { kind: frame.kind, payload: frame.payload.to_vec() };
        answers -= usize::from(is_answer(frame.kind));
        if frame.kind != b'p' {
            found.push(frame);
        }
    }
    Ok(found)
}

fn compare(
    differences: &mut String,
    during: Kind,
    place: usize,
    wanted: &[&Frame],
    found: &[Frame],
    has_content: bool,
) {
    let longest = wanted.len().max(found.len());
    for number in 0..longest {
        let (then, now) = (wanted.get(number).copied(), found.get(number));
        let is_same = match (then, now) {
            (Some(then), Some(now)) => then.kind == now.kind && (!has_content || then.payload == now.payload),
            _ => false,
        };
        if !is_same {
            let shown = |frame: Option<&Frame>| frame.map_or_else(|| "nothing".to_owned(), show);
            // Writing to a string does not fail.
            let _ = writeln!(
                differences,
                "  line {place}, {}: {} then, {} now",
                during.name(),
                shown(then),
                shown(now)
            );
        }
    }
}

/// A frame, shortened.
fn show(frame: &Frame) -> String {
    const LONGEST: usize = 100;
    let kind = char::from(frame.kind);
    if frame.payload.is_empty() {
        return format!("'{kind}'");
    }
    let shown = frame.payload[..frame.payload.len().min(LONGEST)].escape_ascii();
    format!("'{kind}' \"{shown}{}\"", if frame.payload.len() > LONGEST { "..." } else { "" })
}
