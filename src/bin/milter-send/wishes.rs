//! Macros that the filter asked for and did not get, and what would make a mail server send them.

use std::collections::BTreeMap;

use milter::mta::{Exchange, Flavor};
use milter::protocol::reply::Negotiated;
use milter::protocol::{Kind, MacroStage};

use super::dialogue::{printable, stage_name};

/// The macros that a filter asked for, stage by stage.
#[derive(Debug, Default)]
pub struct Wishes {
    stages: BTreeMap<MacroStage, Wish>,
}

/// Those of one stage.
#[derive(Debug)]
struct Wish {
    /// Names as the filter wrote them; those that it got are taken out.
    names: Vec<Vec<u8>>,
    /// Whether the session came this far.
    reached: bool,
}

/// Why a mail server has no value for a macro.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Encryption,
    Login,
    OtherStage,
    Unknown,
}

impl Wishes {
    /// The lists of the filter's answer to the offer.
    pub fn new(agreed: &Negotiated) -> Self {
        let names = |list: &[u8]| {
            let separator = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
            list.split(separator).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
        };
        let wish =
            |(stage, list): &(MacroStage, Vec<u8>)| (*stage, Wish { names: names(list), reached: false });
        Self { stages: agreed.macro_lists.iter().map(wish).collect() }
    }

    /// Takes out what the filter got.
    pub fn exchange(&mut self, exchange: &Exchange) {
        let (Some(stage), Some(macros)) = (stage_of(exchange.command), &exchange.macros) else { return };
        if let Some(wish) = self.stages.get_mut(&stage) {
            wish.reached = true;
            wish.names.retain(|name| !macros.iter().any(|(sent, _)| bare(sent) == bare(name)));
        }
    }

    /// What it did not get, in words.
    pub fn warnings(&self, like: Flavor) -> Vec<String> {
        let mut warnings = Vec::new();
        for (stage, wish) in self.stages.iter().filter(|(_, wish)| wish.reached) {
            let mut by_reason: BTreeMap<Reason, Vec<&[u8]>> = BTreeMap::new();
            for name in &wish.names {
                by_reason.entry(reason(bare(name), like)).or_default().push(name);
            }
            for (reason, names) in by_reason {
                warnings.push(describe(reason, &names, *stage, like));
            }
        }
        warnings
    }
}

fn describe(reason: Reason, names: &[&[u8]], stage: MacroStage, like: Flavor) -> String {
    let list = names.iter().map(|name| printable(name)).collect::<Vec<_>>().join(" ");
    let stage = stage_name(stage);
    let missing = format!("the filter asked for {list} at {stage} and did not get it");
    let option = format!("--macro {stage}:{}=VALUE", String::from_utf8_lossy(bare(names[0])));
    let setting = match like {
        Flavor::Postfix37 | Flavor::Postfix312 => {
            let values: Vec<_> = names
                .iter()
                .map(|name| format!("{{{}}}=VALUE", String::from_utf8_lossy(bare(name))))
                .collect();
            format!("milter_macro_defaults = {}", values.join(", "))
        }
        Flavor::Sendmail => {
            let lines: Vec<_> = names
                .iter()
                .map(|name| format!("D{{{}}}VALUE", String::from_utf8_lossy(bare(name))))
                .collect();
            lines.join(", ")
        }
    };
    let file = match like {
        Flavor::Postfix37 | Flavor::Postfix312 => "main.cf",
        Flavor::Sendmail => "sendmail.cf",
    };
    match reason {
        Reason::Encryption => format!("{missing}: only a client that uses TLS has it (here: {option})"),
        Reason::Login => format!("{missing}: only a client that has logged in has it (here: {option})"),
        Reason::OtherStage => format!(
            "{missing}: the server does not know it then; in {file} {setting} would send it (here: {option})"
        ),
        Reason::Unknown => format!(
            "{missing}: the server does not have it; in {file} {setting} would send it (here: {option})"
        ),
    }
}

fn reason(name: &[u8], like: Flavor) -> Reason {
    match name {
        b"tls_version" | b"cipher" | b"cipher_bits" | b"cert_subject" | b"cert_issuer" => Reason::Encryption,
        b"auth_type" | b"auth_authen" | b"auth_author" => Reason::Login,
        b"i"
        | b"mail_addr"
        | b"mail_host"
        | b"mail_mailer"
        | b"rcpt_addr"
        | b"rcpt_host"
        | b"rcpt_mailer"
        | b"client_resolve"
        | b"client_connections" => Reason::OtherStage,
        b"auth_ssf" if like == Flavor::Sendmail => Reason::Login,
        b"nrcpts" | b"msg_id" if like == Flavor::Sendmail => Reason::OtherStage,
        _ => Reason::Unknown,
    }
}

/// The stage whose own command this is.
fn stage_of(command: Kind) -> Option<MacroStage> {
    Some(match command {
        Kind::Connect => MacroStage::Connect,
        Kind::Helo => MacroStage::Helo,
        Kind::Mail => MacroStage::Mail,
        Kind::Rcpt => MacroStage::Rcpt,
        Kind::Data => MacroStage::Data,
        Kind::EndOfHeader => MacroStage::EndOfHeader,
        Kind::EndOfMessage => MacroStage::EndOfMessage,
        _ => return None,
    })
}

/// A name without its braces.
fn bare(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"{").and_then(|inner| inner.strip_suffix(b"}")).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(lists: &[(MacroStage, &str)]) -> Negotiated {
        let macro_lists = lists.iter().map(|(stage, list)| (*stage, list.as_bytes().to_vec())).collect();
        Negotiated { version: 6, actions: 0, steps: 0, macro_lists }
    }

    fn sent(command: Kind, names: &[&str]) -> Exchange {
        let macros = names.iter().map(|name| (name.as_bytes().to_vec(), b"value".to_vec())).collect();
        Exchange { macros: Some(macros), ..Exchange::new(command, Vec::new()) }
    }

    #[test]
    fn what_came_later_is_not_missing() {
        let mut wishes =
            Wishes::new(&agreed(&[(MacroStage::Rcpt, "i {rcpt_addr}"), (MacroStage::Data, "{no}")]));
        assert!(wishes.warnings(Flavor::Postfix37).is_empty());
        wishes.exchange(&sent(Kind::Rcpt, &["rcpt_addr"]));
        assert_eq!(wishes.warnings(Flavor::Postfix37).len(), 1);
        wishes.exchange(&sent(Kind::Rcpt, &["i"]));
        assert!(wishes.warnings(Flavor::Postfix37).is_empty());
    }

    #[test]
    fn each_reason_has_its_advice() {
        let mut wishes =
            Wishes::new(&agreed(&[(MacroStage::Mail, "i,{cipher} {auth_type} {x} y {auth_authen}")]));
        wishes.exchange(&sent(Kind::Mail, &[]));
        let asked = "the filter asked for";
        assert_eq!(
            wishes.warnings(Flavor::Postfix37),
            [
                format!(
                    "{asked} {{cipher}} at mail and did not get it: only a client that uses TLS has it (here: --macro mail:cipher=VALUE)"
                ),
                format!(
                    "{asked} {{auth_type}} {{auth_authen}} at mail and did not get it: only a client that has logged in has it (here: --macro mail:auth_type=VALUE)"
                ),
                format!(
                    "{asked} i at mail and did not get it: the server does not know it then; in main.cf milter_macro_defaults = {{i}}=VALUE would send it (here: --macro mail:i=VALUE)"
                ),
                format!(
                    "{asked} {{x}} y at mail and did not get it: the server does not have it; in main.cf milter_macro_defaults = {{x}}=VALUE, {{y}}=VALUE would send it (here: --macro mail:x=VALUE)"
                ),
            ]
        );
        assert!(wishes.warnings(Flavor::Sendmail)[3].contains("in sendmail.cf D{x}VALUE, D{y}VALUE would"));
    }
}
