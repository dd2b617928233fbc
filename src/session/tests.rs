//! Sessions over a socket pair, with a filter in Rust: what the MTA sends goes in as bytes; what it hears and what
//! the filter sees come out. No process, no C.

mod noise;

use super::*;
use crate::protocol::command::encode;
use crate::protocol::{
    Actions, Arguments, Choice, MacroStage, Modification, Peer, Refusal, SmtpReply, Steps, Text, Wants,
};
use crate::protocol::{Answer, frame};
use crate::sys::socket::Socket;
use parking_lot::Mutex;
use std::ffi::CStr;
use std::io::{Read, Write};
use std::net::Shutdown as Half;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a filter does with a command, by its kind.
type Answering = Box<dyn Fn(Kind, &Context) -> Verdict + Send + Sync>;

/// A filter that writes down what it sees.
struct Recorder {
    seen: Mutex<Vec<String>>,
    answering: Answering,
    choice: Choice,
}

impl Recorder {
    fn new(answering: impl Fn(Kind, &Context) -> Verdict + Send + Sync + 'static) -> Self {
        let choice = Choice::Own(Actions::ADDHDRS, Steps::SKIP);
        Self { seen: Mutex::default(), answering: Box::new(answering), choice }
    }

    fn see(&self, kind: Kind, ctx: &Context, what: &str) -> Verdict {
        self.seen.lock().push(what.to_owned());
        (self.answering)(kind, ctx)
    }
}

impl Filter for Recorder {
    fn name(&self) -> &CStr {
        c"recorder"
    }

    fn wants(&self) -> Wants {
        Wants { actions: Actions::ADDHDRS, off: Steps::empty() }
    }

    fn has(&self, _: Kind) -> bool {
        true
    }

    fn negotiate(&self, ctx: &Context, _: &Offer) -> Result<Choice, Refusal> {
        self.see(Kind::Negotiate, ctx, "negotiate");
        Ok(self.choice)
    }

    fn connect(&self, ctx: &Context, _: Text<'_>, _: Peer<'_>) -> Verdict {
        self.see(Kind::Connect, ctx, "connect")
    }

    fn helo(&self, ctx: &Context, _: Text<'_>) -> Verdict {
        self.see(Kind::Helo, ctx, "helo")
    }

    fn mail(&self, ctx: &Context, _: Arguments<'_>) -> Result<Verdict, NoMemory> {
        Ok(self.see(Kind::Mail, ctx, "mail"))
    }

    fn rcpt(&self, ctx: &Context, _: Arguments<'_>) -> Result<Verdict, NoMemory> {
        Ok(self.see(Kind::Rcpt, ctx, "rcpt"))
    }

    fn data(&self, ctx: &Context) -> Verdict {
        self.see(Kind::Data, ctx, "data")
    }

    fn header(&self, ctx: &Context, _: Text<'_>, _: Text<'_>) -> Verdict {
        self.see(Kind::Header, ctx, "header")
    }

    fn end_of_header(&self, ctx: &Context) -> Verdict {
        self.see(Kind::EndOfHeader, ctx, "eoh")
    }

    fn body(&self, ctx: &Context, _: &mut [u8]) -> Verdict {
        self.see(Kind::Body, ctx, "body")
    }

    fn end_of_message(&self, ctx: &Context) -> Verdict {
        self.see(Kind::EndOfMessage, ctx, "eom")
    }

    fn unknown(&self, ctx: &Context, _: &mut [u8]) -> Verdict {
        self.see(Kind::Unknown, ctx, "unknown")
    }

    fn abort(&self, ctx: &Context) {
        self.see(Kind::Abort, ctx, "abort");
    }

    fn close(&self, ctx: &Context) {
        self.see(Kind::Quit, ctx, "close");
    }
}

/// A connection without a timeout.
fn link(socket: UnixStream, shutdown: Arc<Shutdown>) -> Link {
    Link::new(Socket::from(OwnedFd::from(socket)), Timeouts(-1), shutdown)
}

/// A session with both its ends.
struct Conversation {
    filter: Recorder,
    session: Session,
    mta: UnixStream,
    shutdown: Arc<Shutdown>,
}

impl Conversation {
    fn new(filter: Recorder) -> Self {
        Self::with_limit(filter, frame::DEFAULT_MAX_PAYLOAD)
    }

    /// A session whose frames carry at most `max_payload` bytes.
    fn with_limit(filter: Recorder, max_payload: usize) -> Self {
        let (mta, ours) = UnixStream::pair().unwrap();
        let shutdown = Arc::new(Shutdown::new().unwrap());
        let link = link(ours, Arc::clone(&shutdown));
        let session = Session::new(link, max_payload, &mut Buffers::default(), None);
        Self { filter, session, mta, shutdown }
    }

    /// A filter that always continues.
    fn with_continuing_filter() -> Self {
        Self::new(Recorder::new(|_, _| Verdict::CONTINUE))
    }

    /// The MTA sends these bytes; the session takes them.
    fn say(&mut self, bytes: &[u8], buffers: &mut Buffers) -> Pause {
        self.mta.write_all(bytes).unwrap();
        self.session.run(&self.filter, buffers, Cause::Ready, Patience::Brief)
    }

    /// The MTA sends its last bytes and listens on; the session takes them and ends.
    fn say_last(&mut self, bytes: &[u8], buffers: &mut Buffers) {
        self.mta.write_all(bytes).unwrap();
        self.mta.shutdown(Half::Write).unwrap();
        assert_eq!(self.session.run(&self.filter, buffers, Cause::Ready, Patience::Brief), Pause::Ended);
    }

    /// The kinds of all frames that the MTA has been sent so far and has not read yet.
    fn heard(&mut self) -> String {
        self.mta.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = self.mta.read(&mut piece) {
            bytes.extend_from_slice(&piece[..count]);
        }
        self.mta.set_nonblocking(false).unwrap();
        kinds(&bytes)
    }

    fn seen(&self) -> String {
        self.filter.seen.lock().join(" ")
    }
}

/// Hears all that the filter sends until the conversation is dropped, so that sending never has to wait.
fn hear_all(conversation: &Conversation) -> std::thread::JoinHandle<String> {
    let mut mta = conversation.mta.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        mta.read_to_end(&mut bytes).unwrap();
        kinds(&bytes)
    })
}

/// The kinds of the frames in `bytes`, each of which must be one that a filter may send.
fn kinds(mut bytes: &[u8]) -> String {
    let mut kinds = String::new();
    while let Some(length) = frame::measure(bytes, usize::MAX).unwrap() {
        let (frame, rest) = bytes.split_at(length);
        assert!(Answer::decode(frame[4], &frame[5..]).is_some(), "{}", frame.escape_ascii());
        kinds.push(frame[4].into());
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a frame: {}", bytes.escape_ascii());
    kinds
}

/// Frames of kinds with payloads.
fn frames(commands: &[(Kind, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, payload) in commands {
        encode::raw(&mut out, *kind, payload);
    }
    out
}

const OPTNEG: (Kind, &[u8]) = (Kind::Negotiate, &[0, 0, 0, 6, 0, 0, 1, 0xff, 0, 0x1f, 0xff, 0xff]);
const CONNECT: (Kind, &[u8]) = (Kind::Connect, b"host\0U");
const HELO: (Kind, &[u8]) = (Kind::Helo, b"helo\0");
const MAIL: (Kind, &[u8]) = (Kind::Mail, b"<a@b>\0");
const RCPT: (Kind, &[u8]) = (Kind::Rcpt, b"<c@d>\0");
const EOH: (Kind, &[u8]) = (Kind::EndOfHeader, b"");
const EOM: (Kind, &[u8]) = (Kind::EndOfMessage, b"");

#[test]
fn every_protocol_error_ends_the_session_in_silence() {
    let outside = frames(&[OPTNEG, CONNECT, HELO]);
    let inside = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT]);
    let in_header = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, (Kind::Data, b"")]);
    let bad_offers: [&[u8]; 3] = [&[0; 11], &[0; 12], &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]];
    let bad_connects: [&[u8]; 9] = [
        b"host",
        b"host\0",
        b"h\x004",
        b"h\x004\0\x19",
        b"h\x004\0\x19127.0.0.1",
        b"h\x004\0\x19no address\0",
        b"h\x006\0\x19127.0.0.1\0",
        b"h\0X\0\x19a\0",
        b"",
    ];
    let frame = |kind: Kind, payload: &[u8]| frames(&[(kind, payload)]);
    let mut errors: Vec<(Vec<u8>, Vec<u8>, &str)> = Vec::new();
    errors.extend(bad_offers.map(|offer| (vec![], frame(Kind::Negotiate, offer), "close")));
    errors.extend(bad_connects.map(|bad| (frames(&[OPTNEG]), frame(Kind::Connect, bad), "close")));
    let long_path = [&b"h\0L\0\0"[..], &[b'x'; 108], b"\0"].concat();
    errors.push((frames(&[OPTNEG]), frame(Kind::Connect, &long_path), "close"));
    for bad in [&b""[..], b"no NUL"] {
        errors.push((frames(&[OPTNEG, CONNECT]), frame(Kind::Helo, bad), "close"));
        errors.push((outside.clone(), frame(Kind::Mail, bad), "close"));
        errors.push((inside.clone(), frame(Kind::Rcpt, bad), "abort close"));
    }
    for bad in [&b""[..], b"a", b"a\0", b"a\0b", b"\0a\0"] {
        errors.push((in_header.clone(), frame(Kind::Header, bad), "abort close"));
    }
    errors.push((inside.clone(), frame(Kind::Body, b""), "abort close"));
    errors.push((inside.clone(), frame(Kind::Unknown, b""), "abort close"));
    errors.push((inside.clone(), frame(Kind::Macro, b""), "abort close"));
    for (kind, length) in [(b'Z', 1), (0, 1), (b'c', 1), (b'H', 0), (b'B', 0x0001_0001), (b'B', 0x8000_0000)]
    {
        let mut bytes = u32::to_be_bytes(length).to_vec();
        bytes.push(kind);
        errors.push((outside.clone(), bytes.clone(), "close"));
        errors.push((inside.clone(), bytes, "abort close"));
    }

    for (before, error, end) in errors {
        let what = format!("{} after {}", error.escape_ascii(), before.escape_ascii());
        let buffers = &mut Buffers::default();
        let mut orderly = Conversation::with_continuing_filter();
        orderly.say_last(&before, buffers);
        let mut faulty = Conversation::with_continuing_filter();
        // Commands behind the error are not taken any more.
        let bytes = [&before[..], &error, &frames(&[HELO, MAIL])].concat();
        assert_eq!(faulty.say(&bytes, buffers), Pause::Ended, "{what}");
        assert_eq!(faulty.heard(), orderly.heard(), "{what}: nothing is sent");
        assert!(faulty.seen().ends_with(end), "{what}: {}", faulty.seen());
        assert_eq!(faulty.seen().replace("abort ", ""), orderly.seen().replace("abort ", ""), "{what}");
        assert!(buffers.inbox.is_empty(), "{what}: nothing is left for the next session");
        assert!(faulty.session.context().has_ended(), "{what}");
    }
}

#[test]
fn an_empty_mail_inside_a_message_aborts_once() {
    for empty in [Kind::Mail, Kind::Helo] {
        let mut conversation = Conversation::with_continuing_filter();
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, (empty, b"")]);
        assert_eq!(conversation.say(&bytes, &mut Buffers::default()), Pause::Ended);
        assert_eq!(conversation.seen(), "negotiate connect helo mail rcpt abort close");
    }
}

#[test]
fn a_status_that_is_none_ends_the_session() {
    for status in [-1, 5, 6, 9, 10, 11, 20, 21, 22, 99] {
        let filter = Recorder::new(move |kind, _| match kind {
            Kind::Rcpt | Kind::Abort | Kind::Quit => Verdict(status),
            _ => Verdict::CONTINUE,
        });
        let mut conversation = Conversation::new(filter);
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, RCPT]);
        assert_eq!(conversation.say(&bytes, &mut Buffers::default()), Pause::Ended, "{status}");
        assert_eq!(conversation.heard(), "Occc", "{status}");
        assert_eq!(conversation.seen(), "negotiate connect helo mail rcpt abort close", "{status}");
    }
}

#[test]
fn a_reply_that_does_not_fit_into_a_frame_ends_the_session() {
    const LIMIT: usize = 100;
    // The frame holds the code, a space, the text and a NUL.
    for (text, hears, pause) in [(LIMIT - 5, "Occy", Pause::Silent), (LIMIT - 4, "Occ", Pause::Ended)] {
        let filter = Recorder::new(move |kind, ctx| {
            if kind != Kind::Mail {
                return Verdict::CONTINUE;
            }
            ctx.set_reply(SmtpReply::single(b"550", None, Some(&vec![b'x'; text])).unwrap());
            Verdict::REJECT
        });
        let mut conversation = Conversation::with_limit(filter, LIMIT);
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL]);
        assert_eq!(conversation.say(&bytes, &mut Buffers::default()), pause, "{text}");
        assert_eq!(conversation.heard(), hears, "{text}");
        let end = if pause == Pause::Ended { " abort close" } else { "" };
        assert_eq!(conversation.seen(), format!("negotiate connect helo mail{end}"), "{text}");
    }
}

#[test]
fn the_end_of_a_message_with_a_last_piece_of_its_body() {
    for (verdict, sees, hears) in [
        (Verdict::CONTINUE, "body eom", 'c'),
        (Verdict::SKIP, "body eom", 'c'),
        (Verdict::NOREPLY, "body eom", 'c'),
        (Verdict::REJECT, "body", 'r'),
        (Verdict::ACCEPT, "body", 'a'),
    ] {
        let mut conversation = Conversation::new(Recorder::new(move |kind, _| match kind {
            Kind::Body => verdict,
            _ => Verdict::CONTINUE,
        }));
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, EOH, (Kind::EndOfMessage, b"last\r\n")]);
        conversation.say_last(&bytes, &mut Buffers::default());
        assert_eq!(conversation.seen(), format!("negotiate connect helo mail rcpt eoh {sees} close"));
        assert_eq!(conversation.heard(), format!("Occccc{hears}"), "{verdict:?}: one answer");
    }
}

#[test]
fn a_change_made_in_close_goes_to_its_own_mta() {
    let filter = Recorder::new(|kind, ctx| {
        if kind == Kind::Quit {
            add_header(ctx, b"late");
        }
        Verdict::CONTINUE
    });
    let buffers = &mut Buffers::default();
    let mut first = Conversation::new(filter);
    first.say_last(&frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, EOH, EOM]), buffers);
    assert_eq!(first.heard(), "Occcccch");
    let mut second = Conversation::with_continuing_filter();
    second.say_last(&frames(&[OPTNEG]), buffers);
    assert_eq!(second.heard(), "O", "the thread's next session has nothing to do with it");
}

#[test]
fn a_change_made_during_a_silence_is_neither_lost_nor_misdirected() {
    let buffers = &mut Buffers::default();
    let mut first = Conversation::with_continuing_filter();
    let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, EOH, EOM]);
    assert_eq!(first.say(&bytes, buffers), Pause::Silent);
    assert_eq!(first.heard(), "Occcccc");
    add_header(first.session.context(), b"late");
    assert_eq!(first.heard(), "h");
    let mut second = Conversation::with_continuing_filter();
    second.say_last(&frames(&[OPTNEG]), buffers);
    assert_eq!(second.heard(), "O");
    first.say_last(&frames(&[MAIL]), buffers);
    assert_eq!(first.heard(), "c");
}

#[test]
fn a_silence_keeps_macros_stage_and_private_data() {
    let filter = Recorder::new(|kind, ctx| {
        let value = ctx.macro_value(b"i");
        match kind {
            Kind::Connect => ctx.set_private(std::ptr::dangling_mut()),
            Kind::Rcpt => {
                assert!(value.is_some() && !ctx.private().is_null());
                ctx.set_private(std::ptr::null_mut());
            }
            _ => {}
        }
        Verdict::CONTINUE
    });
    let buffers = &mut Buffers::default();
    let mut conversation = Conversation::new(filter);
    let mut bytes = frames(&[OPTNEG, CONNECT, HELO]);
    encode::macros(&mut bytes, MacroStage::Mail, &[(b"i", b"queue-id")]);
    bytes.extend(frames(&[MAIL]));
    assert_eq!(conversation.say(&bytes, buffers), Pause::Silent);
    assert!(buffers.inbox.is_empty() && buffers.outbox.is_empty());
    conversation.session.shrink();
    assert_eq!(conversation.say(&frames(&[RCPT]), &mut Buffers::default()), Pause::Silent);
    assert_eq!(conversation.heard(), "Occcc");
}

/// Also if the thread has served another session meanwhile, so that nothing of it can be left but what was kept.
#[test]
fn macros_before_all_commands_are_kept_however_late_the_first_comes() {
    for (commands, expected) in [
        (&[MAIL][..], "Mail true, Abort true, Quit true"),
        // A negotiation forgets them.
        (&[OPTNEG, MAIL], "Negotiate false, Mail false, Abort false, Quit false"),
    ] {
        // A panic in a callback would be caught.
        let found = Arc::new(Mutex::new(Vec::new()));
        let filter = Recorder::new({
            let found = Arc::clone(&found);
            move |kind, ctx| {
                found.lock().push(format!("{kind:?} {}", ctx.macro_value(b"i").is_some()));
                Verdict::CONTINUE
            }
        });
        let mut conversation = Conversation::new(filter);
        let mut bytes = Vec::new();
        encode::macros(&mut bytes, MacroStage::Connect, &[(b"i", b"queue-id")]);
        assert_eq!(conversation.say(&bytes, &mut Buffers::default()), Pause::Silent);
        conversation.session.shrink();
        conversation.say_last(&frames(commands), &mut Buffers::default());
        assert_eq!(found.lock().join(", "), expected);
    }
}

/// The thread is free meanwhile, and what has come stays with the session.
#[test]
fn the_rest_of_a_frame_may_come_when_another_session_has_been_served() {
    let buffers = &mut Buffers::default();
    for patience in [Patience::Brief, Patience::None] {
        let mut halves = [0, 1].map(|_| Conversation::with_continuing_filter());
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL]);
        for cut in 1..bytes.len() {
            for (conversation, other) in [(0, 1), (1, 0)] {
                let byte = &bytes[cut - 1..cut];
                halves[conversation].mta.write_all(byte).unwrap();
                let Conversation { filter, session, .. } = &mut halves[conversation];
                assert_ne!(session.run(filter, buffers, Cause::Ready, patience), Pause::Ended);
                assert!(buffers.inbox.is_empty() && buffers.outbox.is_empty());
                session.shrink();
                assert!(!halves[other].session.must_end());
            }
        }
        for conversation in &mut halves {
            conversation.say_last(&bytes[bytes.len() - 1..], buffers);
            assert_eq!(conversation.heard(), "Occc");
            assert_eq!(conversation.seen(), "negotiate connect helo mail abort close");
        }
    }
}

/// From its first byte on, however many come.
#[test]
fn pieces_of_a_frame_do_not_prolong_its_time() {
    let mut conversation = Conversation::with_continuing_filter();
    let buffers = &mut Buffers::default();
    let begun = Instant::now();
    assert_eq!(conversation.say(b"\0\0\0", buffers), Pause::Silent);
    let waited = Instant::now();
    let deadline = conversation.session.deadline(waited);
    assert!((begun..waited).contains(&(deadline - Timeouts(-1).frame())), "since the first byte");
    assert_eq!(conversation.say(b"\x0d", buffers), Pause::Silent);
    assert_eq!(conversation.session.deadline(Instant::now()), deadline);
    assert_eq!(conversation.say(&frames(&[OPTNEG])[4..], buffers), Pause::Silent);
    assert!(conversation.session.deadline(Instant::now()) > deadline);
}

#[test]
fn a_silence_that_lasts_too_long_aborts_and_closes() {
    let mut conversation = Conversation::with_continuing_filter();
    let buffers = &mut Buffers::default();
    assert_eq!(conversation.say(&frames(&[OPTNEG, CONNECT, HELO, MAIL]), buffers), Pause::Silent);
    assert_eq!(
        conversation.session.run(&conversation.filter, buffers, Cause::Expired, Patience::Brief),
        Pause::Ended
    );
    assert_eq!(conversation.seen(), "negotiate connect helo mail abort close");
}

/// As in the reference; with the step on, the second one is dropped.
#[test]
fn abort_may_follow_abort_when_unknown_is_switched_off() {
    let abort = (Kind::Abort, &b""[..]);
    for (steps, seen) in [
        (Steps::NOUNKNOWN, "negotiate connect helo mail abort abort close"),
        (Steps::empty(), "negotiate connect helo mail abort close"),
    ] {
        let mut filter = Recorder::new(|_, _| Verdict::CONTINUE);
        filter.choice = Choice::Own(Actions::empty(), steps);
        let mut conversation = Conversation::new(filter);
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, abort, abort]);
        conversation.say_last(&bytes, &mut Buffers::default());
        assert_eq!(conversation.seen(), seen);
    }
}

#[test]
fn a_stop_lets_the_message_finish() {
    let mut conversation = Conversation::with_continuing_filter();
    let buffers = &mut Buffers::default();
    assert_eq!(conversation.say(&frames(&[OPTNEG, CONNECT, HELO, MAIL]), buffers), Pause::Silent);
    conversation.shutdown.stop();
    assert!(!conversation.session.must_end());
    assert_eq!(conversation.say(&frames(&[RCPT, EOH]), buffers), Pause::Silent);
    assert_eq!(conversation.say(&frames(&[EOM]), buffers), Pause::Ended);
    assert_eq!(conversation.heard(), "Occcccc", "the answer goes out before the session ends");
    assert_eq!(conversation.seen(), "negotiate connect helo mail rcpt eoh eom close");
}

#[test]
fn an_abort_ends_everything_once() {
    for (commands, end) in
        [(&[OPTNEG, CONNECT, HELO, MAIL][..], "mail abort close"), (&[OPTNEG, CONNECT], "connect close")]
    {
        let mut conversation = Conversation::with_continuing_filter();
        let buffers = &mut Buffers::default();
        assert_eq!(conversation.say(&frames(commands), buffers), Pause::Silent);
        conversation.shutdown.abort();
        assert!(conversation.session.must_end());
        assert_eq!(
            conversation.session.run(&conversation.filter, buffers, Cause::Ready, Patience::Brief),
            Pause::Ended
        );
        assert!(conversation.seen().ends_with(end), "{}", conversation.seen());
    }
}

#[test]
fn an_abort_does_not_wait_for_commands_that_have_arrived() {
    for abandoned in [false, true] {
        let shutdown: Arc<Mutex<Option<Arc<Shutdown>>>> = Arc::default();
        let its_shutdown = Arc::clone(&shutdown);
        let mut conversation = Conversation::new(Recorder::new(move |kind, _| {
            if let (Kind::Mail, Some(shutdown)) = (kind, &*its_shutdown.lock()) {
                shutdown.abort();
                if abandoned {
                    shutdown.abandon();
                }
            }
            Verdict::CONTINUE
        }));
        *shutdown.lock() = Some(Arc::clone(&conversation.shutdown));
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, EOH, EOM]);
        assert_eq!(conversation.say(&bytes, &mut Buffers::default()), Pause::Ended);
        let end = if abandoned { "" } else { " abort close" };
        assert_eq!(conversation.seen(), format!("negotiate connect helo mail{end}"));
    }
}

#[test]
fn changes_from_several_threads_never_mix() {
    const THREADS: usize = 4;
    const CHANGES: usize = 200;
    let filter = Recorder::new(|kind, ctx| {
        if kind == Kind::EndOfMessage {
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        for _ in 0..CHANGES {
                            add_header(ctx, &[b'x'; 900]);
                            ctx.progress().unwrap();
                        }
                    });
                }
            });
        }
        Verdict::CONTINUE
    });
    let mut conversation = Conversation::new(filter);
    let reader = hear_all(&conversation);
    conversation.say_last(&frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, EOH, EOM]), &mut Buffers::default());
    drop(conversation);
    let heard = reader.join().unwrap();
    assert_eq!(heard.matches('h').count(), THREADS * CHANGES);
    assert_eq!(heard.matches('p').count(), THREADS * CHANGES);
    assert!(heard.starts_with("Occccc") && heard.ends_with('c'));
}

#[test]
fn a_broken_connection_is_noticed_even_when_nothing_is_left_to_say() {
    // The filter asks for a sign of life that cannot be sent, and then does not answer.
    let refused = Arc::new(AtomicBool::new(false));
    let filter = Recorder::new({
        let refused = Arc::clone(&refused);
        move |kind, ctx| {
            if kind == Kind::Mail {
                refused.store(ctx.progress().is_err(), Ordering::Relaxed);
                return Verdict::NOREPLY;
            }
            Verdict::CONTINUE
        }
    });
    let (mta, ours) = UnixStream::pair().unwrap();
    let link = link(ours.try_clone().unwrap(), Arc::new(Shutdown::new().unwrap()));
    let buffers = &mut Buffers::default();
    let mut session = Session::new(link, frame::DEFAULT_MAX_PAYLOAD, buffers, None);
    (&mta).write_all(&frames(&[OPTNEG, CONNECT, HELO])).unwrap();
    assert_eq!(session.run(&filter, buffers, Cause::Ready, Patience::Brief), Pause::Silent);
    ours.shutdown(Half::Write).unwrap();
    (&mta).write_all(&frames(&[MAIL])).unwrap();
    assert_eq!(session.run(&filter, buffers, Cause::Ready, Patience::Brief), Pause::Ended);
    assert!(refused.load(Ordering::Relaxed));
    assert_eq!(filter.seen.lock().join(" "), "negotiate connect helo mail abort close");
}

/// Where the MTA of a conversation is to be read from within a callback of its filter.
type Ears = Arc<Mutex<Option<UnixStream>>>;

/// A conversation whose filter can hear what its MTA hears.
fn overheard(answering: impl Fn(Kind, &Context, &Ears) -> Verdict + Send + Sync + 'static) -> Conversation {
    let ears = Ears::default();
    let its_ears = Arc::clone(&ears);
    let conversation = Conversation::new(Recorder::new(move |kind, ctx| answering(kind, ctx, &its_ears)));
    let mta = conversation.mta.try_clone().unwrap();
    mta.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    *ears.lock() = Some(mta);
    conversation
}

/// The kind of the next frame, which has no payload or one that is shorter than 100 bytes.
fn hear(ears: &Ears) -> Option<char> {
    let mut ears = ears.lock();
    let stream = ears.as_mut().unwrap();
    let mut head = [0; 5];
    stream.read_exact(&mut head).ok()?;
    let mut payload = [0; 100];
    stream.read_exact(&mut payload[..usize::from(head[3]) - 1]).ok()?;
    Some(head[4].into())
}

fn add_header(ctx: &Context, value: &[u8]) {
    ctx.modify(Actions::ADDHDRS, Modification::AddHeader { name: b"X", value }).unwrap();
}

#[test]
fn a_change_after_a_pause_leaves_at_once_with_all_before_it() {
    let mut conversation = overheard(|kind, ctx, ears| {
        if kind == Kind::EndOfMessage {
            add_header(ctx, b"soon");
            std::thread::sleep(Duration::from_millis(120));
            add_header(ctx, b"late");
            assert_eq!([hear(ears), hear(ears)], [Some('h'); 2]);
            std::thread::sleep(Duration::from_millis(120));
            add_header(ctx, b"later");
            assert_eq!(hear(ears), Some('h'));
        }
        Verdict::CONTINUE
    });
    let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, EOH]);
    assert_eq!(conversation.say(&bytes, &mut Buffers::default()), Pause::Silent);
    assert_eq!(conversation.heard(), "Occccc");
    assert_eq!(conversation.say(&frames(&[EOM]), &mut Buffers::default()), Pause::Silent);
    assert_eq!(conversation.heard(), "c");
}

#[test]
fn changes_without_a_pause_leave_with_the_reply() {
    // A busy machine may make a pause of its own: then the next try counts.
    let counts = (0..50).any(|_| {
        let mut conversation = overheard(|kind, ctx, ears| {
            if kind == Kind::EndOfMessage {
                add_header(ctx, b"one");
                add_header(ctx, b"two");
                let mut ears = ears.lock();
                let mta = ears.as_mut().unwrap();
                mta.set_nonblocking(true).unwrap();
                let early = mta.read(&mut [0; 100]).is_ok();
                mta.set_nonblocking(false).unwrap();
                ctx.set_private(if early { std::ptr::dangling_mut() } else { std::ptr::null_mut() });
            }
            Verdict::CONTINUE
        });
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, EOH]);
        assert_eq!(conversation.say(&bytes, &mut Buffers::default()), Pause::Silent);
        assert_eq!(conversation.heard(), "Occccc");
        let begun = Instant::now();
        assert_eq!(conversation.say(&frames(&[EOM]), &mut Buffers::default()), Pause::Silent);
        let none_left_early = conversation.session.context().private().is_null();
        // Silence is waited for at the end, for a moment.
        let in_time = begun.elapsed() < PARK_AFTER + Duration::from_millis(90);
        assert!(none_left_early || !in_time);
        none_left_early && conversation.heard() == "hhc"
    });
    assert!(counts, "changes always leave early");
}

#[test]
fn a_change_does_not_wait_after_callbacks_without_reply() {
    let mut conversation = overheard(|kind, ctx, ears| {
        if kind == Kind::EndOfMessage {
            add_header(ctx, b"first");
            assert_eq!(hear(ears), Some('h'));
        }
        if kind == Kind::EndOfMessage { Verdict::CONTINUE } else { Verdict::NOREPLY }
    });
    conversation.filter.choice = Choice::Own(Actions::ADDHDRS, Steps::NO_REPLY);
    let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, EOH]);
    assert_eq!(conversation.say(&bytes, &mut Buffers::default()), Pause::Silent);
    assert_eq!(conversation.heard(), "O");
    assert_eq!(conversation.say(&frames(&[EOM]), &mut Buffers::default()), Pause::Silent);
    assert_eq!(conversation.heard(), "c");
}

#[test]
fn a_reply_does_not_wait_for_the_callback_of_a_later_command() {
    let mut conversation = overheard(|kind, _, ears| {
        match kind {
            Kind::Connect => assert_eq!(hear(ears), Some('O')),
            Kind::Helo => assert_eq!(hear(ears), Some('c')),
            // The reply to MAIL is a stored one, and that to HELO came before it.
            Kind::Abort => assert_eq!([hear(ears), hear(ears)], [Some('c'), Some('y')]),
            _ => {}
        }
        Verdict::CONTINUE
    });
    let bytes = frames(&[OPTNEG, CONNECT, HELO]);
    assert_eq!(conversation.say(&bytes, &mut Buffers::default()), Pause::Silent);
    assert_eq!(conversation.heard(), "c");
}

#[test]
fn a_message_is_aborted_once_before_a_malformed_command() {
    // Also when MAIL is switched off, so that RCPT begins a message.
    for (off, malformed) in [
        (Steps::empty(), (Kind::Mail, &b"no NUL"[..])),
        (Steps::NOMAIL, (Kind::Rcpt, b"no NUL")),
        (Steps::NOHELO | Steps::NOMAIL | Steps::NORCPT, (Kind::Unknown, b"")),
    ] {
        let mut filter = Recorder::new(|_, _| Verdict::CONTINUE);
        filter.choice = Choice::Own(Actions::ADDHDRS, off);
        let mut conversation = Conversation::new(filter);
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, EOH, malformed]);
        assert_eq!(conversation.say(&bytes, &mut Buffers::default()), Pause::Ended);
        assert_eq!(
            conversation.seen(),
            "negotiate connect helo mail rcpt eoh abort close",
            "{malformed:?} with {off:?}"
        );
    }
}

#[test]
fn a_malformed_command_behind_quit_nc_does_not_close_again() {
    for malformed in [
        (Kind::Connect, &b"host"[..]),
        (Kind::Connect, b""),
        (Kind::Helo, b"no NUL"),
        (Kind::Mail, b"no NUL"),
    ] {
        let mut conversation = Conversation::with_continuing_filter();
        let quit_nc = (Kind::QuitNewConnection, &b""[..]);
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, EOH, EOM, quit_nc, malformed]);
        conversation.say_last(&bytes, &mut Buffers::default());
        assert!(conversation.seen().ends_with("eom close"), "{malformed:?}: {}", conversation.seen());
    }
}

#[test]
fn no_callback_follows_when_the_session_was_abandoned() {
    // In which callback it is abandoned, and the command behind the beginning of a message that leads there.
    for (stuck, command, end) in [
        (Kind::Body, (Kind::EndOfMessage, &b"last"[..]), "body"),
        (Kind::Abort, MAIL, "abort"),
        (Kind::Abort, (Kind::Unknown, b""), "abort"),
        (Kind::Abort, (Kind::Abort, b""), "abort"),
        (Kind::EndOfHeader, EOH, "eoh"),
    ] {
        let shutdown: Arc<Mutex<Option<Arc<Shutdown>>>> = Arc::default();
        let its_shutdown = Arc::clone(&shutdown);
        let mut conversation = Conversation::new(Recorder::new(move |kind, _| {
            if let (true, Some(shutdown)) = (kind == stuck, &*its_shutdown.lock()) {
                shutdown.abort();
                shutdown.abandon();
            }
            Verdict::CONTINUE
        }));
        *shutdown.lock() = Some(Arc::clone(&conversation.shutdown));
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, command]);
        assert_eq!(conversation.say(&bytes, &mut Buffers::default()), Pause::Ended);
        let seen = conversation.seen();
        assert!(seen.ends_with(end), "{command:?}: {seen}");
    }
}

#[test]
fn abort_and_close_are_called_once_after_a_panic() {
    for (panics, end) in [
        (Kind::Connect, "connect close"),
        (Kind::Rcpt, "rcpt abort close"),
        (Kind::EndOfMessage, "eom close"),
        (Kind::Abort, "rcpt abort close"),
        (Kind::Quit, "eom close"),
    ] {
        let mut conversation = Conversation::new(Recorder::new(move |kind, _| {
            assert!(kind != panics, "a bug");
            Verdict::CONTINUE
        }));
        let abort = if panics == Kind::Abort { RCPT } else { EOM };
        let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, abort]);
        conversation.say_last(&bytes, &mut Buffers::default());
        let seen = conversation.seen();
        assert!(seen.ends_with(end), "{panics:?}: {seen}");
        assert_eq!(seen.matches("close").count(), 1, "{panics:?}: {seen}");
        assert!(conversation.session.context().has_ended());
    }
}

#[test]
fn a_negotiation_answer_must_fit_into_a_frame() {
    // Three numbers, a stage, the list and its NUL.
    const LIMIT: usize = 100;
    for (list, hears, pause) in [(LIMIT - 17, "O", Pause::Silent), (LIMIT - 16, "", Pause::Ended)] {
        let filter = Recorder::new(move |kind, ctx| {
            if kind == Kind::Negotiate {
                assert!(ctx.request_macros(MacroStage::Connect, &vec![b'i'; list]));
            }
            Verdict::CONTINUE
        });
        let mut conversation = Conversation::with_limit(filter, LIMIT);
        assert_eq!(conversation.say(&frames(&[OPTNEG]), &mut Buffers::default()), pause, "{list}");
        assert_eq!(conversation.heard(), hears, "{list}");
    }
}

#[test]
fn no_change_lands_behind_a_reply_that_forbids_it() {
    /// They fit the socket's buffer: nobody reads meanwhile.
    const CHANGES: usize = 5000;
    for round in 0..300 {
        let mut conversation = Conversation::new(Recorder::new(move |kind, ctx| {
            if kind != Kind::EndOfMessage {
                return Verdict::CONTINUE;
            }
            if round % 2 == 0 {
                ctx.set_reply(SmtpReply::single(b"550", None, Some(b"no")).unwrap());
            }
            Verdict::REJECT
        }));
        let heard = hear_all(&conversation);
        let ctx = Arc::clone(conversation.session.context());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let header = Modification::AddHeader { name: b"X", value: b"y" };
                let mut changes = 0;
                while changes < CHANGES && !over.load(Ordering::Relaxed) {
                    changes += usize::from(ctx.modify(Actions::ADDHDRS, header).is_ok());
                }
            });
            let bytes = frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT, EOM]);
            conversation.say_last(&bytes, &mut Buffers::default());
            over.store(true, Ordering::Relaxed);
        });
        drop((conversation, ctx));
        let heard = heard.join().unwrap();
        assert!(heard.ends_with(['r', 'y']), "{round}: {heard}");
    }
}
