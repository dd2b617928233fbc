//! Session and model put together: what is played to each library, and what each step must bring.

use super::deviation::Deviation;
use super::model::Model;
use super::script::{Call, Callback, Script};
use super::session::{Session, frame};

/// What a step must bring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// Answers to commands; modifications and progress are not counted.
    pub answers: u32,
    /// Whether the filter closes the connection.
    pub closes: bool,
}

/// One step as one library gets it.
#[derive(Clone, Debug)]
pub struct Act {
    pub frames: Vec<Vec<u8>>,
    pub cuts: Vec<usize>,
    pub expect: Expect,
}

/// A session as one library gets it.
#[derive(Clone, Debug, Default)]
pub struct Part {
    pub script: Script,
    pub acts: Vec<Act>,
    pub tail: Vec<u8>,
}

/// A session as both libraries get it.
#[derive(Clone, Debug)]
pub struct Plan {
    ours: Part,
    reference: Part,
    /// The deviations that it shows.
    pub met: Vec<Deviation>,
}

impl Part {
    /// The same frames, all at once and then the end, whatever comes back.
    pub fn without_expectations(&self) -> Self {
        let frames = self.acts.iter().flat_map(|act| act.frames.clone()).collect();
        let act = Act { frames, cuts: Vec::new(), expect: Expect::default() };
        Self { acts: vec![act], ..self.clone() }
    }
}

impl Plan {
    /// What our library is given.
    pub fn ours(&self) -> &Part {
        &self.ours
    }

    /// What the reference is given.
    pub fn reference(&self) -> &Part {
        &self.reference
    }

    /// Walks through the session with the model.
    pub fn of(session: &Session) -> Self {
        let mut model = Model::new(session.shape(), &session.script);
        let mut ours = Part { tail: session.tail.clone(), ..Part::default() };
        let mut reference = ours.clone();
        // Where the last QUIT_NC was heeded: the step, the twin's frames before it, the answers before it.
        let mut quit_nc = None;
        for step in &session.steps {
            let mut expect = Expect::default();
            let mut twin: Vec<Vec<u8>> = Vec::new();
            for frame in &step.frames {
                if expect.closes {
                    break; // nobody reads the rest
                }
                let was_closed = model.closed;
                let effect = model.take(frame);
                if model.closed && !was_closed && !effect.expect.closes {
                    quit_nc = Some((reference.acts.len(), twin.len(), expect.answers));
                }
                expect.answers += effect.expect.answers;
                expect.closes |= effect.expect.closes;
                match effect.twin {
                    Some(frames) => twin.extend(frames),
                    None => twin.push(frame.clone()),
                }
            }
            ours.acts.push(Act { frames: step.frames.clone(), cuts: step.cuts.clone(), expect });
            reference.acts.push(Act { frames: twin, cuts: step.cuts.clone(), expect });
            if expect.closes {
                break;
            }
        }
        if !ours.acts.last().is_some_and(|act| act.expect.closes) {
            model.ends();
        }
        if model.ended_after_quit_nc {
            // The reference would call close again: it is told to quit at once.
            let (act, frames, answers) = quit_nc.expect("QUIT_NC came");
            model.met.push(Deviation::CloseOnce);
            reference.acts.truncate(act + 1);
            reference.acts[act].frames.truncate(frames);
            reference.acts[act].frames.push(frame(b'Q', b""));
            reference.acts[act].expect = Expect { answers, closes: true };
        }
        let mut met = model.met;
        met.sort_unstable();
        met.dedup();
        ours.script = session.script.clone();
        for (callback, turn, status) in model.our_changes {
            ours.script.rules.get_mut(&(callback, turn)).expect("a rule that was played").status = status;
        }
        reference.script = model.twin_script;
        if met.contains(&Deviation::HeloUnterminated) || met.contains(&Deviation::AbortOnce) {
            // Ours has entered the malformed command's stage when the session ends, and so has forgotten macros.
            forget_lookups(&mut ours.script);
            forget_lookups(&mut reference.script);
        }
        Self { ours, reference, met }
    }
}

/// Takes the macro look-ups out of the close callback.
fn forget_lookups(script: &mut Script) {
    for ((callback, _), rule) in &mut script.rules {
        if *callback == Callback::Close {
            rule.ops.retain(|op| op.call != Call::GetSymval);
        }
    }
}
