//! One connection to an MTA: [`Session::run`] is the file to read first. It reads, decodes, advances, dispatches
//! and answers, frame by frame, until the MTA falls silent or the session ends.
#![forbid(unsafe_code)]

pub mod context;
mod end;
mod ended;
pub mod filter;
mod foreign;
mod inbox;
pub mod link;
mod scheduling;
pub mod shutdown;

use crate::count::Count;
use crate::log;
use crate::observe::{Fault, Observed};
use crate::panics;
use crate::protocol::negotiate::{ReplyPolicy, agree};
use crate::protocol::{
    AgreedSteps, Command, Kind, KindSet, MacroStage, MacroStore, Malformed, Offer, Reply, Stage,
};
pub use context::Context;
use context::NotAnswered;
use end::{End, broken, malformed};
pub use ended::remember;
pub use filter::{Filter, NoMemory, Verdict};
use inbox::Beginning;
pub use inbox::Inbox;
use link::Arrival;
pub use link::{Link, Timeouts};
pub use scheduling::{Cause, PARK_AFTER, Patience, Pause};
pub use shutdown::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What [`Session::prepare`] has something to do for; most commands are others.
const PREPARED: KindSet = KindSet::of(&[
    Kind::Negotiate,
    Kind::Connect,
    Kind::Helo,
    Kind::Mail,
    Kind::Rcpt,
    Kind::EndOfMessage,
    Kind::Unknown,
    Kind::Quit,
    Kind::QuitNewConnection,
]);

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

/// The state of one connection, between and during calls of [`Session::run`].
#[derive(Debug)]
pub struct Session {
    link: Arc<Link>,
    ctx: Arc<Context>,
    stage: Stage,
    agreed: AgreedSteps,
    /// Whether the filter is owed a call of close.
    open: bool,
    /// Whether a callback has run since the last reply whose own reply was not wanted. It may have taken long.
    is_silent: bool,
    /// What has come of a frame, between two calls of [`Session::run`]; a box, because many silent sessions have none.
    beginning: Option<Box<Beginning>>,
}

impl Session {
    /// A session on a new connection. Both directions carry at most `max_payload` bytes in a frame. The macros' memory
    /// stays with the session until it ends.
    pub fn new(
        link: Link,
        max_payload: usize,
        buffers: &mut Buffers,
        observed: Option<Arc<Observed>>,
    ) -> Self {
        let link = Arc::new(link);
        let macros = std::mem::take(&mut buffers.macros);
        Self {
            ctx: Arc::new(Context::new(Arc::clone(&link), max_payload, macros, observed)),
            link,
            stage: Stage::Init,
            agreed: AgreedSteps::default(),
            open: true,
            is_silent: false,
            beginning: None,
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

    /// When a silence will have been too long that is noticed `now`.
    pub fn deadline(&self, now: Instant) -> Instant {
        match &self.beginning {
            Some(beginning) => self.link.frame_deadline(beginning.waiting_since()),
            None => self.link.silence_deadline(now),
        }
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
            panics::catch(|| {
                self.take_up(&mut buffers.inbox)?;
                let pause = self.serve(filter, &mut buffers.inbox, patience.hurry(), reads_on)?;
                self.beginning = buffers.inbox.take_beginning().map_err(|_| End::NoMemory)?.map(Box::new);
                Ok(pause)
            })
            .unwrap_or_else(|panic| Err(End::Panicked(Box::new(panic))))
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
            let deadline = self.deadline(Instant::now());
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

    /// Makes sure that there is memory to receive into, and goes on where the session paused.
    fn take_up(&mut self, inbox: &mut Inbox) -> Result<(), End> {
        match self.beginning.take() {
            None => inbox.prepare(),
            Some(beginning) => inbox.go_on_with(&beginning),
        }
        .map_err(|_| End::NoMemory)
    }

    /// The path of one packet, over and over. It waits for the MTA unless there is `hurry`; then a short read says that all
    /// was read, unless this session `reads_on`.
    fn serve<F: Filter>(
        &mut self,
        filter: &F,
        inbox: &mut Inbox,
        hurry: &AtomicBool,
        reads_on: bool,
    ) -> Result<Pause, End> {
        let (max_payload, is_observed) = (self.ctx.max_payload(), self.ctx.observed().is_some());
        loop {
            if self.must_end() {
                return Err(End::Shutdown);
            }
            let in_message = self.stage.in_message();
            let may_block = !hurry.load(Ordering::Relaxed);
            match self.link.receive(inbox, may_block, in_message) {
                Arrival::Bytes => {
                    self.process_frames(filter, inbox, max_payload, is_observed)?;
                    if !may_block && !reads_on && inbox.has_handed_out_all() {
                        return Ok(Pause::Yielded);
                    }
                }
                Arrival::Silence if may_block => return Ok(Pause::Silent),
                Arrival::Silence => return Ok(Pause::Yielded),
                Arrival::Shutdown => return Err(End::Shutdown),
                Arrival::Closed => return Err(End::Closed),
                Arrival::TimedOut => return Err(End::TimedOut),
                Arrival::NoMemory => return Err(End::NoMemory),
                Arrival::Broken(_) if self.is_unused(inbox) => return Err(End::Unused),
                Arrival::Broken(error) => return Err(broken(error)),
            }
        }
    }

    /// Whether no command and no part of a frame has come so far. (Macros alone do not count.)
    fn is_unused(&self, inbox: &Inbox) -> bool {
        self.stage == Stage::Init && !inbox.has_waited()
    }

    /// Takes all whole frames that have come. Replies leave one by one, because nobody knows how long the callback for
    /// the next command takes. (An MTA that waits for each reply has sent no other command yet.)
    #[inline(always)]
    fn process_frames<F: Filter>(
        &mut self,
        filter: &F,
        inbox: &mut Inbox,
        max_payload: usize,
        is_observed: bool,
    ) -> Result<(), End> {
        while let Some(frame) = inbox.next_frame(max_payload).map_err(End::Frame)? {
            if is_observed && let Some(observed) = self.ctx.observed() {
                observed.received(frame.kind, frame.payload);
            }
            let Some(kind) = Kind::from_byte(frame.kind) else {
                return Err(malformed(Malformed::UnknownCommand(frame.kind)));
            };
            let reply = self.dispatch(filter, kind, frame.payload)?;
            if inbox.is_empty() {
                return self.send(reply);
            }
            if reply.is_some() {
                self.send_before_the_next(reply)?;
            }
            if self.must_end() {
                return Err(End::Shutdown);
            }
        }
        self.send(None)
    }

    /// Sends all that has gathered, with this reply as the last.
    #[inline(always)]
    fn send(&self, reply: Option<Reply>) -> Result<(), End> {
        self.ctx.answer(reply).map_err(broken)
    }

    /// [`Self::send`] when more commands have come, which is rare.
    #[cold]
    #[inline(never)]
    fn send_before_the_next(&self, reply: Option<Reply>) -> Result<(), End> {
        self.send(reply)
    }

    /// The gate before every callback: none begins when the process has given up waiting for the session.
    #[inline(always)]
    fn gate(&self) -> Result<(), End> {
        if self.link.shutdown().has_abandoned() { Err(End::Shutdown) } else { Ok(()) }
    }

    /// Takes one command: advance, dispatch; the reply to it, unless it has none or a longer one is in the outbox. What
    /// depends on the kind is decided once: each arm is [`Self::take`] without the questions that its kind answers.
    #[inline(always)]
    fn dispatch<F: Filter>(
        &mut self,
        filter: &F,
        kind: Kind,
        payload: &mut [u8],
    ) -> Result<Option<Reply>, End> {
        match kind {
            Kind::Negotiate => self.take(filter, Kind::Negotiate, payload),
            Kind::Macro => self.take(filter, Kind::Macro, payload),
            Kind::Connect => self.take(filter, Kind::Connect, payload),
            Kind::Helo => self.take(filter, Kind::Helo, payload),
            Kind::Mail => self.take(filter, Kind::Mail, payload),
            Kind::Rcpt => self.take(filter, Kind::Rcpt, payload),
            Kind::Data => self.take(filter, Kind::Data, payload),
            Kind::Header => self.take(filter, Kind::Header, payload),
            Kind::EndOfHeader => self.take(filter, Kind::EndOfHeader, payload),
            Kind::Body => self.take(filter, Kind::Body, payload),
            Kind::EndOfMessage => self.take(filter, Kind::EndOfMessage, payload),
            Kind::Abort => self.take(filter, Kind::Abort, payload),
            Kind::Unknown => self.take(filter, Kind::Unknown, payload),
            Kind::Quit => self.take(filter, Kind::Quit, payload),
            Kind::QuitNewConnection => self.take(filter, Kind::QuitNewConnection, payload),
        }
    }

    /// [`Self::dispatch`] for a kind that the compiler knows. (With one body for all kinds a message takes 650 instructions
    /// more.)
    #[inline(always)]
    fn take<F: Filter>(&mut self, filter: &F, kind: Kind, payload: &mut [u8]) -> Result<Option<Reply>, End> {
        if log::debug_wanted(1) {
            self.log_command(filter, kind, payload.len());
        }
        if let Some(target) = Stage::of(kind) {
            let may_follow =
                self.stage.is_followed_by(target) || self.advance(filter, target, kind, payload)?;
            if !may_follow {
                return if kind == Kind::Quit { Err(End::Quit) } else { Ok(None) };
            }
            if payload.is_empty() && kind.needs_payload() {
                return Err(malformed(Malformed::NoData(kind)));
            }
            self.stage = target;
            if PREPARED.contains(kind) {
                self.prepare(kind);
            }
        }
        if !self.open {
            self.reopen(filter, kind, payload)?;
        }
        if !filter.has(kind) {
            // What no callback will see is not even decoded.
            return self.reply(filter, kind, Verdict::CONTINUE, false);
        }
        self.gate()?;
        let ctx = &*self.ctx;
        let verdict = match Command::decode(kind, payload).map_err(malformed)? {
            Command::Negotiate(offer) => {
                self.negotiate(filter, &offer)?;
                return Ok(None);
            }
            Command::Macro(stage, definitions) => {
                if let Some(stage) = stage {
                    self.ctx.define_macros(stage, definitions).map_err(|_| End::NoMemory)?;
                }
                return Ok(None);
            }
            Command::Connect(host, peer) => filter.connect(ctx, host, peer),
            Command::Helo(name) => filter.helo(ctx, name),
            Command::Mail(arguments) => filter.mail(ctx, arguments).map_err(|NoMemory| End::NoMemory)?,
            Command::Rcpt(arguments) => filter.rcpt(ctx, arguments).map_err(|NoMemory| End::NoMemory)?,
            Command::Data => filter.data(ctx),
            Command::Header(name, value) => filter.header(ctx, name, value),
            Command::EndOfHeader => filter.end_of_header(ctx),
            Command::Body(piece) => filter.body(ctx, piece),
            Command::EndOfMessage(piece) => self.end_of_message(filter, piece)?,
            Command::Unknown(line) => filter.unknown(ctx, line),
            Command::Abort => {
                filter.abort(ctx);
                return Ok(None);
            }
            Command::Quit => return Err(End::Quit),
            Command::QuitNewConnection => {
                self.close(filter)?;
                self.ctx.forget_macros();
                return Ok(None);
            }
        };
        self.reply(filter, kind, verdict, true)
    }

    /// The first command after close: from now on the filter is owed close again. But not if the command is none.
    #[cold]
    fn reopen<F: Filter>(&mut self, filter: &F, kind: Kind, payload: &mut [u8]) -> Result<(), End> {
        if filter.has(kind) {
            Command::decode(kind, payload).map_err(malformed)?;
        }
        // Macros alone do not count.
        self.open = kind != Kind::Macro;
        Ok(())
    }

    #[cold]
    fn log_command<F: Filter>(&self, filter: &F, kind: Kind, length: usize) {
        let (command, data) = (kind.name(), Count(length, "byte"));
        log::debug(filter.name(), format_args!("{command} with {data} at stage {:?}", self.stage));
    }

    /// Makes the move to `target` legal (contract 1.6) when the steps that are switched off count, or the message has
    /// to end; `false` if the command is to be dropped.
    #[cold]
    fn advance<F: Filter>(
        &mut self,
        filter: &F,
        target: Stage,
        kind: Kind,
        payload: &mut [u8],
    ) -> Result<bool, End> {
        let off = self.agreed.off(&filter.wants());
        if self.stage.leads_to(target, off) {
            return Ok(true);
        }
        // Mail servers end with these whatever has become of the message.
        if let Some(observed) = self.ctx.observed()
            && !matches!(kind, Kind::Abort | Kind::Quit)
        {
            observed.fault(Fault::OutOfOrder);
        }
        // A command out of order ends the message, and is then taken as if after HELO.
        let aborts = self.stage.in_message();
        self.abort(filter)?;
        self.enter(Stage::Helo);
        let may_follow = self.stage.leads_to(target, off);
        if may_follow && aborts && filter.has(kind) {
            // If it is none, the message that it would begin need not be aborted as well.
            Command::decode(kind, payload).map_err(malformed)?;
        }
        Ok(may_follow)
    }

    /// Moves to a stage without a command for it.
    fn enter(&mut self, stage: Stage) {
        if self.stage == Stage::EndOfMessage {
            self.ctx.refuse_changes();
        }
        self.stage = stage;
    }

    /// Does what a command does before the filter hears of it: forgets macros, and ends the time for changes to the
    /// message if it may follow the end of one. (Macro frames do not, and neither does a frame that turns out to be
    /// no command.)
    #[inline(always)]
    fn prepare(&mut self, kind: Kind) {
        match kind {
            Kind::Negotiate => self.ctx.forget_macros(),
            Kind::Connect => self.ctx.forget_macros_above(MacroStage::Connect),
            Kind::Helo => self.ctx.forget_macros_above(MacroStage::Helo),
            Kind::Mail => {
                self.ctx.refuse_changes();
                self.ctx.forget_macros_above(MacroStage::Mail);
            }
            Kind::Rcpt => self.ctx.forget_macros_above(MacroStage::Rcpt),
            Kind::EndOfMessage => self.ctx.allow_changes(!self.is_silent),
            Kind::Unknown | Kind::Quit | Kind::QuitNewConnection => self.ctx.refuse_changes(),
            Kind::Macro | Kind::Data | Kind::Header | Kind::EndOfHeader | Kind::Body | Kind::Abort => {}
        }
    }

    #[inline(never)]
    fn negotiate<F: Filter>(&mut self, filter: &F, offer: &Offer) -> Result<(), End> {
        let choice = filter.negotiate(&self.ctx, offer).map_err(End::Refused)?;
        if let Some(observed) = self.ctx.observed() {
            observed.chooses(offer, &choice, filter.wants().actions);
        }
        let agreement = agree(offer, &filter.wants(), choice).map_err(End::Refused)?;
        self.ctx.agreed(&agreement).map_err(|error| match error {
            NotAnswered::TooLarge => End::NegotiationTooLarge,
            NotAnswered::NoRoom(error) => broken(error),
        })?;
        self.send(None)?;
        self.agreed = agreement.steps();
        Ok(())
    }

    /// A last piece of the body and the end of the message, answered together.
    #[inline(never)]
    fn end_of_message<F: Filter>(&self, filter: &F, piece: &mut [u8]) -> Result<Verdict, End> {
        if !piece.is_empty() && filter.has(Kind::Body) {
            match filter.body(&self.ctx, piece) {
                Verdict::CONTINUE | Verdict::SKIP | Verdict::NOREPLY => self.gate()?,
                verdict => return Ok(verdict),
            }
        }
        let verdict = filter.end_of_message(&self.ctx);
        self.ctx.gather_no_more();
        Ok(verdict)
    }

    /// The reply to a command, as the verdict, the agreement and the stored reply say; moves on.
    #[inline(always)]
    fn reply<F: Filter>(
        &mut self,
        filter: &F,
        kind: Kind,
        verdict: Verdict,
        called: bool,
    ) -> Result<Option<Reply>, End> {
        if verdict == Verdict::CONTINUE && !self.agreed.has_silences() {
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
        let answers = self.agreed.answers(self.stage);
        let message_is_over = match verdict {
            Verdict::ACCEPT => true,
            Verdict::REJECT | Verdict::TEMPFAIL | Verdict::DISCARD => {
                !matches!(kind, Kind::Rcpt | Kind::Unknown)
            }
            _ => false,
        };
        self.is_silent = answers == ReplyPolicy::Nobody && (self.is_silent || called);
        if message_is_over && self.stage == Stage::EndOfMessage {
            // Before the reply is in the outbox: no change may land behind it.
            self.ctx.refuse_changes();
        }
        let reply = match answers {
            ReplyPolicy::Filter => self.reply_of_filter(kind, verdict)?,
            ReplyPolicy::Library => Some(Reply::Continue),
            ReplyPolicy::Nobody => None,
        };
        if answers != ReplyPolicy::Filter && called && verdict != Verdict::NOREPLY {
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

    fn reply_of_filter(&self, kind: Kind, verdict: Verdict) -> Result<Option<Reply>, End> {
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

    fn answer_stored(&self, permanent: bool) -> Result<bool, End> {
        let answered = self.ctx.answer_stored(permanent).map_err(|error| match error {
            NotAnswered::TooLarge => End::ReplyTooLarge,
            NotAnswered::NoRoom(error) => broken(error),
        })?;
        if answered {
            self.send(None)?;
        }
        Ok(answered)
    }

    /// The end of the connection: what was answered goes out, the filter hears of the end.
    fn end<F: Filter>(&mut self, filter: &F, end: &End) -> MacroStore {
        self.settle(filter, end);
        // Whatever happens, each of the filter's last callbacks is called, and none twice.
        while let Err(panic) = panics::catch(|| self.take_leave(filter)) {
            self.settle(filter, &End::Panicked(Box::new(panic)));
        }
        if let Some(observed) = self.ctx.observed() {
            observed.ended(end.ending());
        }
        self.ctx.end()
    }

    /// Logs the end, if it is out of order, and sends what has gathered.
    fn settle<F: Filter>(&mut self, filter: &F, end: &End) {
        if !end.is_orderly() || log::debug_wanted(1) || log::details_wanted() {
            // If it fails, nobody is there to read the line.
            let _ = panics::catch(|| end.log(filter.name(), self.stage, &self.ctx, &self.link));
        }
        self.ctx.gather_no_more();
        // If it fails, nobody is there to hear it.
        let _ = self.send(None);
    }

    /// Calls abort and close, unless the filter has heard of nothing since close was called.
    fn take_leave<F: Filter>(&mut self, filter: &F) {
        if self.open {
            // An error is that the filter must not be called any more.
            let _ = self.abort(filter);
            let _ = self.close(filter);
        }
    }

    /// Calls abort if a message is under way.
    #[inline(never)]
    fn abort<F: Filter>(&mut self, filter: &F) -> Result<(), End> {
        if !self.stage.in_message() {
            return Ok(());
        }
        self.enter(Stage::Abort);
        self.gate()?;
        filter.abort(&self.ctx);
        Ok(())
    }

    #[inline(never)]
    fn close<F: Filter>(&mut self, filter: &F) -> Result<(), End> {
        self.open = false;
        self.gate()?;
        filter.close(&self.ctx);
        if !self.ctx.private().is_null() {
            log::warning(filter.name(), format_args!("private data is not NULL at the end of the session"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
