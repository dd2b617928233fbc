//! A command-line MTA: plays SMTP sessions to a mail filter and shows what it answers and changes. The protocol is
//! `milter::mta`'s.
//!
//! | module | does |
//! |---|---|
//! | `options`, `values` | the command line, and reading single values |
//! | `input` | messages and mailboxes |
//! | `output` | who is told what, and when; what happens when nobody listens |
//! | `dialogue` | tells people |
//! | `report`, `test_report` | tell programs: JSON, TAP, JUnit |
//! | `expect` | what must become of a message |
//! | `load` | many connections at once |
//! | `replay` | the sessions of a trace, once more |
//! | `hints`, `wishes` | what somebody may have overlooked |

mod dialogue;
mod expect;
mod hints;
mod input;
mod load;
// What clap prints as help: square brackets there are no links.
#[allow(rustdoc::broken_intra_doc_links)]
mod options;
mod output;
mod replay;
mod report;
mod test_report;
mod values;
mod wishes;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use milter::mta::{
    Client, Delivery, Disposition, Envelope, Error, Failure, HOST_NAME, Header, Link, MacroValues, Mailbox,
    Message, Player, Session, Submission,
};

use input::{Input, Inputs};
use load::Load;
use options::Options;
use output::{Output, Shared};

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
    Unexpected = 8,
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
    let options = match Options::read() {
        Ok(options) => options,
        Err(shell) => return output::print(&Options::completions(shell)).into(),
    };
    if let Some(trace) = &options.replay {
        return replay::run(&options, trace).into();
    }
    let output = Shared::new(Output::new(&options));
    match Inputs::read(&options) {
        Ok(inputs) => {
            output.tell(|output| output.inputs(&inputs, options.repeat as usize));
            if let Some(demand) = options.load() {
                let load = Arc::new(Load::new(demand));
                output.with(|output| output.load_begins(Arc::clone(&load)));
                load::run(&load, &options, &inputs, &output);
                output.tell(Output::load_ends);
            } else if let Err(error) = play(&options, &inputs, &output) {
                output.tell(|output| output.filter_fails(&error, &options));
            }
        }
        Err(error) => output.tell(|output| output.fails(Exit::Usage, error, None)),
    }
    output
        .with(|output| {
            let exit = output.exit();
            output.finish_with(exit)
        })
        .into()
}

/// The whole conversation: one session, unless each message has one of its own.
fn play(options: &Options, inputs: &Inputs, output: &Shared) -> Result<(), Error> {
    let total = inputs.messages.len() * options.repeat as usize;
    let mut all = (0..options.repeat).flat_map(|_| &inputs.messages).enumerate();
    if options.non_smtp {
        all.try_for_each(|message| play_session(options, &mut std::iter::once(message), total, output))?;
    } else {
        play_session(options, &mut all, total, output)?;
    }
    output.tell(|output| output.ends(options.like()));
    Ok(())
}

/// One session; `total` is how many messages there are in all.
fn play_session(
    options: &Options,
    messages: &mut dyn Iterator<Item = (usize, &Input)>,
    total: usize,
    output: &Shared,
) -> Result<(), Error> {
    let like = options.like();
    let offer = options.offer();
    let client = options.smtp_client();
    let values = MacroValues::new(options.macros.clone());
    let policy = options.policy();
    output.with(|output| output.waits_for("OPTNEG"));
    let session = match reach(options, &values) {
        Ok(session) => {
            output.tell(|output| output.negotiation(offer, &session));
            session.with_policy(policy)?
        }
        Err(error) if policy.default_action.is_some() => {
            output.tell(|output| output.failure(&Failure::from(&error)));
            Session::without_filter(like, offer, policy)
        }
        Err(error) => return Err(error),
    };

    let mut observer = output.clone();
    let mut player = Player::new(session, like, &client, values, &mut observer);
    greet(&mut player, options)?;
    for (at, (number, input)) in messages.enumerate() {
        if at > 0 && options.quit_nc {
            player.change_clients(&options.unknown())?;
        }
        let title = (total > 1).then(|| format!("message {} of {total}: {}", number + 1, input.title()));
        output.tell(|output| output.begins_message(input, title.as_deref()));
        let submission = submission(options, &client, number, &input.message);
        let delivery = player.deliver(&submission)?;
        output.tell(|output| output.delivery(input, &delivery));
    }
    player.leave()
}

/// The start of a session, with all that shall be played in it.
fn greet(player: &mut Player<'_>, options: &Options) -> Result<(), Error> {
    if options.non_smtp {
        player.play_local_mail();
    }
    let refused = options.refused.iter().map(|refused| (refused.recipient.clone(), refused.reply.clone()));
    player.refuse_recipients(refused.collect());
    player.greet(&options.unknown())
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
