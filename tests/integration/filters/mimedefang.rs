//! MIMEDefang: its multiplexor, a Perl filter that refuses at each stage and makes each kind of change.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::compare;
use super::enclosure::make_dir;
use super::mail::{Mail, text, with_program};

#[test]
fn mimedefang() {
    let outcome = "refusals at connect, helo, mail, rcpt, end; headers, body, sender, recipients changed";
    compare("mimedefang", outcome, |run| {
        let work = run.dir().join("work");
        make_dir(&work, "defang");
        run.config("mimedefang-filter.pl");
        let worker = run.config("mimedefang-worker");
        fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
        let multiplexor = work.join("multiplexor.sock");
        let _multiplexor = run.start_helper(
            run.enclosure()
                .command()
                .args(["/usr/bin/mimedefang-multiplexor", "-D", "-U", "defang", "-m", "1", "-x", "2", "-z"])
                .arg(&work)
                .arg("-s")
                .arg(&multiplexor)
                .arg("-f")
                .arg(&worker),
            &multiplexor,
        );
        let socket = work.join("mimedefang.sock");
        let pid_file = run.dir().join("mimedefang.pid");
        let filter = run.start_daemon(
            run.filter("/usr/bin/mimedefang")
                .args(["-U", "defang", "-r", "-H", "-s", "-t", "-y", "-q", "-z"])
                .arg(&work)
                .arg("-m")
                .arg(&multiplexor)
                .arg("-p")
                .arg(&socket)
                .arg("-o")
                .arg(work.join("lock"))
                .arg("-P")
                .arg(&pid_file),
            &socket,
            &pid_file,
        );

        let send = |title, mail: Mail| run.send(title, &filter, &mail, str::to_owned);
        let changed = send("changes", Mail { message: with_program(), ..Mail::default() }).message;
        for line in
            ["Subject: [checked] Lunch", "X-Added: ", "X-Inserted: ", "A file named setup.exe was removed."]
        {
            assert!(changed.contains(line), "{line}: {changed}");
        }
        assert!(!changed.contains("TVqQAAMAAAAEAAAA"), "{changed}");
        for (stage, mail, verdict) in [
            (
                "relay",
                Mail { client: "192.0.2.66", ..Mail::default() },
                "rejected (550 5.7.1 Command rejected) at CONNECT",
            ),
            (
                "helo",
                Mail { helo: "bad.example.net", ..Mail::default() },
                "rejected (554 5.7.1 bad name bad.example.net) at HELO",
            ),
            (
                "sender",
                Mail { sender: "<slow@example.org>", ..Mail::default() },
                "tempfailed (451 4.3.0 come back later) at MAIL",
            ),
            (
                "rcpt",
                Mail { recipient: "<nobody@example.com>", ..Mail::default() },
                "rejected (550 5.1.1 no such user) at RCPT",
            ),
            (
                "bounce",
                Mail { message: with_subject("Bounce"), ..Mail::default() },
                "rejected (554 5.7.1 not today) at BODYEOB",
            ),
            ("discard", Mail { message: with_subject("Discard"), ..Mail::default() }, "discarded at BODYEOB"),
        ] {
            assert_eq!(send(stage, mail).verdict, verdict, "{stage}");
        }
        let postfix = run.postfix(&filter);
        let mail = Mail { message: with_program(), ..Mail::default() };
        let changed = postfix.send("changes", &mail, str::to_owned).message;
        assert!(changed.contains("A file named setup.exe was removed."), "{changed}");
        drop(postfix);
        run.record("end", filter.stop());
    });
}

fn with_subject(subject: &str) -> String {
    text("Nothing.").replace("Subject: Lunch", &format!("Subject: {subject}"))
}
