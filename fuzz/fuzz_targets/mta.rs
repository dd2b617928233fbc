//! milter-send's side: a filter that answers whatever it likes. Whatever it is, the session ends with a result or
//! an error, and what it wanted changed can be carried out.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use milter::mta::{
    Client, ClientAddress, Envelope, Exchange, Flavor, Limits, Link, MacroValues, Mailbox, Message, Player,
    Policy, Session, Stream, Submission, offer,
};
use milter::protocol::reply::{Negotiated, encode_custom};
use milter::protocol::{Kind, MacroStage, Modification, Reply, Stage, Steps, frame};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[derive(Debug, Arbitrary)]
struct Input {
    like: u8,
    version: u8,
    local: bool,
    policy: Option<bool>,
    give_up_after: u8,
    terms: Terms,
    answers: Vec<Answer>,
    message: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
struct Terms {
    /// The answer to the offer as bytes, or its parts.
    raw: Option<Vec<u8>>,
    version: u8,
    actions: u16,
    steps: u32,
    lists: Vec<(u8, Vec<u8>)>,
}

#[derive(Debug, Arbitrary)]
struct Answer {
    modifications: Vec<Wish>,
    reply: u8,
    custom: Option<Vec<u8>>,
    /// Instead of all that: any bytes, and then the connection ends.
    raw: Option<Vec<u8>>,
}

#[derive(Debug, Arbitrary)]
enum Wish {
    AddHeader(Vec<u8>, Vec<u8>),
    InsertHeader(u32, Vec<u8>, Vec<u8>),
    ChangeHeader(u8, Vec<u8>, Vec<u8>),
    ChangeSender(Vec<u8>, Option<Vec<u8>>),
    AddRecipient(Vec<u8>, Option<Vec<u8>>),
    DeleteRecipient(Vec<u8>),
    ReplaceBody(Vec<u8>),
    Quarantine(Vec<u8>),
    Progress,
    Any(u8, Vec<u8>),
}

impl Wish {
    fn encode(&self, out: &mut Vec<u8>) {
        let modification = match self {
            Self::AddHeader(name, value) => Modification::AddHeader { name, value },
            Self::InsertHeader(index, name, value) => {
                Modification::InsertHeader { index: *index, name, value }
            }
            Self::ChangeHeader(index, name, value) => {
                Modification::ChangeHeader { index: u32::from(*index), name, value }
            }
            Self::ChangeSender(address, arguments) => {
                Modification::ChangeSender { address, arguments: arguments.as_deref() }
            }
            Self::AddRecipient(address, arguments) => {
                Modification::AddRecipientWith { address, arguments: arguments.as_deref() }
            }
            Self::DeleteRecipient(address) => Modification::DeleteRecipient(address),
            Self::ReplaceBody(piece) => Modification::ReplaceBody(piece),
            Self::Quarantine(reason) => Modification::Quarantine(reason),
            Self::Progress => Modification::Progress,
            Self::Any(kind, payload) => return frame::append(out, *kind, &[payload]),
        };
        modification.encode(out, usize::MAX).unwrap();
    }
}

impl Answer {
    /// The bytes, and whether the connection ends behind them.
    fn encode(&self, during: Kind) -> (Vec<u8>, bool) {
        if let Some(raw) = &self.raw {
            return (raw.clone(), true);
        }
        let mut out = Vec::new();
        if during == Kind::EndOfMessage || self.reply % 16 == 15 {
            self.modifications.iter().for_each(|wish| wish.encode(&mut out));
        }
        match (&self.custom, self.reply % 16) {
            (Some(text), _) => encode_custom(text, &mut out),
            (None, 0) => Reply::Reject.encode(&mut out),
            (None, 1) => Reply::TempFail.encode(&mut out),
            (None, 2) => Reply::Discard.encode(&mut out),
            (None, 3) => Reply::Accept.encode(&mut out),
            (None, 4 | 5) => Reply::Skip.encode(&mut out),
            _ => Reply::Continue.encode(&mut out),
        }
        (out, false)
    }
}

fn terms(terms: &Terms) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(raw) = &terms.raw {
        frame::append(&mut out, b'O', &[raw]);
        return out;
    }
    let stage = |number: u8| MacroStage::ALL[usize::from(number) % MacroStage::COUNT];
    let negotiated = Negotiated {
        version: 2 + u32::from(terms.version % 5),
        actions: u32::from(terms.actions),
        steps: terms.steps,
        macro_lists: terms
            .lists
            .iter()
            .take(9)
            .map(|(number, list)| (stage(*number), list.clone()))
            .collect(),
    };
    negotiated.encode(&mut out, usize::MAX).unwrap();
    out
}

fn read_command(stream: &mut UnixStream) -> Option<Kind> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes).ok()?;
    Some(Kind::try_from(bytes[0]).expect("an MTA sends commands"))
}

/// The filter, until its script or the session ends.
fn answer(mut stream: UnixStream, input: &Input) {
    let steps = input.terms.raw.as_ref().map_or(input.terms.steps, |raw| match raw.get(8..12) {
        Some(bits) => u32::from_be_bytes(bits.try_into().unwrap()),
        None => 0,
    });
    let steps = Steps::from_bits_retain(steps);
    let mut answers = input.answers.iter();
    while let Some(kind) = read_command(&mut stream) {
        let (bytes, ends) = match kind {
            Kind::Negotiate => (terms(&input.terms), false),
            Kind::Macro | Kind::Abort | Kind::Quit | Kind::QuitNewConnection => continue,
            _ if Stage::of(kind).is_some_and(|stage| steps.intersects(stage.no_reply())) => continue,
            _ => match answers.next() {
                Some(answer) => answer.encode(kind),
                None => return,
            },
        };
        if stream.write_all(&bytes).is_err() || ends {
            return;
        }
    }
}

fn play(stream: UnixStream, input: &Input, like: Flavor) -> Result<(), milter::mta::Error> {
    let values = MacroValues::new(Vec::new());
    // Nobody waits for anything: the filter answers at once or leaves.
    let link = Link::with_limits(Stream::Unix(stream), Limits::all(Duration::from_secs(60)));
    let mut session = Session::negotiate(link, like, offer(2 + u32::from(input.version % 5)), &values)?;
    if let Some(strict) = input.policy {
        session = session.with_policy(Policy { default_action: Some(like.default_action()), strict })?;
    }
    let client = Client {
        name: b"client.example.com".to_vec(),
        address: ClientAddress::Inet([192, 0, 2, 1].into(), 1025),
        helo: b"helo.example.com".to_vec(),
    };
    let envelope = Envelope {
        sender: Mailbox::parse(b"<s@example.com> SIZE=5"),
        recipients: vec![Mailbox::parse(b"<r1@example.org>"), Mailbox::parse(b"<r2@example.org>")],
        quarantine: None,
    };
    let message = Message::parse(&input.message);
    let mut observer = |exchange: &Exchange| {
        let _ = exchange.verdict();
    };
    let mut player = Player::new(session, like, &client, values, &mut observer);
    if input.local {
        player.play_local_mail();
    }
    player.greet(&[b"NONSENSE".to_vec()])?;
    for _ in 0..2 {
        let submission = Submission {
            envelope: envelope.clone(),
            message: &message,
            received: None,
            queue_id: "QUEUE".to_owned(),
            give_up_after: Kind::try_from(input.give_up_after).ok(),
        };
        let delivery = player.deliver(&submission)?;
        for change in &delivery.changes {
            assert!(!change.to_string().is_empty());
        }
        let _ = delivery.mail.message().to_bytes();
        if player.change_clients(&[])? {
            continue;
        }
    }
    player.leave()
}

fuzz_target!(|input: Input| {
    let like = [Flavor::Postfix37, Flavor::Postfix312, Flavor::Sendmail][usize::from(input.like) % 3];
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let filter = scope.spawn(|| answer(theirs, &input));
        if let Err(error) = play(ours, &input, like) {
            assert!(!error.to_string().is_empty());
        }
        // The scope alone does not wait until the thread has given back its memory, and the next look for leaks would find it.
        filter.join().unwrap();
    });
});
