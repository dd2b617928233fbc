//! A filter under a real Postfix: the SMTP dialogue of the client and what is delivered, or held, belong to the run's
//! transcript. The server is the private one of the tests with mail servers; it is told the client's address by XCLIENT.

use std::cell::Cell;
use std::fs::{Permissions, set_permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use super::Run;
use super::mail::{Mail, Sent};
use super::process::Filter;
use crate::mail_servers::filter::Endpoint;
use crate::mail_servers::server::{Kind, MailServer};
use crate::mail_servers::smtp_client::Client;
use crate::mail_servers::smtp_sink::Sink;
use crate::mail_servers::transcript::normalise;
use crate::support::wait_until;

/// A running Postfix with the filter in it.
pub struct Postfix<'a> {
    run: &'a Run<'a>,
    server: MailServer,
    sink: Sink,
    delivered: Cell<usize>,
}

impl Run<'_> {
    /// Starts Postfix with the filter in it.
    pub fn postfix(&self, filter: &Filter) -> Postfix<'_> {
        // Postfix connects as a user of its own.
        set_permissions(filter.socket(), Permissions::from_mode(0o666)).unwrap();
        let sink = Sink::open();
        let server = MailServer::start(Kind::Postfix, &Endpoint::Unix(filter.socket().to_owned()), &sink);
        Postfix { run: self, server, sink, delivered: Cell::new(0) }
    }
}

impl Postfix<'_> {
    /// Sends the mail by SMTP. The verdict is the last reply before QUIT, the message what was delivered, if it was.
    pub fn send(&self, title: &str, mail: &Mail, masked: impl Fn(&str) -> String) -> Sent {
        let (verdict, dialogue) = self.converse(mail);
        let mut message = String::new();
        let mut envelope = String::new();
        if verdict.starts_with('2') {
            let delivery = self.sink.deliveries(self.delivered.get() + 1).pop().unwrap();
            self.delivered.set(self.delivered.get() + 1);
            message = String::from_utf8(delivery.message).unwrap();
            envelope = format!("{} {:?}", delivery.sender, delivery.recipients);
        }
        self.record(title, &masked(&format!("{dialogue}\n{envelope}\n{message}")));
        Sent { verdict, message }
    }

    /// Sends a mail that the filter puts into quarantine; the message is what Postfix holds.
    pub fn send_to_hold(&self, title: &str, mail: &Mail) -> Sent {
        let (verdict, dialogue) = self.converse(mail);
        let mut held = Vec::new();
        wait_until("the held message", || {
            held = self.server.held();
            !held.is_empty()
        });
        let message = held.concat();
        self.record(title, &format!("{dialogue}\n{message}"));
        Sent { verdict, message }
    }

    /// The SMTP session: its verdict, and all of it.
    fn converse(&self, mail: &Mail) -> (String, String) {
        let mut client = Client::connect(Ipv4Addr::LOCALHOST, self.server.port());
        client.say("EHLO localhost");
        let mut verdict = String::new();
        for command in [
            format!("XCLIENT NAME=mail.example.org ADDR={} PORT=4321", mail.client),
            format!("EHLO {}", mail.helo),
            format!("MAIL FROM:{}", mail.sender),
            format!("RCPT TO:{}", mail.recipient),
        ] {
            verdict = client.say(&command);
            if !verdict.starts_with('2') {
                break;
            }
        }
        if verdict.starts_with('2') {
            verdict = client.data(mail.message.replace('\n', "\r\n").as_bytes());
        }
        (verdict, client.quit())
    }

    /// Records without what is this server's alone: ports, queue ids, dates.
    fn record(&self, title: &str, text: &str) {
        let known = [(self.server.port(), "<server-port>"), (self.sink.port(), "<sink-port>")]
            .map(|(port, name)| (port.to_string(), name.to_owned()));
        self.run.record(&format!("{title}, under Postfix"), &normalise(text, &known));
    }
}
