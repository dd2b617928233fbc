//! What an MTA makes of a filter's answer: what it decides, what the SMTP client reads, and whether the filter is asked
//! again. Everything here was watched: see docs/protocol.md, D25 to D36, A11, D44 and D45.

use super::disposition::{DefaultAction, Disposition};
use super::exchange::Verdict;
use super::habits::{Flavor, HOST_NAME, Skip};
use super::smtp_text;
use super::warning::Warning;
use crate::protocol::Kind;

/// An MTA, as far as it judges answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judge {
    pub like: Flavor,
    /// What it does without a filter's answer.
    pub default_action: DefaultAction,
}

/// What an answer amounts to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// What is decided, if anything.
    pub decision: Option<Disposition>,
    /// Why the message is to be held, if it is.
    pub quarantine: Option<Vec<u8>>,
    /// Whether the filter is asked again.
    pub standing: Standing,
    pub warnings: Vec<Warning>,
}

/// How an MTA stands to its filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It asks it.
    #[default]
    Asked,
    /// It does not tell it any more of the SMTP session, but of the messages themselves: Postfix does that to a
    /// filter that has answered an SMTP command by "quarantine".
    ContentOnly,
    /// It has given it up: its default action answers every question.
    Lost,
    /// It has given it up because of an answer that it calls a configuration error, and says so to every question.
    Misconfigured,
}

impl Judgement {
    fn decided(decision: Disposition) -> Self {
        Self { decision: Some(decision), ..Self::default() }
    }

    fn warn(mut self, statement: &'static str, text: impl Into<String>) -> Self {
        self.warnings.push(Warning::new(statement, text));
        self
    }
}

/// Whether Postfix's SMTP server itself asks, and not the part of Postfix that reads messages.
pub(super) fn is_smtp_event(kind: Kind) -> bool {
    !matches!(kind, Kind::Header | Kind::EndOfHeader | Kind::Body | Kind::EndOfMessage)
}

impl Judge {
    /// What `verdict`, the answer to a command, amounts to. `address` is that of the command, if it has one.
    pub fn judge(self, kind: Kind, address: &[u8], verdict: &Verdict) -> Judgement {
        match verdict {
            Verdict::Skip if self.like.skips(kind) == Skip::Everything => {
                Judgement::decided(Disposition::Accepted)
            }
            Verdict::Continue | Verdict::Skip => Judgement::default(),
            Verdict::Accept if kind == Kind::Unknown && self.like == Flavor::Postfix37 => Judgement::default(
            )
            .warn(
                "C31",
                "\"accept\" for an unknown command: the process of Postfix 3.7 that serves the client dies",
            ),
            Verdict::Accept => Judgement::decided(Disposition::Accepted),
            Verdict::Discard => self.discard(kind),
            Verdict::Reject => Judgement::decided(Disposition::Rejected(self.rejection(kind, address))),
            Verdict::TempFail => Judgement::decided(Disposition::TempFailed(self.tempfailure().to_vec())),
            Verdict::Custom(text) => self.custom(kind, address, text),
            Verdict::Shutdown => self.shut_down(kind),
        }
    }

    /// What an answer amounts to in front of which the filter has said "quarantine", before the end of the message:
    /// Postfix heeds that at every command.
    pub fn hold(self, kind: Kind, judgement: Judgement, reason: Option<Vec<u8>>) -> Judgement {
        let Some(reason) = reason else { return judgement };
        let quarantine = Some(reason);
        if is_smtp_event(kind) {
            let standing = match judgement.standing {
                Standing::Asked => Standing::ContentOnly,
                lost => lost,
            };
            let text = format!(
                "QUARANTINE at {}: Postfix holds all mail of the client, and tells the filter no further SMTP command",
                kind.name()
            );
            Judgement { quarantine, standing, ..judgement }.warn("D45", text)
        } else {
            let decision = judgement.decision.clone().or(Some(Disposition::Accepted));
            let text =
                format!("QUARANTINE at {}: Postfix holds the message, and asks no further", kind.name());
            Judgement { quarantine, decision, ..judgement }.warn("D45", text)
        }
    }

    /// What stands in for the answer to a command that a lost filter does not get or did not answer.
    pub fn without_answer(self, kind: Kind, address: &[u8], standing: Standing) -> Judgement {
        let by_default = match (self.default_action, self.like) {
            (DefaultAction::Accept, _) => Judgement::decided(Disposition::Accepted),
            (DefaultAction::Quarantine, _) => {
                let reason = Some(b"default_action".to_vec());
                Judgement { quarantine: reason, ..Judgement::decided(Disposition::Accepted) }
            }
            _ if standing == Standing::Misconfigured => {
                let reply = b"451 4.3.5 Server configuration problem - try again later".to_vec();
                Judgement::decided(Disposition::TempFailed(reply))
            }
            (DefaultAction::TempFail, _) => {
                Judgement::decided(Disposition::TempFailed(self.tempfailure().to_vec()))
            }
            (DefaultAction::Reject, Flavor::Sendmail) => {
                Judgement::decided(Disposition::Rejected(self.rejection(kind, address)))
            }
            (DefaultAction::Reject, _) => {
                Judgement::decided(Disposition::Rejected(b"550 5.5.0 Service unavailable".to_vec()))
            }
            (DefaultAction::Shutdown, Flavor::Sendmail) => {
                let reply = match kind {
                    Kind::Mail | Kind::Rcpt => "421 4.3.0 closing connection".to_owned(),
                    _ => format!("421 4.7.0 {HOST_NAME} closing connection"),
                };
                Judgement::decided(Disposition::TempFailed(reply.into_bytes()))
            }
            (DefaultAction::Shutdown, _) => {
                let reply = b"421 4.7.1 Service unavailable - try again later".to_vec();
                Judgement::decided(Disposition::TempFailed(reply))
            }
        };
        Judgement { standing, ..by_default }
    }

    /// What the SMTP client reads when a command has decided this; `None` if it reads nothing of it yet.
    pub fn client_reads(self, kind: Kind, decision: &Disposition) -> Option<Vec<u8>> {
        let reply = decision.reply()?;
        let hangs_up = reply.starts_with(b"421");
        match kind {
            Kind::Connect => match (self.like, hangs_up, decision) {
                (Flavor::Sendmail, true, _) => Some(reply.to_vec()),
                (Flavor::Sendmail, false, Disposition::Rejected(_)) => {
                    Some(format!("554 {HOST_NAME} ESMTP not accepting messages").into_bytes())
                }
                (_, true, _) => {
                    Some(format!("421 {HOST_NAME} Service unavailable - try again later").into_bytes())
                }
                (_, false, Disposition::Rejected(_)) => {
                    Some(format!("554 {HOST_NAME} ESMTP not accepting connections").into_bytes())
                }
                _ => None,
            },
            Kind::Helo if !hangs_up => None,
            _ => Some(reply.to_vec()),
        }
    }

    /// The MTA's own words for "rejected".
    fn rejection(self, kind: Kind, address: &[u8]) -> Vec<u8> {
        match (self.like, kind) {
            (Flavor::Postfix37 | Flavor::Postfix312, _) => b"550 5.7.1 Command rejected".to_vec(),
            (Flavor::Sendmail, Kind::Connect | Kind::Helo) => b"550 5.0.0 Command rejected".to_vec(),
            (Flavor::Sendmail, Kind::Mail | Kind::Rcpt) => {
                [b"550 5.7.1 ", address, b"... Command rejected"].concat()
            }
            (Flavor::Sendmail, Kind::Data | Kind::Unknown) => b"550 5.7.1 Command rejected".to_vec(),
            (Flavor::Sendmail, _) => b"554 5.7.1 Command rejected".to_vec(),
        }
    }

    /// The MTA's own words for "not now".
    fn tempfailure(self) -> &'static [u8] {
        match self.like {
            Flavor::Postfix37 | Flavor::Postfix312 => b"451 4.7.1 Service unavailable - try again later",
            Flavor::Sendmail => b"451 4.3.2 Please try again later",
        }
    }

    /// Before there is a message, Postfix does not know what it should discard; Sendmail stops asking at CONNECT, and
    /// does not listen at HELO.
    fn discard(self, kind: Kind) -> Judgement {
        match (kind, self.like) {
            (Kind::Connect, Flavor::Sendmail) => Judgement::decided(Disposition::Accepted)
                .warn("D9", "Sendmail takes \"discard\" at CONNECT for \"accept\": the mail passes"),
            (Kind::Connect | Kind::Helo, like) => Judgement::default()
                .warn("D9", format!("{} ignores \"discard\" before there is a message", like.name())),
            _ => Judgement::decided(Disposition::Discarded),
        }
    }

    /// SHUTDOWN: only Postfix knows it.
    fn shut_down(self, kind: Kind) -> Judgement {
        let reply = b"421 4.7.0 Server closing connection".to_vec();
        if !is_smtp_event(kind) && self.like == Flavor::Postfix37 {
            return Judgement::decided(Disposition::Discarded).warn(
                "D44",
                "SHUTDOWN in a message: Postfix 3.7 tells its client 250 and throws the message away",
            );
        }
        Judgement { standing: Standing::Lost, ..Judgement::decided(Disposition::TempFailed(reply)) }
            .warn("D44", "SHUTDOWN: Postfix answers 421 and hangs up; Sendmail does not know it")
    }

    /// A reply of the filter's own.
    fn custom(self, kind: Kind, address: &[u8], text: &[u8]) -> Judgement {
        let mut judgement = match self.like {
            Flavor::Postfix37 | Flavor::Postfix312 => self.custom_to_postfix(kind, address, text),
            Flavor::Sendmail => self.custom_to_sendmail(kind, address, text),
        };
        let reply = judgement.decision.as_ref().and_then(Disposition::reply);
        if let Some(reply) = reply.filter(|_| judgement.standing == Standing::Asked && kind != Kind::Connect)
        {
            let doubts = smtp_text::doubts(reply);
            judgement.warnings.extend(doubts);
        }
        judgement
    }

    fn custom_to_postfix(self, kind: Kind, address: &[u8], text: &[u8]) -> Judgement {
        match smtp_text::postfix(text, self.like, !is_smtp_event(kind)) {
            Ok((reply, warnings)) => {
                Judgement { warnings, ..Judgement::decided(Disposition::of_class(reply)) }
            }
            Err(why) => {
                let judgement = self.without_answer(kind, address, Standing::Misconfigured);
                let answers = match judgement.decision.as_ref().and_then(Disposition::reply) {
                    Some(_) => "Postfix answers 451 4.3.5 and gives the filter up",
                    None => "Postfix gives the filter up",
                };
                judgement.warn(why.statement, format!("{answers}: {}", why.text))
            }
        }
    }

    fn custom_to_sendmail(self, kind: Kind, address: &[u8], text: &[u8]) -> Judgement {
        let rejected = || Judgement::decided(Disposition::Rejected(self.rejection(kind, address)));
        match smtp_text::sendmail(text, kind, address) {
            Err(why) => rejected().warn(why.statement, format!("Sendmail uses its own text: {}", why.text)),
            Ok(_) if kind == Kind::Connect => {
                let judgement = match text {
                    [b'4', b'2', b'1', b' ', ..] => {
                        let reply = format!("421 4.7.0 {HOST_NAME} closing connection");
                        Judgement::decided(Disposition::TempFailed(reply.into_bytes()))
                    }
                    [b'4', ..] => Judgement::decided(Disposition::TempFailed(self.tempfailure().to_vec())),
                    _ => rejected(),
                };
                judgement.warn("D36", "Sendmail does not use the text of a reply to CONNECT")
            }
            Ok((reply, warnings)) => {
                Judgement { warnings, ..Judgement::decided(Disposition::of_class(reply)) }
            }
        }
    }
}
