//! What an MTA repairs, ignores or answers otherwise than the filter meant, told to the filter's author.

use std::fmt;

/// One such finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The statement in docs/protocol.md that it is about: `D39`, say.
    pub statement: &'static str,
    /// What the filter did, and what the MTA makes of it.
    pub text: String,
}

impl Warning {
    pub(super) fn new(statement: &'static str, text: impl Into<String>) -> Self {
        Self { statement, text: text.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.statement)
    }
}

/// Bytes of a filter inside a sentence: quoted, on one line, shortened if there are many.
pub(super) fn quoted(bytes: &[u8]) -> String {
    const LONGEST: usize = 60;
    let shown = &bytes[..bytes.len().min(LONGEST)];
    let dots = if shown.len() < bytes.len() { "..." } else { "" };
    let text: String = shown
        .utf8_chunks()
        .map(|chunk| {
            let valid = chunk.valid().chars().map(|character| {
                if character.is_control() { character.escape_default().to_string() } else { character.into() }
            });
            valid.collect::<String>() + &chunk.invalid().escape_ascii().to_string()
        })
        .collect();
    format!("\"{text}{dots}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_names_its_statement() {
        let warning = Warning::new("D39", "a line does not begin with a blank");
        assert_eq!(warning.to_string(), "a line does not begin with a blank (D39)");
    }

    #[test]
    fn quoted_bytes_stay_on_their_line() {
        assert_eq!(quoted("a\r\nü\u{1b}".as_bytes()), "\"a\\r\\nü\\u{1b}\"");
        assert_eq!(quoted(b"caf\xe9"), "\"caf\\xe9\"");
        assert_eq!(quoted(&[b'x'; 61]), format!("\"{}...\"", "x".repeat(60)));
    }
}
