//! What a filter does wrongly and nobody says: each kind is logged once, and nothing else changes.

use crate::log;
use crate::protocol::{Actions, Agreement, Choice, Kind, Modification, Offer, Stage, Steps};
use std::ffi::{CStr, CString};
use std::fmt::Arguments;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

/// The longest line of RFC 5322, without its end.
const LONGEST_LINE: usize = 998;

/// The longest line that mail servers take as one: Postfix's line_length_limit, and Sendmail's buffer for a line.
const LONGEST_TAKEN: usize = 2048;

/// How much of what is wrong is shown, in bytes.
const SHOWN: usize = 60;

/// The kinds, each with its bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    NameWithColon,
    NameWithLineEnd,
    ValueWithoutFold,
    AddressWithLineEnd,
    LongHeaderLine,
    VeryLongHeaderLine,
    LongBodyLine,
    VeryLongBodyLine,
    LonePercent,
    ClassOfCode,
    NoReply,
    Skip,
    MacroLists,
    LateMacroList,
    DiscardAtConnect,
    BodyInPieces,
    Flags,
}

/// What has been found so far.
#[derive(Debug)]
pub struct Check {
    name: CString,
    /// The kinds that were logged, one bit each.
    logged: AtomicU32,
}

/// What a check must know of a session.
#[derive(Debug, Default)]
pub struct Facts {
    has_negotiated: AtomicBool,
    /// The steps agreed on.
    steps: AtomicU32,
    body: AtomicU8,
}

/// What of [`Facts::body`]: no new body, one under way, or another modification behind it.
const NO_BODY: u8 = 0;
const BODY: u8 = 1;
const BODY_LEFT: u8 = 2;

impl Check {
    pub fn new(name: &CStr) -> Self {
        Self { name: name.to_owned(), logged: AtomicU32::new(0) }
    }

    #[cold]
    fn complain(&self, wrong: Wrong, what: Arguments<'_>) {
        let bit = 1 << wrong as u32;
        if self.logged.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            log::warning(&self.name, format_args!("check: {what}; this is logged once"));
        }
    }

    /// A message ends: its modifications begin.
    pub fn end_of_message(facts: &Facts) {
        facts.body.store(NO_BODY, Ordering::Relaxed);
    }

    pub fn modifies(&self, facts: &Facts, modification: &Modification<'_>) {
        match *modification {
            Modification::AddHeader { name, value } => self.header("smfi_addheader", name, value),
            Modification::InsertHeader { name, value, .. } => self.header("smfi_insheader", name, value),
            Modification::ChangeHeader { name, value, .. } => self.header("smfi_chgheader", name, value),
            Modification::ChangeSender { address, .. } => self.address("smfi_chgfrom", address),
            Modification::AddRecipient(address) => self.address("smfi_addrcpt", address),
            Modification::AddRecipientWith { address, .. } => self.address("smfi_addrcpt_par", address),
            Modification::DeleteRecipient(address) => self.address("smfi_delrcpt", address),
            Modification::ReplaceBody(piece) => self.body(facts, piece),
            Modification::Quarantine(_) | Modification::Progress => {}
        }
        match modification {
            Modification::ReplaceBody(_) => facts.body.store(BODY, Ordering::Relaxed),
            Modification::Progress => {}
            _ if facts.body.load(Ordering::Relaxed) == BODY => facts.body.store(BODY_LEFT, Ordering::Relaxed),
            _ => {}
        }
    }

    fn header(&self, function: &str, name: &[u8], value: &[u8]) {
        let shown = shown(name);
        if name.contains(&b':') {
            let what = "the mail server writes another field than is meant";
            self.complain(
                Wrong::NameWithColon,
                format_args!("{function}: \"{shown}\" has a colon in it: {what}"),
            );
        }
        if name.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            let what = "the header of the message is broken by it";
            self.complain(
                Wrong::NameWithLineEnd,
                format_args!("{function}: \"{shown}\" has a line end in it: {what}"),
            );
        }
        let mut lines = value.split(|byte| *byte == b'\n');
        let mut longest = name.len() + 1 + lines.next().unwrap_or_default().len();
        for line in lines {
            longest = longest.max(line.len());
            if !matches!(line.first(), Some(b' ' | b'\t')) {
                self.complain(
                    Wrong::ValueWithoutFold,
                    format_args!(
                        "{function}: a line of the value of {shown} begins neither with a space nor with a tab: \
                         it is taken for another field, or for the body"
                    ),
                );
            }
        }
        let what = format_args!("{function}: {shown} has a line of {longest} bytes");
        self.length(longest, what, Wrong::LongHeaderLine, Wrong::VeryLongHeaderLine);
    }

    fn length(&self, length: usize, what: Arguments<'_>, long: Wrong, very_long: Wrong) {
        if length > LONGEST_TAKEN {
            self.complain(very_long, format_args!("{what}: mail servers cut it after {LONGEST_TAKEN}"));
        } else if length > LONGEST_LINE {
            self.complain(long, format_args!("{what}: RFC 5322 allows {LONGEST_LINE}"));
        }
    }

    fn address(&self, function: &str, address: &[u8]) {
        if address.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            let shown = shown(address);
            self.complain(
                Wrong::AddressWithLineEnd,
                format_args!("{function}: the address \"{shown}\" has a line end in it"),
            );
        }
    }

    fn body(&self, facts: &Facts, piece: &[u8]) {
        if facts.body.load(Ordering::Relaxed) == BODY_LEFT {
            self.complain(
                Wrong::BodyInPieces,
                format_args!(
                    "smfi_replacebody: another modification stands between two pieces of the new body: Postfix begins \
                     a new body then, or refuses the message"
                ),
            );
        }
        let longest = piece
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line).len())
            .max();
        let longest = longest.unwrap_or_default();
        let what = format_args!("smfi_replacebody: a line has {longest} bytes");
        self.length(longest, what, Wrong::LongBodyLine, Wrong::VeryLongBodyLine);
    }

    /// A reply as it would be sent.
    pub fn sets_reply(&self, reply: &[u8]) {
        for line in reply.split(|byte| *byte == b'\n') {
            let code = line.first();
            let word = line.get(4..).unwrap_or_default();
            let word = word.split(|byte| matches!(byte, b' ' | b'\r')).next().unwrap_or_default();
            let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
            let is_enhanced = word.split(|byte| *byte == b'.').all(is_number)
                && word.iter().filter(|byte| **byte == b'.').count() == 2;
            if is_enhanced && word.first() != code {
                let shown = shown(line);
                self.complain(
                    Wrong::ClassOfCode,
                    format_args!("smfi_setreply: \"{shown}\": the two codes are of different classes"),
                );
            }
            let mut rest = line;
            while let Some(place) = rest.iter().position(|byte| *byte == b'%') {
                if rest.get(place + 1) != Some(&b'%') {
                    let shown = shown(line);
                    self.complain(
                        Wrong::LonePercent,
                        format_args!(
                            "smfi_setreply: \"{shown}\": a % must be written %%: Sendmail says \"Command rejected\" instead"
                        ),
                    );
                    break;
                }
                rest = &rest[place + 2..];
            }
        }
    }

    pub fn asks_for_macros(&self, facts: &Facts) {
        if facts.has_negotiated.load(Ordering::Relaxed) {
            self.complain(
                Wrong::LateMacroList,
                format_args!(
                    "smfi_setsymlist: called after the negotiation: the mail server is not told of it"
                ),
            );
        }
    }

    /// Mail server and filter have agreed on these.
    pub fn agrees(&self, facts: &Facts, agreement: &Agreement, has_lists: bool) {
        facts.steps.store((agreement.told() | agreement.off()).bits(), Ordering::Relaxed);
        facts.has_negotiated.store(true, Ordering::Relaxed);
        if has_lists && !agreement.actions().contains(Actions::SETSYMLIST) {
            self.complain(
                Wrong::MacroLists,
                format_args!(
                    "smfi_setsymlist: called, but SMFIF_SETSYMLIST is not among the flags agreed on"
                ),
            );
        }
    }

    /// The filter chooses, perhaps what is not offered.
    pub fn chooses(&self, offer: &Offer, choice: &Choice, registered: Actions) {
        let (actions, steps) = match choice {
            Choice::Registered => (registered, Steps::empty()),
            Choice::AllOptions => return,
            Choice::Own(actions, steps) => (*actions, *steps),
        };
        // What the library makes up for, and what it sets for callbacks that are missing.
        let known = offer.steps_for_callback() | Steps::NODATA | Steps::NOUNKNOWN;
        let (actions, steps) = (actions.difference(offer.actions), steps.difference(known));
        if !actions.is_empty() || !steps.is_empty() {
            self.complain(
                Wrong::Flags,
                format_args!(
                    "the filter wants actions {:#x} and protocol steps {:#x} that the mail server does not offer",
                    actions.bits(),
                    steps.bits()
                ),
            );
        }
    }

    pub fn returns(&self, facts: &Facts, kind: Kind, status: i32) {
        const DISCARD: i32 = 2;
        const NOREPLY: i32 = 7;
        const SKIP: i32 = 8;
        let steps = Steps::from_bits_retain(facts.steps.load(Ordering::Relaxed));
        let name = kind.name();
        let no_reply = Stage::of(kind).map_or(Steps::empty(), Stage::no_reply);
        match status {
            DISCARD if matches!(kind, Kind::Connect | Kind::Helo) => self.complain(
                Wrong::DiscardAtConnect,
                format_args!("the {name} callback returned SMFIS_DISCARD: there is no message to discard yet"),
            ),
            NOREPLY if !steps.intersects(no_reply) => self.complain(
                Wrong::NoReply,
                format_args!(
                    "the {name} callback returned SMFIS_NOREPLY, which was not agreed on: the mail server waits for a reply"
                ),
            ),
            SKIP if !steps.contains(Steps::SKIP) => self.complain(
                Wrong::Skip,
                format_args!("the {name} callback returned SMFIS_SKIP, which was not agreed on"),
            ),
            _ => {}
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is logged of these modifications.
    fn modified(modifications: &[Modification<'_>]) -> Vec<String> {
        let (check, facts) = (Check::new(c"name"), Facts::default());
        for modification in modifications {
            check.modifies(&facts, modification);
            check.modifies(&facts, modification);
        }
        log::take_lines()
    }

    #[test]
    fn each_kind_is_logged_once_and_what_is_right_never() {
        let long = [b'x'; 999];
        let very_long = [b'x'; 3000];
        let header = |name, value| Modification::AddHeader { name, value };
        for (modification, wanted) in [
            (header(b"X:Y", b"v"), "has a colon in it"),
            (header(b"X\nY", b"v"), "has a line end in it"),
            (header(b"X", b"a\nb"), "begins neither"),
            (header(b"X", b"a\n"), "begins neither"),
            (header(b"X", &long), "has a line of 1001 bytes: RFC 5322 allows 998"),
            (header(b"X", &very_long), "has a line of 3002 bytes: mail servers cut it after 2048"),
            (Modification::AddRecipient(b"<a@b>\r\nX"), "smfi_addrcpt: the address"),
            (Modification::DeleteRecipient(b"\n"), "smfi_delrcpt: the address"),
            (Modification::ChangeSender { address: b"\r", arguments: None }, "smfi_chgfrom: the address"),
            (Modification::ReplaceBody(&long), "a line has 999 bytes"),
        ] {
            let lines = modified(&[modification]);
            assert!(lines.len() == 1 && lines[0].contains(wanted), "{wanted}: {lines:?}");
        }
        let right = [
            header(b"X-Y", b"a\n\tb\r\n c"),
            header(b"X", &long[..990]),
            Modification::AddRecipient(b"<a@b>"),
            Modification::ReplaceBody(b"a\r\n"),
            Modification::Progress,
            Modification::ReplaceBody(b"b\r\n"),
            header(b"Z", b""),
        ];
        assert_eq!(modified(&right), [""; 0]);
        let body = Modification::ReplaceBody(b"b\r\n");
        let lines = modified(&[body, header(b"Z", b""), body, header(b"Z", b""), body]);
        assert!(lines.len() == 1 && lines[0].contains("between two pieces"), "{lines:?}");
    }

    #[test]
    fn replies_have_codes_of_one_class_and_no_lone_percent() {
        let replied = |reply: &[u8]| {
            Check::new(c"name").sets_reply(reply);
            log::take_lines()
        };
        for right in ["550 5.7.1 no", "550 4 you", "450 4.7.1 100%% full", "550 5.7.1", "550 ", "550 2.0"] {
            assert_eq!(replied(right.as_bytes()), [""; 0], "{right}");
        }
        assert!(replied(b"550 4.7.1 no")[0].contains("different classes"));
        assert!(replied(b"550-5.7.1 a\r\n550 4.7.1 no")[0].contains("different classes"));
        for reply in ["550 5.7.1 100% full", "550 5.7.1 100%", "550 5.7.1 %%%"] {
            let lines = replied(reply.as_bytes());
            assert!(lines.len() == 1 && lines[0].contains("must be written %%"), "{lines:?}");
        }
    }
}
