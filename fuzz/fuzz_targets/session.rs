//! Whole sessions with a filter in Rust, up to three at once. Each is played twice: alone, command by command; and
//! together with the others, as the engine does it with many sessions: one thread, one set of buffers, several
//! commands at a time, and frames whose rest comes when another session has been served. Both times the filter must see
//! the same and the MTA must hear the same, and the filter gets what it is owed: close at the end, abort for a message that
//! has not ended, nothing twice.
#![no_main]

mod conversation;

use arbitrary::Arbitrary;
use conversation::{Delivery, Ending, MOST_AT_ONCE, Said, Word};
use libfuzzer_sys::fuzz_target;
use milter::fuzzing::{Buffers, Cause, Context, Filter, NoMemory, Shutdown, Timeouts, Verdict};
use milter::protocol::{
    Actions, Answer, Arguments, Choice, Kind, MacroStage, Modification, Offer, Peer, Refusal, SmtpReply,
    Steps, Text, Wants, frame,
};
use std::borrow::Cow;
use std::ffi::CStr;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const MOST_SESSIONS: usize = 3;

/// The most bytes of a text: the answers to [`MOST_AT_ONCE`] commands must fit into the socket's buffer.
const MOST_BYTES: usize = 300;

#[derive(Debug, Arbitrary)]
struct Input {
    scripts: Vec<Script>,
    delivery: Delivery,
}

#[derive(Debug, Arbitrary)]
struct Script {
    /// Begins with a whole envelope, unless this is 0.
    start: u8,
    /// The filter's smfi_setmaxdatasize, if it is not the usual.
    max_payload: Option<u8>,
    wants: (u32, u32),
    choice: Option<Option<(u32, u32)>>,
    /// What the filter does at one callback after the other, over and over.
    deeds: Vec<(u8, Vec<Deed>)>,
    commands: Vec<Said<Vec<u8>>>,
    /// The last bytes, which need not be frames.
    tail: Vec<u8>,
}

#[derive(Debug, Clone, Arbitrary)]
enum Deed {
    AddHeader(Vec<u8>, Vec<u8>),
    InsertHeader(u32, Vec<u8>, Vec<u8>),
    ChangeHeader(u32, Vec<u8>, Vec<u8>),
    ChangeSender(Vec<u8>, Option<Vec<u8>>),
    AddRecipient(Vec<u8>, Option<Vec<u8>>),
    DeleteRecipient(Vec<u8>),
    ReplaceBody(Vec<u8>),
    Quarantine(Vec<u8>),
    Progress,
    Reply(bool, Vec<Vec<u8>>),
    Macro(Vec<u8>),
    AskForMacros(u8, Vec<u8>),
}

fn short(text: &[u8]) -> &[u8] {
    &text[..text.len().min(MOST_BYTES)]
}

impl Word for Vec<u8> {
    const MANY: bool = false;

    fn bytes(&self) -> Cow<'_, [u8]> {
        short(self).into()
    }
}

/// Writes down what it sees, and does what its script says.
struct Scripted<'a> {
    script: &'a Script,
    calls: AtomicUsize,
    seen: Mutex<Vec<String>>,
}

impl Scripted<'_> {
    fn see(&self, ctx: &Context, name: &str, what: &[&[u8]]) -> Verdict {
        let mut line = name.to_owned();
        for part in what {
            line += &format!(" {}", part.escape_ascii());
        }
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let deeds = &self.script.deeds;
        let mut verdict = Verdict::CONTINUE;
        if let Some((status, deeds)) = deeds.get(call % deeds.len().max(1)) {
            verdict = Verdict(i32::from(status % 12));
            for deed in deeds.iter().take(4) {
                line += &perform(deed, ctx);
            }
        }
        self.seen.lock().unwrap().push(line);
        verdict
    }
}

/// Does it; tells whether it worked.
fn perform(deed: &Deed, ctx: &Context) -> String {
    let result = match deed {
        Deed::AddHeader(name, value) => {
            ctx.modify(Actions::ADDHDRS, Modification::AddHeader { name: short(name), value: short(value) })
        }
        Deed::InsertHeader(index, name, value) => ctx.modify(
            Actions::ADDHDRS,
            Modification::InsertHeader { index: *index, name: short(name), value: short(value) },
        ),
        Deed::ChangeHeader(index, name, value) => ctx.modify(
            Actions::CHGHDRS,
            Modification::ChangeHeader { index: *index, name: short(name), value: short(value) },
        ),
        Deed::ChangeSender(address, arguments) => ctx.modify(
            Actions::CHGFROM,
            Modification::ChangeSender {
                address: short(address),
                arguments: arguments.as_deref().map(short),
            },
        ),
        Deed::AddRecipient(address, None) => {
            ctx.modify(Actions::ADDRCPT, Modification::AddRecipient(short(address)))
        }
        Deed::AddRecipient(address, Some(arguments)) => ctx.modify(
            Actions::ADDRCPT_PAR,
            Modification::AddRecipientWith { address: short(address), arguments: Some(short(arguments)) },
        ),
        Deed::DeleteRecipient(address) => {
            ctx.modify(Actions::DELRCPT, Modification::DeleteRecipient(short(address)))
        }
        Deed::ReplaceBody(body) => ctx.replace_body(short(body)),
        Deed::Quarantine(reason) => ctx.modify(Actions::QUARANTINE, Modification::Quarantine(short(reason))),
        Deed::Progress => ctx.progress(),
        Deed::Reply(permanent, lines) => {
            let code: &[u8] = if *permanent { b"550" } else { b"451" };
            let lines = lines.iter().take(3).map(|line| short(line));
            return match SmtpReply::multi(code, None, lines) {
                Ok(reply) => {
                    ctx.set_reply(reply);
                    String::new()
                }
                Err(error) => format!(" {error:?}"),
            };
        }
        Deed::Macro(name) => {
            let Some(value) = ctx.macro_value(name) else { return " -".to_owned() };
            // SAFETY: a value ends with NUL, and stays until its stage is defined anew.
            let value = unsafe { CStr::from_ptr(value.as_ptr().cast()) };
            return format!(" {value:?}");
        }
        Deed::AskForMacros(stage, names) => {
            let stage = MacroStage::ALL[usize::from(*stage) % MacroStage::COUNT];
            return format!(" {}", ctx.request_macros(stage, short(names)));
        }
    };
    format!(" {result:?}")
}

/// The filter that sessions borrow: `Filter` wants to live as long as it likes.
struct Shared(&'static Scripted<'static>);

impl Filter for Shared {
    fn name(&self) -> &CStr {
        c"fuzz"
    }

    fn wants(&self) -> Wants {
        let (actions, off) = self.0.script.wants;
        Wants {
            actions: Actions::from_bits_retain(actions & 0x1ff),
            off: Steps::from_bits_retain(off & 0x37f),
        }
    }

    fn has(&self, kind: Kind) -> bool {
        Stage::switch_of(kind).is_none_or(|switch| !self.wants().off.contains(switch))
    }

    fn negotiate(&self, ctx: &Context, offer: &Offer) -> Result<Choice, Refusal> {
        self.0.see(ctx, "negotiate", &[&offer.encode()]);
        Ok(match self.0.script.choice {
            None => Choice::Registered,
            Some(None) => Choice::AllOptions,
            Some(Some((actions, steps))) => Choice::Own(
                Actions::from_bits_retain(actions & 0x1ff),
                Steps::from_bits_retain(steps & 0x1f_ffff),
            ),
        })
    }

    fn connect(&self, ctx: &Context, host: Text<'_>, peer: Peer<'_>) -> Verdict {
        self.0.see(ctx, "connect", &[host.as_bytes(), format!("{peer:?}").as_bytes()])
    }

    fn helo(&self, ctx: &Context, name: Text<'_>) -> Verdict {
        self.0.see(ctx, "helo", &[name.as_bytes()])
    }

    fn mail(&self, ctx: &Context, arguments: Arguments<'_>) -> Result<Verdict, NoMemory> {
        Ok(self.0.see(
            ctx,
            "mail",
            &arguments.texts().collect::<Vec<_>>().iter().map(Text::as_bytes).collect::<Vec<_>>(),
        ))
    }

    fn rcpt(&self, ctx: &Context, arguments: Arguments<'_>) -> Result<Verdict, NoMemory> {
        Ok(self.0.see(
            ctx,
            "rcpt",
            &arguments.texts().collect::<Vec<_>>().iter().map(Text::as_bytes).collect::<Vec<_>>(),
        ))
    }

    fn data(&self, ctx: &Context) -> Verdict {
        self.0.see(ctx, "data", &[])
    }

    fn header(&self, ctx: &Context, mut name: Text<'_>, value: Text<'_>) -> Verdict {
        let verdict = self.0.see(ctx, "header", &[name.as_bytes(), value.as_bytes()]);
        // Some filters cut their arguments up where they stand.
        // SAFETY: a text has at least one byte.
        unsafe { name.as_mut_ptr().write(0) };
        verdict
    }

    fn end_of_header(&self, ctx: &Context) -> Verdict {
        self.0.see(ctx, "eoh", &[])
    }

    fn body(&self, ctx: &Context, piece: &mut [u8]) -> Verdict {
        let verdict = self.0.see(ctx, "body", &[piece]);
        piece.fill(b'x');
        verdict
    }

    fn end_of_message(&self, ctx: &Context) -> Verdict {
        self.0.see(ctx, "eom", &[])
    }

    fn unknown(&self, ctx: &Context, line: &mut [u8]) -> Verdict {
        self.0.see(ctx, "unknown", &[line])
    }

    fn abort(&self, ctx: &Context) {
        self.0.see(ctx, "abort", &[]);
    }

    fn close(&self, ctx: &Context) {
        self.0.see(ctx, "close", &[]);
    }
}

/// The bit that switches a command off, if there is one.
struct Stage;

impl Stage {
    fn switch_of(kind: Kind) -> Option<Steps> {
        let switch = milter::protocol::Stage::of(kind)?.switch();
        (!switch.is_empty()).then_some(switch)
    }
}

/// One session and both its ends.
struct Conversation {
    inner: conversation::Conversation,
    filter: Shared,
    heard: Vec<u8>,
    ended: bool,
}

impl Conversation {
    /// The filter is leaked: see [`Self::leave`].
    fn new(script: &'static Script, ending: Ending, buffers: &mut Buffers, shutdown: &Arc<Shutdown>) -> Self {
        let filter =
            Box::leak(Box::new(Scripted { script, calls: AtomicUsize::new(0), seen: Mutex::default() }));
        Self {
            inner: conversation::Conversation::new(
                conversation::frames(script.start, &script.commands),
                ending,
                script.max_payload.map(usize::from),
                // The rest of a frame may come as late as it likes; it is this thread that sends it.
                Timeouts(-1),
                buffers,
                shutdown,
            ),
            filter: Shared(filter),
            heard: Vec::new(),
            ended: false,
        }
    }

    fn say(&mut self, count: usize, cut: u8, buffers: &mut Buffers) -> bool {
        if self.ended || !self.inner.say(count, cut) {
            return false;
        }
        self.run(Cause::Ready, buffers);
        true
    }

    fn run(&mut self, cause: Cause, buffers: &mut Buffers) {
        self.ended = self.inner.run(&self.filter, cause, buffers);
        let _ = (&*self.inner.mta).read_to_end(&mut self.heard);
    }

    /// The MTA says its last bytes and leaves. Returns what the filter saw and what the MTA heard.
    fn leave(mut self, buffers: &mut Buffers) -> (Vec<String>, Vec<u8>) {
        if !self.ended {
            self.inner.say_last(&self.filter.0.script.tail);
        }
        for cause in self.inner.last_causes {
            if !self.ended {
                self.run(*cause, buffers);
            }
        }
        assert!(self.ended);
        assert!(self.inner.session.context().has_ended());
        assert!(self.inner.session.context().progress().is_err());
        let filter = self.filter.0;
        drop(self.inner);
        let seen = filter.seen.lock().unwrap().clone();
        // SAFETY: it was leaked for this conversation, whose session is gone.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(filter).cast_mut()) });
        (seen, self.heard)
    }
}

/// What holds for the callbacks of every session, whatever the MTA sends.
fn check_order(script: &Script, seen: &[String]) {
    let mut events: Vec<&str> = seen.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(events.pop(), Some("close"), "{seen:?}");
    let chosen = script.choice.flatten().map_or(0, |(_, steps)| steps);
    let off = Steps::from_bits_retain(script.wants.1 | chosen);
    conversation::check_messages(events, !off.intersects(Steps::NOMAIL | Steps::NOUNKNOWN));
}

fn check_answers(mut bytes: &[u8]) {
    while let Some(length) = frame::measure(bytes, usize::MAX).unwrap() {
        let (frame, rest) = bytes.split_at(length);
        // A filter's strings may hold NUL here, which C strings cannot.
        let _ = Answer::decode(frame[4], &frame[5..]);
        conversation::check_answer(frame);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a frame");
}

fn play(scripts: &'static [Script], delivery: &Delivery) {
    let buffers = &mut Buffers::default();
    let shutdown = Arc::new(Shutdown::new().unwrap());
    let begin = |(number, script), buffers: &mut Buffers| {
        Conversation::new(script, delivery.ending(number), buffers, &shutdown)
    };
    let alone: Vec<_> = scripts
        .iter()
        .enumerate()
        .map(|script| {
            let mut conversation = begin(script, buffers);
            while conversation.say(1, 0, buffers) {}
            conversation.leave(buffers)
        })
        .collect();

    let mut together: Vec<_> = scripts.iter().enumerate().map(|script| begin(script, buffers)).collect();
    for (whose, count, cut) in delivery.turns(together.len()) {
        together[whose].say(count, cut, buffers);
    }
    for conversation in &mut together {
        while conversation.say(MOST_AT_ONCE, 0, buffers) {}
    }
    for (conversation, (seen, heard)) in together.into_iter().zip(alone) {
        check_order(conversation.filter.0.script, &seen);
        check_answers(&heard);
        let (seen_together, heard_together) = conversation.leave(buffers);
        assert_eq!(seen_together, seen);
        assert_eq!(heard_together, heard);
    }
}

fuzz_target!(|input: Input| {
    let Input { mut scripts, delivery } = input;
    scripts.truncate(MOST_SESSIONS);
    if scripts.is_empty() {
        return;
    }
    let scripts: *mut [Script] = Box::into_raw(scripts.into_boxed_slice());
    // SAFETY: it lives until it is taken back, when all sessions are gone.
    play(unsafe { &*scripts }, &delivery);
    // SAFETY: it comes from `into_raw`, and nobody has it any more.
    drop(unsafe { Box::from_raw(scripts) });
});
