//! Applies what a filter wants changed, as Postfix 3.7 or Sendmail 8.17 does it.
//!
//! Both count fields in a list that starts with the `Received:` field of their own, which no filter sees: a
//! field inserted at 0 stands above it, at 1 below. Sendmail's list has an entry for every `H` line of its
//! configuration, so seven more behind it for the fields that it would make up if they were missing. "The n-th
//! field of a name" leaves the own field out.

use super::change::Change;
use super::envelope::{Envelope, Mailbox, arguments, bare};
use super::habits::Like;
use super::message::{Header, LineEnd, Message, with_line_end};

/// A message on its way through the MTA.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Its envelope.
    pub envelope: Envelope,
    line_end: LineEnd,
    fields: Vec<Field>,
    body: Vec<u8>,
}

/// An entry of the list in which the MTA counts.
#[derive(Debug, Clone)]
enum Field {
    /// Of the message.
    Message(Header),
    /// The MTA's own `Received:`, if it is to be seen.
    Received(Option<Header>),
    /// Counted and never seen.
    Phantom,
}

/// The entries of Sendmail's list, with its standard configuration, behind its own `Received:`: Resent-Date, Date, Resent-From, From, Full-Name,
/// Resent-Message-Id, Message-Id. They are there whether or not the message has such fields itself.
const SENDMAIL_PHANTOMS: usize = 7;

/// What shapes the way a change is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Whose habits.
    pub like: Like,
    /// Whether the filter gives header values with their leading space.
    pub leading_space: bool,
}

impl Mail {
    /// A message that the MTA has received. Its own `Received:` counts in any case; `received` is what shall be
    /// seen of it.
    pub fn new(envelope: Envelope, message: &Message, received: Option<Header>, like: Like) -> Self {
        let mut fields = vec![Field::Received(received)];
        if like == Like::Sendmail {
            fields.extend(std::iter::repeat_n(Field::Phantom, SENDMAIL_PHANTOMS));
        }
        fields.extend(message.headers.iter().cloned().map(Field::Message));
        let body = message.body.clone();
        Self { envelope, line_end: message.line_end, fields, body }
    }

    /// Carries out one change.
    pub fn apply(&mut self, change: &Change, manner: Manner) {
        match change {
            Change::AddHeader { name, value } => self.add_header(name, value, manner),
            Change::InsertHeader { index, name, value } => {
                let at = usize::try_from(*index).map_or(self.fields.len(), |at| at.min(self.fields.len()));
                let header = self.header(name, value, manner);
                self.fields.insert(at, header);
            }
            Change::ChangeHeader { index, name, value } => {
                match (self.find(name, *index), value.is_empty()) {
                    (Some(at), true) => drop(self.fields.remove(at)),
                    (Some(at), false) => {
                        let name = self.changed_name(at, name, manner);
                        self.fields[at] = self.header(&name, value, manner);
                    }
                    (None, true) => {}
                    (None, false) => self.add_header(name, value, manner),
                }
            }
            Change::ChangeSender { address, arguments: given } => {
                self.envelope.sender.address = bare(address).to_vec();
                if let Some(given) = given {
                    self.envelope.sender.arguments = arguments(given);
                }
            }
            Change::AddRecipient { address, arguments } => {
                let mailbox = Mailbox::given(address, arguments.as_deref());
                let known = self.envelope.recipients.iter().any(|known| known.address == mailbox.address);
                // Postfix delivers twice to a recipient that is added twice.
                if !known || manner.like == Like::Postfix {
                    self.envelope.recipients.push(mailbox);
                }
            }
            Change::DeleteRecipient { address } => {
                let address = bare(address);
                self.envelope.recipients.retain(|recipient| recipient.address != address);
            }
            Change::ReplaceBody { body } => self.body = with_line_end(body, self.line_end),
            Change::Quarantine { reason } => self.envelope.quarantine = Some(reason.clone()),
        }
    }

    /// The message as it now stands.
    pub fn message(&self) -> Message {
        let headers = self.fields.iter().filter_map(|field| match field {
            Field::Message(header) | Field::Received(Some(header)) => Some(header.clone()),
            Field::Received(None) | Field::Phantom => None,
        });
        Message { headers: headers.collect(), body: self.body.clone(), line_end: self.line_end }
    }

    /// Postfix adds at the end; Sendmail above the first field of the same name, its own `Received:` included.
    fn add_header(&mut self, name: &[u8], value: &[u8], manner: Manner) {
        let header = self.header(name, value, manner);
        let same = |field: &Field| match field {
            Field::Message(header) => header.is_named(name),
            Field::Received(_) => name.eq_ignore_ascii_case(b"Received"),
            Field::Phantom => false,
        };
        let at = match manner.like {
            Like::Postfix => None,
            Like::Sendmail => self.fields.iter().position(same),
        };
        self.fields.insert(at.unwrap_or(self.fields.len()), header);
    }

    /// Where the `index`-th field of the name is; 0 is taken as 1.
    fn find(&self, name: &[u8], index: u32) -> Option<usize> {
        let same = |(at, field): (usize, &Field)| match field {
            Field::Message(header) if header.is_named(name) => Some(at),
            _ => None,
        };
        let before = usize::try_from(index.saturating_sub(1)).ok()?;
        self.fields.iter().enumerate().filter_map(same).nth(before)
    }

    /// The name of a field with a new value: Sendmail keeps the old spelling.
    fn changed_name(&self, at: usize, given: &[u8], manner: Manner) -> Vec<u8> {
        match (&self.fields[at], manner.like) {
            (Field::Message(header), Like::Sendmail) => header.name().to_vec(),
            _ => given.to_vec(),
        }
    }

    /// A field out of what a filter gave. A filter that did not ask for leading spaces leaves the one behind the
    /// colon to the MTA.
    fn header(&self, name: &[u8], value: &[u8], manner: Manner) -> Field {
        let mut behind_colon = with_line_end(value, self.line_end);
        if !manner.leading_space {
            behind_colon.insert(0, b' ');
        }
        Field::Message(Header::new(name, &behind_colon))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = b"Received: one\nX-A: a1\nSubject: s\nx-a: a2\n\nold body\n";

    fn mail(like: Like) -> Mail {
        let envelope = Envelope {
            sender: Mailbox::parse(b"<s@example.org> SIZE=5"),
            recipients: vec![Mailbox::parse(b"<r1@example.org>"), Mailbox::parse(b"<r2@example.org>")],
            quarantine: None,
        };
        Mail::new(envelope, &Message::parse(FILE), Some(Header::new(b"Received", b" own")), like)
    }

    fn manner(like: Like) -> Manner {
        Manner { like, leading_space: false }
    }

    fn header(mail: &Mail) -> String {
        let text = String::from_utf8(mail.message().to_bytes()).unwrap();
        text.split("\n\n").next().unwrap().replace('\n', "|")
    }

    /// The header behind some changes: `h` adds, `i` inserts, `m` changes.
    fn after(like: Like, changes: &[(char, u32, &str, &str)]) -> String {
        let mut mail = mail(like);
        for &(kind, index, name, value) in changes {
            let (name, value) = (name.into(), value.into());
            let change = match kind {
                'h' => Change::AddHeader { name, value },
                'i' => Change::InsertHeader { index, name, value },
                _ => Change::ChangeHeader { index, name, value },
            };
            mail.apply(&change, manner(like));
        }
        header(&mail)
    }

    #[test]
    fn inserting_counts_the_own_received_field() {
        for like in [Like::Postfix, Like::Sendmail] {
            let at = |index| after(like, &[('i', index, "I", "x")]);
            assert_eq!(at(0), "I: x|Received: own|Received: one|X-A: a1|Subject: s|x-a: a2");
            assert_eq!(at(1), "Received: own|I: x|Received: one|X-A: a1|Subject: s|x-a: a2");
            assert_eq!(at(2_147_483_647), "Received: own|Received: one|X-A: a1|Subject: s|x-a: a2|I: x");
        }
        let at = |like, index| after(like, &[('i', index, "I", "x")]);
        assert_eq!(at(Like::Postfix, 2), "Received: own|Received: one|I: x|X-A: a1|Subject: s|x-a: a2");
        assert_eq!(at(Like::Sendmail, 8), "Received: own|I: x|Received: one|X-A: a1|Subject: s|x-a: a2");
        assert_eq!(at(Like::Sendmail, 9), "Received: own|Received: one|I: x|X-A: a1|Subject: s|x-a: a2");
        assert_eq!(
            after(Like::Postfix, &[('i', 0, "I0", "x"), ('i', 1, "I1", "x")]),
            "I0: x|I1: x|Received: own|Received: one|X-A: a1|Subject: s|x-a: a2",
            "what was inserted counts"
        );
    }

    #[test]
    fn changing_counts_by_name_and_leaves_the_own_field_alone() {
        for like in [Like::Postfix, Like::Sendmail] {
            let change = |index, name, value| after(like, &[('m', index, name, value)]);
            assert_eq!(
                change(1, "Received", "new"),
                "Received: own|Received: new|X-A: a1|Subject: s|x-a: a2"
            );
            assert_eq!(change(0, "X-A", "new"), "Received: own|Received: one|X-A: new|Subject: s|x-a: a2");
            assert_eq!(change(1, "X-A", ""), "Received: own|Received: one|Subject: s|x-a: a2");
            assert_eq!(change(3, "X-A", ""), "Received: own|Received: one|X-A: a1|Subject: s|x-a: a2");
            assert_eq!(change(1, "N", "n"), "Received: own|Received: one|X-A: a1|Subject: s|x-a: a2|N: n");
        }
    }

    #[test]
    fn a_changed_field_is_spelt_anew_or_not() {
        let change = |like| after(like, &[('m', 2, "X-A", "new")]);
        assert_eq!(change(Like::Postfix), "Received: own|Received: one|X-A: a1|Subject: s|X-A: new");
        assert_eq!(change(Like::Sendmail), "Received: own|Received: one|X-A: a1|Subject: s|x-a: new");
    }

    #[test]
    fn adding_a_field_that_is_there_already() {
        let add = |like| after(like, &[('h', 0, "X-a", "new")]);
        assert_eq!(add(Like::Postfix), "Received: own|Received: one|X-A: a1|Subject: s|x-a: a2|X-a: new");
        assert_eq!(add(Like::Sendmail), "Received: own|Received: one|X-a: new|X-A: a1|Subject: s|x-a: a2");
        assert_eq!(
            after(Like::Sendmail, &[('h', 0, "Received", "new"), ('m', 1, "Received", "newer")]),
            "Received: newer|Received: own|Received: one|X-A: a1|Subject: s|x-a: a2"
        );
        assert_eq!(
            after(Like::Sendmail, &[('m', 9, "X-A", "new")]),
            add(Like::Sendmail).replace("X-a", "X-A")
        );
    }

    #[test]
    fn the_space_behind_the_colon_is_the_filters_if_it_asked_for_it() {
        let mut mail = mail(Like::Postfix);
        let exact = Manner { like: Like::Postfix, leading_space: true };
        for value in [&b"none"[..], b" one", b"a\n\tb"] {
            mail.apply(&Change::AddHeader { name: b"N".to_vec(), value: value.to_vec() }, exact);
        }
        assert!(header(&mail).ends_with("|N:none|N: one|N:a|\tb"));
        mail.apply(
            &Change::AddHeader { name: b"N".to_vec(), value: b" two".to_vec() },
            manner(Like::Postfix),
        );
        assert!(header(&mail).ends_with("|N:  two"));
    }

    #[test]
    fn a_crlf_message_gets_crlf_fields() {
        let message = Message::parse(b"A: b\r\n\r\nbody\r\n");
        let mut mail = Mail::new(mail(Like::Postfix).envelope, &message, None, Like::Postfix);
        mail.apply(
            &Change::AddHeader { name: b"N".to_vec(), value: b"a\n b".to_vec() },
            manner(Like::Postfix),
        );
        assert_eq!(mail.message().to_bytes(), b"A: b\r\nN: a\r\n b\r\n\r\nbody\r\n");
    }

    #[test]
    fn a_new_body_has_the_line_ends_of_the_file() {
        let mut mail = mail(Like::Postfix);
        mail.apply(&Change::ReplaceBody { body: b"new\r\nbody\r\n".to_vec() }, manner(Like::Postfix));
        assert!(mail.message().to_bytes().ends_with(b"\n\nnew\nbody\n"));
        mail.apply(&Change::ReplaceBody { body: Vec::new() }, manner(Like::Postfix));
        assert_eq!(mail.message().body, b"");
    }

    #[test]
    fn the_envelope_changes() {
        let change = |like, change: Change| {
            let mut mail = mail(like);
            mail.apply(&change, manner(like));
            let recipients: Vec<_> = mail.envelope.recipients.iter().map(ToString::to_string).collect();
            format!("{} to {}", mail.envelope.sender, recipients.join(", "))
        };
        let bytes = |text: &str| text.as_bytes().to_vec();
        let sender = |address, arguments| Change::ChangeSender { address: bytes(address), arguments };
        assert!(change(Like::Postfix, sender("<n@e>", None)).starts_with("<n@e> SIZE=5 to"));
        assert!(
            change(Like::Postfix, sender("n@e", Some(bytes("BODY=7BIT")))).starts_with("<n@e> BODY=7BIT")
        );
        let delete = |address| Change::DeleteRecipient { address: bytes(address) };
        assert!(change(Like::Postfix, delete("r1@example.org")).ends_with("to <r2@example.org>"));
        assert!(change(Like::Sendmail, delete("<R1@example.org>")).contains("<r1@example.org>"));
        let add = |address, arguments| Change::AddRecipient { address: bytes(address), arguments };
        assert!(
            change(Like::Postfix, add("<n@e>", Some(bytes("NOTIFY=NEVER")))).ends_with("<n@e> NOTIFY=NEVER")
        );
        assert!(change(Like::Postfix, add("<r1@example.org>", None)).ends_with(", <r1@example.org>"));
        assert!(change(Like::Sendmail, add("<r1@example.org>", None)).ends_with(", <r2@example.org>"));
    }

    #[test]
    fn a_quarantined_message_says_why() {
        let mut mail = mail(Like::Postfix);
        mail.apply(&Change::Quarantine { reason: b"odd".to_vec() }, manner(Like::Postfix));
        assert_eq!(mail.envelope.quarantine.as_deref(), Some(&b"odd"[..]));
    }
}
