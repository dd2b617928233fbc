//! Commands, MTA to filter (contract 1.2): decoding for the filter, [`encode`] for the MTA.

use super::address::Peer;
use super::frame::Frame;
use super::kind::Kind;
use super::macros::MacroStage;
use super::negotiate::{Offer, Refusal};
use super::text::{Arguments, Text, find_nul};

/// One command with what it carries; strings are in place and writable.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `O`
    Negotiate(Offer),
    /// `D`: the stage, and the definitions as [`MacroStore::define`](super::MacroStore::define) takes them;
    /// `None` for a stage that does not exist.
    Macro(Option<MacroStage>, &'a [u8]),
    /// `C`: the client's host name, and its address.
    Connect(Text<'a>, Peer<'a>),
    /// `H`: the name that the client gave.
    Helo(Text<'a>),
    /// `M`: the sender, and the ESMTP arguments.
    Mail(Arguments<'a>),
    /// `R`: a recipient, and the ESMTP arguments.
    Rcpt(Arguments<'a>),
    /// `T`
    Data,
    /// `L`: name and value.
    Header(Text<'a>, Text<'a>),
    /// `N`
    EndOfHeader,
    /// `B`
    Body(&'a mut [u8]),
    /// `E`: the last piece of the body, usually empty.
    EndOfMessage(&'a mut [u8]),
    /// `A`
    Abort,
    /// `U`: the SMTP line. It ends where the payload ends: the caller keeps a NUL behind it.
    Unknown(&'a mut [u8]),
    /// `Q`
    Quit,
    /// `K`
    QuitNewConnection,
}

/// Why a frame is not a command: a protocol error, which ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// No command has this byte.
    UnknownCommand(u8),
    /// A command without the data that it needs.
    NoData(Kind),
    /// A string without the NUL that ends it.
    Unterminated(Kind),
    /// HEADER that does not hold a name and a value.
    NotTwoStrings,
    /// CONNECT with an address of an unknown family or one that its family does not have.
    Address {
        /// The family byte.
        family: u8,
    },
    /// OPTNEG that cannot be answered.
    Offer(Refusal),
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownCommand(byte) => write!(f, "unknown command '{}'", byte.escape_ascii()),
            Self::NoData(kind) => write!(f, "{} without data", kind.name()),
            Self::Unterminated(kind) => write!(f, "{} whose string does not end with NUL", kind.name()),
            Self::NotTwoStrings => f.write_str("HEADER that is not a name and a value"),
            Self::Address { family } => {
                write!(f, "CONNECT with a bad address of family '{}'", family.escape_ascii())
            }
            Self::Offer(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for Malformed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Offer(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl<'a> Command<'a> {
    /// Decodes the payload of a command.
    ///
    /// # Errors
    /// The payload is not what contract 1.2 asks for.
    // Inlined, the command is taken apart by its only consumer without ever being put together.
    #[inline(always)]
    pub fn decode(kind: Kind, payload: &'a mut [u8]) -> Result<Self, Malformed> {
        if payload.is_empty() && kind.needs_payload() {
            return Err(Malformed::NoData(kind));
        }
        let unterminated = Malformed::Unterminated(kind);
        Ok(match kind {
            Kind::Negotiate => Self::Negotiate(Offer::decode(payload).map_err(Malformed::Offer)?),
            Kind::Macro => Self::Macro(MacroStage::try_from(payload[0]).ok(), &payload[1..]),
            Kind::Connect => Self::connect(payload)?,
            Kind::Helo => Self::Helo(Text::new(payload).ok_or(unterminated)?),
            Kind::Mail => Self::Mail(Arguments::new(payload).ok_or(unterminated)?),
            Kind::Rcpt => Self::Rcpt(Arguments::new(payload).ok_or(unterminated)?),
            Kind::Data => Self::Data,
            Kind::Header => Self::header(payload)?,
            Kind::EndOfHeader => Self::EndOfHeader,
            Kind::Body => Self::Body(payload),
            Kind::EndOfMessage => Self::EndOfMessage(payload),
            Kind::Abort => Self::Abort,
            Kind::Unknown => Self::Unknown(payload),
            Kind::Quit => Self::Quit,
            Kind::QuitNewConnection => Self::QuitNewConnection,
        })
    }

    fn connect(payload: &'a mut [u8]) -> Result<Self, Malformed> {
        const UNTERMINATED: Malformed = Malformed::Unterminated(Kind::Connect);
        let (host, rest) = Text::split(payload, 0).ok_or(UNTERMINATED)?;
        let (&mut family, rest) = rest.split_first_mut().ok_or(Malformed::NoData(Kind::Connect))?;
        if family == b'U' {
            return Ok(Self::Connect(host, Peer::Unknown));
        }
        let bad_address = Malformed::Address { family };
        let (&mut port, rest) = rest.split_first_chunk_mut::<2>().ok_or(bad_address)?;
        let [address @ .., 0] = rest else {
            return Err(UNTERMINATED);
        };
        let end = find_nul(address).unwrap_or(address.len());
        let peer = Peer::decode(family, u16::from_be_bytes(port), &address[..end]).ok_or(bad_address)?;
        Ok(Self::Connect(host, peer))
    }

    fn header(payload: &'a mut [u8]) -> Result<Self, Malformed> {
        // The search for the name's end starts behind its first byte: an empty name takes the value as its own
        // and leaves none. That is what the reference does (contract 1.7).
        let (name, rest) = Text::split(payload, 1).ok_or(Malformed::NotTwoStrings)?;
        let value = Text::new(rest).ok_or(Malformed::NotTwoStrings)?;
        Ok(Self::Header(name, value))
    }
}

impl TryFrom<&Frame<'_>> for Kind {
    type Error = Malformed;

    fn try_from(frame: &Frame<'_>) -> Result<Self, Malformed> {
        Self::try_from(frame.kind).map_err(Malformed::UnknownCommand)
    }
}

/// The MTA's half: one function per command, each appends one frame. Strings come without their NUL.
pub mod encode {
    use super::super::frame::append;
    use super::{Kind, MacroStage, Offer, Peer};

    const NUL: &[u8] = b"\0";

    /// Any command, with its payload as it stands.
    pub fn raw(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
        append(out, kind.into(), &[payload]);
    }

    /// `O`
    pub fn negotiate(out: &mut Vec<u8>, offer: Offer) {
        raw(out, Kind::Negotiate, &offer.encode());
    }

    /// `D`: (name, value) pairs for a stage.
    pub fn macros(out: &mut Vec<u8>, stage: MacroStage, definitions: &[(&[u8], &[u8])]) {
        macros_before(out, stage.into(), definitions);
    }

    /// `D`: (name, value) pairs for any command byte. Postfix sends them with every command, those that have no
    /// stage of their own too.
    pub fn macros_before<T: AsRef<[u8]>>(out: &mut Vec<u8>, command: u8, definitions: &[(T, T)]) {
        let mut payload = vec![command];
        for (name, value) in definitions {
            for part in [name.as_ref(), NUL, value.as_ref(), NUL] {
                payload.extend_from_slice(part);
            }
        }
        raw(out, Kind::Macro, &payload);
    }

    /// `C`
    pub fn connect(out: &mut Vec<u8>, host: &[u8], peer: Peer<'_>) {
        let mut payload = [host, NUL].concat();
        let mut known = |family: u8, port: u16, address: &[u8]| {
            payload.push(family);
            payload.extend_from_slice(&port.to_be_bytes());
            payload.extend_from_slice(address);
            payload.push(0);
        };
        match peer {
            Peer::Unknown => payload.push(b'U'),
            Peer::Inet { address, port } => known(b'4', port, address.to_string().as_bytes()),
            Peer::Inet6 { address, port } => known(b'6', port, address.to_string().as_bytes()),
            Peer::Unix(path) => known(b'L', 0, path),
        }
        raw(out, Kind::Connect, &payload);
    }

    /// `H`
    pub fn helo(out: &mut Vec<u8>, name: &[u8]) {
        append(out, Kind::Helo.into(), &[name, NUL]);
    }

    /// `M` or `R`: the address, and the ESMTP arguments.
    pub fn envelope(out: &mut Vec<u8>, kind: Kind, arguments: &[&[u8]]) {
        let parts: Vec<&[u8]> = arguments.iter().flat_map(|argument| [*argument, NUL]).collect();
        append(out, kind.into(), &parts);
    }

    /// `L`
    pub fn header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        append(out, Kind::Header.into(), &[name, NUL, value, NUL]);
    }

    /// `U`
    pub fn unknown(out: &mut Vec<u8>, line: &[u8]) {
        append(out, Kind::Unknown.into(), &[line, NUL]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;
    use std::net::Ipv4Addr;

    fn decode(kind: u8, payload: &[u8], check: impl FnOnce(Result<Command<'_>, Malformed>)) {
        check(Command::decode(Kind::try_from(kind).unwrap(), &mut payload.to_vec()));
    }

    #[test]
    fn every_command_byte_names_one_kind() {
        let known: Vec<u8> = (0..=255).filter(|&b| Kind::try_from(b).is_ok()).collect();
        assert_eq!(known, b"ABCDEHKLMNOQRTU");
        assert!(known.iter().all(|&b| u8::from(Kind::try_from(b).unwrap()) == b));
        assert_eq!(Kind::try_from(b'x'), Err(b'x'));
    }

    #[test]
    fn commands_that_need_data() {
        let needing: Vec<u8> = b"ABCDEHKLMNOQRTU"
            .iter()
            .copied()
            .filter(|&b| {
                let kind = Kind::try_from(b).unwrap();
                Command::decode(kind, &mut []) == Err(Malformed::NoData(kind))
            })
            .collect();
        assert_eq!(needing, b"BCDHLMORU");
    }

    #[test]
    fn connect_with_each_family() {
        decode(b'C', b"host\x004\0\x19127.0.0.1\0", |command| {
            let Ok(Command::Connect(host, peer)) = command else { panic!("{command:?}") };
            assert_eq!(host.as_bytes(), b"host");
            assert_eq!(peer, Peer::Inet { address: Ipv4Addr::LOCALHOST, port: 25 });
        });
        decode(b'C', b"\x00U and more", |command| {
            assert!(matches!(command, Ok(Command::Connect(_, Peer::Unknown))));
        });
        decode(b'C', b"h\0L\0\0/run/x\0", |command| {
            assert!(matches!(command, Ok(Command::Connect(_, Peer::Unix(b"/run/x")))));
        });
        decode(b'C', b"h\x006\0\0IPv6:::1\0", |command| {
            assert!(matches!(command, Ok(Command::Connect(_, Peer::Inet6 { port: 0, .. }))));
        });
    }

    #[test]
    fn connect_that_is_cut_short() {
        for payload in
            [&b"host"[..], b"host\0", b"h\x004", b"h\x004\0", b"h\x004\0\0", b"h\x004\0\x00127.0.0.1"]
        {
            decode(b'C', payload, |command| assert!(command.is_err(), "{payload:?}"));
        }
        decode(b'C', b"h\0X\0\0a\0", |command| {
            assert_eq!(command, Err(Malformed::Address { family: b'X' }));
        });
    }

    #[test]
    fn header_is_two_strings() {
        decode(b'L', b"Subject\0 hello\0", |command| {
            let Ok(Command::Header(name, value)) = command else { panic!("{command:?}") };
            assert_eq!((name.as_bytes(), value.as_bytes()), (&b"Subject"[..], &b" hello"[..]));
        });
        decode(b'L', b"\0a\0b\0", |command| {
            let Ok(Command::Header(name, value)) = command else { panic!("{command:?}") };
            assert_eq!((name.as_bytes(), value.as_bytes()), (&b""[..], &b"b"[..]));
        });
        for payload in [&b"a"[..], b"a\0", b"a\0b", b"\0", b"\0a\0"] {
            decode(b'L', payload, |command| {
                assert_eq!(command, Err(Malformed::NotTwoStrings), "{payload:?}")
            });
        }
    }

    #[test]
    fn what_the_mta_encodes_the_filter_decodes() {
        let mut out = Vec::new();
        encode::connect(&mut out, b"h", Peer::Inet { address: Ipv4Addr::LOCALHOST, port: 25 });
        let frame = frame::read(&mut out);
        let kind = Kind::try_from(&frame).unwrap();
        assert!(matches!(Command::decode(kind, frame.payload), Ok(Command::Connect(_, Peer::Inet { .. }))));

        let mut out = Vec::new();
        encode::envelope(&mut out, Kind::Mail, &[b"<a@b>", b"SIZE=5"]);
        let frame = frame::read(&mut out);
        let Ok(Command::Mail(arguments)) = Command::decode(Kind::Mail, frame.payload) else { panic!() };
        assert_eq!(arguments.texts().count(), 2);
    }
}
