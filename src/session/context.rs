//! What a filter sees of its session: the thing behind `SMFICTX`. It is shared between the session's thread, the
//! callbacks and whatever helper threads a filter lets loose on it, so all methods take `&self`. No callback
//! ever runs under its locks. There are two: sending may block, and whoever asks for a macro must not wait for that.

use super::link::Link;
use crate::log;
use crate::observe::Observed;
use crate::protocol::frame::OVERHEAD;
use crate::protocol::reply::{Negotiated, TooLarge, encode_custom};
use crate::protocol::{Actions, Agreement, MacroStage, MacroStore, Modification, NoMemory, Reply, SmtpReply};
use crate::sys::fork::Process;
use crate::sys::memory;
use crate::sys::socket::Peer;
use parking_lot::Mutex;
use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many bytes of modifications are gathered before they are sent without waiting for more.
const GATHER: usize = 1 << 16;

/// How long the connection may have been silent when a modification is gathered. After a longer silence it leaves at
/// once: it restarts the MTA's timer.
const GATHER_TIME: Duration = Duration::from_millis(100);

/// The largest piece of a new body in one frame, in bytes.
pub const BODY_PIECE: usize = 65_535;

/// The filter's view of one session.
#[derive(Debug)]
pub struct Context {
    private: AtomicPtr<c_void>,
    /// See [`Self::number`]; 0 as long as nobody has asked.
    number: AtomicU64,
    /// The session is over.
    ended: AtomicBool,
    /// Sixteen bytes more, and each of many silent sessions would cost another size of allocation.
    max_payload: u32,
    observed: Option<Arc<Observed>>,
    state: Mutex<State>,
    output: Mutex<Output>,
}

/// What is never locked while a thread waits for the MTA.
#[derive(Debug)]
struct State {
    macros: MacroStore,
    /// What most sessions never have; apart, because there may be many silent ones.
    extras: Option<Box<Extras>>,
}

/// What is known of few sessions.
#[derive(Debug, Default)]
struct Extras {
    /// The reply that the filter wants to give.
    reply: Option<SmtpReply>,
    /// The macros that the filter wants to have.
    macro_lists: Vec<(MacroStage, Vec<u8>)>,
    /// Who is at the other end, if it may have to be told when the connection is broken.
    peer: Option<Peer>,
}

/// What goes to the MTA. Whether a modification is allowed stands here, so that it is checked and appended in one step.
#[derive(Debug)]
struct Output {
    /// Modifications and a reply that have not been sent yet.
    bytes: Vec<u8>,
    /// None when nothing is sent any more: sending has failed, or the session has ended.
    link: Option<Arc<Link>>,
    /// Why there is none. Not one type with it: that would be eight bytes more for each silent session.
    failure: io::ErrorKind,
    /// The modifications agreed on.
    actions: Actions,
    changes: Changes,
    /// The process that serves the session.
    process: Process,
}

/// What becomes of a modification.
#[derive(Debug, Clone, Copy)]
enum Changes {
    /// It is refused: no message has ended.
    Refused,
    /// It is gathered until this instant, because the answer to the end of the message will follow.
    Gathered(Instant),
    /// It is sent at once, because nothing may follow for a long time.
    Sent,
}

/// A modification that could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// Not at the end of a message, or the action was not negotiated.
    NotAllowed,
    /// Larger than the largest frame.
    TooLarge,
    /// The connection is broken or the session has ended.
    Disconnected,
}

impl Context {
    /// The context of a new session; `max_payload` bounds what the filter may send in one frame, in bytes; `macros`
    /// is empty, its memory is what counts.
    pub fn new(
        link: Arc<Link>,
        max_payload: usize,
        macros: MacroStore,
        observed: Option<Arc<Observed>>,
    ) -> Self {
        let extras =
            log::details_wanted().then(|| Box::new(Extras { peer: Some(link.peer()), ..Extras::default() }));
        Self {
            private: AtomicPtr::new(std::ptr::null_mut()),
            number: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            // No frame tells a larger length.
            max_payload: u32::try_from(max_payload).unwrap_or(u32::MAX),
            observed,
            state: Mutex::new(State { macros, extras }),
            output: Mutex::new(Output {
                bytes: Vec::new(),
                link: Some(link),
                failure: io::ErrorKind::NotConnected,
                actions: Actions::empty(),
                changes: Changes::Refused,
                process: Process::current(),
            }),
        }
    }

    /// The filter's own pointer; null if it has set none.
    pub fn private(&self) -> *mut c_void {
        self.private.load(Ordering::Acquire)
    }

    /// Sets the filter's own pointer.
    pub fn set_private(&self, pointer: *mut c_void) {
        self.private.store(pointer, Ordering::Release);
    }

    /// The value of a macro: a string that ends with NUL. It may be written to, and stays where it is until its
    /// stage is defined anew or forgotten.
    pub fn macro_value(&self, name: &[u8]) -> Option<NonNull<u8>> {
        let value = self.state.lock().macros.get(name);
        if value.is_none()
            && let Some(observed) = &self.observed
        {
            observed.misses_macro(name);
        }
        value
    }

    /// The number by which log lines name the session: from 1 on, in the order in which they have to.
    pub fn number(&self) -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = self.number.load(Ordering::Relaxed);
        if number != 0 {
            return number;
        }
        let new = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        match self.number.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => new,
            Err(other) => other,
        }
    }

    /// Who is at the other end of `link`, which is this session's: as long as the session lasts, also when the connection is
    /// broken, if log lines are wanted that tell it.
    pub fn peer(&self, link: &Link) -> Peer {
        self.state.lock().extras.as_ref().and_then(|extras| extras.peer).unwrap_or_else(|| link.peer())
    }

    /// Replaces `id` by the queue id of the message, that is, the macro `i`; by nothing if there is none. Not to be called
    /// while a callback runs, which might write to the macro.
    pub fn copy_queue_id(&self, id: &mut Vec<u8>) {
        id.clear();
        if let Some(value) = self.state.lock().macros.value(b"i") {
            id.extend_from_slice(value.strip_suffix(b"\0").unwrap_or(value));
        }
    }

    /// Stores a reply for the next verdict that it fits; an older one is forgotten.
    pub fn set_reply(&self, reply: SmtpReply) {
        if let Some(observed) = &self.observed {
            observed.sets_reply(&reply);
        }
        self.state.lock().extras.get_or_insert_default().reply = Some(reply);
    }

    /// Asks for macros at a stage: names separated by space. Each stage can be asked for once in a session. `false` if it
    /// was, or if there is no memory for them.
    pub fn request_macros(&self, stage: MacroStage, names: &[u8]) -> bool {
        if let Some(observed) = &self.observed {
            observed.asks_for_macros();
        }
        let mut state = self.state.lock();
        let lists = &mut state.extras.get_or_insert_default().macro_lists;
        let fresh = lists.iter().all(|(listed, _)| *listed != stage);
        let mut list = Vec::new();
        if !fresh || memory::fallibly(|| list.try_reserve_exact(names.len())).is_err() {
            return false;
        }
        list.extend_from_slice(names);
        lists.push((stage, list));
        true
    }

    /// Makes one modification, if `action` was agreed on and it is the time for it: between BODYEOB and the next
    /// command. It leaves at the latest with the answer to BODYEOB.
    ///
    /// # Errors
    /// It is not allowed or too large, or the connection is broken.
    pub fn modify(&self, action: Actions, modification: Modification<'_>) -> Result<(), NotSent> {
        if let Some(observed) = &self.observed {
            observed.modifies(&modification);
        }
        self.output.lock().modify(action, modification, self.max_payload(), self.observed())
    }

    /// Sends `body` in pieces, as one more part of the new body; an empty one is sent as one empty piece.
    ///
    /// # Errors
    /// It is not allowed, or the connection is broken.
    pub fn replace_body(&self, body: &[u8]) -> Result<(), NotSent> {
        let send = |piece| self.modify(Actions::CHGBODY, Modification::ReplaceBody(piece));
        if body.is_empty() { send(body) } else { body.chunks(BODY_PIECE).try_for_each(send) }
    }

    /// The largest payload of a frame in either direction, in bytes.
    pub(super) fn max_payload(&self) -> usize {
        self.max_payload as usize
    }

    /// Tells the MTA at once that the filter is still working.
    ///
    /// # Errors
    /// The connection is broken or the session has ended.
    pub fn progress(&self) -> Result<(), NotSent> {
        self.output.lock().append(Modification::Progress, self.max_payload(), true, self.observed())
    }
}

/// The watch's side of the context.
impl Context {
    /// Tells the MTA that the filter is still working, if it waits for the answer to the end of a message. It never waits:
    /// not for a thread that is sending, and not for an MTA that does not read. To be called while a callback runs, which
    /// cannot end meanwhile.
    pub fn keep_alive(&self) {
        if let Some(mut output) = self.output.try_lock() {
            output.keep_alive(self.max_payload(), self.observed());
        }
    }
}

impl Output {
    /// Sends what has gathered, or else a sign of life, as far as there is room for it. What there is no room for
    /// stays in front of all that will be sent.
    fn keep_alive(&mut self, max_payload: usize, observed: Option<&Observed>) {
        let (Changes::Gathered(_), Some(link)) = (self.changes, &self.link) else { return };
        let link = Arc::clone(link);
        if self.bytes.is_empty() {
            let encode = |bytes: &mut Vec<u8>| Modification::Progress.encode(bytes, max_payload);
            if !matches!(self.put(OVERHEAD, encode, observed), Ok(Ok(()))) {
                return;
            }
        }
        match link.try_send(&self.bytes) {
            Ok(count) => drop(self.bytes.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The next who sends learns of it.
            Err(_) => {}
        }
    }

    /// Lets `encode` append so many bytes. If there is no memory for them, what has gathered is sent first.
    ///
    /// # Errors
    /// There is no memory for them nevertheless, or why sending failed.
    #[inline]
    fn put<T>(
        &mut self,
        bytes: usize,
        encode: impl FnOnce(&mut Vec<u8>) -> T,
        observed: Option<&Observed>,
    ) -> Result<T, io::ErrorKind> {
        if self.bytes.capacity() - self.bytes.len() >= bytes {
            return Ok(encode(&mut self.bytes));
        }
        self.grow(bytes, observed)?;
        Ok(encode(&mut self.bytes))
    }

    #[cold]
    fn grow(&mut self, bytes: usize, observed: Option<&Observed>) -> Result<(), io::ErrorKind> {
        if memory::fallibly(|| self.bytes.try_reserve(bytes)).is_ok() {
            return Ok(());
        }
        self.flush(observed)?;
        memory::fallibly(|| self.bytes.try_reserve(bytes)).map_err(|_| io::ErrorKind::OutOfMemory)
    }

    fn modify(
        &mut self,
        action: Actions,
        modification: Modification<'_>,
        max_payload: usize,
        observed: Option<&Observed>,
    ) -> Result<(), NotSent> {
        let now = match self.changes {
            Changes::Gathered(until) => Instant::now() >= until,
            Changes::Sent => true,
            Changes::Refused => return Err(NotSent::NotAllowed),
        };
        if !self.actions.contains(action) {
            return Err(NotSent::NotAllowed);
        }
        self.append(modification, max_payload, now, observed)
    }

    /// Appends a frame; sends all that has gathered if `now`, or if it is much.
    fn append(
        &mut self,
        modification: Modification<'_>,
        max_payload: usize,
        now: bool,
        observed: Option<&Observed>,
    ) -> Result<(), NotSent> {
        if self.link.is_none() {
            return Err(NotSent::Disconnected);
        }
        let is_forked_child = Process::current() != self.process;
        if is_forked_child {
            // A copy of what the session's process has gathered, and will send itself.
            self.bytes.clear();
        }
        let length = OVERHEAD + modification.payload_length().min(max_payload);
        let encoded = self.put(length, |bytes| modification.encode(bytes, max_payload), observed);
        encoded.map_err(|_| NotSent::Disconnected)?.map_err(|TooLarge| NotSent::TooLarge)?;
        // A child gives no answer with which it could leave.
        if now || is_forked_child || self.bytes.len() >= GATHER {
            self.flush(observed).map_err(|_| NotSent::Disconnected)?;
            if let Changes::Gathered(until) = &mut self.changes {
                *until = Instant::now() + GATHER_TIME;
            }
        }
        Ok(())
    }

    /// Sends a frame when nothing has gathered.
    #[inline(always)]
    fn send(&mut self, frame: &[u8], observed: Option<&Observed>) -> Result<(), io::ErrorKind> {
        let sent = match &self.link {
            Some(link) => send(link, frame, observed),
            None => Err(self.failure),
        };
        if let Err(failure) = sent {
            self.cut(failure);
        }
        sent
    }

    /// Sends what has gathered, which most times is nothing; the error is why that failed, now or before.
    #[inline(always)]
    fn flush(&mut self, observed: Option<&Observed>) -> Result<(), io::ErrorKind> {
        if self.bytes.is_empty() && self.link.is_some() { Ok(()) } else { self.flush_gathered(observed) }
    }

    #[inline(never)]
    fn flush_gathered(&mut self, observed: Option<&Observed>) -> Result<(), io::ErrorKind> {
        let sent = match &self.link {
            Some(link) => send(link, &self.bytes, observed),
            None => Err(self.failure),
        };
        self.bytes.clear();
        if let Err(failure) = sent {
            self.cut(failure);
        }
        sent
    }

    /// Sends nothing any more, because of this.
    fn cut(&mut self, failure: io::ErrorKind) {
        self.link = None;
        self.failure = failure;
    }
}

/// Sends frames to the MTA.
#[inline(always)]
fn send(link: &Link, frames: &[u8], observed: Option<&Observed>) -> Result<(), io::ErrorKind> {
    link.send(frames).map_err(|error| error.kind())?;
    if let Some(observed) = observed {
        observed.sent(frames);
    }
    Ok(())
}

/// Replaces the macros of a stage by some that need more memory than it has.
#[cold]
fn define_more(macros: &mut MacroStore, stage: MacroStage, definitions: &[u8]) -> Result<(), NoMemory> {
    memory::fallibly(|| macros.make_room(stage, definitions.len()))?;
    macros.define(stage, definitions);
    Ok(())
}

/// Why a stored reply was not given.
#[derive(Debug)]
pub(super) enum NotAnswered {
    /// It is larger than the largest frame.
    TooLarge,
    /// There is no memory for it, or why sending what stands before it failed.
    NoRoom(io::ErrorKind),
}

/// The session's own side of the context.
impl Context {
    /// Who hears of what happens in the session, if anybody wants to.
    #[inline]
    pub fn observed(&self) -> Option<&Observed> {
        self.observed.as_deref()
    }

    /// Lends the memory that gathers replies.
    pub(super) fn lend_outbox(&self, outbox: Vec<u8>) {
        // What a helper thread of the filter has sent during a silence has left at once.
        self.output.lock().bytes = outbox;
    }

    /// Takes the lent memory back, empty: the next session that it is lent to must not send what is left in it.
    pub(super) fn take_outbox(&self) -> Vec<u8> {
        let output = &mut *self.output.lock();
        if !output.bytes.is_empty() {
            // If it fails, the session's next flush says so.
            let _ = output.flush(self.observed());
        }
        std::mem::take(&mut output.bytes)
    }

    /// Answers OPTNEG, with the macro lists that the filter has asked for so far.
    ///
    /// # Errors
    /// The answer is larger than the largest frame, or there is no memory for it.
    pub(super) fn agreed(&self, agreement: &Agreement) -> Result<(), NotAnswered> {
        let mut macro_lists = match &mut self.state.lock().extras {
            Some(extras) => std::mem::take(&mut extras.macro_lists),
            None => Vec::new(),
        };
        if let Some(observed) = &self.observed {
            observed.agrees(agreement, !macro_lists.is_empty());
        }
        macro_lists.sort_unstable_by_key(|(stage, _)| stage.number());
        let answer = Negotiated {
            version: agreement.version(),
            actions: agreement.actions().bits(),
            steps: agreement.told().bits(),
            macro_lists,
        };
        let output = &mut *self.output.lock();
        output.actions = agreement.actions();
        let encode = |bytes: &mut Vec<u8>| answer.encode(bytes, self.max_payload());
        let put = output.put(OVERHEAD + answer.payload_length(), encode, self.observed());
        // They stay: a stage can be asked for once in a session.
        if let Some(extras) = &mut self.state.lock().extras {
            extras.macro_lists = answer.macro_lists;
        }
        put.map_err(NotAnswered::NoRoom)?.map_err(|TooLarge| NotAnswered::TooLarge)
    }

    /// Sends all that has gathered, with this reply as the last.
    ///
    /// # Errors
    /// Why sending failed, now or before.
    #[inline(always)]
    pub(super) fn answer(&self, reply: Option<Reply>) -> Result<(), io::ErrorKind> {
        let output = &mut *self.output.lock();
        if let Some(reply) = reply {
            if output.bytes.is_empty() {
                return output.send(&reply.frame(), self.observed());
            }
            output.put(OVERHEAD, |bytes| reply.encode(bytes), self.observed())?;
        }
        output.flush(self.observed())
    }

    /// Answers with the stored reply, if it is a permanent one (`5`) or a temporary one (`4`) as asked for; it
    /// is used up by that.
    ///
    /// # Errors
    /// It is larger than the largest frame, or there is no room for it.
    pub(super) fn answer_stored(&self, permanent: bool) -> Result<bool, NotAnswered> {
        let fits = |reply: &mut SmtpReply| reply.is_permanent() == permanent;
        let stored = self.state.lock().extras.as_mut().and_then(|extras| extras.reply.take_if(fits));
        let Some(reply) = stored else {
            return Ok(false);
        };
        if reply.as_bytes().len() >= self.max_payload() {
            return Err(NotAnswered::TooLarge);
        }
        let encode = |bytes: &mut Vec<u8>| encode_custom(reply.as_bytes(), bytes);
        let length = OVERHEAD + reply.as_bytes().len() + 1;
        self.output.lock().put(length, encode, self.observed()).map_err(NotAnswered::NoRoom)?;
        Ok(true)
    }

    /// Allows modifications: the message has ended. If that is the `latest` that the MTA has said or heard, the first
    /// modifications can be gathered.
    pub(super) fn allow_changes(&self, latest: bool) {
        let gather_time = if latest { GATHER_TIME } else { Duration::ZERO };
        self.output.lock().changes = Changes::Gathered(Instant::now() + gather_time);
    }

    /// Sends each further modification at once: the answer to the end of the message will not take them along.
    pub(super) fn gather_no_more(&self) {
        let changes = &mut self.output.lock().changes;
        if let Changes::Gathered(_) = changes {
            *changes = Changes::Sent;
        }
    }

    /// Allows no modifications any more.
    pub(super) fn refuse_changes(&self) {
        self.output.lock().changes = Changes::Refused;
    }

    /// Replaces the macros of a stage by those in the data of a frame.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(super) fn define_macros(&self, stage: MacroStage, data: &[u8]) -> Result<(), NoMemory> {
        let Some(definitions) = MacroStore::definitions(data) else { return Ok(()) };
        let macros = &mut self.state.lock().macros;
        if macros.define(stage, definitions) { Ok(()) } else { define_more(macros, stage, definitions) }
    }

    /// Forgets the macros of all stages behind `stage`.
    pub(super) fn forget_macros_above(&self, stage: MacroStage) {
        self.state.lock().macros.forget_above(stage);
    }

    /// Forgets all macros.
    pub(super) fn forget_macros(&self) {
        self.state.lock().macros.forget_all();
    }

    /// Gives back memory that a silent session does not need.
    pub(super) fn shrink(&self) {
        self.state.lock().macros.release();
    }

    /// The session is over: every later call fails, whoever still holds a pointer to this context. Hands out the
    /// memory of its macros.
    pub(super) fn end(&self) -> MacroStore {
        self.ended.store(true, Ordering::Release);
        {
            let output = &mut *self.output.lock();
            output.changes = Changes::Refused;
            // If a helper thread's last words cannot be sent, nobody is there to see them.
            let _ = output.flush(self.observed());
            output.cut(io::ErrorKind::NotConnected);
        }
        let state = &mut *self.state.lock();
        state.extras = None;
        std::mem::take(&mut state.macros).recycled()
    }

    /// Whether the session is over.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}
