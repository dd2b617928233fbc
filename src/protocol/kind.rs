//! The kinds of commands, by their bytes (contract 1.2).

/// What a command byte means: `SMFIC_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// SMFIC_OPTNEG: negotiation
    Negotiate = b'O',
    /// SMFIC_MACRO: macro definitions for a stage
    Macro = b'D',
    /// SMFIC_CONNECT: an SMTP client has connected
    Connect = b'C',
    /// SMFIC_HELO: HELO or EHLO
    Helo = b'H',
    /// SMFIC_MAIL: MAIL FROM
    Mail = b'M',
    /// SMFIC_RCPT: RCPT TO
    Rcpt = b'R',
    /// SMFIC_DATA: DATA
    Data = b'T',
    /// SMFIC_HEADER: one header field
    Header = b'L',
    /// SMFIC_EOH: the end of the header
    EndOfHeader = b'N',
    /// SMFIC_BODY: a piece of the body
    Body = b'B',
    /// SMFIC_BODYEOB: the end of the message, perhaps with a last piece of the body
    EndOfMessage = b'E',
    /// SMFIC_ABORT: the message is given up
    Abort = b'A',
    /// SMFIC_UNKNOWN: an SMTP command that the MTA does not know
    Unknown = b'U',
    /// SMFIC_QUIT: the session is over
    Quit = b'Q',
    /// SMFIC_QUIT_NC: the session is over, the connection stays for a new one
    QuitNewConnection = b'K',
}

impl TryFrom<u8> for Kind {
    /// The byte that is no command.
    type Error = u8;

    fn try_from(byte: u8) -> Result<Self, u8> {
        Self::from_byte(byte).ok_or(byte)
    }
}

impl From<Kind> for u8 {
    fn from(kind: Kind) -> Self {
        kind as u8
    }
}

/// Some kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindSet(u32);

impl KindSet {
    /// These.
    pub const fn of(kinds: &[Kind]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < kinds.len() {
            bits |= kinds[at].bit();
            at += 1;
        }
        Self(bits)
    }

    /// Whether the kind is among them.
    #[inline]
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }
}

impl FromIterator<Kind> for KindSet {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | kind.bit()))
    }
}

impl Kind {
    /// One more than the largest [`Self::index`].
    pub const INDICES: usize = 26;

    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Negotiate,
        Self::Macro,
        Self::Connect,
        Self::Helo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Header,
        Self::EndOfHeader,
        Self::Body,
        Self::EndOfMessage,
        Self::Abort,
        Self::Unknown,
        Self::Quit,
        Self::QuitNewConnection,
    ];

    /// The kind with this byte.
    #[inline]
    pub fn from_byte(byte: u8) -> Option<Self> {
        const TABLE: [Option<Kind>; 256] = {
            let mut table = [None; 256];
            let mut at = 0;
            while at < Kind::ALL.len() {
                table[Kind::ALL[at] as usize] = Some(Kind::ALL[at]);
                at += 1;
            }
            table
        };
        TABLE[usize::from(byte)]
    }

    /// A small number, for tables: the place of its byte in the alphabet.
    #[inline]
    pub const fn index(self) -> usize {
        (self as u8 - b'A') as usize
    }

    /// Its bit in a set: a letter's place in the alphabet is in its last five bits, and a shift takes no others.
    #[inline]
    const fn bit(self) -> u32 {
        1_u32.wrapping_shl(self as u32)
    }

    /// The command's name in SMTP or in the milter protocol, for logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Negotiate => "OPTNEG",
            Self::Macro => "MACRO",
            Self::Connect => "CONNECT",
            Self::Helo => "HELO",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Header => "HEADER",
            Self::EndOfHeader => "EOH",
            Self::Body => "BODY",
            Self::EndOfMessage => "BODYEOB",
            Self::Abort => "ABORT",
            Self::Unknown => "UNKNOWN",
            Self::Quit => "QUIT",
            Self::QuitNewConnection => "QUIT_NC",
        }
    }

    /// Whether an empty payload is a protocol error.
    #[inline]
    pub fn needs_payload(self) -> bool {
        const NEEDS_NONE: KindSet = KindSet::of(&[
            Kind::Data,
            Kind::EndOfHeader,
            Kind::EndOfMessage,
            Kind::Abort,
            Kind::Quit,
            Kind::QuitNewConnection,
        ]);
        !NEEDS_NONE.contains(self)
    }
}
