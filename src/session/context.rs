//! What a filter sees of its session: the thing behind `SMFICTX`. It is shared between the session's thread, the
//! callbacks and whatever helper threads a filter lets loose on it, so all methods take `&self`. No callback
//! ever runs under its lock.

use super::eom::{EomScope, NotSent};
use super::link::Link;
use crate::protocol::reply::{Negotiated, TooLarge, encode_custom};
use crate::protocol::{Actions, Agreement, MacroStage, MacroStore, Modification, Reply, SmtpReply};
use parking_lot::Mutex;
use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// How many bytes of replies are gathered before they are sent without waiting for more.
const GATHER: usize = 1 << 16;

/// The filter's view of one session.
#[derive(Debug)]
pub struct Context {
    private: AtomicPtr<c_void>,
    /// The modifications agreed on.
    actions: AtomicU32,
    /// Between BODYEOB and the next command.
    in_eom: AtomicBool,
    /// The session is over.
    ended: AtomicBool,
    max_payload: usize,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    macros: MacroStore,
    reply: Option<SmtpReply>,
    macro_lists: Vec<(MacroStage, Vec<u8>)>,
    /// Replies that have not been sent yet.
    outbox: Vec<u8>,
    /// Or why nothing is sent any more: sending has failed, or the session has ended.
    link: Result<Arc<Link>, io::ErrorKind>,
}

impl Context {
    /// The context of a new session; `max_payload` bounds what the filter may send in one frame, in bytes; `macros`
    /// is empty, its memory is what counts.
    pub fn new(link: Arc<Link>, max_payload: usize, macros: MacroStore) -> Self {
        Self {
            private: AtomicPtr::new(std::ptr::null_mut()),
            actions: AtomicU32::new(0),
            in_eom: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            max_payload,
            shared: Mutex::new(Shared {
                macros,
                reply: None,
                macro_lists: Vec::new(),
                outbox: Vec::new(),
                link: Ok(link),
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
        let mut shared = self.shared.lock();
        shared.macros.get(name).map(|value| NonNull::from(value).cast())
    }

    /// Stores a reply for the next verdict that it fits; an older one is forgotten.
    pub fn set_reply(&self, reply: SmtpReply) {
        self.shared.lock().reply = Some(reply);
    }

    /// Asks for macros at a stage: names separated by space. Each stage can be asked for once in a session.
    pub fn request_macros(&self, stage: MacroStage, names: &[u8]) -> bool {
        let lists = &mut self.shared.lock().macro_lists;
        let fresh = lists.iter().all(|(listed, _)| *listed != stage);
        if fresh {
            lists.push((stage, names.to_vec()));
        }
        fresh
    }

    /// The right to make a modification, if it is the time for it and `action` was agreed on.
    pub fn eom(&self, action: Actions) -> Option<EomScope<'_>> {
        let actions = Actions::from_bits_retain(self.actions.load(Ordering::Acquire));
        (self.in_eom.load(Ordering::Acquire) && actions.contains(action)).then(|| EomScope::new(self))
    }

    /// Tells the MTA at once that the filter is still working.
    ///
    /// # Errors
    /// The connection is broken or the session has ended.
    pub fn progress(&self) -> Result<(), NotSent> {
        self.emit(Modification::Progress, true)
    }

    /// Puts a modification into the outbox; sends the outbox if `now`, or if much has gathered.
    pub(super) fn emit(&self, modification: Modification<'_>, now: bool) -> Result<(), NotSent> {
        let shared = &mut *self.shared.lock();
        if shared.link.is_err() {
            return Err(NotSent::Disconnected);
        }
        modification.encode(&mut shared.outbox, self.max_payload).map_err(|_| NotSent::TooLarge)?;
        if now || shared.outbox.len() >= GATHER {
            shared.flush().map_err(|_| NotSent::Disconnected)?;
        }
        Ok(())
    }
}

impl Shared {
    /// Sends what has gathered; the error is why that failed, now or before.
    fn flush(&mut self) -> Result<(), io::ErrorKind> {
        let sent = match &self.link {
            Ok(link) if !self.outbox.is_empty() => link.send(&self.outbox).map_err(|error| error.kind()),
            Ok(_) => Ok(()),
            Err(error) => Err(*error),
        };
        self.outbox.clear();
        if let Err(error) = sent {
            self.link = Err(error);
        }
        sent
    }
}

/// The session's own side of the context.
impl Context {
    /// Lends the memory that gathers replies.
    pub(super) fn lend_outbox(&self, mut outbox: Vec<u8>) {
        let shared = &mut *self.shared.lock();
        // What a helper thread of the filter has put there during a silence stays.
        outbox.append(&mut shared.outbox);
        shared.outbox = outbox;
    }

    /// Takes the lent memory back, empty: the next session that it is lent to must not send what is left in it.
    pub(super) fn take_outbox(&self) -> Vec<u8> {
        let shared = &mut *self.shared.lock();
        // If it fails, the session's next flush says so.
        let _ = shared.flush();
        std::mem::take(&mut shared.outbox)
    }

    /// Answers OPTNEG, with the macro lists that the filter has asked for so far.
    pub(super) fn agreed(&self, agreement: &Agreement) {
        self.actions.store(agreement.actions().bits(), Ordering::Release);
        let shared = &mut *self.shared.lock();
        let mut macro_lists = std::mem::take(&mut shared.macro_lists);
        macro_lists.sort_unstable_by_key(|(stage, _)| stage.number());
        let answer = Negotiated {
            version: agreement.version(),
            actions: agreement.actions().bits(),
            steps: agreement.told().bits(),
            macro_lists,
        };
        answer.encode(&mut shared.outbox);
        // They stay: a stage can be asked for once in a session.
        shared.macro_lists = answer.macro_lists;
    }

    /// Answers a command, if there is a reply; sends what has gathered if `now`, or if it is much.
    ///
    /// # Errors
    /// Why sending failed, now or before.
    #[inline(always)]
    pub(super) fn answer(&self, reply: Option<Reply>, now: bool) -> Result<(), io::ErrorKind> {
        if reply.is_none() && !now {
            return Ok(());
        }
        let shared = &mut *self.shared.lock();
        if let Some(reply) = reply {
            reply.encode(&mut shared.outbox);
        }
        if now || shared.outbox.len() >= GATHER { shared.flush() } else { Ok(()) }
    }

    /// Answers with the stored reply, if it is a permanent one (`5`) or a temporary one (`4`) as asked for; it
    /// is used up by that.
    ///
    /// # Errors
    /// It is larger than the largest frame.
    pub(super) fn answer_stored(&self, permanent: bool) -> Result<bool, TooLarge> {
        let shared = &mut *self.shared.lock();
        let Some(reply) = shared.reply.take_if(|reply| reply.is_permanent() == permanent) else {
            return Ok(false);
        };
        if reply.as_bytes().len() >= self.max_payload {
            return Err(TooLarge);
        }
        encode_custom(reply.as_bytes(), &mut shared.outbox);
        Ok(true)
    }

    /// Opens or closes the time for modifications.
    pub(super) fn set_eom(&self, open: bool) {
        self.in_eom.store(open, Ordering::Release);
    }

    /// Replaces the macros of a stage.
    pub(super) fn define_macros(&self, stage: MacroStage, definitions: &[u8]) {
        self.shared.lock().macros.define(stage, definitions);
    }

    /// Forgets the macros of all stages behind `stage`.
    pub(super) fn forget_macros_above(&self, stage: MacroStage) {
        self.shared.lock().macros.forget_above(stage);
    }

    /// Forgets all macros.
    pub(super) fn forget_macros(&self) {
        self.shared.lock().macros.forget_all();
    }

    /// Gives back memory that a silent session does not need.
    pub(super) fn shrink(&self) {
        self.shared.lock().macros.release();
    }

    /// The session is over: every later call fails, whoever still holds a pointer to this context. Hands out the
    /// memory of its macros.
    pub(crate) fn end(&self) -> MacroStore {
        self.ended.store(true, Ordering::Release);
        self.set_eom(false);
        self.actions.store(0, Ordering::Release);
        let shared = &mut *self.shared.lock();
        // Modifications are still possible in close, right behind the end of a message (contract 1.7). If they
        // cannot be sent, nobody is there to see them.
        let _ = shared.flush();
        shared.link = Err(io::ErrorKind::NotConnected);
        shared.macro_lists = Vec::new();
        shared.reply = None;
        std::mem::take(&mut shared.macros).recycled()
    }

    /// Whether the session is over.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}
