//! `milter-send` against real filters: the C examples on the reference library and on ours, and filters that
//! misbehave. Both libraries must make the same dialogue and the same message.

mod load;
mod people;
mod schema;
mod scripts;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::support::{
    Daemon, Library, PATIENCE, compile_c, forget_ignored_signals, free_port, milter_send, repository,
    temp_dir, wait_until,
};

/// What one run of milter-send gave.
#[derive(Debug, PartialEq)]
struct Sent {
    status: i32,
    message: Vec<u8>,
    dialogue: String,
}

impl Sent {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.message).into_owned()
    }

    /// The report, which is as the schema says.
    fn json(&self) -> Value {
        let report =
            serde_json::from_slice(&self.message).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        if let Err(error) = schema::check(&report) {
            panic!("{error}\n{report:#}");
        }
        report
    }

    /// Header and body.
    fn parts(&self) -> (String, String) {
        let text = self.text();
        let (header, body) = text.split_once("\n\n").unwrap_or_else(|| panic!("no message: {self:?}"));
        (header.to_owned(), body.to_owned())
    }
}

/// `milter-send` in the directory of the messages.
fn command() -> Command {
    let program = milter_send();
    assert!(program.exists(), "{} is missing: run `make`", program.display());
    let mut command = Command::new(program);
    command.current_dir(repository().join("tests/messages"));
    forget_ignored_signals(&mut command);
    command
}

/// Runs milter-send to its end, with `input` as its standard input. It tells no times, which are never the same.
fn send(spec: &str, arguments: &[&str], input: &[u8]) -> Sent {
    send_timed(spec, &[&["--no-times"], arguments].concat(), input)
}

/// [`send`], and it tells times.
fn send_timed(spec: &str, arguments: &[&str], input: &[u8]) -> Sent {
    let mut child = command()
        .arg(spec)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that does not read its input is no failure here.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Sent {
        status: output.status.code().unwrap(),
        message: output.stdout,
        dialogue: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Starts a C example on a library, and waits until it takes connections.
fn start(library: Library, example: &str, dir: &Path, spec: &str) -> Daemon {
    let program = dir.join(example);
    compile_c(&format!("examples-c/{example}.c"), &program);
    let log = fs::File::create(dir.join("log")).unwrap();
    let daemon = Daemon::start(library.command(&program).arg(spec).stdout(log));
    wait_until(&format!("{example} on {spec}"), || {
        let (scheme, rest) = spec.split_once(':').unwrap();
        match (scheme, rest.split_once('@')) {
            ("unix", _) => UnixStream::connect(rest).is_ok(),
            (_, Some((port, host))) => TcpStream::connect((host, port.parse().unwrap())).is_ok(),
            _ => panic!("{spec}"),
        }
    });
    daemon
}

/// Ends a filter at once: how it stops is not the matter here, and the reference takes seconds.
fn kill(filter: &Daemon) {
    filter.signal(libc::SIGKILL);
}

/// Runs `check` with an example on a unix socket, once for each library; what it returns must be equal.
fn on_both<T: PartialEq + std::fmt::Debug>(example: &str, check: impl Fn(&str) -> T) -> T {
    let [reference, ours] = Library::BOTH.map(|library| {
        let dir = temp_dir();
        let spec = format!("unix:{}", dir.path().join("s").display());
        let filter = start(library, example, dir.path(), &spec);
        let result = check(&spec);
        kill(&filter);
        result
    });
    assert_eq!(reference, ours);
    ours
}

const EDITED: &[&str] =
    &["--no-received", "-t", "<drop@example.org>", "-t", "<keep@example.org> NOTIFY=FAILURE"];

#[test]
fn edit_message_changes_everything() {
    for like in ["postfix", "sendmail"] {
        let arguments = [EDITED, &["--like", like, "attachment.eml"]].concat();
        let sent = on_both("edit-message", |spec| send(spec, &arguments, b""));
        assert_eq!(sent.status, 0, "{sent:?}");
        for line in [
            "  + change sender <bounces@example.org>\n",
            "  + add recipient <audit@example.org> NOTIFY=NEVER\n",
            "  + delete recipient <drop@example.org>\n",
            "  sender     <bounces@example.org>\n",
            "  recipient  <keep@example.org> NOTIFY=FAILURE\n",
        ] {
            assert!(sent.dialogue.contains(line), "{line}{}", sent.dialogue);
        }
        let original = fs::read_to_string(repository().join("tests/messages/attachment.eml")).unwrap();
        let (header, body) = original.split_once("\n\n").unwrap();
        let expected: Vec<_> = std::iter::once("X-Original-Sender: <sender@example.com>")
            .chain(header.lines().filter(|line| !line.starts_with("X-Internal")))
            .chain(["X-Edited-By: edit-message"])
            .map(|line| line.replace("Subject: ", "Subject: [edited] "))
            .collect();
        let (new_header, new_body) = sent.parts();
        assert_eq!(new_header.lines().collect::<Vec<_>>(), expected);
        assert_eq!(new_body, format!("{body}-- \nedited by edit-message\n"));
    }
}

#[test]
fn messages_come_back_byte_for_byte() {
    for file in ["8bit.eml", "folded.eml", "attachment.eml"] {
        let original = fs::read(repository().join("tests/messages").join(file)).unwrap();
        let crlf = with_crlf(&original);
        let [sent, sent_crlf] = on_both("add-header", |spec| {
            [send(spec, &["--no-received", file], b""), send(spec, &["--no-received"], &crlf)]
        });
        let end = original.windows(2).position(|two| two == b"\n\n").unwrap();
        let added = b"\nX-Filtered-By: add-header on mx.example.org";
        let expected = [&original[..end], added, &original[end..]].concat();
        assert!(sent.message == expected, "{file}: {sent:?}");
        assert!(sent_crlf.message == with_crlf(&expected), "{file} with CRLF: {sent_crlf:?}");
    }
}

fn with_crlf(text: &[u8]) -> Vec<u8> {
    text.split(|&byte| byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..])
}

#[test]
fn every_kind_of_socket() {
    for library in Library::BOTH {
        let dir = temp_dir();
        let specs = [
            format!("unix:{}", dir.path().join("s").display()),
            format!("inet:{}@127.0.0.1", free_port("127.0.0.1")),
            format!("inet6:{}@::1", free_port("::1")),
        ];
        for spec in specs {
            let filter = start(library, "add-header", dir.path(), &spec);
            let sent = send(&spec, &["8bit.eml"], b"");
            kill(&filter);
            assert_eq!(sent.status, 0, "{spec} {sent:?}");
            assert!(sent.parts().0.ends_with("X-Filtered-By: add-header on mx.example.org"), "{sent:?}");
        }
    }
}

#[test]
fn a_message_of_ten_mebibytes() {
    let line = "0123456789abcdef".repeat(4) + "\n";
    let body = line.repeat(10 * 1024 * 1024 / line.len());
    let message = format!("Subject: large\n\n{body}");
    let sent = on_both("edit-message", |spec| send(spec, &["--no-received"], message.as_bytes()));
    let (header, new_body) = sent.parts();
    assert!(header.ends_with("Subject: [edited] large\nX-Edited-By: edit-message"), "{header}");
    assert!(new_body == body + "-- \nedited by edit-message\n", "the body is not the expected one");
}

#[test]
fn the_exit_status_tells_the_verdict() {
    let to_some = ["-t", "<nobody@example.org>", "-t", "<a@example.org>"];
    let [rejected, tempfailed, refused, accepted] = on_both("block-list", |spec| {
        [
            &["-f", "<a@blocked.example>"][..],
            &["-f", "<a@slow.example>"],
            &["-t", "<nobody@example.org>"],
            &to_some,
        ]
        .map(|arguments| send(spec, &[arguments, &["--no-received", "8bit.eml"]].concat(), b""))
    });
    assert_eq!((rejected.status, &rejected.message[..]), (1, &b""[..]));
    let reply =
        "MAIL     <a@blocked.example> -> 550-5.7.1 This sender is not welcome here\n         550-5.7.1";
    assert!(rejected.dialogue.contains(reply), "{}", rejected.dialogue);
    assert_eq!(tempfailed.status, 3, "{tempfailed:?}");
    assert_eq!(refused.status, 1, "{refused:?}");
    assert_eq!(accepted.status, 0, "{accepted:?}");
    let refusal = "  refused    <nobody@example.org>: 550 5.1.1 There is no such person\n";
    assert!(accepted.dialogue.contains(refusal), "{}", accepted.dialogue);

    let odd = b"X-Quarantine: looks odd\n\nbody\n";
    let held = on_both("edit-message", |spec| send(spec, &["--no-received"], odd));
    assert_eq!(held.status, 5, "{held:?}");
    assert!(held.dialogue.contains("  quarantine looks odd\n"), "{}", held.dialogue);
}

#[test]
fn clients_of_every_family_reach_the_filter() {
    let clients = [
        (&["--client", "192.0.2.66"], 1),
        (&["--client", "192.0.2.67"], 0),
        (&["--client", "unknown"], 0),
        (&["--client", "2001:db8::1"], 0),
        (&["--client", "unix:/run/smtp"], 0),
        (&["--client-name", "a.blocked.example"], 1),
    ];
    let all = on_both("block-list", |spec| {
        clients.map(|(client, _)| send(spec, &[client, &["--no-received", "8bit.eml"][..]].concat(), b""))
    });
    for (sent, (client, status)) in all.iter().zip(clients) {
        assert_eq!(sent.status, status, "{client:?} {sent:?}");
    }
    let named = &all.last().unwrap().dialogue;
    assert!(named.contains("* rejected (554-5.7.1 No mail from your network\n"), "{named}");
}

#[test]
fn json_tells_all() {
    let arguments = [EDITED, &["--json", "8bit.eml"]].concat();
    let sent = on_both("edit-message", |spec| {
        let mut sent = send(spec, &arguments, b"");
        let mut json = sent.json();
        json["filter"] = "".into();
        sent.message = json.to_string().into_bytes();
        sent
    });
    assert_eq!((sent.status, &sent.dialogue[..]), (0, ""));
    let json = sent.json();
    assert_eq!(json["error"], Value::Null);
    assert_eq!(json["negotiation"]["offered"]["version"], 6);
    let message = &json["messages"][0];
    assert_eq!(message["disposition"], "accepted");
    assert_eq!(message["sender"]["address"], "bounces@example.org");
    assert_eq!(message["recipients"][0]["arguments"][0], "NOTIFY=FAILURE");
    assert_eq!(message["headers"][0]["name"], "X-Original-Sender");
    let subject = message["headers"].as_array().unwrap().iter().find(|header| header["name"] == "Subject");
    assert_eq!(subject.unwrap()["value"]["latin1"], " [edited] Été à Nîmes");
    assert!(message["body"]["latin1"].as_str().unwrap().starts_with("Chère rédaction,\n"));
    let changes = message["changes"].as_array().unwrap();
    assert!(changes.iter().any(|change| change["delete_recipient"]["address"] == "<drop@example.org>"));
    let exchanges = json["exchanges"].as_array().unwrap();
    let connect = exchanges.iter().find(|exchange| exchange["command"] == "CONNECT").unwrap();
    assert_eq!(connect["not_sent"], "switched off");
    assert_eq!(connect["macros"]["_"], "client.example.com [192.0.2.1]");
}

/// What log-everything printed, without the numbers of the sessions.
fn logged(arguments: &[&str]) -> Vec<String> {
    let [reference, ours] = Library::BOTH.map(|library| {
        let dir = temp_dir();
        let spec = format!("unix:{}", dir.path().join("s").display());
        let filter = start(library, "log-everything", dir.path(), &spec);
        let lines = || fs::read(dir.path().join("log")).unwrap();
        wait_until("the session that only tried the socket", || lines().ends_with(b" close\n"));
        let sent = send(&spec, arguments, b"");
        assert_eq!(sent.status, 0, "{sent:?}");
        wait_until("the end of the session", || {
            let log = lines();
            log.ends_with(b" close\n") && log.iter().filter(|&&byte| byte == b'\n').count() > 1
        });
        kill(&filter);
        String::from_utf8_lossy(&lines())
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(' '))
            .map(|(_, event)| event.to_owned())
            .collect::<Vec<_>>()
    });
    assert_eq!(reference, ours);
    ours
}

#[test]
fn the_filter_hears_what_was_asked_for() {
    let log = logged(&[
        "-f",
        "<a@example.com> SIZE=1000",
        "-m",
        "auth_type=PLAIN",
        "-m",
        "eom:msg_size=77",
        "--unknown",
        "XYZZY 1",
        "--like",
        "sendmail",
        "folded.eml",
    ]);
    for part in ["SIZE=1000", "XYZZY 1", "{auth_type} = PLAIN", "{msg_size} = 77", "client.example.com"] {
        assert!(log.iter().any(|line| line.contains(part)), "{part} {log:#?}");
    }
    assert!(
        log.iter().any(|line| line.contains("over more than one line, once with a space\\x0a\\x09and once"))
    );
}

#[test]
fn messages_can_be_repeated_and_clients_can_change() {
    let count = |arguments: &[&str], word: &str| {
        let log = logged(&[arguments, &["8bit.eml", "folded.eml"]].concat());
        log.iter().filter(|line| line.starts_with(word)).count()
    };
    assert_eq!(count(&["--repeat", "3"], "end of message"), 6);
    assert_eq!(count(&["--repeat", "3"], "connect"), 1);
    assert_eq!(count(&["--like", "sendmail", "--quit-nc"], "connect"), 2);
    assert_eq!(count(&["--like", "sendmail", "--abort-after", "header"], "abort"), 2);
}

/// A server that serves one connection as a test tells it.
struct Server {
    spec: String,
    thread: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(serve: impl FnOnce(&mut UnixStream) + Send + 'static) -> Self {
        let dir = temp_dir();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            serve(&mut stream);
        });
        Self { spec: path.to_str().unwrap().to_owned(), thread, _dir: dir }
    }

    /// One that answers the offer like a filter that wants everything and may add header fields.
    fn filter(then: impl FnOnce(&mut UnixStream) + Send + 'static) -> Self {
        Self::filter_with(b"", then)
    }

    /// [`filter`](Self::filter), that asks for macros.
    fn filter_with(macros: &[u8], then: impl FnOnce(&mut UnixStream) + Send + 'static) -> Self {
        let head = b"O\0\0\0\x06\0\0\x01\x01\0\0\0\0";
        let length = u32::try_from(head.len() + macros.len()).unwrap().to_be_bytes();
        let agreed = [&length, &head[..], macros].concat();
        Self::start(move |stream| {
            let mut offer = [0; 17];
            stream.read_exact(&mut offer).unwrap();
            stream.write_all(&agreed).unwrap();
            then(stream);
        })
    }

    /// The end of its connection.
    fn end(self) {
        self.thread.join().unwrap();
    }
}

/// A filter that answers the offer, then does something to the connection.
fn misbehave(then: impl FnOnce(&mut UnixStream) + Send + 'static, arguments: &[&str]) -> Sent {
    let filter = Server::filter(then);
    let sent = send(&filter.spec, &[arguments, &["8bit.eml"]].concat(), b"");
    filter.end();
    sent
}

/// Answers every command, by its byte, until the MTA is gone.
fn answer(stream: &mut UnixStream, mut with: impl FnMut(u8) -> &'static [u8]) {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).unwrap();
        if !b"DAQ".contains(&frame[0]) && stream.write_all(with(frame[0])).is_err() {
            return;
        }
    }
}

#[test]
fn a_discarded_message() {
    let discard = |stream: &mut UnixStream| {
        answer(stream, |command| if command == b'B' { b"\0\0\0\x01d" } else { b"\0\0\0\x01c" });
    };
    let sent = misbehave(discard, &[]);
    assert_eq!((sent.status, &sent.message[..]), (4, &b""[..]), "{sent:?}");
    assert!(sent.dialogue.contains("* discarded at BODY\n"), "{sent:?}");
}

#[test]
fn filters_that_misbehave() {
    let closed = misbehave(|stream| drop(stream.read(&mut [0])), &[]);
    assert_eq!(closed.status, 6, "{closed:?}");
    assert!(
        closed.dialogue.ends_with("milter-send: CONNECT: the filter closed the connection\n"),
        "{closed:?}"
    );

    let unknown = misbehave(|stream| answer(stream, |_| b"\0\0\0\x01Z"), &["--json"]);
    assert_eq!(unknown.status, 6, "{unknown:?}");
    assert_eq!(unknown.json()["error"], "CONNECT: the filter sent 'Z' with 0 bytes, which it must not");

    let not_negotiated = |stream: &mut UnixStream| {
        answer(stream, |command| match command {
            b'E' => b"\0\0\0\x05qwhy\0\0\0\0\x01c",
            _ => b"\0\0\0\x01c",
        });
    };
    let sent = misbehave(not_negotiated, &[]);
    assert_eq!(sent.status, 5, "{sent:?}");
    let warning = "Postfix 3.7 makes a change that needs QUARANTINE, which was not negotiated (D4)\n";
    assert!(sent.dialogue.contains(&format!("  ! {warning}")), "{sent:?}");
    let sent = misbehave(not_negotiated, &["--strict"]);
    assert_eq!(sent.status, 6, "{sent:?}");
    assert!(sent.dialogue.ends_with(&format!("milter-send: BODYEOB: {warning}")), "{sent:?}");

    let silent = |stream: &mut UnixStream| drop(stream.read_to_end(&mut Vec::new()));
    let sent = misbehave(silent, &["--timeout", "0.05"]);
    assert_eq!(sent.status, 7, "{sent:?}");
    assert!(sent.dialogue.ends_with("milter-send: CONNECT: no answer within 50ms\n"), "{sent:?}");
}

#[test]
fn what_cannot_be_done() {
    let nowhere = send("unix:/nonexistent/socket", &["8bit.eml"], b"");
    assert_eq!(nowhere.status, 7, "{nowhere:?}");
    assert!(nowhere.dialogue.contains("cannot connect to unix:/nonexistent/socket"), "{nowhere:?}");
    let missing = send("unix:/nonexistent/socket", &["missing.eml"], b"");
    assert_eq!(missing.status, 2, "{missing:?}");
    assert!(missing.dialogue.contains("missing.eml"), "{missing:?}");
    for bad in [&["--protocol", "7"][..], &["--quit-nc"]] {
        assert_eq!(send("unix:/s", bad, b"").status, 2);
    }
}

#[test]
fn the_manual_page_has_every_option() {
    let help = send("--help", &[], b"").text();
    let options: Vec<_> = help
        .lines()
        .filter(|line| line.trim_start().starts_with('-'))
        .flat_map(|line| line.split([' ', ',']).filter(|word| word.starts_with("--")))
        .collect();
    assert!(options.contains(&"--quit-nc") && options.len() > 15, "{options:?}");
    let manual = fs::read_to_string(repository().join("docs/man/milter-send.1")).unwrap().replace('\\', "");
    for option in options {
        assert!(
            manual.contains(&format!("{option} ")) || manual.contains(&format!("{option}\n")),
            "{option}"
        );
    }
}
