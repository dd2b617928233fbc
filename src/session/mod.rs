//! One connection to an MTA: [`Session::run`] is the file to read first. It reads, decodes, advances, dispatches
//! and answers, frame by frame, until the MTA falls silent or the session ends.
#![forbid(unsafe_code)]

pub mod context;
pub mod filter;
mod inbox;
pub mod link;
mod scheduling;
pub mod shutdown;

use crate::count::Count;
use crate::log::{self, LineKind};
use crate::panics::{self, Panic};
use crate::protocol::negotiate::{Answers, agree};
use crate::protocol::{
    Agreement, Command, FrameError, Kind, MacroStage, MacroStore, Malformed, Offer, Refusal, Reply, Stage,
    Steps,
};
pub use context::Context;
pub use filter::{Filter, Verdict};
pub use inbox::Inbox;
use link::Arrival;
pub use link::{Link, Timeouts};
pub use scheduling::{Cause, PARK_AFTER, Patience, Pause};
pub use shutdown::Shutdown;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of the sessions that end in disorder in the same way, one is logged in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What a thread lends to the session that it serves.
#[derive(Debug, Default)]
pub struct Buffers {
    /// Received bytes.
    pub inbox: Inbox,
    /// Replies to be sent.
    pub outbox: Vec<u8>,
    /// Macros of a new session.
    pub macros: MacroStore,
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    /// The MTA said QUIT.
    Quit,
    /// The MTA closed the connection.
    Closed,
    /// The process stops.
    Shutdown,
    /// Nothing came, or not a whole frame, or the MTA did not take a reply in time.
    TimedOut,
    /// The connection broke.
    Broken(io::Error),
    /// The connection broke before the MTA had sent anything: somebody looked whether the filter listens.
    Unused,
    /// A frame that is none.
    Frame(FrameError),
    /// A command that is none.
    Malformed(Malformed),
    /// MTA and filter do not agree.
    Refused(Refusal),
    /// A callback's status is none.
    Status(Kind, i32),
    /// The filter's own SMTP reply does not fit into a frame.
    ReplyTooLarge,
    /// The answer to the negotiation does not fit into a frame.
    NegotiationTooLarge,
    /// A bug in this library.
    Panicked(Panic),
}

impl End {
    /// What to log, unless the end is an orderly one.
    fn complaint(&self) -> Option<String> {
        Some(match self {
            Self::Quit | Self::Closed | Self::Shutdown | Self::Unused => return None,
            Self::TimedOut => "timed out waiting for the MTA, session ended".to_owned(),
            Self::Broken(error) => format!("connection to the MTA broke: {error}"),
            Self::Frame(error) => format!("protocol error: {error}, session ended"),
            Self::Malformed(error) => format!("protocol error: {error}, session ended"),
            Self::Refused(refusal) => format!("{refusal}, session ended"),
            Self::ReplyTooLarge => {
                "the SMTP reply is larger than smfi_setmaxdatasize allows, session ended".to_owned()
            }
            Self::NegotiationTooLarge => {
                "negotiation: the answer is larger than smfi_setmaxdatasize allows, session ended".to_owned()
            }
            Self::Panicked(panic) => format!("internal error: {panic}, session ended"),
            Self::Status(kind, status) => {
                format!("the {} callback returned {status}, which is no status, session ended", kind.name())
            }
        })
    }

    /// What the complaint is about: ends of the same kind differ only in numbers.
    fn kind(&self) -> LineKind {
        let of = |about, kind: Kind| LineKind(about, u8::from(kind).into());
        match self {
            Self::Quit | Self::Closed | Self::Shutdown | Self::Unused => LineKind("", 0),
            Self::TimedOut => LineKind("timed out", 0),
            Self::Broken(_) => LineKind("broken", 0),
            Self::Frame(FrameError::Empty) => LineKind("frame", 0),
            Self::Frame(FrameError::TooLong { .. }) => LineKind("frame", 1),
            Self::Malformed(error) => match error {
                Malformed::UnknownCommand(_) => LineKind("unknown command", 0),
                Malformed::NoData(kind) => of("no data", *kind),
                Malformed::Unterminated(kind) => of("unterminated", *kind),
                Malformed::NotTwoStrings => LineKind("header", 0),
                Malformed::Address { .. } => LineKind("address", 0),
                Malformed::Offer(refusal) => Self::refusal_kind(refusal),
            },
            Self::Refused(refusal) => Self::refusal_kind(refusal),
            Self::Status(kind, _) => of("status", *kind),
            Self::ReplyTooLarge => LineKind("too large", 0),
            Self::NegotiationTooLarge => LineKind("too large", 1),
            Self::Panicked(panic) => LineKind("internal error", panic.line()),
        }
    }

    fn refusal_kind(refusal: &Refusal) -> LineKind {
        LineKind(
            "negotiation",
            match refusal {
                Refusal::Short { .. } => 0,
                Refusal::Version(_) => 1,
                Refusal::Callback(_) => 2,
                Refusal::Actions { .. } => 3,
                Refusal::Steps { .. } => 4,
            },
        )
    }
}

/// Whether a command may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Yes.
    Free,
    /// Yes, now that the message under way has been aborted.
    Aborted,
    /// No, it is to be dropped.
    Closed,
}

/// The state of one connection, between and during calls of [`Session::run`].
#[derive(Debug)]
pub struct Session {
    link: Arc<Link>,
    ctx: Arc<Context>,
    stage: Stage,
    /// `None` before negotiation.
    agreement: Option<Agreement>,
    /// Whether the filter may keep silent at some stages.
    has_silences: bool,
    /// The largest payload taken from the MTA, in bytes.
    max_payload: usize,
    /// Whether the filter is owed a call of close.
    open: bool,
    /// When the frames that are processed have come, if that matters.
    arrival: Option<Instant>,
    /// Whether replies have gathered to commands before the present one.
    owes_replies: bool,
}

impl Session {
    /// A session on a new connection. Both directions carry at most `max_payload` bytes in a frame. The macros' memory
    /// stays with the session until it ends.
    pub fn new(link: Link, max_payload: usize, buffers: &mut Buffers) -> Self {
        let link = Arc::new(link);
        let macros = std::mem::take(&mut buffers.macros);
        Self {
            ctx: Arc::new(Context::new(Arc::clone(&link), max_payload, macros)),
            link,
            stage: Stage::Init,
            agreement: None,
            has_silences: false,
            max_payload,
            open: true,
            arrival: None,
            owes_replies: false,
        }
    }

    /// The connection, to wait for its readiness.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The filter's view of the session. It outlives the session for whoever keeps it.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// Whether the session should go on, given the state of the process.
    pub fn must_end(&self) -> bool {
        self.link.shutdown().ends(self.stage.in_message())
    }

    /// Serves the MTA until it is silent for longer than `patience` allows, or the session ends. Unless it has ended, all
    /// that had arrived has been read.
    pub fn run<F: Filter>(
        &mut self,
        filter: &F,
        buffers: &mut Buffers,
        cause: Cause,
        patience: Patience<'_>,
    ) -> Pause {
        self.ctx.lend_outbox(std::mem::take(&mut buffers.outbox));
        // A bug in this library must cost neither the process nor the filter's last callbacks.
        let mut serve = |reads_on| {
            panics::catch(|| self.serve(filter, &mut buffers.inbox, patience, reads_on))
                .unwrap_or_else(|panic| Err(End::Panicked(panic)))
        };
        let result = match cause {
            Cause::Ready => serve(false),
            Cause::HungUp => serve(true),
            Cause::Expired => Err(End::TimedOut),
        };
        let pause = match result {
            Ok(pause) => pause,
            Err(end) => {
                buffers.macros = self.end(filter, &end);
                buffers.inbox.clear();
                Pause::Ended
            }
        };
        buffers.outbox = self.ctx.take_outbox();
        pause
    }

    /// [`Self::run`] for a thread that has nothing else to do: waits through silences, up to the timeout.
    pub fn run_to_end<F: Filter>(&mut self, filter: &F, buffers: &mut Buffers) -> Pause {
        let mut cause = Cause::Ready;
        while self.run(filter, buffers, cause, Patience::Brief) == Pause::Silent {
            self.shrink();
            buffers.inbox.release();
            let deadline = self.link.silence_deadline(Instant::now());
            cause = if self.wait(deadline) { Cause::Ready } else { Cause::Expired };
        }
        Pause::Ended
    }

    /// Waits until the MTA speaks or [`Self::must_end`]; `false` if neither is so before `deadline`.
    pub fn wait(&self, deadline: Instant) -> bool {
        self.link.wait(self.stage.in_message(), deadline)
    }

    /// Gives back memory that a silent session does not need.
    pub fn shrink(&self) {
        self.ctx.shrink();
    }

    /// The walk of one packet, over and over. When nothing is left to wait for, a short read says that all was read, unless
    /// this session `reads_on`.
    fn serve<F: Filter>(
        &mut self,
        filter: &F,
        inbox: &mut Inbox,
        patience: Patience<'_>,
        reads_on: bool,
    ) -> Result<Pause, End> {
        inbox.prepare().map_err(End::Broken)?;
        loop {
            if self.must_end() {
                return Err(End::Shutdown);
            }
            let in_message = self.stage.in_message();
            let may_block = patience.is_left();
            let is_all = match self.link.receive(inbox, may_block, in_message) {
                Arrival::Bytes { all } => {
                    self.process_frames(filter, inbox)?;
                    all
                }
                Arrival::Silence if may_block => return Ok(Pause::Silent),
                Arrival::Silence => return Ok(Pause::Yielded),
                Arrival::Shutdown => return Err(End::Shutdown),
                Arrival::Closed => return Err(End::Closed),
                Arrival::TimedOut => return Err(End::TimedOut),
                Arrival::Broken(_) if self.is_unused(inbox) => return Err(End::Unused),
                Arrival::Broken(error) => return Err(broken(error)),
            };
            if is_all && !reads_on && inbox.is_empty() && !patience.is_left() {
                return Ok(Pause::Yielded);
            }
        }
    }

    /// Whether no command and no part of a frame has come so far. (Macros alone do not count.)
    fn is_unused(&self, inbox: &Inbox) -> bool {
        self.stage == Stage::Init && !inbox.has_waited()
    }

    /// Takes all whole frames that have come, and sends the replies to them, at the latest when the filter is called
    /// for a later one.
    #[inline]
    fn process_frames<F: Filter>(&mut self, filter: &F, inbox: &mut Inbox) -> Result<(), End> {
        if self.has_silences {
            // Callbacks may work for long before anything is sent.
            self.arrival = Some(Instant::now());
        }
        while let Some(frame) = inbox.next_frame(self.max_payload).map_err(End::Frame)? {
            let Ok(kind) = Kind::try_from(frame.kind) else {
                return Err(malformed(Malformed::UnknownCommand(frame.kind)));
            };
            let reply = self.dispatch(filter, kind, frame.payload)?;
            if inbox.is_empty() {
                return self.send(reply);
            }
            self.ctx.answer(reply, false).map_err(broken)?;
            self.owes_replies |= reply.is_some();
            if self.must_end() {
                return Err(End::Shutdown);
            }
        }
        self.send(None)
    }

    /// Sends all replies, with this one as the last.
    #[inline]
    fn send(&mut self, reply: Option<Reply>) -> Result<(), End> {
        self.owes_replies = false;
        self.ctx.answer(reply, true).map_err(broken)
    }

    /// The gate before every callback. The replies to the commands before this one leave first, because nobody knows
    /// how long the callback takes; and no callback begins when the process has given up waiting for the session.
    #[inline]
    fn call<R>(&mut self, callback: impl FnOnce(&Context) -> R) -> Result<R, End> {
        if self.owes_replies {
            self.send(None)?;
        }
        if self.link.shutdown().has_abandoned() {
            return Err(End::Shutdown);
        }
        Ok(callback(&self.ctx))
    }

    /// Takes one command: advance, dispatch; the reply to it, unless it has none or a longer one is in the outbox.
    fn dispatch<F: Filter>(
        &mut self,
        filter: &F,
        kind: Kind,
        payload: &mut [u8],
    ) -> Result<Option<Reply>, End> {
        if log::debug_wanted(1) {
            self.log_command(filter, kind, payload.len());
        }
        let was_open = self.open;
        let mut way = Way::Free;
        if let Some(target) = Stage::of(kind) {
            way = self.advance(filter, target)?;
            if way == Way::Closed {
                return if kind == Kind::Quit { Err(End::Quit) } else { Ok(None) };
            }
            if payload.is_empty() && kind.needs_payload() {
                return Err(malformed(Malformed::NoData(kind)));
            }
            self.enter(target);
            self.open = true;
            self.forget_macros(kind);
        }
        if !filter.has(kind) {
            // What no callback will see is not even decoded.
            return self.reply(filter, kind, Verdict::CONTINUE, false);
        }
        let verdict = match Command::decode(kind, payload) {
            Err(error) => return Err(self.taken_back(way, was_open, error)),
            Ok(Command::Negotiate(offer)) => {
                self.negotiate(filter, &offer)?;
                return Ok(None);
            }
            Ok(Command::Macro(stage, definitions)) => {
                if let Some(stage) = stage {
                    self.ctx.define_macros(stage, definitions);
                }
                return Ok(None);
            }
            Ok(Command::Connect(host, peer)) => self.call(|ctx| filter.connect(ctx, host, peer))?,
            Ok(Command::Helo(name)) => self.call(|ctx| filter.helo(ctx, name))?,
            Ok(Command::Mail(arguments)) => self.call(|ctx| filter.mail(ctx, arguments))?,
            Ok(Command::Rcpt(arguments)) => self.call(|ctx| filter.rcpt(ctx, arguments))?,
            Ok(Command::Data) => self.call(|ctx| filter.data(ctx))?,
            Ok(Command::Header(name, value)) => self.call(|ctx| filter.header(ctx, name, value))?,
            Ok(Command::EndOfHeader) => self.call(|ctx| filter.end_of_header(ctx))?,
            Ok(Command::Body(piece)) => self.call(|ctx| filter.body(ctx, piece))?,
            Ok(Command::EndOfMessage(piece)) => self.end_of_message(filter, piece)?,
            Ok(Command::Unknown(line)) => self.call(|ctx| filter.unknown(ctx, line))?,
            Ok(Command::Abort) => {
                self.call(|ctx| filter.abort(ctx))?;
                return Ok(None);
            }
            Ok(Command::Quit) => return Err(End::Quit),
            Ok(Command::QuitNewConnection) => {
                self.close(filter)?;
                self.ctx.forget_macros();
                return Ok(None);
            }
        };
        self.reply(filter, kind, verdict, true)
    }

    /// A command turns out to be none. The filter has not heard of it, so it need not hear of its end: not of that of
    /// a message whose predecessor was aborted just now, nor of that of a session that has been closed.
    #[cold]
    fn taken_back(&mut self, way: Way, was_open: bool, error: Malformed) -> End {
        if way == Way::Aborted || !was_open {
            self.enter(Stage::Helo);
        }
        self.open = was_open;
        malformed(error)
    }

    #[cold]
    fn log_command<F: Filter>(&self, filter: &F, kind: Kind, length: usize) {
        let (command, data) = (kind.name(), Count(length, "byte"));
        log::debug(filter.name(), format_args!("{command} with {data} at stage {:?}", self.stage));
    }

    /// Makes the move to `target` legal (contract 1.6), if that is possible.
    #[inline]
    fn advance<F: Filter>(&mut self, filter: &F, target: Stage) -> Result<Way, End> {
        if self.stage.is_followed_by(target) { Ok(Way::Free) } else { self.make_legal(filter, target) }
    }

    /// [`Self::advance`] when the steps that are switched off count, or the message has to end.
    #[cold]
    fn make_legal<F: Filter>(&mut self, filter: &F, target: Stage) -> Result<Way, End> {
        let off = self.off(filter);
        if self.stage.leads_to(target, off) {
            return Ok(Way::Free);
        }
        // A command out of order ends the message, and is then taken as if after HELO.
        let aborts = self.stage.in_message();
        self.abort(filter)?;
        self.enter(Stage::Helo);
        Ok(match self.stage.leads_to(target, off) {
            true if aborts => Way::Aborted,
            true => Way::Free,
            false => Way::Closed,
        })
    }

    /// Moves on. The message can be changed as long as its end is the last stage that was entered: macro
    /// frames enter none, and neither does a frame that turns out to be no command.
    #[inline]
    fn enter(&mut self, stage: Stage) {
        if stage == Stage::EndOfMessage {
            self.ctx.allow_changes(self.arrival.unwrap_or_else(Instant::now));
        } else if self.stage == Stage::EndOfMessage {
            self.ctx.refuse_changes();
        }
        self.stage = stage;
    }

    fn off<F: Filter>(&self, filter: &F) -> Steps {
        self.agreement.map_or_else(|| filter.wants().off, |agreement| agreement.off())
    }

    #[inline]
    fn forget_macros(&self, kind: Kind) {
        match kind {
            Kind::Negotiate => self.ctx.forget_macros(),
            Kind::Connect => self.ctx.forget_macros_above(MacroStage::Connect),
            Kind::Helo => self.ctx.forget_macros_above(MacroStage::Helo),
            Kind::Mail => self.ctx.forget_macros_above(MacroStage::Mail),
            Kind::Rcpt => self.ctx.forget_macros_above(MacroStage::Rcpt),
            _ => {}
        }
    }

    fn negotiate<F: Filter>(&mut self, filter: &F, offer: &Offer) -> Result<(), End> {
        let choice = self.call(|ctx| filter.negotiate(ctx, offer))?.map_err(End::Refused)?;
        let agreement = agree(offer, &filter.wants(), choice).map_err(End::Refused)?;
        self.ctx.agreed(&agreement).map_err(|_| End::NegotiationTooLarge)?;
        self.owes_replies = true;
        self.agreement = Some(agreement);
        self.has_silences = agreement.has_silences();
        Ok(())
    }

    /// A last piece of the body and the end of the message, answered together.
    fn end_of_message<F: Filter>(&mut self, filter: &F, piece: &mut [u8]) -> Result<Verdict, End> {
        if !piece.is_empty() && filter.has(Kind::Body) {
            match self.call(|ctx| filter.body(ctx, piece))? {
                Verdict::CONTINUE | Verdict::SKIP | Verdict::NOREPLY => {}
                verdict => return Ok(verdict),
            }
        }
        self.call(|ctx| filter.end_of_message(ctx))
    }

    /// The reply to a command, as the verdict, the agreement and the stored reply say; moves on.
    #[inline]
    fn reply<F: Filter>(
        &mut self,
        filter: &F,
        kind: Kind,
        verdict: Verdict,
        called: bool,
    ) -> Result<Option<Reply>, End> {
        if verdict == Verdict::CONTINUE && !self.has_silences {
            return Ok(Some(Reply::Continue));
        }
        self.decide_reply(filter, kind, verdict, called)
    }

    /// [`Self::reply`] when it may not be simply "continue".
    #[inline(never)]
    fn decide_reply<F: Filter>(
        &mut self,
        filter: &F,
        kind: Kind,
        verdict: Verdict,
        called: bool,
    ) -> Result<Option<Reply>, End> {
        let answers = self.agreement.map_or(Answers::Filter, |agreement| agreement.answers(self.stage));
        let message_is_over = match verdict {
            Verdict::ACCEPT => true,
            Verdict::REJECT | Verdict::TEMPFAIL | Verdict::DISCARD => {
                !matches!(kind, Kind::Rcpt | Kind::Unknown)
            }
            _ => false,
        };
        if message_is_over && self.stage == Stage::EndOfMessage {
            // Before the reply is in the outbox: no change may land behind it.
            self.ctx.refuse_changes();
        }
        let reply = match answers {
            Answers::Filter => self.reply_of_filter(kind, verdict)?,
            Answers::Library => Some(Reply::Continue),
            Answers::Nobody => None,
        };
        if answers != Answers::Filter && called && verdict != Verdict::NOREPLY {
            log::error(
                filter.name(),
                format_args!(
                    "the {} callback returned {} although no reply was agreed on",
                    kind.name(),
                    verdict.0
                ),
            );
        }
        if message_is_over {
            self.enter(Stage::Helo);
        }
        Ok(reply)
    }

    fn reply_of_filter(&mut self, kind: Kind, verdict: Verdict) -> Result<Option<Reply>, End> {
        Ok(Some(match verdict {
            Verdict::CONTINUE => Reply::Continue,
            Verdict::REJECT if self.answer_stored(true)? => return Ok(None),
            Verdict::TEMPFAIL if self.answer_stored(false)? => return Ok(None),
            Verdict::REJECT => Reply::Reject,
            Verdict::TEMPFAIL => Reply::TempFail,
            Verdict::DISCARD => Reply::Discard,
            Verdict::ACCEPT => Reply::Accept,
            Verdict::SKIP => Reply::Skip,
            Verdict::NOREPLY => return Ok(None),
            Verdict(status) => return Err(End::Status(kind, status)),
        }))
    }

    fn answer_stored(&mut self, permanent: bool) -> Result<bool, End> {
        let answered = self.ctx.answer_stored(permanent).map_err(|_| End::ReplyTooLarge)?;
        self.owes_replies |= answered;
        Ok(answered)
    }

    /// The end of the connection: what was answered goes out, the filter hears of the end.
    fn end<F: Filter>(&mut self, filter: &F, end: &End) -> MacroStore {
        self.settle(filter, end);
        // Whatever happens, each of the filter's last callbacks is called, and none twice.
        while let Err(panic) = panics::catch(|| self.take_leave(filter)) {
            self.settle(filter, &End::Panicked(panic));
        }
        self.ctx.end()
    }

    /// Logs the end, if it is out of order, and sends what was answered.
    fn settle<F: Filter>(&mut self, filter: &F, end: &End) {
        // If it fails, nobody is there to read the line or to hear the replies.
        let _ = panics::catch(|| {
            if log::debug_wanted(1) {
                log::debug(filter.name(), format_args!("session ends at stage {:?}: {end:?}", self.stage));
            }
            if let Some(complaint) = end.complaint() {
                let message = format_args!("{complaint}");
                log::error_at_most(COMPLAIN_EVERY, end.kind(), filter.name(), message);
            }
            self.send(None)
        });
    }

    /// Calls abort and close, if the filter is owed them.
    fn take_leave<F: Filter>(&mut self, filter: &F) {
        // An error is that the filter must not be called any more.
        let _ = self.abort(filter);
        if self.open {
            let _ = self.close(filter);
        }
    }

    /// Calls abort if a message is under way.
    fn abort<F: Filter>(&mut self, filter: &F) -> Result<(), End> {
        if !self.stage.in_message() {
            return Ok(());
        }
        self.enter(Stage::Abort);
        self.call(|ctx| filter.abort(ctx))
    }

    fn close<F: Filter>(&mut self, filter: &F) -> Result<(), End> {
        self.open = false;
        self.call(|ctx| filter.close(ctx))?;
        if !self.ctx.private().is_null() {
            log::warning(filter.name(), format_args!("private data is not NULL at the end of the session"));
        }
        Ok(())
    }
}

/// Not inlined, or the error would be prepared for every command.
#[cold]
#[inline(never)]
fn malformed(error: Malformed) -> End {
    End::Malformed(error)
}

#[cold]
fn broken(error: impl Into<io::Error>) -> End {
    let error = error.into();
    match error.kind() {
        io::ErrorKind::TimedOut => End::TimedOut,
        io::ErrorKind::ConnectionAborted => End::Shutdown,
        _ => End::Broken(error),
    }
}

#[cfg(test)]
mod tests;
