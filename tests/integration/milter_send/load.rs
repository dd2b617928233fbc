//! Many connections at once. What the figures are is the machine's affair; that they add up is milter-send's.

use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::Value;

use super::{Sent, Server, answer, command, kill, send, start};
use crate::support::{Library, PATIENCE, temp_dir, wait_until};

/// The figures of a run against an example on our library, and what the filter printed.
fn figures(example: &str, arguments: &[&str]) -> (i32, Value, String) {
    let dir = temp_dir();
    let spec = format!("unix:{}", dir.path().join("s").display());
    let filter = start(Library::Ours, example, dir.path(), &spec);
    let sent = send(&spec, &[arguments, &["--json", "8bit.eml"]].concat(), b"");
    let log = || String::from_utf8_lossy(&std::fs::read(dir.path().join("log")).unwrap()).into_owned();
    if example == "log-everything" {
        // One more session has only tried the socket.
        let sessions = count(&sent.json()["load"]["sessions"]) + 1;
        wait_until("the end of the sessions", || log().matches(" close\n").count() as u64 == sessions);
    }
    kill(&filter);
    let report = sent.json();
    assert_eq!(report["messages"], Value::Array(Vec::new()));
    (sent.status, report["load"].clone(), log())
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

/// Checks that every message has its place in the figures; how many there were.
fn add_up(load: &Value) -> u64 {
    let messages = count(&load["messages"]);
    let buckets = load["histogram"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|bucket| count(&bucket["count"])).sum::<u64>(), messages, "{load:#}");
    let dispositions = load["dispositions"].as_object().unwrap();
    assert_eq!(dispositions.values().map(count).sum::<u64>(), messages, "{load:#}");
    let latency = &load["latency"];
    let known: Vec<f64> =
        ["p50", "p90", "p99", "p99_9", "max"].iter().filter_map(|key| latency[key].as_f64()).collect();
    assert!(known.is_sorted(), "{latency}");
    let per_second = load["messages_per_second"].as_f64().unwrap() * load["seconds"].as_f64().unwrap();
    assert!((per_second - messages as f64).abs() < 1e-3, "{load:#}");
    messages
}

#[test]
fn the_filter_saw_as_many_messages_as_are_told() {
    let (status, load, log) = figures("log-everything", &["--connections", "4", "--duration", "0.5"]);
    assert_eq!((status, &load["latency"]["from"]), (0, &"start".into()));
    let messages = add_up(&load);
    assert!(messages > 0 && load["rate"].is_null(), "{load:#}");
    let seen = |word: &str| {
        log.lines()
            .filter(|line| line.split_once(' ').is_some_and(|(_, event)| event.starts_with(word)))
            .count()
    };
    assert_eq!(seen("end of message") as u64, messages);
    assert_eq!((seen("connect") as u64, count(&load["sessions"])), (messages, messages));
}

#[test]
fn messages_share_a_connection_if_they_shall() {
    let (status, load, _) =
        figures("add-header", &["--connections", "2", "--duration", "0.5", "--repeat", "5"]);
    let (messages, sessions) = (add_up(&load), count(&load["sessions"]));
    assert_eq!(status, 0);
    assert!(messages <= 5 * sessions && messages + 5 * 2 > 5 * sessions, "{load:#}");
    // Behind a decision on the whole connection there is nothing to be asked on it any more.
    let rejected = ["--connections", "2", "--duration", "0.5", "--repeat", "5", "--client", "192.0.2.66"];
    let (status, load, _) = figures("block-list", &rejected);
    assert_eq!((status, add_up(&load)), (0, count(&load["sessions"])));
    assert_eq!(load["dispositions"]["rejected"], load["messages"]);
}

#[test]
fn a_rate_is_kept_or_it_is_told() {
    let (status, load, _) = figures("add-header", &["--connections", "4", "--duration", "1", "--rate", "50"]);
    assert_eq!((status, &load["latency"]["from"], &load["rate"]), (0, &"due".into(), &50.0.into()));
    assert_eq!(add_up(&load) + count(&load["not_begun"]), 50, "{load:#}");

    // A filter that takes longer for the first message than there is time.
    let filter = Server::filter(|stream| {
        answer(stream, |command| {
            if command == b'H' {
                std::thread::sleep(Duration::from_millis(700));
            }
            b"\0\0\0\x01c"
        });
    });
    let arguments = ["--rate", "100", "--duration", "0.5", "--json", "--show", "result", "8bit.eml"];
    let sent = send(&filter.spec, &arguments, b"");
    filter.end();
    let report = sent.json();
    let load = &report["load"];
    assert_eq!((sent.status, add_up(load), count(&load["not_begun"])), (0, 1, 49), "{load:#}");
    assert!(
        load["latency"]["max"].as_f64().unwrap() >= 700.0 && load["latency"]["p50"].is_null(),
        "{load:#}"
    );
    // Whether the one that began was late is up to the machine.
    let warning =
        regex::Regex::new("the rate was not kept: [01] messages began late, 49 not at all").unwrap();
    assert!(warning.is_match(report["warnings"][0]["text"].as_str().unwrap()), "{report:#}");
    assert!(warning.is_match(&sent.dialogue), "{sent:?}");
}

#[test]
fn messages_that_fail_are_told_apart() {
    let dir = temp_dir();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    // Not joined: it hangs up on everybody until the test program ends.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let sent = send(path.to_str().unwrap(), &["--connections", "2", "--duration", "0.3", "8bit.eml"], b"");
    assert_eq!(sent.status, 6, "{sent:?}");
    let text = sent.text();
    assert!(
        text.contains("messages     0 in ") && text.contains(": OPTNEG: the filter closed the connection\n"),
        "{text}"
    );
    assert!(
        sent.dialogue.contains(" messages failed, the first: OPTNEG: the filter closed the connection\n"),
        "{sent:?}"
    );

    let nowhere =
        send("unix:/nonexistent", &["--connections", "2", "--duration", "0.3", "--json", "8bit.eml"], b"");
    let load = nowhere.json()["load"].clone();
    assert_eq!((nowhere.status, add_up(&load)), (7, 0));
    assert!(load["errors"].as_object().unwrap().values().map(count).sum::<u64>() > 0, "{load:#}");
}

#[test]
fn the_figures_for_people() {
    let filter = Server::filter(|stream| answer(stream, |_| b"\0\0\0\x01c"));
    // One connection must do, and has to: 30 messages are few enough to wait for.
    let sent =
        send(&filter.spec, &["--rate", "100", "--duration", "0.3", "--repeat", "1000", "8bit.eml"], b"");
    filter.end();
    let text = sent.text();
    let pattern = r"^connections  1 at once, 100 messages/s wanted; 1 in all
messages     \d+ in [\d.]+ m?s, [\d.]+/s
  accepted   \d+
(  late       .*\n)?latency      (p50 [\d.]+ m?s, )?max [\d.]+ m?s, from when they were due
(  < *[\d.]+ m?s +\d+ ?#*\n)+$";
    assert!(regex::Regex::new(pattern).unwrap().is_match(&text), "{text}");
    assert_eq!(sent.status, 0);
}

#[test]
fn interrupted_it_tells_the_figures_so_far() {
    let (reached, under_way) = channel();
    let filter = Server::filter(move |stream| {
        answer(stream, |command| {
            if command == b'E' {
                let _ = reached.send(());
            }
            b"\0\0\0\x01c"
        });
    });
    let child = command()
        .args([
            &filter.spec,
            "--json",
            "--rate",
            "100",
            "--duration",
            "1000",
            "--repeat",
            "1000000",
            "8bit.eml",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // When the second is at its end the first has been counted.
    for _ in 0..2 {
        under_way.recv_timeout(PATIENCE).unwrap();
    }
    // SAFETY: kill takes numbers only; the child has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    filter.end();
    assert_eq!(output.status.signal(), Some(libc::SIGINT));
    let dialogue = String::from_utf8(output.stderr).unwrap();
    let report = Sent { status: 0, message: output.stdout, dialogue }.json();
    assert_eq!(report["error"], "interrupted by SIGINT");
    assert!(add_up(&report["load"]) >= 1, "{report:#}");
}
