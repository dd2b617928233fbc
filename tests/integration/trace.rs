//! `LIBMILTER_TRACE` and `milter-send --replay`.

use crate::mail_servers::filter::Endpoint;
use crate::opendkim::{configure, sign_by_milter_send};
use crate::support::{Daemon, Library, compile_c, milter_send, repository, run, temp_dir, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The example `log-everything`, with what it prints in a file.
struct Logger {
    daemon: Daemon,
    socket: PathBuf,
    log: PathBuf,
}

impl Logger {
    fn start(dir: &Path, name: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_with(dir, name, variables, None)
    }

    /// The standard error goes into a file.
    fn start_with(dir: &Path, name: &str, variables: &[(&str, &str)], errors: Option<&Path>) -> Self {
        let program = dir.join("log-everything");
        if !program.exists() {
            compile_c("examples-c/log-everything.c", &program);
        }
        let (socket, log) = (dir.join(format!("{name}.s")), dir.join(format!("{name}.log")));
        let mut command = Library::Ours.command(&program);
        command.envs(variables.iter().copied());
        command.arg(format!("unix:{}", socket.display())).stdout(fs::File::create(&log).unwrap());
        if let Some(errors) = errors {
            command.stderr(fs::File::create(errors).unwrap());
        }
        let daemon = Daemon::start(&mut command);
        Endpoint::Unix(socket.clone()).await_listener();
        Self { daemon, socket, log }
    }

    /// Stops it; what it has printed.
    fn end(mut self) -> String {
        self.daemon.signal(libc::SIGTERM);
        assert!(self.daemon.wait().success());
        String::from_utf8_lossy(&fs::read(self.log).unwrap()).into_owned()
    }
}

fn replay(socket: &Path, trace: &Path) -> Output {
    Command::new(milter_send())
        .args(["--timeout", "20"])
        .arg(socket)
        .arg("--replay")
        .arg(trace)
        .output()
        .unwrap()
}

/// A message with all that a trace must carry: bytes that are no UTF-8, a NUL, quotes.
fn play_sessions(dir: &Path, socket: &Path) {
    let message = dir.join("message.eml");
    let mut text =
        b"From: ann@example.com\nSubject: \"quoted\\\" \xe4\n\nA \xff\xfe body\x01 \xe2\x82\xac\n".to_vec();
    text.extend(b"line of text\n".repeat(10_000));
    fs::write(&message, text).unwrap();
    for options in [
        &["--client", "[2001:db8::7]:25", "-m", "i=QUEUE1", "--unknown", "WHAT"][..],
        &["--repeat", "2", "-t", "<bob@example.org> NOTIFY=NEVER"],
        &["--abort-after", "header"],
    ] {
        run(Command::new(milter_send()).args(options).arg(socket).arg(&message));
    }
}

/// A filter that sees a trace played sees the same as when it was written.
#[test]
fn a_filter_sees_the_same_again() {
    let dir = temp_dir();
    let trace = dir.path().join("trace");
    let variables = [("LIBMILTER_TRACE", trace.to_str().unwrap()), ("LIBMILTER_TRACE_CONTENT", "yes")];
    let first = Logger::start(dir.path(), "first", &variables);
    play_sessions(dir.path(), &first.socket);
    let then = first.end();
    assert!(then.contains("3 abort"), "{then}");
    assert_eq!(fs::metadata(&trace).unwrap().permissions().mode() & 0o777, 0o600);

    let second = Logger::start(dir.path(), "second", &[]);
    let played = replay(&second.socket, &trace);
    let said = String::from_utf8(played.stdout).unwrap();
    assert!(played.status.success(), "{said}{}", String::from_utf8_lossy(&played.stderr));
    assert!(
        said.lines().count() == 3 && said.lines().all(|line| line.ends_with("answered as in the trace")),
        "{said}"
    );
    assert_eq!(second.end(), then);
}

/// Without the content nothing of it is in the trace, and the dialogue can still be played.
#[test]
fn what_is_masked_can_still_be_played() {
    let dir = temp_dir();
    let trace = dir.path().join("trace");
    let first = Logger::start(dir.path(), "first", &[("LIBMILTER_TRACE", trace.to_str().unwrap())]);
    play_sessions(dir.path(), &first.socket);
    let then = first.end();
    let text = fs::read_to_string(&trace).unwrap();
    for content in ["example", "ann", "bob", "quoted", "2001:db8::7", "line of"] {
        assert!(!text.contains(content), "{content}");
    }
    assert!(text.contains("QUEUE1") && text.contains("Subject"), "{text}");
    let second = Logger::start(dir.path(), "second", &[]);
    let played = replay(&second.socket, &trace);
    assert!(played.status.success(), "{played:?}");
    let events = |log: &str| {
        log.lines().map(|line| line.split([':', '=']).next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(events(&second.end()), events(&then));
}

/// OpenDKIM signs; a filter that does not is found out by OpenDKIM's trace. So is what is no trace.
#[test]
fn a_filter_that_answers_otherwise_is_told() {
    let dir = temp_dir();
    let (socket, trace) = (dir.path().join("s"), dir.path().join("trace"));
    let mut command = configure(dir.path());
    command.arg(format!("local:{}", socket.display())).env("LIBMILTER_TRACE", &trace);
    command.env("LIBMILTER_TRACE_CONTENT", "yes");
    let mut opendkim = Daemon::start(&mut command);
    wait_until("the socket", || socket.exists());
    sign_by_milter_send(&socket);
    // The time is in the signature, so its data are not to be compared.
    let mut text = String::new();
    wait_until("the end of the session in the trace", || {
        text = fs::read_to_string(&trace).unwrap();
        text.ends_with("\"event\":\"end\",\"reason\":\"quit\"}\n")
    });
    assert!(text.contains("DKIM-Signature"), "{text}");
    fs::write(&trace, text.replacen("\"content\":true", "\"content\":false", 1)).unwrap();
    let played = replay(&socket, &trace);
    assert!(played.status.success(), "{played:?}");
    opendkim.signal(libc::SIGTERM);
    assert!(opendkim.wait().success());

    let logger = Logger::start(dir.path(), "logger", &[]);
    let played = replay(&logger.socket, &trace);
    let said = String::from_utf8(played.stdout).unwrap();
    assert_eq!(played.status.code(), Some(8), "{said}");
    assert!(said.contains("session 1: answered otherwise than in the trace\n"), "{said}");
    assert!(said.contains(", BODYEOB: 'i' ") && said.contains("now\n"), "{said}");
    let played = replay(&logger.socket, &repository().join("examples-c/demo.eml"));
    assert_eq!(played.status.code(), Some(2), "{played:?}");
}

/// A trace never becomes larger than it may: twice the size, with the file before.
#[test]
fn a_trace_is_bounded() {
    let dir = temp_dir();
    let trace = dir.path().join("trace");
    let variables = [
        ("LIBMILTER_TRACE", trace.to_str().unwrap()),
        ("LIBMILTER_TRACE_CONTENT", "yes"),
        ("LIBMILTER_TRACE_SIZE", "200K"),
    ];
    let logger = Logger::start(dir.path(), "first", &variables);
    for _ in 0..3 {
        play_sessions(dir.path(), &logger.socket);
    }
    logger.end();
    let sizes = [trace.clone(), dir.path().join("trace.1")].map(|file| fs::metadata(file).unwrap().len());
    assert!(sizes.iter().all(|size| (1..=200 << 10).contains(size)), "{sizes:?}");
    assert!(!dir.path().join("trace.1.1").exists() && !dir.path().join("trace.2").exists());
}

/// What is to be preloaded for a slow disk.
pub fn slow_disk(dir: &Path) -> PathBuf {
    let preload = dir.join("slow-disk.so");
    run(Command::new("cc")
        .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"])
        .arg(repository().join("c-tests/slow-disk.c"))
        .arg("-o")
        .arg(&preload));
    preload
}

/// A filter whose trace is on a disk that hangs while a file is there.
struct OnSlowDisk {
    logger: Logger,
    trace: PathBuf,
    gate: PathBuf,
    errors: PathBuf,
}

impl OnSlowDisk {
    fn start(dir: &Path) -> Self {
        let preload = slow_disk(dir);
        let [trace, gate, errors] = ["trace", "gate", "errors"].map(|name| dir.join(name));
        let variables = [
            ("LD_PRELOAD", &preload),
            ("SLOW_FILE", &trace),
            ("SLOW_GATE", &gate),
            ("LIBMILTER_TRACE", &trace),
        ];
        let mut variables = variables.map(|(name, path)| (name, path.to_str().unwrap())).to_vec();
        variables.extend([
            ("LIBMILTER_TRACE_CONTENT", "yes"),
            ("LIBMILTER_TRACE_SIZE", "1G"),
            ("LIBMILTER_LOG", "stderr"),
        ]);
        Self { logger: Logger::start_with(dir, "slow", &variables, Some(&errors)), trace, gate, errors }
    }

    /// A message of two megabytes; its session is one of its own.
    fn play(&self, dir: &Path) {
        let message = dir.join("large.eml");
        fs::write(
            &message,
            b"Subject: large\n\n"
                .iter()
                .chain(&b"line of text\n".repeat(160_000))
                .copied()
                .collect::<Vec<_>>(),
        )
        .unwrap();
        run(Command::new(milter_send()).args(["--timeout", "20"]).arg(&self.logger.socket).arg(&message));
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.trace).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }
}

fn end_of(session: u32) -> String {
    format!("\"session\":{session},\"event\":\"end\"")
}

/// Nobody waits for it: what does not fit into memory is not in the trace, and the log says so. What is in it can be played,
/// and when the disk is back the trace goes on.
#[test]
fn a_disk_that_hangs_holds_nobody_up() {
    let dir = temp_dir();
    let slow = OnSlowDisk::start(dir.path());
    slow.play(dir.path());
    wait_until("a trace", || slow.text().contains(&end_of(1)));
    fs::write(&slow.gate, "").unwrap();
    let before = slow.text().len();
    for _ in 0..6 {
        slow.play(dir.path());
    }
    assert_eq!(slow.text().len(), before, "the disk hangs");
    wait_until("a complaint", || {
        slow.log().contains("the disk does not keep up, so far 1 sessions are not in")
    });
    fs::remove_file(&slow.gate).unwrap();
    wait_until("what has waited", || slow.text().contains(&end_of(2)));
    slow.play(dir.path());
    wait_until("the next session", || slow.text().contains(&end_of(8)));
    let (trace, text) = (slow.trace.clone(), slow.text());
    slow.logger.end();
    let cut = (1..=8).filter(|session| !text.contains(&end_of(*session))).count();
    assert!((1..=5).contains(&cut), "{cut}");
    let errors = fs::read_to_string(dir.path().join("errors")).unwrap();
    assert!(
        errors.contains(&format!(": {cut} sessions are not in the trace, or not to their end")),
        "{errors}"
    );

    let other = Logger::start(dir.path(), "other", &[]);
    let played = replay(&other.socket, &trace);
    assert!(played.status.success(), "{played:?}");
}

/// Nor does the end of the filter.
#[test]
fn a_disk_that_hangs_does_not_hold_up_the_end() {
    let dir = temp_dir();
    let mut slow = OnSlowDisk::start(dir.path());
    slow.play(dir.path());
    fs::write(&slow.gate, "").unwrap();
    slow.play(dir.path());
    slow.logger.daemon.signal(libc::SIGTERM);
    assert!(slow.logger.daemon.wait().success());
    assert!(
        slow.log().contains("the disk does not answer, the end of the trace is missing"),
        "{}",
        slow.log()
    );
}
