//! Applies what a filter wants changed, as Postfix or Sendmail 8.17 does it, and tells what had to be repaired.
//!
//! Both count fields in a list that starts with the `Received:` field of their own, which no filter sees: a
//! field inserted at 0 stands above it, at 1 below. Sendmail's list has an entry for every `H` line of its
//! configuration, so seven more behind it for the fields that it would make up if they were missing. "The n-th
//! field of a name" leaves the own field out.

use super::change::Change;
use super::envelope::{Envelope, Mailbox};
use super::given;
use super::habits::Flavor;
use super::message::{Body, Header, LineEnd, Message, with_line_end};
use super::warning::{Warning, quoted};

/// A message on its way through the MTA.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Its envelope.
    pub envelope: Envelope,
    line_end: LineEnd,
    fields: Vec<Field>,
    body: Body,
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
    /// Was of the message until a filter deleted it, and goes on being counted by its name.
    Deleted(Header),
}

/// The entries of Sendmail's list, with its standard configuration, behind its own `Received:`: Resent-Date, Date, Resent-From, From, Full-Name,
/// Resent-Message-Id, Message-Id. They are there whether or not the message has such fields itself.
const SENDMAIL_PHANTOMS: usize = 7;

/// The longest line that RFC 5322 allows, without its end.
const MAX_LINE: usize = 998;

/// What shapes the way a change is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Whose habits.
    pub like: Flavor,
    /// Whether the filter gives header values with their leading space.
    pub leading_space: bool,
}

impl Mail {
    /// A message that the MTA has received. Its own `Received:` counts in any case; `received` is what shall be
    /// seen of it.
    pub fn new(envelope: Envelope, message: &Message, received: Option<Header>, like: Flavor) -> Self {
        let mut fields = vec![Field::Received(received)];
        if like == Flavor::Sendmail {
            fields.extend(std::iter::repeat_n(Field::Phantom, SENDMAIL_PHANTOMS));
        }
        fields.extend(message.headers.iter().cloned().map(Field::Message));
        let body = message.body.clone();
        Self { envelope, line_end: message.line_end, fields, body }
    }

    /// Carries out one change, and tells what the MTA repairs or leaves out.
    pub fn apply(&mut self, change: &Change, manner: Manner) -> Vec<Warning> {
        let mut warnings = Vec::new();
        match change {
            Change::AddHeader { name, value } => {
                if self.takes_field(name, value, manner, &mut warnings) {
                    self.add_header(name, value, manner);
                }
            }
            Change::InsertHeader { index, name, value } => {
                if self.takes_field(name, value, manner, &mut warnings) {
                    let header = self.header(name, value, manner);
                    self.fields.insert(self.place(*index, manner, &mut warnings), header);
                }
            }
            Change::ChangeHeader { index, name, value } => {
                if self.takes_field(name, value, manner, &mut warnings) {
                    self.change_header(*index, name, value, manner, &mut warnings);
                }
            }
            Change::ChangeSender { address, arguments } => {
                self.change_sender(address, arguments.as_deref(), manner, &mut warnings);
            }
            Change::AddRecipient { address, arguments } => {
                let arguments = arguments.as_deref().unwrap_or_default();
                self.add_recipients(address, arguments, manner, &mut warnings);
            }
            Change::DeleteRecipient { address } => {
                for address in given::addresses(address, manner.like, &mut warnings) {
                    self.envelope.recipients.retain(|recipient| recipient.address != address);
                }
            }
            Change::ReplaceBody { body } => self.body = with_line_end(body, self.line_end).into(),
            Change::Quarantine { reason } => self.envelope.quarantine = Some(reason.clone()),
        }
        warnings
    }

    /// The message as it now stands.
    pub fn message(&self) -> Message {
        let headers = self.fields.iter().filter_map(|field| match field {
            Field::Message(header) | Field::Received(Some(header)) => Some(header.clone()),
            Field::Received(None) | Field::Phantom | Field::Deleted(_) => None,
        });
        Message { headers: headers.collect(), body: self.body.clone(), line_end: self.line_end }
    }

    /// Whether the MTA makes a field of this name and value; what it thinks of them.
    fn takes_field(&self, name: &[u8], value: &[u8], manner: Manner, warnings: &mut Vec<Warning>) -> bool {
        let like = manner.like.name();
        if name.is_empty() {
            let taken = manner.like.is_postfix();
            let does = if taken { "makes a line of it that is no field" } else { "ignores it" };
            warnings.push(Warning::new("D18", format!("a header field without a name: {like} {does}")));
            return taken;
        }
        let named = quoted(name);
        if !name.iter().all(|&b| b.is_ascii_graphic() && b != b':') {
            let text = format!("{named} is no name of a header field, and {like} writes it all the same");
            warnings.push(Warning::new("D48", text));
        }
        if value.contains(&b'\r') || name.contains(&b'\r') {
            warnings.push(Warning::new("D38", format!("{like} keeps the CR in {named}")));
        }
        let lines = || name.split(|&b| b == b'\n').skip(1).chain(value.split(|&b| b == b'\n').skip(1));
        if !lines().all(|line| line.starts_with(b" ") || line.starts_with(b"\t")) {
            let blank = if manner.like.is_postfix() { "tab" } else { "space" };
            let text = format!(
                "a further line of {named} does not begin with a blank: {like} puts a {blank} in front of it"
            );
            warnings.push(Warning::new("D39", text));
        }
        let longest = value.split(|&b| b == b'\n').map(<[u8]>::len).max().unwrap_or_default();
        if longest + name.len() + 2 > MAX_LINE {
            warnings.push(Warning::new("D37", format!("a line of {named} is longer than {MAX_LINE} bytes")));
        }
        true
    }

    /// Where a field is inserted. Sendmail counts with a sign.
    fn place(&self, index: u32, manner: Manner, warnings: &mut Vec<Warning>) -> usize {
        if manner.like == Flavor::Sendmail && index > i32::MAX.cast_unsigned() {
            warnings.push(Warning::new("D16", "to Sendmail the index is negative: it inserts at the top"));
            return 0;
        }
        usize::try_from(index).map_or(self.fields.len(), |at| at.min(self.fields.len()))
    }

    fn change_header(
        &mut self,
        index: u32,
        name: &[u8],
        value: &[u8],
        manner: Manner,
        warnings: &mut Vec<Warning>,
    ) {
        let mut index = index;
        if manner.like == Flavor::Sendmail && index > i32::MAX.cast_unsigned() + 1 {
            warnings.push(Warning::new("D16", "to Sendmail the index is negative: it takes the first field"));
            index = 1;
        }
        match (self.find(name, index), value.is_empty()) {
            (Some(at), true) => self.delete_field(at, manner),
            (Some(at), false) => {
                let name = self.changed_name(at, name, manner);
                self.fields[at] = self.header(&name, value, manner);
            }
            (None, true) => {}
            (None, false) => self.add_header(name, value, manner),
        }
    }

    fn change_sender(
        &mut self,
        address: &[u8],
        arguments: Option<&[u8]>,
        manner: Manner,
        warnings: &mut Vec<Warning>,
    ) {
        if manner.like == Flavor::Sendmail && address.is_empty() {
            warnings.push(Warning::new("D42", "Sendmail ignores an empty sender: the null sender is <>"));
            return;
        }
        let sender = &mut self.envelope.sender;
        sender.address = given::addresses(address, manner.like, warnings).swap_remove(0);
        if let Some(given) = arguments {
            sender.arguments = given::sender_arguments(&sender.arguments, given, manner.like, warnings);
        }
    }

    fn add_recipients(
        &mut self,
        address: &[u8],
        arguments: &[u8],
        manner: Manner,
        warnings: &mut Vec<Warning>,
    ) {
        if address.is_empty() || (manner.like.is_postfix() && address == b"<>") {
            let text = format!("{} ignores an empty recipient", manner.like.name());
            warnings.push(Warning::new("D42", text));
            return;
        }
        let Some(arguments) = given::recipient_arguments(arguments, manner.like, warnings) else { return };
        for address in given::addresses(address, manner.like, warnings) {
            let known = self.envelope.recipients.iter().any(|known| known.address == address);
            // Postfix delivers twice to a recipient that is added twice.
            if !known || manner.like.is_postfix() {
                let arguments = arguments.clone();
                self.envelope.recipients.push(Mailbox { address, arguments });
            }
        }
    }

    /// Postfix adds at the end; Sendmail above the first field of the same name, its own `Received:` included.
    fn add_header(&mut self, name: &[u8], value: &[u8], manner: Manner) {
        let header = self.header(name, value, manner);
        let same = |field: &Field| match field {
            Field::Message(header) | Field::Deleted(header) => header.is_named(name),
            Field::Received(_) => name.eq_ignore_ascii_case(b"Received"),
            Field::Phantom => false,
        };
        let at = match manner.like {
            Flavor::Postfix37 | Flavor::Postfix312 => None,
            Flavor::Sendmail => self.fields.iter().position(same),
        };
        self.fields.insert(at.unwrap_or(self.fields.len()), header);
    }

    /// Where the `index`-th field of the name is; 0 is taken as 1.
    fn find(&self, name: &[u8], index: u32) -> Option<usize> {
        let same = |(at, field): (usize, &Field)| match field {
            Field::Message(header) | Field::Deleted(header) if header.is_named(name) => Some(at),
            _ => None,
        };
        let before = usize::try_from(index.saturating_sub(1)).ok()?;
        self.fields.iter().enumerate().filter_map(same).nth(before)
    }

    /// Takes a field out. Sendmail leaves its place, so that the numbers of those behind it stay as they are.
    fn delete_field(&mut self, at: usize, manner: Manner) {
        let field = self.fields.remove(at);
        if let (Field::Message(header) | Field::Deleted(header), Flavor::Sendmail) = (field, manner.like) {
            self.fields.insert(at, Field::Deleted(header));
        }
    }

    /// The name of a field with a new value: Sendmail keeps the old spelling.
    fn changed_name(&self, at: usize, given: &[u8], manner: Manner) -> Vec<u8> {
        match (&self.fields[at], manner.like) {
            (Field::Message(header) | Field::Deleted(header), Flavor::Sendmail) => header.name().to_vec(),
            _ => given.to_vec(),
        }
    }

    /// A field out of what a filter gave. A filter that did not ask for leading spaces leaves the one behind the
    /// colon to the MTA. It stays one field: each further line is made to begin with a blank.
    fn header(&self, name: &[u8], value: &[u8], manner: Manner) -> Field {
        let space: &[u8] = if manner.leading_space { b"" } else { b" " };
        let blank = if manner.like.is_postfix() { b'\t' } else { b' ' };
        let fold = |text: &[u8]| {
            let mut out = Vec::with_capacity(text.len());
            for (number, line) in text.split(|&b| b == b'\n').enumerate() {
                if number > 0 {
                    out.extend_from_slice(self.line_end.as_bytes());
                    if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                        out.push(blank);
                    }
                }
                out.extend_from_slice(line);
            }
            out
        };
        Field::Message(Header::new(&fold(name), &fold(&[space, value].concat())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = b"Received: one\nX-A: a1\nSubject: s\nx-a: a2\n\nold body\n";

    fn mail(like: Flavor) -> Mail {
        let envelope = Envelope {
            sender: Mailbox::parse(b"<s@example.org> SIZE=5"),
            recipients: vec![Mailbox::parse(b"<r1@example.org>"), Mailbox::parse(b"<r2@example.org>")],
            quarantine: None,
        };
        Mail::new(envelope, &Message::parse(FILE), Some(Header::new(b"Received", b" own")), like)
    }

    fn manner(like: Flavor) -> Manner {
        Manner { like, leading_space: false }
    }

    fn header(mail: &Mail) -> String {
        let text = String::from_utf8(mail.message().to_bytes()).unwrap();
        text.split("\n\n").next().unwrap().replace('\n', "|")
    }

    /// The header behind some changes: `h` adds, `i` inserts, `m` changes.
    fn after(like: Flavor, changes: &[(char, u32, &str, &str)]) -> String {
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
        for like in [Flavor::Postfix37, Flavor::Sendmail] {
            let at = |index| after(like, &[('i', index, "I", "x")]);
            assert_eq!(at(0), "I: x|Received: own|Received: one|X-A: a1|Subject: s|x-a: a2");
            assert_eq!(at(1), "Received: own|I: x|Received: one|X-A: a1|Subject: s|x-a: a2");
            assert_eq!(at(2_147_483_647), "Received: own|Received: one|X-A: a1|Subject: s|x-a: a2|I: x");
        }
        let at = |like, index| after(like, &[('i', index, "I", "x")]);
        assert_eq!(at(Flavor::Postfix37, 2), "Received: own|Received: one|I: x|X-A: a1|Subject: s|x-a: a2");
        assert_eq!(at(Flavor::Sendmail, 8), "Received: own|I: x|Received: one|X-A: a1|Subject: s|x-a: a2");
        assert_eq!(at(Flavor::Sendmail, 9), "Received: own|Received: one|I: x|X-A: a1|Subject: s|x-a: a2");
        assert_eq!(
            after(Flavor::Postfix37, &[('i', 0, "I0", "x"), ('i', 1, "I1", "x")]),
            "I0: x|I1: x|Received: own|Received: one|X-A: a1|Subject: s|x-a: a2",
            "what was inserted counts"
        );
    }

    #[test]
    fn changing_counts_by_name_and_leaves_the_own_field_alone() {
        for like in [Flavor::Postfix37, Flavor::Sendmail] {
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
    fn sendmail_goes_on_counting_what_was_deleted() {
        let twice = [('m', 1, "X-A", ""), ('m', 2, "X-A", "")];
        assert_eq!(after(Flavor::Postfix37, &twice), "Received: own|Received: one|Subject: s|x-a: a2");
        assert_eq!(after(Flavor::Sendmail, &twice), "Received: own|Received: one|Subject: s");
        let back = [('m', 1, "X-A", ""), ('m', 1, "X-A", "b")];
        assert_eq!(after(Flavor::Postfix37, &back), "Received: own|Received: one|Subject: s|X-A: b");
        assert_eq!(after(Flavor::Sendmail, &back), "Received: own|Received: one|X-A: b|Subject: s|x-a: a2");
        let inserted = [('m', 1, "X-A", ""), ('i', 11, "I", "x")];
        assert_eq!(after(Flavor::Sendmail, &inserted), "Received: own|Received: one|Subject: s|I: x|x-a: a2");
    }

    #[test]
    fn a_changed_field_is_spelt_anew_or_not() {
        let change = |like| after(like, &[('m', 2, "X-A", "new")]);
        assert_eq!(change(Flavor::Postfix37), "Received: own|Received: one|X-A: a1|Subject: s|X-A: new");
        assert_eq!(change(Flavor::Sendmail), "Received: own|Received: one|X-A: a1|Subject: s|x-a: new");
    }

    #[test]
    fn adding_a_field_that_is_there_already() {
        let add = |like| after(like, &[('h', 0, "X-a", "new")]);
        assert_eq!(add(Flavor::Postfix37), "Received: own|Received: one|X-A: a1|Subject: s|x-a: a2|X-a: new");
        assert_eq!(add(Flavor::Sendmail), "Received: own|Received: one|X-a: new|X-A: a1|Subject: s|x-a: a2");
        assert_eq!(
            after(Flavor::Sendmail, &[('h', 0, "Received", "new"), ('m', 1, "Received", "newer")]),
            "Received: newer|Received: own|Received: one|X-A: a1|Subject: s|x-a: a2"
        );
        assert_eq!(
            after(Flavor::Sendmail, &[('m', 9, "X-A", "new")]),
            add(Flavor::Sendmail).replace("X-a", "X-A")
        );
    }

    #[test]
    fn the_space_behind_the_colon_is_the_filters_if_it_asked_for_it() {
        let mut mail = mail(Flavor::Postfix37);
        let exact = Manner { like: Flavor::Postfix37, leading_space: true };
        for value in [&b"none"[..], b" one", b"a\n\tb"] {
            mail.apply(&Change::AddHeader { name: b"N".to_vec(), value: value.to_vec() }, exact);
        }
        assert!(header(&mail).ends_with("|N:none|N: one|N:a|\tb"));
        mail.apply(
            &Change::AddHeader { name: b"N".to_vec(), value: b" two".to_vec() },
            manner(Flavor::Postfix37),
        );
        assert!(header(&mail).ends_with("|N:  two"));
    }

    /// The header behind one added field, and the statements of the warnings.
    fn added(like: Flavor, name: &str, value: &str) -> (String, Vec<&'static str>) {
        let mut mail = mail(like);
        let change = Change::AddHeader { name: name.into(), value: value.into() };
        let warned = mail.apply(&change, manner(like)).iter().map(|warning| warning.statement).collect();
        let header = header(&mail);
        (header.rsplit_once("x-a: a2").unwrap().1.to_owned(), warned)
    }

    #[test]
    fn a_field_stays_one_field() {
        for (value, postfix, sendmail, warned) in [
            ("a\n b\n\tc", "|N: a| b|\tc", "|N: a| b|\tc", &[][..]),
            ("a\nEvil: y", "|N: a|\tEvil: y", "|N: a| Evil: y", &["D39"]),
            ("a\n\nbody", "|N: a|\t|\tbody", "|N: a| | body", &["D39"]),
            ("a\n", "|N: a|\t", "|N: a| ", &["D39"]),
            ("a\r\n b", "|N: a\r| b", "|N: a\r| b", &["D38"]),
            ("a\r\nb", "|N: a\r|\tb", "|N: a\r| b", &["D38", "D39"]),
        ] {
            assert_eq!(
                added(Flavor::Postfix37, "N", value),
                (postfix.to_owned(), warned.to_vec()),
                "{value:?}"
            );
            assert_eq!(
                added(Flavor::Sendmail, "N", value),
                (sendmail.to_owned(), warned.to_vec()),
                "{value:?}"
            );
        }
    }

    #[test]
    fn names_that_are_none() {
        assert_eq!(added(Flavor::Postfix37, "", "v"), ("|: v".to_owned(), vec!["D18"]));
        assert_eq!(added(Flavor::Sendmail, "", "v"), (String::new(), vec!["D18"]));
        assert_eq!(added(Flavor::Postfix37, "N: M", "v"), ("|N: M: v".to_owned(), vec!["D48"]));
        assert_eq!(added(Flavor::Postfix37, "N\nM", "v"), ("|N|\tM: v".to_owned(), vec!["D48", "D39"]));
        assert_eq!(added(Flavor::Postfix37, "N", &"x".repeat(996)).1, ["D37"]);
        assert_eq!(added(Flavor::Postfix37, "N", &"x".repeat(995)).1, [""; 0]);
    }

    #[test]
    fn sendmail_counts_with_a_sign() {
        let at = |like, kind, index| after(like, &[(kind, index, "X-A", "x")]);
        assert!(at(Flavor::Sendmail, 'i', 1 << 31).starts_with("X-A: x|Received: own"));
        assert!(at(Flavor::Postfix37, 'i', 1 << 31).ends_with("|X-A: x"));
        assert!(at(Flavor::Sendmail, 'm', u32::MAX).contains("|X-A: x|Subject: s|x-a: a2"));
        assert!(at(Flavor::Postfix37, 'm', u32::MAX).ends_with("|X-A: x"));
    }

    #[test]
    fn a_crlf_message_gets_crlf_fields() {
        let message = Message::parse(b"A: b\r\n\r\nbody\r\n");
        let mut mail = Mail::new(mail(Flavor::Postfix37).envelope, &message, None, Flavor::Postfix37);
        mail.apply(
            &Change::AddHeader { name: b"N".to_vec(), value: b"a\n b".to_vec() },
            manner(Flavor::Postfix37),
        );
        assert_eq!(mail.message().to_bytes(), b"A: b\r\nN: a\r\n b\r\n\r\nbody\r\n");
    }

    #[test]
    fn a_new_body_has_the_line_ends_of_the_file() {
        let mut mail = mail(Flavor::Postfix37);
        mail.apply(&Change::ReplaceBody { body: b"new\r\nbody\r\n".to_vec() }, manner(Flavor::Postfix37));
        assert!(mail.message().to_bytes().ends_with(b"\n\nnew\nbody\n"));
        mail.apply(&Change::ReplaceBody { body: Vec::new() }, manner(Flavor::Postfix37));
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
        assert!(change(Flavor::Postfix37, sender("<n@e>", None)).starts_with("<n@e> SIZE=5 to"));
        let arguments = || Some(bytes("BODY=7BIT RET=HDRS"));
        assert!(
            change(Flavor::Postfix37, sender("n@e", arguments())).starts_with("<n@e> SIZE=5 RET=HDRS to")
        );
        assert!(
            change(Flavor::Sendmail, sender("n@e", arguments())).starts_with("<n@e> BODY=7BIT RET=HDRS to")
        );
        let delete = |address| Change::DeleteRecipient { address: bytes(address) };
        assert!(change(Flavor::Postfix37, delete("r1@example.org")).ends_with("to <r2@example.org>"));
        assert!(change(Flavor::Sendmail, delete("<R1@example.org>")).contains("<r1@example.org>"));
        let add = |address, arguments| Change::AddRecipient { address: bytes(address), arguments };
        assert!(
            change(Flavor::Postfix37, add("<n@e>", Some(bytes("NOTIFY=NEVER"))))
                .ends_with("<n@e> NOTIFY=NEVER")
        );
        assert!(change(Flavor::Postfix37, add("<r1@example.org>", None)).ends_with(", <r1@example.org>"));
        assert!(change(Flavor::Sendmail, add("<r1@example.org>", None)).ends_with(", <r2@example.org>"));
    }

    #[test]
    fn a_quarantined_message_says_why() {
        let mut mail = mail(Flavor::Postfix37);
        mail.apply(&Change::Quarantine { reason: b"odd".to_vec() }, manner(Flavor::Postfix37));
        assert_eq!(mail.envelope.quarantine.as_deref(), Some(&b"odd"[..]));
    }
}
