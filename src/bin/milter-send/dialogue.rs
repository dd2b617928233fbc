//! Tells the conversation to people, line by line, as it goes on.

use std::borrow::Cow;
use std::fmt::Write as _;

use milter::mta::{Delivery, Disposition, Exchange, Omission, Outcome, Session, Verdict, flag_names};
use milter::protocol::{Kind, MacroStage, Offer};

use super::options::Show;

/// The dialogue on standard error.
pub struct Dialogue {
    show: Show,
    /// The command that was left out last: one line tells it for all that follow.
    left_out: Option<Kind>,
}

impl Dialogue {
    /// Tells as much as `show` says.
    pub fn new(show: Show) -> Self {
        Self { show, left_out: None }
    }

    /// The two sides of the negotiation.
    pub fn negotiation(&self, offer: Offer, session: &Session) {
        if self.show < Show::Steps {
            return;
        }
        let line = |version, actions: &str, steps: &str| {
            format!("version {version}\n    actions {actions}\n    steps {steps}")
        };
        let offered = line(offer.version, &flag_names(&offer.actions), &flag_names(&offer.steps));
        eprintln!("OPTNEG   offer {offered}");
        let agreed = session.agreed();
        let answer = line(agreed.version, &flag_names(&session.actions()), &flag_names(&session.steps()));
        eprintln!("  -> {answer}");
        for (stage, list) in &agreed.macro_lists {
            eprintln!("    macros at {}: {}", stage_name(*stage), printable(list));
        }
        for warning in session.warnings() {
            eprintln!("  ! {}", printable(warning.to_string().as_bytes()));
        }
    }

    /// One exchange.
    pub fn exchange(&mut self, exchange: &Exchange) {
        let left_out = matches!(exchange.outcome, Outcome::NotSent(_)).then_some(exchange.command);
        let told = left_out.is_some() && left_out == self.left_out;
        self.left_out = left_out;
        if self.show >= Show::Steps && !told {
            eprint!("{}", describe(exchange, self.show >= Show::Macros));
        }
    }

    /// What became of a message.
    pub fn delivery(&self, delivery: &Delivery) {
        if self.show >= Show::Result {
            eprint!("{}", summarize(delivery));
        }
    }
}

fn describe(exchange: &Exchange, with_macros: bool) -> String {
    let mut text = String::new();
    let mut line = |line: &str| text.push_str(line);
    if with_macros {
        for (name, value) in exchange.macros.iter().flatten() {
            line(&format!("    {} = {}\n", printable(name), printable(value)));
        }
    }
    let head = match exchange.outcome {
        Outcome::NotSent(_) => format!("- {}", exchange.command.name()),
        _ => format!("{:<8} {}", exchange.command.name(), printable(&exchange.argument)),
    };
    line(head.trim_end());
    let detailed = exchange.progress > 0 || !exchange.changes.is_empty();
    if detailed {
        line("\n");
    }
    if exchange.progress > 0 {
        line(&format!("    asked for more time: {}\n", exchange.progress));
    }
    for change in &exchange.changes {
        line(&format!("  + {}\n", printable(change.to_string().as_bytes())));
    }
    let arrow = if detailed { "  -> " } else { " -> " };
    match &exchange.outcome {
        Outcome::Answered(verdict) => line(&format!("{arrow}{}\n", verdict_name(verdict))),
        Outcome::NotAwaited => line(" (no answer awaited)\n"),
        Outcome::NoneDue => line("\n"),
        Outcome::NotSent(omission) => line(&format!(" (not sent: {})\n", omission_reason(*omission))),
        Outcome::Refused(why) => line(&format!("{arrow}{}\n", printable(why.as_bytes()))),
        Outcome::Failed(failure) => line(&format!("{arrow}{}\n", printable(failure.text.as_bytes()))),
    }
    text.push_str(&consequences(exchange));
    text
}

/// What the SMTP client reads, unless it is what the filter said, and what the MTA minds.
fn consequences(exchange: &Exchange) -> String {
    let mut text = String::new();
    let said = match &exchange.outcome {
        Outcome::Answered(Verdict::Custom(said)) => Some(said),
        Outcome::Answered(_) | Outcome::NotSent(_) => None,
        _ => exchange.reply.as_ref(),
    };
    if let Some(reply) = exchange.reply.as_ref().filter(|reply| said.is_some_and(|said| said != *reply)) {
        text.push_str(&format!("    the SMTP client reads {}\n", printable(reply)));
    }
    for warning in &exchange.warnings {
        text.push_str(&format!("  ! {}\n", printable(warning.to_string().as_bytes())));
    }
    text
}

fn summarize(delivery: &Delivery) -> String {
    let mut text = format!("* {} at {}\n", disposition(delivery), delivery.decided_by.name());
    let envelope = &delivery.mail.envelope;
    let mut line = |name: &str, value: &str| {
        writeln!(text, "  {name:<10} {value}").expect("a String takes everything");
    };
    if delivery.disposition == Disposition::Accepted {
        line("sender", &printable(envelope.sender.to_string().as_bytes()));
        for recipient in &envelope.recipients {
            line("recipient", &printable(recipient.to_string().as_bytes()));
        }
        if let Some(reason) = &envelope.quarantine {
            line("quarantine", &printable(reason));
        }
    }
    for (recipient, reply) in &delivery.refused {
        let recipient = printable(recipient.to_string().as_bytes()).into_owned();
        line("refused", &format!("{recipient}: {}", printable(reply)));
    }
    text
}

fn disposition(delivery: &Delivery) -> String {
    let with = |name: &str, reply: &[u8]| format!("{name} ({})", printable(reply));
    match &delivery.disposition {
        Disposition::Accepted if delivery.mail.envelope.quarantine.is_some() => "quarantined".to_owned(),
        Disposition::Accepted => "accepted".to_owned(),
        Disposition::Rejected(reply) => with("rejected", reply),
        Disposition::TempFailed(reply) => with("tempfailed", reply),
        Disposition::Discarded => "discarded".to_owned(),
        Disposition::GivenUp => "given up".to_owned(),
    }
}

/// A verdict in a word, or the filter's own reply.
pub fn verdict_name(verdict: &Verdict) -> Cow<'_, str> {
    Cow::Borrowed(match verdict {
        Verdict::Continue => "continue",
        Verdict::Accept => "accept",
        Verdict::Reject => "reject",
        Verdict::TempFail => "tempfail",
        Verdict::Discard => "discard",
        Verdict::Skip => "skip",
        Verdict::Custom(reply) => return printable(reply),
        Verdict::Shutdown => "shutdown",
    })
}

/// Why a command was not sent.
pub fn omission_reason(omission: Omission) -> &'static str {
    match omission {
        Omission::SwitchedOff => "the filter does not want it",
        Omission::Skipped => "the filter has seen enough",
        Omission::Version => "the protocol version lacks it",
        Omission::Lost => "the filter is given up",
        Omission::Held => "the filter has answered \"quarantine\"",
        Omission::Refused => "refused by the server, and the filter does not ask for such",
    }
}

/// The stage's name on the command line.
pub fn stage_name(stage: MacroStage) -> &'static str {
    match stage {
        MacroStage::Connect => "connect",
        MacroStage::Helo => "helo",
        MacroStage::Mail => "mail",
        MacroStage::Rcpt => "rcpt",
        MacroStage::Data => "data",
        MacroStage::EndOfHeader => "eoh",
        MacroStage::EndOfMessage => "eom",
    }
}

/// Text as it is safe on a terminal: lines behind the first are indented, control characters and what is no
/// UTF-8 are escaped.
fn printable(bytes: &[u8]) -> Cow<'_, str> {
    let escape = |text: &str| {
        let mut out = String::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\r' if characters.peek() == Some(&'\n') => {}
                '\n' => out.push_str("\n         "),
                '\t' => out.push('\t'),
                character if character.is_control() => out.extend(character.escape_default()),
                character => out.push(character),
            }
        }
        out
    };
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => Cow::Borrowed(text),
        _ => {
            let chunks = bytes.utf8_chunks().map(|chunk| {
                let invalid = chunk.invalid().escape_ascii().to_string();
                escape(chunk.valid()) + &invalid
            });
            Cow::Owned(chunks.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use milter::mta::Change;

    fn exchange(command: Kind, argument: &[u8], outcome: Outcome) -> Exchange {
        Exchange { outcome, ..Exchange::new(command, argument.to_vec()) }
    }

    #[test]
    fn an_exchange_is_a_line() {
        let answered = |verdict| Outcome::Answered(verdict);
        for (command, argument, outcome, line) in [
            (Kind::Helo, &b"a"[..], answered(Verdict::Continue), "HELO     a -> continue\n"),
            (Kind::Data, b"", answered(Verdict::Custom(b"451 no".to_vec())), "DATA -> 451 no\n"),
            (Kind::Body, b"5 bytes", Outcome::NotAwaited, "BODY     5 bytes (no answer awaited)\n"),
            (
                Kind::Body,
                b"5 bytes",
                Outcome::NotSent(Omission::Skipped),
                "- BODY (not sent: the filter has seen enough)\n",
            ),
            (Kind::Quit, b"", Outcome::NoneDue, "QUIT\n"),
        ] {
            assert_eq!(describe(&exchange(command, argument, outcome), false), line);
        }
    }

    #[test]
    fn changes_and_macros_have_lines_of_their_own() {
        let mut last = exchange(Kind::EndOfMessage, b"", Outcome::Answered(Verdict::Accept));
        last.progress = 2;
        last.changes = vec![Change::Quarantine { reason: b"why".to_vec() }];
        last.macros = Some(vec![(b"i".to_vec(), b"Q1".to_vec())]);
        assert_eq!(
            describe(&last, true),
            "    i = Q1\nBODYEOB\n    asked for more time: 2\n  + quarantine: why\n  -> accept\n"
        );
    }

    #[test]
    fn what_the_client_reads_and_what_the_mta_minds() {
        let mut mail =
            exchange(Kind::Mail, b"<a@b>", Outcome::Answered(Verdict::Custom(b"550 4.7.1 no".to_vec())));
        mail.reply = Some(b"451 4.3.5 later".to_vec());
        mail.warnings = vec![milter::mta::Warning { statement: "D29", text: "two classes".to_owned() }];
        let expected = "MAIL     <a@b> -> 550 4.7.1 no\n    the SMTP client reads 451 4.3.5 later\n  ! two classes (D29)\n";
        assert_eq!(describe(&mail, false), expected);
        let same = exchange(Kind::Mail, b"<a@b>", Outcome::Answered(Verdict::Custom(b"550 no".to_vec())));
        let same = Exchange { reply: Some(b"550 no".to_vec()), ..same };
        assert_eq!(describe(&same, false), "MAIL     <a@b> -> 550 no\n");
    }

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        assert_eq!(printable(b"caf\xc3\xa9"), "café");
        assert_eq!(printable(b"caf\xe9 \x1b[1m\x00"), "caf\\xe9 \\u{1b}[1m\\u{0}");
        assert_eq!(printable(b"550-a\r\n550 b"), "550-a\n         550 b");
        assert_eq!(printable(b"a\rb"), "a\\rb");
    }
}
