//! What must become of a message, in a few words: `accept`, `header X-Spam: yes`, `no recipient a@example.org`.

use std::fmt;
use std::str::FromStr;

use milter::mta::{Delivery, Disposition, Header, Mailbox};

/// Something that must hold, or must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    negated: bool,
    what: What,
    /// As it was written.
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Accept,
    Reject,
    TempFail,
    Discard,
    Quarantine(String),
    Reply(String),
    At(String),
    Header(String, Option<String>),
    Sender(String),
    Recipient(String),
    Body(String),
}

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (negated, rest) = match text.split_once(' ') {
            Some(("no" | "not", rest)) => (true, rest.trim_start()),
            _ => (false, text),
        };
        let (word, argument) = match rest.split_once(' ') {
            Some((word, argument)) => (word, argument.trim_start()),
            None => (rest, ""),
        };
        let needed = || match argument {
            "" => Err(format!("{word} what?")),
            argument => Ok(argument.to_owned()),
        };
        let nothing_more = |what| match argument {
            "" => Ok(what),
            _ => Err(format!("{word} takes no more words")),
        };
        let what = match word {
            "accept" => nothing_more(What::Accept)?,
            "reject" => nothing_more(What::Reject)?,
            "tempfail" => nothing_more(What::TempFail)?,
            "discard" => nothing_more(What::Discard)?,
            "quarantine" => What::Quarantine(argument.to_owned()),
            "reply" => What::Reply(needed()?),
            "at" => What::At(needed()?.to_ascii_uppercase()),
            "header" => match needed()?.split_once(':') {
                Some((name, value)) => {
                    What::Header(name.trim_end().to_owned(), Some(unfolded(value.as_bytes())))
                }
                None => What::Header(argument.to_owned(), None),
            },
            "sender" => What::Sender(address(&needed()?)),
            "recipient" => What::Recipient(address(&needed()?)),
            "body" => What::Body(needed()?),
            _ => {
                let words = "accept, reject, tempfail, discard, quarantine, reply, at, header, sender, recipient or body";
                return Err(format!("expected {words}"));
            }
        };
        Ok(Self { negated, what, text: text.to_owned() })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expectation {
    /// Checks what became of a message; `Err` says what is the case instead.
    ///
    /// # Errors
    /// It is not as it was expected.
    pub fn check(&self, delivery: &Delivery) -> Result<(), String> {
        let (holds, found) = self.what.look(delivery);
        if holds == self.negated { Err(found) } else { Ok(()) }
    }
}

impl What {
    /// Whether it is so, and what is found in any case.
    fn look(&self, delivery: &Delivery) -> (bool, String) {
        let disposition = &delivery.disposition;
        let envelope = &delivery.mail.envelope;
        let accepted = *disposition == Disposition::Accepted;
        let held = envelope.quarantine.as_deref().filter(|_| accepted);
        let became = || format!("the message was {}", super::dialogue::disposition(delivery));
        match self {
            Self::Accept => (accepted && held.is_none(), became()),
            Self::Reject => (matches!(disposition, Disposition::Rejected(_)), became()),
            Self::TempFail => (matches!(disposition, Disposition::TempFailed(_)), became()),
            Self::Discard => (*disposition == Disposition::Discarded, became()),
            Self::Quarantine(reason) => match held {
                Some(held) if reason.is_empty() || held == reason.as_bytes() => (true, became()),
                Some(held) => (false, format!("the reason is {}", String::from_utf8_lossy(held))),
                None => (false, became()),
            },
            Self::Reply(start) => match disposition {
                Disposition::Rejected(reply) | Disposition::TempFailed(reply) => {
                    let found = format!("the reply is {}", String::from_utf8_lossy(reply));
                    (reply.starts_with(start.as_bytes()), found)
                }
                _ => (false, became()),
            },
            Self::At(command) => {
                let name = delivery.decided_by.name();
                (name == command, format!("it was decided at {name}"))
            }
            // What was not accepted has no resulting message.
            _ if !accepted => (false, became()),
            Self::Header(name, value) => {
                let headers = delivery.mail.message().headers;
                let found = headers.iter().filter(|header| header.is_named(name.as_bytes()));
                header_is(name, value.as_deref(), &found.collect::<Vec<_>>())
            }
            Self::Sender(expected) => {
                let found = String::from_utf8_lossy(&envelope.sender.address).into_owned();
                (found == *expected, format!("the sender is <{found}>"))
            }
            Self::Recipient(expected) => {
                let is_expected = |mailbox: &Mailbox| mailbox.address == expected.as_bytes();
                let found: Vec<_> = envelope.recipients.iter().map(Mailbox::to_string).collect();
                (
                    envelope.recipients.iter().any(is_expected),
                    format!("the recipients are {}", found.join(", ")),
                )
            }
            Self::Body(text) => {
                let (body, text) = (delivery.mail.message().body, text.as_bytes());
                let holds = body.windows(text.len()).any(|part| part == text);
                (
                    holds,
                    if holds { "the body has it".to_owned() } else { "the body does not have it".to_owned() },
                )
            }
        }
    }
}

fn header_is(name: &str, value: Option<&str>, found: &[&Header]) -> (bool, String) {
    let values: Vec<_> = found.iter().map(|header| unfolded(header.behind_colon())).collect();
    let holds = match value {
        Some(value) => values.iter().any(|found| found == value),
        None => !values.is_empty(),
    };
    let lines: Vec<_> = values.iter().map(|value| format!("{name}: {value}")).collect();
    (
        holds,
        if lines.is_empty() {
            format!("there is no {name}")
        } else {
            format!("there is {}", lines.join(", "))
        },
    )
}

/// A value on one line, without white space around it.
fn unfolded(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
}

fn address(text: &str) -> String {
    text.strip_prefix('<').and_then(|inner| inner.strip_suffix('>')).unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use milter::mta::{Envelope, Flavor, Mail, Message};
    use milter::protocol::Kind;

    fn delivery(disposition: Disposition) -> Delivery {
        let message = Message::parse(b"X-Spam: yes\nSubject: two\n lines\nX-Spam: no\n\nsome text\n");
        let envelope = Envelope {
            sender: Mailbox::parse(b"<s@example.org>"),
            recipients: vec![Mailbox::parse(b"<r@example.org> NOTIFY=NEVER")],
            quarantine: None,
        };
        Delivery {
            disposition,
            decided_by: Kind::EndOfMessage,
            refused: Vec::new(),
            changes: Vec::new(),
            mail: Mail::new(envelope, &message, None, Flavor::Postfix37),
        }
    }

    fn check(text: &str, delivery: &Delivery) -> Result<(), String> {
        text.parse::<Expectation>().unwrap().check(delivery)
    }

    #[test]
    fn what_holds_does_not_hold_with_a_no_in_front() {
        let accepted = delivery(Disposition::Accepted);
        let rejected = delivery(Disposition::Rejected(b"550 5.7.1 No".to_vec()));
        let mut held = accepted.clone();
        held.mail.envelope.quarantine = Some(b"looks odd".to_vec());
        for (delivery, texts) in [
            (&accepted, &["accept", "header x-spam", "header X-Spam: no", "header Subject:two lines"][..]),
            (&accepted, &["sender s@example.org", "recipient <r@example.org>", "body me te", "at bodyeob"]),
            (&held, &["quarantine", "quarantine looks odd", "header X-Spam"]),
            (&rejected, &["reject", "reply 550 5.7.1"]),
            (&delivery(Disposition::TempFailed(b"451 4.7.1 Later".to_vec())), &["tempfail"]),
            (&delivery(Disposition::Discarded), &["discard"]),
        ] {
            for text in texts {
                assert_eq!(check(text, delivery), Ok(()), "{text}");
                assert!(check(&format!("no {text}"), delivery).is_err(), "no {text}");
            }
        }
        for (delivery, texts) in [
            (
                &accepted,
                &["reject", "tempfail", "discard", "quarantine", "reply 5", "at MAIL", "body xyz"][..],
            ),
            (&accepted, &["header X", "header X-Spam: maybe", "sender <>", "recipient s@example.org"]),
            (&held, &["accept", "quarantine other"]),
            (&rejected, &["accept", "header X-Spam", "sender s@example.org", "body some", "reply 551"]),
        ] {
            for text in texts {
                assert!(check(text, delivery).is_err(), "{text}");
                assert_eq!(check(&format!("not {text}"), delivery), Ok(()), "not {text}");
            }
        }
    }

    #[test]
    fn a_failure_tells_what_is_the_case() {
        let accepted = delivery(Disposition::Accepted);
        for (text, found) in [
            ("reject", "the message was accepted"),
            ("header X-Spam: 1", "there is X-Spam: yes, X-Spam: no"),
            ("header X", "there is no X"),
            ("recipient a@b", "the recipients are <r@example.org> NOTIFY=NEVER"),
            ("no at BODYEOB", "it was decided at BODYEOB"),
        ] {
            assert_eq!(check(text, &accepted).unwrap_err(), found);
        }
    }

    #[test]
    fn what_is_no_expectation() {
        for text in ["", "no", "accepted", "accept it", "header", "no header", "sender", "reply "] {
            assert!(text.parse::<Expectation>().is_err(), "{text}");
        }
    }
}
