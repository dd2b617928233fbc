//! Tells the conversation to people, line by line, as it goes on. Nothing here panics when nobody listens: every
//! method gives the error back that standard error gave.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Stderr, Write};
use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use milter::mta::{Delivery, Disposition, Exchange, Omission, Outcome, Session, Verdict, flag_list};
use milter::protocol::{Kind, MacroStage, Offer};

use super::options::{Color, Show};

/// A body of more pieces than this gets this many lines.
const BODY_LINES: usize = 10;

/// How long the filter may think before a person is told that it does.
const SUSPENSE: Duration = Duration::from_millis(400);

/// How wide lines are that no terminal limits.
const DEFAULT_WIDTH: usize = 80;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
const CHANGED: Style = AnsiColor::Cyan.on_default();

/// The dialogue on standard error.
pub struct Dialogue {
    show: Show,
    out: AutoStream<Stderr>,
    /// How wide lines may be that can be broken.
    width: usize,
    /// The command that was left out last: one line tells it for all that follow.
    left_out: Option<Kind>,
    /// Pieces of the body that wait for others to be told with them, and how many that will be.
    pieces: Option<Pieces>,
    pieces_a_line: usize,
    live: Live,
}

/// Pieces of the body that had the same answer.
struct Pieces {
    number: usize,
    bytes: usize,
    first: Exchange,
    time: Option<Duration>,
}

/// The line on a terminal that tells what the filter thinks about. It goes away when the filter answers.
struct Live {
    /// Whether there is a terminal that can take a line back.
    possible: bool,
    waiting: Option<(&'static str, Instant)>,
    drawn: bool,
}

impl Dialogue {
    /// Tells as much as `show` says.
    pub fn new(show: Show, color: Color) -> Self {
        let stderr = io::stderr();
        let terminal = stderr.is_terminal();
        let size = terminal.then(|| terminal_size::terminal_size_of(&stderr)).flatten();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let choice = match color {
            Color::Auto => AutoStream::choice(&stderr),
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        Self {
            show,
            out: AutoStream::new(stderr, choice),
            width: size.map_or(DEFAULT_WIDTH, |(width, _)| usize::from(width.0)),
            left_out: None,
            pieces: None,
            pieces_a_line: 1,
            live: Live { possible: terminal && !dumb && show > Show::Nothing, waiting: None, drawn: false },
        }
    }

    /// Whether [`tick`](Self::tick) has anything to do.
    pub fn is_live(&self) -> bool {
        self.live.possible
    }

    /// Something begins that may take long.
    pub fn waits_for(&mut self, what: &'static str) {
        if self.live.possible {
            self.live.waiting = Some((what, Instant::now()));
        }
    }

    /// It is over.
    pub fn waits_no_more(&mut self) -> io::Result<()> {
        self.live.waiting = None;
        self.write("")
    }

    /// Tells what the filter is thinking about, if it takes long; to be called several times a second.
    pub fn tick(&mut self) -> io::Result<()> {
        let Some((what, since)) = self.live.waiting.filter(|(_, since)| since.elapsed() >= SUSPENSE) else {
            return Ok(());
        };
        self.draw(&format!("{what}: waiting for the filter, {:.1} s", since.elapsed().as_secs_f64()))
    }

    /// Tells a terminal how far it is.
    pub fn progress(&mut self, text: &str) -> io::Result<()> {
        if self.live.possible { self.draw(text) } else { Ok(()) }
    }

    fn draw(&mut self, line: &str) -> io::Result<()> {
        self.live.drawn = true;
        let line: String = line.chars().take(self.width.saturating_sub(1)).collect();
        let mut stderr = io::stderr().lock();
        write!(stderr, "{TAKE_BACK}{line}").and_then(|()| stderr.flush())
    }

    /// The two sides of the negotiation.
    pub fn negotiation(&mut self, offer: Offer, session: &Session, time: Option<Duration>) -> io::Result<()> {
        if self.show < Show::Steps {
            return Ok(());
        }
        let agreed = session.agreed();
        let mut text = format!("{BOLD}OPTNEG{BOLD:#}   offer version {}\n", offer.version);
        let mut words = |label: &str, words: &[String]| text.push_str(&wrapped(label, words, self.width));
        words("    actions ", &flag_list(&offer.actions));
        words("    steps ", &flag_list(&offer.steps));
        words(&format!("  -> version {}{}", agreed.version, bracketed(time)), &[]);
        words("    actions ", &flag_list(&session.actions()));
        words("    steps ", &flag_list(&session.steps()));
        for (stage, list) in &agreed.macro_lists {
            let names: Vec<_> = printable(list).split_whitespace().map(str::to_owned).collect();
            words(&format!("    macros at {}: ", stage_name(*stage)), &names);
        }
        for warning in session.warnings() {
            text.push_str(&warning_line("  ", &warning.to_string()));
        }
        self.write(&text)
    }

    /// A message begins, one of several if it has a title, whose body has so many pieces.
    pub fn message(&mut self, title: Option<&str>, pieces: usize) -> io::Result<()> {
        self.pieces_a_line = pieces.div_ceil(BODY_LINES);
        match title {
            Some(title) if self.show >= Show::Result => {
                self.block(&format!("{BOLD}# {}{BOLD:#}\n", printable(title.as_bytes())))
            }
            _ => Ok(()),
        }
    }

    /// One exchange, how many bytes of the body it had, and how long it took.
    pub fn exchange(&mut self, exchange: &Exchange, body: usize, time: Option<Duration>) -> io::Result<()> {
        self.live.waiting = None;
        let left_out = matches!(exchange.outcome, Outcome::NotSent(_)).then_some(exchange.command);
        let told = left_out.is_some() && left_out == self.left_out;
        self.left_out = left_out;
        if self.show < Show::Steps || told {
            return self.write("");
        }
        let gathers = exchange.command == Kind::Body && self.pieces_a_line > 1;
        let plain = exchange.progress == 0
            && exchange.changes.is_empty()
            && exchange.warnings.is_empty()
            && exchange.reply.is_none();
        if !gathers || left_out.is_some() || !plain {
            return self.block(&describe(exchange, self.show >= Show::Macros, time));
        }
        if self.pieces.as_ref().is_some_and(|pieces| pieces.first.outcome != exchange.outcome) {
            self.tell_pieces()?;
        }
        let pieces = self.pieces.get_or_insert_with(|| Pieces::before(exchange));
        pieces.number += 1;
        pieces.bytes += body;
        pieces.time = pieces.time.zip(time).map(|(sum, time)| sum + time);
        if pieces.number >= self.pieces_a_line { self.tell_pieces() } else { self.write("") }
    }

    fn tell_pieces(&mut self) -> io::Result<()> {
        let Some(mut pieces) = self.pieces.take() else { return Ok(()) };
        pieces.first.argument = format!("{} pieces, {} bytes", pieces.number, pieces.bytes).into_bytes();
        self.write(&describe(&pieces.first, self.show >= Show::Macros, pieces.time))
    }

    /// What became of a message, and what was expected of it.
    pub fn delivery(
        &mut self,
        delivery: &Delivery,
        checks: &[(String, Option<String>)],
        time: Option<Duration>,
    ) -> io::Result<()> {
        if self.show < Show::Result {
            return Ok(());
        }
        let mut text = summarize(delivery, time);
        for (expectation, failure) in checks {
            let expectation = printable(expectation.as_bytes());
            text += &match failure {
                None => format!("  {GOOD}as expected{GOOD:#} {expectation}\n"),
                Some(found) => {
                    let found = printable(found.as_bytes());
                    format!("  {BAD}not as expected{BAD:#} {expectation}: {found}\n")
                }
            };
        }
        self.block(&text)
    }

    /// The end of it all.
    pub fn total(&mut self, messages: usize, time: Duration, waited: Duration) -> io::Result<()> {
        if self.show < Show::Result {
            return Ok(());
        }
        let messages = if messages == 1 { "1 message".to_owned() } else { format!("{messages} messages") };
        let (time, waited) = (in_words(time), in_words(waited));
        self.block(&format!("{DIM}= {messages} in {time}, of which the filter took {waited}{DIM:#}\n"))
    }

    /// Something that should be known.
    pub fn warning(&mut self, warning: &str) -> io::Result<()> {
        if self.show < Show::Result {
            return Ok(());
        }
        self.block(&warning_line("", warning))
    }

    /// Why it ends too early, and what may help.
    pub fn error(&mut self, error: &str, hint: Option<&str>) -> io::Result<()> {
        self.live.waiting = None;
        let mut text = format!("{BAD}milter-send:{BAD:#} {}\n", printable(error.as_bytes()));
        if let Some(hint) = hint {
            text += &format!("  {DOUBTFUL}hint:{DOUBTFUL:#} {}\n", printable(hint.as_bytes()));
        }
        self.block(&text)
    }

    /// Writes something that does not belong to the body.
    fn block(&mut self, text: &str) -> io::Result<()> {
        self.tell_pieces()?;
        self.write(text)
    }

    /// Takes the live line back, and writes.
    fn write(&mut self, text: &str) -> io::Result<()> {
        if std::mem::take(&mut self.live.drawn) {
            io::stderr().write_all(TAKE_BACK.as_bytes())?;
        }
        if text.is_empty() {
            Ok(())
        } else {
            self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush())
        }
    }
}

/// Goes back to the start of the line, and empties it.
const TAKE_BACK: &str = "\r\x1b[2K";

impl Pieces {
    /// Starts to count before a piece.
    fn before(first: &Exchange) -> Self {
        Self { number: 0, bytes: 0, first: first.clone(), time: Some(Duration::ZERO) }
    }
}

/// Writes a line to standard error outside of any dialogue.
pub fn say(line: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{line}")
}

fn describe(exchange: &Exchange, with_macros: bool, time: Option<Duration>) -> String {
    let mut text = String::new();
    let mut line = |line: &str| text.push_str(line);
    if with_macros {
        for (name, value) in exchange.macros.iter().flatten() {
            line(&format!("    {DIM}{} = {}{DIM:#}\n", printable(name), printable(value)));
        }
    }
    let (name, argument) = (exchange.command.name(), printable(&exchange.argument));
    match exchange.outcome {
        Outcome::NotSent(_) => line(&format!("{DIM}- {name}{DIM:#}")),
        _ if argument.is_empty() => line(&format!("{BOLD}{name}{BOLD:#}")),
        _ => {
            let gap = " ".repeat(8usize.saturating_sub(name.len()));
            line(&format!("{BOLD}{name}{BOLD:#}{gap} {}", argument.trim_end()));
        }
    }
    let detailed = exchange.progress > 0 || !exchange.changes.is_empty();
    if detailed {
        line("\n");
    }
    if exchange.progress > 0 {
        line(&format!("    asked for more time: {}\n", exchange.progress));
    }
    for change in &exchange.changes {
        line(&format!("  {CHANGED}+{CHANGED:#} {}\n", printable(change.to_string().as_bytes())));
    }
    let arrow = if detailed { "  -> " } else { " -> " };
    match &exchange.outcome {
        Outcome::Answered(verdict) => {
            let style = verdict_style(verdict);
            line(&format!("{arrow}{style}{}{style:#}{}\n", verdict_name(verdict), bracketed(time)));
        }
        Outcome::NotAwaited => line(&format!(" {DIM}(no answer awaited){DIM:#}\n")),
        Outcome::NoneDue => line("\n"),
        Outcome::NotSent(omission) => {
            line(&format!(" {DIM}(not sent: {}){DIM:#}\n", omission_reason(*omission)));
        }
        Outcome::Refused(why) => {
            line(&format!("{arrow}{BAD}{}{BAD:#}{}\n", printable(why.as_bytes()), bracketed(time)));
        }
        Outcome::Failed(failure) => {
            let text = printable(failure.text.as_bytes());
            line(&format!("{arrow}{BAD}{text}{BAD:#}{}\n", bracketed(time)));
        }
    }
    text.push_str(&consequences(exchange));
    text
}

fn warning_line(indent: &str, warning: &str) -> String {
    format!("{indent}{DOUBTFUL}!{DOUBTFUL:#} {}\n", printable(warning.as_bytes()))
}

/// What the SMTP client reads, unless it is what the filter said or stands below the message; and what the MTA minds.
fn consequences(exchange: &Exchange) -> String {
    let mut text = String::new();
    let told = |reply: &[u8]| match &exchange.outcome {
        Outcome::Answered(Verdict::Custom(said)) => said == reply,
        Outcome::Answered(_) | Outcome::NotSent(_) => {
            !matches!(exchange.command, Kind::Connect | Kind::Helo | Kind::Unknown)
        }
        _ => false,
    };
    if let Some(reply) = exchange.reply.as_deref().filter(|reply| !told(reply)) {
        text.push_str(&format!("    the SMTP client reads {}\n", printable(reply)));
    }
    for warning in &exchange.warnings {
        text.push_str(&warning_line("  ", &warning.to_string()));
    }
    text
}

fn summarize(delivery: &Delivery, time: Option<Duration>) -> String {
    let style = match &delivery.disposition {
        Disposition::Accepted if delivery.mail.envelope.quarantine.is_none() => GOOD,
        Disposition::Rejected(_) => BAD,
        _ => DOUBTFUL,
    }
    .bold();
    let became = disposition(delivery);
    let mut text =
        format!("* {style}{became}{style:#} at {}{}\n", delivery.decided_by.name(), bracketed(time));
    let envelope = &delivery.mail.envelope;
    let mut line = |name: &str, value: &str| text += &format!("  {name:<10} {value}\n");
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

/// What became of a message, in a word and the filter's reply.
pub fn disposition(delivery: &Delivery) -> String {
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

fn verdict_style(verdict: &Verdict) -> Style {
    match verdict {
        Verdict::Continue | Verdict::Skip => Style::new(),
        Verdict::Accept => GOOD,
        Verdict::Reject | Verdict::Shutdown => BAD,
        Verdict::Custom(reply) if !reply.starts_with(b"4") => BAD,
        Verdict::TempFail | Verdict::Discard | Verdict::Custom(_) => DOUBTFUL,
    }
}

/// A time behind what took it.
fn bracketed(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| format!(" {DIM}[{}]{DIM:#}", in_words(time)))
}

/// A time with three digits.
pub fn in_words(time: Duration) -> String {
    let (number, unit) = match time.as_secs_f64() {
        seconds if seconds >= 1.0 => (seconds, "s"),
        seconds => (1e3 * seconds, "ms"),
    };
    let decimals = match number {
        number if number < 10.0 => 2,
        number if number < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {unit}")
}

/// Words behind a label, on as many lines as they need.
fn wrapped(label: &str, words: &[String], width: usize) -> String {
    let none = ["none".to_owned()];
    let words = if words.is_empty() && label.ends_with(' ') { &none } else { words };
    let mut text = label.to_owned();
    let mut column = label.len();
    for (number, word) in words.iter().enumerate() {
        if number > 0 && column + 1 + word.len() > width {
            text += &format!("\n{:indent$}", "", indent = label.len());
            column = label.len();
        } else if number > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text + "\n"
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
pub fn printable(bytes: &[u8]) -> Cow<'_, str> {
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
    use anstream::adapter::strip_str;
    use milter::mta::Change;

    fn exchange(command: Kind, argument: &[u8], outcome: Outcome) -> Exchange {
        Exchange { outcome, ..Exchange::new(command, argument.to_vec()) }
    }

    fn plain(exchange: &Exchange, with_macros: bool, time: Option<Duration>) -> String {
        strip_str(&describe(exchange, with_macros, time)).to_string()
    }

    #[test]
    fn an_exchange_is_a_line() {
        let answered = |verdict| Outcome::Answered(verdict);
        for (command, argument, outcome, line) in [
            (Kind::Helo, &b"a"[..], answered(Verdict::Continue), "HELO     a -> continue [1.50 ms]\n"),
            (Kind::Data, b"", answered(Verdict::Custom(b"451 no".to_vec())), "DATA -> 451 no [1.50 ms]\n"),
            (Kind::Body, b"5 bytes", Outcome::NotAwaited, "BODY     5 bytes (no answer awaited)\n"),
            (
                Kind::Body,
                b"5 bytes",
                Outcome::NotSent(Omission::Skipped),
                "- BODY (not sent: the filter has seen enough)\n",
            ),
            (Kind::Quit, b"", Outcome::NoneDue, "QUIT\n"),
        ] {
            let time = Duration::from_micros(1500);
            assert_eq!(plain(&exchange(command, argument, outcome), false, Some(time)), line);
        }
    }

    #[test]
    fn changes_and_macros_have_lines_of_their_own() {
        let mut last = exchange(Kind::EndOfMessage, b"", Outcome::Answered(Verdict::Accept));
        last.progress = 2;
        last.changes = vec![Change::Quarantine { reason: b"why".to_vec() }];
        last.macros = Some(vec![(b"i".to_vec(), b"Q1".to_vec())]);
        assert_eq!(
            plain(&last, true, None),
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
        assert_eq!(plain(&mail, false, None), expected);
        let mut connect = exchange(Kind::Connect, b"host", Outcome::Answered(Verdict::Reject));
        connect.reply = Some(b"554 mx".to_vec());
        let expected = "CONNECT  host -> reject\n    the SMTP client reads 554 mx\n";
        assert_eq!(plain(&connect, false, None), expected);
        let same = exchange(Kind::Mail, b"<a@b>", Outcome::Answered(Verdict::Custom(b"550 no".to_vec())));
        let same = Exchange { reply: Some(b"550 no".to_vec()), ..same };
        assert_eq!(plain(&same, false, None), "MAIL     <a@b> -> 550 no\n");
    }

    #[test]
    fn words_are_wrapped() {
        let words = ["one", "two", "three"].map(str::to_owned);
        assert_eq!(wrapped("  a ", &words, 80), "  a one two three\n");
        assert_eq!(wrapped("  a ", &words, 17), "  a one two three\n");
        assert_eq!(wrapped("  a ", &words, 16), "  a one two\n    three\n");
        assert_eq!(wrapped("  a ", &words, 1), "  a one\n    two\n    three\n");
        assert_eq!(wrapped("  a ", &[], 80), "  a none\n");
        assert_eq!(wrapped("  -> version 6", &[], 80), "  -> version 6\n");
    }

    #[test]
    fn times_have_three_digits() {
        for (microseconds, text) in [
            (40, "0.04 ms"),
            (1234, "1.23 ms"),
            (56_789, "56.8 ms"),
            (999_000, "999 ms"),
            (61_234_567, "61.2 s"),
        ] {
            assert_eq!(in_words(Duration::from_micros(microseconds)), text);
        }
    }

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        assert_eq!(printable(b"caf\xc3\xa9"), "café");
        assert_eq!(printable(b"caf\xe9 \x1b[1m\x00"), "caf\\xe9 \\u{1b}[1m\\u{0}");
        assert_eq!(printable(b"550-a\r\n550 b"), "550-a\n         550 b");
        assert_eq!(printable(b"a\rb"), "a\\rb");
    }
}
