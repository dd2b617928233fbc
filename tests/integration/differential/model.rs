//! What a session should lead to, as far as a player must know it: how many answers each step brings and
//! where the connection ends. An oracle of its own, written from contract and observation, not from `src/`.
//!
//! It also finds the places where our library deliberately differs, by name ([`Deviation`]), and makes the
//! *twin* of the session: what the reference must be given, so that it does by its own rules exactly what ours
//! does by the deviation. So a difference is either predicted to the byte or a failure.

use super::deviation::Deviation;
use super::plan::Expect;
use super::script::{Call, Callback, Op, Rule, Script, Shape};
use super::session::frame;

/// Session states, in the order that matters for skipping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Init,
    Opts,
    Conn,
    Helo,
    Mail,
    Rcpt,
    Data,
    Hdrs,
    Eohs,
    Body,
    Endm,
    Quit,
    Abrt,
    Unkn,
    QNc,
}

use State::{Abrt, Body, Conn, Data, Endm, Eohs, Hdrs, Helo, Init, Mail, Opts, QNc, Quit, Rcpt, Unkn};

const ORDER: [State; 15] =
    [Init, Opts, Conn, Helo, Mail, Rcpt, Data, Hdrs, Eohs, Body, Endm, Quit, Abrt, Unkn, QNc];

impl State {
    fn next_states(self) -> &'static [Self] {
        match self {
            Init => &[Opts],
            Opts | QNc => &[Conn, Unkn],
            Conn | Helo => &[Helo, Mail, Unkn],
            Mail => &[Rcpt, Abrt, Unkn],
            Rcpt => &[Rcpt, Data, Hdrs, Eohs, Body, Endm, Abrt, Unkn],
            Data | Hdrs => &[Hdrs, Eohs, Abrt],
            Eohs | Body => &[Body, Endm, Abrt],
            Endm => &[Mail, Unkn, Quit, QNc],
            Quit | Abrt => &[],
            Unkn => &[Helo, Mail, Rcpt, Data, Body, Abrt, Unkn, Quit, QNc],
        }
    }

    /// The NO* bit that switches the state's step off.
    fn off_bit(self) -> u32 {
        match self {
            Conn => 0x1,
            Helo => 0x2,
            Mail => 0x4,
            Rcpt => 0x8,
            Data => 0x200,
            Hdrs => 0x20,
            Eohs => 0x40,
            Body => 0x10,
            Unkn => 0x100,
            _ => 0,
        }
    }

    /// The NR bit that lets the filter be silent.
    fn silent_bit(self) -> u32 {
        match self {
            Conn => 0x1000,
            Helo => 0x2000,
            Mail => 0x4000,
            Rcpt => 0x8000,
            Data => 0x1_0000,
            Unkn => 0x2_0000,
            Eohs => 0x4_0000,
            Body => 0x8_0000,
            Hdrs => 0x80,
            _ => 0,
        }
    }

    fn in_message(self) -> bool {
        (Mail..=Body).contains(&self)
    }

    /// Whether `target` may follow, given the steps that are switched off.
    fn leads_to(self, target: Self, off: u32) -> bool {
        let mut here = self;
        loop {
            if here.next_states().contains(&target) {
                return true;
            }
            match ORDER.get(here as usize + 1) {
                Some(&next) if next.off_bit() & off != 0 => here = next,
                _ => return false,
            }
        }
    }
}

const NR_ALL: u32 = 0xf_f080;
const CONTINUE: i32 = 0;
const REJECT: i32 = 1;
const DISCARD: i32 = 2;
const ACCEPT: i32 = 3;
const TEMPFAIL: i32 = 4;
const NOREPLY: i32 = 7;
const SKIP: i32 = 8;
const ALL_OPTS: i32 = 10;
/// The value by which the reference's own callbacks' wrappers end a session.
const REFERENCE_END: i32 = 21;

/// What a command found.
#[derive(Clone, Copy)]
struct Before {
    /// The state before it.
    state: State,
    /// Whether it was out of order and so aborted a message.
    aborted: bool,
    /// Whether nothing but dropped frames had come since QUIT_NC.
    was_closed: bool,
}

/// What one frame leads to, and what the reference is given in its place.
#[derive(Debug, Default)]
pub struct Effect {
    pub expect: Expect,
    pub twin: Option<Vec<Vec<u8>>>,
}

/// The state of the oracle within one session.
pub struct Model<'a> {
    shape: &'a Shape,
    script: &'a Script,
    /// The script for the reference.
    pub twin_script: Script,
    /// Statuses that must be changed for both libraries, because no twin could show the difference.
    pub our_changes: Vec<(Callback, u32, i32)>,
    /// The deviations met so far.
    pub met: Vec<Deviation>,
    state: State,
    calls: [u32; 13],
    /// The session's protocol flags and those that the MTA offered.
    steps: u32,
    offered: u32,
    /// Whether nothing but dropped frames has come since QUIT_NC.
    pub closed: bool,
    /// Whether the session has ended in that situation, in which the reference calls close again.
    pub ended_after_quit_nc: bool,
}

impl<'a> Model<'a> {
    pub fn new(shape: &'a Shape, script: &'a Script) -> Self {
        Self {
            shape,
            script,
            twin_script: script.clone(),
            our_changes: Vec::new(),
            met: Vec::new(),
            state: Init,
            calls: [0; 13],
            steps: 0,
            offered: u32::MAX,
            closed: false,
            ended_after_quit_nc: false,
        }
    }

    /// Takes note of an invocation; its status, and its operations.
    fn call(&mut self, callback: Callback) -> (i32, &'a [Op]) {
        if !self.shape.has(callback) {
            return (CONTINUE, &[]);
        }
        let turn = self.calls[callback as usize];
        self.calls[callback as usize] += 1;
        let Some(rule) = self.script.rules.get(&(callback, turn)) else {
            return (if callback == Callback::Negotiate { ALL_OPTS } else { CONTINUE }, &[]);
        };
        for (index, op) in rule.ops.iter().enumerate() {
            if op.call == Call::SetMlReply && op.strings.get(2).is_none_or(Option::is_none) {
                let twin = self.twin_rule(callback);
                twin.ops[index] = without_lines(op);
                self.met.push(Deviation::MlreplyWithoutLines);
            }
        }
        (rule.status, &rule.ops)
    }

    /// The reference's rule for the invocation that was noted last.
    fn twin_rule(&mut self, callback: Callback) -> &mut Rule {
        let turn = self.calls[callback as usize] - 1;
        self.twin_script.rules.get_mut(&(callback, turn)).expect("a deviation comes from a rule")
    }

    /// The end of the session: abort if a message is under way, then close.
    pub fn ends(&mut self) -> Effect {
        if self.state.in_message() {
            self.call(Callback::Abort);
        }
        if self.closed {
            self.ended_after_quit_nc = true;
        } else {
            self.call(Callback::Close);
        }
        Effect { expect: Expect { answers: 0, closes: true }, twin: None }
    }

    fn ends_by(&mut self, deviation: Deviation, twin: Vec<Vec<u8>>) -> Effect {
        self.met.push(deviation);
        Effect { twin: Some(twin), ..self.ends() }
    }

    /// Takes one whole frame (or the four bytes of a length that is none).
    pub fn take(&mut self, raw: &[u8]) -> Effect {
        let length = u32::from_be_bytes(raw[..4].try_into().unwrap());
        let protocol_error = || vec![frame(b'z', b"")];
        let before = self.state;
        if length == 0 {
            return self.ends_by(Deviation::FrameLengthZero, protocol_error());
        }
        if length >= 1 << 31 {
            return self.ends_by(Deviation::FrameLengthHuge, protocol_error());
        }
        if length - 1 > self.shape.max_data {
            return self.ends();
        }
        let (command, payload) = (raw[4], &raw[5..]);
        let target = match command {
            b'D' if payload.is_empty() => return self.ends(),
            b'D' => return self.macros(payload),
            b'O' => Opts,
            b'C' => Conn,
            b'H' => Helo,
            b'M' => Mail,
            b'R' => Rcpt,
            b'T' => Data,
            b'L' => Hdrs,
            b'N' => Eohs,
            b'B' => Body,
            b'E' => Endm,
            b'A' => Abrt,
            b'U' => Unkn,
            b'Q' => Quit,
            b'K' => QNc,
            _ => return self.ends(),
        };
        let off = self.steps | self.shape.default_off();
        let mut aborted = false;
        if !self.state.leads_to(target, off) {
            aborted = self.state.in_message();
            if aborted {
                self.call(Callback::Abort);
            }
            self.state = Helo;
            if !Helo.leads_to(target, off) {
                return if target == Quit { self.ends() } else { Effect::default() };
            }
        }
        if payload.is_empty() && b"OCHMRLUB".contains(&command) {
            // The reference calls abort twice when a message was under way.
            return if aborted {
                self.ends_by(Deviation::AbortOnce, error_after(before))
            } else {
                self.ends()
            };
        }
        self.state = target;
        let was_closed = std::mem::replace(&mut self.closed, false);
        self.dispatch(command, payload, Before { state: before, aborted, was_closed })
    }

    /// A command whose content is none: the session ends as if it had not come. The reference calls abort for the
    /// message that it would have begun, also when it has just called abort for the one before, and close again when
    /// it has called close.
    fn malformed(&mut self, before: Before, deviation: Option<Deviation>) -> Effect {
        let twin = error_after(before.state);
        self.closed = before.was_closed;
        let aborted_twice = before.aborted && self.state.in_message();
        if before.was_closed || aborted_twice {
            self.state = Helo;
        }
        match deviation {
            Some(deviation) => self.ends_by(deviation, twin),
            None if aborted_twice => self.ends_by(Deviation::AbortOnce, twin),
            None => self.ends(),
        }
    }

    fn dispatch(&mut self, command: u8, payload: &[u8], before: Before) -> Effect {
        let strings = payload.iter().filter(|byte| **byte == 0).count();
        let callback = match command {
            b'O' => return self.negotiate(payload),
            b'A' => {
                self.call(Callback::Abort);
                return Effect::default();
            }
            b'Q' => return self.ends(),
            b'K' => {
                self.call(Callback::Close);
                self.closed = true;
                return Effect::default();
            }
            b'E' => return self.end_of_message(payload),
            b'C' => Callback::Connect,
            b'H' => Callback::Helo,
            b'M' => Callback::Envfrom,
            b'R' => Callback::Envrcpt,
            b'T' => Callback::Data,
            b'L' => Callback::Header,
            b'N' => Callback::Eoh,
            b'B' => Callback::Body,
            _ => Callback::Unknown,
        };
        let mut twin = None;
        if self.shape.has(callback) {
            match command {
                b'C' if !good_connect(payload) => return self.malformed(before, None),
                b'H' if payload.last() != Some(&0) => {
                    return self.malformed(before, Some(Deviation::HeloUnterminated));
                }
                b'M' | b'R' if strings == 0 => return self.malformed(before, None),
                b'L' if !good_header(payload) => return self.malformed(before, None),
                b'U' if strings == 0 => {
                    self.met.push(Deviation::UnknownUnterminated);
                    twin = Some(vec![frame(b'U', &[payload, b"\0"].concat())]);
                }
                _ => {}
            }
        }
        let (status, _) = self.call(callback);
        Effect { twin, ..self.answer(callback, command, status) }
    }

    /// The answer to a command whose callback has returned `status`.
    fn answer(&mut self, callback: Callback, command: u8, status: i32) -> Effect {
        let silent = self.state.silent_bit() & self.steps;
        let known = matches!(status, CONTINUE..=TEMPFAIL | NOREPLY | SKIP);
        if silent == 0 && !known {
            self.twin_rule(callback).status = REFERENCE_END;
            self.met.push(Deviation::StatusUnknown);
            return self.ends();
        }
        if !known && silent & self.offered == 0 {
            // The MTA waits for an answer: ours gives the one that it always gives here.
            self.twin_rule(callback).status = NOREPLY;
            self.met.push(Deviation::StatusUnknown);
        } else if (20..=22).contains(&status) {
            self.twin_rule(callback).status = 5;
            self.met.push(Deviation::StatusInternal);
        }
        match status {
            ACCEPT => self.state = Helo,
            REJECT | DISCARD | TEMPFAIL if !b"RU".contains(&command) => self.state = Helo,
            _ => {}
        }
        let answers = if silent != 0 { silent & self.offered == 0 } else { status != NOREPLY };
        Effect { expect: Expect { answers: answers.into(), closes: false }, twin: None }
    }

    fn end_of_message(&mut self, payload: &[u8]) -> Effect {
        if !payload.is_empty() && self.shape.has(Callback::Body) {
            let (status, ops) = self.call(Callback::Body);
            // The reference's twin is a plain BODY frame, which must be answered and can't modify.
            let no_twin = self.steps & Body.silent_bit() != 0 || ops.iter().any(Op::modifies);
            match status {
                CONTINUE => {}
                REJECT | DISCARD | ACCEPT | TEMPFAIL if no_twin => {
                    self.twin_rule(Callback::Body).status = CONTINUE;
                    let turn = self.calls[Callback::Body as usize] - 1;
                    self.our_changes.push((Callback::Body, turn, CONTINUE));
                }
                SKIP | NOREPLY => {
                    self.twin_rule(Callback::Body).status = CONTINUE;
                    self.met.push(Deviation::BodyAnswerAtEnd);
                }
                REJECT | DISCARD | ACCEPT | TEMPFAIL => {
                    self.met.push(Deviation::BodyAnswerAtEnd);
                    let twin = Some(vec![frame(b'B', payload)]);
                    return Effect { twin, ..self.answer(Callback::Body, b'E', status) };
                }
                _ => return self.answer(Callback::Body, b'E', status),
            }
        }
        let (status, _) = self.call(Callback::Eom);
        self.answer(Callback::Eom, b'E', status)
    }

    fn negotiate(&mut self, payload: &[u8]) -> Effect {
        if payload.len() < 12 {
            // The reference may crash; a version that is too old ends its session in the same way.
            let refused = [[0u8, 0, 0, 1], [0; 4], [0; 4]].concat();
            return self.ends_by(Deviation::NegotiationShort, vec![frame(b'O', &refused)]);
        }
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        let (version, mut actions, mut steps) = (word(0) as i32, word(4), word(8));
        if version < 2 {
            return self.ends();
        }
        if actions == 0 {
            actions = 0xf;
        }
        if steps == 0 {
            steps = 0x3f;
        }
        steps &= !0x7000_0000;
        let usual = self.shape.default_off();
        let mut lists = 0;
        let (asked, mut told) = if self.shape.has(Callback::Negotiate) {
            let (status, ops) = self.call(Callback::Negotiate);
            let set = |call| ops.iter().rev().find(|op| op.call == call).map(|op| op.number as u32);
            lists = length_of_lists(ops);
            match status {
                ALL_OPTS => {
                    self.steps = usual;
                    (actions, usual | steps & 0x400)
                }
                CONTINUE => {
                    self.steps = set(Call::Steps).unwrap_or(usual | steps & 0x400);
                    (set(Call::Actions).unwrap_or(actions), self.steps)
                }
                _ => return self.ends(),
            }
        } else {
            self.steps = usual;
            (self.shape.flags, usual)
        };
        self.offered = steps;
        told &= !(NR_ALL & !steps);
        told &= !(0x300 & !steps);
        if asked & !actions != 0 || told & !steps != 0 {
            return self.ends();
        }
        if 12 + lists > self.shape.max_data as usize {
            return self.ends();
        }
        Effect { expect: Expect { answers: 1, closes: false }, twin: None }
    }

    fn macros(&mut self, payload: &[u8]) -> Effect {
        let end = payload.iter().rposition(|byte| *byte == 0);
        let strings = payload[1..].iter().filter(|byte| **byte == 0).count();
        if strings % 2 == 0 || !b"CHMRTNE".contains(&payload[0]) {
            return Effect::default();
        }
        // A last name without a value: the reference reads beyond its list.
        self.met.push(Deviation::MacroOdd);
        let list = &payload[..end.unwrap()];
        let mut twin = match list[1..].iter().rposition(|byte| *byte == 0) {
            Some(last) => list[..last + 2].to_vec(),
            None => vec![payload[0], 0, 0],
        };
        twin.push(b'x');
        Effect { twin: Some(vec![frame(b'D', &twin)]), ..Effect::default() }
    }
}

/// How many bytes of the answer to a negotiation are macro lists. Each stage can have one.
fn length_of_lists(ops: &[Op]) -> usize {
    let mut stages = Vec::new();
    let mut length = 0;
    for op in ops.iter().filter(|op| op.call == Call::SetSymlist && (0..7).contains(&op.number)) {
        if let Some(list) = &op.strings[0]
            && !stages.contains(&op.number)
        {
            stages.push(op.number);
            length += 4 + list.len() + 1;
        }
    }
    length
}

/// What makes the reference leave a state for HELO's, with abort if a message is under way, and then end.
fn error_after(state: State) -> Vec<Vec<u8>> {
    let error = frame(b'z', b"");
    // A second negotiation is never legal.
    if state == Init { vec![error] } else { vec![frame(b'O', &[0; 12]), error] }
}

/// smfi_setmlreply without a line, as smfi_setreply says it.
fn without_lines(op: &Op) -> Op {
    let default = op.strings[0].as_ref().map(|code| match code.first() {
        Some(b'4') => b"4.0.0".to_vec(),
        _ => b"5.0.0".to_vec(),
    });
    let xcode = op.strings[1].clone().or(default);
    Op { call: Call::SetReply, number: 0, strings: vec![op.strings[0].clone(), xcode, None] }
}

/// Whether CONNECT's payload can be told to the filter.
fn good_connect(payload: &[u8]) -> bool {
    let Some(end) = payload.iter().position(|byte| *byte == 0) else { return false };
    let (family, rest) = match &payload[end + 1..] {
        [] => return false,
        [b'U', ..] => return true,
        [family, _, _, rest @ ..] if rest.last() == Some(&0) => (*family, rest),
        _ => return false,
    };
    let Some(end) = rest.iter().position(|byte| *byte == 0) else { return false };
    let address = &rest[..end];
    match family {
        // The generator writes no other good ones.
        b'4' => [&b"127.0.0.1"[..], b"127.1", b"0x7f000001", b"10.1.2.3 trailing"].contains(&address),
        b'6' => [&b"::1"[..], b"IPv6:::1", b"ipv6:fe80::1", b"::ffff:1.2.3.4"].contains(&address),
        b'L' => address.len() < 108,
        _ => false,
    }
}

/// Whether HEADER's payload holds two strings. The reference never takes a name's first byte for its end.
fn good_header(payload: &[u8]) -> bool {
    payload.last() == Some(&0)
        && payload.len() > 1
        && payload[1..].iter().position(|byte| *byte == 0).is_some_and(|end| end + 2 < payload.len())
}
