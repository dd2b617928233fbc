//! A message as a file has it: header fields kept byte for byte, folding and line ends included, and the body.
//! It tells what of them goes over the wire, and writes the message back; changing it is `apply`'s business.

use std::fmt;
use std::io::{self, Write};
use std::ops::{Deref, Range};
use std::sync::Arc;

/// How lines end in a message file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnd {
    /// LF, as in a file.
    Lf,
    /// CR LF, as in SMTP.
    CrLf,
}

impl LineEnd {
    /// The bytes.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Lf => b"\n",
            Self::CrLf => b"\r\n",
        }
    }
}

/// One header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// All of it but the line end behind it; folded lines keep theirs.
    text: Vec<u8>,
    /// Where the colon is.
    colon: usize,
}

impl Header {
    /// A field made of a name and what follows the colon, white space included.
    pub fn new(name: &[u8], behind_colon: &[u8]) -> Self {
        Self { text: [name, b":", behind_colon].concat(), colon: name.len() }
    }

    /// Takes a line, with its continuation lines, if it is a field: a name of printable characters, perhaps
    /// white space, a colon.
    fn parse(text: &[u8]) -> Option<Self> {
        let colon = text.iter().position(|&b| b == b':')?;
        let name = text[..colon].trim_ascii_end();
        let valid = !name.is_empty() && name.iter().all(|b| b.is_ascii_graphic());
        valid.then(|| Self { text: text.to_vec(), colon })
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        self.text[..self.colon].trim_ascii_end()
    }

    /// What follows the colon, as it stands in the file.
    pub fn behind_colon(&self) -> &[u8] {
        &self.text[self.colon + 1..]
    }

    /// The value as an MTA hands it to a filter: folded lines end with LF alone, and a frame has no room for
    /// NUL. Unless the filter wants leading space, one space behind the colon is not part of it.
    pub fn value_for_filter(&self, leading_space: bool) -> Vec<u8> {
        let value = self.behind_colon();
        let value = if leading_space { value } else { value.strip_prefix(b" ").unwrap_or(value) };
        let mut out = Vec::with_capacity(value.len());
        for (at, &byte) in value.iter().enumerate() {
            if byte != 0 && !(byte == b'\r' && value.get(at + 1) == Some(&b'\n')) {
                out.push(byte);
            }
        }
        out
    }

    /// Whether this is the field's name; case does not count.
    pub fn is_named(&self, name: &[u8]) -> bool {
        self.name().eq_ignore_ascii_case(name)
    }
}

/// A body: a part of a file in memory. Clones share the file, because a body can be large.
#[derive(Clone, Default)]
pub struct Body {
    file: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self { range: 0..bytes.len(), file: Arc::new(bytes) }
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Body {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Body {}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The header fields, in order.
    pub headers: Vec<Header>,
    /// The body, as the file has it.
    pub body: Body,
    /// How lines end in it; of a file without lines, LF.
    pub line_end: LineEnd,
}

impl Message {
    /// Reads a message. The header ends at an empty line or at the first line that is no field; a `From ` line
    /// of a mailbox in front of it is left out.
    pub fn parse(bytes: &[u8]) -> Self {
        Self::part_of(&Arc::new(bytes.to_vec()), 0..bytes.len())
    }

    /// [`parse`](Self::parse), of a part of a file. The body is not copied.
    pub fn part_of(file: &Arc<Vec<u8>>, range: Range<usize>) -> Self {
        let bytes = &file[range.clone()];
        let mut lines = Lines(bytes).peekable();
        let mut headers = Vec::new();
        let line_end = match lines.peek() {
            Some(first) if first.ends_with(b"\r\n") => LineEnd::CrLf,
            _ => LineEnd::Lf,
        };
        let mut at = lines.next_if(|line| line.starts_with(b"From ")).map_or(0, <[u8]>::len);
        while let Some(first) = lines.next() {
            if without_line_end(first).is_empty() {
                at += first.len();
                break;
            }
            let mut end = at + first.len();
            while let Some(folded) = lines.next_if(|line| line.starts_with(b" ") || line.starts_with(b"\t")) {
                end += folded.len();
            }
            let Some(header) = Header::parse(without_line_end(&bytes[at..end])) else { break };
            headers.push(header);
            at = end;
        }
        Self { headers, body: Body { file: Arc::clone(file), range: range.start + at..range.end }, line_end }
    }

    /// The body as it goes over the wire: every line ends with CR LF, the last one too. All pieces but the last
    /// have this size.
    pub fn body_pieces(&self, size: usize) -> BodyPieces<'_> {
        BodyPieces { lines: Lines(&self.body), content: b"", line_end: b"", piece: Vec::new(), size }
    }

    /// How many bytes [`body_pieces`](Self::body_pieces) has in all.
    pub fn body_size_for_filter(&self) -> usize {
        Lines(&self.body).map(|line| without_line_end(line).len() + CR_LF.len()).sum()
    }

    /// Writes the message as a file.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        for header in &self.headers {
            out.write_all(&header.text)?;
            out.write_all(self.line_end.as_bytes())?;
        }
        out.write_all(self.line_end.as_bytes())?;
        out.write_all(&self.body)
    }

    /// The message as a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 100 * self.headers.len());
        self.write_to(&mut out).expect("a Vec takes everything");
        out
    }
}

/// How lines end on the wire.
const CR_LF: &[u8] = b"\r\n";

/// A body on its way to the filter. It is made piece by piece, so that it is never in memory a second time.
#[derive(Debug)]
pub struct BodyPieces<'a> {
    lines: Lines<'a>,
    /// What is left of the line under way, and of its end.
    content: &'a [u8],
    line_end: &'a [u8],
    piece: Vec<u8>,
    size: usize,
}

impl BodyPieces<'_> {
    /// Returns the next piece, if there is one.
    pub fn next_piece(&mut self) -> Option<&[u8]> {
        self.piece.clear();
        while self.piece.len() < self.size {
            if !self.content.is_empty() {
                let (now, later) =
                    self.content.split_at(self.content.len().min(self.size - self.piece.len()));
                self.piece.extend_from_slice(now);
                self.content = later;
            } else if !self.line_end.is_empty() {
                self.content = std::mem::take(&mut self.line_end);
            } else if let Some(line) = self.lines.next() {
                self.content = without_line_end(line);
                self.line_end = CR_LF;
            } else {
                break;
            }
        }
        (!self.piece.is_empty()).then_some(&self.piece)
    }
}

/// `text` with all its line ends, LF or CR LF, turned into `line_end`. A CR alone is no line end.
pub(super) fn with_line_end(text: &[u8], line_end: LineEnd) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 32);
    for line in Lines(text) {
        let content = without_line_end(line);
        out.extend_from_slice(content);
        if content.len() < line.len() {
            out.extend_from_slice(line_end.as_bytes());
        }
    }
    out
}

fn without_line_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The lines of a text, each with its line end.
#[derive(Debug)]
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().position(|&b| b == b'\n').map_or(self.0.len(), |at| at + 1);
        let (line, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &Message) -> Vec<(&[u8], &[u8])> {
        message.headers.iter().map(|header| (header.name(), header.behind_colon())).collect()
    }

    /// The body as the filter gets it; its size must be as it was told.
    fn for_filter(message: &Message) -> Vec<u8> {
        let mut pieces = message.body_pieces(10);
        let mut all = Vec::new();
        while let Some(piece) = pieces.next_piece() {
            all.extend_from_slice(piece);
        }
        assert_eq!(message.body_size_for_filter(), all.len());
        all
    }

    #[test]
    fn fields_keep_every_byte() {
        let file = b"Subject: folded\n next\n\ttab\nX-A:none\nx-b :  two\nX-8: caf\xe9\nEmpty:\n\nbody\n";
        let message = Message::parse(file);
        assert_eq!(
            fields(&message),
            [
                (&b"Subject"[..], &b" folded\n next\n\ttab"[..]),
                (b"X-A", b"none"),
                (b"x-b", b"  two"),
                (b"X-8", b" caf\xe9"),
                (b"Empty", b""),
            ]
        );
        assert_eq!(message.body, b"body\n");
        assert_eq!(message.to_bytes(), file);
    }

    #[test]
    fn crlf_files_stay_crlf_files() {
        let file = b"Subject: folded\r\n next\r\nA: b\r\n\r\nbody\r\nbare\nend";
        let message = Message::parse(file);
        assert_eq!(message.line_end, LineEnd::CrLf);
        assert_eq!(message.headers[0].value_for_filter(false), b"folded\n next");
        assert_eq!(for_filter(&message), b"body\r\nbare\r\nend\r\n");
        assert_eq!(message.to_bytes(), file);
    }

    #[test]
    fn one_space_behind_the_colon_is_not_part_of_the_value() {
        let value = |text: &[u8], leading| Header::new(b"X", text).value_for_filter(leading);
        assert_eq!(value(b" one", false), b"one");
        assert_eq!(value(b"   three", false), b"  three");
        assert_eq!(value(b"\ttab", false), b"\ttab");
        assert_eq!(value(b" one", true), b" one");
        assert_eq!(value(b"a\0b\rc", true), b"ab\rc");
    }

    #[test]
    fn where_the_header_ends() {
        let message = Message::parse(b"From me Mon Jan 1\nA: b\nno field\nC: d\n");
        assert_eq!(fields(&message), [(&b"A"[..], &b" b"[..])]);
        assert_eq!(message.body, b"no field\nC: d\n");
        assert_eq!(message.to_bytes(), b"A: b\n\nno field\nC: d\n", "an empty line parts header and body");

        for bodies in [&b"\nbody\n"[..], b" space first\n", b"two words: x\n", b":\n"] {
            assert_eq!(Message::parse(bodies).headers, []);
        }
        assert_eq!(Message::parse(b"A: b").headers, [Header::new(b"A", b" b")]);
        assert_eq!(Message::parse(b"A: b\n").body, b"");
        assert_eq!(Message::parse(b"").to_bytes(), b"\n");
    }

    #[test]
    fn a_bare_cr_is_no_line_end() {
        assert_eq!(with_line_end(b"a\rb\r\nc\n\r\nd", LineEnd::CrLf), b"a\rb\r\nc\r\n\r\nd");
        assert_eq!(with_line_end(b"a\rb\r\nc\n\r\nd", LineEnd::Lf), b"a\rb\nc\n\nd");
        assert_eq!(for_filter(&Message::parse(b"\n")), b"");
        assert_eq!(for_filter(&Message::parse(b"\na\rb\n\nc\r")), b"a\rb\r\n\r\nc\r\r\n");
    }

    #[test]
    fn a_body_comes_in_pieces_of_the_same_size() {
        let message = Message::parse(b"\n1\n\n45678\r\nb");
        let whole = for_filter(&message);
        assert_eq!(whole, b"1\r\n\r\n45678\r\nb\r\n");
        for size in 1..=whole.len() + 1 {
            let mut pieces = message.body_pieces(size);
            for expected in whole.chunks(size) {
                assert_eq!(pieces.next_piece(), Some(expected), "of {size} bytes");
            }
            assert_eq!(pieces.next_piece(), None);
        }
    }

    #[test]
    fn parts_of_a_file_do_not_copy_it() {
        let file = Arc::new(b"A: 1\n\none\nB: 2\n\ntwo\n".to_vec());
        let [first, second] = [0..10, 10..20].map(|range| Message::part_of(&file, range));
        assert_eq!((first.to_bytes(), second.to_bytes()), (file[..10].to_vec(), file[10..].to_vec()));
        assert_eq!(first.body, b"one\n");
        assert_eq!(second.clone().body.as_ptr(), file[16..].as_ptr());
    }
}
