//! `milter-send` in front of filters that misbehave, from its command line: exit statuses, the words of the dialogue,
//! and what the filter got. That the server would do the same is the business of `answers`.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use crate::support::{PATIENCE, milter_send, repository, temp_dir};

/// What one run gave, and the frames that the filter got.
#[derive(Debug)]
struct Sent {
    status: i32,
    message: String,
    dialogue: String,
    frames: Vec<(u8, Vec<u8>)>,
}

impl Sent {
    #[track_caller]
    fn assert_says(&self, part: &str) {
        assert!(self.dialogue.contains(part), "no {part:?} in\n{}", self.dialogue);
    }

    fn commands(&self) -> String {
        self.frames.iter().map(|(kind, _)| char::from(*kind)).filter(|kind| *kind != 'D').collect()
    }
}

/// What the filter sends as the answer to a command; nothing at all is to hang up.
type Script = Vec<(u8, Option<&'static [u8]>)>;

/// Negotiates these steps, then answers as the script says, and "continue" where that says nothing. `hold` is a
/// command that it never answers.
fn filter(
    mut stream: UnixStream,
    steps: u32,
    script: Script,
    hold: Option<u8>,
) -> JoinHandle<Vec<(u8, Vec<u8>)>> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    std::thread::spawn(move || {
        let mut script = VecDeque::from(script);
        let mut frames = Vec::new();
        let mut length = [0; 4];
        while stream.read_exact(&mut length).is_ok() {
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut frame).unwrap();
            let kind = frame.remove(0);
            frames.push((kind, frame));
            let negotiation = [&b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff"[..], &steps.to_be_bytes()].concat();
            let answer = match (kind, script.iter().position(|(on, _)| *on == kind)) {
                _ if hold == Some(kind) => Some(Vec::new()),
                (b'O', _) => Some(negotiation),
                (_, Some(at)) => script.remove(at).unwrap().1.map(<[u8]>::to_vec),
                (b'D' | b'A' | b'Q', None) => Some(Vec::new()),
                (_, None) => Some(b"\0\0\0\x01c".to_vec()),
            };
            if answer.is_none_or(|answer| stream.write_all(&answer).is_err()) {
                break;
            }
        }
        frames
    })
}

/// Plays the messages of the arguments to such a filter.
fn send_to(steps: u32, script: Script, hold: Option<u8>, arguments: &[&str]) -> Sent {
    let dir = temp_dir();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let accepting = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        filter(stream, steps, script, hold).join().unwrap()
    });
    let output = Command::new(milter_send())
        .arg("--no-times")
        .arg(dir.path().join("s"))
        .args(arguments)
        .current_dir(repository().join("tests/messages"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Sent {
        status: output.status.code().unwrap(),
        message: String::from_utf8_lossy(&output.stdout).into_owned(),
        dialogue: String::from_utf8(output.stderr).unwrap(),
        frames: accepting.join().unwrap(),
    }
}

fn send(script: Script, arguments: &[&str]) -> Sent {
    send_to(0, script, None, &[arguments, &["8bit.eml"]].concat())
}

#[test]
fn a_second_answer_ends_it_and_names_the_step() {
    let sent = send(vec![(b'H', Some(b"\0\0\0\x01c\0\0\0\x01c"))], &[]);
    assert_eq!((sent.status, sent.message.as_str()), (6, ""), "{sent:?}");
    sent.assert_says("milter-send: HELO: the filter sent 'c' unasked: a second answer, or one to a command");

    let sent = send(vec![(b'E', Some(b"\0\0\0\x01c\0\0\0\x05hX\0v\0"))], &["--like", "sendmail"]);
    assert_eq!(sent.status, 6, "{sent:?}");
    sent.assert_says("milter-send: BODYEOB: the filter sent 'h' unasked: ");
}

#[test]
fn an_answer_to_quit_is_noticed() {
    let sent = send(vec![(b'Q', Some(b"\0\0\0\x01c"))], &[]);
    assert_eq!(sent.status, 6, "{sent:?}");
    sent.assert_says("milter-send: QUIT: the filter sent 'c' unasked: ");
}

#[test]
fn a_malformed_reply_is_judged_as_postfix_does() {
    let malformed = || vec![(b'M', Some(&b"\0\0\0\x0ey550 4.7.1 no\0"[..]))];
    let sent = send(malformed(), &["--repeat", "2"]);
    assert_eq!(sent.status, 3, "{sent:?}");
    sent.assert_says(
        "MAIL     <sender@example.com> -> 550 4.7.1 no\n    the SMTP client reads 451 4.3.5 Server",
    );
    sent.assert_says(
        "  ! Postfix answers 451 4.3.5 and gives the filter up: the filter sent \"550 4.7.1 no\"",
    );
    sent.assert_says("- MAIL (not sent: the filter is given up)\n");
    assert_eq!(sent.dialogue.matches("* tempfailed (451 4.3.5 Server configuration problem").count(), 2);

    let sendmail = send(malformed(), &["--like", "sendmail"]);
    assert_eq!(sendmail.status, 1, "{sendmail:?}");
    sendmail.assert_says("* rejected (550 4.7.1 <sender@example.com>... no) at MAIL\n");
}

#[test]
fn a_421_ends_the_session_for_all_messages() {
    let sent = send(vec![(b'R', Some(b"\0\0\0\x0fy421 4.7.0 bye\0"))], &["--repeat", "2"]);
    assert_eq!((sent.status, sent.commands().as_str()), (3, "OCHMRAAQ"), "{sent:?}");
    assert_eq!(sent.dialogue.matches("* tempfailed (421 4.7.0 bye) at RCPT\n").count(), 2, "{sent:?}");
}

#[test]
fn the_default_action_goes_on_and_the_status_remembers() {
    for (action, like, what) in [
        ("tempfail", "postfix", "* tempfailed (451 4.7.1 Service unavailable - try again later)"),
        ("reject", "postfix", "* rejected (550 5.5.0 Service unavailable)"),
        ("quarantine", "postfix", "* quarantined"),
        ("shutdown", "postfix-3.12", "* tempfailed (421 4.7.1 Service unavailable - try again later)"),
        ("accept", "sendmail", "* accepted"),
    ] {
        let arguments = ["--default-action", action, "--like", like, "--repeat", "2"];
        let sent = send(vec![(b'M', None)], &arguments);
        assert_eq!(sent.status, 6, "{action}: {sent:?}");
        sent.assert_says("-> MAIL: the filter closed the connection\n");
        assert_eq!(sent.dialogue.matches(what).count(), 2, "{action}: {sent:?}");
    }
    let nowhere = Command::new(milter_send())
        .arg("--no-times")
        .args(["unix:/nonexistent/socket", "--default-action", "accept", "8bit.eml"])
        .current_dir(repository().join("tests/messages"))
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(7));
    assert!(nowhere.stdout.starts_with(b"Received: "), "the message passes");
}

#[test]
fn repairs_are_warnings_and_faults_if_strict() {
    let script = || vec![(b'E', Some(&b"\0\0\0\x0fhX-N\0a\nEvil: y\0\0\0\0\x01c"[..]))];
    let sent = send(script(), &[]);
    assert_eq!(sent.status, 0, "{sent:?}");
    assert!(sent.message.contains("\nX-N: a\n\tEvil: y\n"), "{sent:?}");
    let warning = "a further line of \"X-N\" does not begin with a blank: Postfix 3.7 puts a tab in front of it (D39)\n";
    sent.assert_says(&format!("  ! {warning}"));
    let strict = send(script(), &["--strict"]);
    assert_eq!((strict.status, strict.message.as_str()), (6, ""), "{strict:?}");
    strict.assert_says(&format!("milter-send: BODYEOB: {warning}"));
}

#[test]
fn each_phase_has_its_limit() {
    for (hold, phase, name) in [(b'H', "command", "HELO"), (b'N', "content", "EOH")] {
        let limit = format!("{phase}=0.05");
        let sent = send_to(0, Vec::new(), Some(hold), &["--timeout", &limit, "8bit.eml"]);
        assert_eq!(sent.status, 7, "{sent:?}");
        sent.assert_says(&format!("milter-send: {name}: no answer within 50ms\n"));
    }
}

#[test]
fn unknown_commands_are_cut_by_old_postfix() {
    for (like, heard) in
        [("postfix-3.7", "XYZZY\0"), ("postfix-3.12", "XYZZY 1\0"), ("sendmail", "XYZZY 1\0")]
    {
        let sent = send(Vec::new(), &["--unknown", "XYZZY 1", "--like", like]);
        assert!(sent.frames.contains(&(b'U', heard.as_bytes().to_vec())), "{like}: {sent:?}");
    }
}

#[test]
fn refused_recipients_reach_filters_that_ask() {
    let sent =
        send_to(0x800, Vec::new(), None, &["--refused", "<no@example.org> 450 4.2.1 full", "8bit.eml"]);
    assert_eq!(sent.status, 0, "{sent:?}");
    assert!(sent.frames.contains(&(b'R', b"<no@example.org>\0".to_vec())), "{sent:?}");
    sent.assert_says("  refused    <no@example.org>: 450 4.2.1 full\n");
}

#[test]
fn mail_that_does_not_come_by_smtp() {
    let sent = send(Vec::new(), &["--non-smtp", "-f", "<>"]);
    assert_eq!((sent.status, sent.commands().as_str()), (0, "OCHMRTLLLLLLLLLNBEQ"), "{sent:?}");
    assert!(sent.frames.contains(&(b'M', b"\0".to_vec())), "{sent:?}");
    assert!(sent.frames.contains(&(b'C', b"localhost\x004\0\x00127.0.0.1\0".to_vec())), "{sent:?}");
}

#[test]
fn a_connection_can_be_inherited() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let filter = filter(ours, 0, Vec::new(), None);
    let output = Command::new(milter_send())
        .arg("--no-times")
        .args(["fd:0", "8bit.eml"])
        .current_dir(repository().join("tests/messages"))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(filter.join().unwrap().last().unwrap().0, b'Q');

    let no_socket = Command::new(milter_send()).args(["fd:0", "-"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(no_socket.status.code(), Some(7));
}
