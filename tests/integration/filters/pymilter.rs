//! python3-milter: a filter that uses every call of its API, and pymilter's own tests.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::enclosure::data;
use super::mail::Mail;
use super::process::Filter;
use super::{Run, compare, path_text};
use crate::support::{repository, run as execute, wait_until};

#[test]
fn pymilter() {
    compare("python3-milter", "every call of its API; its own tests pass", |run| {
        let socket = run.dir().join("pymilter.sock");
        let script = data("every-call.py");
        let filter =
            run.start(run.filter("/usr/bin/python3").args(["-u", path_text(&script)]).arg(&socket), &socket);
        let changed = send_all(run, &filter);
        for part in ["X-Added: at the end", "X-Inserted: at the top", "Subject: Changed", "A new body."] {
            assert!(changed.contains(part), "{part}: {changed}");
        }
        let held = run.postfix(&filter).send_to_hold("changed", &Mail::default());
        assert!(held.message.contains("Subject: Changed"), "{}", held.message);
        let before = filter.log().len();
        let stop = Mail { recipient: "<stop@example.com>", ..Mail::default() };
        run.send("stop", &filter, &stop, str::to_owned);
        run.record("end", &filter.end(run)[before..]);
        own_tests(run);
    });
}

/// Sends a mail to every recipient for whom one of the scripts has an answer of its own, and records what
/// it printed. Returns the message that was let through.
pub fn send_all(run: &Run, filter: &Filter) -> String {
    let recipients = [
        "<bob@example.com>",
        "<raise@example.com>",
        "<lines@example.com>",
        "<wait@example.com>",
        "<wrong@example.com>",
        "<nobody@example.com>",
        "<void@example.com>",
    ];
    let mut delivered = String::new();
    for (before, recipient) in recipients.into_iter().enumerate() {
        let sent = run.send(recipient, filter, &Mail { recipient, ..Mail::default() }, str::to_owned);
        if !sent.message.is_empty() {
            delivered = sent.message;
        }
        // The session's last lines must not mix with the next one's first.
        wait_until("close", || filter.log().lines().filter(|line| line.contains("close")).count() > before);
    }
    run.record("log", &filter.log());
    delivered
}

/// The tests in pymilter's source archive, run with the installed package. The archive of the packaged release
/// left out what `testsample` needs; that one is the previous release's.
fn own_tests(run: &Run) {
    let dir = run.dir().join("pymilter");
    fs::create_dir(&dir).unwrap();
    for (archive, files) in [
        ("pymilter-1.0.4.tar.gz", &["*/test/*", "*/testsample.py", "*/sample.py"][..]),
        ("pymilter-1.0.5.tar.gz", &["*/test/*", "*/testmime.py", "*/testutils.py"]),
    ] {
        execute(
            Command::new("tar")
                .arg("-C")
                .arg(&dir)
                .arg("-xzf")
                .arg(source(archive))
                .args(["--strip-components=1", "--wildcards"])
                .args(files),
        );
    }
    let output = run
        .filter("sh")
        .args([
            "-c",
            "cd \"$DIR/pymilter\" && exec /usr/bin/python3 -m unittest testmime testutils testsample",
        ])
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    assert!(report.contains("\nRan 21 tests in "), "{report}");
    run.record("own tests", report.lines().last().unwrap());
}

/// A source archive that `tests/install-packages` fetched.
pub fn source(name: &str) -> PathBuf {
    let path = repository().join("target/sources").join(name);
    assert!(path.exists(), "{} is missing: run `make deps`", path.display());
    path
}
