//! Macros on the MTA's side: which of them go out at which stage, and their values.

use std::str::FromStr;

use crate::protocol::MacroStage;

/// Macros with their values.
pub type Definitions = Vec<(Vec<u8>, Vec<u8>)>;

/// The names of the macros that are sent, stage by stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacroLists([Vec<Vec<u8>>; MacroStage::COUNT]);

impl MacroLists {
    /// Takes one list for each stage, in the order of [`MacroStage::ALL`]; names are separated by white space.
    pub fn new(lists: [&str; MacroStage::COUNT]) -> Self {
        Self(lists.map(|list| names(list.as_bytes())))
    }

    /// The names of a stage.
    pub fn of(&self, stage: MacroStage) -> &[Vec<u8>] {
        &self.0[stage as usize]
    }

    /// Replaces the names of a stage; they are separated by white space or commas.
    pub fn set(&mut self, stage: MacroStage, list: &[u8]) {
        self.0[stage as usize] = names(list);
    }

    /// Adds a name to a stage unless it is there already.
    pub fn add(&mut self, stage: MacroStage, name: &[u8]) {
        let list = &mut self.0[stage as usize];
        if !list.iter().any(|known| bare(known) == bare(name)) {
            list.push(name.to_vec());
        }
    }

    /// Whether any stage has the name.
    pub fn contain(&self, name: &[u8]) -> bool {
        self.0.iter().flatten().any(|known| bare(known) == bare(name))
    }
}

fn names(list: &[u8]) -> Vec<Vec<u8>> {
    let separators = |b: &u8| b.is_ascii_whitespace() || *b == b',';
    list.split(separators).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

/// A name without its braces: `{x}` and `x` are the same to everybody.
fn bare(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"{").and_then(|inner| inner.strip_suffix(b"}")).unwrap_or(name)
}

/// What somebody wants a macro to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacroSetting {
    /// The stage to send it at. Without one it goes where the lists have it, or, if none has, with CONNECT.
    pub stage: Option<MacroStage>,
    /// Its name.
    pub name: Vec<u8>,
    /// Its value; none at all means that it is not sent.
    pub value: Option<Vec<u8>>,
}

impl FromStr for MacroSetting {
    type Err = &'static str;

    /// Reads `[STAGE:]NAME[=VALUE]`. A name of more than one character gets braces if it has none.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (target, value) = match text.split_once('=') {
            Some((target, value)) => (target, Some(value.as_bytes().to_vec())),
            None => (text, None),
        };
        let (stage, name) = match target.split_once(':') {
            Some((stage, name)) => (Some(parse_stage(stage)?), name),
            None => (None, target),
        };
        let inner = bare(name.as_bytes());
        if inner.is_empty() {
            return Err("the name of the macro is missing");
        }
        let name = if inner.len() == 1 { inner.to_vec() } else { [b"{", inner, b"}"].concat() };
        Ok(Self { stage, name, value })
    }
}

fn parse_stage(name: &str) -> Result<MacroStage, &'static str> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "connect" => MacroStage::Connect,
        "helo" => MacroStage::Helo,
        "mail" => MacroStage::Mail,
        "rcpt" => MacroStage::Rcpt,
        "data" => MacroStage::Data,
        "eoh" => MacroStage::EndOfHeader,
        "eom" => MacroStage::EndOfMessage,
        _ => return Err("the stage must be connect, helo, mail, rcpt, data, eoh or eom"),
    })
}

/// The values that macros have at the moment.
#[derive(Debug, Clone, Default)]
pub struct MacroValues {
    /// Names without braces.
    known: Vec<(Vec<u8>, Vec<u8>)>,
    /// These stand, whatever the MTA thinks.
    settings: Vec<MacroSetting>,
}

impl MacroValues {
    /// Starts with what somebody wants them to be.
    pub fn new(settings: Vec<MacroSetting>) -> Self {
        Self { known: Vec::new(), settings }
    }

    /// What somebody wants them to be.
    pub fn settings(&self) -> &[MacroSetting] {
        &self.settings
    }

    /// Gives a macro its value.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.unset(name);
        self.known.push((bare(name.as_bytes()).to_vec(), value.into()));
    }

    /// Takes a macro's value away.
    pub fn unset(&mut self, name: &str) {
        let name = bare(name.as_bytes());
        self.known.retain(|(known, _)| known != name);
    }

    /// The value of a macro.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let name = bare(name);
        match self.settings.iter().rev().find(|setting| bare(&setting.name) == name) {
            Some(setting) => setting.value.as_deref(),
            None => self.known.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice()),
        }
    }

    /// Those of `names` that have a value, with it.
    pub fn define(&self, names: &[Vec<u8>]) -> Definitions {
        names.iter().filter_map(|name| Some((name.clone(), self.get(name)?.to_vec()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(text: &str) -> MacroSetting {
        text.parse().unwrap()
    }

    #[test]
    fn settings_in_words() {
        let plain = setting("auth_type=PLAIN");
        assert_eq!((plain.stage, &plain.name[..]), (None, &b"{auth_type}"[..]));
        assert_eq!(plain.value.as_deref(), Some(&b"PLAIN"[..]));
        let staged = setting("EOM:{i}=a:b=c");
        assert_eq!((staged.stage, &staged.name[..]), (Some(MacroStage::EndOfMessage), &b"i"[..]));
        assert_eq!(staged.value.as_deref(), Some(&b"a:b=c"[..]));
        assert_eq!(setting("j").value, None);
        assert_eq!(setting("j=").value.as_deref(), Some(&b""[..]));
        for bad in ["", "=x", "{}=x", "body:x=y"] {
            assert!(bad.parse::<MacroSetting>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_setting_wins_over_what_the_mta_knows() {
        let mut values = MacroValues::new(vec![setting("j=mine"), setting("v"), setting("v2=x")]);
        values.set("j", "its");
        values.set("v", "its");
        values.set("{client_addr}", "192.0.2.1");
        let names = names(b"j, v {client_addr} i");
        assert_eq!(
            values.define(&names),
            [(b"j".to_vec(), b"mine".to_vec()), (b"{client_addr}".to_vec(), b"192.0.2.1".to_vec())]
        );
        values.unset("client_addr");
        assert_eq!(values.get(b"client_addr"), None);
    }

    #[test]
    fn lists_take_a_name_once() {
        let mut lists = MacroLists::new(["j _", "", "", "", "", "", ""]);
        lists.add(MacroStage::Connect, b"{j}");
        lists.add(MacroStage::Helo, b"{x}");
        assert_eq!(lists.of(MacroStage::Connect), [b"j", b"_"]);
        assert!(lists.contain(b"x") && !lists.contain(b"y"));
        lists.set(MacroStage::Connect, b"");
        assert!(lists.of(MacroStage::Connect).is_empty());
    }
}
