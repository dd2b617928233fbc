//! One run: a filter on a library, a mail server in front of it, the test's sink behind it, and a transcript of what
//! the client and the sink got to see.

use std::net::Ipv4Addr;
use std::path::Path;

use super::filter::{Family, Filter};
use super::server::{Conduct, Kind, MailServer};
use super::smtp_client::Client;
use super::smtp_sink::Sink;
use super::transcript::normalise;
use crate::support::{Library, wait_until};

/// The parts of a run. In this order they end.
pub struct Play {
    pub server: MailServer,
    pub sink: Sink,
    pub filter: Filter,
    transcript: String,
    client_ports: Vec<u16>,
    delivered: usize,
}

impl Play {
    /// Starts filter and server.
    #[track_caller]
    pub fn start(kind: Kind, filter: &Path, library: Library, family: Family) -> Self {
        let filter = Filter::start(filter, library, family);
        let sink = Sink::open();
        let server = MailServer::start(kind, filter.endpoint(), &sink);
        Self::of(filter, sink, server)
    }

    /// The same over a unix socket, with a server that waits for its filter for so many seconds only.
    #[track_caller]
    pub fn start_with_timeout(kind: Kind, filter: &Path, library: Library, seconds: u32) -> Self {
        let filter = Filter::start(filter, library, Family::Unix);
        let sink = Sink::open();
        let conduct = Conduct { milter_timeout: seconds, ..Conduct::default() };
        let server = MailServer::start_with(kind, filter.endpoint(), &sink, &conduct);
        Self::of(filter, sink, server)
    }

    fn of(filter: Filter, sink: Sink, server: MailServer) -> Self {
        Self { server, sink, filter, transcript: String::new(), client_ports: Vec::new(), delivered: 0 }
    }

    /// An SMTP client, connected from a loopback address.
    pub fn client_from(&mut self, source: &str) -> Client {
        let client = Client::connect(source.parse::<Ipv4Addr>().unwrap(), self.server.port());
        self.client_ports.push(client.port());
        client
    }

    /// An SMTP client that has introduced itself.
    pub fn client(&mut self) -> Client {
        let mut client = self.client_from("127.0.0.1");
        client.say("EHLO client.example.com");
        client
    }

    /// Writes something into the transcript.
    pub fn note(&mut self, text: &str) {
        self.transcript += text;
        self.transcript += "\n";
    }

    /// Waits for `count` further messages, and writes them into the transcript.
    #[track_caller]
    pub fn note_deliveries(&mut self, count: usize) {
        let deliveries = self.sink.deliveries(self.delivered + count);
        for delivery in &deliveries[self.delivered..] {
            self.note(&format!("delivered: MAIL {}", delivery.sender));
            for recipient in &delivery.recipients {
                self.note(&format!("delivered: RCPT {recipient}"));
            }
            // Losslessly, and with the ends of lines to be seen.
            for line in delivery.message.split_inclusive(|&byte| byte == b'\n') {
                self.note(&format!(
                    "| {}",
                    line.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"")
                ));
            }
        }
        self.delivered = deliveries.len();
    }

    /// Waits until log-everything, our filter, has printed the end of so many sessions.
    #[track_caller]
    pub fn await_sessions(&self, count: usize) {
        let ends = |output: &str| output.lines().filter(|line| line.ends_with(" close")).count();
        wait_until(&format!("end of session {count}"), || ends(&self.filter.output()) >= count);
    }

    /// Writes all that the filter has printed into the transcript.
    pub fn note_filter_output(&mut self) {
        let output = self.filter.output();
        self.note(&output);
    }

    /// Ends the run; the filter must end with success.
    #[track_caller]
    pub fn end(self) {
        drop(self.server);
        self.filter.stop();
    }

    /// The transcript so far, comparable with another run's.
    pub fn transcript(&self) -> String {
        let mut known = vec![
            (self.server.port().to_string(), "<server-port>".to_owned()),
            (self.sink.port().to_string(), "<sink-port>".to_owned()),
            (self.server.dir().display().to_string(), "<server-dir>".to_owned()),
        ];
        let ports = self.client_ports.iter().enumerate();
        known.extend(ports.map(|(i, port)| (port.to_string(), format!("<client-port-{}>", i + 1))));
        normalise(&self.transcript, &known)
    }
}
