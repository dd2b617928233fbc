//! Addresses and ESMTP arguments as a filter gives them in its changes, read as the MTA reads them. Watched with many
//! odd ones; what a real server does with its own domain and its rewriting rules is left out.

use super::envelope::words;
use super::habits::{Flavor, HOST_NAME};
use super::warning::{Warning, quoted};

/// The addresses in a text, external form without angle brackets: to Postfix the first one at most, to Sendmail all of a
/// list. An empty one is the null address.
pub(super) fn addresses(text: &[u8], like: Flavor, warnings: &mut Vec<Warning>) -> Vec<Vec<u8>> {
    let parts = split_list(text);
    let several = parts.len() > 1;
    if like == Flavor::Sendmail {
        if several {
            let text = format!("Sendmail takes {} for several addresses", quoted(text));
            warnings.push(Warning::new("D42", text));
        }
        return parts.iter().map(|part| read_address(part, Flavor::Sendmail).0).collect();
    }
    let Some(first) = parts.first() else { return Vec::new() };
    let (address, more) = read_address(first, like);
    if more || several {
        let text = format!("of {} Postfix takes the first address alone", quoted(text));
        warnings.push(Warning::new("D42", text));
    }
    vec![address]
}

/// ESMTP arguments of a recipient; `None` if the MTA does not take the recipient because of them.
pub(super) fn recipient_arguments(
    text: &[u8],
    like: Flavor,
    warnings: &mut Vec<Warning>,
) -> Option<Vec<Vec<u8>>> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let known = |kept: &[Vec<u8>], key: &[u8]| kept.iter().position(|argument| is_keyed(argument, key));
    for argument in split_arguments(text, like) {
        let valid = match split_key(argument) {
            Some((key, value)) if key.eq_ignore_ascii_case(b"NOTIFY") => is_notify(value),
            Some((key, value)) if key.eq_ignore_ascii_case(b"ORCPT") => {
                value.iter().position(|&b| b == b';').is_some_and(|at| at > 0 && at + 1 < value.len())
            }
            _ => false,
        };
        let key = split_key(argument).map(|(key, _)| key.to_ascii_uppercase()).unwrap_or_default();
        match (valid, known(&kept, &key), like) {
            (true, None, _) => kept.push(spelt(&key, argument)),
            (true, Some(at), Flavor::Sendmail) => kept[at] = spelt(&key, argument),
            (_, _, Flavor::Sendmail) => {
                let text = format!(
                    "Sendmail does not add a recipient with the argument {}, and its session with the client comes out of step",
                    quoted(argument)
                );
                warnings.push(Warning::new("D41", text));
                return None;
            }
            _ => warnings.push(dropped(argument)),
        }
    }
    Some(kept)
}

/// What the filter's ESMTP arguments make of a sender's.
pub(super) fn sender_arguments(
    old: &[Vec<u8>],
    text: &[u8],
    like: Flavor,
    warnings: &mut Vec<Warning>,
) -> Vec<Vec<u8>> {
    let mut kept = if like.is_postfix() { old.to_vec() } else { Vec::new() };
    for argument in split_arguments(text, like) {
        let (key, value) = split_key(argument).unwrap_or((argument, b""));
        let key = key.to_ascii_uppercase();
        let valid = match (&key[..], like) {
            (b"RET", _) => [&b"HDRS"[..], b"FULL"].iter().any(|known| value.eq_ignore_ascii_case(known)),
            (b"ENVID", _) => !value.is_empty(),
            (b"BODY" | b"SIZE" | b"AUTH", Flavor::Sendmail) => !value.is_empty(),
            _ => false,
        };
        if valid {
            kept.retain(|argument| !is_keyed(argument, &key));
            kept.push(spelt(&key, argument));
        } else if like == Flavor::Sendmail {
            let text = format!("Sendmail does not take {} and what follows it", quoted(argument));
            warnings.push(Warning::new("D41", text));
            break;
        } else {
            warnings.push(dropped(argument));
        }
    }
    kept
}

fn dropped(argument: &[u8]) -> Warning {
    Warning::new("D41", format!("Postfix drops the ESMTP argument {}", quoted(argument)))
}

/// Postfix parts arguments at spaces alone.
fn split_arguments(text: &[u8], like: Flavor) -> Vec<&[u8]> {
    let blank = move |b: &u8| if like.is_postfix() { *b == b' ' } else { b.is_ascii_whitespace() };
    text.split(blank).filter(|argument| !argument.is_empty()).collect()
}

fn split_key(argument: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = argument.iter().position(|&b| b == b'=')?;
    Some((&argument[..at], &argument[at + 1..]))
}

fn is_keyed(argument: &[u8], key: &[u8]) -> bool {
    split_key(argument).is_some_and(|(known, _)| known.eq_ignore_ascii_case(key))
}

/// An argument as MTAs write it: keyword and values in upper case.
fn spelt(key: &[u8], argument: &[u8]) -> Vec<u8> {
    match key {
        b"NOTIFY" | b"RET" | b"BODY" => argument.to_ascii_uppercase(),
        _ => [key, &argument[key.len()..]].concat(),
    }
}

fn is_notify(value: &[u8]) -> bool {
    let words = value.to_ascii_uppercase();
    words == b"NEVER"
        || words.split(|&b| b == b',').all(|word| matches!(word, b"SUCCESS" | b"FAILURE" | b"DELAY"))
}

/// Splits a text at commas outside of quotes, comments and angle brackets; comments are left out.
fn split_list(text: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let (mut quoted, mut comments, mut bracket) = (false, 0_usize, false);
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        let part = parts.last_mut().expect("there is always a part");
        match byte {
            b'\\' if comments == 0 => {
                part.push(byte);
                part.extend(bytes.next());
            }
            b'\\' => drop(bytes.next()),
            b'"' if comments == 0 => {
                quoted = !quoted;
                part.push(byte);
            }
            b'(' if !quoted => comments += 1,
            b')' if !quoted && comments > 0 => comments -= 1,
            _ if comments > 0 => {}
            b',' if !quoted && !bracket => parts.push(Vec::new()),
            _ => {
                if !quoted {
                    bracket = byte == b'<' || (bracket && byte != b'>');
                }
                part.push(byte);
            }
        }
    }
    // A list may end with a comma.
    if parts.len() > 1 && parts.last().is_some_and(|part| part.trim_ascii().is_empty()) {
        parts.pop();
    }
    parts
}

/// The address in one part of a list, and whether more stands behind it.
fn read_address(part: &[u8], like: Flavor) -> (Vec<u8>, bool) {
    let part = part.trim_ascii();
    let outside_quotes = |text: &[u8], wanted: u8| {
        let mut quoted = false;
        text.iter().position(|&b| {
            quoted ^= b == b'"';
            !quoted && b == wanted
        })
    };
    let open = outside_quotes(part, b'<');
    let close = open.and_then(|open| outside_quotes(&part[open..], b'>').map(|close| open + close));
    let (spec, more) = match (open, close) {
        (Some(open), Some(close)) => (&part[open + 1..close], !part[close + 1..].trim_ascii().is_empty()),
        // Sendmail supplies the bracket that is missing.
        (Some(open), None) if like == Flavor::Sendmail => (&part[open + 1..], false),
        _ => (part.strip_suffix(b">").unwrap_or(part), false),
    };
    if like == Flavor::Sendmail {
        return (without_needless_blanks(spec), false);
    }
    let (address, rest) = first_word(spec);
    let more = more || !rest.trim_ascii().is_empty();
    (postfix_form(&address), more)
}

/// Words with one blank between them, and none at dots and at signs.
fn without_needless_blanks(text: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    for word in words(text) {
        let joined = |b: Option<&u8>| matches!(b, None | Some(b'@' | b'.'));
        if !joined(out.last()) && !joined(word.first()) {
            out.push(b' ');
        }
        out.extend_from_slice(&word);
    }
    out
}

/// The first address of a text that has no brackets: words that only dots and at signs join are one.
fn first_word(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut out: Vec<u8> = Vec::new();
    let mut at = 0;
    let mut quoted = false;
    let joins = |b: u8| matches!(b, b'@' | b'.' | b':');
    while at < text.len() {
        let byte = text[at];
        if byte.is_ascii_whitespace() && !quoted {
            let next = text[at..].iter().position(|b| !b.is_ascii_whitespace());
            let Some(next) = next.map(|skip| at + skip) else { break };
            if !out.is_empty() && !joins(text[next]) && !out.last().copied().is_some_and(joins) {
                return (out, &text[at..]);
            }
            at = next;
            continue;
        }
        quoted ^= byte == b'"';
        out.push(byte);
        at += 1;
        if byte == b'\\' && at < text.len() {
            out.push(text[at]);
            at += 1;
        }
    }
    (out, b"")
}

/// An address as Postfix writes it: without route and group, with quotes only where they are needed, and with its
/// own domain if there is none.
fn postfix_form(address: &[u8]) -> Vec<u8> {
    if address.is_empty() {
        return Vec::new();
    }
    let address = address.strip_suffix(b";").unwrap_or(address);
    let address = match (address.contains(&b'"'), address.iter().rposition(|&b| b == b':')) {
        (false, Some(colon)) => &address[colon + 1..],
        _ => address,
    };
    let (local, domain) = match address.iter().rposition(|&b| b == b'@') {
        Some(at) => (&address[..at], &address[at + 1..]),
        None => (address, HOST_NAME.as_bytes()),
    };
    let mut bare = Vec::new();
    let mut bytes = local.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {}
            b'\\' => bare.extend(bytes.next()),
            _ => bare.push(byte),
        }
    }
    [&quote_local_part(&bare), &b"@"[..], domain].concat()
}

/// Quotes the part in front of the at sign if its characters ask for it.
fn quote_local_part(local: &[u8]) -> Vec<u8> {
    let is_atom = |b: &u8| !b.is_ascii_control() && !b" \"(),:;<>@[]\\".contains(b);
    let atoms = local.split(|&b| b == b'.').all(|atom| !atom.is_empty() && atom.iter().all(is_atom));
    if atoms {
        return local.to_vec();
    }
    let escaped = local.iter().flat_map(|&b| match b {
        b'"' | b'\\' => vec![b'\\', b],
        b => vec![b],
    });
    [&b"\""[..], &escaped.collect::<Vec<_>>(), b"\""].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses, parted by `|`, and how many warnings there were.
    fn read(text: &str, like: Flavor) -> (String, usize) {
        let mut warnings = Vec::new();
        let addresses = addresses(text.as_bytes(), like, &mut warnings);
        let text: Vec<_> = addresses.iter().map(|address| String::from_utf8_lossy(address)).collect();
        (text.join("|"), warnings.len())
    }

    #[test]
    fn addresses_as_postfix_reads_them() {
        for (text, address, warnings) in [
            ("<n@e.net>", "n@e.net", 0),
            ("n@e.net", "n@e.net", 0),
            (" n@e.net \r\n", "n@e.net", 0),
            ("<n@e.net>\r\n X", "n@e.net", 1),
            ("<n@e.net> X", "n@e.net", 1),
            ("n@e.net X", "n@e.net", 1),
            ("n@e.net\tX", "n@e.net", 1),
            ("<n@e.net>,<o@e.net>", "n@e.net", 1),
            ("n@e.net, o@e.net", "n@e.net", 1),
            ("x y@e.net", "x@mx.example.org", 1),
            ("", "", 0),
            ("<>", "", 0),
            ("\"x y\"@e.net", "\"x y\"@e.net", 0),
            ("<\"x y\"@e.net>", "\"x y\"@e.net", 0),
            ("\"n\"@e.net", "n@e.net", 0),
            ("n.@e.net", "\"n.\"@e.net", 0),
            ("\\n@e.net", "n@e.net", 0),
            ("<n@e.net", "\"<n\"@e.net", 0),
            ("n@e.net>", "n@e.net", 0),
            ("n", "n@mx.example.org", 0),
            ("@e.net", "\"\"@e.net", 0),
            ("n@e.net (c)", "n@e.net", 0),
            ("(c) n@e.net", "n@e.net", 0),
            ("Name <n@e.net>", "n@e.net", 0),
            ("\"Na,me\" <n@e.net>", "n@e.net", 0),
            ("<n @ e.net>", "n@e.net", 0),
            ("group:n@e.net;", "n@e.net", 0),
            ("<@route:n@e.net>", "n@e.net", 0),
            ("<n@e.net>,", "n@e.net", 0),
        ] {
            assert_eq!(read(text, Flavor::Postfix37), (address.to_owned(), warnings), "{text:?}");
        }
    }

    #[test]
    fn addresses_as_sendmail_reads_them() {
        for (text, address, warnings) in [
            ("<n@e.net>\r\n X", "n@e.net", 0),
            ("n@e.net X", "n@e.net X", 0),
            ("n@e.net, o@e.net", "n@e.net|o@e.net", 1),
            ("<n@e.net", "n@e.net", 0),
            ("n@e.net (c)", "n@e.net", 0),
            ("<n @ e.net>", "n@e.net", 0),
            ("n", "n", 0),
        ] {
            assert_eq!(read(text, Flavor::Sendmail), (address.to_owned(), warnings), "{text:?}");
        }
    }

    /// The arguments that are kept, and how many warnings there were.
    fn kept(read: impl FnOnce(&mut Vec<Warning>) -> Option<Vec<Vec<u8>>>) -> (Option<String>, usize) {
        let mut warnings = Vec::new();
        let kept = read(&mut warnings);
        (kept.map(|kept| String::from_utf8(kept.join(&b' ')).unwrap()), warnings.len())
    }

    #[test]
    fn arguments_of_a_recipient() {
        let read = |text: &str, like| kept(|warnings| recipient_arguments(text.as_bytes(), like, warnings));
        for (text, postfix, dropped, sendmail) in [
            ("", "", 0, Some("")),
            ("notify=never", "NOTIFY=NEVER", 0, Some("NOTIFY=NEVER")),
            ("NOTIFY=SUCCESS,DELAY", "NOTIFY=SUCCESS,DELAY", 0, Some("NOTIFY=SUCCESS,DELAY")),
            ("NOTIFY=NEVER,SUCCESS", "", 1, None),
            ("NOTIFY=FOO", "", 1, None),
            ("NOTIFY", "", 1, None),
            ("ORCPT=rfc822;x@y", "ORCPT=rfc822;x@y", 0, Some("ORCPT=rfc822;x@y")),
            ("ORCPT=x@y", "", 1, None),
            ("BODY=7BIT NOTIFY=NEVER FOO", "NOTIFY=NEVER", 2, None),
            ("NOTIFY=NEVER NOTIFY=SUCCESS", "NOTIFY=NEVER", 1, Some("NOTIFY=SUCCESS")),
            ("NOTIFY=NEVER\tORCPT=rfc822;x", "", 1, Some("NOTIFY=NEVER ORCPT=rfc822;x")),
        ] {
            assert_eq!(read(text, Flavor::Postfix37), (Some(postfix.to_owned()), dropped), "{text:?}");
            assert_eq!(read(text, Flavor::Sendmail).0.as_deref(), sendmail, "{text:?}");
        }
    }

    #[test]
    fn arguments_of_a_sender() {
        let old = [b"SIZE=5".to_vec(), b"RET=FULL".to_vec()];
        let read =
            |text: &str, like| kept(|warnings| Some(sender_arguments(&old, text.as_bytes(), like, warnings)));
        for (text, postfix, dropped, sendmail) in [
            ("", "SIZE=5 RET=FULL", 0, ""),
            ("ret=hdrs", "SIZE=5 RET=HDRS", 0, "RET=HDRS"),
            ("ENVID=a", "SIZE=5 RET=FULL ENVID=a", 0, "ENVID=a"),
            ("BODY=7BIT", "SIZE=5 RET=FULL", 1, "BODY=7BIT"),
            ("RET=HDRS FOO=1 ENVID=x", "SIZE=5 RET=HDRS ENVID=x", 1, "RET=HDRS"),
        ] {
            assert_eq!(read(text, Flavor::Postfix37), (Some(postfix.to_owned()), dropped), "{text:?}");
            assert_eq!(read(text, Flavor::Sendmail).0.as_deref(), Some(sendmail), "{text:?}");
        }
    }
}
