//! spamass-milter with a real spamd and Debian's rules, local tests only.

use std::fs;
use std::path::Path;

use super::compare;
use super::mail::{Mail, gtube, text};
use crate::support::wait_until;

#[test]
fn spamass_milter() {
    compare(
        "spamass-milter",
        "ham marked, forged marks removed; spam marked, its Subject too; GTUBE refused",
        |run| {
            let rules = run.dir().join("rules");
            fs::create_dir(&rules).unwrap();
            for file in fs::read_dir("/etc/spamassassin").unwrap().map(|entry| entry.unwrap().path()) {
                if file.extension().is_some_and(|kind| kind == "pre") {
                    fs::copy(&file, rules.join(file.file_name().unwrap())).unwrap();
                }
            }
            fs::rename(run.config("spamassassin.cf"), rules.join("local.cf")).unwrap();
            let spamd = run.dir().join("spamd.sock");
            let _spamd = run.start_helper(
                run.enclosure()
                    .command()
                    .args([
                        "/usr/sbin/spamd",
                        "--local",
                        "--nouser-config",
                        "--username=nobody",
                        "--max-children=1",
                    ])
                    .arg(option("--siteconfigpath", &rules))
                    .arg(option("--socketpath", &spamd))
                    .arg("--syslog=stderr"),
                &spamd,
            );
            // It listens long before it has read its rules.
            wait_until("spamd to answer", || {
                let mut ping = run.enclosure().command();
                ping.args(["spamc", "-K", "-U"]).arg(&spamd).output().unwrap().status.success()
            });

            let socket = run.dir().join("spamass.sock");
            let pid_file = run.dir().join("spamass.pid");
            let filter = run.start_daemon(
                run.filter("/usr/sbin/spamass-milter")
                    .args(["-f", "-r", "100", "-P"])
                    .arg(&pid_file)
                    .arg("-p")
                    .arg(&socket)
                    .args(["--", "-U"])
                    .arg(&spamd),
                &socket,
                &pid_file,
            );
            let ham = run.send("ham", &filter, &Mail::default(), str::to_owned);
            assert!(ham.message.contains("X-Spam-Status: No"), "{}", ham.message);
            let mail = Mail { message: text("Spam, but not enough to be refused."), ..Mail::default() };
            let marked = run.send("spam", &filter, &mail, str::to_owned);
            assert!(marked.message.contains("X-Spam-Flag: YES"), "{}", marked.message);
            assert!(marked.message.contains("Subject: [SPAM] Lunch"), "{}", marked.message);
            let mail = Mail { message: gtube(), ..Mail::default() };
            let spam = run.send("GTUBE", &filter, &mail, str::to_owned);
            assert_eq!(spam.verdict, "rejected (550 5.7.1 Blocked by SpamAssassin) at BODYEOB");
            // A forged header of an earlier check must go.
            let forged = text("No spam.")
                .replace("MIME-Version", "X-Spam-Flag: NO\nX-Spam-Level: *****\nMIME-Version");
            let mail = Mail { message: forged, ..Mail::default() };
            let cleaned = run.send("forged", &filter, &mail, str::to_owned);
            assert!(!cleaned.message.contains("X-Spam-Flag: NO"), "{}", cleaned.message);
            let postfix = run.postfix(&filter);
            let ham = postfix.send("ham", &Mail::default(), str::to_owned);
            assert!(ham.message.contains("X-Spam-Status: No"), "{}", ham.message);
            let mail = Mail { message: gtube(), ..Mail::default() };
            let spam = postfix.send("GTUBE", &mail, str::to_owned);
            assert_eq!(spam.verdict, "550 5.7.1 Blocked by SpamAssassin\r\n");
            drop(postfix);
            run.record("end", filter.stop());
        },
    );
}

fn option(name: &str, value: &Path) -> String {
    format!("{name}={}", value.display())
}
