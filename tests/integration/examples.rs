//! The C filters in `examples-c/`, each with sessions that show all it does, on the reference and on ours: what
//! `milter-send` tells of the two must be equal, and what the examples promise must be in it.

use crate::mail_servers::filter::Endpoint;
use crate::support::{
    Daemon, Library, compile_c, compile_c_with, is_foreign, milter_send, repository, temp_dir, wait_until,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A message for a session of milter-send, its options, and the exit status that they shall lead to.
struct Session {
    message: &'static str,
    options: &'static [&'static str],
    status: i32,
}

/// Builds the example, plays the sessions to it on both libraries, and gives what was said, and then what the
/// filter has printed, of which `last` is the end.
#[track_caller]
fn play(example: &str, sessions: &[Session], last: &str) -> String {
    let dir = temp_dir();
    let program = dir.path().join(example);
    let source = format!("examples-c/{example}.c");
    compile_c(&source, &program);
    let [reference, ours] = Library::BOTH.map(|library| {
        let (filter, said) = serve(library.command(&program), dir.path(), sessions, last);
        // The reference takes seconds for an orderly end.
        filter.signal(libc::SIGKILL);
        said
    });
    assert_eq!(reference, ours);

    if is_foreign() {
        // There the sanitizers are missing.
        return ours;
    }
    // Once more with a build that stops at an invalid access or undefined behaviour, and reports leaks at its end.
    compile_c_with(&source, &program, &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    let (mut filter, said) = serve(Library::Ours.command(&program), dir.path(), sessions, last);
    assert_eq!(said, ours);
    filter.signal(libc::SIGTERM);
    assert!(filter.wait().success(), "{example} with sanitizers");
    ours
}

/// Starts the filter and plays the sessions to it; what was said, and then what it has printed, ending in `last`.
#[track_caller]
fn serve(mut filter: Command, dir: &Path, sessions: &[Session], last: &str) -> (Daemon, String) {
    // One name for all runs, for it stands in what is printed.
    let (socket, log) = (dir.join("socket"), dir.join("log"));
    let _ = fs::remove_file(&socket);
    filter.arg(format!("unix:{}", socket.display())).stdout(fs::File::create(&log).unwrap());
    let filter = Daemon::start(&mut filter);
    Endpoint::Unix(socket.clone()).await_listener();
    let said: String = sessions.iter().map(|session| send(&socket, session)).collect();
    wait_until("the filter's last word", || fs::read_to_string(&log).unwrap().ends_with(last));
    (filter, said + &fs::read_to_string(log).unwrap())
}

/// Lets milter-send play one session; its dialogue, and the message that comes out.
fn send(socket: &Path, session: &Session) -> String {
    let output = Command::new(milter_send())
        .arg(socket)
        .arg(repository().join(session.message))
        .args(["--show", "macros", "--no-received", "--no-times"])
        .args(session.options)
        .output()
        .unwrap();
    let said =
        [output.stderr, output.stdout].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert_eq!(output.status.code(), Some(session.status), "{:?}:\n{said}", session.options);
    said
}

/// Checks that all of these stand in the text.
#[track_caller]
fn contains(text: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
    }
}

/// Compiles an example into the directory.
fn compile_in(dir: &Path, example: &str) -> PathBuf {
    let program = dir.join(example);
    compile_c(&format!("examples-c/{example}.c"), &program);
    program
}

/// Exit status, standard output and standard error of a program that ends by itself.
fn ends(command: &mut Command) -> (Option<i32>, String, String) {
    let dir = temp_dir();
    let [out, err] = ["out", "err"].map(|name| dir.path().join(name));
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let status = Daemon::start(command).wait();
    (status.code(), fs::read_to_string(out).unwrap(), fs::read_to_string(err).unwrap())
}

#[test]
fn what_cannot_be_a_socket_is_said_and_makes_no_file() {
    for example in ["add-header", "log-everything", "block-list", "edit-message"] {
        let (dir, here) = (temp_dir(), temp_dir());
        let program = compile_in(dir.path(), example);
        for library in Library::BOTH {
            let call = |arguments: &[&str]| {
                let ended = ends(library.command(&program).args(arguments).current_dir(here.path()));
                assert_eq!(
                    fs::read_dir(here.path()).unwrap().count(),
                    0,
                    "{example} {arguments:?}: {ended:?}"
                );
                ended
            };
            for help in ["--help", "-h"] {
                let (status, said, complained) = call(&[help]);
                assert_eq!((status, complained.as_str()), (Some(0), ""), "{example} {help}");
                assert!(said.starts_with("usage: ") && said.contains("unix:/run/filter.sock"), "{said}");
            }
            for (arguments, complaint) in [
                (&[][..], "usage: "),
                (&["unix:one", "unix:two"], "usage: "),
                (&["--bogus"], "there is no option \"--bogus\"\nusage: "),
                (&[""], "SOCKET is empty; try \""),
            ] {
                let (status, said, complained) = call(arguments);
                assert_eq!((status, said.as_str()), (Some(2), ""), "{example} {arguments:?}");
                assert!(complained.contains(complaint), "{complained}");
            }
            let (status, _, complained) = call(&["inet:no-such-port"]);
            assert_eq!(status, Some(1));
            assert!(complained.lines().count() >= 2, "the library says why: {complained}");
            assert!(complained.contains("cannot serve \"inet:no-such-port\""), "{complained}");
        }
    }
}

#[test]
fn a_socket_that_is_served_is_not_taken_away_but_an_old_one_is_replaced() {
    let dir = temp_dir();
    let program = compile_in(dir.path(), "add-header");
    for library in Library::BOTH {
        let socket = dir.path().join("socket");
        // Each way to write a unix socket.
        let spec = format!("unix:{}", socket.display());
        let start = || {
            let filter = Daemon::start(library.command(&program).arg(&spec));
            Endpoint::Unix(socket.clone()).await_listener();
            filter
        };
        let mut first = start();
        for scheme in ["unix:", "LOCAL:", ":", ""] {
            let again = format!("{scheme}{}", socket.display());
            let (status, _, complained) = ends(library.command(&program).arg(&again));
            assert_eq!(status, Some(1), "{again}: {complained}");
            assert!(complained.contains(&format!("another process serves the socket \"{again}\"")));
        }
        assert!(send(&socket, &Session { message: DEMO, options: &[], status: 0 }).contains("X-Filtered-By"));
        // It leaves the socket behind.
        first.signal(libc::SIGKILL);
        first.wait();
        let second = start();
        assert!(send(&socket, &Session { message: DEMO, options: &[], status: 0 }).contains("X-Filtered-By"));
        second.signal(libc::SIGKILL);
    }
}

const DEMO: &str = "examples-c/demo.eml";

#[test]
fn add_header() {
    let said =
        play("add-header", &[Session { message: DEMO, options: &["-m", "j=mx.example.org"], status: 0 }], "");
    contains(&said, &["X-Filtered-By: add-header on mx.example.org\n"]);
}

#[test]
fn log_everything() {
    let said = play(
        "log-everything",
        &[
            Session {
                message: DEMO,
                options: &[
                    "--client-name",
                    "mail.example.com",
                    "--unknown",
                    "WHAT IS THIS",
                    "-t",
                    "<bob@example.org> NOTIFY=NEVER",
                    "-m",
                    "i=QUEUEID",
                ],
                status: 0,
            },
            Session {
                message: DEMO,
                options: &["--abort-after", "header", "--client", "[2001:db8::1]:25", "--like", "sendmail"],
                status: 0,
            },
        ],
        "\n2 close\n",
    );
    contains(
        &said,
        &[
            "\n1 negotiate: actions 0x1ff, steps 0x1fffff\n",
            "\n1 connect: mail.example.com, address 192.0.2.1\n",
            "\n1 helo: client.example.com\n",
            // Postfix 3.7 passes the first word on.
            "\n1 unknown: WHAT\n",
            "\n1 mail: <sender@example.com>\n",
            "\n1   macro i = QUEUEID\n",
            "\n1 rcpt: <bob@example.org>\n",
            "\n1   parameter NOTIFY=NEVER\n",
            "\n1 data\n",
            "\n1 header: Subject: Minutes of the meeting\n",
            "\n1 end of header\n",
            "\n1 body: 68 bytes\n",
            "\n1 end of message\n",
            "\n1 close\n",
            "\n2 connect: ",
            ", address 2001:db8::1\n",
            "\n2 abort\n",
        ],
    );
}

#[test]
fn block_list() {
    let to = |options: &'static [&'static str], status| Session { message: DEMO, options, status };
    let said = play(
        "block-list",
        &[
            to(&[], 0),
            to(&["--client", "192.0.2.66:25"], 1),
            to(&["--client", "127.0.0.66:25"], 1),
            to(&["--client-name", "mail.blocked.example"], 1),
            to(&["--client-name", "mail.BUSY.example"], 3),
            to(&["-f", "<x@blocked.example>"], 1),
            to(&["-f", "<x@slow.example>"], 3),
            to(&["-t", "<nobody@example.org>", "-t", "<retired@example.org>", "-t", "<bob@example.org>"], 0),
            to(&["-t", "<full@example.org>"], 3),
        ],
        "",
    );
    contains(
        &said,
        &[
            "554 5.7.1 Your address is on our block list",
            "554-5.7.1 No mail from your network",
            "554 5.7.1 Ask <postmaster> to be let in",
            "421 4.7.0 Too many connections from your network",
            "550-5.7.1 because of complaints by our users.",
            "451 4.7.1 Too much mail from this sender, try again later",
            "550 5.1.1 There is no such person",
            "551 5.1.6 Try <successor@example.org>",
            "452 4.2.2 This mailbox is full",
        ],
    );
}

#[test]
fn edit_message() {
    let said = play(
        "edit-message",
        &[
            Session {
                message: DEMO,
                options: &["-t", "<bob@example.org>", "-t", "<drop@example.org>"],
                status: 0,
            },
            Session { message: "c-tests/quarantine.eml", options: &["--repeat", "2"], status: 5 },
        ],
        "",
    );
    contains(
        &said,
        &[
            "asked for more time",
            "\nX-Edited-By: edit-message\n",
            "\nSubject: [edited] Minutes of the meeting\n",
            "+ delete header 2 of X-Internal\n  + delete header 1 of X-Internal\n",
            "sender     <bounces@example.org>",
            "recipient  <archive@example.org>",
            "recipient  <audit@example.org> NOTIFY=NEVER",
            "+ delete recipient <drop@example.org>",
            "Ada\n-- \nedited by edit-message\n",
            "quarantine",
        ],
    );
}
