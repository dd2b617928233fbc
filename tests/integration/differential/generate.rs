//! Seeded random sessions: valid ones, ones out of order, malformed ones. The same seed gives the same session.

use super::script::{Call, Callback, Op, Rule, SHAPES, Script, Shape};
use super::session::{Session, Step, frame};
use fastrand::Rng;

const MACRO_NAMES: [&[u8]; 10] =
    [b"i", b"{i}", b"j", b"{auth_authen}", b"{mail_addr}", b"_", b"{x}", b"xy", b"{}", b"{{"];
/// SMFIS_ALL_OPTS: what a filter that declines steps of its own accord must not return.
const ALL_OPTS: i32 = 10;
const NR_BITS: [u32; 9] = [0x1000, 0x2000, 0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x80];

/// One of several.
fn pick<'a, T: ?Sized>(rng: &mut Rng, choices: &[&'a T]) -> &'a T {
    choices[rng.usize(..choices.len())]
}

/// True in one of `n` cases.
fn one_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(..n) == 0
}

/// The sessions that are played at once: usually one.
pub fn group(seed: u64) -> Vec<Session> {
    let mut rng = Rng::with_seed(seed);
    let shape = rng.usize(..SHAPES.len());
    let count = if one_in(&mut rng, 4) { rng.usize(2..=4) } else { 1 };
    (0..count).map(|_| Generator::new(&mut rng, shape).session()).collect()
}

/// Sessions of one filter.
pub fn group_of(seed: u64, shape: usize, count: usize) -> Vec<Session> {
    let mut rng = Rng::with_seed(seed);
    (0..count).map(|_| Generator::new(&mut rng, shape).session()).collect()
}

struct Generator<'a> {
    rng: &'a mut Rng,
    shape: usize,
    /// How much goes wrong: no noise at 0, one frame in `noise` is disturbed.
    noise: u32,
    /// Whether the MTA leaves out what the filter declines, as it should.
    obliging: bool,
    frames: Vec<Vec<u8>>,
}

impl<'a> Generator<'a> {
    fn new(rng: &'a mut Rng, shape: usize) -> Self {
        let noise = *pick(rng, &[&0, &0, &30, &10, &4]);
        let obliging = rng.bool();
        Self { rng, shape, noise, obliging, frames: Vec::new() }
    }

    fn shape(&self) -> &'static Shape {
        &SHAPES[self.shape]
    }

    /// Whether something should go wrong here.
    fn trouble(&mut self) -> bool {
        self.noise != 0 && one_in(self.rng, self.noise)
    }

    fn session(mut self) -> Session {
        let (actions, steps) = self.offer();
        self.connections();
        let negotiation = self.frames.iter().find(|frame| frame.get(4) == Some(&b'O')).cloned();
        self.disturb();
        let script = self.script(actions, steps);
        let steps = self.steps();
        let tail = if self.trouble() {
            let whole = frame(b'M', b"<a@b.example>\0");
            whole[..self.rng.usize(..whole.len())].to_vec()
        } else {
            Vec::new()
        };
        let mut session = Session { shape: self.shape, script, steps, tail };
        if !session.is_fair() {
            session.steps.insert(0, Step { frames: negotiation.into_iter().collect(), cuts: Vec::new() });
        }
        session
    }

    /// The negotiation frame; returns the actions and steps that it offers.
    fn offer(&mut self) -> (u32, u32) {
        let old = self.shape().version <= 4;
        let (mut version, mut actions, mut steps) = match self.rng.u32(..10) {
            0..=5 => (6, 0x1ff, 0x1f_ffff),
            6 => (6, 0x1ff, 0x7f | 0x300 | (self.rng.u32(..) & 0x1f_fc80)),
            7 => (2, 0x3f, 0x7f),
            8 => (4, 0x3f, 0x3ff),
            _ => (6, 0x3ff, 0x703f_ffff),
        };
        if self.trouble() {
            version = *pick(self.rng, &[&0, &1, &2, &3, &5, &7, &u32::MAX, &0x7fff_ffff]);
            actions = *pick(self.rng, &[&0, &0xf, &0x1ff, &0x8000_01ff, &u32::MAX]);
            steps = *pick(self.rng, &[&0, &0x7f, &0x1f_ffff, &u32::MAX, &0x801f_ffff, &0x1f_fbff]);
        }
        if old && actions == 0xf {
            actions = 0x1ff;
        }
        if one_in(self.rng, 4) {
            self.macros(b'C');
        }
        let payload = [version, actions, steps].map(u32::to_be_bytes).concat();
        if self.trouble() {
            // Too short, or with something behind.
            let len = *pick(self.rng, &[&4, &8, &11]);
            self.frames.push(if self.rng.bool() {
                frame(b'O', &payload[..len])
            } else {
                frame(b'O', &[&payload[..], b"more"].concat())
            });
        } else {
            self.frames.push(frame(b'O', &payload));
        }
        let actions = if actions == 0 { 0xf } else { actions };
        let steps = if steps == 0 { 0x3f } else { steps };
        (actions, steps & 0x8fff_ffff)
    }

    /// SMTP connections one after the other, with QUIT_NC between them.
    fn connections(&mut self) {
        loop {
            self.connection();
            if !one_in(self.rng, 4) {
                break;
            }
            self.put(b'K');
        }
        match self.rng.u32(..4) {
            // A question at the end shows whether the session still lives.
            0 => self.put(b'H'),
            1 => self.put(b'U'),
            _ => self.put(b'Q'),
        }
    }

    fn connection(&mut self) {
        self.with_macros(b'C');
        if !one_in(self.rng, 8) {
            self.with_macros(b'H');
        }
        for _ in 0..self.rng.u32(..4) {
            if one_in(self.rng, 10) {
                self.put(b'U');
            }
            self.message();
        }
    }

    fn message(&mut self) {
        self.with_macros(b'M');
        for _ in 0..self.rng.u32(1..4) {
            self.with_macros(b'R');
        }
        let stop = if one_in(self.rng, 6) { self.rng.u32(..6) } else { 6 };
        if stop > 0 && !one_in(self.rng, 5) {
            self.with_macros(b'T');
        }
        if stop > 1 {
            for _ in 0..self.rng.u32(..4) {
                self.put(b'L');
            }
        }
        if stop > 2 {
            self.with_macros(b'N');
        }
        if stop > 3 {
            for _ in 0..self.rng.u32(..3) {
                self.put(b'B');
            }
        }
        if stop > 4 {
            self.with_macros(b'E');
        } else if self.rng.bool() {
            self.put(b'A');
        }
    }

    fn with_macros(&mut self, command: u8) {
        if one_in(self.rng, 3) {
            self.macros(command);
        }
        self.put(command);
    }

    /// A macro frame for a stage.
    fn macros(&mut self, stage: u8) {
        let stage = if self.trouble() { self.rng.u8(b'A'..=b'Z') } else { stage };
        let mut payload = vec![stage];
        for _ in 0..self.rng.u32(1..4) {
            payload.extend(pick(self.rng, &MACRO_NAMES));
            payload.push(0);
            payload.extend(pick(self.rng, &[&b"value"[..], b"", b"127.0.0.1", b"a b c", b"\x80\xff"]));
            payload.push(0);
        }
        if self.trouble() {
            match self.rng.u32(..6) {
                0 => payload.extend(b"{odd}\0"),
                1 => payload.extend(b"{odd}"),
                2 => payload = vec![stage],
                3 => payload.extend(b"\0nameless\0"),
                4 => payload.extend(b"{odd}\0lost"),
                _ => payload.clear(),
            }
        }
        self.frames.push(frame(b'D', &payload));
    }

    /// A command with a payload that suits it, more or less.
    fn put(&mut self, command: u8) {
        let declined = match command {
            b'C' => 0x1,
            b'H' => 0x2,
            b'M' => 0x4,
            b'R' => 0x8,
            b'T' => 0x200,
            b'L' => 0x20,
            b'N' => 0x40,
            b'B' => 0x10,
            b'U' => 0x100,
            _ => 0,
        };
        let bad = self.trouble();
        if self.obliging && self.shape().off & declined != 0 && !bad {
            return;
        }
        let payload: &[u8] = match (command, bad) {
            (b'C', false) => pick(
                self.rng,
                &[
                    &b"host.example\x004\x00\x19127.0.0.1\0"[..],
                    b"host.example\x006\x12\x34::1\0",
                    b"host.example\x006\x12\x34IPv6:::1\0",
                    b"localhost\x00L\0\0/run/x\0",
                    b"unknown\x00U",
                    b"[10.1.2.3]\x004\0\x0110.1.2.3 trailing\0",
                ],
            ),
            (b'C', true) => pick(
                self.rng,
                &[
                    &b"h"[..],
                    b"h\0",
                    b"h\x004",
                    b"h\x004\x01",
                    b"h\x004\0\x19",
                    b"h\x004\0\x19127.0.0.1",
                    b"h\x004\0\x19nonsense\0",
                    b"h\x004\0\x19\0",
                    b"h\x004\0\x19127.1\0",
                    b"h\x004\0\x190x7f000001\0junk",
                    b"h\x004\0\x190x7f000001\0junk\0",
                    b"h\x006\0\x191.2.3.4\0",
                    b"h\x006\0\x19::ffff:1.2.3.4\0",
                    b"h\x006\0\x19ipv6:fe80::1\0",
                    b"h\x006\0\x19::1 \0",
                    b"h\x00X\0\x19::1\0",
                    b"h\x00Ux\0y",
                    b"\0U",
                    b"\0\0",
                    b"h\0L\0\0\0",
                    b"",
                ],
            ),
            (b'H', false) => pick(self.rng, &[&b"mail.example\0"[..], b"[127.0.0.1]\0", b"\0"]),
            (b'H', true) => pick(self.rng, &[&b"x"[..], b"a\0b", b"a\0b\0", b""]),
            (b'M', false) => pick(
                self.rng,
                &[&b"<a@b.example>\0"[..], b"<>\0", b"<a@b.example>\0SIZE=100\0BODY=8BITMIME\0"],
            ),
            (b'R', false) => pick(self.rng, &[&b"<c@d.example>\0"[..], b"<c@d.example>\0NOTIFY=NEVER\0"]),
            (b'M' | b'R', true) => pick(
                self.rng,
                &[
                    &b"x"[..],
                    b"x\0y",
                    b"\0",
                    b"\0\0",
                    b"a\0\0b\0",
                    b"",
                    // As many as the library has room for without memory of its own, one more, and many.
                    b"1\x002\x003\x004\x005\x006\x007\x008\x009\x0010\x0011\x0012\x0013\x0014\x0015\0",
                    b"1\x002\x003\x004\x005\x006\x007\x008\x009\x0010\x0011\x0012\x0013\x0014\x0015\x0016\0",
                    &[0; 100],
                ],
            ),
            (b'L', false) => pick(
                self.rng,
                &[
                    &b"Subject\0hello\0"[..],
                    b"Received\0from a\n\tby b\0",
                    b"X-Empty\0\0",
                    b"X-Space\0 leading\0",
                    b"X-Eight\0gr\xfc\xdfe\0",
                ],
            ),
            (b'L', true) => pick(
                self.rng,
                &[
                    &b"n"[..],
                    b"n\0",
                    b"n\0v",
                    b"n\0v\0x\0",
                    b"n\0v\0x",
                    b"\0v\0",
                    b"\0\0",
                    b"\0",
                    b"\0\0\0",
                    b"\0a\0b\0",
                    b"",
                ],
            ),
            (b'U', false) => pick(self.rng, &[&b"XYZZY\0"[..], b"NOOP now\0"]),
            (b'U', true) => pick(self.rng, &[&b"x"[..], b"x\0y", b"x\0y\0", b"\0", b""]),
            (b'B', _) => return self.body(command, bad),
            (b'E', _) if one_in(self.rng, 4) => return self.body(command, false),
            (_, true) => b"surplus",
            (_, false) => b"",
        };
        self.frames.push(frame(command, payload));
    }

    /// A piece of the body.
    fn body(&mut self, command: u8, bad: bool) {
        let len = match self.rng.u32(..if bad { 12 } else { 8 }) {
            0..=5 => self.rng.usize(1..200),
            6 => self.rng.usize(1..5000),
            7 | 8 => self.shape().max_data as usize,
            9 | 10 => self.shape().max_data as usize + 1,
            _ => 0,
        };
        // The largest are rare: they cost as much as a hundred others.
        let len = if len > 5000 && !one_in(self.rng, 4) { 17 } else { len };
        let byte = self.rng.alphabetic() as u8;
        self.frames.push(frame(command, &vec![byte; len]));
    }

    /// Frames that are dropped, doubled, moved, or come from nowhere.
    fn disturb(&mut self) {
        if self.noise == 0 {
            return;
        }
        let mut at = 0;
        while at < self.frames.len() {
            if self.trouble() {
                match self.rng.u32(..6) {
                    0 => {
                        self.frames.remove(at);
                        continue;
                    }
                    1 => self.frames.insert(at, self.frames[at].clone()),
                    2 if at > 0 => self.frames.swap(at - 1, at),
                    3 | 4 => {
                        let whole = std::mem::take(&mut self.frames);
                        let command = *pick(self.rng, &b"CHMRTLNBEAUKQCHMRTLNBEAUK".each_ref());
                        self.put(command);
                        let one = std::mem::replace(&mut self.frames, whole);
                        self.frames.splice(at..at, one);
                    }
                    _ if one_in(self.rng, 3) => {
                        let odd: &[u8] = pick(
                            self.rng,
                            &[
                                &b"\0\0\0\0"[..],
                                b"\0\0\0\0N",
                                b"\0\0\0\0A",
                                b"\x80\0\0\0M",
                                b"\x80\0\0\0N",
                                b"\xff\xff\xff\xffM",
                                b"\0\0\0\x01z",
                                b"\0\0\0\x02\0x",
                                b"\0\x01\0\x01B",
                                b"\0\0\0\x01D",
                                b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff",
                            ],
                        );
                        self.frames.insert(at, odd.to_vec());
                    }
                    _ => {}
                }
            }
            at += 1;
        }
    }

    /// The frames in writes: one by one, some at once, or all at once; cut anywhere.
    fn steps(&mut self) -> Vec<Step> {
        let most = *pick(self.rng, &[&1, &1, &2, &5, &100]);
        let cutting = one_in(self.rng, 3);
        let mut steps = Vec::new();
        let mut frames = std::mem::take(&mut self.frames).into_iter().peekable();
        while frames.peek().is_some() {
            let mut step = Step::default();
            let mut bytes = 0;
            // What nobody has read yet must fit into the socket.
            for _ in 0..self.rng.usize(1..=most) {
                let Some(next) = frames.next_if(|next| step.frames.is_empty() || bytes + next.len() < 70_000)
                else {
                    break;
                };
                let macros = next.get(4) == Some(&b'D');
                bytes += next.len();
                step.frames.push(next);
                if macros && let Some(command) = frames.next_if(|next| bytes + next.len() < 70_000) {
                    bytes += command.len();
                    step.frames.push(command);
                }
            }
            if cutting && bytes > 1 {
                step.cuts = (0..self.rng.usize(..5)).map(|_| self.rng.usize(1..bytes.min(400))).collect();
                step.cuts.sort_unstable();
                step.cuts.dedup();
            }
            steps.push(step);
        }
        steps
    }

    fn script(&mut self, actions: u32, steps: u32) -> Script {
        let mut script = Script::default();
        if self.shape().has(Callback::Negotiate) {
            script.rules.insert((Callback::Negotiate, 0), self.negotiate_rule(actions, steps));
        }
        // Filters that always continue take messages far; some do nothing else.
        let verdicts = *pick(self.rng, &[&0, &30, &8]);
        for callback in Callback::ALL {
            if callback == Callback::Negotiate || !self.shape().has(callback) {
                continue;
            }
            for turn in 0..4 {
                if one_in(self.rng, 3) {
                    let status = if verdicts != 0 && one_in(self.rng, verdicts) { self.status() } else { 0 };
                    let ops = self.ops(callback);
                    script.rules.insert((callback, turn), Rule { status, ops });
                }
            }
        }
        script
    }

    fn status(&mut self) -> i32 {
        if self.noise != 0 && one_in(self.rng, 3) {
            return *pick(self.rng, &[&5, &9, &10, &20, &21, &22, &20, &21, &22, &99, &-1, &i32::MIN]);
        }
        *pick(self.rng, &[&1, &1, &2, &3, &4, &4, &7, &8])
    }

    fn negotiate_rule(&mut self, actions: u32, steps: u32) -> Rule {
        let mut ops = Vec::new();
        for _ in 0..self.rng.u32(..4) {
            match self.rng.u32(..5) {
                0..=2 => {
                    let stage = if self.trouble() { self.rng.i32(-2..9) } else { self.rng.i32(0..7) };
                    let list = pick(self.rng, &[&b"i j {auth}"[..], b"", b"  {x} , y"]);
                    let list = if one_in(self.rng, 20) {
                        // Alone, as much as the answer can hold, or a byte more.
                        vec![b'm'; self.shape().max_data as usize - 17 + self.rng.usize(..2)]
                    } else {
                        list.to_vec()
                    };
                    let list = (!self.trouble()).then_some(list);
                    ops.push(Op { call: Call::SetSymlist, number: stage, strings: vec![list] });
                }
                _ => {
                    let op = self.op(Callback::Negotiate);
                    ops.push(op);
                }
            }
        }
        let usual = self.shape().off == self.shape().default_off();
        let status = if self.trouble() && one_in(self.rng, 3) { self.status() } else { 0 };
        if status != 0 && (status != ALL_OPTS || usual) {
            return Rule { status, ops };
        }
        if usual && self.rng.bool() {
            return Rule { status: ALL_OPTS, ops };
        }
        let mut wanted = self.shape().off;
        for bit in NR_BITS {
            if one_in(self.rng, 3) {
                wanted |= bit;
            }
        }
        for bit in [0x400, 0x800, 0x10_0000] {
            if steps & bit != 0 && self.rng.bool() {
                wanted |= bit;
            }
        }
        if self.trouble() && one_in(self.rng, 4) {
            // The last three are between MTA and library.
            wanted |= *pick(self.rng, &[&0x800, &0x1000_0000, &0x2000_0000, &0x4000_0000]);
        }
        ops.push(Op { call: Call::Steps, number: wanted as i32, strings: Vec::new() });
        let keep = if self.rng.bool() { u32::MAX } else { self.rng.u32(..) };
        let extra = if self.trouble() { 0x200 } else { 0 };
        ops.push(Op { call: Call::Actions, number: (actions & keep | extra) as i32, strings: Vec::new() });
        Rule { status: 0, ops }
    }

    fn ops(&mut self, callback: Callback) -> Vec<Op> {
        let most = if callback == Callback::Eom { 6 } else { 3 };
        (0..self.rng.u32(..most)).map(|_| self.op(callback)).collect()
    }

    /// A call that may or may not be in its place here.
    fn op(&mut self, callback: Callback) -> Op {
        let modify = match callback {
            Callback::Eom => self.rng.u32(..4) != 0,
            _ => one_in(self.rng, 8),
        };
        let bad = self.trouble();
        let text = |bytes: &[u8]| Some(bytes.to_vec());
        let (call, number, strings) = if modify {
            let name = match bad.then(|| self.rng.bool()) {
                None => text(b"X-Probe"),
                Some(true) => text(b""),
                Some(false) => None,
            };
            let value = match self.rng.u32(..6) {
                0 if bad => None,
                0 | 1 => text(b""),
                2 => text(b"two\r\n\tlines"),
                3 if one_in(self.rng, 40) => Some(vec![b'v'; 65535 - 9 + self.rng.usize(..2)]),
                _ => text(b"a value"),
            };
            let index = if bad { *pick(self.rng, &[&-1, &i32::MIN, &i32::MAX]) } else { self.rng.i32(..4) };
            match self.rng.u32(..10) {
                0 | 1 => (Call::AddHeader, 0, vec![name, value]),
                2 => (Call::InsHeader, index, vec![name, value]),
                3 => (Call::ChgHeader, index, vec![name, value]),
                4 => (Call::ChgFrom, 0, vec![name, value]),
                5 => (Call::AddRcpt, 0, vec![name]),
                6 => (Call::AddRcptPar, 0, vec![name, value]),
                7 => (Call::DelRcpt, 0, vec![name]),
                8 => {
                    let len = match self.rng.u32(..40) {
                        0 => 65536,
                        1 => 65535,
                        2 => 0,
                        3 if bad => -1,
                        _ => self.rng.i32(1..300),
                    };
                    let body = (!bad).then(|| vec![self.rng.alphabetic() as u8]);
                    (Call::ReplaceBody, len, vec![body])
                }
                _ => (Call::Quarantine, 0, vec![name]),
            }
        } else {
            match self.rng.u32(..9) {
                0..=2 => {
                    let name: &[u8] = if bad { b"" } else { pick(self.rng, &MACRO_NAMES) };
                    (Call::GetSymval, 0, vec![text(name)])
                }
                3 | 4 => return self.reply(bad),
                5 => (Call::Progress, 0, Vec::new()),
                6 => (Call::SetPriv, self.rng.i32(0..3), Vec::new()),
                7 => (Call::GetPriv, 0, Vec::new()),
                _ => (Call::Scribble, b'Z'.into(), Vec::new()),
            }
        };
        Op { call, number, strings }
    }

    /// smfi_setreply or smfi_setmlreply.
    fn reply(&mut self, bad: bool) -> Op {
        let code: Option<&[u8]> = if bad {
            *pick(
                self.rng,
                &[&None, &Some(&b"45x"[..]), &Some(b"600"), &Some(b"5550"), &Some(b""), &Some(b"55")],
            )
        } else {
            Some(pick(self.rng, &[&b"550"[..], b"554", b"451", b"421"]))
        };
        let xcode: Option<&[u8]> = if self.trouble() {
            Some(pick(self.rng, &[&b""[..], b"5.7", b"5.1.1 ", b"5.1234.1", b"3.1.1", b"5..1", b"2.0.0"]))
        } else {
            *pick(self.rng, &[&None, &Some(&b"5.7.1"[..]), &Some(b"4.2.0"), &Some(b"5.999.999")])
        };
        let line = |rng: &mut Rng, bad: bool| match rng.u32(..12) {
            0 => Vec::new(),
            1 => b"100% %s %n".to_vec(),
            2 => vec![b'x'; 980],
            3 if bad => vec![b'x'; 981],
            4 if bad => b"two\r\nlines".to_vec(),
            5 if bad => b"bare\nfeed".to_vec(),
            _ => b"go away".to_vec(),
        };
        let mut strings = vec![code.map(<[u8]>::to_vec), xcode.map(<[u8]>::to_vec)];
        if self.rng.bool() {
            strings.push((!one_in(self.rng, 6)).then(|| line(self.rng, bad)));
            return Op { call: Call::SetReply, number: 0, strings };
        }
        let lines = match self.rng.u32(..10) {
            0 if self.noise != 0 => 0,
            1 => 32,
            2 if bad => 33,
            _ => self.rng.usize(1..5),
        };
        for _ in 0..lines {
            let text = line(self.rng, bad);
            strings.push(Some(text));
        }
        Op { call: Call::SetMlReply, number: 0, strings }
    }
}
