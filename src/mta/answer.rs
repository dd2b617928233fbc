//! Reads the frames that a filter answers with as each MTA reads them: Postfix refuses what is not well-formed, Sendmail gets over
//! most of it.

use super::habits::Flavor;
use super::warning::Warning;
use crate::protocol::{Answer, Frame, Reply};

/// A frame as an MTA reads it.
pub(super) enum Decoded<'a> {
    /// An answer of the protocol.
    Answer(Answer<'a>),
    /// SHUTDOWN, which libmilter does not send.
    Shutdown,
    /// The MTA reads on.
    Ignored,
    /// The MTA gives the filter up.
    Nonsense,
}

/// Reads an answer. Sendmail does not look closely at what follows the command byte.
pub(super) fn decode<'a>(frame: &'a Frame<'_>, like: Flavor, warnings: &mut Vec<Warning>) -> Decoded<'a> {
    let payload = &*frame.payload;
    let plain = match frame.kind {
        b'4' if payload.is_empty() && like.is_postfix() => return Decoded::Shutdown,
        b'p' if !payload.is_empty() => return Decoded::Nonsense,
        b'y' => return decode_reply(payload, like, warnings),
        kind => Answer::decode(kind, payload),
    };
    match plain {
        Some(answer) => Decoded::Answer(answer),
        None if like == Flavor::Sendmail => match Answer::decode(frame.kind, b"") {
            Some(answer @ Answer::Reply(_)) => {
                let text = format!("Sendmail ignores the data behind '{}'", frame.kind.escape_ascii());
                warnings.push(Warning::new("A7", text));
                Decoded::Answer(answer)
            }
            _ if b"himq+-2e".contains(&frame.kind) => {
                let text = format!(
                    "Sendmail ignores '{}', whose strings are not complete",
                    frame.kind.escape_ascii()
                );
                warnings.push(Warning::new("A8", text));
                Decoded::Ignored
            }
            _ => Decoded::Nonsense,
        },
        None => Decoded::Nonsense,
    }
}

/// Reads a reply of the filter's own, which should be one string.
fn decode_reply<'a>(payload: &'a [u8], like: Flavor, warnings: &mut Vec<Warning>) -> Decoded<'a> {
    let end = payload.iter().position(|&b| b == 0);
    if let Some(answer) = Answer::decode(b'y', payload) {
        return Decoded::Answer(answer);
    }
    match (like, end) {
        (Flavor::Sendmail, _) => {
            let text =
                "the filter's reply is not one string with a NUL at its end: Sendmail uses its own text";
            warnings.push(Warning::new("A8", text));
            Decoded::Answer(Answer::Reply(Reply::Reject))
        }
        (Flavor::Postfix37, Some(end)) => {
            warnings.push(Warning::new("A8", "Postfix 3.7 ignores what follows the NUL of a reply"));
            Decoded::Answer(Answer::Custom(&payload[..end]))
        }
        (Flavor::Postfix37, None) if !payload.is_empty() => {
            let text =
                "the filter's reply has no NUL at its end: Postfix 3.7 sends what its memory holds behind it";
            warnings.push(Warning::new("A8", text));
            Decoded::Answer(Answer::Custom(payload))
        }
        (Flavor::Postfix37, None) => Decoded::Answer(Answer::Custom(payload)),
        (Flavor::Postfix312, _) => Decoded::Nonsense,
    }
}
