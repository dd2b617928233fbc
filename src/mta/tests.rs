//! Whole conversations with a filter that follows a script: it answers every frame as it is told and tells
//! afterwards which frames came, and in how many writes.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;
use crate::protocol::reply::{Negotiated, encode_custom};
use crate::protocol::{Actions, Kind, MacroStage, Modification, Offer, Peer, Reply, Steps, frame};

const FILE: &[u8] = b"Subject: hello\nX-A:  b\nMessage-ID: <1@e>\n\nbody\n";

/// What the scripted filter answers to a command: frames, ready to be sent.
type Script = Vec<(u8, Vec<u8>)>;

fn reply(reply: Reply) -> Vec<u8> {
    let mut bytes = Vec::new();
    reply.encode(&mut bytes);
    bytes
}

fn custom(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_custom(text, &mut bytes);
    bytes
}

fn modifications(list: &[Modification<'_>], last: Reply) -> Vec<u8> {
    let mut bytes = Vec::new();
    for modification in list {
        modification.encode(&mut bytes, frame::DEFAULT_MAX_PAYLOAD).unwrap();
    }
    last.encode(&mut bytes);
    bytes
}

fn rejected(reply: &str) -> Disposition {
    Disposition::Rejected(reply.as_bytes().to_vec())
}

fn tempfailed(reply: &str) -> Disposition {
    Disposition::TempFailed(reply.as_bytes().to_vec())
}

fn wants(version: u32, actions: Actions, steps: Steps) -> Negotiated {
    Negotiated { version, actions: actions.bits(), steps: steps.bits(), macro_lists: Vec::new() }
}

/// A filter in a thread of its own. For each command it takes the first entry of the script for its byte, or
/// continues; steps that it switched off or does not answer it leaves unanswered.
struct Filter {
    thread: JoinHandle<Vec<(u8, Vec<u8>)>>,
}

impl Filter {
    fn start(mut stream: UnixStream, agreed: Negotiated, script: Script) -> Self {
        let thread = std::thread::spawn(move || {
            let mut script: VecDeque<_> = script.into();
            let mut seen = Vec::new();
            let steps = Steps::from_bits_retain(agreed.steps);
            while let Some((kind, payload)) = read_frame(&mut stream) {
                let answer = match kind {
                    b'O' => {
                        let mut bytes = Vec::new();
                        agreed.encode(&mut bytes, frame::DEFAULT_MAX_PAYLOAD).unwrap();
                        bytes
                    }
                    b'D' | b'A' | b'Q' | b'K' => Vec::new(),
                    _ if silent(steps, kind) => Vec::new(),
                    _ => match script.iter().position(|(on, _)| *on == kind) {
                        Some(at) => script.remove(at).unwrap().1,
                        None => reply(Reply::Continue),
                    },
                };
                seen.push((kind, payload));
                if stream.write_all(&answer).is_err() || kind == b'Q' {
                    break;
                }
            }
            seen
        });
        Self { thread }
    }

    /// The bytes of the commands that came, macros left out.
    fn commands(self) -> String {
        self.frames().iter().map(|(kind, _)| char::from(*kind)).filter(|kind| *kind != 'D').collect()
    }

    fn frames(self) -> Vec<(u8, Vec<u8>)> {
        self.thread.join().unwrap()
    }
}

fn silent(steps: Steps, kind: u8) -> bool {
    let stage = crate::protocol::Stage::of(Kind::try_from(kind).unwrap()).unwrap();
    steps.intersects(stage.no_reply())
}

fn read_frame(stream: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes).ok()?;
    let payload = bytes.split_off(1);
    Some((bytes[0], payload))
}

/// A connection to a scripted filter, negotiated.
fn open(
    like: Flavor,
    offer: Offer,
    agreed: Negotiated,
    script: Script,
    values: &MacroValues,
) -> (Result<Session, Error>, Filter) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let filter = Filter::start(theirs, agreed, script);
    let link = Link::new(Stream::Unix(ours), Duration::from_secs(30));
    (Session::negotiate(link, like, offer, values), filter)
}

fn client() -> Client {
    Client {
        name: b"client.example.com".to_vec(),
        address: ClientAddress::Inet([192, 0, 2, 1].into(), 1025),
        helo: b"helo.example.com".to_vec(),
    }
}

fn envelope() -> Envelope {
    Envelope {
        sender: Mailbox::parse(b"<s@example.com> SIZE=5"),
        recipients: vec![Mailbox::parse(b"<r1@example.org>"), Mailbox::parse(b"<r2@example.org>")],
        quarantine: None,
    }
}

fn submission(message: &Message, give_up_after: Option<Kind>) -> Submission<'_> {
    let (envelope, queue_id) = (envelope(), "QUEUE".to_owned());
    Submission { envelope, message, received: None, queue_id, give_up_after }
}

/// One conversation: what became of each message, the exchanges, and the filter that heard it.
struct Played {
    deliveries: Vec<Delivery>,
    exchanges: Vec<Exchange>,
    filter: Filter,
}

fn play_with(
    like: Flavor,
    agreed: Negotiated,
    script: Script,
    settings: Vec<MacroSetting>,
    give_up_after: Option<Kind>,
) -> Result<Played, Error> {
    let values = MacroValues::new(settings);
    let offer = offer(agreed.version);
    let (session, filter) = open(like, offer, agreed, script, &values);
    let client = client();
    let message = Message::parse(FILE);
    let mut exchanges = Vec::new();
    let mut observer = |exchange: &Exchange| exchanges.push(exchange.clone());
    let mut player = Player::new(session?, like, &client, values, &mut observer);
    player.greet(&[])?;
    let mut deliveries = Vec::new();
    for _ in 0..2 {
        deliveries.push(player.deliver(&submission(&message, give_up_after))?);
    }
    player.leave()?;
    Ok(Played { deliveries, exchanges, filter })
}

fn play(like: Flavor, actions: Actions, steps: Steps, script: Script) -> Played {
    play_with(like, wants(6, actions, steps), script, Vec::new(), None).unwrap()
}

#[test]
fn two_messages_as_postfix_and_sendmail_send_them() {
    let postfix = play(Flavor::Postfix37, Actions::empty(), Steps::empty(), Vec::new());
    assert_eq!(postfix.filter.commands(), "OCHMRRTLLLNBEAMRRTLLLNBEAAQ");
    let sendmail = play(Flavor::Sendmail, Actions::empty(), Steps::empty(), Vec::new());
    assert_eq!(sendmail.filter.commands(), "OCHMRRTLLLNBEMRRTLLLNBEQ");
    assert!(sendmail.deliveries.iter().all(|delivery| delivery.disposition == Disposition::Accepted));
}

#[test]
fn the_bytes_of_a_message() {
    let played = play(Flavor::Sendmail, Actions::empty(), Steps::empty(), Vec::new());
    let frames = played.filter.frames();
    let payload = |kind| &frames.iter().find(|(seen, _)| *seen == kind).unwrap().1[..];
    assert_eq!(payload(b'C'), b"client.example.com\x004\x04\x01192.0.2.1\0");
    assert_eq!(payload(b'H'), b"helo.example.com\0");
    assert_eq!(payload(b'M'), b"<s@example.com>\0SIZE=5\0");
    assert_eq!(payload(b'R'), b"<r1@example.org>\0");
    assert_eq!(payload(b'L'), b"Subject\0hello\0");
    assert_eq!(payload(b'B'), b"body\r\n");
    assert_eq!(payload(b'E'), b"");
}

/// The macros that went with the `nth` command of a kind, as text; `-` if there was no macro frame.
fn macros(played: &Played, kind: Kind, nth: usize) -> String {
    let exchange = played.exchanges.iter().filter(|exchange| exchange.command == kind).nth(nth).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pairs = exchange.macros.iter().flatten();
    let all: Vec<_> = pairs.map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
    exchange.macros.as_ref().map_or("-".to_owned(), |_| all.join(" "))
}

fn play_with_macros(like: Flavor, lists: &[(MacroStage, &str)]) -> Played {
    let settings = ["auth_type=PLAIN", "eom:odd=1", "x=y"].map(|setting| setting.parse().unwrap());
    let mut agreed = wants(6, Actions::SETSYMLIST, Steps::empty());
    agreed.macro_lists = lists.iter().map(|(stage, list)| (*stage, list.as_bytes().to_vec())).collect();
    play_with(like, agreed, Vec::new(), settings.into(), None).unwrap()
}

#[test]
fn postfix_sends_macros_with_every_command() {
    let played = play_with_macros(Flavor::Postfix37, &[]);
    let connect = macros(&played, Kind::Connect, 0);
    assert!(connect.starts_with("j=mx.example.org {daemon_name}=mx.example.org "), "{connect}");
    assert!(connect.ends_with("_=client.example.com [192.0.2.1] x=y"), "{connect}");
    assert_eq!(macros(&played, Kind::Helo, 0), "");
    assert_eq!(
        macros(&played, Kind::Mail, 0),
        "{auth_type}=PLAIN {mail_addr}=s@example.com {mail_host}=example.com {mail_mailer}=smtp"
    );
    let rcpt = |address| format!("{{rcpt_addr}}={address} {{rcpt_host}}=example.org {{rcpt_mailer}}=smtp");
    assert_eq!(macros(&played, Kind::Rcpt, 0), rcpt("r1@example.org"));
    assert_eq!(macros(&played, Kind::Rcpt, 1), format!("i=QUEUE {}", rcpt("r2@example.org")));
    assert_eq!(macros(&played, Kind::Header, 2), "i=QUEUE");
    assert_eq!(macros(&played, Kind::Body, 0), "i=QUEUE {odd}=1");
    assert_eq!(
        macros(&played, Kind::Mail, 1),
        macros(&played, Kind::Mail, 0),
        "the old queue id is forgotten"
    );
    let frames = played.filter.frames();
    assert!(frames.contains(&(b'D', b"Li\0QUEUE\0".to_vec())));
    assert!(frames.contains(&(b'D', b"H".to_vec())));
}

#[test]
fn sendmail_sends_macros_once_a_stage() {
    let played = play_with_macros(Flavor::Sendmail, &[]);
    assert!(macros(&played, Kind::Mail, 0).starts_with("i=QUEUE {auth_type}=PLAIN {mail_mailer}=esmtp"));
    assert_eq!(macros(&played, Kind::Helo, 0), "");
    for kind in [Kind::Data, Kind::Header, Kind::EndOfHeader, Kind::Body] {
        assert_eq!(macros(&played, kind, 0), "-", "{kind:?}");
    }
    assert_eq!(macros(&played, Kind::EndOfMessage, 0), "{msg_id}=<1@e> {odd}=1");
}

#[test]
fn a_filter_can_ask_for_other_macros() {
    let lists =
        [(MacroStage::Connect, ""), (MacroStage::EndOfHeader, "x {nosuch}, j"), (MacroStage::Helo, "v")];
    let postfix = play_with_macros(Flavor::Postfix37, &lists);
    assert!(macros(&postfix, Kind::Connect, 0).starts_with("j="), "an empty list is no request");
    assert_eq!(macros(&postfix, Kind::Helo, 0), "v=Postfix 3.7.11");
    assert_eq!(macros(&postfix, Kind::Header, 0), "x=y j=mx.example.org");
    assert_eq!(macros(&postfix, Kind::EndOfMessage, 0), "i=QUEUE {odd}=1");
    let sendmail = play_with_macros(Flavor::Sendmail, &lists);
    assert_eq!(macros(&sendmail, Kind::Connect, 0), "-");
    assert_eq!(macros(&sendmail, Kind::EndOfHeader, 0), "x=y j=mx.example.org");
}

#[test]
fn steps_that_are_switched_off_are_not_sent_but_their_macros_are() {
    let off = Steps::NOCONNECT | Steps::NOHELO | Steps::NORCPT | Steps::NOEOH | Steps::NOBODY;
    let played = play(Flavor::Postfix37, Actions::empty(), off, Vec::new());
    let omitted = |exchange: &&Exchange| exchange.outcome == Outcome::NotSent(Omission::SwitchedOff);
    assert_eq!(played.exchanges.iter().filter(omitted).count(), 2 + 2 * 4);
    let mut frames = played.filter.frames();
    frames.truncate(5);
    let text: Vec<_> = frames.iter().map(|(kind, payload)| (*kind, payload.first().copied())).collect();
    assert_eq!(
        text,
        [(b'O', Some(0)), (b'D', Some(b'C')), (b'D', Some(b'H')), (b'D', Some(b'M')), (b'M', Some(b'<'))]
    );
    assert!(!frames.contains(&(b'D', b"Ni\0QUEUE\0".to_vec())));
}

#[test]
fn answers_that_were_waived_are_not_awaited() {
    let played = play(Flavor::Postfix37, Actions::empty(), Steps::NO_REPLY, Vec::new());
    let answered: Vec<_> = played
        .exchanges
        .iter()
        .filter(|exchange| matches!(exchange.outcome, Outcome::Answered(_)))
        .map(|exchange| exchange.command)
        .collect();
    assert_eq!(answered, [Kind::EndOfMessage, Kind::EndOfMessage]);
    assert_eq!(played.filter.commands(), "OCHMRRTLLLNBEAMRRTLLLNBEAAQ");
}

#[test]
fn skip_means_what_the_mta_takes_it_for() {
    for (like, on, commands) in [
        (Flavor::Postfix37, b'C', "OCHMRRTLLLNBEA"),
        (Flavor::Postfix37, b'R', "OCHMRTLLLNBEA"),
        (Flavor::Postfix37, b'L', "OCHMRRTLNBEA"),
        (Flavor::Postfix37, b'B', "OCHMRRTLLLNBEA"),
        (Flavor::Postfix37, b'E', "OCHMRRTLLLNBEA"),
        (Flavor::Sendmail, b'M', "OCHM"),
        (Flavor::Sendmail, b'R', "OCHMR"),
        (Flavor::Sendmail, b'L', "OCHMRRTLLLNE"),
        (Flavor::Sendmail, b'N', "OCHMRRTLLLNE"),
    ] {
        let second = match (like, on) {
            (Flavor::Postfix37 | Flavor::Postfix312, _) => "MRRTLLLNBEAAQ",
            (Flavor::Sendmail, b'M' | b'R') => "Q",
            (Flavor::Sendmail, _) => "MRRTLLLNBEQ",
        };
        let played = play(like, Actions::empty(), Steps::SKIP, vec![(on, reply(Reply::Skip))]);
        assert_eq!(played.deliveries[0].disposition, Disposition::Accepted);
        assert_eq!(played.deliveries[0].mail.envelope.recipients.len(), 2);
        assert_eq!(played.filter.commands(), format!("{commands}{second}"));
    }
    let agreed = wants(6, Actions::empty(), Steps::empty());
    let at_end = play_with(Flavor::Sendmail, agreed, vec![(b'E', reply(Reply::Skip))], Vec::new(), None);
    assert!(
        matches!(at_end, Err(Error::Protocol { fault: Fault::OutOfPlace { kind: b's' }, .. })),
        "to Sendmail, skip is no answer to the end of the message"
    );
}

#[test]
fn old_versions_lack_commands() {
    for (version, commands) in [(2, "OCHMRRLLLNBEMRRLLLNBEQ"), (4, "OCHMRRTLLLNBEMRRTLLLNBEQ")] {
        let agreed = wants(version, Actions::empty(), Steps::empty());
        let played = play_with(Flavor::Sendmail, agreed, Vec::new(), Vec::new(), None).unwrap();
        assert_eq!(played.filter.commands(), commands, "version {version}");
    }
}

#[test]
fn leading_space_is_sent_and_taken_if_wanted() {
    for (steps, sent, result) in
        [(Steps::empty(), &b" b"[..], "N: n"), (Steps::HDR_LEADSPC, &b"  b"[..], "N:n")]
    {
        let changes = modifications(&[Modification::AddHeader { name: b"N", value: b"n" }], Reply::Continue);
        let played = play(Flavor::Postfix37, Actions::ADDHDRS, steps, vec![(b'E', changes)]);
        let message = String::from_utf8(played.deliveries[0].mail.message().to_bytes()).unwrap();
        assert_eq!(message.lines().nth(3), Some(result));
        let header = [b"X-A\0", sent, b"\0"].concat();
        assert!(played.filter.frames().contains(&(b'L', header)));
    }
}

#[test]
fn changes_are_collected_and_applied_when_the_message_is_accepted() {
    let changes = [
        Modification::Progress,
        Modification::AddRecipient(b"<n@example.org>"),
        Modification::ReplaceBody(b"new\r"),
        Modification::ReplaceBody(b"\nbody\r\n"),
        Modification::Progress,
    ];
    let script = || {
        vec![(b'E', modifications(&changes, Reply::Accept)), (b'E', modifications(&changes, Reply::Reject))]
    };
    let played = play(Flavor::Postfix37, Actions::CHGBODY | Actions::ADDRCPT, Steps::empty(), script());
    let [accepted, rejected] = &played.deliveries[..] else { panic!("two messages") };
    assert_eq!(accepted.changes.len(), 2);
    assert_eq!(accepted.mail.message().body, b"new\nbody\n");
    assert_eq!(accepted.mail.envelope.recipients.len(), 3);
    assert_eq!(rejected.disposition, Disposition::Rejected(b"550 5.7.1 Command rejected".to_vec()));
    assert_eq!(rejected.mail.message().body, b"body\n");
    let last = played.exchanges.iter().find(|exchange| exchange.command == Kind::EndOfMessage).unwrap();
    assert_eq!(last.progress, 2);
}

#[test]
fn a_verdict_ends_the_message() {
    for (on, answer, commands, disposition) in [
        (
            b'M',
            reply(Reply::Reject),
            "OCHMMRRTLLLNBEQ",
            rejected("550 5.7.1 <s@example.com>... Command rejected"),
        ),
        (b'M', reply(Reply::Accept), "OCHMMRRTLLLNBEQ", Disposition::Accepted),
        (b'R', reply(Reply::Discard), "OCHMRAMRRTLLLNBEQ", Disposition::Discarded),
        (b'T', reply(Reply::TempFail), "OCHMRRTAMRRTLLLNBEQ", tempfailed("451 4.3.2 Please try again later")),
        (b'L', reply(Reply::Accept), "OCHMRRTLMRRTLLLNBEQ", Disposition::Accepted),
        (b'B', reply(Reply::Discard), "OCHMRRTLLLNBMRRTLLLNBEQ", Disposition::Discarded),
        (b'E', custom(b"451 4.7.1 later"), "OCHMRRTLLLNBEMRRTLLLNBEQ", tempfailed("451 4.7.1 later")),
        (b'N', custom(b"550 no"), "OCHMRRTLLLNMRRTLLLNBEQ", rejected("550 5.0.0 no")),
    ] {
        let played = play(Flavor::Sendmail, Actions::empty(), Steps::empty(), vec![(on, answer)]);
        assert_eq!(played.filter.commands(), commands);
        assert_eq!(played.deliveries[0].disposition, disposition);
        assert_eq!(u8::from(played.deliveries[0].decided_by), on);
        assert_eq!(played.deliveries[1].disposition, Disposition::Accepted);
    }
}

#[test]
fn a_verdict_on_the_connection_holds_for_all_messages() {
    for (like, commands, refusal) in [
        (Flavor::Postfix37, "OCH", "451 4.7.1 Service unavailable - try again later"),
        (Flavor::Sendmail, "OCHQ", "451 4.3.2 Please try again later"),
    ] {
        let played = play(like, Actions::empty(), Steps::empty(), vec![(b'H', reply(Reply::TempFail))]);
        assert_eq!(played.filter.commands(), commands);
        for delivery in played.deliveries {
            assert_eq!((delivery.disposition, delivery.decided_by), (tempfailed(refusal), Kind::Helo));
        }
    }
    let discard = || vec![(b'C', reply(Reply::Discard))];
    let sendmail = play(Flavor::Sendmail, Actions::empty(), Steps::empty(), discard());
    assert_eq!(sendmail.deliveries[1].disposition, Disposition::Accepted);
    assert_eq!(sendmail.filter.commands(), "OCQ");
    let postfix = play(Flavor::Postfix37, Actions::empty(), Steps::empty(), discard());
    assert_eq!(postfix.deliveries[0].disposition, Disposition::Accepted);
}

#[test]
fn refused_recipients_are_left_out() {
    let refuse = |count: usize| vec![(b'R', custom(b"550 no")); count];
    let played = play(Flavor::Sendmail, Actions::empty(), Steps::empty(), refuse(1));
    let delivery = &played.deliveries[0];
    assert_eq!(delivery.disposition, Disposition::Accepted);
    assert_eq!(delivery.mail.envelope.recipients, [Mailbox::parse(b"<r2@example.org>")]);
    assert_eq!(delivery.refused[0].0, Mailbox::parse(b"<r1@example.org>"));

    let played = play(Flavor::Sendmail, Actions::empty(), Steps::empty(), refuse(2));
    assert_eq!(played.deliveries[0].disposition, rejected("550 5.0.0 <r2@example.org>... no"));
    assert_eq!(played.filter.commands(), "OCHMRRAMRRTLLLNBEQ", "the client gives up");
}

#[test]
fn the_client_can_give_up() {
    for (after, commands) in [
        (Kind::Mail, "OCHMAMAQ"),
        (Kind::Rcpt, "OCHMRRAMRRAQ"),
        (Kind::Header, "OCHMRRTLLLAMRRTLLLAQ"),
        (Kind::Body, "OCHMRRTLLLNBAMRRTLLLNBAQ"),
    ] {
        let agreed = wants(6, Actions::empty(), Steps::empty());
        let played = play_with(Flavor::Sendmail, agreed, Vec::new(), Vec::new(), Some(after)).unwrap();
        assert_eq!(played.filter.commands(), commands);
        assert_eq!(played.deliveries[0].disposition, Disposition::GivenUp);
    }
}

#[test]
fn clients_change_behind_a_message_that_passed() {
    for (like, script, changed, commands) in [
        (Flavor::Sendmail, Vec::new(), true, "OCHUMRRTLLLNBEKCHQ"),
        (Flavor::Sendmail, vec![(b'E', reply(Reply::Accept))], false, "OCHUMRRTLLLNBEQ"),
        (Flavor::Postfix37, Vec::new(), false, "OCHUMRRTLLLNBEAAQ"),
    ] {
        let values = MacroValues::default();
        let agreed = wants(6, Actions::empty(), Steps::empty());
        let (session, filter) = open(like, offer(6), agreed, script, &values);
        let client = client();
        let message = Message::parse(FILE);
        let mut observer = |_: &Exchange| {};
        let mut player = Player::new(session.unwrap(), like, &client, values, &mut observer);
        player.greet(&[b"XYZZY".to_vec()]).unwrap();
        assert!(!player.change_clients(&[]).unwrap(), "there was no message yet");
        player.deliver(&submission(&message, None)).unwrap();
        assert_eq!(player.change_clients(&[]).unwrap(), changed);
        player.leave().unwrap();
        assert_eq!(filter.commands(), commands);
    }
}

#[test]
fn pieces_of_the_body_are_as_large_as_frames_may_be() {
    let values = MacroValues::default();
    let agreed = wants(6, Actions::empty(), Steps::empty());
    let (session, filter) = open(Flavor::Sendmail, offer(6), agreed, Vec::new(), &values);
    let client = client();
    let message = Message::parse(&[b"A: b\n\n", &[b'x'; 65_535 * 2][..]].concat());
    let mut observer = |_: &Exchange| {};
    let mut player = Player::new(session.unwrap(), Flavor::Sendmail, &client, values, &mut observer);
    player.greet(&[]).unwrap();
    player.deliver(&submission(&message, None)).unwrap();
    player.leave().unwrap();
    let frames = filter.frames();
    let pieces: Vec<_> =
        frames.iter().filter(|(kind, _)| *kind == b'B').map(|(_, piece)| piece.len()).collect();
    assert_eq!(pieces, [65_535, 65_535, 2]);
}

/// What went wrong with a filter that answers a command in this way.
fn fault(on: u8, answer: Vec<u8>) -> (Kind, Fault) {
    let agreed = wants(6, Actions::ADDHDRS, Steps::empty());
    match play_with(Flavor::Postfix37, agreed, vec![(on, answer)], Vec::new(), None) {
        Err(Error::Protocol { during, fault }) => (during, fault),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nothing went wrong"),
    }
}

#[test]
fn filters_that_break_the_protocol() {
    let add = Modification::AddHeader { name: b"N", value: b"n" };
    for (on, answer, during, expected) in [
        (b'H', b"\0\0\0\x01Z".to_vec(), Kind::Helo, Fault::Malformed { kind: b'Z', length: 0 }),
        (b'N', modifications(&[add], Reply::Continue), Kind::EndOfHeader, Fault::OutOfPlace { kind: b'h' }),
        (
            b'E',
            b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\0\0\0".to_vec(),
            Kind::EndOfMessage,
            Fault::OutOfPlace { kind: b'O' },
        ),
        (b'M', b"\0\0\0\0".to_vec(), Kind::Mail, Fault::Frame(crate::protocol::FrameError::Empty)),
    ] {
        assert_eq!(fault(on, answer), (during, expected));
    }
}

/// What an MTA makes of the answer to the negotiation: the agreed version and the statements that it gets over, or
/// the fault.
fn negotiated(like: Flavor, offered: u32, agreed: Negotiated) -> Result<(u32, Vec<&'static str>), Fault> {
    let (session, _filter) = open(like, offer(offered), agreed, Vec::new(), &MacroValues::default());
    match session {
        Ok(session) => {
            let warned = session.warnings().iter().map(|warning| warning.statement).collect();
            Ok((session.agreed().version, warned))
        }
        Err(Error::Protocol { during: Kind::Negotiate, fault }) => Err(fault),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_was_not_offered_is_refused_or_got_over() {
    let none = (Actions::empty(), Steps::empty());
    let skip = Steps::SKIP | Steps::NOBODY;
    for (like, offered, wanted, result) in [
        (Flavor::Postfix37, 4, wants(6, none.0, none.1), Err(Fault::Version(6))),
        (Flavor::Sendmail, 4, wants(6, none.0, none.1), Ok((4, vec!["B5"]))),
        (Flavor::Postfix37, 6, wants(1, none.0, none.1), Ok((6, vec!["B6"]))),
        (Flavor::Postfix37, 6, wants(0, none.0, none.1), Ok((6, vec!["B6"]))),
        (Flavor::Sendmail, 6, wants(1, none.0, none.1), Err(Fault::Version(1))),
        (Flavor::Sendmail, 6, wants(0, none.0, none.1), Ok((2, vec!["B6"]))),
        (Flavor::Postfix37, 2, wants(2, Actions::CHGFROM, none.1), Err(Fault::Actions(Actions::CHGFROM))),
        (Flavor::Sendmail, 2, wants(2, Actions::CHGFROM, none.1), Err(Fault::Actions(Actions::CHGFROM))),
        (Flavor::Postfix37, 2, wants(2, none.0, skip), Ok((2, vec!["B10"]))),
        (Flavor::Sendmail, 2, wants(2, none.0, skip), Err(Fault::Steps(Steps::SKIP))),
    ] {
        assert_eq!(negotiated(like, offered, wanted.clone()), result, "{like:?} {wanted:?}");
    }
}

#[test]
fn another_answer_to_the_negotiation_is_an_error() {
    for answer in [reply(Reply::Continue), b"\0\0\0\x05O\0\0\0\x06".to_vec()] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&answer).unwrap();
        let link = Link::new(Stream::Unix(ours), Duration::from_secs(30));
        let session = Session::negotiate(link, Flavor::Sendmail, offer(6), &MacroValues::default());
        assert!(matches!(session, Err(Error::Protocol { during: Kind::Negotiate, .. })), "{session:?}");
    }
}

#[test]
fn a_filter_that_hangs_up_is_told_by_the_command() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let link = Link::new(Stream::Unix(ours), Duration::from_secs(30));
    let session = Session::negotiate(link, Flavor::Postfix37, offer(6), &MacroValues::default());
    assert!(
        matches!(session, Err(Error::Protocol { during: Kind::Negotiate, fault: Fault::Closed })),
        "{session:?}"
    );
}

#[test]
fn postfix_gathers_frames_until_an_answer_is_due_and_sendmail_does_not() {
    for (like, at_once) in [(Flavor::Postfix37, 0), (Flavor::Sendmail, 6)] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut answer = Vec::new();
        let agreed = wants(6, Actions::empty(), Steps::NOHELO);
        agreed.encode(&mut answer, frame::DEFAULT_MAX_PAYLOAD).unwrap();
        theirs.write_all(&answer).unwrap();
        let link = Link::new(Stream::Unix(ours), Duration::from_secs(30));
        let mut session = Session::negotiate(link, like, offer(6), &MacroValues::default()).unwrap();
        session.tell(&Request::Helo(b"x"), &MacroValues::default()).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut sent = Vec::new();
        assert!(theirs.read_to_end(&mut sent).is_err(), "the connection is still open");
        assert_eq!(sent.len() - 17, at_once, "an empty macro frame has 6 bytes, the offer 17");
    }
}

#[test]
fn every_kind_of_client_address() {
    for (peer, payload) in [
        (Peer::Unknown, &b"h\0U"[..]),
        (Peer::Inet { address: [192, 0, 2, 1].into(), port: 25 }, b"h\x004\0\x19192.0.2.1\0"),
        (Peer::Inet6 { address: std::net::Ipv6Addr::LOCALHOST, port: 25 }, b"h\x006\0\x19::1\0"),
        (Peer::Unix(b"/run/x"), b"h\0L\0\0/run/x\0"),
    ] {
        let values = MacroValues::default();
        let agreed = wants(6, Actions::empty(), Steps::empty());
        let (session, filter) = open(Flavor::Sendmail, offer(6), agreed, Vec::new(), &values);
        let mut session = session.unwrap();
        session.tell(&Request::Connect { host: b"h", peer }, &values).unwrap();
        session.close().unwrap();
        assert_eq!(filter.frames().last().unwrap(), &(b'C', payload.to_vec()));
    }
}

/// What becomes of two messages if the filter fails, or answers what it should not, and how.
fn play_by(like: Flavor, policy: Policy, on: u8, answer: Vec<u8>) -> Result<Played, Error> {
    let agreed = wants(6, offer(6).actions, Steps::empty());
    let values = MacroValues::default();
    let (session, filter) = open(like, offer(6), agreed, vec![(on, answer)], &values);
    let client = client();
    let message = Message::parse(FILE);
    let mut exchanges = Vec::new();
    let mut observer = |exchange: &Exchange| exchanges.push(exchange.clone());
    let mut player = Player::new(session?.with_policy(policy)?, like, &client, values, &mut observer);
    player.greet(&[])?;
    let mut deliveries = Vec::new();
    for _ in 0..2 {
        deliveries.push(player.deliver(&submission(&message, None))?);
    }
    player.leave()?;
    Ok(Played { deliveries, exchanges, filter })
}

#[test]
fn an_answer_that_nobody_asked_for_names_its_step() {
    let add = Modification::AddHeader { name: b"N", value: b"n" };
    let behind_the_verdict = [reply(Reply::Continue), modifications(&[add], Reply::Continue)].concat();
    for like in [Flavor::Postfix37, Flavor::Sendmail] {
        for (on, answer, during, kind) in [
            (b'H', [reply(Reply::Continue), reply(Reply::Continue)].concat(), Kind::Helo, b'c'),
            (b'R', [reply(Reply::Continue), reply(Reply::Reject)].concat(), Kind::Rcpt, b'r'),
            (b'E', behind_the_verdict.clone(), Kind::EndOfMessage, b'h'),
        ] {
            for default_action in [None, Some(DefaultAction::Accept)] {
                let policy = Policy { default_action, strict: false };
                match play_by(like, policy, on, answer.clone()) {
                    Err(Error::Protocol { during: at, fault: Fault::Unasked(Some(byte)) }) => {
                        assert_eq!((at, byte), (during, kind));
                    }
                    other => panic!("{like:?} {during:?}: {:?}", other.map(|played| played.deliveries)),
                }
            }
        }
    }
}

#[test]
fn an_answer_to_a_command_that_has_none_is_noticed() {
    for command in *b"DAQ" {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // It tells the macros from the rest, and gives each of those commands an answer.
        let filter = std::thread::spawn(move || {
            while let Some((kind, _)) = read_frame(&mut theirs) {
                let mut answer = Vec::new();
                match kind {
                    b'O' => {
                        wants(6, Actions::empty(), Steps::empty()).encode(&mut answer, usize::MAX).unwrap()
                    }
                    b'D' | b'A' | b'Q' if kind != command => {}
                    _ => answer = reply(Reply::Continue),
                }
                if theirs.write_all(&answer).is_err() {
                    break;
                }
            }
        });
        let link = Link::new(Stream::Unix(ours), Duration::from_secs(30));
        let values = MacroValues::default();
        let session = Session::negotiate(link, Flavor::Postfix37, offer(6), &values).unwrap();
        let client = client();
        let message = Message::parse(FILE);
        let mut observer = |_: &Exchange| {};
        let mut player = Player::new(session, Flavor::Postfix37, &client, values, &mut observer);
        let played = player
            .greet(&[])
            .and_then(|()| player.deliver(&submission(&message, None)))
            .and_then(|_| player.leave());
        let unasked = matches!(played, Err(Error::Protocol { fault: Fault::Unasked(_), .. }));
        assert!(unasked, "an answer to {}: {played:?}", char::from(command));
        filter.join().unwrap();
    }
}

#[test]
fn without_a_default_action_a_failure_is_the_end() {
    let played = play_by(Flavor::Postfix37, Policy::default(), b'R', b"\0\0\0\x01Z".to_vec());
    assert!(matches!(played, Err(Error::Protocol { during: Kind::Rcpt, fault: Fault::Malformed { .. } })));
}

#[test]
fn with_a_default_action_the_session_goes_on_without_the_filter() {
    for (action, dispositions) in [
        (DefaultAction::Accept, [Disposition::Accepted, Disposition::Accepted]),
        (
            DefaultAction::Reject,
            [rejected("550 5.5.0 Service unavailable"), rejected("550 5.5.0 Service unavailable")],
        ),
    ] {
        let policy = Policy { default_action: Some(action), strict: false };
        let played = play_by(Flavor::Postfix37, policy, b'E', b"\0\0\0\x01Z".to_vec()).unwrap();
        assert_eq!([0, 1].map(|number: usize| played.deliveries[number].disposition.clone()), dispositions);
        let failed = played.exchanges.iter().find(|exchange| exchange.command == Kind::EndOfMessage).unwrap();
        let text = "BODYEOB: the filter sent 'Z' with 0 bytes, which it must not".to_owned();
        assert_eq!(failed.outcome, Outcome::Failed(Failure { text, broke_protocol: true }));
        let mails: Vec<_> =
            played.exchanges.iter().filter(|exchange| exchange.command == Kind::Mail).collect();
        assert_eq!(mails[1].outcome, Outcome::NotSent(Omission::Lost));
        assert_eq!(played.filter.commands(), "OCHMRRTLLLNBE");
    }
}

#[test]
fn a_421_ends_the_smtp_session() {
    for (like, on, commands) in [
        (Flavor::Postfix37, b'M', "OCHMAAQ"),
        (Flavor::Postfix37, b'H', "OCH"),
        (Flavor::Sendmail, b'M', "OCHMQ"),
        (Flavor::Sendmail, b'R', "OCHMRQ"),
    ] {
        let played = play_by(like, Policy::default(), on, custom(b"421 4.7.0 bye")).unwrap();
        let bye = tempfailed("421 4.7.0 bye");
        assert!(played.deliveries.iter().all(|delivery| delivery.disposition == bye), "{like:?}");
        assert_eq!(played.filter.commands(), commands, "{like:?}");
    }
}

#[test]
fn a_malformed_reply_costs_postfix_s_trust() {
    let played = play_by(Flavor::Postfix37, Policy::default(), b'M', custom(b"550 4.7.1 no")).unwrap();
    let answer = tempfailed("451 4.3.5 Server configuration problem - try again later");
    assert!(played.deliveries.iter().all(|delivery| delivery.disposition == answer));
    let mail = played.exchanges.iter().find(|exchange| exchange.command == Kind::Mail).unwrap();
    assert_eq!(
        mail.warnings[0].to_string(),
        "Postfix answers 451 4.3.5 and gives the filter up: the filter sent \"550 4.7.1 no\", two classes (D29)"
    );
    assert_eq!(played.filter.commands(), "OCHM");
}

#[test]
fn strictness_makes_faults_of_warnings() {
    let strict = Policy { default_action: None, strict: true };
    let add = Modification::AddHeader { name: b"N", value: b"a\nEvil: y" };
    let folded = play_by(Flavor::Postfix37, strict, b'E', modifications(&[add], Reply::Continue));
    match folded {
        Err(Error::Protocol { during: Kind::EndOfMessage, fault: Fault::Warned(warning) }) => {
            assert_eq!(warning.statement, "D39");
        }
        _ => panic!("the warning has passed"),
    }
    let agreed = wants(1, Actions::empty(), Steps::empty());
    let (session, _filter) = open(Flavor::Postfix37, offer(6), agreed, Vec::new(), &MacroValues::default());
    assert!(matches!(
        session.unwrap().with_policy(strict),
        Err(Error::Protocol { during: Kind::Negotiate, fault: Fault::Warned(_) })
    ));
}

#[test]
fn half_a_body_is_never_accepted_by_postfix_3_12() {
    let policy = Policy { default_action: Some(DefaultAction::Accept), strict: false };
    let half = [b"\0\0\0\x02bx".to_vec(), b"\0\0\0\x01Z".to_vec()].concat();
    let of = |like| play_by(like, policy, b'E', half.clone()).unwrap().deliveries[0].disposition.clone();
    assert_eq!(of(Flavor::Postfix37), Disposition::Accepted);
    assert_eq!(of(Flavor::Postfix312), tempfailed("421 4.7.0 Server closing connection"));
}

#[test]
fn the_end_of_a_message_has_a_limit_that_progress_does_not_extend() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let filter = std::thread::spawn(move || {
        while let Some((kind, _)) = read_frame(&mut theirs) {
            let mut answer = Vec::new();
            match kind {
                b'O' => wants(6, Actions::empty(), Steps::empty()).encode(&mut answer, usize::MAX).unwrap(),
                b'E' => {
                    std::thread::sleep(Duration::from_millis(30));
                    answer = modifications(&[Modification::Progress], Reply::Continue);
                }
                _ => {}
            }
            if theirs.write_all(&answer).is_err() {
                break;
            }
        }
    });
    let total = Duration::from_millis(20);
    let limits = Limits { end_of_message: Some(total), ..Limits::all(Duration::from_secs(30)) };
    let values = MacroValues::default();
    let link = Link::with_limits(Stream::Unix(ours), limits);
    let mut session = Session::negotiate(link, Flavor::Sendmail, offer(6), &values).unwrap();
    let end = session.tell(&Request::EndOfMessage, &values);
    assert!(
        matches!(end, Err(Error::Timeout { during: Kind::EndOfMessage, after }) if after == total),
        "{end:?}"
    );
    drop(session);
    filter.join().unwrap();
}

#[test]
fn refused_recipients_are_told_to_who_asks_for_them() {
    for (steps, commands) in [(Steps::RCPT_REJ, "OCHMRRRTLLLNBEQ"), (Steps::empty(), "OCHMRRTLLLNBEQ")] {
        let values = MacroValues::default();
        let agreed = wants(6, Actions::empty(), steps);
        let script = vec![(b'R', reply(Reply::TempFail))];
        let (session, filter) = open(Flavor::Sendmail, offer(6), agreed, script, &values);
        let client = client();
        let message = Message::parse(FILE);
        let mut replies = Vec::new();
        let mut observer = |exchange: &Exchange| replies.extend(exchange.reply.clone());
        let mut player = Player::new(session.unwrap(), Flavor::Sendmail, &client, values, &mut observer);
        let nobody = Mailbox::parse(b"<nobody@example.org>");
        player.refuse_recipients(vec![(nobody.clone(), b"550 5.1.1 User unknown".to_vec())]);
        player.greet(&[]).unwrap();
        let delivery = player.deliver(&submission(&message, None)).unwrap();
        player.leave().unwrap();
        assert_eq!(delivery.refused[0], (nobody, b"550 5.1.1 User unknown".to_vec()));
        assert_eq!(replies[0], b"550 5.1.1 User unknown", "whatever the filter says");
        let frames = filter.frames();
        let told: String =
            frames.iter().map(|(kind, _)| char::from(*kind)).filter(|kind| *kind != 'D').collect();
        assert_eq!(told, commands);
        let macros = b"R{rcpt_mailer}\0error\0{rcpt_host}\x005.1.1\0{rcpt_addr}\0User unknown\0".to_vec();
        assert_eq!(frames.contains(&(b'D', macros)), steps == Steps::RCPT_REJ);
    }
}

#[test]
fn local_mail_cannot_lose_a_single_recipient() {
    let values = MacroValues::default();
    let agreed = wants(6, Actions::empty(), Steps::empty());
    let script = vec![(b'R', reply(Reply::Reject))];
    let (session, filter) = open(Flavor::Postfix37, offer(6), agreed, script, &values);
    let client = client();
    let message = Message::parse(FILE);
    let mut warned = Vec::new();
    let mut observer =
        |exchange: &Exchange| warned.extend(exchange.warnings.iter().map(|warning| warning.statement));
    let mut player = Player::new(session.unwrap(), Flavor::Postfix37, &client, values, &mut observer);
    player.play_local_mail();
    player.greet(&[]).unwrap();
    let delivery = player.deliver(&submission(&message, None)).unwrap();
    player.leave().unwrap();
    assert!(matches!(delivery.disposition, Disposition::TempFailed(_)), "{delivery:?}");
    assert_eq!(warned, ["D47"]);
    let frames = filter.frames();
    assert!(frames.contains(&(b'M', b"s@example.com\0SIZE=5\0".to_vec())), "{frames:?}");
}

#[test]
fn too_many_macros_for_sendmail() {
    let list = |count: usize| {
        let names: Vec<_> = (0..count).map(|number| format!("{{m{number}}}")).collect();
        let mut agreed = wants(6, Actions::SETSYMLIST, Steps::empty());
        agreed.macro_lists = vec![(MacroStage::Connect, names.join(" ").into_bytes())];
        agreed
    };
    assert_eq!(negotiated(Flavor::Sendmail, 6, list(51)), Ok((6, vec!["B24"])));
    assert_eq!(negotiated(Flavor::Sendmail, 6, list(50)), Ok((6, vec![])));
    assert_eq!(negotiated(Flavor::Postfix37, 6, list(51)), Ok((6, vec![])));
}

#[test]
fn an_address_in_utf_8_is_the_first_string_alone() {
    let mut bytes = Vec::new();
    let sender = Mailbox::parse("<ü@ö> SMTPUTF8".as_bytes());
    let values = MacroValues::default();
    let agreed = wants(6, Actions::empty(), Steps::empty());
    let (session, filter) = open(Flavor::Sendmail, offer(6), agreed, Vec::new(), &values);
    let mut session = session.unwrap();
    session.tell(&Request::Mail(&sender), &values).unwrap();
    session.close().unwrap();
    bytes.extend_from_slice("<ü@ö>\0SMTPUTF8\0".as_bytes());
    assert_eq!(filter.frames().last().unwrap(), &(b'M', bytes));
}
