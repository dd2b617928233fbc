//! The stages of a session and the table of legal moves between them (contract 1.6).

use super::flags::Steps;
use super::kind::Kind;

/// Where a session stands: the last command that was taken. The order matters: a move that the table does not
/// allow may still be legal when the filter has switched off the stages in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Nothing yet.
    Init,
    /// Negotiation.
    Options,
    /// Connect.
    Connect,
    /// HELO, or whatever follows a message that the filter ended.
    Helo,
    /// Sender.
    Mail,
    /// Recipient.
    Rcpt,
    /// DATA.
    Data,
    /// Header fields.
    Header,
    /// End of the header.
    EndOfHeader,
    /// Body.
    Body,
    /// End of the message.
    EndOfMessage,
    /// The session is over.
    Quit,
    /// The message was given up.
    Abort,
    /// An unknown SMTP command.
    Unknown,
    /// The session is over, the connection waits for the next.
    QuitNewConnection,
}

impl Stage {
    const ALL: [Self; 15] = [
        Self::Init,
        Self::Options,
        Self::Connect,
        Self::Helo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Header,
        Self::EndOfHeader,
        Self::Body,
        Self::EndOfMessage,
        Self::Quit,
        Self::Abort,
        Self::Unknown,
        Self::QuitNewConnection,
    ];

    /// The stage that a command leads to; macro definitions lead nowhere.
    #[inline]
    pub fn of(kind: Kind) -> Option<Self> {
        // A look into a table costs less than one more jump that the processor has to guess for every command.
        const TABLE: [Option<Stage>; Kind::INDICES] = {
            let mut table = [None; Kind::INDICES];
            let mut at = 0;
            while at < Kind::ALL.len() {
                table[Kind::ALL[at].index()] = Stage::behind(Kind::ALL[at]);
                at += 1;
            }
            table
        };
        TABLE[kind.index()]
    }

    const fn behind(kind: Kind) -> Option<Self> {
        Some(match kind {
            Kind::Macro => return None,
            Kind::Negotiate => Self::Options,
            Kind::Connect => Self::Connect,
            Kind::Helo => Self::Helo,
            Kind::Mail => Self::Mail,
            Kind::Rcpt => Self::Rcpt,
            Kind::Data => Self::Data,
            Kind::Header => Self::Header,
            Kind::EndOfHeader => Self::EndOfHeader,
            Kind::Body => Self::Body,
            Kind::EndOfMessage => Self::EndOfMessage,
            Kind::Abort => Self::Abort,
            Kind::Unknown => Self::Unknown,
            Kind::Quit => Self::Quit,
            Kind::QuitNewConnection => Self::QuitNewConnection,
        })
    }

    /// Whether a message is under way, so that its end must be reported by abort.
    pub fn in_message(self) -> bool {
        (Self::Mail..=Self::Body).contains(&self)
    }

    /// Whether `target` may follow, whatever the filter has switched off.
    #[inline]
    pub fn is_followed_by(self, target: Self) -> bool {
        self.followers() & target.bit() != 0
    }

    /// Whether `target` may follow, given the steps that the filter has switched off.
    pub fn leads_to(self, target: Self, off: Steps) -> bool {
        let mut from = self;
        loop {
            if from.is_followed_by(target) {
                return true;
            }
            match Self::ALL.get(from as usize + 1) {
                Some(&next) if off.intersects(next.switch()) => from = next,
                _ => return false,
            }
        }
    }

    /// The bit that tells the MTA not to wait for an answer at this stage.
    pub fn no_reply(self) -> Steps {
        match self {
            Self::Connect => Steps::NR_CONN,
            Self::Helo => Steps::NR_HELO,
            Self::Mail => Steps::NR_MAIL,
            Self::Rcpt => Steps::NR_RCPT,
            Self::Data => Steps::NR_DATA,
            Self::Unknown => Steps::NR_UNKN,
            Self::Header => Steps::NR_HDR,
            Self::EndOfHeader => Steps::NR_EOH,
            Self::Body => Steps::NR_BODY,
            _ => Steps::empty(),
        }
    }

    /// The bit that switches this stage off.
    pub fn switch(self) -> Steps {
        match self {
            Self::Connect => Steps::NOCONNECT,
            Self::Helo => Steps::NOHELO,
            Self::Mail => Steps::NOMAIL,
            Self::Rcpt => Steps::NORCPT,
            Self::Data => Steps::NODATA,
            Self::Header => Steps::NOHDRS,
            Self::EndOfHeader => Steps::NOEOH,
            Self::Body => Steps::NOBODY,
            Self::Unknown => Steps::NOUNKNOWN,
            _ => Steps::empty(),
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// The table of contract 1.6, as a set of bits.
    fn followers(self) -> u16 {
        const OPTIONS: u16 = Stage::Options.bit();
        const CONNECT: u16 = Stage::Connect.bit();
        const HELO: u16 = Stage::Helo.bit();
        const MAIL: u16 = Stage::Mail.bit();
        const RCPT: u16 = Stage::Rcpt.bit();
        const DATA: u16 = Stage::Data.bit();
        const HEADER: u16 = Stage::Header.bit();
        const EOH: u16 = Stage::EndOfHeader.bit();
        const BODY: u16 = Stage::Body.bit();
        const EOM: u16 = Stage::EndOfMessage.bit();
        const QUIT: u16 = Stage::Quit.bit();
        const ABORT: u16 = Stage::Abort.bit();
        const UNKNOWN: u16 = Stage::Unknown.bit();
        const QUIT_NC: u16 = Stage::QuitNewConnection.bit();
        match self {
            Self::Init => OPTIONS,
            Self::Options | Self::QuitNewConnection => CONNECT | UNKNOWN,
            Self::Connect | Self::Helo => HELO | MAIL | UNKNOWN,
            Self::Mail => RCPT | ABORT | UNKNOWN,
            Self::Rcpt => RCPT | DATA | HEADER | EOH | BODY | EOM | ABORT | UNKNOWN,
            Self::Data => HEADER | EOH | ABORT,
            Self::Header => HEADER | EOH | ABORT,
            Self::EndOfHeader | Self::Body => BODY | EOM | ABORT,
            Self::EndOfMessage => MAIL | UNKNOWN | QUIT | QUIT_NC,
            Self::Quit | Self::Abort => 0,
            Self::Unknown => HELO | MAIL | RCPT | DATA | BODY | ABORT | UNKNOWN | QUIT | QUIT_NC,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING_OFF: Steps = Steps::empty();

    #[test]
    fn the_order_is_that_of_the_values() {
        assert!(Stage::ALL.iter().enumerate().all(|(index, &stage)| stage as usize == index));
    }

    #[test]
    fn a_whole_message_moves_along() {
        use Stage::*;
        let walk = [
            Init,
            Options,
            Connect,
            Helo,
            Mail,
            Rcpt,
            Rcpt,
            Data,
            Header,
            Header,
            EndOfHeader,
            Body,
            Body,
            EndOfMessage,
            Mail,
            Abort,
        ];
        for pair in walk.windows(2) {
            assert!(pair[0].leads_to(pair[1], NOTHING_OFF), "{pair:?}");
        }
    }

    #[test]
    fn moves_that_are_illegal() {
        use Stage::*;
        for (from, to) in [
            (Init, Connect),
            (Options, Options),
            (Helo, Rcpt),
            (Mail, Mail),
            (Body, Header),
            (Quit, Quit),
            (Abort, Mail),
            (Helo, Quit),
            (Unknown, Header),
        ] {
            assert!(!from.leads_to(to, NOTHING_OFF), "{from:?} {to:?}");
        }
    }

    #[test]
    fn switched_off_stages_are_stepped_over() {
        use Stage::*;
        assert!(Options.leads_to(Helo, Steps::NOCONNECT));
        assert!(!Options.leads_to(Mail, Steps::NOHELO));
        assert!(Options.leads_to(Mail, Steps::NOCONNECT));
        assert!(Mail.leads_to(EndOfMessage, Steps::NORCPT));
        assert!(Data.leads_to(EndOfMessage, Steps::NOHDRS | Steps::NOEOH));
        assert!(!Data.leads_to(EndOfMessage, Steps::NOEOH));
        assert!(Abort.leads_to(Mail, Steps::NOUNKNOWN));
    }

    #[test]
    fn a_message_lasts_from_mail_to_body() {
        let inside: Vec<_> = Stage::ALL.into_iter().filter(|stage| stage.in_message()).collect();
        assert_eq!(inside.first(), Some(&Stage::Mail));
        assert_eq!(inside.last(), Some(&Stage::Body));
        assert_eq!(inside.len(), 6);
    }
}
