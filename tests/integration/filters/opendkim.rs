//! opendkim: signs as a daemon that restarts itself, verifies in the foreground. That others find its signatures valid,
//! under Sendmail too, is shown in `tests/integration/opendkim.rs`.

use super::mail::Mail;
use super::{compare, mask};

#[test]
fn opendkim() {
    compare("opendkim", "signs; own signature passes, of an altered body it is refused", |run| {
        let sign = run.start_daemon(
            run.filter("/usr/sbin/opendkim").arg("-x").arg(run.config("opendkim-sign.conf")),
            &run.dir().join("sign.sock"),
            &run.dir().join("sign.pid"),
        );
        let signed = run.send("sign", &sign, &Mail::default(), without_time);
        assert!(signed.message.contains("DKIM-Signature:"), "{}", signed.message);
        let delivered = run.postfix(&sign).send("sign", &Mail::default(), without_time);
        assert!(delivered.message.contains("DKIM-Signature:"), "{}", delivered.message);
        run.record("signer", sign.stop());

        let verify = run.start(
            run.filter("/usr/sbin/opendkim").arg("-f").arg("-x").arg(run.config("opendkim-verify.conf")),
            &run.dir().join("verify.sock"),
        );
        let mail = Mail { message: signed.message.clone(), ..Mail::default() };
        let verified = run.send("verify", &verify, &mail, without_time);
        assert!(verified.message.contains("dkim=pass"), "{}", verified.message);
        let altered = Mail { message: signed.message.replace("Friday", "Sunday"), ..Mail::default() };
        let refused = run.send("verify, altered", &verify, &altered, without_time);
        assert!(refused.verdict.starts_with("rejected (550 5.7.0 "), "{}", refused.verdict);
        let postfix = run.postfix(&verify);
        let verified = postfix.send("verify", &mail, without_time);
        assert!(verified.message.contains("dkim=pass"), "{}", verified.message);
        let refused = postfix.send("verify, altered", &altered, without_time);
        assert!(refused.verdict.starts_with("550 5.7.0 "), "{}", refused.verdict);
        run.record("verifier", verify.stop());
    });
}

/// Masks the time of a signature and the signature proper, which covers the time.
fn without_time(text: &str) -> String {
    let text = mask(text, "; t=", ";", "TIME");
    let text = mask(&text, "\tt=", ";", "TIME");
    let text = mask(&text, "\tb=", "==", "SIGNATURE");
    mask(&text, "header.b=", ";", "SIGNATURE")
}
