//! The macros of a session: definitions per stage, lookup, and when they are forgotten (contract 1.5).

use super::text::find_nul;
use smallvec::SmallVec;
use std::ops::Range;
use std::ptr::NonNull;

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

/// There is no memory for definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMemory;

/// The definitions of one session.
///
/// Values are handed to C as pointers, so a stage's bytes never move while it keeps its definitions, and no reference that
/// would have to be the only one leads to them. A filter may write into a value that it has, NULs too: where such a value
/// ends is remembered, and not told from its bytes any more.
#[derive(Debug, Default)]
pub struct MacroStore {
    /// By stage; those behind the last one that has definitions may be missing.
    ///
    /// Many silent sessions have heard of the connection only.
    stages: SmallVec<[Vec<u8>; 1]>,
    /// The values that C may have a pointer to; a box, because many silent sessions have none.
    handed_out: Option<Box<HandedOutList>>,
}

/// In the order of their places: an MTA may send thousands of macros, and a filter may ask for all of them.
type HandedOutList = SmallVec<[HandedOut; 4]>;

/// A value in the bytes of a stage, its NUL included.
#[derive(Debug)]
struct HandedOut {
    stage: usize,
    value: Range<usize>,
}

impl HandedOut {
    /// The stage, and where the value begins there.
    fn place(&self) -> (usize, usize) {
        (self.stage, self.value.start)
    }
}

impl MacroStore {
    /// The definitions in the data of a frame: name NUL value NUL, and so on. What stands behind the last NUL is dropped.
    /// Data without any NUL has none, and changes nothing.
    #[inline]
    pub fn definitions(data: &[u8]) -> Option<&[u8]> {
        let end = data.iter().rposition(|&b| b == 0)?;
        Some(&data[..=end])
    }

    /// Makes room for the definitions in the data of a frame and puts them in.
    #[cfg(any(test, fuzzing))]
    pub fn take_in(&mut self, stage: MacroStage, data: &[u8]) {
        let Some(definitions) = Self::definitions(data) else { return };
        if !self.define(stage, definitions) {
            self.make_room(stage, definitions.len()).expect("memory");
            assert!(self.define(stage, definitions));
        }
    }

    /// The value of a macro with its NUL, as no filter has written to it.
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        let (stage, value) = self.find(name)?;
        Some(&self.stages[stage][value])
    }

    /// Replaces the [definitions](Self::definitions) of a stage; `false` if it has no [room](Self::make_room) for these.
    #[inline]
    pub fn define(&mut self, stage: MacroStage, definitions: &[u8]) -> bool {
        let Some(store) = self.stages.get_mut(stage.index()) else { return false };
        if store.capacity() < definitions.len() {
            return false;
        }
        store.clear();
        store.extend_from_slice(definitions);
        self.retain_handed_out(|out| out.stage != stage.index());
        true
    }

    /// Gets memory for definitions of so many bytes; what the stage has is forgotten.
    ///
    /// # Errors
    /// There is none.
    pub fn make_room(&mut self, stage: MacroStage, bytes: usize) -> Result<(), NoMemory> {
        let needed = stage.index() + 1;
        if self.stages.len() < needed {
            self.stages.try_reserve_exact(needed - self.stages.len()).map_err(|_| NoMemory)?;
            self.stages.resize_with(needed, Vec::new);
        }
        let store = &mut self.stages[stage.index()];
        store.clear();
        store.try_reserve_exact(bytes).map_err(|_| NoMemory)
    }

    /// Forgets the definitions of all stages behind `stage`.
    pub fn forget_above(&mut self, stage: MacroStage) {
        self.retain_handed_out(|out| out.stage <= stage.index());
        for store in self.stages.iter_mut().skip(stage.index() + 1) {
            store.clear();
        }
    }

    /// Forgets all definitions.
    pub fn forget_all(&mut self) {
        self.forget_handed_out();
        for store in &mut self.stages {
            store.clear();
        }
    }

    /// The memory of a session that has ended, for the next one: nothing is defined.
    #[must_use]
    pub fn recycled(mut self) -> Self {
        /// More than MTAs send for a stage. What is larger was an exception, and is not kept.
        const USUAL: usize = 1024;
        self.forget_handed_out();
        for store in &mut self.stages {
            store.clear();
            store.shrink_to(USUAL);
        }
        self
    }

    /// Gives back the memory of stages without definitions.
    pub fn release(&mut self) {
        self.handed_out.take_if(|handed_out| handed_out.is_empty());
        for store in self.stages.iter_mut().filter(|store| store.is_empty()) {
            *store = Vec::new();
        }
        let needed = self.stages.iter().rposition(|store| !store.is_empty()).map_or(0, |last| last + 1);
        self.stages.truncate(needed);
        self.stages.shrink_to_fit();
    }

    /// Where the value of a macro is, a string that ends with NUL: the latest stage that defines it decides. `x` and
    /// `{x}` are the same name. A name that stands alone at the end of its definitions has no value, and neither has one for
    /// which there is no memory to note that it was handed out: how many there are is the MTA's choice.
    pub fn get(&mut self, name: &[u8]) -> Option<NonNull<u8>> {
        let (stage, value) = self.find(name)?;
        let start = self.stages[stage].as_mut_ptr().wrapping_add(value.start);
        let handed_out = self.handed_out.get_or_insert_default();
        if let Err(place) = handed_out.binary_search_by_key(&(stage, value.start), HandedOut::place) {
            handed_out.try_reserve(1).ok()?;
            handed_out.insert(place, HandedOut { stage, value });
        }
        NonNull::new(start)
    }

    /// In which stage the value of a macro is, and where there, NUL included.
    fn find(&self, name: &[u8]) -> Option<(usize, Range<usize>)> {
        let name = bare(name);
        if name.is_empty() {
            return None;
        }
        let (stage, value) =
            (0..self.stages.len()).rev().find_map(|stage| Some((stage, self.find_in(stage, name)?)))?;
        (!value.is_empty()).then_some((stage, value))
    }

    /// Where in a stage the value of a macro is; empty for a name without one.
    fn find_in(&self, stage: usize, name: &[u8]) -> Option<Range<usize>> {
        let store = &self.stages[stage];
        let behind_nul = |start: usize| Some(start + find_nul(&store[start..])? + 1);
        let mut at = 0;
        while at < store.len() {
            let start = behind_nul(at)?;
            let end = match self.handed_out_at(stage, start) {
                Some(out) => out.value.end,
                None => behind_nul(start).unwrap_or(start),
            };
            if bare(&store[at..start - 1]) == name {
                return Some(start..end);
            }
            at = end;
        }
        None
    }

    fn handed_out_at(&self, stage: usize, start: usize) -> Option<&HandedOut> {
        let handed_out = self.handed_out.as_ref()?;
        handed_out.get(handed_out.binary_search_by_key(&(stage, start), HandedOut::place).ok()?)
    }

    /// Forgets those of which this is not so.
    #[inline]
    fn retain_handed_out(&mut self, stays: impl Fn(&HandedOut) -> bool) {
        /// Apart, so that who asks for no macros pays for nothing but the question.
        #[inline(never)]
        fn retain(list: &mut HandedOutList, stays: impl Fn(&HandedOut) -> bool) {
            list.retain(|out| stays(out));
        }
        if let Some(handed_out) = &mut self.handed_out {
            retain(handed_out, stays);
        }
    }

    fn forget_handed_out(&mut self) {
        if let Some(handed_out) = &mut self.handed_out {
            handed_out.clear();
        }
    }
}

/// `{x}` is `x`; names of more than one character keep their braces.
fn bare(name: &[u8]) -> &[u8] {
    match name {
        [b'{', _, b'}'] => &name[1..2],
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::shortage;

    fn define(store: &mut MacroStore, stage: MacroStage, data: &[u8]) {
        store.take_in(stage, data);
    }

    fn get(store: &mut MacroStore, name: &str) -> Option<String> {
        let (stage, range) = store.find(name.as_bytes())?;
        let value = store.stages[stage][range].to_vec();
        let address = store.get(name.as_bytes()).unwrap().as_ptr();
        assert!(store.stages[stage].as_ptr_range().contains(&address.cast_const()));
        let value = String::from_utf8(value).unwrap();
        Some(value.strip_suffix('\0').unwrap().to_owned())
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
        define(&mut store, MacroStage::Connect, b"j\0mx\0{i}\0Q1\0{daemon_name}\0smtp\0");
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
        define(&mut store, MacroStage::Connect, b"i\0first\0");
        define(&mut store, MacroStage::EndOfMessage, b"i\0last\0");
        assert_eq!(get(&mut store, "i").as_deref(), Some("last"));
        store.forget_above(MacroStage::Mail);
        assert_eq!(get(&mut store, "i").as_deref(), Some("first"));
        store.forget_all();
        assert_eq!(get(&mut store, "i"), None);
    }

    #[test]
    fn frames_that_are_odd() {
        let mut store = MacroStore::default();
        define(&mut store, MacroStage::Helo, b"a\x001\0");
        define(&mut store, MacroStage::Helo, b"no definition");
        assert_eq!(get(&mut store, "a").as_deref(), Some("1"), "a bad frame changes nothing");
        define(&mut store, MacroStage::Helo, b"b\x002\0a\0cut off");
        assert_eq!(get(&mut store, "a"), None);
        define(&mut store, MacroStage::Helo, b"\0empty name\0b\x001\0b\x002\0");
        assert_eq!(get(&mut store, ""), None);
        assert_eq!(get(&mut store, "b").as_deref(), Some("1"), "the first of several counts");
        define(&mut store, MacroStage::Helo, b"b\x002\0a\0");
        assert_eq!(get(&mut store, "b").as_deref(), Some("2"));
        assert_eq!(get(&mut store, "a"), None);
    }

    #[test]
    fn another_session_gets_the_memory_but_no_definition() {
        let mut store = MacroStore::default();
        define(&mut store, MacroStage::Connect, b"j\0mx\0");
        define(&mut store, MacroStage::EndOfMessage, &[&b"i\0"[..], &[b'x'; 100_000], b"\0"].concat());
        let memory = |store: &MacroStore| store.stages.iter().map(Vec::capacity).sum::<usize>();
        let mut store = store.recycled();
        assert!(get(&mut store, "j").is_none() && get(&mut store, "i").is_none());
        assert!((5..2000).contains(&memory(&store)), "{}", memory(&store));
        assert!(
            store.define(MacroStage::Connect, b"j\0mx\0")
                && !store.define(MacroStage::EndOfMessage, &[0; 2000])
        );
        store.forget_all();
        store.release();
        assert_eq!(memory(&store), 0);
    }

    #[test]
    fn a_silent_session_keeps_what_is_defined_and_no_more() {
        let mut store = MacroStore::default();
        define(&mut store, MacroStage::Helo, b"h\x001\0");
        define(&mut store, MacroStage::EndOfMessage, b"i\x002\0");
        let address = store.get(b"h").unwrap();
        store.forget_above(MacroStage::Helo);
        store.release();
        assert_eq!((store.stages.len(), store.stages.capacity()), (2, 2));
        assert_eq!(store.get(b"h").unwrap(), address, "values do not move");
        define(&mut store, MacroStage::EndOfMessage, b"i\x003\0");
        assert_eq!(get(&mut store, "i").as_deref(), Some("3"));
    }

    #[test]
    fn what_is_written_into_a_value_hides_no_other() {
        let mut store = MacroStore::default();
        define(&mut store, MacroStage::Connect, b"{a}\0one two\0{b}\0yes\0{c}\0");
        store.get(b"{a}").unwrap();
        let (stage, value) = store.find(b"{a}").unwrap();
        store.stages[stage][value].fill(0);
        assert_eq!(get(&mut store, "{b}").as_deref(), Some("yes"));
        assert_eq!((get(&mut store, "two"), get(&mut store, "{c}")), (None, None));
        define(&mut store, MacroStage::Connect, b"{a}\0\0{b}\0no\0");
        assert_eq!(
            get(&mut store, "{b}").as_deref(),
            Some("no"),
            "where others began there may be a longer one"
        );
    }

    #[test]
    fn values_that_were_asked_for_in_any_order_end_where_they_ended() {
        let mut store = MacroStore::default();
        define(&mut store, MacroStage::Mail, b"a\0one\0b\0two\0c\0three\0");
        define(&mut store, MacroStage::Connect, b"d\0four\0e\0five\0");
        for name in ["c", "e", "a", "d", "b"] {
            store.get(name.as_bytes()).unwrap();
            let (stage, value) = store.find(name.as_bytes()).unwrap();
            store.stages[stage][value.start] = 0;
        }
        for (name, length) in [("a", 4), ("b", 4), ("c", 6), ("d", 5), ("e", 5)] {
            let (stage, value) = store.find(name.as_bytes()).unwrap();
            assert_eq!((value.len(), store.stages[stage][value.start]), (length, 0), "{name}");
        }
    }

    #[test]
    fn many_values_are_handed_out_as_far_as_there_is_memory_to_note_them() {
        let mut store = MacroStore::default();
        let names: Vec<String> = (0..6000).map(|number| format!("{{{number:x}}}")).collect();
        let all: String = names.iter().map(|name| format!("{name}\0v\0")).collect();
        define(&mut store, MacroStage::Connect, all.as_bytes());
        shortage::plan(0, u32::MAX);
        let given = shortage::during(true, || {
            names.iter().take_while(|name| store.get(name.as_bytes()).is_some()).count()
        });
        assert!((100..names.len()).contains(&given), "{given}");
        assert!(store.get(names[0].as_bytes()).is_some(), "one that is noted already");
        assert!(store.get(names[given].as_bytes()).is_some(), "when there is memory again");
    }

    #[test]
    fn an_unpaired_name_hides_older_values() {
        let mut store = MacroStore::default();
        define(&mut store, MacroStage::Connect, b"a\x001\0");
        define(&mut store, MacroStage::Helo, b"a\0");
        assert_eq!(get(&mut store, "a"), None);
    }
}
