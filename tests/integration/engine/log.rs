//! What the library logs of sessions that end, if an administrator wants to know more: LIBMILTER_LOG.

use super::{Filter, Mta, SERVE, macros, optneg, program};
use crate::support::Library;
use milter::protocol::{Kind, MacroStage};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};

/// A filter whose standard error goes to the file `errors`.
fn start(variables: &[(&str, &str)], steps: &[&str]) -> (Filter, tempfile::NamedTempFile) {
    let errors = tempfile::NamedTempFile::new().unwrap();
    let mut command: Command = Library::Ours.command(program());
    command.envs(variables.iter().copied()).stderr(Stdio::from(errors.reopen().unwrap()));
    (Filter::start_with(command, steps), errors)
}

/// Sessions that end in each way that the library has a line for; the filter stops amid a message.
fn sessions(filter: &mut Filter) {
    for first in ["GET / HTTP/1.1\r\n\r\n", "EHLO client\r\n", "\x16\x03\x01\x02\0\x01", "PROXY TCP4 x\r\n"] {
        let mut other = Mta::connect(filter);
        other.send(first.as_bytes());
        assert!(other.has_ended());
    }
    let mut mta = Mta::order(filter, "message");
    mta.begin_message();
    mta.send(&macros(MacroStage::EndOfHeader, &[(b"i", b"4\"XyZ")]));
    mta.command(Kind::Body, b"x");
    assert_eq!(mta.answer(), 'c');
    mta.send(b"\0\0\0\0\0");
    assert!(mta.has_ended());
    Mta::greet(filter).quit();
    let mut cut = Mta::order(filter, "message");
    cut.send(&macros(MacroStage::Mail, &[(b"i", b"5")]));
    cut.begin_message();
    filter.daemon.signal(libc::SIGINT);
    assert!(cut.has_ended());
    assert_eq!(filter.end().last().unwrap(), "main 0");
}

#[test]
fn lines_tell_of_which_session_they_are() {
    let (mut filter, errors) = start(&[("LIBMILTER_LOG", "syslog")], &SERVE);
    sessions(&mut filter);
    let peer = format!("peer process {}", std::process::id());
    let frame = |length: u32| {
        format!(
            "3 steered: protocol error: frame with {length} bytes of data, the limit is 65535, session ended"
        )
    };
    let log = filter.log();
    let first = frame(u32::from_be_bytes(*b"GET ") - 1);
    assert_eq!(log[0], format!("{first}: the other end speaks HTTP (session 1, {peer}, no queue id)"));
    let empty = "3 steered: protocol error: frame of length 0, session ended";
    assert!(log[1].starts_with(empty) && log[1].ends_with(&format!(", {peer}, queue id 4\"XyZ)")), "{log:?}");
    let cut = "4 steered: the filter stops: a message is cut off, session ended";
    assert!(log[2].starts_with(cut) && log[2].ends_with(", queue id 5)"), "{log:?}");
    assert_eq!(log.len(), 3, "one of each kind: {log:?}");
    assert_eq!(fs::read_to_string(errors.path()).unwrap(), "");
}

#[test]
fn every_session_has_a_line_if_that_is_wanted() {
    let variables = [("LIBMILTER_LOG", "json"), ("LIBMILTER_LOG_LEVEL", "info")];
    let (mut filter, errors) = start(&variables, &SERVE);
    sessions(&mut filter);
    assert_eq!(filter.log(), [""; 0]);
    let text = fs::read_to_string(errors.path()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |key: &str| -> Vec<_> { lines.iter().map(|line| line[key].as_str().unwrap_or("")).collect() };
    assert_eq!(of("reason"), ["frame", "frame", "frame", "frame", "frame", "quit", "stop"]);
    assert_eq!(of("level"), ["error", "error", "error", "error", "error", "info", "warning"]);
    assert_eq!(of("queue_id"), ["", "", "", "", "4\"XyZ", "", "5"]);
    for (message, protocol) in of("message").into_iter().zip(["HTTP", "SMTP", "TLS", "the PROXY protocol"]) {
        assert!(message.ends_with(&format!("the other end speaks {protocol}")), "{message}");
    }
    let peer = format!("process {}", std::process::id());
    assert!(of("peer").iter().all(|other| *other == peer), "{text}");
    assert!(lines.iter().enumerate().all(|(at, line)| line["session"] == at + 1), "{text}");
}

/// Also what cannot be opened is logged there. Without a setting, nothing is printed, and lines have no details.
#[test]
fn lines_go_where_they_are_wanted() {
    let steps = ["register", "conn=unix:/nonexistent/s", "main"];
    let (mut filter, errors) = start(&[("LIBMILTER_LOG", "stderr")], &steps);
    assert_eq!(filter.end().last().unwrap(), "main -1");
    let text = fs::read_to_string(errors.path()).unwrap();
    assert!(text.starts_with("steered: error: smfi_main: connection \"unix:/nonexistent/s\": "), "{text}");
    assert_eq!(filter.log(), [""; 0]);

    let (mut filter, errors) =
        start(&[("LIBMILTER_LOG_LEVEL", "error"), ("LIBMILTER_SLOW_CALLBACK", "no")], &SERVE);
    let mut mta = Mta::connect(&filter);
    mta.send(&optneg());
    assert_eq!(mta.answer(), 'O');
    sessions(&mut filter);
    let log = filter.log();
    assert!(log[1].ends_with("session ended") && log.len() == 3, "{log:?}");
    assert_eq!(fs::read_to_string(errors.path()).unwrap(), "");
}
