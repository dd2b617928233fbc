//! Protocol errors (contract 1): each ends just its own session, with one line in the log.

use super::{Filter, Mta, command, on_both, optneg};
use crate::support::{Library, free_port, temp_dir, wait_until};
use milter::protocol::Kind;
use socket2::SockRef;
use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

/// What an error comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Nothing,
    Negotiation,
    Client,
    Message,
    Data,
}

/// One protocol error: when it comes, the bytes, and words that its line in our log must hold.
type Case = (After, Vec<u8>, &'static str);

/// The errors that both libraries take for errors.
fn common() -> Vec<Case> {
    let mut cases: Vec<Case> = vec![
        (After::Nothing, command(Kind::Negotiate, &[0; 11]), "11 bytes"),
        (After::Nothing, command(Kind::Negotiate, &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]), "version 1"),
        (After::Nothing, vec![0, 0, 0, 1, b'Z'], "unknown command 'Z'"),
        (After::Client, vec![0, 0, 0, 1, b'c'], "unknown command 'c'"),
        (After::Message, vec![0, 0, 0, 1, 0], "unknown command '\\x00'"),
        (After::Message, vec![0, 1, 0, 1, b'B'], "65536 bytes"),
        (After::Client, vec![0x7f, 0xff, 0xff, 0xff, b'B'], "2147483646 bytes"),
        (After::Message, command(Kind::Macro, b""), "MACRO without data"),
        (After::Message, command(Kind::Body, b""), "BODY without data"),
        (After::Message, command(Kind::Unknown, b""), "UNKNOWN without data"),
        (After::Client, command(Kind::Mail, b""), "MAIL without data"),
        (After::Client, command(Kind::Mail, b"<a@b>"), "MAIL whose string does not end with NUL"),
        (After::Message, command(Kind::Rcpt, b""), "RCPT without data"),
        (After::Message, command(Kind::Rcpt, b"<a@b>"), "RCPT whose string does not end with NUL"),
        (After::Client, command(Kind::Helo, b""), "HELO without data"),
    ];
    for bad in [&b"a"[..], b"a\0", b"a\0b"] {
        cases.push((After::Data, command(Kind::Header, bad), "not a name and a value"));
    }
    cases.push((After::Data, command(Kind::Header, b""), "HEADER without data"));
    for (bad, words) in [
        (&b""[..], "CONNECT without data"),
        (b"host", "CONNECT whose string does not end with NUL"),
        (b"h\x004\0\x19127.0.0.1", "CONNECT whose string does not end with NUL"),
        (b"h\x004\0\x19no address\0", "bad address of family '4'"),
        (b"h\x006\0\x19127.0.0.1\0", "bad address of family '6'"),
        (b"h\0X\0\x19a\0", "bad address of family 'X'"),
    ] {
        cases.push((After::Negotiation, command(Kind::Connect, bad), words));
    }
    cases
}

/// The errors that the reference misses (contract 3, entry 2).
fn ours_only() -> Vec<Case> {
    vec![
        (After::Client, vec![0, 0, 0, 0, b'H'], "length 0"),
        (After::Message, vec![0x80, 0, 0, 0, b'B'], "2147483647 bytes"),
        (After::Message, vec![0xff, 0xff, 0xff, 0xff, b'B'], "4294967294 bytes"),
        (After::Negotiation, command(Kind::Connect, b"host\0"), "CONNECT without data"),
        (After::Client, command(Kind::Helo, b"no NUL"), "HELO whose string does not end with NUL"),
    ]
}

#[test]
fn each_ends_its_own_session_only() {
    on_both(|library| {
        let mut cases = common();
        if library == Library::Ours {
            cases.extend(ours_only());
        }
        // Ours logs a line of each kind once in a minute; the reference takes long to stop.
        let at_once = if library == Library::Ours { 1 } else { cases.len() };
        for cases in cases.chunks(at_once) {
            let filter = Filter::serve(library);
            // Session 1 goes on throughout.
            let mut other = Mta::greet(&filter);
            assert_eq!(other.connect_from("other"), 'c');
            for (number, case) in (2..).zip(cases) {
                check_error(&filter, library, number, case);
                other.command(Kind::Helo, b"still there\0");
                assert_eq!(other.answer(), 'c', "{case:?}");
            }
            other.quit();
            filter.wait_for("close 1");
        }
    });
}

/// Session `number` is played to an error.
#[track_caller]
fn check_error(filter: &Filter, library: Library, number: usize, (after, error, words): &Case) {
    let what = format!("{library:?}, after {after:?}: {}", error.escape_ascii());
    let logged_before = filter.log().len();
    let mut mta = Mta::connect(filter);
    if *after != After::Nothing {
        mta.negotiate();
    }
    if matches!(after, After::Client | After::Message | After::Data) {
        assert_eq!(mta.helo("faulty"), 'c', "{what}");
    }
    if matches!(after, After::Message | After::Data) {
        mta.begin_message();
    }
    if *after == After::Data {
        mta.command(Kind::Data, b"");
        assert_eq!(mta.answer(), 'c', "{what}");
    }
    mta.send(error);
    assert!(mta.has_ended(), "{what}");
    filter.wait_for(&format!("close {number}"));
    let malformed_mail = *after == After::Client && error[4] == b'M' && error.len() > 5;
    let in_message = matches!(after, After::Message | After::Data) || malformed_mail;
    assert_eq!(filter.count(&format!("abort {number}")), usize::from(in_message), "{what}");
    assert_eq!(filter.count(&format!("close {number}")), 1, "{what}");

    let log = filter.log().split_off(logged_before);
    assert!(log.iter().all(|line| line.starts_with("3 steered: ")), "{what}: {log:?}");
    if library == Library::Ours {
        assert_eq!(log.len(), 1, "{what}: {log:?}");
        assert!(log[0].contains(words), "{what}: {log:?}");
    }
}

/// A monitor that sends garbage does not fill the log, and hides no other error.
#[test]
fn lines_of_a_kind_are_logged_once_in_a_while() {
    let filter = Filter::serve(Library::Ours);
    let kinds: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.0\r\n\r\n", "protocol error: frame with 1195725855 bytes of data"),
        (b"\0\0\0\x01Z", "protocol error: unknown command 'Z'"),
        (b"\0\0\0\x01C", "protocol error: CONNECT without data"),
        (b"\0\0\0\x01H", "protocol error: HELO without data"),
    ];
    for _ in 0..3 {
        for (garbage, _) in kinds {
            let mut mta = Mta::connect(&filter);
            if garbage.ends_with(b"C") {
                mta.negotiate();
            }
            mta.send(garbage);
            assert!(mta.has_ended());
        }
    }
    filter.wait_for_count("close", 12);
    let log = filter.log();
    assert_eq!(log.len(), kinds.len(), "{log:#?}");
    for (line, (_, words)) in log.iter().zip(kinds) {
        assert!(line.contains(words), "{line} does not say {words}");
    }
}

/// What comes from outside cannot forge lines, nor command the terminal on which the log is read.
#[test]
fn control_characters_in_the_log_are_escaped() {
    for (conn, quoted) in [
        ("tcp\n\x1b[2J:1", "\"tcp\\n\\x1b[2J:1\": unknown socket type \"tcp\\n\\x1b[2J\""),
        ("inet:2\t5", "\"2\\t5\" is neither a port"),
        ("inet:25@[a\rb]", "host \"[a\\rb]\""),
        ("fd:\x7f", "\"\\x7f\" is not the number"),
    ] {
        let mut filter = Filter::start(Library::Ours, &["register", &format!("conn={conn}"), "open=0"]);
        filter.end();
        let log = filter.log();
        assert!(log.len() == 1 && log[0].contains(quoted), "{quoted} is not in {log:?}");
    }
}

/// What nobody reads and what does not fit on the disk is dropped, and nothing else is lost.
#[test]
fn debug_output_that_cannot_be_written_is_dropped() {
    let steps = ["register", "debug=1", "conn=unix:{dir}/s", "main"];
    let serve = |errors: Stdio| {
        let mut command = Library::Ours.command(super::program());
        command.stderr(errors);
        let filter = Filter::start_with(command, &steps);
        filter.wait_for_socket();
        let mut mta = Mta::order(&filter, "name");
        mta.begin_message();
        drop(mta);
        filter.wait_for("close 1");
        assert_eq!(filter.count("abort 1"), 1);
        assert_eq!(filter.log(), [""; 0]);
    };
    serve(File::options().write(true).open("/dev/full").unwrap().into());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    serve(writer.into());
    let dir = temp_dir();
    let file = dir.path().join("errors");
    serve(File::create(&file).unwrap().into());
    let output = std::fs::read_to_string(file).unwrap();
    assert!(output.starts_with("steered: OPTNEG with 12 bytes at stage Init\n"), "{output}");
    assert!(output.ends_with("steered: session ends at stage Rcpt: Closed\n"), "{output}");
}

/// Contract 3, entry 4; the reference sends nothing and lets the MTA wait.
#[test]
fn a_status_that_is_none_ends_the_session() {
    for status in ["5", "6", "9", "-1", "10", "11", "20", "21", "22"] {
        let filter = Filter::serve(Library::Ours);
        let mut mta = Mta::greet(&filter);
        assert_eq!(mta.connect_from("client"), 'c');
        mta.command(Kind::Helo, format!("status {status}\0").as_bytes());
        assert!(mta.has_ended(), "{status}");
        filter.wait_for("close 1");
        let line =
            format!("3 steered: the HELO callback returned {status}, which is no status, session ended");
        assert_eq!(filter.log(), [line]);
    }
}

/// Three numbers and a list of one macro are 18 bytes.
#[test]
fn a_negotiation_answer_that_is_too_large_ends_the_session() {
    on_both(|library| {
        for (limit, fits) in [(18, true), (17, false), (12, false)] {
            let limit = format!("maxdata={limit}");
            let steps = ["register", &limit, "macros=i", "conn=unix:{dir}/s", "main"];
            let filter = Filter::start(library, &steps);
            filter.wait_for_socket();
            let mut mta = Mta::connect(&filter);
            mta.send(&optneg());
            if fits {
                assert_eq!(mta.answer(), 'O', "{library:?}");
                continue;
            }
            assert!(mta.has_ended(), "{library:?}");
            filter.wait_for("close 1");
            assert_eq!(filter.count("setsymlist 0"), 1, "{library:?}");
            if library == Library::Ours {
                let line = "3 steered: negotiation: the answer is larger than smfi_setmaxdatasize allows, session ended";
                assert_eq!(filter.log(), [line]);
            }
        }
    });
}

/// Contract 3, entry 16.
#[test]
fn calls_for_a_session_that_has_ended_fail() {
    let filter = Filter::serve(Library::Ours);
    Mta::order(&filter, "first").quit();
    filter.wait_for("close 1");
    let _second = Mta::order(&filter, "late-calls");
    assert_eq!(filter.count("late -1 -1 -1 nothing nothing"), 1, "{:?}", filter.output());
}

#[test]
fn private_data_that_is_left_behind_is_a_warning() {
    on_both(|library| {
        let filter = Filter::serve(library);
        Mta::order(&filter, "keep-private").quit();
        Mta::order(&filter, "tidy").quit();
        filter.wait_for_count("close", 2);
        let mut third = Mta::order(&filter, "third");
        third.begin_message();
        let log = filter.log();
        assert!(log.len() == 1 && log[0].starts_with("4 steered: "), "{library:?}: {log:?}");
    });
}

/// A connection over TCP.
fn connect(port: u16) -> Mta<TcpStream> {
    let mut stream = None;
    wait_until("a connection", || {
        stream = TcpStream::connect(("127.0.0.1", port)).ok();
        stream.is_some()
    });
    Mta(stream.unwrap())
}

/// Closes a connection by a reset.
fn reset(mta: Mta<TcpStream>) {
    SockRef::from(&mta.0).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Health checks do that. In the middle of a session a reset is logged; the reference never does.
#[test]
fn a_reset_before_the_first_command_is_no_error() {
    on_both(|library| {
        let port = free_port("127.0.0.1");
        let conn = format!("conn=inet:{port}@127.0.0.1");
        let filter = Filter::start(library, &["register", &conn, "main"]);
        reset(connect(port));
        filter.wait_for("close 1");
        let silent = connect(port);
        // It is to fall silent first.
        std::thread::sleep(Duration::from_millis(150));
        reset(silent);
        filter.wait_for("close 2");
        assert_eq!(filter.log(), [""; 0], "{library:?}");
    });
    // Ours logs the others, the reference nothing.
    for (library, beginnings) in
        [(Library::Ours, &[3][..]), (Library::Ours, &[17]), (Library::Reference, &[3, 17])]
    {
        let port = free_port("127.0.0.1");
        let conn = format!("conn=inet:{port}@127.0.0.1");
        let filter = Filter::start(library, &["register", &conn, "main"]);
        for (number, &length) in (1..).zip(beginnings) {
            let mut mta = connect(port);
            mta.send(&optneg()[..length]);
            if length == optneg().len() {
                assert_eq!(mta.answer(), 'O');
            }
            reset(mta);
            filter.wait_for(&format!("close {number}"));
        }
        let line = "3 steered: connection to the MTA broke: Connection reset by peer (os error 104)";
        let lines = if library == Library::Ours { &[line][..] } else { &[] };
        assert_eq!(filter.log(), lines, "{library:?}, {beginnings:?}");
    }
}

/// Each shortage has its line, however soon after another one it comes.
#[test]
fn one_complaint_does_not_silence_another() {
    let filter = Filter::serve(Library::Ours);
    let mut mta = Mta::order(&filter, "poller-short");
    filter.wait_for(
        "syslog 3 steered: a silent session keeps its thread: Cannot allocate memory (os error 12)",
    );
    mta.command(Kind::Helo, b"threads-short\0");
    assert_eq!(mta.answer(), 'c');
    // Sessions take up the threads that there are, until one is refused.
    let mut holders = Vec::new();
    filter.wait_until("a connection is refused", || {
        let mut mta = Mta::connect(&filter);
        // It may be refused before it has said a word.
        let refused = mta.0.write_all(&optneg()).is_err() || mta.hear().is_none();
        holders.push(mta);
        refused
    });
    filter.wait_for("syslog 3 steered: no thread for another connection, refused");
    mta.command(Kind::Helo, b"threads-back\0");
    assert_eq!(mta.answer(), 'c');
}
