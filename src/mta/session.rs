//! One connection to a filter, command by command: it negotiates, then sends what the filter wants to see, with
//! its macros, and waits for the answers that it said it would give. Which command comes when is `play`'s
//! business.

use super::change::{Brought, Change};
use super::error::{Error, Fault};
use super::habits::{Like, OLDEST_VERSION, Skip, since_version};
use super::link::Link;
use super::macros::{Definitions, MacroLists, MacroValues};
use super::request::Request;
use crate::protocol::command::encode;
use crate::protocol::reply::Negotiated;
use crate::protocol::{Actions, Answer, Kind, MacroStage, Offer, Reply, Stage, Steps};

/// Frames that wait for company are sent when there are this many bytes of them.
const GATHER_LIMIT: usize = 64 * 1024;

/// A filter's answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// No more questions: accepted.
    Accept,
    /// Refused for good.
    Reject,
    /// Refused for now.
    TempFail,
    /// Accepted, as far as the client knows, and thrown away.
    Discard,
    /// Enough seen; how much is left out depends on the MTA.
    Skip,
    /// Refused with an SMTP reply of the filter's own; `4` in front means for now.
    Custom(Vec<u8>),
}

impl From<Reply> for Verdict {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Continue => Self::Continue,
            Reply::Accept => Self::Accept,
            Reply::Reject => Self::Reject,
            Reply::TempFail => Self::TempFail,
            Reply::Discard => Self::Discard,
            Reply::Skip => Self::Skip,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The filter answered.
    Answered(Verdict),
    /// It was sent; the filter had said that it would not answer.
    NotAwaited,
    /// It was sent; there never is an answer.
    NoneDue,
    /// It was not sent.
    NotSent(Omission),
}

/// Why a command was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Omission {
    /// The filter does not want to see it at all.
    SwitchedOff,
    /// The filter has seen enough of this kind.
    Skipped,
    /// The protocol version does not have it.
    Version,
}

/// One command and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The command.
    pub command: Kind,
    /// What it carried, for people.
    pub argument: Vec<u8>,
    /// The macros that were sent with it, name and value; `None` if no macro frame was sent.
    pub macros: Option<Definitions>,
    /// How often the filter asked for more time.
    pub progress: usize,
    /// What the filter wanted changed.
    pub changes: Vec<Change>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Exchange {
    /// The verdict; a filter that says nothing wants to go on.
    pub fn verdict(&self) -> &Verdict {
        match &self.outcome {
            Outcome::Answered(verdict) => verdict,
            _ => &Verdict::Continue,
        }
    }
}

/// A connection whose negotiation is done.
#[derive(Debug)]
pub struct Session {
    link: Link,
    like: Like,
    lists: MacroLists,
    agreed: Negotiated,
    actions: Actions,
    steps: Steps,
    /// Commands of which the filter has seen enough in this message.
    skipped: Vec<Kind>,
}

impl Session {
    /// Negotiates. The macro lists of `like` hold where the filter does not ask for others; `values` has
    /// settings that must find their place in them.
    ///
    /// # Errors
    /// The filter does not answer, or wants what was not offered.
    pub fn negotiate(mut link: Link, like: Like, offer: Offer, values: &MacroValues) -> Result<Self, Error> {
        let during = Kind::Negotiate;
        let broken = |fault| Err(Error::Protocol { during, fault });
        encode::negotiate(link.outgoing(), offer);
        let frame = link.receive(during)?;
        let (kind, length) = (frame.kind, frame.payload.len());
        let agreed = match Answer::decode(kind, frame.payload) {
            Some(Answer::Negotiated(agreed)) => agreed,
            Some(_) => return broken(Fault::OutOfPlace { kind }),
            None => return broken(Fault::Malformed { kind, length }),
        };
        if !(OLDEST_VERSION..=offer.version).contains(&agreed.version) {
            return broken(Fault::Version(agreed.version));
        }
        let actions = Actions::from_bits_retain(agreed.actions);
        let steps = Steps::from_bits_retain(agreed.steps);
        if !offer.actions.contains(actions) {
            return broken(Fault::Actions(actions.difference(offer.actions)));
        }
        if !offer.steps.contains(steps) {
            return broken(Fault::Steps(steps.difference(offer.steps)));
        }
        let mut lists = like.macro_lists();
        for (stage, list) in &agreed.macro_lists {
            if !list.is_empty() || like.heeds_empty_lists() {
                lists.set(*stage, list);
            }
        }
        for setting in values.settings() {
            match setting.stage {
                Some(stage) => lists.add(stage, &setting.name),
                None if lists.contain(&setting.name) => {}
                None => lists.add(MacroStage::Connect, &setting.name),
            }
        }
        Ok(Self { link, like, lists, agreed, actions, steps, skipped: Vec::new() })
    }

    /// What the filter answered to the offer.
    pub fn agreed(&self) -> &Negotiated {
        &self.agreed
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

    /// Forgets what was skipped: another message begins.
    pub fn begin_message(&mut self) {
        self.skipped.clear();
    }

    /// Tells the filter something, and waits for its answer if it gives one.
    ///
    /// # Errors
    /// The filter does not answer, or breaks the protocol.
    pub fn tell(&mut self, request: &Request<'_>, values: &MacroValues) -> Result<Exchange, Error> {
        let kind = request.kind();
        let mut exchange = Exchange {
            command: kind,
            argument: request.describe(self.leading_space()),
            macros: None,
            progress: 0,
            changes: Vec::new(),
            outcome: Outcome::NotAwaited,
        };
        let omission = self.omits(kind);
        if self.sends_macros(kind, omission) {
            exchange.macros = self.send_macros(kind, values)?;
        }
        if let Some(omission) = omission {
            exchange.outcome = Outcome::NotSent(omission);
            return Ok(exchange);
        }
        let leading_space = self.leading_space();
        request.encode(self.link.outgoing(), leading_space);
        self.settle(kind)?;
        let no_reply = Stage::of(kind).map_or(Steps::empty(), Stage::no_reply);
        if !self.steps.intersects(no_reply) {
            let verdict = self.await_verdict(&mut exchange)?;
            exchange.outcome = Outcome::Answered(verdict);
        }
        Ok(exchange)
    }

    /// Gives up the message under way.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn abort(&mut self) -> Result<Exchange, Error> {
        self.announce(Kind::Abort)
    }

    /// Ends the SMTP session, so that another can begin on this connection; `false` if the protocol version
    /// does not have that.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn quit_for_another(&mut self) -> Result<Option<Exchange>, Error> {
        if self.agreed.version < since_version(Kind::QuitNewConnection) {
            return Ok(None);
        }
        self.announce(Kind::QuitNewConnection).map(Some)
    }

    /// Ends the session.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn quit(&mut self) -> Result<Exchange, Error> {
        self.announce(Kind::Quit)
    }

    /// Closes the connection, and waits until the filter has closed it too.
    pub fn close(self) {
        self.link.close();
    }

    /// Sends a command that has no payload and no answer.
    fn announce(&mut self, command: Kind) -> Result<Exchange, Error> {
        encode::raw(self.link.outgoing(), command, b"");
        self.settle(command)?;
        Ok(Exchange {
            command,
            argument: Vec::new(),
            macros: None,
            progress: 0,
            changes: Vec::new(),
            outcome: Outcome::NoneDue,
        })
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
        let Some(stage) = self.like.macro_stage(kind) else { return Ok(None) };
        let names = self.lists.of(stage);
        if names.is_empty() {
            return Ok(None);
        }
        let definitions = values.define(names);
        encode::macros_before(self.link.outgoing(), kind.into(), &definitions);
        self.settle(kind)?;
        Ok(Some(definitions))
    }

    /// Sends what waits, if this MTA does not wait any longer.
    fn settle(&mut self, during: Kind) -> Result<(), Error> {
        if !self.like.gathers_writes() || self.link.outgoing().len() >= GATHER_LIMIT {
            self.link.flush(during)?;
        }
        Ok(())
    }

    fn await_verdict(&mut self, exchange: &mut Exchange) -> Result<Verdict, Error> {
        let during = exchange.command;
        let broken = |fault| Err(Error::Protocol { during, fault });
        loop {
            let frame = self.link.receive(during)?;
            let (kind, length) = (frame.kind, frame.payload.len());
            let modification = match Answer::decode(kind, frame.payload) {
                Some(Answer::Modification(modification)) => modification,
                Some(Answer::Reply(Reply::Skip)) => {
                    match self.like.skips(during) {
                        Skip::Commands(skipped) => self.skipped.push(skipped),
                        Skip::Everything => {}
                        Skip::Never => return broken(Fault::OutOfPlace { kind }),
                    }
                    return Ok(Verdict::Skip);
                }
                Some(Answer::Reply(reply)) => return Ok(reply.into()),
                Some(Answer::Custom(text)) => return Ok(Verdict::Custom(text.to_vec())),
                Some(Answer::Negotiated(_)) => return broken(Fault::OutOfPlace { kind }),
                None => return broken(Fault::Malformed { kind, length }),
            };
            match Brought::from(modification) {
                Brought::Progress => exchange.progress += 1,
                Brought::Change(..) if during != Kind::EndOfMessage => {
                    return broken(Fault::OutOfPlace { kind });
                }
                Brought::Change(_, right) if !self.actions.contains(right) => {
                    return broken(Fault::NotNegotiated(right));
                }
                Brought::Change(change, _) => collect(&mut exchange.changes, change),
            }
        }
    }
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
