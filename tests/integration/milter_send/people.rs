//! What milter-send does for the person in front of it.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use super::{Server, answer, command, send, send_timed};
use crate::mail_servers::filter::Endpoint;
use crate::mail_servers::server::{Kind, MailServer};
use crate::mail_servers::smtp_client::Client;
use crate::mail_servers::smtp_sink::Sink;
use crate::support::{PATIENCE, stdout, temp_dir};

/// Answers everything with "continue".
fn agree(stream: &mut UnixStream) {
    answer(stream, |_| b"\0\0\0\x01c");
}

#[test]
fn times_of_the_steps_and_of_everything() {
    let filter = Server::filter(agree);
    let sent = send_timed(&filter.spec, &["8bit.eml"], b"");
    filter.end();
    let time = regex::Regex::new(r" \[\d+(\.\d+)? m?s\]$").unwrap();
    for start in ["HELO ", "HEADER   From:", "BODYEOB", "* accepted at BODYEOB", "  -> version 6"] {
        let line = sent.dialogue.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(time.is_match(line), "{line}");
    }
    let total = sent.dialogue.lines().last().unwrap();
    assert!(total.starts_with("= 1 message in ") && total.contains(", of which the filter took "), "{total}");

    let filter = Server::filter(agree);
    let sent = send(&filter.spec, &["8bit.eml"], b"");
    filter.end();
    assert!(
        !sent.dialogue.contains('['.to_string().as_str()) || !sent.dialogue.lines().any(|l| time.is_match(l))
    );
    assert!(sent.dialogue.ends_with("QUIT\n"), "{sent:?}");
}

const MEGABYTE: usize = 1_000_000;

/// The peak of a process's memory so far, in bytes.
fn peak(child: &Child) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_large_message_is_ten_lines_and_costs_at_most_twice_its_size() {
    let dir = temp_dir();
    let file = dir.path().join("large.eml");
    let line = "0123456789abcdef".repeat(4) + "\n";
    let message = format!("Subject: large\n\n{}", line.repeat(50 * MEGABYTE / line.len()));
    fs::write(&file, &message).unwrap();
    // Not even the program itself is left out of the account, just what libraries need in any case.
    let allowed = 2 * message.len() + 10 * MEGABYTE;
    for options in [&[][..], &["--json"]] {
        let filter = Server::filter(agree);
        let mut child = command()
            .arg(&filter.spec)
            .args(["--no-received", "--show", "steps"])
            .args(options)
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = child.stderr.take().unwrap();
        let dialogue = std::thread::spawn(move || {
            let mut dialogue = String::new();
            errors.read_to_string(&mut dialogue).map(|_| dialogue)
        });
        // When it has written all but the last of it there is nothing left that could cost memory.
        let mut output = child.stdout.take().unwrap();
        let mut received = vec![0; message.len() - MEGABYTE];
        output.read_exact(&mut received).unwrap();
        let peak = peak(&child);
        output.read_to_end(&mut received).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        filter.end();
        let dialogue = dialogue.join().unwrap().unwrap();
        let body: Vec<_> = dialogue.lines().filter(|line| line.starts_with("BODY ")).collect();
        assert_eq!(body.len(), 10, "{dialogue}");
        assert!(body[0].starts_with("BODY     78 pieces, 5111730 bytes -> continue ["), "{body:#?}");
        assert!(peak <= allowed, "{options:?}: {peak} bytes, at most {allowed} are allowed");
        if options.is_empty() {
            assert!(received == message.as_bytes(), "the message is another one");
        }
    }
}

/// A terminal of this width: the master side, and the slave side that a program gets.
fn terminal(width: u16) -> (File, OwnedFd) {
    let size = libc::winsize { ws_row: 24, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut master, mut slave) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: openpty fills in the two descriptors, and reads the size.
    let result =
        unsafe { libc::openpty(&raw mut master, &raw mut slave, null, null.cast(), &raw const size) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both are open and belong to nobody else.
    unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

/// What a program writes to a terminal while a filter thinks about HELO until that shows.
fn watched(width: u16, prepare: impl FnOnce(&mut Command)) -> String {
    let (seen, go_on) = channel();
    let filter = Server::filter(move |stream| {
        answer(stream, |command| {
            if command == b'H' {
                go_on.recv_timeout(PATIENCE).unwrap();
            }
            b"\0\0\0\x01c"
        });
    });
    let (mut master, slave) = terminal(width);
    let mut program = command();
    program.arg(&filter.spec).arg("8bit.eml").env("TERM", "xterm").stdout(Stdio::null());
    prepare(program.stderr(slave));
    let mut child = program.spawn().unwrap();
    // Its end of the terminal must be the only one, or the other never ends.
    drop(program);
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
        if text.windows(20).any(|part| part == b"HELO: waiting for th") {
            let _ = seen.send(());
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    filter.end();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_terminal_gets_colours_a_live_line_and_wrapped_flags() {
    let text = watched(60, |program| {
        program.env_remove("NO_COLOR");
    });
    assert!(
        text.contains("\r\x1b[2KHELO: waiting for the filter, 0.") && text.contains("\r\x1b[2K\x1b[1mHELO"),
        "{text:?}"
    );
    assert!(text.contains("* \x1b[1m\x1b[32maccepted\x1b[0m at BODYEOB"), "{text:?}");
    let flags: Vec<_> = text.lines().skip_while(|line| !line.starts_with("    steps ")).take(4).collect();
    assert!(flags[1].starts_with("          N") && flags.iter().all(|line| line.len() <= 60), "{flags:?}");
}

#[test]
fn no_color_is_respected() {
    let text = watched(200, |program| {
        program.env("NO_COLOR", "1");
    });
    assert!(text.contains("* accepted at BODYEOB") && !text.contains("\x1b[0m"), "{text:?}");
    assert!(text.contains(" NR_BODY HDR_LEADSPC\r\n"), "{text:?}");
    let text = watched(80, |program| {
        program.env_remove("NO_COLOR").args(["--color", "never"]);
    });
    assert!(!text.contains("\x1b[0m"), "{text:?}");
}

#[test]
fn a_message_that_is_typed() {
    let filter = Server::filter(agree);
    let (mut master, slave) = terminal(80);
    let mut program = command();
    program.args([&filter.spec, "--no-received"]);
    program.stdin(slave).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = program.spawn().unwrap();
    master.write_all(b"Subject: typed\n\nbody\n\x04").unwrap();
    let output = child.wait_with_output().unwrap();
    filter.end();
    let dialogue = String::from_utf8(output.stderr).unwrap();
    assert!(dialogue.starts_with("milter-send: type the message, then end it with Ctrl-D"), "{dialogue}");
    assert_eq!(output.stdout, b"Subject: typed\n\nbody\n");
}

/// What milter-send says when it cannot talk to a filter.
fn hint(spec: &str) -> (i32, String) {
    let sent = send(spec, &["--json", "--show", "result", "8bit.eml", "--timeout", "1"], b"");
    let report = sent.json();
    let hint = report["hint"].as_str().unwrap_or_default();
    assert!(hint.is_empty() || sent.dialogue.ends_with(&format!("\n  hint: {hint}\n")), "{sent:?}");
    (sent.status, format!("{} ({hint})", report["error"].as_str().unwrap()))
}

#[test]
fn hints_when_no_filter_can_be_reached() {
    let dir = temp_dir();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("plain"), "").unwrap();
    drop(UnixListener::bind(path("stale")).unwrap());
    for (spec, expected) in [
        (path("plain"), "/plain is a plain file, not a socket)"),
        (path("."), " is a directory, not a socket)"),
        (path("stale"), "/stale any more: it is left over from a filter that has ended)"),
        (path("missing"), "does the filter run?)"),
        ("8891@localhost".to_owned(), "(perhaps you mean inet:8891@localhost)"),
    ] {
        let (status, text) = hint(&spec);
        assert!(status == 7 && text.ends_with(expected), "{spec}: {text}");
    }
    let usage = send("localhost:8891", &["8bit.eml"], b"");
    assert!(
        usage.status == 2 && usage.dialogue.contains("perhaps you mean inet:8891@localhost"),
        "{usage:?}"
    );
}

#[test]
fn hints_when_what_answers_is_no_filter() {
    let greets = |greeting: &'static [u8]| {
        Server::start(move |stream| {
            stream.write_all(greeting).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        })
    };
    let waits_for_a_line = || {
        Server::start(move |stream| {
            stream.read_to_end(&mut Vec::new()).unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        })
    };
    for (server, expected) in [
        (
            greets(b"220 mx.example.org ESMTP Postfix\r\n"),
            "OPTNEG: the peer speaks SMTP, not the milter protocol (",
        ),
        (greets(b"HTTP/1.1 400 Bad Request\r\n"), "OPTNEG: the peer speaks HTTP, not the milter protocol ("),
        (waits_for_a_line(), "OPTNEG: the peer speaks HTTP, not the milter protocol ("),
        (
            Server::start(|stream| drop(stream.read(&mut [0; 17]))),
            "(is it a filter, and does it let this host in?",
        ),
    ] {
        let (status, text) = hint(&server.spec);
        server.end();
        assert!(status == 6 && text.contains(expected), "{text}");
    }
}

#[test]
fn all_messages_of_a_mailbox() {
    let mailbox = b"From a Mon\nSubject: 1\n\n>From here\n\nFrom b Mon\nSubject: 2\n\nb\n\nFrom c Mon\nSubject: 3\n\nc\n\n";
    let run = |options: &[&str]| {
        let filter = Server::filter(agree);
        let sent = send(&filter.spec, &[&["--no-received"], options].concat(), mailbox);
        filter.end();
        sent
    };
    let sent = run(&["--mbox"]);
    assert_eq!(sent.text(), "Subject: 1\n\nFrom here\nSubject: 2\n\nb\nSubject: 3\n\nc\n");
    assert!(sent.dialogue.contains("# message 2 of 3: - message 2\n"), "{sent:?}");
    assert_eq!(sent.dialogue.matches("* accepted at BODYEOB").count(), 3);
    assert_eq!(run(&["--mbox", "--json"]).json()["messages"][2]["part"], 3);

    let sent = run(&[]);
    assert!(
        sent.dialogue.starts_with("! - is a mailbox with 3 messages, sent as one: see --mbox\n"),
        "{sent:?}"
    );
    assert_eq!(run(&["--json"]).json()["warnings"].as_array().unwrap().len(), 1);
    let none = send("unix:/s", &["--mbox"], b"Subject: 1\n\n");
    assert!(none.status == 2 && none.dialogue.contains("no mailbox"), "{none:?}");
}

#[test]
fn macros_that_the_filter_did_not_get() {
    // At CONNECT: j and one that Postfix does not have; at MAIL: one for clients that log in.
    let lists = b"\0\0\0\0j {defaulted}\0\0\0\0\x02{auth_type} {mail_addr}\0";
    let run = |options: &[&str]| {
        let filter = Server::filter_with(lists, agree);
        let sent = send(&filter.spec, &[&["8bit.eml", "--json", "--show", "result"], options].concat(), b"");
        filter.end();
        let warnings = sent.json()["warnings"].clone();
        let warnings: Vec<_> = warnings
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text["text"].as_str().unwrap().to_owned())
            .collect();
        assert!(warnings.iter().all(|text| sent.dialogue.contains(&format!("! {text}\n"))), "{sent:?}");
        warnings
    };
    assert_eq!(
        run(&[]),
        [
            "the filter asked for {defaulted} at connect and did not get it: the server does not have it; in main.cf \
             milter_macro_defaults = {defaulted}=VALUE would send it (here: --macro connect:defaulted=VALUE)",
            "the filter asked for {auth_type} at mail and did not get it: only a client that has logged in has it \
             (here: --macro mail:auth_type=VALUE)",
        ]
    );
    let given = run(&["--macro", "connect:defaulted=VALUE", "--macro", "mail:auth_type=VALUE"]);
    assert!(given.is_empty(), "{given:?}");
}

/// The real servers of the tests have the lines that the hint names: they do send the macro.
#[test]
fn the_line_of_the_hint_makes_a_mail_server_send_the_macro() {
    for (kind, line) in
        [(Kind::Postfix, "milter_macro_defaults = {defaulted}=VALUE"), (Kind::Sendmail, "D{defaulted}VALUE")]
    {
        let lists = b"\0\0\0\0j {defaulted}\0";
        let (heard, macros) = channel();
        let filter = Server::filter_with(lists, move |stream| {
            let mut length = [0; 4];
            while stream.read_exact(&mut length).is_ok() {
                let mut frame = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut frame).unwrap();
                match frame[0] {
                    b'D' if frame[1] == b'C' => heard.send(frame).unwrap(),
                    b'D' | b'A' | b'Q' => {}
                    _ => stream.write_all(b"\0\0\0\x01c").unwrap(),
                }
            }
        });
        let socket = Path::new(&filter.spec);
        // Postfix gives up root's rights.
        fs::set_permissions(socket.parent().unwrap(), Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(socket, Permissions::from_mode(0o666)).unwrap();
        let sink = Sink::open();
        let server = MailServer::start(kind, &Endpoint::Unix(socket.to_owned()), &sink);
        Client::connect(Ipv4Addr::LOCALHOST, server.port()).quit();
        let macros = macros.recv_timeout(PATIENCE).unwrap();
        assert!(macros.ends_with(b"\0{defaulted}\0VALUE\0"), "{kind:?}: {}", macros.escape_ascii());
        filter.end();

        let like = if kind == Kind::Postfix { "postfix" } else { "sendmail" };
        let filter = Server::filter_with(lists, agree);
        let sent = send(&filter.spec, &["8bit.eml", "--like", like], b"");
        filter.end();
        assert!(sent.dialogue.contains(line), "{sent:?}");
    }
}

#[test]
fn shells_complete_every_option() {
    let dir = temp_dir();
    let help = send("--help", &[], b"").text();
    let options: Vec<_> = help
        .lines()
        .filter(|line| line.trim_start().starts_with('-'))
        .filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--")))
        .collect();
    assert!(options.contains(&"--mbox"), "{options:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(command().args(["--completions", shell]));
        for option in &options {
            let written =
                if shell == "fish" { format!(" -l {} ", &option[2..]) } else { (*option).to_owned() };
            assert!(script.contains(&written) || script.contains(written.trim_end()), "{shell} {option}");
        }
        fs::write(dir.path().join(shell), script).unwrap();
    }
    // Bash at least can say what it would offer.
    let ask = format!(
        ". {}/bash; COMP_WORDS=(milter-send /s --qu); COMP_CWORD=2; _milter__send milter-send --qu /s; echo \"${{COMPREPLY[@]}}\"",
        dir.path().display()
    );
    assert_eq!(stdout(Command::new("bash").arg("-c").arg(ask)), "--quit-nc\n");
    let unknown = command().args(["--completions", "cobol"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}
