//! Settings of libmilter(7) that show only between a real mail server and a real filter that knows nothing of them.

use crate::mail_servers::filter::{Endpoint, Family};
use crate::mail_servers::server::{Conduct, Kind, MailServer};
use crate::mail_servers::smtp_client::Client;
use crate::mail_servers::smtp_sink::Sink;
use crate::support::{Daemon, Library, repository, temp_dir};
use std::process::Command;

/// pymilter takes longer than Postfix waits for an answer at the end of a message: without a sign of life Postfix gives up.
#[test]
fn postfix_does_not_give_up_a_filter_that_is_kept_alive() {
    let reply = |keep_alive: &str| {
        let dir = temp_dir();
        let endpoint = Endpoint::free(Family::Inet, dir.path());
        let mut command: Command = Library::Ours.command("/usr/bin/python3");
        command.arg(repository().join("tests/filters/slow.py")).arg(endpoint.spec()).arg("8");
        command.env("LIBMILTER_KEEPALIVE", keep_alive).env("LIBMILTER_SLOW_CALLBACK", "1");
        let _filter = Daemon::start(&mut command);
        endpoint.await_listener();
        let sink = Sink::open();
        let conduct = Conduct { milter_timeout: 4, ..Conduct::default() };
        let server = MailServer::start_with(Kind::Postfix, &endpoint, &sink, &conduct);
        let mut client = Client::connect([127, 0, 0, 1].into(), server.port());
        client.say("EHLO client.example.com");
        let reply = client.send("a@example.com", &["b@example.net"], b"Subject: x\r\n\r\ntext\r\n");
        client.quit();
        if reply.starts_with("250") {
            let message = String::from_utf8(sink.deliveries(1)[0].message.clone()).unwrap();
            assert!(message.contains("X-Slow: yes"), "{message}");
        }
        reply[..3].to_owned()
    };
    assert_eq!((reply("no"), reply("yes")), ("451".into(), "250".into()));
}
