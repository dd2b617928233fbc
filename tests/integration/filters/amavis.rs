//! amavisd-milter with a real amavisd: a header at the end, a banned attachment, a virus.

use std::process::Command;

use super::enclosure::make_dir;
use super::mail::{Mail, eicar, with_program};
use super::{compare, mask};
use crate::support::run as execute;

#[test]
fn amavisd_milter() {
    compare("amavisd-milter", "clean mail marked; banned attachment refused; virus discarded", |run| {
        let work = run.dir().join("work");
        make_dir(&work, "amavis");
        let spool = work.join("mail");
        make_dir(&spool, "amavis");
        execute(Command::new("chmod").arg("750").arg(&spool));
        let amavisd = work.join("amavisd.sock");
        let _amavisd = run.start_helper(
            run.enclosure()
                .command()
                .arg("/usr/sbin/amavisd")
                .arg("-c")
                .arg(run.config("amavisd.conf"))
                .arg("foreground"),
            &amavisd,
        );
        let socket = work.join("milter.sock");
        let pid_file = work.join("milter.pid");
        let filter = run.start_daemon(
            run.filter("setpriv")
                .args(["--reuid=amavis", "--regid=amavis", "--clear-groups", "/usr/sbin/amavisd-milter"])
                .arg("-p")
                .arg(&pid_file)
                .arg("-s")
                .arg(format!("local:{}", socket.display()))
                .arg("-S")
                .arg(&amavisd)
                .arg("-w")
                .arg(&spool),
            &socket,
            &pid_file,
        );

        let send = |title, mail: Mail| run.send(title, &filter, &mail, |text| mask(text, " id=", " ", "ID"));
        let clean = send("clean", Mail::default());
        assert!(clean.message.contains("X-Virus-Scanned: amavis at example.com"), "{}", clean.message);
        let banned = send("banned", Mail { message: with_program(), ..Mail::default() });
        assert!(banned.verdict.contains("BANNED: application/octet-stream,setup.exe"), "{}", banned.verdict);
        let virus = send("virus", Mail { message: eicar(), ..Mail::default() });
        assert_eq!(virus.verdict, "discarded at BODYEOB");
        let postfix = run.postfix(&filter);
        let clean = postfix.send("clean", &Mail::default(), str::to_owned);
        assert!(clean.message.contains("X-Virus-Scanned: amavis at example.com"), "{}", clean.message);
        drop(postfix);
        run.record("end", filter.stop());
    });
}
