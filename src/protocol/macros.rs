//! The macros of a session: definitions per stage, lookup, and when they are forgotten (contract 1.5).

use super::text::find_nul;

/// The stages that have macros, in protocol order. The byte is the command's that the MTA sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MacroStage {
    /// `C`, 0
    Connect,
    /// `H`, 1
    Helo,
    /// `M`, 2
    Mail,
    /// `R`, 3
    Rcpt,
    /// `T`, 4
    Data,
    /// `N`, 5
    EndOfHeader,
    /// `E`, 6
    EndOfMessage,
}

impl MacroStage {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Helo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::EndOfHeader,
        Self::EndOfMessage,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The stages by their numbers in macro lists, `SMFIM_*`: the end of the message comes before the end of the
    /// header there.
    const BY_NUMBER: [Self; Self::COUNT] = [
        Self::Connect,
        Self::Helo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::EndOfMessage,
        Self::EndOfHeader,
    ];

    /// The stage with this number in macro lists, `SMFIM_*`.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::BY_NUMBER.get(usize::try_from(number).ok()?).copied()
    }

    /// Its number in macro lists, `SMFIM_*`: 0 to 6.
    pub fn number(self) -> u32 {
        match self {
            Self::EndOfMessage => 5,
            Self::EndOfHeader => 6,
            earlier => earlier as u32,
        }
    }

    /// Its place in the order of the protocol, 0 to 6: later stages hide the macros of earlier ones.
    fn index(self) -> usize {
        self as usize
    }
}

impl TryFrom<u8> for MacroStage {
    type Error = u8;

    fn try_from(byte: u8) -> Result<Self, u8> {
        Self::ALL.into_iter().find(|&stage| u8::from(stage) == byte).ok_or(byte)
    }
}

impl From<MacroStage> for u8 {
    fn from(stage: MacroStage) -> Self {
        b"CHMRTNE"[stage.index()]
    }
}

/// The definitions of one session.
///
/// Values are handed to C as pointers, so a stage's bytes never move while it keeps its definitions.
#[derive(Debug, Default)]
pub struct MacroStore {
    /// By stage; empty before the first definition.
    stages: Vec<Vec<u8>>,
}

impl MacroStore {
    /// Replaces the definitions of a stage by `definitions`: name NUL value NUL, and so on. What stands behind
    /// the last NUL is dropped. Bytes without any NUL are no definitions: the old ones stay.
    pub fn define(&mut self, stage: MacroStage, definitions: &[u8]) {
        let Some(end) = definitions.iter().rposition(|&b| b == 0) else { return };
        if self.stages.is_empty() {
            self.stages.resize_with(MacroStage::COUNT, Vec::new);
        }
        let store = &mut self.stages[stage.index()];
        store.clear();
        store.reserve_exact(end + 1);
        store.extend_from_slice(&definitions[..=end]);
    }

    /// Forgets the definitions of all stages behind `stage`.
    pub fn forget_above(&mut self, stage: MacroStage) {
        for store in self.stages.iter_mut().skip(stage.index() + 1) {
            store.clear();
        }
    }

    /// Forgets all definitions.
    pub fn forget_all(&mut self) {
        for store in &mut self.stages {
            store.clear();
        }
    }

    /// The memory of a session that has ended, for the next one: nothing is defined.
    #[must_use]
    pub fn recycled(mut self) -> Self {
        /// More than MTAs send for a stage. What is larger was an exception, and is not kept.
        const USUAL: usize = 1024;
        for store in &mut self.stages {
            store.clear();
            store.shrink_to(USUAL);
        }
        self
    }

    /// Gives back the memory of stages without definitions.
    pub fn release(&mut self) {
        for store in self.stages.iter_mut().filter(|store| store.is_empty()) {
            *store = Vec::new();
        }
    }

    /// The value of a macro, with its NUL: the latest stage that defines it decides. `x` and `{x}` are the same
    /// name. A name that stands alone at the end of its definitions has no value.
    pub fn get(&mut self, name: &[u8]) -> Option<&mut [u8]> {
        let name = bare(name);
        if name.is_empty() {
            return None;
        }
        let (stage, value) = self.stages.iter().enumerate().rev().find_map(|(stage, store)| {
            let value = find(store, name)?;
            Some((stage, value))
        })?;
        value.map(|range| &mut self.stages[stage][range])
    }
}

/// `{x}` is `x`; names of more than one character keep their braces.
fn bare(name: &[u8]) -> &[u8] {
    match name {
        [b'{', _, b'}'] => &name[1..2],
        _ => name,
    }
}

/// Where in `store` the value of `name` is, NUL included. The inner option is `None` for a name without value.
#[expect(clippy::option_option, reason = "not defined, and defined without a value, are two things here")]
fn find(store: &[u8], name: &[u8]) -> Option<Option<std::ops::Range<usize>>> {
    let mut at = 0;
    let next = |at: &mut usize| {
        let start = *at;
        let length = find_nul(&store[start..])?;
        *at = start + length + 1;
        Some(start..*at)
    };
    while let Some(key) = next(&mut at) {
        let value = next(&mut at);
        if bare(&store[key.start..key.end - 1]) == name {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(store: &mut MacroStore, name: &str) -> Option<String> {
        let value = store.get(name.as_bytes())?;
        assert_eq!(value.last(), Some(&0));
        Some(String::from_utf8(value[..value.len() - 1].to_vec()).unwrap())
    }

    #[test]
    fn stages_and_their_bytes() {
        for (index, byte) in b"CHMRTNE".iter().enumerate() {
            let stage = MacroStage::try_from(*byte).unwrap();
            assert_eq!((stage.index(), u8::from(stage)), (index, *byte));
        }
        assert_eq!(MacroStage::try_from(b'L'), Err(b'L'));
        assert_eq!(MacroStage::from_number(7), None);
        assert_eq!(MacroStage::from_number(-1), None);
        assert!((0..7).all(|number| MacroStage::from_number(number).unwrap().number() == number as u32));
    }

    #[test]
    fn single_characters_with_and_without_braces() {
        let mut store = MacroStore::default();
        store.define(MacroStage::Connect, b"j\0mx\0{i}\0Q1\0{daemon_name}\0smtp\0");
        assert_eq!(get(&mut store, "j").as_deref(), Some("mx"));
        assert_eq!(get(&mut store, "{j}").as_deref(), Some("mx"));
        assert_eq!(get(&mut store, "i").as_deref(), Some("Q1"));
        assert_eq!(get(&mut store, "{daemon_name}").as_deref(), Some("smtp"));
        assert_eq!(get(&mut store, "daemon_name"), None);
        assert_eq!(get(&mut store, ""), None);
    }

    #[test]
    fn the_latest_stage_wins() {
        let mut store = MacroStore::default();
        store.define(MacroStage::Connect, b"i\0first\0");
        store.define(MacroStage::EndOfMessage, b"i\0last\0");
        assert_eq!(get(&mut store, "i").as_deref(), Some("last"));
        store.forget_above(MacroStage::Mail);
        assert_eq!(get(&mut store, "i").as_deref(), Some("first"));
        store.forget_all();
        assert_eq!(get(&mut store, "i"), None);
    }

    #[test]
    fn frames_that_are_odd() {
        let mut store = MacroStore::default();
        store.define(MacroStage::Helo, b"a\x001\0");
        store.define(MacroStage::Helo, b"no definition");
        assert_eq!(get(&mut store, "a").as_deref(), Some("1"), "a bad frame changes nothing");
        store.define(MacroStage::Helo, b"b\x002\0a\0cut off");
        assert_eq!(get(&mut store, "a"), None);
        store.define(MacroStage::Helo, b"\0empty name\0b\x001\0b\x002\0");
        assert_eq!(get(&mut store, ""), None);
        assert_eq!(get(&mut store, "b").as_deref(), Some("1"), "the first of several counts");
        store.define(MacroStage::Helo, b"b\x002\0a\0");
        assert_eq!(get(&mut store, "b").as_deref(), Some("2"));
        assert_eq!(get(&mut store, "a"), None);
    }

    #[test]
    fn another_session_gets_the_memory_but_no_definition() {
        let mut store = MacroStore::default();
        store.define(MacroStage::Connect, b"j\0mx\0");
        store.define(MacroStage::EndOfMessage, &[&b"i\0"[..], &[b'x'; 100_000], b"\0"].concat());
        let memory = |store: &MacroStore| store.stages.iter().map(Vec::capacity).sum::<usize>();
        let mut store = store.recycled();
        assert!(get(&mut store, "j").is_none() && get(&mut store, "i").is_none());
        assert!((5..2000).contains(&memory(&store)), "{}", memory(&store));
        store.release();
        assert_eq!(memory(&store), 0);
    }

    #[test]
    fn an_unpaired_name_hides_older_values() {
        let mut store = MacroStore::default();
        store.define(MacroStage::Connect, b"a\x001\0");
        store.define(MacroStage::Helo, b"a\0");
        assert_eq!(get(&mut store, "a"), None);
    }
}
