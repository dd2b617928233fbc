//! `milter::mta` claims to behave as Postfix and Sendmail do. Here the real ones and it meet the same filter, with the
//! same messages: every frame that the filter gets, every refusal that the SMTP client reads, and every message that
//! comes out, must be equal. Left out is what the test cannot give both: ports, times, queue ids, and how the server
//! would route the mail. Filters that answer what they should not are in `answers`.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use milter::mta::{
    Client, ClientAddress, DefaultAction, Disposition, Envelope, Exchange, FilterAddress, Flavor, Header,
    Link, MacroValues, Mailbox, Message, Observer, Player, Policy, Session, Submission, offer,
};
use milter::protocol::reply::{Negotiated, encode_custom};
use milter::protocol::{MacroStage, Modification, Reply, Stage, Steps, kind};

use crate::mail_servers::filter::Endpoint;
use crate::mail_servers::messages;
use crate::mail_servers::server::{Conduct, Kind, MailServer, REFUSED};
use crate::mail_servers::smtp_client;
use crate::mail_servers::smtp_sink::Sink;
use crate::support::{PATIENCE, temp_dir};

const RECIPIENTS: [&str; 3] = ["bob@example.net", "carol@example.net", "dave@example.net"];

/// Macros whose values depend on nothing but the session itself.
const COMPARABLE: [&[u8]; 12] = [
    b"j",
    b"_",
    b"{daemon_name}",
    b"{client_addr}",
    b"{client_name}",
    b"{client_ptr}",
    b"{client_resolve}",
    b"{client_connections}",
    b"{nrcpts}",
    b"{mail_addr}",
    b"{rcpt_addr}",
    b"{msg_id}",
];

/// How the filter behaves in one session.
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub steps: Steps,
    pub macro_lists: &'static [(MacroStage, &'static str)],
    /// What it answers to the negotiation, if that is nothing ordinary.
    pub negotiation: Option<Vec<u8>>,
    /// What it sends as the answer to the next command with this byte, or that it hangs up; all others it answers
    /// with "continue".
    pub answers: Vec<(u8, Option<Vec<u8>>)>,
    pub modifications: Vec<Modification<'static>>,
    /// A line behind EHLO that the server does not know.
    pub unknown: Option<&'static str>,
}

impl Behaviour {
    pub fn new(steps: Steps) -> Self {
        Self {
            steps,
            macro_lists: &[],
            negotiation: None,
            answers: Vec::new(),
            modifications: Vec::new(),
            unknown: None,
        }
    }

    /// The bytes with which it answers `kind`, using up its special answers; `None` if it hangs up instead.
    fn reply(&mut self, kind: u8) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let stage = Stage::of(kind::Kind::try_from(kind).unwrap());
        match kind {
            b'O' if self.negotiation.is_some() => return self.negotiation.take(),
            b'O' => {
                let lists = self.macro_lists.iter().map(|(stage, list)| (*stage, list.as_bytes().to_vec()));
                Negotiated {
                    version: 6,
                    actions: offer(6).actions.bits(),
                    steps: self.steps.bits(),
                    macro_lists: lists.collect(),
                }
                .encode(&mut bytes, 65_535)
                .unwrap();
            }
            b'D' | b'A' | b'Q' => {}
            _ if stage.is_some_and(|stage| self.steps.intersects(stage.no_reply())) => {}
            _ => {
                if kind == b'E' {
                    for modification in &self.modifications {
                        modification.encode(&mut bytes, 65_535).unwrap();
                    }
                }
                match self.answers.iter().position(|(on, _)| *on == kind) {
                    Some(at) => bytes.extend_from_slice(&self.answers.remove(at).1?),
                    None => Reply::Continue.encode(&mut bytes),
                }
            }
        }
        Some(bytes)
    }
}

/// A frame: its command byte, and its payload.
type Frame = (u8, Vec<u8>);

/// A filter that writes down what it gets, in one session after the other.
struct Recorder {
    endpoint: Endpoint,
    behaviour: Sender<Behaviour>,
    heard: Receiver<Vec<Frame>>,
    _dir: tempfile::TempDir,
}

impl Recorder {
    fn start() -> Self {
        let dir = temp_dir();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let (behaviour, next_behaviour) = channel();
        let (hearing, heard) = channel();
        // Not joined: it ends when nobody has a behaviour for it any more.
        std::thread::spawn(move || {
            for behaviour in next_behaviour {
                let (stream, _) = listener.accept().unwrap();
                hearing.send(record(stream, &behaviour)).unwrap();
            }
        });
        Self { endpoint: Endpoint::Unix(path), behaviour, heard, _dir: dir }
    }

    /// How to behave in the next session.
    fn prepare(&self, behaviour: &Behaviour) {
        self.behaviour.send(behaviour.clone()).unwrap();
    }

    /// All frames of the session, when it is over.
    fn frames(&self) -> Vec<String> {
        let frames = self.heard.recv_timeout(PATIENCE).expect("the session with the filter does not end");
        frames.iter().map(comparable).collect()
    }
}

fn record(mut stream: UnixStream, behaviour: &Behaviour) -> Vec<Frame> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut behaviour = behaviour.clone();
    let mut frames = Vec::new();
    while let Some((kind, payload)) = read_frame(&mut stream) {
        let reply = behaviour.reply(kind);
        frames.push((kind, payload));
        if reply.is_none_or(|reply| stream.write_all(&reply).is_err()) {
            break;
        }
    }
    frames
}

fn read_frame(stream: &mut UnixStream) -> Option<Frame> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes).ok()?;
    let payload = bytes.split_off(1);
    Some((bytes[0], payload))
}

/// What came out of a session.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    frames: Vec<String>,
    /// What the SMTP client was refused, and by which words.
    refusals: Vec<String>,
    /// Each message that was let through: its sender and recipients in the first line, and its text.
    pub delivered: Vec<String>,
    /// How many messages went into quarantine.
    held: usize,
}

/// A frame without what cannot be equal.
fn comparable((kind, payload): &Frame) -> String {
    let mut parts: Vec<Vec<u8>> = vec![payload.clone()];
    if *kind == b'D' {
        let strings: Vec<_> = payload[1..].split(|&byte| byte == 0).collect();
        parts = vec![payload[..1].to_vec()];
        for pair in strings.chunks_exact(2) {
            parts.push(pair[0].to_vec());
            if COMPARABLE.contains(&pair[0]) {
                parts.push([b"=", pair[1]].concat());
            }
        }
    } else if *kind == b'C' {
        let port = payload.iter().position(|&byte| byte == 0).unwrap() + 2;
        parts[0].drain(port..port + 2);
    }
    let text: Vec<_> = parts.iter().map(|part| part.escape_ascii().to_string()).collect();
    format!("{} {}", char::from(*kind), text.join(" "))
}

/// A message that was let through: its envelope, without order and without what servers add by themselves, and its
/// text, in which only the place of the server's own field counts.
fn delivered(sender: &str, recipients: &[String], message: &[u8]) -> String {
    let mut recipients: Vec<_> = recipients.iter().map(|recipient| comparable_mailbox(recipient)).collect();
    recipients.sort();
    let mut message = Message::parse(message);
    for header in &mut message.headers {
        if header.is_named(b"Received") && !header.behind_colon().trim_ascii().starts_with(b"by somebody") {
            *header = Header::new(b"Received", b" (own)");
        }
    }
    let sender = comparable_mailbox(sender);
    format!("{sender} to {}\n{}", recipients.join(", "), message.to_bytes().escape_ascii())
        .replace("\\r\\n", "\n")
}

/// An address with the ESMTP arguments that are passed on as they are: not BODY and SIZE, which a server finds out by
/// itself, and not an ORCPT that is the address once more.
fn comparable_mailbox(mailbox: &str) -> String {
    let mailbox = Mailbox::parse(mailbox.as_bytes());
    let address = String::from_utf8_lossy(&mailbox.address).replace(' ', "+20");
    let own = format!("ORCPT=rfc822;{address}").into_bytes();
    let kept = |argument: &&Vec<u8>| {
        let keys = [&b"RET="[..], b"ENVID=", b"NOTIFY=", b"ORCPT="];
        **argument != own && keys.iter().any(|key| argument.starts_with(key))
    };
    let mut words: Vec<_> = mailbox.arguments.iter().filter(kept).cloned().collect();
    words.sort();
    words.insert(0, [b"<", &mailbox.address[..], b">"].concat());
    String::from_utf8_lossy(&words.join(&b' ')).into_owned()
}

fn first_message() -> Vec<u8> {
    messages::short(
        "the first\r\n\tof two",
        "Received: by somebody else\r\nX-A: one\r\nX-B:none\r\nX-a:   three\r\nX-C:\ttab\r\nX-A: last\r\n",
    )
}

/// A real server, with the filter in front of it and the sink behind it.
pub struct Real {
    server: MailServer,
    sink: Sink,
    recorder: Recorder,
    delivered: usize,
    held: usize,
}

impl Real {
    pub fn start(kind: Kind, default_action: DefaultAction) -> Self {
        Self::start_with(kind, default_action, false)
    }

    /// A Postfix whose filter gets local mail too.
    pub fn start_for_local_mail() -> Self {
        Self::start_with(Kind::Postfix, DefaultAction::TempFail, true)
    }

    fn start_with(kind: Kind, default_action: DefaultAction, local_mail: bool) -> Self {
        let recorder = Recorder::start();
        let sink = Sink::open();
        let conduct = Conduct { default_action, local_mail, ..Conduct::default() };
        let server = MailServer::start_with(kind, &recorder.endpoint, &sink, &conduct);
        Self { server, sink, recorder, delivered: 0, held: 0 }
    }

    /// One session with it, in which so many messages should come through.
    pub fn session(&mut self, behaviour: &Behaviour, deliveries: usize) -> Outcome {
        self.recorder.prepare(behaviour);
        let mut client = smtp_client::Client::open(Ipv4Addr::LOCALHOST, self.server.port());
        let mut refusals = Refusals::default();
        refusals.note("greeting", client.greeting());
        refusals.note("EHLO", client.ask("EHLO client.example.com"));
        if let Some(line) = behaviour.unknown {
            refusals.note_unknown(client.ask(line));
        }
        for message in [first_message(), messages::short("the second", "")] {
            self.hand_in(&mut client, &message, &mut refusals);
        }
        client.leave();
        let mut delivered: Vec<_> = self.sink.deliveries(self.delivered + deliveries)[self.delivered..]
            .iter()
            .map(|delivery| delivered(&delivery.sender, &delivery.recipients, &delivery.message))
            .collect();
        self.delivered += deliveries;
        // The server need not deliver them in order.
        delivered.sort();
        let held = self.server.held().len();
        let newly_held = held - std::mem::replace(&mut self.held, held);
        Outcome { frames: self.recorder.frames(), refusals: refusals.0, delivered, held: newly_held }
    }

    /// A session for each of two messages that do not come by SMTP; the frames of all.
    pub fn local_sessions(&mut self, behaviour: &Behaviour, sender: &str) -> Outcome {
        let mut frames = Vec::new();
        for message in [first_message(), messages::short("the second", "")] {
            self.recorder.prepare(behaviour);
            self.server.submit(sender, &RECIPIENTS, &message);
            frames.extend(self.recorder.frames());
        }
        let deliveries = self.sink.deliveries(self.delivered + 2);
        let mut delivered: Vec<_> = deliveries[self.delivered..]
            .iter()
            .map(|delivery| delivered(&delivery.sender, &delivery.recipients, &delivery.message))
            .collect();
        self.delivered += 2;
        delivered.sort();
        Outcome { frames, refusals: Vec::new(), delivered, held: 0 }
    }

    /// A session in which the server refuses one recipient itself.
    pub fn session_with_refused(&mut self, behaviour: &Behaviour) -> Outcome {
        self.recorder.prepare(behaviour);
        let mut client = smtp_client::Client::open(Ipv4Addr::LOCALHOST, self.server.port());
        let mut refusals = Refusals::default();
        refusals.note("greeting", client.greeting());
        refusals.note("EHLO", client.ask("EHLO client.example.com"));
        refusals.note("MAIL", client.ask("MAIL FROM:<ann@example.com> BODY=8BITMIME"));
        let taken = [REFUSED, RECIPIENTS[0]]
            .map(|recipient| refusals.note("RCPT", client.ask(&format!("RCPT TO:<{recipient}>"))));
        if taken.contains(&true) {
            refusals.note("DATA", client.begin_data());
            refusals.note("message", client.end_data(&messages::short("the second", "")));
        } else {
            client.reset();
        }
        client.leave();
        Outcome { frames: self.recorder.frames(), refusals: refusals.0, delivered: Vec::new(), held: 0 }
    }

    /// The client hands in one message, and gives it up when it is refused.
    fn hand_in(&self, client: &mut smtp_client::Client, message: &[u8], refusals: &mut Refusals) {
        if !refusals.note("MAIL", client.ask("MAIL FROM:<ann@example.com> BODY=8BITMIME")) {
            return;
        }
        let commands = RECIPIENTS.map(|recipient| format!("RCPT TO:<{recipient}>"));
        let taken = commands.map(|command| refusals.note("RCPT", client.ask(&command)));
        if !taken.contains(&true) || !refusals.note("DATA", client.begin_data()) {
            client.reset();
        } else {
            refusals.note("message", client.end_data(message));
        }
    }
}

/// What a client was refused.
#[derive(Default)]
struct Refusals(Vec<String>);

impl Refusals {
    /// Notes what came as the answer to an unknown command, unless it is the server's own.
    fn note_unknown(&mut self, answer: Vec<u8>) {
        if !answer.starts_with(b"500 5.5.") {
            self.note("unknown", answer);
        }
    }

    /// Notes what came as the answer to a command, unless it is a good one; whether it is. Nothing has come behind
    /// the end of the connection.
    fn note(&mut self, command: &str, answer: Vec<u8>) -> bool {
        let good = answer.starts_with(b"2") || answer.starts_with(b"3");
        if !good && !answer.is_empty() {
            self.0.push(format!("{command}: {}", answer.escape_ascii()));
        }
        good
    }
}

/// The same session, played.
pub fn played(like: Flavor, behaviour: &Behaviour, default_action: DefaultAction) -> Outcome {
    let client = Client {
        // The Postfix of these tests looks no names up.
        name: if like.is_postfix() { b"[127.0.0.1]".to_vec() } else { b"localhost".to_vec() },
        address: ClientAddress::Inet(Ipv4Addr::LOCALHOST, 1),
        helo: b"client.example.com".to_vec(),
    };
    let recorder = Recorder::start();
    recorder.prepare(behaviour);
    let address: FilterAddress = recorder.endpoint.spec().parse().unwrap();
    let link = Link::new(address.connect(PATIENCE).unwrap(), Duration::from_secs(30));
    // Sendmail gives no {if_addr} of the loopback interface.
    let values = MacroValues::new(vec!["if_addr".parse().unwrap()]);
    let policy = Policy { default_action: Some(default_action), strict: false };
    let session = match Session::negotiate(link, like, offer(6), &values) {
        Ok(session) => session.with_policy(policy).unwrap(),
        Err(_) => Session::without_filter(like, offer(6), policy),
    };
    let mut refusals = Refusals::default();
    let mut observer = |exchange: &Exchange| {
        if let Some(reply) = &exchange.reply {
            let command = match exchange.command {
                kind::Kind::Connect => "greeting",
                kind::Kind::Helo => "EHLO",
                kind::Kind::Mail => "MAIL",
                kind::Kind::Rcpt => "RCPT",
                kind::Kind::Data => "DATA",
                kind::Kind::Unknown => "unknown",
                _ => "message",
            };
            refusals.note(command, reply.clone());
        }
    };
    let mut out = Vec::new();
    let mut held = 0;
    let mut refused_from_the_start = Vec::new();
    {
        let mut player = Player::new(session, like, &client, values, &mut observer);
        let unknown: Vec<_> = behaviour.unknown.iter().map(|line| line.as_bytes().to_vec()).collect();
        player.greet(&unknown).unwrap();
        for bytes in [first_message(), messages::short("the second", "")] {
            let message = Message::parse(&bytes);
            let sender = Mailbox::parse(b"<ann@example.com> BODY=8BITMIME");
            let submission = submission(&message, sender, &RECIPIENTS);
            let delivery = player.deliver(&submission).unwrap();
            let of_the_session = matches!(delivery.decided_by, kind::Kind::Connect | kind::Kind::Helo);
            match delivery.disposition.reply() {
                Some(reply) if of_the_session && !delivery.disposition.hangs_up() => {
                    refused_from_the_start.push(reply.to_vec());
                }
                _ => {}
            }
            let envelope = &delivery.mail.envelope;
            if delivery.disposition != Disposition::Accepted || envelope.recipients.is_empty() {
                continue;
            }
            if envelope.quarantine.is_some() {
                held += 1;
                continue;
            }
            let recipients: Vec<_> = envelope.recipients.iter().map(ToString::to_string).collect();
            let bytes = delivery.mail.message().to_bytes();
            out.push(delivered(&envelope.sender.to_string(), &recipients, &bytes));
        }
        player.leave().unwrap();
    }
    for reply in refused_from_the_start {
        refusals.note("MAIL", reply);
    }
    out.sort();
    Outcome { frames: recorder.frames(), refusals: refusals.0, delivered: out, held }
}

/// The same mail that does not come by SMTP, played.
pub fn played_locally(behaviour: &Behaviour, sender: &str) -> Outcome {
    let client = Client {
        name: b"localhost".to_vec(),
        address: ClientAddress::Inet(Ipv4Addr::LOCALHOST, 0),
        helo: b"localhost".to_vec(),
    };
    let mut frames = Vec::new();
    let mut out = Vec::new();
    for bytes in [first_message(), messages::short("the second", "")] {
        let recorder = Recorder::start();
        recorder.prepare(behaviour);
        let message = Message::parse(&bytes);
        let submission = submission(&message, Mailbox::parse(sender.as_bytes()), &RECIPIENTS);
        let mut observer = |_: &Exchange| {};
        let mut player = player(&recorder, Flavor::Postfix37, &client, &mut observer);
        player.play_local_mail();
        player.greet(&[]).unwrap();
        let delivery = player.deliver(&submission).unwrap();
        player.leave().unwrap();
        let envelope = &delivery.mail.envelope;
        let recipients: Vec<_> = envelope.recipients.iter().map(ToString::to_string).collect();
        let bytes = delivery.mail.message().to_bytes();
        out.push(delivered(&envelope.sender.to_string(), &recipients, &bytes));
        frames.extend(recorder.frames());
    }
    out.sort();
    Outcome { frames, refusals: Vec::new(), delivered: out, held: 0 }
}

/// The same session with a recipient whom the server refuses, played.
pub fn played_with_refused(behaviour: &Behaviour) -> Outcome {
    let client = Client {
        name: b"[127.0.0.1]".to_vec(),
        address: ClientAddress::Inet(Ipv4Addr::LOCALHOST, 1),
        helo: b"client.example.com".to_vec(),
    };
    let recorder = Recorder::start();
    recorder.prepare(behaviour);
    let bytes = messages::short("the second", "");
    let message = Message::parse(&bytes);
    let sender = Mailbox::parse(b"<ann@example.com> BODY=8BITMIME");
    let submission = submission(&message, sender, &RECIPIENTS[..1]);
    let mut refusals = Refusals::default();
    let mut observer = |exchange: &Exchange| {
        if let Some(reply) = &exchange.reply {
            refusals.note("RCPT", reply.clone());
        }
    };
    let mut player = player(&recorder, Flavor::Postfix37, &client, &mut observer);
    let reply = format!("550 5.1.1 <{REFUSED}>: Recipient address rejected: not here");
    player.refuse_recipients(vec![(Mailbox::parse(REFUSED.as_bytes()), reply.into_bytes())]);
    player.greet(&[]).unwrap();
    player.deliver(&submission).unwrap();
    player.leave().unwrap();
    Outcome { frames: recorder.frames(), refusals: refusals.0, delivered: Vec::new(), held: 0 }
}

/// An MTA that tempfails when its filter fails.
fn player<'a>(
    recorder: &Recorder,
    like: Flavor,
    client: &'a Client,
    observer: &'a mut dyn Observer,
) -> Player<'a> {
    let address: FilterAddress = recorder.endpoint.spec().parse().unwrap();
    let link = Link::new(address.connect(PATIENCE).unwrap(), Duration::from_secs(30));
    let values = MacroValues::default();
    let policy = Policy { default_action: Some(DefaultAction::TempFail), strict: false };
    let session = Session::negotiate(link, like, offer(6), &values).unwrap();
    Player::new(session.with_policy(policy).unwrap(), like, client, values, observer)
}

fn submission<'a>(message: &'a Message, sender: Mailbox, recipients: &[&str]) -> Submission<'a> {
    let recipients = recipients.iter().map(|recipient| Mailbox::parse(recipient.as_bytes())).collect();
    Submission {
        envelope: Envelope { sender, recipients, quarantine: None },
        message,
        received: Some(Header::new(b"Received", b" from us")),
        queue_id: "QUEUE".to_owned(),
        give_up_after: None,
    }
}

/// Fails the test unless what was played equals what is real.
#[track_caller]
pub fn assert_equal(name: &str, played: &Outcome, real: &Outcome) {
    assert_same_lines(&format!("{name}: refusals"), &played.refusals, &real.refusals);
    assert_same_lines(&format!("{name}: frames"), &played.frames, &real.frames);
    assert_same_lines(&format!("{name}: messages"), &played.delivered, &real.delivered);
    assert_eq!(played.held, real.held, "{name}: messages held, played and real");
}

/// Compares one session with a real MTA with the same session played in its manner.
#[track_caller]
pub fn compare_session(
    server: &mut Real,
    like: Flavor,
    name: &str,
    behaviour: &Behaviour,
    default_action: DefaultAction,
) {
    let played = played(like, behaviour, default_action);
    let real = server.session(behaviour, played.delivered.len());
    assert_equal(&format!("{name}, {like:?}"), &played, &real);
}

/// Compares a real MTA with what is played in its manner.
fn compare(kind: Kind, like: Flavor) {
    let mut server = Real::start(kind, DefaultAction::TempFail);
    for (name, deliveries, behaviour) in cases() {
        let played = played(like, &behaviour, DefaultAction::TempFail);
        assert_eq!(played.delivered.len(), deliveries, "{name}: messages that come through");
        compare_session(&mut server, like, name, &behaviour, DefaultAction::TempFail);
    }
}

/// Fails the test at the first line that differs.
#[track_caller]
fn assert_same_lines(what: &str, played: &[String], real: &[String]) {
    let [played, real] = [played, real].map(|lines| lines.join("\n"));
    for (number, pair) in played.lines().zip(real.lines()).enumerate() {
        assert_eq!(pair.0, pair.1, "{what}, line {number}, played and real; the real ones:\n{real}");
    }
    assert_eq!(played, real, "{what}");
}

fn changes() -> Vec<Modification<'static>> {
    vec![
        Modification::AddHeader { name: b"X-A", value: b"added" },
        Modification::AddHeader { name: b"X-New", value: b" added\n\tfolded" },
        Modification::InsertHeader { index: 1, name: b"X-One", value: b"inserted" },
        Modification::InsertHeader { index: 0, name: b"X-Zero", value: b" inserted" },
        Modification::InsertHeader { index: i32::MAX as u32, name: b"X-Last", value: b"inserted" },
        Modification::InsertHeader { index: 9, name: b"X-Nine", value: b"inserted" },
        Modification::ChangeHeader { index: 1, name: b"received", value: b" by somebody quite else" },
        Modification::ChangeHeader { index: 2, name: b"x-a", value: b"changed" },
        Modification::ChangeHeader { index: 1, name: b"X-B", value: b"" },
        Modification::ChangeHeader { index: 9, name: b"X-A", value: b"the ninth" },
        Modification::ChangeHeader { index: 9, name: b"X-C", value: b"" },
        Modification::ChangeHeader { index: 0, name: b"Subject", value: b"another" },
        Modification::ChangeSender { address: b"<eve@example.com>", arguments: None },
        Modification::AddRecipient(b"<frank@example.net>"),
        Modification::AddRecipient(b"<bob@example.net>"),
        Modification::AddRecipientWith { address: b"grace@example.net", arguments: Some(b"NOTIFY=NEVER") },
        Modification::DeleteRecipient(b"<carol@example.net>"),
        Modification::DeleteRecipient(b"<Dave@example.net>"),
        Modification::ReplaceBody(b"another\r"),
        Modification::ReplaceBody(b"\nbody\r\n"),
        Modification::Progress,
    ]
}

/// All that either MTA knows, but for Sendmail's queue id, which is there before there is a message.
const ALL_MACROS: &str = "j v _ {client_addr} {client_name} {client_port} {client_ptr} {client_resolve} \
    {client_connections} {mail_addr} {mail_host} {mail_mailer} {rcpt_addr} {rcpt_host} {rcpt_mailer} {msg_id} {nrcpts} \
    {daemon_name} {daemon_addr} {daemon_port} {if_name} {if_addr}";

/// Sessions of two messages: a name, how many of them get through, what the filter does.
fn cases() -> Vec<(&'static str, usize, Behaviour)> {
    let with_steps = Behaviour::new;
    let with_changes = |steps| Behaviour { modifications: changes(), ..Behaviour::new(steps) };
    let with_lists = |macro_lists: &'static [_]| Behaviour { macro_lists, ..Behaviour::new(Steps::empty()) };
    let with_frame =
        |on, frame| Behaviour { answers: vec![(on, Some(frame))], ..Behaviour::new(Steps::SKIP) };
    let with_answer = |on, reply: Reply| {
        let mut frame = Vec::new();
        reply.encode(&mut frame);
        with_frame(on, frame)
    };
    let mut refusal = Vec::new();
    encode_custom(b"550 5.7.1 no", &mut refusal);
    let nothing = Steps::NOCONNECT
        | Steps::NOHELO
        | Steps::NOMAIL
        | Steps::NORCPT
        | Steps::NODATA
        | Steps::NOHDRS
        | Steps::NOEOH
        | Steps::NOBODY;
    vec![
        ("changes", 2, with_changes(Steps::empty())),
        ("changes with leading space", 2, with_changes(Steps::HDR_LEADSPC)),
        ("nothing sent", 2, with_steps(nothing)),
        ("nothing answered", 2, with_steps(Steps::NO_REPLY)),
        ("a mixture", 2, with_steps(Steps::NOHELO | Steps::NODATA | Steps::NR_HDR | Steps::NR_EOH)),
        (
            "all macros",
            2,
            with_lists(&[
                (MacroStage::Connect, ALL_MACROS),
                (MacroStage::Helo, ALL_MACROS),
                (MacroStage::Mail, ALL_MACROS),
                (MacroStage::Rcpt, ALL_MACROS),
                (MacroStage::Data, ALL_MACROS),
                (MacroStage::EndOfMessage, ALL_MACROS),
                (MacroStage::EndOfHeader, ALL_MACROS),
            ]),
        ),
        (
            "odd macros",
            2,
            with_lists(&[
                (MacroStage::Helo, ""),
                (MacroStage::Rcpt, ""),
                (MacroStage::EndOfMessage, "{nosuch} j i"),
                (MacroStage::EndOfHeader, "{nosuch}"),
            ]),
        ),
        ("HELO rejected", 0, with_answer(b'H', Reply::Reject)),
        ("client accepted", 2, with_answer(b'C', Reply::Accept)),
        ("sender accepted", 2, with_answer(b'M', Reply::Accept)),
        ("sender discarded", 1, with_answer(b'M', Reply::Discard)),
        ("recipient rejected", 2, with_answer(b'R', Reply::Reject)),
        ("recipient discarded", 1, with_answer(b'R', Reply::Discard)),
        ("DATA discarded", 1, with_answer(b'T', Reply::Discard)),
        ("header skipped", 2, with_answer(b'L', Reply::Skip)),
        ("end of header skipped", 2, with_answer(b'N', Reply::Skip)),
        ("sender skipped", 2, with_answer(b'M', Reply::Skip)),
        ("recipient skipped", 2, with_answer(b'R', Reply::Skip)),
        ("DATA skipped", 2, with_answer(b'T', Reply::Skip)),
        ("HELO skipped", 2, with_answer(b'H', Reply::Skip)),
        ("end of header tempfailed", 1, with_answer(b'N', Reply::TempFail)),
        ("body discarded", 1, with_answer(b'B', Reply::Discard)),
        ("message refused", 1, with_frame(b'E', refusal)),
    ]
}

#[test]
fn postfix_is_played_as_it_is() {
    compare(Kind::Postfix, Flavor::Postfix37);
}

#[test]
fn sendmail_is_played_as_it_is() {
    compare(Kind::Sendmail, Flavor::Sendmail);
}
