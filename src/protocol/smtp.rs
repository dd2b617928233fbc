//! SMTP replies that a filter chooses itself (contract 2.3). A value of [`SmtpReply`] was checked when it was
//! made; it can be sent as it is.

use crate::sys::memory;

/// The most bytes that the text of one line may have.
pub const MAX_TEXT: usize = 980;

/// The most lines that a reply may have.
pub const MAX_LINES: usize = 32;

/// A reply code with text, of one or more lines: RFC 5321 4.2, with the enhanced status code of RFC 3463.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpReply {
    text: Vec<u8>,
}

/// Why a reply cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadReply {
    /// The reply code is not `4` or `5` and two digits.
    Code,
    /// The enhanced status code is not class `2`, `4` or `5`, `.`, 1 to 3 digits, `.`, 1 to 3 digits.
    EnhancedCode,
    /// A line is longer than [`MAX_TEXT`] or holds CR or LF.
    Text,
    /// More than [`MAX_LINES`] lines.
    TooManyLines,
    /// There is no memory for the lines.
    NoMemory,
}

impl SmtpReply {
    /// A reply of one line: `code SP [enhanced [SP text]]`, or `code SP text` without an enhanced code.
    ///
    /// # Errors
    /// See [`BadReply`].
    pub fn single(code: &[u8], enhanced: Option<&[u8]>, text: Option<&[u8]>) -> Result<Self, BadReply> {
        check_code(code)?;
        enhanced.map_or(Ok(()), check_enhanced)?;
        text.map_or(Ok(()), check_text)?;
        let mut reply = [code, b" "].concat();
        reply.extend_from_slice(enhanced.unwrap_or_default());
        if enhanced.is_some() && text.is_some() {
            reply.push(b' ');
        }
        reply.extend_from_slice(text.unwrap_or_default());
        Ok(Self { text: reply })
    }

    /// A reply of several lines, joined by CRLF. Without an enhanced code `4.0.0` or `5.0.0` is taken; without
    /// a line it is one line that ends with the enhanced code.
    ///
    /// # Errors
    /// See [`BadReply`]. No line is taken from `lines` behind the first bad one.
    pub fn multi<'a>(
        code: &[u8],
        enhanced: Option<&[u8]>,
        lines: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, BadReply> {
        check_code(code)?;
        enhanced.map_or(Ok(()), check_enhanced)?;
        let enhanced = enhanced.unwrap_or(if code[0] == b'4' { b"4.0.0" } else { b"5.0.0" });
        let mut reply = Vec::new();
        let mut last_line = 0;
        for (count, line) in lines.enumerate() {
            if count == MAX_LINES {
                return Err(BadReply::TooManyLines);
            }
            check_text(line)?;
            let end_of_line: &[u8] = if count > 0 { b"\r\n" } else { b"" };
            last_line = reply.len() + end_of_line.len();
            let parts = [end_of_line, code, b"-", enhanced, b" ", line];
            let length = parts.iter().map(|part| part.len()).sum();
            memory::fallibly(|| reply.try_reserve(length)).map_err(|_| BadReply::NoMemory)?;
            for part in parts {
                reply.extend_from_slice(part);
            }
        }
        if reply.is_empty() {
            return Self::single(code, Some(enhanced), None);
        }
        reply[last_line + code.len()] = b' ';
        Ok(Self { text: reply })
    }

    /// All lines, as they go to the MTA, without a NUL.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Whether it rejects for good (`5`), rather than for now (`4`).
    pub fn is_permanent(&self) -> bool {
        self.text[0] == b'5'
    }
}

fn check_code(code: &[u8]) -> Result<(), BadReply> {
    match code {
        [b'4' | b'5', a, b] if a.is_ascii_digit() && b.is_ascii_digit() => Ok(()),
        _ => Err(BadReply::Code),
    }
}

fn check_enhanced(code: &[u8]) -> Result<(), BadReply> {
    let number = |part: &[u8]| (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    let mut parts = code.split(|&b| b == b'.');
    let valid = matches!(parts.next(), Some([b'2' | b'4' | b'5']))
        && parts.next().is_some_and(number)
        && parts.next().is_some_and(number)
        && parts.next().is_none();
    if valid { Ok(()) } else { Err(BadReply::EnhancedCode) }
}

fn check_text(text: &[u8]) -> Result<(), BadReply> {
    let valid = text.len() <= MAX_TEXT && !text.iter().any(|b| matches!(b, b'\r' | b'\n'));
    if valid { Ok(()) } else { Err(BadReply::Text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::shortage;

    fn single(code: &str, enhanced: Option<&str>, text: Option<&str>) -> Result<String, BadReply> {
        SmtpReply::single(code.as_bytes(), enhanced.map(str::as_bytes), text.map(str::as_bytes))
            .map(|reply| String::from_utf8(reply.text).unwrap())
    }

    #[test]
    fn one_line_in_its_four_forms() {
        assert_eq!(single("550", Some("5.7.1"), Some("no")).unwrap(), "550 5.7.1 no");
        assert_eq!(single("550", Some("5.7.1"), None).unwrap(), "550 5.7.1");
        assert_eq!(single("450", None, Some("later")).unwrap(), "450 later");
        assert_eq!(single("450", None, None).unwrap(), "450 ");
        assert_eq!(single("550", Some("4.1.1"), None).unwrap(), "550 4.1.1", "the classes need not match");
    }

    #[test]
    fn codes_that_are_none() {
        for code in ["", "5", "55", "5550", "350", "5a0", "45x"] {
            assert_eq!(single(code, None, None), Err(BadReply::Code), "{code}");
        }
        for code in
            ["", "5", "5.", "5.7", "5.7.", "3.7.1", "5.7.1 ", "5.1234.1", "5.1.1234", "5.7.1.1", "5.a.1"]
        {
            assert_eq!(single("550", Some(code), None), Err(BadReply::EnhancedCode), "{code}");
        }
    }

    #[test]
    fn text_has_a_limit_and_one_line() {
        assert!(single("550", None, Some(&"x".repeat(980))).is_ok());
        assert_eq!(single("550", None, Some(&"x".repeat(981))), Err(BadReply::Text));
        assert_eq!(single("550", None, Some("a\rb")), Err(BadReply::Text));
        assert_eq!(single("550", None, Some("a\nb")), Err(BadReply::Text));
    }

    #[test]
    fn a_long_reply_without_memory_is_refused() {
        let lines = || std::iter::repeat_n(&[b'x'; MAX_TEXT][..], MAX_LINES);
        let refused_at = |served| {
            shortage::plan(served, u32::MAX);
            shortage::during(true, || SmtpReply::multi(b"550", Some(b"5.123.456"), lines()))
        };
        let expected = 3 + 1 + 9 + 1 + MAX_TEXT;
        let complete = (0..20).find_map(|served| match refused_at(served) {
            Ok(reply) => Some((served, reply.as_bytes().len())),
            Err(error) => {
                assert_eq!(error, BadReply::NoMemory);
                None
            }
        });
        let (served, length) = complete.unwrap();
        assert!(served > 0, "it needs memory");
        assert_eq!(length, MAX_LINES * (expected + 2) - 2);
    }

    #[test]
    fn several_lines() {
        let multi = |lines: &[&str]| {
            SmtpReply::multi(b"451", None, lines.iter().map(|line| line.as_bytes()))
                .map(|reply| String::from_utf8(reply.text).unwrap())
        };
        assert_eq!(multi(&["a", "", "c"]).unwrap(), "451-4.0.0 a\r\n451-4.0.0 \r\n451 4.0.0 c");
        assert_eq!(multi(&["a"]).unwrap(), "451 4.0.0 a");
        assert_eq!(multi(&[]).unwrap(), "451 4.0.0");
        assert!(multi(&["x"; 32]).is_ok());
        assert_eq!(multi(&["x"; 33]), Err(BadReply::TooManyLines));
        assert_eq!(multi(&["ok", "not\nok"]), Err(BadReply::Text));
    }
}
