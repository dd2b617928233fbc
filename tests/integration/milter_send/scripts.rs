//! What milter-send does for scripts and test suites.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use serde_json::Value;

use super::{Sent, Server, answer, command, send, send_timed};
use crate::support::{PATIENCE, stdout, temp_dir};

/// A filter that adds a field to every message.
fn adds_a_field() -> Server {
    Server::filter(|stream| {
        answer(stream, |command| match command {
            b'E' => b"\0\0\0\x0chX-Spam\0yes\0\0\0\0\x01c",
            _ => b"\0\0\0\x01c",
        });
    })
}

fn ask(arguments: &[&str]) -> Sent {
    let filter = adds_a_field();
    let sent = send(&filter.spec, &[arguments, &["8bit.eml"]].concat(), b"");
    filter.end();
    sent
}

#[test]
fn the_report_has_a_version_and_times() {
    let filter = adds_a_field();
    let report = send_timed(&filter.spec, &["--json", "8bit.eml"], b"").json();
    filter.end();
    assert_eq!(report["schema"], 1);
    let time = |place: &str| report.pointer(place).and_then(Value::as_f64);
    let helo = report["exchanges"]
        .as_array()
        .unwrap()
        .iter()
        .find(|exchange| exchange["command"] == "HELO")
        .unwrap();
    assert!(helo["milliseconds"].is_number(), "{helo}");
    let (message, total) = (time("/messages/0/milliseconds").unwrap(), time("/milliseconds/total").unwrap());
    assert!(0.0 < message && message < total, "{message} {total}");
    assert!(time("/milliseconds/filter").unwrap() < total);
    assert!(time("/negotiation/milliseconds").is_some());
    // Without them two runs are equal.
    let [mut one, mut other] = [0; 2].map(|_| ask(&["--json", "--no-received"]).json());
    (one["filter"], other["filter"]) = ("".into(), "".into());
    assert_eq!(one, other);
}

#[test]
fn interrupted_it_tells_how_far_it_came() {
    for (signal, name) in [(libc::SIGINT, "SIGINT"), (libc::SIGTERM, "SIGTERM"), (libc::SIGHUP, "SIGHUP")] {
        for form in ["--json", "--tap", "--junit"] {
            let (reached, at_helo) = channel();
            let filter = Server::filter(move |stream| {
                answer(stream, |command| {
                    if command == b'H' {
                        reached.send(()).unwrap();
                        // The answer comes late: behind the end of the connection it goes nowhere.
                        return b"";
                    }
                    b"\0\0\0\x01c"
                });
            });
            let child = command()
                .args([&filter.spec, form, "--expect", "accept", "8bit.eml"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            at_helo.recv_timeout(PATIENCE).unwrap();
            // SAFETY: kill takes numbers only; the child has not been waited for.
            assert_eq!(unsafe { libc::kill(child.id().cast_signed(), signal) }, 0);
            let output = child.wait_with_output().unwrap();
            filter.end();
            assert_eq!(output.status.signal(), Some(signal), "{name} {:?}", output.status);
            let dialogue = String::from_utf8(output.stderr).unwrap();
            let sent = Sent { status: 0, message: output.stdout, dialogue };
            let error = format!("interrupted by {name}");
            match form {
                "--json" => {
                    let report = sent.json();
                    assert_eq!(report["error"], error.as_str());
                    assert_eq!(report["exchanges"].as_array().unwrap().len(), 1, "{report}");
                }
                "--tap" => assert_eq!(sent.text(), format!("TAP version 14\n1..1\nBail out! {error}\n")),
                _ => assert!(well_formed(&sent.text()).contains(&format!("<error message=\"{error}\"/>"))),
            }
        }
    }
}

/// Checks that a text is XML.
fn well_formed(xml: &str) -> &str {
    let dir = temp_dir();
    let file = dir.path().join("report.xml");
    fs::write(&file, xml).unwrap();
    let parse =
        "import sys, xml.dom.minidom; print(xml.dom.minidom.parse(sys.argv[1]).documentElement.tagName)";
    assert_eq!(stdout(Command::new("python3").args(["-c", parse]).arg(file)), "testsuites\n");
    xml
}

#[test]
fn nobody_listens_and_it_ends_quietly() {
    // Where its standard output and standard error go.
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    // The reading end is gone at once.
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    type Place<'a> = &'a dyn Fn() -> Stdio;
    let nowhere: Place<'_> = &Stdio::null;
    for (name, out, err, arguments) in [
        ("full stderr", nowhere, &full as Place<'_>, &[][..]),
        ("closed stderr", nowhere, &closed, &[]),
        ("full stdout", &full, nowhere, &[]),
        ("closed stdout", &closed, nowhere, &[]),
        ("full both", &full, &full, &[]),
        ("full stdout, JSON", &full, nowhere, &["--json"]),
        ("closed stdout, JSON", &closed, nowhere, &["--json"]),
        ("closed both, TAP", &closed, &closed, &["--tap", "--expect", "accept", "--show", "steps"]),
    ] {
        let filter = adds_a_field();
        let mut program = command();
        program.arg(&filter.spec).args(arguments).arg("8bit.eml").stdout(out()).stderr(err());
        let status = program.status().unwrap();
        filter.end();
        assert_eq!(status.code(), Some(7), "{name}: {status}");
    }
    for arguments in [&["--completions", "bash"][..], &["/nonexistent", "8bit.eml", "--json"]] {
        assert_eq!(
            command().args(arguments).stdout(closed()).stderr(full()).status().unwrap().code(),
            Some(7)
        );
    }
    assert_eq!(
        command().args(["/nonexistent", "8bit.eml"]).stderr(closed()).status().unwrap().code(),
        Some(7)
    );
    assert_eq!(command().arg("--help").stdout(closed()).status().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_goes_away_needs_no_message() {
    let filter = adds_a_field();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command().args([&filter.spec, "--json", "8bit.eml"]).stdout(writer).output().unwrap();
    filter.end();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_full_standard_error_leaves_the_report_whole() {
    let filter = adds_a_field();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut program = command();
    program.args([&filter.spec, "--json", "--show", "steps", "8bit.eml"]).stdout(Stdio::piped()).stderr(full);
    let output = program.spawn().unwrap().wait_with_output().unwrap();
    filter.end();
    let sent =
        Sent { status: output.status.code().unwrap(), message: output.stdout, dialogue: String::new() };
    assert!(sent.json()["error"].as_str().unwrap().starts_with("standard error: "), "{sent:?}");
    assert_eq!(sent.status, 7);
}

#[test]
fn times_that_no_clock_can_add() {
    assert_eq!(send("unix:/s", &["--timeout", "1e19", "8bit.eml"], b"").status, 2);
}

#[test]
fn expectations_decide_on_the_exit_status() {
    let reject = |arguments: &[&str]| {
        let filter = Server::filter(|stream| {
            answer(
                stream,
                |command| if command == b'R' { b"\0\0\0\x0ey550 5.7.1 No\0" } else { b"\0\0\0\x01c" },
            );
        });
        let sent = send(&filter.spec, &[arguments, &["8bit.eml"]].concat(), b"");
        filter.end();
        sent
    };
    let good = ["--expect", "accept", "--expect", "header X-Spam: yes", "--expect", "no header X-Ham"];
    assert_eq!(ask(&good).status, 0);
    let bad = ask(&["--expect", "header X-Spam: no", "--expect", "accept"]);
    assert_eq!(bad.status, 8);
    assert!(bad.dialogue.contains("  not as expected header X-Spam: no: there is X-Spam: yes\n"), "{bad:?}");
    assert!(bad.dialogue.contains("  as expected accept\n"), "{bad:?}");
    assert_eq!(
        reject(&["--expect", "reject", "--expect", "reply 550 5.7.1", "--expect", "at RCPT"]).status,
        0
    );
    assert_eq!(reject(&["--expect", "accept"]).status, 8);
    let report = ask(&["--json", "--expect", "reject"]).json();
    let expectation = &report["messages"][0]["expectations"][0];
    assert_eq!(
        (&expectation["holds"], &expectation["found"]),
        (&Value::Bool(false), &"the message was accepted".into())
    );
    // A filter that fails is not what was expected, whatever that was.
    let gone = Server::filter(|_| ());
    assert_eq!(send(&gone.spec, &["--expect", "reject", "8bit.eml"], b"").status, 6);
    gone.end();
    assert_eq!(send("unix:/s", &["--expect", "acept", "8bit.eml"], b"").status, 2);
}

#[test]
fn test_reports() {
    let arguments = ["--expect", "accept", "--expect", "header X-Spam: <no>"];
    let tap = ask(&[&["--tap"][..], &arguments].concat());
    assert_eq!((tap.status, &tap.dialogue[..]), (8, ""));
    assert_eq!(
        tap.text(),
        "TAP version 14\n1..2\nok 1 - 8bit.eml: accept\nnot ok 2 - 8bit.eml: header X-Spam: <no>\n  ---\n  message: \
         \"there is X-Spam: yes\"\n  ...\n"
    );
    let twice = ask(&["--tap", "--repeat", "2", "--expect", "accept"]);
    assert_eq!(twice.text(), "TAP version 14\n1..2\nok 1 - 8bit.eml: accept\nok 2 - 8bit.eml: accept\n");
    let junit = ask(&[&["--junit"][..], &arguments].concat());
    assert_eq!(junit.status, 8);
    let text = junit.text();
    for part in [
        "<testsuite name=\"milter-send\" tests=\"2\" failures=\"1\" errors=\"0\">",
        "<testcase classname=\"8bit.eml\" name=\"accept\"/>",
        "name=\"header X-Spam: &lt;no&gt;\"><failure message=\"there is X-Spam: yes\"/>",
    ] {
        assert!(well_formed(&text).contains(part), "{text}");
    }
    let nowhere = send("unix:/nonexistent", &["--tap", "--expect", "accept", "8bit.eml"], b"");
    assert!(
        nowhere.status == 7 && nowhere.text().starts_with("TAP version 14\n1..1\nBail out! cannot connect"),
        "{nowhere:?}"
    );
}
