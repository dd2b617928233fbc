//! opendmarc, which asks the DNS itself: mail that example.org's policy allows, and mail that it wants rejected.

use std::fs;

use super::enclosure::make_dir;
use super::mail::Mail;
use super::{compare, mask};

#[test]
fn opendmarc() {
    compare("opendmarc", "dmarc=pass added; mail from elsewhere refused by policy", |run| {
        let work = run.dir().join("work");
        make_dir(&work, "opendmarc");
        let filter = run.start_daemon(
            run.filter("/usr/sbin/opendmarc").arg("-c").arg(run.config("opendmarc.conf")),
            &work.join("opendmarc.sock"),
            &work.join("opendmarc.pid"),
        );
        let good = run.send("allowed", &filter, &Mail::default(), str::to_owned);
        assert!(good.message.contains("dmarc=pass (p=reject"), "{}", good.message);
        let elsewhere = Mail { client: "192.0.2.77", ..Mail::default() };
        let bad = run.send("from elsewhere", &filter, &elsewhere, str::to_owned);
        assert_eq!(bad.verdict, "rejected (550 5.7.1 rejected by DMARC policy for example.org) at BODYEOB");
        let history = fs::read_to_string(work.join("history")).unwrap();
        run.record("history", &mask(&history, "received ", "\n", "TIME"));

        let postfix = run.postfix(&filter);
        let good = postfix.send("allowed", &Mail::default(), str::to_owned);
        assert!(good.message.contains("dmarc=pass (p=reject"), "{}", good.message);
        let bad = postfix.send("from elsewhere", &elsewhere, str::to_owned);
        assert_eq!(bad.verdict, "550 5.7.1 rejected by DMARC policy for example.org\r\n");
        drop(postfix);
        run.record("end", filter.stop());
    });
}
