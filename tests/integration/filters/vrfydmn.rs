//! vrfydmn: accepts authors of its own domains only, or replaces the author.

use std::fs;

use super::enclosure::make_dir;
use super::mail::{Mail, text};
use super::process::Filter;
use super::{Run, compare};

#[test]
fn vrfydmn() {
    compare("vrfydmn", "own domain accepted; other author refused, or replaced with --fix", |run| {
        let spoofed = || text("Spoofed.").replace("Alice <alice@example.org>", "Alice <alice@kiln.test>");
        let mail = || Mail { message: spoofed(), ..Mail::default() };

        let filter = start(run, "refuse", &[]);
        let own = run.send("own", &filter, &Mail::default(), str::to_owned);
        assert_eq!(own.verdict, "accepted at BODYEOB");
        let other = run.send("other", &filter, &mail(), str::to_owned);
        assert!(other.verdict.starts_with("rejected (554 5.7.0 Reject Queue-ID: "), "{}", other.verdict);
        run.record("end", filter.stop());

        let filter = start(run, "fix", &["--fix"]);
        let fixed = run.send("fixed", &filter, &mail(), str::to_owned);
        assert!(fixed.message.contains("From: <alice@example.org>"), "{}", fixed.message);
        assert!(fixed.message.contains("Reply-To: Alice <alice@kiln.test>"), "{}", fixed.message);
        let fixed = run.postfix(&filter).send("fixed", &mail(), str::to_owned);
        assert!(fixed.message.contains("From: <alice@example.org>"), "{}", fixed.message);
        run.record("end", filter.stop());
    });
}

/// Starts it as a daemon. Debian's version takes each character of the name of its domains file for a domain of its
/// own: the file has a short name, is named without its directory, and kiln.test shares no letter with it.
fn start(run: &Run, name: &str, options: &[&str]) -> Filter {
    let work = run.dir().join(name);
    make_dir(&work, "vrfydmn");
    fs::write(work.join("org"), "example.org\n").unwrap();
    let socket = work.join("vrfydmn.sock");
    let pid_file = work.join("vrfydmn.pid");
    run.start_daemon(
        run.filter("sh")
            .args(["-c", "cd \"$1\" && shift && exec /usr/sbin/vrfydmn \"$@\"", "sh"])
            .arg(&work)
            .args(["--user=vrfydmn", "--group=vrfydmn", "--file=org"])
            .arg(format!("--socket=local:{}", socket.display()))
            .arg(format!("--pid={}", pid_file.display()))
            .args(options),
        &socket,
        &pid_file,
    )
}
