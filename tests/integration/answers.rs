//! Filters that answer what they should not, or what an MTA changes, in front of the real mail servers and played
//! (see `habits`): malformed replies, odd values and addresses, answers out of place, connections that end. The filter
//! here writes its own bytes, because our library does not send such things.

use milter::mta::{DefaultAction, Flavor};
use milter::protocol::{Modification, Reply, Steps};

use crate::habits::{Behaviour, Real, assert_equal, compare_session, played_locally, played_with_refused};
use crate::mail_servers::server::Kind;

/// A name for the case, and what the filter does.
type Case = (String, Behaviour);

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).unwrap().to_be_bytes();
    [&length, &[kind][..], payload].concat()
}

fn own_reply(text: &[u8]) -> Vec<u8> {
    frame(b'y', &[text, b"\0"].concat())
}

fn go_on() -> Vec<u8> {
    frame(b'c', b"")
}

/// A filter that gives this answer to the first command with that byte.
fn answering(command: u8, answer: Vec<u8>) -> Behaviour {
    Behaviour { answers: vec![(command, Some(answer))], ..Behaviour::new(Steps::empty()) }
}

fn hanging_up(command: u8) -> Behaviour {
    Behaviour { answers: vec![(command, None)], ..Behaviour::new(Steps::empty()) }
}

/// A filter that sends these frames, and then lets the first message pass.
fn changing(changes: &[Vec<u8>]) -> Behaviour {
    answering(b'E', [changes.concat(), go_on()].concat())
}

fn change(modification: Modification<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    modification.encode(&mut bytes, 1 << 20).unwrap();
    bytes
}

fn add(name: &[u8], value: &[u8]) -> Vec<u8> {
    change(Modification::AddHeader { name, value })
}

/// Plays all cases in front of one real server and without it.
#[track_caller]
fn compare(kind: Kind, default_action: DefaultAction, cases: Vec<Case>) {
    let like = match kind {
        Kind::Postfix => Flavor::Postfix37,
        Kind::Sendmail => Flavor::Sendmail,
    };
    let mut server = Real::start(kind, default_action);
    for (name, behaviour) in cases {
        compare_session(&mut server, like, &name, &behaviour, default_action);
    }
}

/// Every reply at every one of these commands.
fn replies(commands: &[u8], replies: &[&[u8]]) -> Vec<Case> {
    let case = |command: &u8, text: &&[u8]| {
        let name = format!("{} at {}", text.escape_ascii(), char::from(*command));
        (name, answering(*command, own_reply(text)))
    };
    commands.iter().flat_map(|command| replies.iter().map(move |text| case(command, text))).collect()
}

/// Own replies that are in order; 421 among them.
const GOOD: &[&[u8]] = &[
    b"550 5.7.1 no",
    b"450 later",
    b"554 5.7.1 no",
    b"553 5.1.3 no",
    b"550-5.7.1 a\r\n550 5.7.1 b",
    b"450-4.1.1 a\r\n450-4.1.1 b\r\n450 4.1.1 c",
    b"550 5.7.1 100%% sure",
    b"421 4.7.0 bye",
    b"421 bye",
];

/// Own replies that an MTA does not take, or changes, or that the client takes amiss. Not among them: what makes a
/// server send its memory.
const BAD: &[&[u8]] = &[
    b"250 ok",
    b"354 go",
    b"xyz",
    b"55",
    b"",
    b"550 ",
    b"5501 x",
    b"550no",
    b"550 4.7.1 no",
    b"550 2.1.0 no",
    b"550 3.7.1 no",
    b"450 5.7.1 no",
    b"550 5 items",
    b"550 5.7.1",
    b"550 100% sure",
    b"550 5.7.1 100% sure",
    b"550-5.7.1 100% a\r\n550 5.7.1 50%% b",
    b"550-a\r\n450 b",
    b"550-a\n550 b",
    b"550-a\r\nb",
    b"550 5.7.1 a\r\n550 5.7.1 b",
    b"550 a\r\n",
    b"550-5.7.1 open",
    b"550-a\r\n550-b",
    b"550 5.7.1 a\tb",
    b"550 5.7.1 caf\xe9",
    b"550 5.7.1 \xc3\xbc",
    b"421 5.7.0 x",
    b"650 x",
];

#[test]
fn postfix_judges_replies_in_the_smtp_dialogue() {
    compare(Kind::Postfix, DefaultAction::TempFail, replies(b"CHMRT", GOOD));
    compare(Kind::Postfix, DefaultAction::TempFail, replies(b"HMR", BAD));
}

#[test]
fn postfix_judges_replies_to_a_message() {
    compare(Kind::Postfix, DefaultAction::TempFail, replies(b"LNBE", &GOOD[..6]));
    compare(Kind::Postfix, DefaultAction::TempFail, replies(b"E", &[GOOD, BAD].concat()));
}

#[test]
fn sendmail_judges_replies_in_the_smtp_dialogue() {
    compare(Kind::Sendmail, DefaultAction::TempFail, replies(b"CHMRT", GOOD));
    compare(Kind::Sendmail, DefaultAction::TempFail, replies(b"HMR", BAD));
}

#[test]
fn sendmail_judges_replies_to_a_message() {
    compare(Kind::Sendmail, DefaultAction::TempFail, replies(b"LNBE", &GOOD[..6]));
    compare(Kind::Sendmail, DefaultAction::TempFail, replies(b"E", &[GOOD, BAD].concat()));
}

/// The plain answers at every command.
fn verdicts() -> Vec<Case> {
    let answers = [Reply::Reject, Reply::TempFail, Reply::Accept, Reply::Discard];
    let mut cases = Vec::new();
    for command in *b"CHMRTLNBE" {
        for answer in answers {
            let name = format!("{answer:?} at {}", char::from(command));
            cases.push((name, answering(command, frame(answer as u8, b""))));
        }
    }
    cases
}

#[test]
fn postfix_words_plain_answers() {
    compare(Kind::Postfix, DefaultAction::TempFail, verdicts());
}

#[test]
fn sendmail_words_plain_answers() {
    compare(Kind::Sendmail, DefaultAction::TempFail, verdicts());
}

/// What filters want changed, and what of it the MTA repairs or leaves out.
fn changes() -> Vec<Case> {
    let values: &[&[u8]] = &[
        b"a\nEvil: y",
        b"a\r\nEvil: y",
        b"a\r\n\tb",
        b"a\n\nbody",
        b"a\r\n\r\nbody",
        b"a\rb",
        b"a\n",
        b"\na",
        b"",
        b"a\n \n b",
    ];
    let names: &[&[u8]] = &[b"", b"X: Y", b"X\nY", b"X Y", b"X-\xe9"];
    let mut cases = Vec::new();
    let mut case = |name: String, changes: &[Vec<u8>]| cases.push((name, changing(changes)));
    for value in values {
        let quoted = value.escape_ascii();
        case(format!("add {quoted}"), &[add(b"X-N", value)]);
        let insert = change(Modification::InsertHeader { index: 1, name: b"X-N", value });
        let alter = change(Modification::ChangeHeader { index: 1, name: b"X-A", value });
        case(format!("insert and change {quoted}"), &[insert, alter]);
    }
    for name in names {
        let quoted = name.escape_ascii();
        case(format!("add under {quoted}"), &[add(name, b"v")]);
        case(
            format!("insert under {quoted}"),
            &[change(Modification::InsertHeader { index: 1, name, value: b"v" })],
        );
        case(
            format!("change {quoted}"),
            &[add(b"X-N", b"v"), change(Modification::ChangeHeader { index: 1, name, value: b"v" })],
        );
    }
    for index in [0, 1 << 31, u32::MAX] {
        let insert = change(Modification::InsertHeader { index, name: b"X-N", value: b"v" });
        let alter = change(Modification::ChangeHeader { index, name: b"X-A", value: b"v" });
        case(format!("index {index}"), &[insert, alter]);
    }
    // What counts behind a deletion.
    let alter = |index, value| change(Modification::ChangeHeader { index, name: b"X-A", value });
    let delete = |index| alter(index, b"");
    let insert = |index| change(Modification::InsertHeader { index, name: b"X-N", value: b"v" });
    for (name, changes) in [
        ("the first and the second", vec![delete(1), delete(2)]),
        ("the second and the first", vec![delete(2), delete(1)]),
        ("the first twice", vec![delete(1), delete(1)]),
        ("and change it", vec![delete(1), alter(1, b"v")]),
        ("and change the second", vec![delete(1), alter(2, b"v")]),
        ("and change the third", vec![delete(1), alter(3, b"v")]),
        ("and change the fourth", vec![delete(1), alter(4, b"v")]),
        ("and add", vec![delete(1), add(b"X-A", b"v")]),
        ("the second and add", vec![delete(2), add(b"X-A", b"v")]),
        ("all and add", vec![delete(3), delete(2), delete(1), add(b"X-A", b"v")]),
        (
            "an added one",
            vec![
                add(b"X-N", b"v"),
                change(Modification::ChangeHeader { index: 1, name: b"X-N", value: b"" }),
            ],
        ),
        ("and insert near", vec![delete(1), insert(7)]),
        ("and insert behind", vec![delete(1), insert(15)]),
        ("the second and insert", vec![delete(2), insert(17)]),
    ] {
        case(format!("delete: {name}"), &changes);
    }
    cases
}

/// Addresses and arguments that both MTAs understand, each in its way.
fn envelopes() -> Vec<Case> {
    let addresses: &[&[u8]] = &[
        b"<n@example.net>\r\n X",
        b"<n@example.net> X",
        b"<n@example.net> NOTIFY=NEVER",
        b"<n@example.net>,<o@example.net>",
        b"n@example.net, o@example.net",
        b" n@example.net\n",
        b"Name <n@example.net>",
        b"n@example.net (comment)",
        b"<\"x y\"@example.net>",
        b"<n @ example.net>",
        b"",
        b"<bob@example.net>",
        b"BOB@example.net",
    ];
    let arguments: &[&[u8]] = &[
        b"",
        b"notify=never",
        b"NOTIFY=SUCCESS,DELAY",
        b"ORCPT=rfc822;x@y.example",
        b"NOTIFY=NEVER ORCPT=rfc822;x@y.example",
        b"  NOTIFY=NEVER  ",
    ];
    let of_senders: &[&[u8]] = &[
        b"",
        b"RET=HDRS",
        b"ret=full",
        b"ENVID=abc",
        b"RET=HDRS ENVID=x",
        b"BODY=7BIT",
        b"FOO=1",
        b"ENVID=a b",
    ];
    let mut cases = Vec::new();
    let mut case = |name: String, changes: &[Vec<u8>]| cases.push((name, changing(changes)));
    for address in addresses {
        case(format!("add {}", address.escape_ascii()), &[change(Modification::AddRecipient(address))]);
    }
    for address in [&b"<bob@example.net> X"[..], b" Bob <bob@example.net>", b"BOB@example.net", b""] {
        case(format!("delete {}", address.escape_ascii()), &[change(Modification::DeleteRecipient(address))]);
    }
    for arguments in arguments {
        let add = Modification::AddRecipientWith { address: b"<n@example.net>", arguments: Some(arguments) };
        case(format!("add with {}", arguments.escape_ascii()), &[change(add)]);
    }
    for arguments in of_senders {
        let sender = Modification::ChangeSender { address: b"<new@example.com>", arguments: Some(arguments) };
        case(format!("sender with {}", arguments.escape_ascii()), &[change(sender)]);
    }
    for address in [&b"<>"[..], b"new@example.com", b"<new@example.com>\r\nX", b"Name <new@example.com>", b""]
    {
        let sender = Modification::ChangeSender { address, arguments: None };
        case(format!("sender {}", address.escape_ascii()), &[change(sender)]);
    }
    cases
}

/// Bodies in pieces, mixed with other answers and not.
fn bodies() -> Vec<Case> {
    let body = |text: &[u8]| frame(b'b', text);
    let all: &[(&str, &[Vec<u8>])] = &[
        ("pieces", &[body(b"a\r"), body(b"\nb\r\n")]),
        ("line ends", &[body(b"a\nb\r\n")]),
        ("nothing", &[body(b"")]),
        ("behind a field", &[add(b"X-N", b"v"), body(b"a\r\n")]),
        ("before a field", &[body(b"a\r\n"), add(b"X-N", b"v")]),
        ("around a field", &[body(b"a\r\n"), add(b"X-N", b"v"), body(b"b\r\n")]),
        ("around progress", &[body(b"a\r\n"), frame(b'p', b""), body(b"b\r\n")]),
        ("around a recipient", &[body(b"a\r\n"), frame(b'+', b"n@example.net\0"), body(b"b\r\n")]),
        ("large", &[body(&b"0123456789\r\n".repeat(6000))]),
    ];
    all.iter().map(|(name, changes)| (format!("body: {name}"), changing(changes))).collect()
}

#[test]
fn postfix_changes_messages() {
    compare(Kind::Postfix, DefaultAction::TempFail, changes());
}

#[test]
fn sendmail_changes_messages() {
    compare(Kind::Sendmail, DefaultAction::TempFail, changes());
}

/// What smfi_chgheader(3) and smfi_delrcpt(3) say that a mail server does. The message has `X-A` three times.
fn deletions(kind: Kind) {
    let change_field = |index, value| change(Modification::ChangeHeader { index, name: b"X-A", value });
    let delete_field = |index| change_field(index, b"");
    let delete_recipient = |address| change(Modification::DeleteRecipient(address));
    let fields = ["X-A: one", "X-a:   three", "X-A: last"];
    let second_behind_a_deletion = match kind {
        Kind::Postfix => fields[2],
        Kind::Sendmail => fields[1],
    };
    let left = |gone: &str| fields[1..].iter().copied().filter(|field| *field != gone).collect::<Vec<_>>();
    let recipients = ["<bob@example.net>", "<carol@example.net>", "<dave@example.net>"];
    let mut server = Real::start(kind, DefaultAction::TempFail);
    for (name, changes, fields_left, recipients_left) in [
        (
            "first, second",
            vec![delete_field(1), delete_field(2)],
            left(second_behind_a_deletion),
            &recipients[..],
        ),
        ("the last one first", vec![delete_field(2), delete_field(1)], vec![fields[2]], &recipients),
        ("there are fewer", vec![change_field(4, b"v")], vec!["X-A: v"], &recipients),
        ("there are fewer to delete", vec![delete_field(4)], fields.to_vec(), &recipients),
        (
            "as the server has it",
            vec![delete_recipient(b"<bob@example.net>")],
            fields.to_vec(),
            &recipients[1..],
        ),
        ("spelt otherwise", vec![delete_recipient(b"<BOB@example.net>")], fields.to_vec(), &recipients),
        ("no recipient", vec![delete_recipient(b"<eve@example.net>")], fields.to_vec(), &recipients),
    ] {
        let outcome = server.session(&changing(&changes), 2);
        let first = outcome.delivered.iter().find(|message| message.contains("the first")).unwrap();
        let mut lines: Vec<_> =
            first.lines().filter(|line| line.to_lowercase().starts_with("x-a:")).collect();
        // Where a field is added is up to the server.
        if name == "there are fewer" {
            assert_eq!(lines.len(), 4, "{first}");
            lines.retain(|line| !fields.contains(line));
        }
        assert_eq!(lines, fields_left, "{name}: {first}");
        let envelope = format!("<ann@example.com> to {}", recipients_left.join(", "));
        assert_eq!(first.lines().next(), Some(&*envelope), "{name}: {first}");
    }
}

#[test]
fn postfix_deletes_as_the_manual_says() {
    deletions(Kind::Postfix);
}

#[test]
fn sendmail_deletes_as_the_manual_says() {
    deletions(Kind::Sendmail);
}

#[test]
fn postfix_changes_envelopes_and_bodies() {
    let mut cases = envelopes();
    // Postfix drops these and keeps the recipient; Sendmail's session with its client ends.
    for arguments in [&b"BODY=7BIT FOO=1"[..], b"NOTIFY=FOO", b"NOTIFY=NEVER NOTIFY=SUCCESS", b"ORCPT=x@y"] {
        let add = Modification::AddRecipientWith { address: b"<n@example.net>", arguments: Some(arguments) };
        cases.push((format!("add with {}", arguments.escape_ascii()), changing(&[change(add)])));
    }
    for address in
        [&b"n@example.net X"[..], b"n", b"<>", b"\"n\"@example.net", b"n.@example.net", b"x y@example.net"]
    {
        let name = format!("add {}", address.escape_ascii());
        cases.push((name, changing(&[change(Modification::AddRecipient(address))])));
    }
    cases.extend(bodies());
    compare(Kind::Postfix, DefaultAction::TempFail, cases);
}

#[test]
fn sendmail_changes_envelopes_and_bodies() {
    compare(Kind::Sendmail, DefaultAction::TempFail, [envelopes(), bodies()].concat());
}

/// What no filter should do, at each command.
fn failures() -> Vec<Case> {
    let mut cases = Vec::new();
    for command in *b"CHMRTLNBE" {
        let at = char::from(command);
        cases.push((format!("hangs up at {at}"), hanging_up(command)));
        cases.push((format!("'Z' at {at}"), answering(command, frame(b'Z', b""))));
    }
    for (name, command, answer) in [
        ("change before the end", b'N', [add(b"X-N", b"v"), go_on()].concat()),
        ("negotiation again", b'M', frame(b'O', &[0; 12])),
        ("CONN_FAIL", b'M', frame(b'f', b"")),
        ("progress with data", b'M', [frame(b'p', b"x"), go_on()].concat()),
        ("skip at the end", b'E', frame(b's', b"")),
        ("a change, then 'Z'", b'E', [add(b"X-N", b"v"), frame(b'Z', b"")].concat()),
        ("half a body, then 'Z'", b'E', [frame(b'b', b"a\r\n"), frame(b'Z', b"")].concat()),
        ("malformed reply to the second recipient", b'R', own_reply(b"xyz")),
        ("malformed reply to the end", b'E', own_reply(b"xyz")),
    ] {
        cases.push((name.to_owned(), answering(command, answer)));
    }
    // The first recipient passes.
    for answer in [None, Some(frame(b'Z', b"")), Some(own_reply(b"xyz"))] {
        let behaviour = Behaviour {
            answers: vec![(b'R', Some(go_on())), (b'R', answer.clone())],
            ..Behaviour::new(Steps::empty())
        };
        cases.push((format!("{answer:?} to the second recipient"), behaviour));
    }
    cases.extend(negotiations());
    cases
}

/// Answers to the negotiation that are not in order.
fn negotiations() -> Vec<Case> {
    let terms = |version: u32, actions: u32, steps: u32, rest: &[u8]| {
        let numbers = [version, actions, steps].map(u32::to_be_bytes).concat();
        frame(b'O', &[&numbers, rest].concat())
    };
    let all = [
        ("version 0", terms(0, 0x1ff, 0, b"")),
        ("version 1", terms(1, 0x1ff, 0, b"")),
        ("version 2", terms(2, 0x1ff, 0, b"")),
        ("version 7", terms(7, 0x1ff, 0, b"")),
        ("unknown action", terms(6, 0x3ff, 0, b"")),
        ("unknown step", terms(6, 0x1ff, 0x80_0000, b"")),
        ("list for an unknown stage", terms(6, 0x1ff, 0, b"\0\0\0\x09j\0")),
        ("incomplete list", terms(6, 0x1ff, 0, b"\0\0\0\x01j")),
        ("list for the end of the message alone", terms(6, 0x1ff, 0, b"\0\0\0\x05j {daemon_name}\0")),
        ("lists for both ends", terms(6, 0x1ff, 0, b"\0\0\0\x05j {daemon_name}\0\0\0\0\x06_\0")),
        ("too short", frame(b'O', b"\0\0\0\x06")),
        ("continue", go_on()),
    ];
    let case = |(name, answer): (&str, Vec<u8>)| {
        let behaviour = Behaviour { negotiation: Some(answer), ..Behaviour::new(Steps::empty()) };
        (format!("negotiation: {name}"), behaviour)
    };
    all.map(case).into()
}

#[test]
fn postfix_without_its_filter() {
    for action in
        [DefaultAction::TempFail, DefaultAction::Reject, DefaultAction::Accept, DefaultAction::Quarantine]
    {
        compare(Kind::Postfix, action, failures());
    }
}

#[test]
fn sendmail_without_its_filter() {
    for action in
        [DefaultAction::TempFail, DefaultAction::Reject, DefaultAction::Accept, DefaultAction::Shutdown]
    {
        compare(Kind::Sendmail, action, failures());
    }
}

/// Changes that were not declared, answers that only one of the two knows, data where none belongs.
fn peculiarities() -> Vec<Case> {
    let undeclared = |name: &str, changes: &[Vec<u8>]| {
        let negotiation = frame(b'O', &[6, 0x20, 0].map(u32::to_be_bytes).concat());
        let behaviour = Behaviour { negotiation: Some(negotiation), ..changing(changes) };
        (format!("undeclared {name}"), behaviour)
    };
    let mut cases = vec![
        undeclared("field", &[add(b"X-N", b"v")]),
        undeclared("recipient", &[frame(b'+', b"<n@example.net>\0")]),
        undeclared("body", &[frame(b'b', b"a\r\n")]),
        undeclared("sender", &[frame(b'e', b"<new@example.com>\0")]),
    ];
    for (name, command, answer) in [
        ("data behind continue", b'M', frame(b'c', b"x")),
        ("unterminated field", b'E', [frame(b'h', b"X-N\0v"), go_on()].concat()),
        ("half a field", b'E', [frame(b'h', b"X-N\0"), go_on()].concat()),
        ("two recipients", b'E', [frame(b'+', b"a@b\0c@d\0"), go_on()].concat()),
        ("two replies in one", b'M', frame(b'y', b"550 no\0x\0")),
        ("progress at MAIL", b'M', [frame(b'p', b""), go_on()].concat()),
        ("progress at the end of the header", b'N', [frame(b'p', b""), go_on()].concat()),
        ("progress at the end", b'E', [frame(b'p', b""), go_on()].concat()),
        ("quarantine", b'E', [frame(b'q', b"why\0"), go_on()].concat()),
        ("quarantine at MAIL", b'M', [frame(b'q', b"why\0"), go_on()].concat()),
        ("quarantine at CONNECT", b'C', [frame(b'q', b"why\0"), go_on()].concat()),
        ("quarantine at RCPT", b'R', [frame(b'q', b"why\0"), go_on()].concat()),
        ("quarantine and rejection at MAIL", b'M', [frame(b'q', b"why\0"), frame(b'r', b"")].concat()),
        ("quarantine and rejection at CONNECT", b'C', [frame(b'q', b"why\0"), frame(b'r', b"")].concat()),
        ("quarantine at the end of the header", b'N', [frame(b'q', b"why\0"), go_on()].concat()),
        ("quarantine and rejection there", b'N', [frame(b'q', b"why\0"), frame(b'r', b"")].concat()),
        ("SHUTDOWN at CONNECT", b'C', frame(b'4', b"")),
        ("SHUTDOWN at HELO", b'H', frame(b'4', b"")),
        ("SHUTDOWN at MAIL", b'M', frame(b'4', b"")),
        ("SHUTDOWN at DATA", b'T', frame(b'4', b"")),
        ("SHUTDOWN at a field", b'L', frame(b'4', b"")),
        ("SHUTDOWN at the end", b'E', frame(b'4', b"")),
        ("SHUTDOWN with data", b'M', frame(b'4', b"x")),
    ] {
        cases.push((name.to_owned(), answering(command, answer)));
    }
    cases
}

#[test]
fn postfix_and_peculiar_filters() {
    compare(Kind::Postfix, DefaultAction::TempFail, peculiarities());
}

#[test]
fn sendmail_and_peculiar_filters() {
    compare(Kind::Sendmail, DefaultAction::TempFail, peculiarities());
}

#[test]
fn postfix_gives_mail_that_does_not_come_by_smtp_to_its_filter() {
    let mut server = Real::start_for_local_mail();
    let changing = changing(&[add(b"X-N", b"v"), frame(b'+', b"<n@example.net>\0")]);
    for (name, sender, behaviour) in [
        ("plain", "ann@example.com", Behaviour::new(Steps::empty())),
        ("null sender", "", Behaviour::new(Steps::empty())),
        ("not all steps", "ann@example.com", Behaviour::new(Steps::NOHELO | Steps::NR_HDR)),
        ("changing", "ann@example.com", changing),
    ] {
        let real = server.local_sessions(&behaviour, sender);
        assert_equal(name, &played_locally(&behaviour, sender), &real);
    }
}

#[test]
fn postfix_tells_filters_of_refused_recipients() {
    let mut server = Real::start(Kind::Postfix, DefaultAction::TempFail);
    let answering = |answer| Behaviour { steps: Steps::RCPT_REJ | Steps::SKIP, ..answering(b'R', answer) };
    for (name, behaviour) in [
        ("not asked for", Behaviour::new(Steps::empty())),
        ("asked for", Behaviour::new(Steps::RCPT_REJ)),
        ("without answer", Behaviour::new(Steps::RCPT_REJ | Steps::NR_RCPT)),
        ("rejected", answering(frame(b'r', b""))),
        ("with a reply", answering(own_reply(b"450 4.7.1 mine"))),
        ("with 421", answering(own_reply(b"421 4.7.1 mine"))),
        ("accepted", answering(frame(b'a', b""))),
        ("discarded", answering(frame(b'd', b""))),
        ("skipped", answering(frame(b's', b""))),
        ("malformed", answering(own_reply(b"xyz"))),
    ] {
        let real = server.session_with_refused(&behaviour);
        assert_equal(name, &played_with_refused(&behaviour), &real);
    }
}

/// Answers to a line that the server does not know, which decide on nothing else.
fn unknown_commands() -> Vec<Case> {
    let asked = |name: &str, answers: Vec<(u8, Option<Vec<u8>>)>| {
        let behaviour = Behaviour { unknown: Some("XYZZY one  two"), answers, ..Behaviour::new(Steps::SKIP) };
        (format!("unknown command: {name}"), behaviour)
    };
    vec![
        asked("continue", Vec::new()),
        asked("reject", vec![(b'U', Some(frame(b'r', b"")))]),
        asked("tempfail", vec![(b'U', Some(frame(b't', b"")))]),
        asked("reply", vec![(b'U', Some(own_reply(b"554 5.7.1 no")))]),
        asked("421", vec![(b'U', Some(own_reply(b"421 4.7.0 bye")))]),
        asked("malformed", vec![(b'U', Some(own_reply(b"xyz")))]),
        asked("hang up", vec![(b'U', None)]),
    ]
}

#[test]
fn postfix_and_unknown_commands() {
    compare(Kind::Postfix, DefaultAction::TempFail, unknown_commands());
}

#[test]
fn sendmail_and_unknown_commands() {
    let accepting = Behaviour { unknown: Some("XYZZY"), ..answering(b'U', frame(b'a', b"")) };
    let cases = [unknown_commands(), vec![("unknown command: accept".to_owned(), accepting)]].concat();
    compare(Kind::Sendmail, DefaultAction::TempFail, cases);
}
