//! libsendmail-milter-perl: a filter that uses every call of Sendmail::Milter.

use super::enclosure::data;
use super::mail::Mail;
use super::pymilter::send_all;
use super::{compare, path_text};

#[test]
fn sendmail_milter_for_perl() {
    compare("libsendmail-milter-perl", "every call of its API", |run| {
        let socket = run.dir().join("perl.sock");
        let script = data("every-call.pl");
        let filter = run.start(run.filter("/usr/bin/perl").arg(path_text(&script)).arg(&socket), &socket);
        let changed = send_all(run, &filter);
        for part in ["X-Added: at the end", "Subject: Changed", "Passed on by Perl."] {
            assert!(changed.contains(part), "{part}: {changed}");
        }
        let delivered = run.postfix(&filter).send("changed", &Mail::default(), str::to_owned);
        assert!(delivered.message.contains("Passed on by Perl."), "{}", delivered.message);
        run.record("end", filter.stop());
    });
}
