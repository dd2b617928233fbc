//! Settings of libmilter(7) that show only between a real mail server and a real filter that knows nothing of them.

use crate::mail_servers::filter::{Endpoint, Family};
use crate::mail_servers::server::{Conduct, Kind, MailServer};
use crate::mail_servers::smtp_client::Client;
use crate::mail_servers::smtp_sink::Sink;
use crate::support::{Daemon, Library, repository, temp_dir};
use serde_json::Value;
use std::fs::File;
use std::process::Command;

/// pymilter takes longer than Postfix waits for an answer at the end of a message: without a sign of life Postfix gives up.
#[test]
fn postfix_does_not_give_up_a_filter_that_is_kept_alive() {
    let reply = |keep_alive: &str| {
        let dir = temp_dir();
        let endpoint = Endpoint::free(Family::Inet, dir.path());
        let mut command: Command = Library::Ours.command("/usr/bin/python3");
        command.arg(repository().join("tests/filters/slow.py")).arg(endpoint.spec()).arg("8");
        let errors = dir.path().join("errors");
        command.env("LIBMILTER_KEEPALIVE", keep_alive).env("LIBMILTER_SLOW_CALLBACK", "1");
        command.env("LIBMILTER_LOG", "json").stderr(File::create(&errors).unwrap());
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
        let log = std::fs::read_to_string(&errors).unwrap();
        let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        let message = line["message"].as_str().unwrap();
        assert!(message.starts_with("the BODYEOB callback has been running for "), "{message}");
        // Postfix has told it to the client, too.
        let queue_id = line["queue_id"].as_str().unwrap();
        assert!(keep_alive == "no" || reply.contains(&format!("queued as {queue_id}")), "{reply}: {line}");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        reply[..3].to_owned()
    };
    assert_eq!((reply("no"), reply("yes")), ("451".into(), "250".into()));
}
