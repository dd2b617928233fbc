//! Plays SMTP sessions to a filter: which command follows which, what the filter's verdicts mean for the rest,
//! and which values the macros have meanwhile.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::apply::{Mail, Manner};
use super::change::Change;
use super::disposition::Disposition;
use super::envelope::{Envelope, Mailbox};
use super::error::Error;
use super::exchange::{Exchange, Verdict};
use super::habits::{Flavor, HOST_NAME, Skip};
use super::judge::is_smtp_event;
use super::macros::MacroValues;
use super::message::{Header, Message};
use super::request::Request;
use super::session::Session;
use super::smtp_text;
use super::warning::Warning;
use crate::protocol::frame::DEFAULT_MAX_PAYLOAD;
use crate::protocol::{Kind, Peer};

/// The address on which it takes mail.
const HOST_ADDRESS: &str = "192.0.2.25";

/// An SMTP client.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its host name, as the MTA found it.
    pub name: Vec<u8>,
    /// Its address.
    pub address: ClientAddress,
    /// What it says in HELO.
    pub helo: Vec<u8>,
}

impl Client {
    /// The name, unless it only stands for one that was not found.
    pub fn known_name(&self) -> &[u8] {
        if self.name.starts_with(b"[") { b"unknown" } else { &self.name }
    }

    /// Name and address, as `Received:` fields and the macro `_` have them.
    pub fn name_and_address(&self) -> Vec<u8> {
        let address = self.address.text().unwrap_or_else(|| "unknown".to_owned());
        [self.known_name(), b" [", address.as_bytes(), b"]"].concat()
    }
}

/// An SMTP client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAddress {
    /// The MTA does not know.
    Unknown,
    /// IPv4, with the port.
    Inet(Ipv4Addr, u16),
    /// IPv6, with the port.
    Inet6(Ipv6Addr, u16),
    /// A unix socket.
    Unix(Vec<u8>),
}

impl ClientAddress {
    fn peer(&self) -> Peer<'_> {
        match self {
            Self::Unknown => Peer::Unknown,
            Self::Inet(address, port) => Peer::Inet { address: *address, port: *port },
            Self::Inet6(address, port) => Peer::Inet6 { address: *address, port: *port },
            Self::Unix(path) => Peer::Unix(path),
        }
    }

    /// The address without the port, as macros have it.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Unknown => None,
            Self::Inet(address, _) => Some(address.to_string()),
            Self::Inet6(address, _) => Some(format!("IPv6:{address}")),
            Self::Unix(path) => Some(String::from_utf8_lossy(path).into_owned()),
        }
    }
}

/// A message that a client hands in.
#[derive(Debug, Clone)]
pub struct Submission<'a> {
    /// Its envelope.
    pub envelope: Envelope,
    /// The message.
    pub message: &'a Message,
    /// What is to be seen of the field that the MTA itself puts on top.
    pub received: Option<Header>,
    /// The MTA's name for the message.
    pub queue_id: String,
    /// The client gives up when the last command of this kind is through.
    pub give_up_after: Option<Kind>,
}

/// What became of a message.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What is decided on it.
    pub disposition: Disposition,
    /// The command that brought it.
    pub decided_by: Kind,
    /// Recipients that the filter refused, and what the SMTP client reads of it.
    pub refused: Vec<(Mailbox, Vec<u8>)>,
    /// What the filter wanted changed.
    pub changes: Vec<Change>,
    /// The message and its envelope, changed if it was accepted.
    pub mail: Mail,
}

/// Notes why a message is held, if a filter said so.
fn hold(delivery: &mut Delivery, quarantine: Option<Vec<u8>>) {
    if quarantine.is_some() {
        delivery.mail.envelope.quarantine = quarantine;
    }
}

/// Gets told of a session while it goes on. A closure that only wants to know how commands ended is one.
pub trait Observer {
    /// The command is about to be sent, or left out.
    fn begins(&mut self, request: &Request<'_>) {
        let _ = request;
    }

    /// The command is over.
    fn ends(&mut self, exchange: &Exchange);
}

impl<F: FnMut(&Exchange)> Observer for F {
    fn ends(&mut self, exchange: &Exchange) {
        self(exchange);
    }
}

/// Why the play of a message stops.
enum Stop {
    Decided(Kind, Disposition),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A decision, and the command that brought it.
#[derive(Clone)]
struct Decided {
    by: Kind,
    disposition: Disposition,
    quarantine: Option<Vec<u8>>,
}

/// An MTA with one connection to one filter.
pub struct Player<'a> {
    session: Session,
    like: Flavor,
    client: &'a Client,
    values: MacroValues,
    observer: &'a mut dyn Observer,
    /// What is decided on all further messages of the SMTP session.
    decided: Option<Decided>,
    /// Why all messages of the SMTP session are held, if they are.
    quarantine: Option<Vec<u8>>,
    /// Whether Postfix has closed the connection to the filter because nothing is left to ask.
    closed: bool,
    /// Recipients that the MTA itself refuses, in front of the others, and its replies.
    refused: Vec<(Mailbox, Vec<u8>)>,
    /// Whether the mail does not come by SMTP.
    local: bool,
    /// Whether the last thing that the filter heard was the end of a message, and it said "continue".
    between_messages: bool,
}

impl<'a> Player<'a> {
    /// Starts behind the negotiation. `observer` is told of every exchange.
    pub fn new(
        session: Session,
        like: Flavor,
        client: &'a Client,
        values: MacroValues,
        observer: &'a mut dyn Observer,
    ) -> Self {
        let mut player = Self {
            session,
            like,
            client,
            values,
            observer,
            decided: None,
            quarantine: None,
            closed: false,
            refused: Vec::new(),
            local: false,
            between_messages: false,
        };
        player.introduce();
        player
    }

    /// The client also gives these recipients, in front of the others, and the MTA refuses them with these replies.
    pub fn refuse_recipients(&mut self, refused: Vec<(Mailbox, Vec<u8>)>) {
        self.refused = refused;
    }

    /// The mail is the MTA's own, or comes from its own host: Postfix then gives the filter one session for each
    /// message, addresses without angle brackets, and not all of the macros.
    pub fn play_local_mail(&mut self) {
        self.local = true;
        self.session.write_bare_addresses();
    }

    /// The client connects and says hello, and perhaps something that the MTA does not understand.
    ///
    /// # Errors
    /// The filter fails.
    pub fn greet(&mut self, unknown: &[Vec<u8>]) -> Result<(), Error> {
        self.decided = None;
        self.quarantine = None;
        self.between_messages = false;
        let client = self.client;
        let connect = Request::Connect { host: &client.name, peer: client.address.peer() };
        for request in [connect, Request::Helo(&client.helo)] {
            let Exchange { decision, quarantine, .. } = self.ask(&request)?;
            if let Some(disposition) = decision {
                self.decided = Some(Decided { by: request.kind(), disposition, quarantine });
                self.closed = self.like.is_postfix();
                return Ok(());
            }
        }
        for line in unknown {
            // Whatever the answer is, it is one to this line; but 421 ends the session.
            self.ask(&Request::Unknown(self.like.unknown_line(line)))?;
            if self.decided.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// The client hands in a message.
    ///
    /// # Errors
    /// The filter fails.
    pub fn deliver(&mut self, submission: &Submission<'_>) -> Result<Delivery, Error> {
        let envelope = submission.envelope.clone();
        let received = submission.received.clone();
        let mut delivery = Delivery {
            disposition: Disposition::Accepted,
            decided_by: Kind::EndOfMessage,
            refused: Vec::new(),
            changes: Vec::new(),
            mail: Mail::new(envelope, submission.message, received, self.like),
        };
        delivery.mail.envelope.quarantine = self.quarantine.clone();
        if let Some(decided) = self.decided.clone() {
            delivery.decided_by = decided.by;
            delivery.disposition = decided.disposition;
            delivery.mail.envelope.quarantine = decided.quarantine.or(delivery.mail.envelope.quarantine);
            return Ok(delivery);
        }
        match self.play(submission, &mut delivery) {
            Ok(()) => {}
            Err(Stop::Decided(by, disposition)) => {
                delivery.decided_by = by;
                delivery.disposition = disposition;
            }
            Err(Stop::Failed(error)) => return Err(error),
        }
        let given_up = match (&delivery.disposition, delivery.decided_by) {
            // Sendmail hangs up without a word to the filter.
            (disposition, _) if disposition.hangs_up() => self.like.is_postfix(),
            (Disposition::GivenUp, _) => true,
            // The client begins anew.
            (Disposition::Rejected(_) | Disposition::TempFailed(_), Kind::Rcpt | Kind::Data) => true,
            // Here the client still goes on; Sendmail tells the filter that nothing will follow.
            (Disposition::Discarded, Kind::Rcpt | Kind::Data) => true,
            _ => false,
        };
        if (given_up || self.like.aborts_always()) && !self.local {
            self.abort(if given_up { "" } else { "as Postfix does behind every message" })?;
        }
        self.session.expect_silence()?;
        Ok(delivery)
    }

    /// Whether the filter has decided on the whole SMTP session, so that it is not asked any more.
    pub fn is_decided(&self) -> bool {
        self.decided.is_some()
    }

    /// The client leaves and another one comes, on the same connection to the filter; `false` if that cannot be:
    /// the protocol version must have it, and libmilter heeds it only right behind a message that the filter
    /// let pass by "continue".
    ///
    /// # Errors
    /// The filter fails.
    pub fn change_clients(&mut self, unknown: &[Vec<u8>]) -> Result<bool, Error> {
        if !self.between_messages {
            return Ok(false);
        }
        let Some(exchange) = self.session.quit_for_another()? else { return Ok(false) };
        self.observer.ends(&exchange);
        self.greet(unknown)?;
        Ok(true)
    }

    /// The client leaves, and the connection to the filter ends.
    ///
    /// # Errors
    /// The filter fails.
    pub fn leave(mut self) -> Result<(), Error> {
        if !self.closed && self.like.aborts_always() && !self.local {
            self.abort("as Postfix does before it quits")?;
        }
        if !self.closed
            && let Some(exchange) = self.session.quit()?
        {
            self.observer.ends(&exchange);
        }
        self.session.close()
    }

    fn play(&mut self, submission: &Submission<'_>, delivery: &mut Delivery) -> Result<(), Stop> {
        let Submission { envelope, message, .. } = submission;
        let give_up = |after| match submission.give_up_after {
            Some(kind) if kind == after => Err(Stop::Decided(Kind::Abort, Disposition::GivenUp)),
            _ => Ok(()),
        };
        self.session.begin_message();
        self.describe_sender(&envelope.sender, &submission.queue_id);
        self.decide(&Request::Mail(&envelope.sender), delivery)?;
        give_up(Kind::Mail)?;
        self.play_recipients(submission, delivery)?;
        give_up(Kind::Rcpt)?;
        self.describe_data(&envelope.recipients);
        self.decide(&Request::Data, delivery)?;
        give_up(Kind::Data)?;
        self.describe_message(message);
        for header in &message.headers {
            self.decide(&Request::Header(header), delivery)?;
        }
        give_up(Kind::Header)?;
        self.decide(&Request::EndOfHeader, delivery)?;
        give_up(Kind::EndOfHeader)?;
        let mut body = message.body_pieces(DEFAULT_MAX_PAYLOAD);
        while let Some(piece) = body.next_piece() {
            self.decide(&Request::Body(piece), delivery)?;
        }
        give_up(Kind::Body)?;
        let mut last = self.tell(&Request::EndOfMessage)?;
        let disposition = last.decision.clone().unwrap_or(Disposition::Accepted);
        if disposition == Disposition::Accepted {
            let manner = Manner { like: self.like, leading_space: self.session.leading_space() };
            for change in &last.changes {
                last.warnings.extend(delivery.mail.apply(change, manner));
            }
        }
        self.show(&last)?;
        hold(delivery, last.quarantine);
        delivery.changes = last.changes;
        Err(Stop::Decided(Kind::EndOfMessage, disposition))
    }

    /// Every recipient is a question of its own; only if all are refused the message is.
    fn play_recipients(&mut self, submission: &Submission<'_>, delivery: &mut Delivery) -> Result<(), Stop> {
        let mut accepted = Vec::new();
        let mut last_refusal = None;
        for (recipient, reply) in self.refused.clone() {
            self.describe_refused(&reply);
            let exchange = self.session.tell_of_refused(&recipient, &reply, &self.values)?;
            self.show(&exchange)?;
            hold(delivery, exchange.quarantine);
            if let Some(end) = exchange.decision {
                return Err(Stop::Decided(Kind::Rcpt, end));
            }
            last_refusal = Some(Disposition::of_class(reply.clone()));
            delivery.refused.push((recipient, reply));
        }
        for recipient in &submission.envelope.recipients {
            self.describe_recipient(recipient, accepted.len());
            let exchange = self.ask(&Request::Rcpt(recipient))?;
            hold(delivery, exchange.quarantine);
            match exchange.decision {
                None => {
                    accepted.push(recipient.clone());
                    // Postfix names a message when it has its first recipient.
                    self.values.set("i", submission.queue_id.as_str());
                }
                Some(Disposition::Rejected(reply) | Disposition::TempFailed(reply)) if self.local => {
                    return Err(Stop::Decided(Kind::Rcpt, Disposition::TempFailed(reply)));
                }
                Some(refusal) if refusal.reply().is_some() && !refusal.hangs_up() => {
                    let reply = refusal.reply().unwrap_or_default().to_vec();
                    delivery.refused.push((recipient.clone(), reply));
                    last_refusal = Some(refusal);
                }
                Some(end) => {
                    let refused = |known: &Mailbox| delivery.refused.iter().any(|(other, _)| other == known);
                    delivery.mail.envelope.recipients.retain(|known| !refused(known));
                    return Err(Stop::Decided(Kind::Rcpt, end));
                }
            }
        }
        let nobody_left = accepted.is_empty();
        delivery.mail.envelope.recipients = accepted;
        match last_refusal {
            Some(refusal) if nobody_left => Err(Stop::Decided(Kind::Rcpt, refusal)),
            _ => Ok(()),
        }
    }

    /// Asks, shows the exchange, and remembers what it means for the rest of the SMTP session.
    fn ask(&mut self, request: &Request<'_>) -> Result<Exchange, Error> {
        let exchange = self.tell(request)?;
        self.show(&exchange)?;
        Ok(exchange)
    }

    fn tell(&mut self, request: &Request<'_>) -> Result<Exchange, Error> {
        self.observer.begins(request);
        let mut exchange = self.session.tell(request, &self.values)?;
        let kind = request.kind();
        if self.local && exchange.reply.take().is_some() && kind == Kind::Rcpt {
            let text = "Postfix cannot refuse a single recipient of mail that did not come by SMTP: it keeps the message, and tries it again later";
            exchange.warnings.push(Warning::new("D47", text));
        }
        self.between_messages = kind == Kind::EndOfMessage && *exchange.verdict() == Verdict::Continue;
        if is_smtp_event(kind) && !self.session.is_lost() && exchange.quarantine.is_some() {
            self.quarantine = exchange.quarantine.clone();
        }
        let skipped = exchange.verdict() == &Verdict::Skip && self.like.skips(kind) == Skip::Everything;
        if let Some(disposition) = exchange.decision.clone().filter(|decision| skipped || decision.hangs_up())
        {
            self.decided = Some(Decided { by: kind, disposition, quarantine: None });
        }
        Ok(exchange)
    }

    fn show(&mut self, exchange: &Exchange) -> Result<(), Error> {
        self.observer.ends(exchange);
        self.session.complain(exchange)
    }

    fn abort(&mut self, comment: &str) -> Result<(), Error> {
        self.between_messages = false;
        if let Some(mut exchange) = self.session.abort()? {
            exchange.argument = comment.as_bytes().to_vec();
            self.observer.ends(&exchange);
        }
        Ok(())
    }

    /// Asks, and stops if the answer decides on the message.
    fn decide(&mut self, request: &Request<'_>, delivery: &mut Delivery) -> Result<(), Stop> {
        let exchange = self.ask(request)?;
        hold(delivery, exchange.quarantine);
        match exchange.decision {
            Some(disposition) => Err(Stop::Decided(request.kind(), disposition)),
            None => Ok(()),
        }
    }

    /// Values that hold for the whole connection.
    fn introduce(&mut self) {
        let client = self.client;
        let values = &mut self.values;
        values.set("j", HOST_NAME);
        values.set("daemon_addr", HOST_ADDRESS);
        values.set("daemon_port", "25");
        let connections = match self.like {
            Flavor::Postfix37 | Flavor::Postfix312 => {
                values.set("daemon_name", HOST_NAME);
                values
                    .set("v", if self.like == Flavor::Postfix37 { "Postfix 3.7.11" } else { "Postfix 3.12" });
                "0"
            }
            Flavor::Sendmail => {
                values.set("daemon_name", "MTA");
                values.set("v", "8.17.1.9");
                values.set("if_name", HOST_NAME);
                values.set("if_addr", HOST_ADDRESS);
                "1"
            }
        };
        values.set("client_connections", connections);
        values.set("_", client.name_and_address());
        values.set("client_name", client.known_name());
        values.set("client_ptr", client.known_name());
        values.set("client_resolve", if client.known_name() == client.name { "OK" } else { "FAIL" });
        if let Some(address) = client.address.text() {
            values.set("client_addr", address);
        }
        if let ClientAddress::Inet(_, port) | ClientAddress::Inet6(_, port) = client.address {
            values.set("client_port", port.to_string());
        }
    }

    /// Another message begins. Postfix names it when it has its first recipient.
    fn describe_sender(&mut self, sender: &Mailbox, queue_id: &str) {
        self.forget(&["i", "mail_host", "mail_mailer", "rcpt_addr", "rcpt_host", "rcpt_mailer", "msg_id"]);
        self.introduce();
        self.values.set("mail_addr", sender.address.clone());
        if !sender.domain().is_empty() {
            self.values.set("mail_host", sender.domain());
            self.values.set("mail_mailer", self.mailer());
        }
        if self.like == Flavor::Sendmail {
            self.values.set("i", queue_id);
            self.values.set("nrcpts", "0");
        }
        if self.local {
            self.values.set("i", queue_id);
            self.forget(&["mail_host", "mail_mailer"]);
        }
    }

    /// Of a refused recipient the macros tell why.
    fn describe_refused(&mut self, reply: &[u8]) {
        let text = reply.get(4..).unwrap_or_default();
        let (code, text) = match smtp_text::enhanced_code(text) {
            Some(length) => (&text[..length], &text[length + 1..]),
            None => (&b""[..], text),
        };
        // Replies name the recipient in front; it is not part of the reason.
        let text = match (text.starts_with(b"<"), text.windows(3).position(|end| end == b">: ")) {
            (true, Some(end)) => &text[end + 3..],
            _ => text,
        };
        self.values.set("rcpt_mailer", "error");
        self.values.set("rcpt_host", code);
        self.values.set("rcpt_addr", text);
    }

    fn describe_recipient(&mut self, recipient: &Mailbox, accepted_before: usize) {
        self.values.set("rcpt_addr", recipient.address.clone());
        self.values.set("rcpt_host", recipient.domain());
        self.values.set("rcpt_mailer", self.mailer());
        if self.local {
            self.forget(&["rcpt_host", "rcpt_mailer"]);
        }
        if self.like == Flavor::Sendmail {
            self.values.set("nrcpts", (accepted_before + 1).to_string());
        }
    }

    /// With DATA, Postfix describes the first recipient once more, Sendmail none.
    fn describe_data(&mut self, recipients: &[Mailbox]) {
        match (self.like, recipients.first()) {
            (Flavor::Postfix37 | Flavor::Postfix312, Some(first)) if !self.local => {
                self.describe_recipient(first, 0)
            }
            _ => self.forget(&["rcpt_addr", "rcpt_host", "rcpt_mailer"]),
        }
    }

    /// The part of Postfix that reads the message knows little of the envelope; Sendmail knows the message's name.
    fn describe_message(&mut self, message: &Message) {
        match self.like {
            Flavor::Postfix37 | Flavor::Postfix312 => self.forget(&[
                "mail_addr",
                "mail_host",
                "mail_mailer",
                "rcpt_addr",
                "rcpt_host",
                "rcpt_mailer",
                "client_resolve",
                "client_connections",
            ]),
            Flavor::Sendmail => {
                if let Some(id) = message.headers.iter().find(|header| header.is_named(b"Message-ID")) {
                    self.values.set("msg_id", id.value_for_filter(false).trim_ascii());
                }
            }
        }
    }

    fn forget(&mut self, names: &[&str]) {
        for name in names {
            self.values.unset(name);
        }
    }

    fn mailer(&self) -> &'static str {
        match self.like {
            Flavor::Postfix37 | Flavor::Postfix312 => "smtp",
            Flavor::Sendmail => "esmtp",
        }
    }
}
