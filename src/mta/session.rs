//! One connection to a filter, command by command: it negotiates, then sends what the filter wants to see, with
//! its macros, and waits for the answers that it said it would give. Which command comes when is `play`'s
//! business.

use super::answer::{Decoded, decode};
use super::change::{Brought, Change};
use super::disposition::{DefaultAction, Disposition};
use super::envelope::Mailbox;
use super::error::{Error, Fault, flag_names};
use super::exchange::{Exchange, Failure, Omission, Outcome, Verdict};
use super::habits::{Flavor, Skip, since_version};
use super::judge::{Judge, Judgement, Standing, is_smtp_event};
use super::link::Link;
use super::macros::{Definitions, MacroLists, MacroValues};
use super::request::{Request, Style};
use super::terms::Terms;
use super::warning::Warning;
use crate::protocol::command::encode;
use crate::protocol::reply::Negotiated;
use crate::protocol::{Actions, Answer, Kind, MacroStage, Modification, Offer, Reply, Stage, Steps};

/// The most macros that Sendmail takes for a stage.
const MOST_MACROS: usize = 50;

/// Frames that wait for company are sent when there are this many bytes of them.
const GATHER_LIMIT: usize = 64 * 1024;

/// How an MTA takes a filter that fails, or that does what its MTA gets over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// What to do without the filter, and to go on; without this a failure is an [`Error`].
    pub default_action: Option<DefaultAction>,
    /// Whether each [`Warning`] is an [`Error`].
    pub strict: bool,
}

/// A connection whose negotiation is done.
#[derive(Debug)]
pub struct Session {
    /// Gone when the filter is.
    link: Option<Link>,
    judge: Judge,
    policy: Policy,
    standing: Standing,
    lists: MacroLists,
    agreed: Negotiated,
    actions: Actions,
    steps: Steps,
    /// Commands of which the filter has seen enough in this message.
    skipped: Vec<Kind>,
    /// Whether addresses go without angle brackets.
    bare_addresses: bool,
    /// What the filter was told last.
    last: Kind,
    warnings: Vec<Warning>,
}

/// Why the wait for an answer ends without one.
enum Stop {
    Failed(Error),
    /// Postfix calls it a configuration error.
    Misconfigured(Warning),
    /// Sendmail refuses the message, and keeps the filter.
    Refused(Warning),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Where a new body stands that comes in pieces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NewBody {
    None,
    Begun,
    /// Something else has come behind a piece.
    Over,
}

impl Session {
    /// Negotiates. The macro lists of `like` hold where the filter does not ask for others; `values` has
    /// settings that must find their place in them.
    ///
    /// # Errors
    /// The filter does not answer, or wants what was not offered.
    pub fn negotiate(
        mut link: Link,
        like: Flavor,
        offer: Offer,
        values: &MacroValues,
    ) -> Result<Self, Error> {
        let during = Kind::Negotiate;
        encode::negotiate(link.outgoing(), offer);
        let frame = link.receive(during)?;
        let Terms { agreed, warnings } =
            Terms::read(&frame, like, offer).map_err(|fault| Error::Protocol { during, fault })?;
        let mut session = Self::with_terms(Some(link), like, agreed);
        session.warnings = warnings;
        session.choose_macros(values);
        Ok(session)
    }

    /// A session whose filter was never reached: `policy` has the default action that answers all.
    pub fn without_filter(like: Flavor, offer: Offer, policy: Policy) -> Self {
        let agreed = Negotiated { version: offer.version, actions: 0, steps: 0, macro_lists: Vec::new() };
        let session = Self { standing: Standing::Lost, ..Self::with_terms(None, like, agreed) };
        session.take_policy(policy)
    }

    fn with_terms(link: Option<Link>, like: Flavor, agreed: Negotiated) -> Self {
        let judge = Judge { like, default_action: like.default_action() };
        let (actions, steps) =
            (Actions::from_bits_retain(agreed.actions), Steps::from_bits_retain(agreed.steps));
        Self {
            link,
            judge,
            policy: Policy::default(),
            standing: Standing::Asked,
            lists: like.macro_lists(),
            agreed,
            actions,
            steps,
            skipped: Vec::new(),
            bare_addresses: false,
            last: Kind::Negotiate,
            warnings: Vec::new(),
        }
    }

    /// Sets how failures and warnings are taken; without this a failure is an error, and a warning is none.
    ///
    /// # Errors
    /// The negotiation has brought a warning that shall not pass.
    pub fn with_policy(self, policy: Policy) -> Result<Self, Error> {
        match self.warnings.first() {
            Some(warning) if policy.strict => {
                Err(Error::Protocol { during: Kind::Negotiate, fault: Fault::Warned(warning.clone()) })
            }
            _ => Ok(self.take_policy(policy)),
        }
    }

    fn take_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        if let Some(action) = policy.default_action {
            self.judge.default_action = action;
        }
        self
    }

    fn choose_macros(&mut self, values: &MacroValues) {
        let like = self.judge.like;
        let tied = like.ties_macro_lists()
            && !self.agreed.macro_lists.iter().any(|(stage, _)| *stage == MacroStage::EndOfHeader);
        for (stage, list) in &self.agreed.macro_lists {
            if like == Flavor::Sendmail && list.split(u8::is_ascii_whitespace).count() > MOST_MACROS {
                let text = "Sendmail takes 50 macros at most for a stage: it answers 554 to everything";
                self.warnings.push(Warning::new("B24", text));
            }
            if tied && *stage == MacroStage::EndOfMessage {
                let text = "Sendmail uses macros for the end of the message only with some for the end of the header";
                self.warnings.push(Warning::new("B26", text));
            } else if !list.is_empty() || like.heeds_empty_lists() {
                self.lists.set(*stage, list);
            } else {
                let text = "Postfix takes an empty list of macros for no request";
                self.warnings.push(Warning::new("B23", text));
            }
        }
        for setting in values.settings() {
            match setting.stage {
                Some(stage) => self.lists.add(stage, &setting.name),
                None if self.lists.contain(&setting.name) => {}
                None => self.lists.add(MacroStage::Connect, &setting.name),
            }
        }
    }

    /// What the filter answered to the offer.
    pub fn agreed(&self) -> &Negotiated {
        &self.agreed
    }

    /// What the MTA got over in the negotiation.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The modifications that the filter may make.
    pub fn actions(&self) -> Actions {
        self.actions
    }

    /// The steps that the filter wants left out, or does not answer.
    pub fn steps(&self) -> Steps {
        self.steps
    }

    /// Whether header values have their leading space, both ways.
    pub fn leading_space(&self) -> bool {
        self.steps.contains(Steps::HDR_LEADSPC)
    }

    /// Writes addresses without angle brackets from now on.
    pub(super) fn write_bare_addresses(&mut self) {
        self.bare_addresses = true;
    }

    fn style(&self) -> Style {
        Style { leading_space: self.leading_space(), bare_addresses: self.bare_addresses }
    }

    /// Tells the filter of a recipient that the MTA itself has refused, if it wants to know of such. What it answers
    /// counts only if it decides on more than the recipient.
    ///
    /// # Errors
    /// As [`tell`](Self::tell).
    pub fn tell_of_refused(
        &mut self,
        recipient: &Mailbox,
        reply: &[u8],
        values: &MacroValues,
    ) -> Result<Exchange, Error> {
        let request = Request::Rcpt(recipient);
        let mut exchange = if self.steps.contains(Steps::RCPT_REJ) {
            self.tell(&request, values)?
        } else {
            let omitted = Outcome::NotSent(Omission::Refused);
            Exchange { outcome: omitted, ..Exchange::new(Kind::Rcpt, request.describe(self.style())) }
        };
        if exchange.decision.as_ref().is_some_and(|decision| decision.reply().is_some()) {
            exchange.decision = None;
        }
        exchange.reply = Some(reply.to_vec());
        Ok(exchange)
    }

    /// Whether the MTA has given the filter up.
    pub fn is_lost(&self) -> bool {
        self.link.is_none()
    }

    /// Forgets what was skipped: another message begins.
    pub fn begin_message(&mut self) {
        self.skipped.clear();
    }

    /// Tells the filter something, and waits for its answer if it gives one. What an MTA makes of the answer is in
    /// the exchange too.
    ///
    /// # Errors
    /// The filter does not answer, or breaks the protocol, and no default action is to be played.
    pub fn tell(&mut self, request: &Request<'_>, values: &MacroValues) -> Result<Exchange, Error> {
        let kind = request.kind();
        let mut exchange = Exchange::new(kind, request.describe(self.style()));
        let judgement = match (self.standing, is_smtp_event(kind)) {
            (Standing::Lost | Standing::Misconfigured, _) => {
                exchange.outcome = Outcome::NotSent(Omission::Lost);
                self.judge.without_answer(kind, &request.address(), self.standing)
            }
            (Standing::ContentOnly, true) => {
                exchange.outcome = Outcome::NotSent(Omission::Held);
                return Ok(exchange);
            }
            _ => {
                self.expect_silence()?;
                match self.converse(request, values, &mut exchange) {
                    Ok(()) => match &exchange.outcome {
                        Outcome::Answered(verdict) => {
                            let judgement = self.judge.judge(kind, &request.address(), verdict);
                            self.judge.hold(kind, judgement, exchange.quarantine.take())
                        }
                        _ => return Ok(exchange),
                    },
                    Err(stop) => self.give_up(request, &mut exchange, stop)?,
                }
            }
        };
        self.settle_for(judgement, &mut exchange);
        Ok(exchange)
    }

    /// Gives up the message under way; nothing if the filter is lost.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn abort(&mut self) -> Result<Option<Exchange>, Error> {
        self.announce(Kind::Abort)
    }

    /// Ends the SMTP session, so that another can begin on this connection; nothing if the protocol version
    /// does not have that.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn quit_for_another(&mut self) -> Result<Option<Exchange>, Error> {
        if self.agreed.version < since_version(Kind::QuitNewConnection) {
            return Ok(None);
        }
        self.announce(Kind::QuitNewConnection)
    }

    /// Ends the session; nothing if the filter is lost.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn quit(&mut self) -> Result<Option<Exchange>, Error> {
        self.announce(Kind::Quit)
    }

    /// Closes the connection, and waits until the filter has closed it too.
    ///
    /// # Errors
    /// The filter still had something to say.
    pub fn close(self) -> Result<(), Error> {
        match self.link.and_then(Link::close) {
            Some(kind) => Err(Error::Protocol { during: self.last, fault: Fault::Unasked(kind) }),
            None => Ok(()),
        }
    }

    /// Makes sure that the filter has not said anything that nobody asked for.
    ///
    /// # Errors
    /// It has.
    pub fn expect_silence(&mut self) -> Result<(), Error> {
        match self.link.as_mut().and_then(Link::unread) {
            Some(kind) => Err(Error::Protocol { during: self.last, fault: Fault::Unasked(kind) }),
            None => Ok(()),
        }
    }

    /// Makes an error of a warning, if that is wanted.
    ///
    /// # Errors
    /// It is.
    pub fn complain(&self, exchange: &Exchange) -> Result<(), Error> {
        match exchange.warnings.first() {
            Some(warning) if self.policy.strict => {
                let fault = Fault::Warned(warning.clone());
                Err(Error::Protocol { during: exchange.command, fault })
            }
            _ => Ok(()),
        }
    }

    /// Sends a command that has no payload and no answer.
    fn announce(&mut self, command: Kind) -> Result<Option<Exchange>, Error> {
        self.expect_silence()?;
        let Some(link) = &mut self.link else { return Ok(None) };
        encode::raw(link.outgoing(), command, b"");
        self.settle(command)?;
        self.last = command;
        Ok(Some(Exchange::new(command, Vec::new())))
    }

    /// Sends a command, and waits for the answer if there is one.
    fn converse(
        &mut self,
        request: &Request<'_>,
        values: &MacroValues,
        exchange: &mut Exchange,
    ) -> Result<(), Stop> {
        let kind = request.kind();
        let omission = self.omits(kind);
        if self.sends_macros(kind, omission) {
            exchange.macros = self.send_macros(kind, values)?;
        }
        if let Some(omission) = omission {
            exchange.outcome = Outcome::NotSent(omission);
            return Ok(());
        }
        let style = self.style();
        request.encode(self.connection().outgoing(), style);
        self.settle(kind)?;
        self.last = kind;
        let no_reply = Stage::of(kind).map_or(Steps::empty(), Stage::no_reply);
        exchange.outcome = if self.steps.intersects(no_reply) {
            Outcome::NotAwaited
        } else {
            Outcome::Answered(self.await_verdict(exchange)?)
        };
        Ok(())
    }

    /// The MTA goes on without the filter, as it would, if it would.
    fn give_up(
        &mut self,
        request: &Request<'_>,
        exchange: &mut Exchange,
        stop: Stop,
    ) -> Result<Judgement, Error> {
        let kind = request.kind();
        let without_answer = |standing| self.judge.without_answer(kind, &request.address(), standing);
        let error = match stop {
            Stop::Misconfigured(warning) => {
                exchange.outcome = Outcome::Refused(warning.text.clone());
                exchange.warnings.push(warning);
                return Ok(without_answer(Standing::Misconfigured));
            }
            Stop::Refused(warning) => {
                exchange.outcome = Outcome::Refused(warning.text.clone());
                exchange.warnings.push(warning);
                return Ok(Judgement { standing: Standing::Asked, ..without_answer(Standing::Lost) });
            }
            Stop::Failed(error) if self.policy.default_action.is_none() || !error.loses_the_filter() => {
                return Err(error);
            }
            Stop::Failed(error) => error,
        };
        exchange.outcome = Outcome::Failed(Failure::from(&error));
        // Sendmail lets the command pass whose answer it did not understand, unless that is part of the message.
        if error.is_unexpected_frame() && !self.judge.like.is_postfix() && is_smtp_event(kind) {
            return Ok(Judgement { standing: Standing::Lost, ..Judgement::default() });
        }
        let mut judgement = without_answer(Standing::Lost);
        let half_a_body = exchange.changes.iter().any(|change| matches!(change, Change::ReplaceBody { .. }));
        if self.judge.like == Flavor::Postfix312
            && half_a_body
            && judgement.decision == Some(Disposition::Accepted)
        {
            let reply = b"421 4.7.0 Server closing connection".to_vec();
            judgement.decision = Some(Disposition::TempFailed(reply));
            judgement.quarantine = None;
        }
        Ok(judgement)
    }

    /// Puts what an answer amounts to into the exchange, and heeds it.
    fn settle_for(&mut self, judgement: Judgement, exchange: &mut Exchange) {
        let Judgement { decision, quarantine, standing, warnings } = judgement;
        exchange.reply =
            decision.as_ref().and_then(|decision| self.judge.client_reads(exchange.command, decision));
        // An answer to an unknown command is one to that line.
        exchange.decision =
            decision.filter(|decision| exchange.command != Kind::Unknown || decision.hangs_up());
        exchange.quarantine = quarantine;
        exchange.warnings.extend(warnings);
        match standing {
            Standing::Asked => {}
            // The part of Postfix that reads the message gave the filter up. To the SMTP server it is just gone.
            Standing::Misconfigured if !is_smtp_event(exchange.command) => self.standing = Standing::Lost,
            standing => self.standing = standing,
        }
        if matches!(self.standing, Standing::Lost | Standing::Misconfigured) {
            self.link = None;
        }
    }

    /// The connection. Whoever asks for it has made sure that the filter is not lost.
    fn connection(&mut self) -> &mut Link {
        self.link.as_mut().expect("nothing is sent to a lost filter")
    }

    fn omits(&self, kind: Kind) -> Option<Omission> {
        if self.agreed.version < since_version(kind) {
            Some(Omission::Version)
        } else if self.steps.intersects(Stage::of(kind).map_or(Steps::empty(), Stage::switch)) {
            Some(Omission::SwitchedOff)
        } else if self.skipped.contains(&kind) {
            Some(Omission::Skipped)
        } else {
            None
        }
    }

    /// Macros of the envelope are sent even if their command is not; both MTAs do so.
    fn sends_macros(&self, kind: Kind, omission: Option<Omission>) -> bool {
        let of_envelope = matches!(kind, Kind::Connect | Kind::Helo | Kind::Mail | Kind::Rcpt | Kind::Data);
        match omission {
            None => true,
            Some(Omission::SwitchedOff) => of_envelope,
            Some(_) => false,
        }
    }

    /// Sends the macros of a command, unless there is no list of them. A list without any value is sent empty.
    fn send_macros(&mut self, kind: Kind, values: &MacroValues) -> Result<Option<Definitions>, Error> {
        let names = self.judge.like.macro_stage(kind).map_or(&[][..], |stage| self.lists.of(stage));
        // Postfix has a list for unknown commands too, milter_unknown_command_macros, and it is empty.
        if names.is_empty() && !(kind == Kind::Unknown && self.judge.like.is_postfix()) {
            return Ok(None);
        }
        let definitions = values.define(names);
        encode::macros_before(self.connection().outgoing(), kind.into(), &definitions);
        self.settle(kind)?;
        Ok(Some(definitions))
    }

    /// Sends what waits, if this MTA does not wait any longer.
    fn settle(&mut self, during: Kind) -> Result<(), Error> {
        let gathers = self.judge.like.gathers_writes();
        let link = self.connection();
        if !gathers || link.outgoing().len() >= GATHER_LIMIT {
            link.flush(during)?;
        }
        Ok(())
    }

    fn await_verdict(&mut self, exchange: &mut Exchange) -> Result<Verdict, Stop> {
        let during = exchange.command;
        let like = self.judge.like;
        let broken = |fault| Err(Stop::Failed(Error::Protocol { during, fault }));
        let link = self.link.as_mut().expect("a lost filter is not asked");
        if during == Kind::EndOfMessage {
            link.begin_end_of_message();
        }
        let mut new_body = NewBody::None;
        let mut refusal = None;
        loop {
            let frame = link.receive(during)?;
            let (kind, length) = (frame.kind, frame.payload.len());
            let decoded = decode(&frame, like, &mut exchange.warnings);
            if let Some(warning) = refusal.take_if(|_| matches!(decoded, Decoded::Answer(Answer::Reply(_)))) {
                return Err(Stop::Refused(warning));
            }
            let modification = match decoded {
                Decoded::Answer(Answer::Modification(modification)) => modification,
                Decoded::Answer(Answer::Reply(Reply::Skip)) => {
                    match like.skips(during) {
                        Skip::Commands(skipped) => self.skipped.push(skipped),
                        Skip::Everything => {}
                        Skip::Never => return broken(Fault::OutOfPlace { kind }),
                    }
                    return Ok(Verdict::Skip);
                }
                Decoded::Answer(Answer::Reply(reply)) => return Ok(reply.into()),
                Decoded::Answer(Answer::Custom(text)) => return Ok(Verdict::Custom(text.to_vec())),
                Decoded::Answer(Answer::Negotiated(_)) => return broken(Fault::OutOfPlace { kind }),
                Decoded::Shutdown => return Ok(Verdict::Shutdown),
                Decoded::Ignored => continue,
                Decoded::Nonsense => return broken(Fault::Malformed { kind, length }),
            };
            if new_body == NewBody::Begun && !matches!(modification, Modification::ReplaceBody(_)) {
                new_body = NewBody::Over;
            }
            let (change, right) = match Brought::from(modification) {
                Brought::Progress if during != Kind::EndOfMessage && like == Flavor::Sendmail => {
                    return broken(Fault::OutOfPlace { kind });
                }
                Brought::Progress => {
                    exchange.progress += 1;
                    continue;
                }
                Brought::Change(Change::Quarantine { reason }, _)
                    if during != Kind::EndOfMessage && like.is_postfix() =>
                {
                    exchange.changes.push(Change::Quarantine { reason: reason.clone() });
                    exchange.quarantine = Some(reason);
                    continue;
                }
                Brought::Change(..) if during != Kind::EndOfMessage => {
                    return broken(Fault::OutOfPlace { kind });
                }
                Brought::Change(change, right) => (change, right),
            };
            let is_body = matches!(change, Change::ReplaceBody { .. });
            if !self.actions.contains(right) {
                let missing = format!("a change that needs {}, which was not negotiated", flag_names(&right));
                if is_body && like == Flavor::Sendmail {
                    refusal = Some(Warning::new("D4", format!("Sendmail refuses a message for {missing}")));
                    continue;
                }
                exchange.warnings.push(Warning::new("D4", format!("{} makes {missing}", like.name())));
            }
            if let Some(warning) = misconfiguration(&change, new_body).filter(|_| like.is_postfix()) {
                return Err(Stop::Misconfigured(warning));
            }
            if is_body {
                new_body = NewBody::Begun;
            }
            collect(&mut exchange.changes, change);
        }
    }
}

/// What Postfix calls a configuration error.
fn misconfiguration(change: &Change, new_body: NewBody) -> Option<Warning> {
    const GIVES_UP: &str =
        "Postfix gives the filter up, and answers 451 4.3.5 unless its default action accepts";
    let (statement, what) = match change {
        Change::ReplaceBody { .. } if new_body == NewBody::Over => {
            ("D13", "the pieces of the new body are mixed with other answers")
        }
        Change::ChangeHeader { name, .. } if name.is_empty() => {
            ("D18", "a header field without a name is to be changed")
        }
        _ => return None,
    };
    Some(Warning::new(statement, format!("{what}: {GIVES_UP}")))
}

/// Pieces of a new body become one change, whatever comes between them.
fn collect(changes: &mut Vec<Change>, change: Change) {
    if let Change::ReplaceBody { body: piece } = &change {
        let begun = changes.iter_mut().find_map(|known| match known {
            Change::ReplaceBody { body } => Some(body),
            _ => None,
        });
        if let Some(body) = begun {
            body.extend_from_slice(piece);
            return;
        }
    }
    changes.push(change);
}
