//! clamav-milter with a real clamd, whose only signature is a hand-made one for the EICAR test file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::compare;
use super::mail::{Mail, eicar};
use crate::support::wait_until;

#[test]
fn clamav_milter() {
    let outcome = "clean mail marked; EICAR found and refused, VirusAction run";
    compare("clamav-milter", outcome, |run| {
        let signatures = run.dir().join("signatures");
        fs::create_dir(&signatures).unwrap();
        let hex: String = eicar().lines().last().unwrap().bytes().map(|byte| format!("{byte:02x}")).collect();
        fs::write(signatures.join("eicar.ndb"), format!("Test.EICAR:0:*:{hex}\n")).unwrap();
        let _clamd = run.start_helper(
            run.enclosure().command().arg("/usr/sbin/clamd").arg("-c").arg(run.config("clamd.conf")),
            &run.dir().join("clamd.sock"),
        );

        let action = run.dir().join("virus-action");
        fs::write(&action, format!("#!/bin/sh\necho \"$@\" >>{}/virus-log\n", run.dir().display())).unwrap();
        fs::set_permissions(&action, fs::Permissions::from_mode(0o755)).unwrap();
        let filter = run.start_daemon(
            run.filter("/usr/sbin/clamav-milter").arg("-c").arg(run.config("clamav-milter.conf")),
            &run.dir().join("clamav.sock"),
            &run.dir().join("clamav.pid"),
        );
        // It answers before it has looked for clamd, and then refuses mail for the time being.
        wait_until("clamav-milter to find clamd", || {
            !run.play(&filter, &Mail::default()).1.verdict.starts_with("tempfailed")
        });
        let clean = run.send("clean", &filter, &Mail::default(), str::to_owned);
        assert!(clean.message.contains("X-Virus-Status: Clean"), "{}", clean.message);
        let infected = Mail { message: eicar(), ..Mail::default() };
        let refused = run.send("infected", &filter, &infected, str::to_owned);
        assert_eq!(refused.verdict, "rejected (550 5.7.1 Infected by Test.EICAR.UNOFFICIAL) at BODYEOB");
        let log = run.dir().join("virus-log");
        wait_until("VirusAction", || log.exists());
        run.record("VirusAction", &fs::read_to_string(&log).unwrap());
        let postfix = run.postfix(&filter);
        let clean = postfix.send("clean", &Mail::default(), str::to_owned);
        assert!(clean.message.contains("X-Virus-Status: Clean"), "{}", clean.message);
        let refused = postfix.send("infected", &infected, str::to_owned);
        assert_eq!(refused.verdict, "550 5.7.1 Infected by Test.EICAR.UNOFFICIAL\r\n");
        drop(postfix);
        run.record("end", filter.stop());
    });
}
