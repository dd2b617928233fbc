//! A command-line MTA: plays SMTP sessions to a mail filter and shows what it answers and changes. Reading the
//! command line, telling people and writing JSON have files of their own; the protocol is `milter::mta`'s.

mod dialogue;
mod options;
mod report;

use std::cell::RefCell;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use milter::mta::{
    Client, Delivery, Disposition, Envelope, Error, Exchange, Failure, HOST_NAME, Header, Link, MacroValues,
    Mailbox, Message, Outcome, Player, Session, Submission,
};

use dialogue::Dialogue;
use options::Options;
use report::Report;

/// How the program ends. Documented in `--help` and the manual page; scripts depend on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Accepted = 0,
    Rejected = 1,
    Usage = 2,
    TempFailed = 3,
    Discarded = 4,
    Quarantined = 5,
    ProtocolError = 6,
    InputOutput = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        match error {
            Error::Protocol { .. } => Self::ProtocolError,
            Error::Connect { .. } | Error::Io { .. } | Error::Timeout { .. } => Self::InputOutput,
        }
    }
}

impl From<&Delivery> for Exit {
    fn from(delivery: &Delivery) -> Self {
        match delivery.disposition {
            Disposition::Accepted if delivery.mail.envelope.quarantine.is_some() => Self::Quarantined,
            // Giving up was asked for.
            Disposition::Accepted | Disposition::GivenUp => Self::Accepted,
            Disposition::Rejected(_) => Self::Rejected,
            Disposition::TempFailed(_) => Self::TempFailed,
            Disposition::Discarded => Self::Discarded,
        }
    }
}

fn main() -> ExitCode {
    let options = Options::read();
    let messages = match read_messages(&options) {
        Ok(messages) => messages,
        Err(error) => {
            eprintln!("milter-send: {error}");
            return Exit::Usage.into();
        }
    };
    let output = RefCell::new(Output::new(&options));
    let played = play(&options, &messages, &output);
    let mut output = output.into_inner();
    let exit = match &played {
        Ok(()) => output.failed.unwrap_or(output.exit),
        Err(error) => {
            eprintln!("milter-send: {error}");
            output.report.error(error.to_string());
            Exit::from(error)
        }
    };
    match output.finish() {
        Ok(()) => exit.into(),
        Err(error) => {
            eprintln!("milter-send: standard output: {error}");
            Exit::InputOutput.into()
        }
    }
}

/// Reads all messages before the filter hears of the first: a missing file is no reason to bother it.
fn read_messages(options: &Options) -> Result<Vec<Message>, String> {
    let stdin = [Path::new("-").to_owned()];
    let files = if options.messages.is_empty() { &stdin[..] } else { &options.messages };
    files
        .iter()
        .map(|file| {
            let mut bytes = Vec::new();
            let read = match file.to_str() {
                Some("-") => io::stdin().lock().read_to_end(&mut bytes).map(drop),
                _ => fs::read(file).map(|read| bytes = read),
            };
            read.map_err(|error| format!("{}: {error}", file.display())).map(|()| Message::parse(&bytes))
        })
        .collect()
}

/// The whole conversation: one session, unless each message has one of its own.
fn play(options: &Options, messages: &[Message], output: &RefCell<Output>) -> Result<(), Error> {
    let mut all = (0..options.repeat).flat_map(|_| messages).enumerate();
    if !options.non_smtp {
        return play_session(options, &mut all, output);
    }
    all.try_for_each(|message| play_session(options, &mut std::iter::once(message), output))
}

fn play_session(
    options: &Options,
    messages: &mut dyn Iterator<Item = (usize, &Message)>,
    output: &RefCell<Output>,
) -> Result<(), Error> {
    let like = options.like();
    let offer = options.offer();
    let client = Client {
        name: options.client_name().into_bytes(),
        address: options.client(),
        helo: options.helo().as_bytes().to_vec(),
    };
    let unknown: Vec<_> = options.unknown.iter().map(|line| line.clone().into_bytes()).collect();
    let values = MacroValues::new(options.macros.clone());
    let policy = options.policy();
    let session = match reach(options, &values) {
        Ok(session) => {
            output.borrow_mut().negotiation(offer, &session);
            session.with_policy(policy)?
        }
        Err(error) if policy.default_action.is_some() => {
            output.borrow_mut().failure(&Failure::from(&error));
            Session::without_filter(like, offer, policy)
        }
        Err(error) => return Err(error),
    };

    let mut observer = |exchange: &Exchange| output.borrow_mut().exchange(exchange);
    let mut player = Player::new(session, like, &client, values, &mut observer);
    if options.non_smtp {
        player.play_local_mail();
    }
    let refused = options.refused.iter().map(|refused| (refused.recipient.clone(), refused.reply.clone()));
    player.refuse_recipients(refused.collect());
    player.greet(&unknown)?;
    for (at, (number, message)) in messages.enumerate() {
        if at > 0 && options.quit_nc {
            player.change_clients(&unknown)?;
        }
        let submission = submission(options, &client, number, message);
        let delivery = player.deliver(&submission)?;
        output.borrow_mut().delivery(&delivery);
    }
    player.leave()
}

/// Connects to the filter, and negotiates with it.
fn reach(options: &Options, values: &MacroValues) -> Result<Session, Error> {
    let limits = options.limits();
    let stream = options
        .socket
        .connect(limits.connect)
        .map_err(|source| Error::Connect { address: options.socket.to_string(), source })?;
    Session::negotiate(Link::with_limits(stream, limits), options.like(), options.offer(), values)
}

fn submission<'a>(options: &Options, client: &Client, number: usize, message: &'a Message) -> Submission<'a> {
    let queue_id = format!("4MSEND{number:04}");
    let recipients: Vec<_> = options.to.iter().map(|to| Mailbox::parse(to.as_bytes())).collect();
    Submission {
        envelope: Envelope { sender: Mailbox::parse(options.from.as_bytes()), recipients, quarantine: None },
        message,
        received: (!options.no_received).then(|| received(client, &queue_id, message)),
        queue_id,
        give_up_after: options.give_up_after(),
    }
}

/// The field that the MTA puts on top of a message.
fn received(client: &Client, queue_id: &str, message: &Message) -> Header {
    let fold = [message.line_end.as_bytes(), b"\t"].concat();
    let now = httpdate::fmt_http_date(SystemTime::now());
    let value = [
        &b" from "[..],
        &client.helo,
        b" (",
        &client.name_and_address(),
        b")",
        &fold,
        b"by ",
        HOST_NAME.as_bytes(),
        b" (milter-send) with ESMTP id ",
        queue_id.as_bytes(),
        b";",
        &fold,
        now.as_bytes(),
    ];
    Header::new(b"Received", &value.concat())
}

/// Where everything goes that there is to tell.
struct Output {
    dialogue: Dialogue,
    report: Report,
    json: bool,
    with_message: bool,
    /// What goes to standard output at the end.
    messages: Vec<u8>,
    exit: Exit,
    /// How the filter failed first, if the session went on.
    failed: Option<Exit>,
}

impl Output {
    fn new(options: &Options) -> Self {
        Self {
            dialogue: Dialogue::new(options.show),
            report: Report::new(options.socket.to_string()),
            json: options.json,
            with_message: !options.no_message,
            messages: Vec::new(),
            exit: Exit::Accepted,
            failed: None,
        }
    }

    fn negotiation(&mut self, offer: milter::protocol::Offer, session: &Session) {
        self.dialogue.negotiation(offer, session);
        self.report.negotiation(offer, session);
    }

    /// The filter failed, and the session goes on without it.
    fn failure(&mut self, failure: &Failure) {
        eprintln!("milter-send: {}", failure.text);
        self.report.error(failure.text.clone());
        let exit = if failure.broke_protocol { Exit::ProtocolError } else { Exit::InputOutput };
        self.failed.get_or_insert(exit);
    }

    fn exchange(&mut self, exchange: &Exchange) {
        self.dialogue.exchange(exchange);
        if let Outcome::Failed(failure) = &exchange.outcome {
            self.failure(failure);
        }
        if self.json {
            self.report.exchange(exchange);
        }
    }

    fn delivery(&mut self, delivery: &Delivery) {
        self.dialogue.delivery(delivery);
        if self.exit == Exit::Accepted {
            self.exit = Exit::from(delivery);
        }
        let accepted = delivery.disposition == Disposition::Accepted;
        if self.json {
            self.report.delivery(delivery, self.with_message && accepted);
        } else if self.with_message && accepted {
            self.messages.extend(delivery.mail.message().to_bytes());
        }
    }

    fn finish(self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut stdout, &self.report)?;
            stdout.write_all(b"\n")?;
        } else {
            stdout.write_all(&self.messages)?;
        }
        stdout.flush()
    }
}
