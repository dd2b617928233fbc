//! What the targets share that play whole sessions: what the MTA says and when, its connection to a session, and what must
//! hold for the callbacks and the answers of every session, whatever the MTA sends.

use arbitrary::Arbitrary;
use milter::fuzzing::{Buffers, Cause, Filter, Link, Patience, Pause, Session, Shutdown, Socket, Timeouts};
use milter::protocol::command::encode;
use milter::protocol::{Actions, Kind, Offer, Peer, Steps, frame};
use std::borrow::Cow;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

/// So many commands at once that the socket takes them and the answers to them: nobody reads while a session runs.
pub const MOST_AT_ONCE: usize = 16;
const MOST_BYTES_AT_ONCE: usize = 60_000;
const LARGEST_FRAME: usize = 100_000;

/// A text of the input.
pub trait Word {
    /// Whether there may be thousands of it in one command.
    const MANY: bool;

    fn bytes(&self) -> Cow<'_, [u8]>;
}

/// A command of the MTA.
#[derive(Debug, Arbitrary)]
pub struct Said<W> {
    kind: u8,
    texts: (W, W),
    number: u32,
    /// The payload is the first text as it stands, whether or not that fits the command.
    odd: bool,
}

impl<W: Word> Said<W> {
    fn encode(&self, out: &mut Vec<u8>) {
        const KINDS: &[u8] = b"OCHMMRRTLLNBEEAUQKDDDMR";
        let kind = Kind::try_from(KINDS[usize::from(self.kind) % KINDS.len()]).unwrap();
        let number = self.number;
        let (a, b) = (&*self.texts.0.bytes(), &*self.texts.1.bytes());
        let count = if W::MANY && number.is_multiple_of(8) { (number >> 8) as usize % 3000 } else { 1 };
        match kind {
            _ if self.odd => encode::raw(out, kind, a),
            Kind::Negotiate => {
                let offer = Offer {
                    version: number % 8,
                    actions: Actions::from_bits_retain(number >> 3),
                    steps: Steps::from_bits_retain(number.rotate_left(9)),
                };
                encode::negotiate(out, offer);
            }
            Kind::Connect => {
                let port = number as u16;
                let peer = match number % 4 {
                    0 => Peer::Inet { address: number.to_be().into(), port },
                    1 => Peer::Inet6 { address: u128::from(number).into(), port },
                    2 => Peer::Unix(b),
                    _ => Peer::Unknown,
                };
                encode::connect(out, a, peer);
            }
            Kind::Helo => encode::helo(out, a),
            Kind::Mail | Kind::Rcpt => {
                let mut arguments = vec![a];
                arguments.resize(1 + count, &b[..b.len().min(65_000 / count.max(1))]);
                encode::envelope(out, kind, &arguments);
            }
            Kind::Header => encode::header(out, a, b),
            Kind::Macro => {
                let stage = b"CHMRTNELBUZ"[number as usize % 11];
                if count == 1 {
                    encode::macros_before(out, stage, &[(a, b), (b, a)]);
                } else {
                    let names: Vec<String> = (0..count).map(|number| format!("{{{number}}}")).collect();
                    let value = &b[..b.len().min(20)];
                    let pairs: Vec<_> = names.iter().map(|name| (name.as_bytes(), value)).collect();
                    encode::macros_before(out, stage, &pairs);
                }
            }
            Kind::Unknown => encode::unknown(out, a),
            Kind::Body | Kind::EndOfMessage => encode::raw(out, kind, a),
            _ => encode::raw(out, kind, b""),
        }
    }
}

/// The frames of a session, each by itself. If `start` is not 0, it begins with a whole envelope.
pub fn frames<W: Word>(start: u8, commands: &[Said<W>]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        write(&mut frame);
        frames.push(frame);
    };
    if start > 0 {
        let offer = [0, 0, 0, 6, 0, 0, 1, 0xff, 0, 0x1f, 0xff, 0xff];
        add(&|out| encode::raw(out, Kind::Negotiate, &offer));
        add(&|out| encode::connect(out, b"host", Peer::Unknown));
        add(&|out| encode::helo(out, b"helo"));
        add(&|out| encode::envelope(out, Kind::Mail, &[b"<a@b>", b"SIZE=1"]));
        add(&|out| encode::envelope(out, Kind::Rcpt, &[b"<c@d>"]));
    }
    for said in commands {
        add(&|out| said.encode(out));
    }
    frames.retain(|frame| frame.len() <= LARGEST_FRAME);
    frames
}

/// Which of the sessions it is the turn of, and with how many commands.
pub fn turn(turn: u8, sessions: usize) -> (usize, usize) {
    (usize::from(turn % 4) % sessions, usize::from(turn / 4) % MOST_AT_ONCE + 1)
}

/// A session, the MTA's end of its connection, and what is still to be said there.
pub struct Conversation {
    pub session: Session,
    pub mta: Rc<UnixStream>,
    frames: std::iter::Peekable<std::vec::IntoIter<Vec<u8>>>,
    /// What the MTA has begun to say: the rest of a frame, or whole ones.
    held_back: Vec<u8>,
}

impl Conversation {
    pub fn new(
        frames: Vec<Vec<u8>>,
        max_payload: Option<usize>,
        timeouts: Timeouts,
        buffers: &mut Buffers,
        shutdown: &Arc<Shutdown>,
    ) -> Self {
        let (mta, ours) = UnixStream::pair().unwrap();
        mta.set_nonblocking(true).unwrap();
        let link = Link::new(Socket::from(OwnedFd::from(ours)), timeouts, Arc::clone(shutdown));
        Self {
            session: Session::new(link, max_payload.unwrap_or(frame::DEFAULT_MAX_PAYLOAD), buffers, None),
            mta: Rc::new(mta),
            frames: frames.into_iter().peekable(),
            held_back: Vec::new(),
        }
    }

    /// The MTA says the next `count` commands but for their last bytes, so many if there are more; `false` if there is
    /// nothing left to say.
    pub fn say(&mut self, count: usize, held_back: usize) -> bool {
        let mut bytes = std::mem::take(&mut self.held_back);
        for _ in 0..count {
            let fits = |frame: &Vec<u8>| bytes.is_empty() || bytes.len() + frame.len() <= MOST_BYTES_AT_ONCE;
            let Some(frame) = self.frames.next_if(fits) else { break };
            bytes.extend(frame);
        }
        if bytes.is_empty() {
            return false;
        }
        self.held_back = bytes.split_off(bytes.len() - held_back % bytes.len());
        (&*self.mta).write_all(&bytes).unwrap();
        true
    }

    /// The MTA says its last bytes and leaves.
    pub fn leave(&self, tail: &[u8]) {
        (&*self.mta).write_all(&tail[..tail.len().min(300)]).unwrap();
        self.mta.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The session works; whether it has ended.
    pub fn run<F: Filter>(&mut self, filter: &F, cause: Cause, buffers: &mut Buffers) -> bool {
        let pause = self.session.run(filter, buffers, cause, Patience::None);
        match pause {
            Pause::Ended => {}
            Pause::Yielded => self.session.shrink(),
            Pause::Silent => panic!("it waits without patience"),
        }
        assert!(buffers.inbox.is_empty(), "bytes of one session left for the next");
        assert!(buffers.outbox.is_empty(), "replies of one session left for the next");
        pause == Pause::Ended
    }
}

/// No message ends twice. `hears_all`: the filter hears of all messages that begin.
pub fn check_messages(mut events: Vec<&str>, hears_all: bool) {
    let what = format!("{events:?}");
    // A malformed MAIL begins a message that the filter hears of only by its abort.
    events.pop_if(|event| *event == "abort");
    if !hears_all {
        // ABORT may follow ABORT, as in the reference: docs/compatibility.md.
        return;
    }
    let mut ended = false;
    for event in events {
        let ends = matches!(event, "abort" | "eom");
        assert!(!(ended && ends), "a message ends twice: {what}");
        ended = ends;
    }
}

/// What a filter may answer.
pub fn check_answer(frame: &[u8]) {
    assert!(b"OcartdsyhimeP+2-bqp".contains(&frame[4]), "{}", frame.escape_ascii());
}
