//! The messages that are to be sent: single files, mailboxes, standard input.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use milter::mta::Message;

use super::options::Options;

/// A message, and where it comes from.
#[derive(Debug)]
pub struct Input {
    /// Its file; `-` is standard input.
    pub file: String,
    /// Which message of a mailbox it is, from 1.
    pub part: Option<usize>,
    /// The message.
    pub message: Message,
}

impl Input {
    /// What it is called in the dialogue and in test reports.
    pub fn title(&self) -> String {
        match self.part {
            Some(part) => format!("{} message {part}", self.file),
            None => self.file.clone(),
        }
    }
}

/// All messages, and what a person should be told about them.
#[derive(Debug, Default)]
pub struct Inputs {
    /// The messages, in order.
    pub messages: Vec<Input>,
    /// Warnings.
    pub warnings: Vec<String>,
}

impl Inputs {
    /// Reads all messages before the filter hears of the first: a missing file is no reason to bother it.
    ///
    /// # Errors
    /// A file cannot be read, or a mailbox has no message.
    pub fn read(options: &Options) -> Result<Self, String> {
        let stdin = [Path::new("-").to_owned()];
        let files = if options.messages.is_empty() { &stdin[..] } else { &options.messages };
        let mut inputs = Self::default();
        for file in files {
            let bytes = read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            inputs.add(file.display().to_string(), bytes, options.mbox)?;
        }
        Ok(inputs)
    }

    fn add(&mut self, file: String, bytes: Vec<u8>, is_mailbox: bool) -> Result<(), String> {
        let bytes = Arc::new(bytes);
        let parts = parts(&bytes);
        if !is_mailbox {
            if parts.len() > 1 {
                let count = parts.len();
                self.warnings
                    .push(format!("{file} is a mailbox with {count} messages, sent as one: see --mbox"));
            }
            let message = Message::part_of(&bytes, 0..bytes.len());
            self.messages.push(Input { file, part: None, message });
            return Ok(());
        }
        if parts.is_empty() {
            return Err(format!("{file}: no mailbox: its first line does not start with \"From \""));
        }
        for (number, part) in (1..).zip(parts) {
            let message = match unquoted(&bytes[part.clone()]) {
                Some(text) => Message::part_of(&Arc::new(text.clone()), 0..text.len()),
                None => Message::part_of(&bytes, part),
            };
            self.messages.push(Input { file: file.clone(), part: Some(number), message });
        }
        Ok(())
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file.to_str() != Some("-") {
        return fs::read(file);
    }
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        super::dialogue::say("milter-send: type the message, then end it with Ctrl-D on a line of its own")?;
    }
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where the messages of a mailbox are; none if it is no mailbox. A message begins with a line `From ` at the very
/// start or behind an empty line; that empty line belongs to nobody.
fn parts(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut starts = Vec::new();
    let (mut at, mut behind_empty) = (0, true);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        if behind_empty && line.starts_with(b"From ") {
            starts.push(at);
        } else if starts.is_empty() {
            return Vec::new();
        }
        behind_empty = matches!(line, b"\n" | b"\r\n");
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let without_empty_line = |start: usize, end: usize| {
        let text = &bytes[start..end];
        let text = match text.strip_suffix(b"\n\n") {
            Some(_) => &text[..text.len() - 1],
            None if text.ends_with(b"\n\r\n") => &text[..text.len() - 2],
            None => text,
        };
        start..start + text.len()
    };
    starts.iter().zip(ends).map(|(&start, end)| without_empty_line(start, end)).collect()
}

/// The message with one `>` less in front of each `From ` that had to be quoted; `None` if there is none.
fn unquoted(message: &[u8]) -> Option<Vec<u8>> {
    let is_quoted = |line: &[u8]| {
        let bare = line.iter().position(|&byte| byte != b'>').map_or(line, |at| &line[at..]);
        line.starts_with(b">") && bare.starts_with(b"From ")
    };
    let lines = || message.split_inclusive(|&byte| byte == b'\n');
    lines().any(is_quoted).then(|| {
        let mut out = Vec::with_capacity(message.len());
        for line in lines() {
            out.extend_from_slice(if is_quoted(line) { &line[1..] } else { line });
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], is_mailbox: bool) -> Result<Inputs, String> {
        let mut inputs = Inputs::default();
        inputs.add("f".to_owned(), bytes.to_vec(), is_mailbox).map(|()| inputs)
    }

    #[test]
    fn messages_of_a_mailbox() {
        let mailbox = b"From a\nA: 1\n\none\n\nFrom here it is text\n>From there\n>>From \n\nFrom b\nB: 2\n\n\n\nFrom c\n";
        // The line of text that starts with "From " behind an empty line should have been quoted.
        let inputs = read(mailbox, true).unwrap();
        let texts: Vec<_> = inputs.messages.iter().map(|input| input.message.to_bytes()).collect();
        assert_eq!(texts, [&b"A: 1\n\none\n"[..], b"\nFrom there\n>From \n", b"B: 2\n\n\n", b"\n"]);
        let quoted = read(b"From a\nA: 1\n\n>From there\n>>From \n> From\n", true).unwrap();
        assert_eq!(quoted.messages[0].message.body, b"From there\n>From \n> From\n");
        let crlf = read(b"From a\r\nA: 1\r\n\r\none\r\n\r\nFrom b\r\nB: 2\r\n", true).unwrap();
        assert_eq!(crlf.messages[0].message.to_bytes(), b"A: 1\r\n\r\none\r\n");
        assert_eq!(crlf.messages[1].title(), "f message 2");
    }

    #[test]
    fn a_mailbox_that_is_sent_as_one_message() {
        let mailbox = b"From a\nA: 1\n\none\n\nFrom b\nB: 2\n\ntwo\n";
        let inputs = read(mailbox, false).unwrap();
        assert_eq!(inputs.messages.len(), 1);
        assert!(inputs.warnings[0].starts_with("f is a mailbox with 2 messages"), "{inputs:?}");
        assert!(read(b"From a\nA: 1\n\nFrom: b\n", false).unwrap().warnings.is_empty());
        assert!(read(b"A: 1\n\none\n\nFrom b\n", false).unwrap().warnings.is_empty());
        assert!(read(b"A: 1\n\none\n", true).unwrap_err().contains("no mailbox"));
    }
}
