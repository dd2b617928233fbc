//! A filter's own SMTP reply, as an MTA passes it on to its client: what is malformed, what the MTA changes, and what
//! the client will misunderstand.

use super::habits::Flavor;
use super::warning::{Warning, quoted};
use crate::protocol::Kind;

/// What Postfix writes, but for the last line end, and what it changed.
///
/// # Errors
/// The reply is malformed to it.
pub(super) fn postfix(
    text: &[u8],
    like: Flavor,
    in_message: bool,
) -> Result<(Vec<u8>, Vec<Warning>), Warning> {
    check_start(text)?;
    if like == Flavor::Postfix312 {
        check_lines(text)?;
    }
    let mut warnings = Vec::new();
    let (mut reply, lost) = undouble(text);
    if lost {
        warnings.push(Warning::new("D31", "Postfix drops a single %: it must be doubled"));
    }
    if join_lines(&mut reply) {
        let text = "Postfix puts \"-\" behind the code of all lines but the last";
        warnings.push(Warning::new("D27", text));
    }
    if in_message && blank_unprintable(&mut reply) {
        let text = "Postfix replaces unprintable characters by spaces once the message has begun";
        warnings.push(Warning::new("D33", text));
    }
    Ok((reply, warnings))
}

/// What Sendmail writes, but for the last line end, and what it changed. `asked` is the command whose answer the reply
/// is, and `address` what that carries.
///
/// # Errors
/// It does not use the reply.
pub(super) fn sendmail(text: &[u8], asked: Kind, address: &[u8]) -> Result<(Vec<u8>, Vec<Warning>), Warning> {
    let Some((code, rest)) = text.split_at_checked(3).filter(|(code, _)| is_code(code)) else {
        return Err(no_code(text));
    };
    let (text, lost) = undouble(rest);
    if lost {
        return Err(Warning::new("D31", format!("a single % in {}", quoted(rest))));
    }
    let mut warnings = Vec::new();
    let separator = text.first().copied().filter(|&b| b == b'-').unwrap_or(b' ');
    match text.first() {
        Some(b' ' | b'-') => {}
        None => {
            let text = "the filter's reply is a code alone: Sendmail sends what its memory holds behind it";
            warnings.push(Warning::new("D25", text));
        }
        Some(_) if asked == Kind::Helo => {
            let warning = Warning::new(
                "D25",
                "no blank behind the code: Sendmail answers HELO by 550 and all of the text",
            );
            return Ok(([b"550 5.0.0 ", code, &text].concat(), vec![warning]));
        }
        Some(_) => {
            let text = format!("Sendmail takes what follows the code for a blank: {}", quoted(&text));
            warnings.push(Warning::new("D25", text));
        }
    }
    let text = text.get(1..).unwrap_or_default();
    let (enhanced, text) = match enhanced_code(text) {
        Some(length) => (text[..length].to_vec(), &text[length + 1..]),
        None => (vec![code[0], b'.', b'0', b'.', b'0'], text),
    };
    let mut reply = [code, &[separator], &enhanced, b" "].concat();
    // These codes speak of a mailbox, says RFC 5321.
    if matches!(asked, Kind::Mail | Kind::Rcpt) && [&b"450"[..], b"550", b"553"].contains(&code) {
        reply.extend_from_slice(address);
        reply.extend_from_slice(b"... ");
    }
    reply.extend_from_slice(text);
    if !reply.is_ascii() {
        reply.iter_mut().for_each(|byte| *byte &= 0x7f);
        warnings.push(Warning::new("D33", "Sendmail clears the eighth bit of a reply"));
    }
    Ok((reply, warnings))
}

/// What an SMTP client will misunderstand in a reply that is sent as it is.
pub(super) fn doubts(reply: &[u8]) -> Vec<Warning> {
    let lines: Vec<_> = reply.split(|&b| b == b'\n').map(|line| line.trim_ascii_end()).collect();
    let mut doubts = Vec::new();
    match lines.iter().position(|line| line.get(3) != Some(&b'-')) {
        None => {
            doubts.push(Warning::new("D27", "the last line is left open by \"-\": the SMTP client waits for more"));
        }
        Some(last) if last + 1 < lines.len() => doubts.push(Warning::new(
            "D27",
            "the reply goes on behind its last line: the SMTP client takes the rest for the answer to its next command",
        )),
        Some(_) if lines.iter().any(|line| line.get(..3) != lines[0].get(..3)) => {
            doubts.push(Warning::new("D26", "the lines of the reply differ in their codes"));
        }
        Some(_) => {}
    }
    if reply.iter().enumerate().any(|(at, &b)| b == b'\n' && (at == 0 || reply[at - 1] != b'\r')) {
        doubts.push(Warning::new("D26", "a line of the reply ends with LF alone"));
    }
    doubts
}

fn is_code(code: &[u8]) -> bool {
    matches!(code, [b'4' | b'5', tens, ones] if tens.is_ascii_digit() && ones.is_ascii_digit())
}

fn no_code(text: &[u8]) -> Warning {
    Warning::new("D25", format!("the filter sent {}, no code of class 4 or 5", quoted(text)))
}

fn check_start(text: &[u8]) -> Result<(), Warning> {
    match text {
        [code @ .., _] if code.len() >= 3 && is_code(&code[..3]) => {}
        _ => return Err(no_code(text)),
    }
    if !matches!(text[3], b' ' | b'-') {
        return Err(Warning::new("D25", format!("no blank behind the code of {}", quoted(text))));
    }
    match text.get(4) {
        Some(digit) if digit.is_ascii_digit() && *digit != text[0] => {
            Err(Warning::new("D29", format!("the filter sent {}, two classes", quoted(text))))
        }
        _ => Ok(()),
    }
}

/// What Postfix checks since 3.12: every line.
fn check_lines(text: &[u8]) -> Result<(), Warning> {
    let refuse = |why: &str| Err(Warning::new("D27", format!("{}: {why}", quoted(text))));
    if text.contains(&0) {
        return refuse("a NUL inside");
    }
    let lines: Vec<_> = text.split(|&b| b == b'\n').collect();
    for (number, line) in lines.iter().enumerate() {
        let last = number + 1 == lines.len();
        if !last && !line.ends_with(b"\r") {
            return refuse("a line ends with LF alone");
        }
        if line.get(..3) != text.get(..3) {
            return refuse("the codes of its lines differ");
        }
        if line.get(3) != Some(if last { &b' ' } else { &b'-' }) {
            return refuse(if last {
                "the last line is left open"
            } else {
                "a line in front of others is the last"
            });
        }
    }
    Ok(())
}

/// The text with each `%%` as `%`, and whether it had a single `%`, which is left out.
fn undouble(text: &[u8]) -> (Vec<u8>, bool) {
    let (mut out, mut lost) = (Vec::with_capacity(text.len()), false);
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'%' || bytes.next_if_eq(&b'%').is_some() {
            out.push(byte);
        } else {
            lost = true;
        }
    }
    (out, lost)
}

/// Makes continuation lines of all lines but the last, as Postfix 3.7 does, and says whether that changed anything.
/// A line end with nothing behind it loses its CR to a NUL.
fn join_lines(reply: &mut [u8]) -> bool {
    let (mut line, mut changed) = (0, false);
    while let Some(length) = reply[line..].windows(2).position(|two| two == b"\r\n") {
        let end = line + length;
        if end + 2 == reply.len() {
            reply[end] = 0;
            return changed;
        }
        if length > 3 && reply[line + 3] != b'-' {
            reply[line + 3] = b'-';
            changed = true;
        }
        line = end + 2;
    }
    changed
}

/// Replaces control characters, except for line ends, and what is no UTF-8 by spaces; whether there were any.
fn blank_unprintable(reply: &mut Vec<u8>) -> bool {
    let mut out = Vec::with_capacity(reply.len());
    for chunk in reply.utf8_chunks() {
        for character in chunk.valid().chars() {
            let kept = matches!(character, '\r' | '\n' | '\0') || !character.is_control();
            let mut bytes = [0; 4];
            out.extend_from_slice(if kept { character.encode_utf8(&mut bytes).as_bytes() } else { b" " });
        }
        out.extend(std::iter::repeat_n(b' ', chunk.invalid().len()));
    }
    let changed = out != *reply;
    *reply = out;
    changed
}

/// The length of the enhanced status code at the start of a text, if a blank follows it.
pub(super) fn enhanced_code(text: &[u8]) -> Option<usize> {
    let length = text.iter().position(|&b| b == b' ')?;
    let number = |part: &[u8]| (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    let mut parts = text[..length].split(|&b| b == b'.');
    let class = matches!(parts.next(), Some([b'2' | b'4' | b'5']));
    let valid = class && parts.next().is_some_and(number) && parts.next().is_some_and(number);
    (valid && parts.next().is_none()).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Postfix 3.7 writes, or the statement that the reply offends against.
    fn postfix_37(text: &[u8]) -> Result<String, &'static str> {
        let written = postfix(text, Flavor::Postfix37, false);
        written.map(|(reply, _)| reply.escape_ascii().to_string()).map_err(|why| why.statement)
    }

    #[test]
    fn replies_that_are_malformed_to_postfix() {
        for text in
            [&b"250 ok"[..], b"354 go", b"xyz", b"55", b"", b"550", b"5501 x", b"550no", b"550\tno", b"5x0 a"]
        {
            assert_eq!(postfix_37(text), Err("D25"), "{}", text.escape_ascii());
        }
        for text in
            [&b"550 4.7.1 no"[..], b"550-4.7.1 a\r\n550 x", b"450 5", b"550 100% sure", b"421 5.7.0 x"]
        {
            assert_eq!(postfix_37(text), Err("D29"), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn replies_as_postfix_passes_them_on() {
        for (text, written) in [
            (&b"550 "[..], "550 "),
            (b"550 no", "550 no"),
            (b"550  two blanks", "550  two blanks"),
            (b"550 5.7.1", "550 5.7.1"),
            (b"550 5 items", "550 5 items"),
            (b"550 5.7.1 100% sure", "550 5.7.1 100 sure"),
            (b"550 5.7.1 100%% sure", "550 5.7.1 100% sure"),
            (b"550 5.7.1 x%", "550 5.7.1 x"),
            (b"550-a\r\n450 b", "550-a\\r\\n450 b"),
            (b"550 a\r\n550 b\r\n550 c", "550-a\\r\\n550-b\\r\\n550 c"),
            (b"550 5.7.1 abc\r\n55", "550-5.7.1 abc\\r\\n55"),
            (b"550 a\r\n", "550 a\\x00\\n"),
            (b"550-a\r\n550 b\r\n", "550-a\\r\\n550 b\\x00\\n"),
        ] {
            assert_eq!(postfix_37(text), Ok(written.to_owned()), "{}", text.escape_ascii());
        }
        let in_message = |text| postfix(text, Flavor::Postfix37, true).unwrap().0.escape_ascii().to_string();
        assert_eq!(in_message(b"550 a\tb\x01c\xe9"), "550 a b c ");
        assert_eq!(in_message("550 ü\r\n550 b".as_bytes()), "550-\\xc3\\xbc\\r\\n550 b");
    }

    #[test]
    fn postfix_3_12_looks_at_every_line() {
        let judged = |text| postfix(text, Flavor::Postfix312, false).map_err(|why| why.statement).map(drop);
        assert_eq!(judged(b"550-5.7.1 a\r\n550 5.7.1 b"), Ok(()));
        for text in [&b"550-open"[..], b"550-a\n550 b", b"550-a\r\n450 b", b"550 a\r\n550 b", b"550 a\0b"] {
            assert_eq!(judged(text), Err("D27"), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn replies_as_sendmail_passes_them_on() {
        let written = |text, asked| {
            let written = sendmail(text, asked, b"<a@b>");
            written.map(|(reply, _)| reply.escape_ascii().to_string()).map_err(|why| why.statement)
        };
        for (text, expected) in [
            (&b"550"[..], "550 5.0.0 "),
            (b"550no", "550 5.0.0 o"),
            (b"550 5.7.1", "550 5.0.0 5.7.1"),
            (b"550 4.7.1 no", "550 4.7.1 no"),
            (b"550 3.7.1 x", "550 5.0.0 3.7.1 x"),
            (b"550-a\r\n450 b", "550-5.0.0 a\\r\\n450 b"),
            (b"550 5.7.1 100%% sure", "550 5.7.1 100% sure"),
            (b"550 5.7.1 caf\xe9", "550 5.7.1 cafi"),
        ] {
            assert_eq!(written(text, Kind::Data), Ok(expected.to_owned()), "{}", text.escape_ascii());
        }
        assert_eq!(written(b"550 5.7.1 no", Kind::Mail), Ok("550 5.7.1 <a@b>... no".to_owned()));
        assert_eq!(written(b"554 5.7.1 no", Kind::Mail), Ok("554 5.7.1 no".to_owned()));
        assert_eq!(written(b"4501 x", Kind::Helo), Ok("550 5.0.0 4501 x".to_owned()));
        for text in [&b"250 ok"[..], b"xyz", b"55", b""] {
            assert_eq!(written(text, Kind::Data), Err("D25"), "{}", text.escape_ascii());
        }
        assert_eq!(written(b"550 100% sure", Kind::Data), Err("D31"));
    }

    #[test]
    fn what_a_client_misunderstands() {
        let doubts = |reply: &[u8]| doubts(reply).iter().map(|doubt| doubt.statement).collect::<Vec<_>>();
        assert_eq!(doubts(b"550-5.7.1 a\r\n550 5.7.1 b"), [""; 0]);
        assert_eq!(doubts(b"550-open"), ["D27"]);
        assert_eq!(doubts(b"550 a\r\n550 b"), ["D27"]);
        assert_eq!(doubts(b"550-a\r\n450 b"), ["D26"]);
        assert_eq!(doubts(b"550-a\n550 b"), ["D26"]);
    }
}
