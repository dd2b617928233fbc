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

/// How the bytes of the sessions arrive.
#[derive(Debug, Arbitrary)]
pub struct Delivery {
    /// Whose turn it is, and with how many commands.
    turns: Vec<u8>,
    /// Where the bytes of one turn after the other are cut, over and over: see [`Conversation::say`].
    cuts: Vec<u8>,
    /// How each session ends, if not with its last command as a whole and a hang-up.
    ends: Vec<(u8, u8)>,
}

impl Delivery {
    /// For one turn after the other: whose it is, with how many commands, and where they are cut.
    pub fn turns(&self, sessions: usize) -> impl Iterator<Item = (usize, usize, u8)> {
        let cuts = self.cuts.iter().chain(&[0]).cycle();
        self.turns.iter().zip(cuts).map(move |(turn, cut)| {
            (usize::from(turn % 4) % sessions, usize::from(turn / 4) % MOST_AT_ONCE + 1, *cut)
        })
    }

    pub fn ending(&self, session: usize) -> Ending {
        let (manner, lost) = self.ends.get(session).copied().unwrap_or_default();
        let causes: &[Cause] = match manner % 4 {
            0 | 1 => &[Cause::HungUp],
            2 => &[Cause::Ready, Cause::HungUp],
            _ => &[Cause::Ready, Cause::Expired],
        };
        Ending { lost, causes }
    }
}

/// How a session ends.
#[derive(Clone, Copy)]
pub struct Ending {
    /// So many of the last command's bytes never come.
    lost: u8,
    /// The causes of its last runs: the hang-up alone; or readiness, after which it is parked with what has come, and then
    /// the hang-up or the end of its time.
    causes: &'static [Cause],
}

/// A session, the MTA's end of its connection, and what is still to be said there.
pub struct Conversation {
    pub session: Session,
    pub mta: Rc<UnixStream>,
    /// What it says in all.
    pub frames: Rc<[Vec<u8>]>,
    next: usize,
    /// See [`Ending`].
    pub last_causes: &'static [Cause],
    /// What the MTA has begun to say: the rest of a frame, or whole ones.
    held_back: Vec<u8>,
}

impl Conversation {
    pub fn new(
        mut frames: Vec<Vec<u8>>,
        ending: Ending,
        max_payload: Option<usize>,
        timeouts: Timeouts,
        buffers: &mut Buffers,
        shutdown: &Arc<Shutdown>,
    ) -> Self {
        let (mta, ours) = UnixStream::pair().unwrap();
        mta.set_nonblocking(true).unwrap();
        if let Some(last) = frames.last_mut() {
            last.truncate(last.len() - usize::from(ending.lost) % last.len());
        }
        let link = Link::new(Socket::from(OwnedFd::from(ours)), timeouts, Arc::clone(shutdown));
        Self {
            session: Session::new(link, max_payload.unwrap_or(frame::DEFAULT_MAX_PAYLOAD), buffers, None),
            mta: Rc::new(mta),
            frames: frames.into(),
            next: 0,
            last_causes: ending.causes,
            held_back: Vec::new(),
        }
    }

    /// The MTA says the next `count` commands, cut somewhere; `false` if there is nothing left to say. What is behind the cut
    /// comes with the next ones. A `cut` below 128 holds back that many of the last bytes; any other is `cut - 127` bytes
    /// behind the beginning of the last command, however long that is.
    pub fn say(&mut self, count: usize, cut: u8) -> bool {
        let mut bytes = std::mem::take(&mut self.held_back);
        let mut last = 0;
        for frame in self.frames[self.next..].iter().take(count) {
            if !bytes.is_empty() && bytes.len() + frame.len() > MOST_BYTES_AT_ONCE {
                break;
            }
            last = bytes.len();
            bytes.extend(frame);
            self.next += 1;
        }
        if bytes.is_empty() {
            return false;
        }
        let cut = match usize::from(cut) {
            before @ 0..128 => bytes.len() - before % bytes.len(),
            behind => bytes.len().min(last + behind - 127),
        };
        self.held_back = bytes.split_off(cut);
        (&*self.mta).write_all(&bytes).unwrap();
        true
    }

    /// The MTA says its last bytes, which need not be frames.
    pub fn say_last(&self, tail: &[u8]) {
        (&*self.mta).write_all(&tail[..tail.len().min(300)]).unwrap();
    }

    /// The session works, after the MTA has hung up if that is the cause; whether it has ended.
    pub fn run<F: Filter>(&mut self, filter: &F, cause: Cause, buffers: &mut Buffers) -> bool {
        if cause == Cause::HungUp {
            self.mta.shutdown(std::net::Shutdown::Write).unwrap();
        }
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
