//! What an administrator can see of sessions: metrics, and what a filter does wrongly. What is not to be had does not hold up mail.

use super::{Filter, Mta, SERVE, macros, program};
use crate::metrics::{promtool, scrape, value};
use crate::support::Library;
use milter::protocol::{Kind, MacroStage};
use std::os::unix::net::UnixStream;

/// A filter on our library whose metrics are at `{dir}/m`.
fn start(variables: &[(&str, &str)]) -> Filter {
    // The directory is known only to the filter, so the path is relative to it.
    let dir = crate::support::temp_dir();
    let mut command = Library::Ours.command(program());
    command.env("LIBMILTER_METRICS", format!("unix:{}", dir.path().join("m").display()));
    command.envs(variables.iter().copied());
    let mut filter = Filter::start_with(command, &SERVE);
    filter.companion = Some(dir);
    filter
}

fn metrics(filter: &Filter) -> String {
    let path = filter.companion.as_ref().unwrap().path().join("m");
    let mut stream = None;
    filter.wait_until("the endpoint", || {
        stream = UnixStream::connect(&path).ok();
        stream.is_some()
    });
    scrape(stream.unwrap(), "").1
}

#[test]
fn metrics_tell_of_sessions_callbacks_and_errors() {
    let filter = start(&[]);
    let mut hanging = Mta::greet(&filter);
    assert_eq!(hanging.connect_from("client"), 'c');
    hanging.command(Kind::Helo, b"hang\0");
    let mut mta = Mta::order(&filter, "message");
    mta.send(&macros(MacroStage::Mail, &[(b"i", b"QUEUE1")]));
    mta.begin_message();
    assert_eq!(mta.end_message(b"text\r\n"), 'c');
    // Out of order: DATA without a recipient.
    mta.command(Kind::Data, b"");
    Mta::order(&filter, "macro v").quit();
    let mut broken = Mta::greet(&filter);
    broken.send(b"\0\0\0\x01z");
    assert!(broken.has_ended());
    let mut text = String::new();
    filter.wait_until("all of it is counted", || {
        text = metrics(&filter);
        value(&text, "milter_sessions") == 2.0 && value(&text, "milter_callbacks_running") == 1.0
    });
    for (sample, expected) in [
        ("milter_sessions_started_total", 4.0),
        ("milter_messages_total", 1.0),
        ("milter_messages_completed_total", 1.0),
        ("milter_session_ends_total{reason=\"quit\"}", 1.0),
        ("milter_session_ends_total{reason=\"protocol_error\"}", 1.0),
        ("milter_protocol_errors_total{kind=\"unknown_command\"}", 1.0),
        ("milter_protocol_errors_total{kind=\"out_of_order\"}", 1.0),
        ("milter_timeouts_total", 0.0),
        ("milter_callbacks_stuck", 0.0),
        ("milter_macros_missing_total{macro=\"v\"}", 1.0),
        ("milter_callback_verdicts_total{callback=\"eom\",verdict=\"continue\"}", 1.0),
        ("milter_callback_duration_seconds_bucket{callback=\"body\",le=\"+Inf\"}", 1.0),
        ("milter_callback_duration_seconds_count{callback=\"close\"}", 2.0),
    ] {
        assert_eq!(value(&text, sample), expected, "{sample}: {text}");
    }
    assert!(value(&text, "milter_threads") >= 3.0);
    assert!(promtool(&text).status.success());
    filter.wait_until("the callback counts as stuck", || {
        value(&metrics(&filter), "milter_callbacks_stuck") == 1.0
    });
    assert!(value(&metrics(&filter), "milter_callback_oldest_seconds") >= 10.0);
}

/// Who says what is slow has said what is stuck.
#[test]
fn a_callback_is_stuck_when_it_is_slow() {
    let filter = start(&[("LIBMILTER_SLOW_CALLBACK", "1")]);
    let mut hanging = Mta::greet(&filter);
    assert_eq!(hanging.connect_from("client"), 'c');
    hanging.command(Kind::Helo, b"hang\0");
    let mut text = String::new();
    filter.wait_until("a second", || {
        text = metrics(&filter);
        value(&text, "milter_callback_oldest_seconds") >= 1.0
    });
    assert_eq!(value(&text, "milter_callbacks_stuck"), 1.0, "{text}");
    assert!(text.contains("running for 1 s or longer"), "{text}");
}

/// The endpoint is there for as long as the filter serves, and leaves no file behind; nobody who talks nonsense to it, or
/// nothing, keeps others from it.
#[test]
fn nobody_keeps_others_from_the_metrics() {
    let mut filter = start(&[]);
    metrics(&filter);
    let path = filter.companion.as_ref().unwrap().path().join("m");
    let silent = UnixStream::connect(&path).unwrap();
    let mut noisy = UnixStream::connect(&path).unwrap();
    std::io::Write::write_all(&mut noisy, &[b'x'; 4096]).unwrap();
    assert_eq!(value(&metrics(&filter), "milter_sessions"), 0.0);
    drop(silent);
    filter.daemon.signal(libc::SIGTERM);
    assert_eq!(filter.end().last().unwrap(), "main 0");
    assert!(!path.exists());
}

#[test]
fn without_an_endpoint_mail_goes_on() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (value, line) in [
        (
            "9735",
            "3 steered: LIBMILTER_METRICS: \"9735\" is not an IP address and a port, such as 127.0.0.1:9735 or \
             [::1]:9735, or unix:/path, the default holds",
        ),
        (
            &address,
            "3 steered: LIBMILTER_METRICS: cannot listen, there are no metrics: Address already in use (os error 98)",
        ),
    ] {
        let mut command = Library::Ours.command(program());
        command.env("LIBMILTER_METRICS", value);
        let filter = Filter::start_with(command, &SERVE);
        Mta::greet(&filter).quit();
        assert_eq!(filter.log(), [line]);
    }
}

/// The last line of a trace is the command in whose callback the process has died, though the disk is not the quickest. (If
/// the machine is so busy that the disk seems to hang, nobody waits for it, and the test looks again.)
#[test]
fn a_trace_tells_of_the_command_that_ended_the_process() {
    let dir = crate::support::temp_dir();
    let preload = crate::trace::slow_disk(dir.path());
    let last_line = |attempt: u32| {
        let trace = dir.path().join(format!("trace{attempt}"));
        let mut command = Library::Ours.command(program());
        command.env("LIBMILTER_TRACE", &trace).env("LIBMILTER_TRACE_CONTENT", "yes");
        command
            .env("LD_PRELOAD", &preload)
            .env("SLOW_FILE", &trace)
            .env("SLOW_GATE", dir.path().join("gate"));
        let mut filter = Filter::start_with(command, &SERVE);
        let mut mta = Mta::greet(&filter);
        assert_eq!(mta.connect_from("client"), 'c');
        mta.command(Kind::Helo, b"die\0");
        assert_eq!(filter.daemon.wait().code(), Some(94));
        std::fs::read_to_string(&trace).unwrap().lines().last().unwrap().to_owned()
    };
    let is_there = |attempt| last_line(attempt).contains("\"name\":\"HELO\",\"kind\":\"H\",\"text\":\"die");
    assert!((0..5).any(is_there));
}

/// All that `c-tests/wrong.c` does wrongly, twice; what a whole message was answered, and the log.
fn do_wrong(check: bool) -> (Vec<(char, Vec<u8>)>, Vec<String>) {
    let dir = crate::support::temp_dir();
    let program = dir.path().join("wrong");
    crate::support::compile_c_with("c-tests/wrong.c", &program, &["-rdynamic"]);
    let mut command = Library::Ours.command(&program);
    if check {
        command.env("LIBMILTER_CHECK", "log");
    }
    let filter = Filter::start_with(command, &["unix:{dir}/s"]);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut mta = Mta::greet(&filter);
        assert_eq!(mta.helo("late"), 'c');
        mta.begin_message();
        mta.command(Kind::EndOfMessage, b"");
        loop {
            answers.push(mta.hear().unwrap());
            if answers.last().unwrap().0 == 'y' {
                break;
            }
        }
        mta.quit();
        assert_eq!(Mta::greet(&filter).connect_from("discard"), 'd');
        assert_eq!(Mta::greet(&filter).helo("skip"), 's');
        let mut silent = Mta::greet(&filter);
        assert_eq!(silent.connect_from("client"), 'c');
        silent.command(Kind::Helo, b"noreply\0");
        drop(silent);
        let mut poor = Mta::connect(&filter);
        poor.command(Kind::Negotiate, b"\0\0\0\x06\0\0\0\x01\0\x1f\xff\xff");
        assert!(poor.has_ended());
    }
    filter.wait_until("the log", || !check || filter.log().iter().any(|line| line.contains("SMFIS_NOREPLY")));
    (answers, filter.log())
}

/// Each kind is logged once, and no byte is different.
#[test]
fn what_a_filter_does_wrongly_is_logged_once() {
    let (answers, log) = do_wrong(true);
    let mut found: Vec<&str> = log.iter().filter_map(|line| line.strip_prefix("4 wrong: check: ")).collect();
    found.sort_unstable();
    let wanted = [
        "smfi_addheader: \"X:Y\" has a colon in it",
        "smfi_addheader: X-Long has a line of 1007 bytes: RFC 5322 allows 998",
        "smfi_addheader: X-Longer has a line of 3008 bytes: mail servers cut it after 2048",
        "smfi_addrcpt: the address \"<a@example.org>\\r\\nX\" has a line end in it",
        "smfi_chgheader: a line of the value of X-Fold begins neither with a space nor with a tab",
        "smfi_insheader: \"X\\nY\" has a line end in it",
        "smfi_replacebody: a line has 1000 bytes",
        "smfi_replacebody: a line has 2500 bytes",
        "smfi_replacebody: another modification stands between two pieces",
        "smfi_setreply: \"550 4.7.1 100% full\": a % must be written %%",
        "smfi_setreply: \"550 4.7.1 100% full\": the two codes are of different classes",
        "smfi_setsymlist: called after the negotiation",
        "smfi_setsymlist: called, but SMFIF_SETSYMLIST is not among the flags agreed on",
        "the CONNECT callback returned SMFIS_DISCARD",
        "the HELO callback returned SMFIS_NOREPLY, which was not agreed on",
        "the HELO callback returned SMFIS_SKIP, which was not agreed on",
        "the filter wants actions 0x5e and protocol steps 0x0 that the mail server does not offer",
    ];
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(found.starts_with(wanted) && found.ends_with("; this is logged once"), "{found}: {wanted}");
    }
    let (without, log) = do_wrong(false);
    assert_eq!(answers, without);
    assert!(log.iter().all(|line| !line.contains("check")), "{log:?}");
}
