//! What the probe registers ([`Shape`]) and does in one session ([`Script`]), and how a script is written for
//! `probe.c`. Knows nothing of what any of it should lead to.

use std::collections::BTreeMap;
use std::fmt;

/// The callbacks, numbered as in `probe.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Callback {
    Connect,
    Helo,
    Envfrom,
    Envrcpt,
    Header,
    Eoh,
    Body,
    Eom,
    Abort,
    Close,
    Unknown,
    Data,
    Negotiate,
}

impl Callback {
    pub const ALL: [Self; 13] = [
        Self::Connect,
        Self::Helo,
        Self::Envfrom,
        Self::Envrcpt,
        Self::Header,
        Self::Eoh,
        Self::Body,
        Self::Eom,
        Self::Abort,
        Self::Close,
        Self::Unknown,
        Self::Data,
        Self::Negotiate,
    ];

    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The calls that the probe can make, numbered as in `probe.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    GetSymval,
    SetReply,
    SetMlReply,
    SetSymlist,
    AddHeader,
    InsHeader,
    ChgHeader,
    ChgFrom,
    AddRcpt,
    AddRcptPar,
    DelRcpt,
    ReplaceBody,
    Quarantine,
    Progress,
    SetPriv,
    GetPriv,
    /// Overwrites the callback's arguments, and the macro values seen so far in it.
    Scribble,
    /// Sets negotiate's actions.
    Actions,
    /// Sets negotiate's protocol flags.
    Steps,
}

/// One call with its arguments; `None` is NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub call: Call,
    pub number: i32,
    pub strings: Vec<Option<Vec<u8>>>,
}

impl Op {
    /// Whether it changes the message.
    pub fn modifies(&self) -> bool {
        use Call::{AddHeader, AddRcpt, AddRcptPar, ChgFrom, ChgHeader, DelRcpt, InsHeader};
        use Call::{Quarantine, ReplaceBody};
        matches!(
            self.call,
            AddHeader
                | InsHeader
                | ChgHeader
                | ChgFrom
                | AddRcpt
                | AddRcptPar
                | DelRcpt
                | ReplaceBody
                | Quarantine
        )
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:#x}", self.call, self.number)?;
        for string in &self.strings {
            match string {
                Some(bytes) if bytes.len() > 60 => write!(f, ", {} x {:?}", bytes.len(), bytes[0] as char)?,
                Some(bytes) => write!(f, ", \"{}\"", bytes.escape_ascii())?,
                None => write!(f, ", NULL")?,
            }
        }
        write!(f, ")")
    }
}

/// What one invocation of a callback does and returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub status: i32,
    pub ops: Vec<Op>,
}

/// The rules of a session, by callback and invocation (from 0). Where there is none the probe does nothing
/// and returns SMFIS_CONTINUE (from negotiate: SMFIS_ALL_OPTS).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub rules: BTreeMap<(Callback, u32), Rule>,
}

impl Script {
    /// The bytes that the probe reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for ((callback, turn), rule) in &self.rules {
            let mut ops = Vec::new();
            for op in &rule.ops {
                for number in [op.call as u32, op.number as u32, op.strings.len() as u32] {
                    ops.extend(number.to_ne_bytes());
                }
                for string in &op.strings {
                    match string {
                        None => ops.extend(u32::MAX.to_ne_bytes()),
                        Some(bytes) => {
                            ops.extend((bytes.len() as u32).to_ne_bytes());
                            ops.extend(bytes);
                            ops.push(0);
                        }
                    }
                }
            }
            for number in [*callback as u32, *turn, rule.status as u32, ops.len() as u32] {
                out.extend(number.to_ne_bytes());
            }
            out.extend(ops);
        }
        out
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((callback, turn), rule) in &self.rules {
            write!(f, "    {callback:?} #{turn} returns {}", rule.status)?;
            for op in &rule.ops {
                write!(f, "; {op}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// What a probe process registers.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub version: u32,
    pub flags: u32,
    /// [`Callback::bit`]s.
    pub callbacks: u32,
    /// The NO* flags that its negotiate callback always asks for. The same in all sessions of a process,
    /// because the reference keeps the rules that follow from them in one table for the process.
    pub off: u32,
    /// smfi_setmaxdatasize
    pub max_data: u32,
}

const ALL: u32 = (1 << 13) - 1;
const CURRENT: u32 = 0x0100_0001;
const PLAIN: Shape =
    Shape { name: "all callbacks", version: CURRENT, flags: 0x1ff, callbacks: ALL, off: 0, max_data: 65535 };

/// The filters that the generator chooses from.
pub const SHAPES: [Shape; 10] = [
    PLAIN,
    Shape { name: "all callbacks, headers and their end declined", off: 0x60, ..PLAIN },
    Shape { name: "all callbacks, envelope and data declined", off: 0x20f, ..PLAIN },
    Shape {
        name: "no helo, body, data, unknown",
        callbacks: ALL
            & !(Callback::Helo.bit() | Callback::Body.bit() | Callback::Data.bit() | Callback::Unknown.bit()),
        off: 0x312,
        ..PLAIN
    },
    Shape { name: "no negotiate", callbacks: ALL & !Callback::Negotiate.bit(), flags: 0x3f, ..PLAIN },
    Shape { name: "version 2", version: 2, flags: 0x0f, ..PLAIN },
    Shape {
        name: "version 3, no eoh",
        version: 3,
        flags: 0x0f,
        callbacks: ALL & !Callback::Eoh.bit(),
        ..PLAIN
    },
    Shape {
        name: "version 4, no connect, eom, abort",
        version: 4,
        flags: 0x3f,
        callbacks: ALL & !(Callback::Connect.bit() | Callback::Eom.bit() | Callback::Abort.bit()),
        ..PLAIN
    },
    Shape {
        name: "only eom and close, no envelope",
        callbacks: Callback::Eom.bit() | Callback::Close.bit() | Callback::Negotiate.bit(),
        off: 0x37f,
        ..PLAIN
    },
    // More than the longest reply needs.
    Shape { name: "all callbacks, 40000 bytes of data at most", max_data: 40000, ..PLAIN },
];

/// Those that register the same and decline different steps.
pub const CHOOSY: [usize; 3] = [0, 1, 2];

impl Shape {
    /// Whether the library calls it.
    pub fn has(&self, callback: Callback) -> bool {
        let known = match callback {
            Callback::Unknown => self.version > 2,
            Callback::Data => self.version > 3,
            Callback::Negotiate => self.version > 4,
            _ => true,
        };
        known && self.callbacks & callback.bit() != 0
    }

    /// The NO* flags of the callbacks that it lacks.
    pub fn default_off(&self) -> u32 {
        let flags = [
            (Callback::Connect, 0x1),
            (Callback::Helo, 0x2),
            (Callback::Envfrom, 0x4),
            (Callback::Envrcpt, 0x8),
            (Callback::Header, 0x20),
            (Callback::Eoh, 0x40),
            (Callback::Body, 0x10),
            (Callback::Data, 0x200),
            (Callback::Unknown, 0x100),
        ];
        flags.iter().filter(|(callback, _)| !self.has(*callback)).map(|(_, flag)| flag).sum()
    }
}
