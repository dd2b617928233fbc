//! dkimpy-milter: signs for inside hosts, verifies for the others.

use super::enclosure::make_dir;
use super::mail::Mail;
use super::{compare, mask};

#[test]
fn dkimpy_milter() {
    compare("dkimpy-milter", "signs; own signature passes, of an altered body it fails", |run| {
        let work = run.dir().join("work");
        make_dir(&work, "dkimpy-milter");
        let filter = run.start(
            run.filter("/usr/bin/dkimpy-milter").arg(run.config("dkimpy-milter.conf")),
            &work.join("dkimpy.sock"),
        );
        let signed = run.send("sign", &filter, &Mail::default(), without_time);
        assert!(signed.message.starts_with("DKIM-Signature:"), "{}", signed.message);
        for (title, message, result) in [
            ("verify", signed.message.clone(), "dkim=pass"),
            ("verify, altered", signed.message.replace("Friday", "Sunday"), "dkim=fail"),
        ] {
            // From another domain's author, so that it is not signed anew.
            let mail = Mail { client: "192.0.2.77", message, ..Mail::default() };
            let verified = run.send(title, &filter, &mail, without_time);
            assert!(verified.message.contains(result), "{}", verified.message);
        }
        let signed = run.postfix(&filter).send("sign", &Mail::default(), without_time);
        assert!(signed.message.contains("DKIM-Signature:"), "{}", signed.message);
        run.record("end", filter.stop());
    });
}

/// Masks the time of a signature and the signature proper, which covers the time.
fn without_time(text: &str) -> String {
    let text = mask(text, " t=", ";", "TIME");
    mask(&text, " b=", "==", "SIGNATURE")
}
