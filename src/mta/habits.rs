//! What distinguishes one MTA from another on the wire, as seen from the filter: Postfix and Sendmail 8.17 in their
//! default configuration, watched and described, not configured. Postfix 3.7 and Sendmail were run; what differs in
//! Postfix 3.12 is known from its documentation only.

use std::str::FromStr;
use std::time::Duration;

use super::disposition::DefaultAction;
use super::link::Limits;
use super::macros::MacroLists;
use crate::protocol::{Actions, Kind, MacroStage, Offer, Steps};

/// The name that the MTA gives itself.
pub const HOST_NAME: &str = "mx.example.org";

/// Whose habits are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavor {
    /// Postfix 3.7.
    #[default]
    Postfix37,
    /// Postfix 3.12.
    Postfix312,
    /// Sendmail 8.17.
    Sendmail,
}

impl FromStr for Flavor {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.to_ascii_lowercase().as_str() {
            "postfix" | "postfix-3.7" => Ok(Self::Postfix37),
            "postfix-3.12" => Ok(Self::Postfix312),
            "sendmail" => Ok(Self::Sendmail),
            _ => Err("expected postfix-3.7, postfix-3.12 or sendmail"),
        }
    }
}

impl Flavor {
    /// Whether it is a Postfix, of either version.
    pub fn is_postfix(self) -> bool {
        self != Self::Sendmail
    }

    /// Its name, in sentences about it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postfix37 => "Postfix 3.7",
            Self::Postfix312 => "Postfix 3.12",
            Self::Sendmail => "Sendmail",
        }
    }

    /// What it does without its filter unless it is configured otherwise: Postfix's default, and the `F=T` that is
    /// usual for Sendmail.
    pub fn default_action(self) -> DefaultAction {
        match self {
            Self::Postfix37 | Self::Sendmail => DefaultAction::TempFail,
            Self::Postfix312 => DefaultAction::Shutdown,
        }
    }

    /// How long it waits for a filter unless it is configured otherwise: Postfix's `milter_*_timeout`, Sendmail's
    /// `T=`, whose `R` is the time for each answer and whose `E` that for the whole end of a message.
    pub fn limits(self) -> Limits {
        let seconds = Duration::from_secs;
        match self {
            Self::Postfix37 | Self::Postfix312 => Limits {
                connect: seconds(30),
                command: seconds(30),
                content: seconds(300),
                end_of_message: None,
            },
            Self::Sendmail => Limits {
                connect: seconds(300),
                command: seconds(10),
                content: seconds(10),
                end_of_message: Some(seconds(300)),
            },
        }
    }

    /// The macros that are sent unless the filter asks for others: Postfix's `milter_*_macros`, Sendmail's
    /// `Milter.macros.*`.
    pub fn macro_lists(self) -> MacroLists {
        const HELO: &str = "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}";
        MacroLists::new(match self {
            Self::Postfix37 | Self::Postfix312 => [
                "j {daemon_name} {daemon_addr} v _",
                HELO,
                "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
                "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
                "i",
                "i",
                "i",
            ],
            Self::Sendmail => [
                "j _ {daemon_name} {if_name} {if_addr}",
                HELO,
                "i {auth_type} {auth_authen} {auth_ssf} {auth_author} {mail_mailer} {mail_host} {mail_addr}",
                "{rcpt_mailer} {rcpt_host} {rcpt_addr}",
                "",
                "",
                "{msg_id}",
            ],
        })
    }

    /// Which stage's macros go in front of a command. Sendmail sends those of a stage once, with the stage's own
    /// command; Postfix repeats them with every header field and piece of the body.
    pub(super) fn macro_stage(self, kind: Kind) -> Option<MacroStage> {
        match (kind, self) {
            (Kind::Connect, _) => Some(MacroStage::Connect),
            (Kind::Helo, _) => Some(MacroStage::Helo),
            (Kind::Mail, _) => Some(MacroStage::Mail),
            (Kind::Rcpt, _) => Some(MacroStage::Rcpt),
            (Kind::Data, _) => Some(MacroStage::Data),
            (Kind::EndOfHeader, _) | (Kind::Header, Self::Postfix37 | Self::Postfix312) => {
                Some(MacroStage::EndOfHeader)
            }
            (Kind::EndOfMessage, _) | (Kind::Body, Self::Postfix37 | Self::Postfix312) => {
                Some(MacroStage::EndOfMessage)
            }
            _ => None,
        }
    }

    /// What "skip" means as the answer to a command. Neither MTA asks whether it was negotiated. To Postfix it means
    /// no more commands of this kind; to Sendmail no body, or, before there is a header, nothing at all any more on
    /// this connection.
    pub(super) fn skips(self, kind: Kind) -> Skip {
        match (self, kind) {
            (Self::Postfix37 | Self::Postfix312, kind) => Skip::Commands(kind),
            (Self::Sendmail, Kind::Header | Kind::EndOfHeader | Kind::Body) => Skip::Commands(Kind::Body),
            (Self::Sendmail, Kind::EndOfMessage) => Skip::Never,
            (Self::Sendmail, _) => Skip::Everything,
        }
    }

    /// Whether several frames go out in one write when no answer is due in between: Postfix waits with writing
    /// until it has to read, Sendmail writes each frame by itself.
    pub(super) fn gathers_writes(self) -> bool {
        self.is_postfix()
    }

    /// Whether an empty list of macros, asked for by a filter, is no macros. To Postfix it is no request.
    pub(super) fn heeds_empty_lists(self) -> bool {
        self == Self::Sendmail
    }

    /// What the filter hears of an SMTP command that the server does not know: Postfix before 3.10 tells the first
    /// word alone.
    pub(super) fn unknown_line(self, line: &[u8]) -> &[u8] {
        match self {
            Self::Postfix37 => line.split(u8::is_ascii_whitespace).next().unwrap_or_default(),
            Self::Postfix312 | Self::Sendmail => line,
        }
    }

    /// Whether a list of macros for the end of the message counts only together with one for the end of the
    /// header.
    pub(super) fn ties_macro_lists(self) -> bool {
        self == Self::Sendmail
    }

    /// Whether ABORT follows every message, answered or not, and QUIT once more. Sendmail sends it only for a
    /// message that was given up.
    pub(super) fn aborts_always(self) -> bool {
        self.is_postfix()
    }
}

/// What "skip" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    /// No more of these commands in this message.
    Commands(Kind),
    /// The filter is done with the client, and accepts.
    Everything,
    /// It must not be said here.
    Never,
}

/// The newest protocol version.
pub const NEWEST_VERSION: u32 = 6;

/// The oldest one that is still in use.
pub const OLDEST_VERSION: u32 = 2;

/// Everything that an MTA of this protocol version can do. Both MTAs offer all of it.
pub fn offer(version: u32) -> Offer {
    let early = Actions::ADDHDRS
        | Actions::CHGBODY
        | Actions::ADDRCPT
        | Actions::DELRCPT
        | Actions::CHGHDRS
        | Actions::QUARANTINE;
    let mut actions = early;
    let mut steps = Steps::NOCONNECT
        | Steps::NOHELO
        | Steps::NOMAIL
        | Steps::NORCPT
        | Steps::NOBODY
        | Steps::NOHDRS
        | Steps::NOEOH;
    if version >= 3 {
        steps |= Steps::NOUNKNOWN;
    }
    if version >= 4 {
        steps |= Steps::NODATA;
    }
    if version >= 6 {
        actions |= Actions::CHGFROM | Actions::ADDRCPT_PAR | Actions::SETSYMLIST;
        steps |= Steps::SKIP | Steps::RCPT_REJ | Steps::NO_REPLY | Steps::HDR_LEADSPC;
    }
    Offer { version, actions, steps }
}

/// The protocol version that brought a command.
pub(super) fn since_version(kind: Kind) -> u32 {
    match kind {
        Kind::Unknown => 3,
        Kind::Data => 4,
        Kind::QuitNewConnection => 5,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_6_offers_what_both_mtas_offer() {
        let newest = offer(NEWEST_VERSION);
        assert_eq!(newest.encode(), *b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff");
    }

    #[test]
    fn older_versions_offer_less() {
        let steps = |version| offer(version).steps.bits();
        assert_eq!([2, 3, 4, 5].map(steps), [0x7f, 0x17f, 0x37f, 0x37f]);
        assert_eq!(offer(5).actions.bits(), 0x3f);
    }
}
