//! The macros of a session against a model that keeps lists. Values that were handed out stay where they are, with
//! what is in them, until their stage is defined anew or forgotten.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use milter::protocol::{MacroStage, MacroStore};

#[derive(Debug, Arbitrary)]
enum Step {
    Define(u8, Vec<u8>),
    ForgetAbove(u8),
    ForgetAll,
    Release,
    Recycle,
    Get(Vec<u8>),
}

type Pair = (Vec<u8>, Option<Vec<u8>>);

#[derive(Default)]
struct Model {
    stages: [Vec<Pair>; MacroStage::COUNT],
    /// By stage: where values were handed out, and what they were, NUL included.
    handed_out: [Vec<(*const u8, Vec<u8>)>; MacroStage::COUNT],
}

impl Model {
    fn define(&mut self, stage: usize, definitions: &[u8]) {
        let Some(end) = definitions.iter().rposition(|&b| b == 0) else { return };
        let texts: Vec<&[u8]> = definitions[..end].split(|&b| b == 0).collect();
        let pair = |pair: &[&[u8]]| (bare(pair[0]).to_vec(), pair.get(1).map(|value| value.to_vec()));
        self.stages[stage] = texts.chunks(2).map(pair).collect();
        self.handed_out[stage].clear();
    }

    fn forget(&mut self, from: usize) {
        for stage in from..MacroStage::COUNT {
            self.stages[stage].clear();
            self.handed_out[stage].clear();
        }
    }

    /// The stage that decides, and the value.
    fn get(&self, name: &[u8]) -> Option<(usize, Vec<u8>)> {
        let name = bare(name);
        if name.is_empty() {
            return None;
        }
        let (stage, pair) = self
            .stages
            .iter()
            .enumerate()
            .rev()
            .find_map(|(stage, pairs)| Some((stage, pairs.iter().find(|(key, _)| key == name)?)))?;
        Some((stage, pair.1.clone()?))
    }

    fn check_what_was_handed_out(&self) {
        for (pointer, value) in self.handed_out.iter().flatten() {
            // SAFETY: that this is still there is what the store promises, and AddressSanitizer looks.
            let bytes = unsafe { std::slice::from_raw_parts(*pointer, value.len()) };
            assert_eq!(bytes, value);
        }
    }
}

fn bare(name: &[u8]) -> &[u8] {
    if name.len() == 3 && name[0] == b'{' && name[2] == b'}' { &name[1..2] } else { name }
}

fuzz_target!(|steps: Vec<Step>| {
    let (mut store, mut model) = (MacroStore::default(), Model::default());
    for step in steps {
        match step {
            Step::Define(stage, definitions) => {
                let stage = usize::from(stage) % MacroStage::COUNT;
                store.take_in(MacroStage::ALL[stage], &definitions);
                model.define(stage, &definitions);
            }
            Step::ForgetAbove(stage) => {
                let stage = usize::from(stage) % MacroStage::COUNT;
                store.forget_above(MacroStage::ALL[stage]);
                model.forget(stage + 1);
            }
            Step::ForgetAll => {
                store.forget_all();
                model.forget(0);
            }
            Step::Release => store.release(),
            Step::Recycle => {
                store = store.recycled();
                model.forget(0);
            }
            Step::Get(name) => {
                let got = store.value(&name).map(|value| (value.as_ptr(), value.to_vec()));
                let expected = model.get(&name);
                assert_eq!(
                    got.as_ref().map(|(_, value)| value.clone()),
                    expected.as_ref().map(|(_, value)| [&value[..], b"\0"].concat())
                );
                if let (Some(got), Some((stage, _))) = (got, expected) {
                    model.handed_out[stage].push(got);
                }
            }
        }
        model.check_what_was_handed_out();
    }
});
