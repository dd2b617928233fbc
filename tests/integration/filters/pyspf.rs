//! pyspf-milter: a sender that the DNS allows, and one that it does not.

use super::compare;
use super::enclosure::make_dir;
use super::mail::Mail;

#[test]
fn pyspf_milter() {
    compare("pyspf-milter", "spf=pass added; mail from elsewhere refused", |run| {
        let work = run.dir().join("work");
        make_dir(&work, "pyspf-milter");
        let filter = run.start(
            run.filter("/usr/bin/pyspf-milter").arg(run.config("pyspf-milter.conf")),
            &work.join("pyspf.sock"),
        );
        let allowed = run.send("allowed", &filter, &Mail::default(), str::to_owned);
        assert!(allowed.message.contains("spf=pass"), "{}", allowed.message);
        let elsewhere = Mail { client: "192.0.2.77", ..Mail::default() };
        let refused = run.send("from elsewhere", &filter, &elsewhere, str::to_owned);
        assert!(refused.verdict.starts_with("rejected (550 5.7.23 "), "{}", refused.verdict);
        let allowed = run.postfix(&filter).send("allowed", &Mail::default(), str::to_owned);
        assert!(allowed.message.contains("spf=pass"), "{}", allowed.message);
        run.record("end", filter.stop());
    });
}
