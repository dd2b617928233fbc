//! A session as the MTA plays it: frames in steps, and how it ends. Printed, it is the transcript's left half.

use super::script::{SHAPES, Script, Shape};
use std::fmt;

/// One write of the MTA, or several: whole frames, their bytes cut at some places.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// With length and command byte, as they go over the wire.
    pub frames: Vec<Vec<u8>>,
    /// Where the bytes of the step are cut into writes, ascending.
    pub cuts: Vec<usize>,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Session {
    /// Index into [`SHAPES`].
    pub shape: usize,
    pub script: Script,
    pub steps: Vec<Step>,
    /// The beginning of a frame that is never finished; then the MTA closes its side.
    pub tail: Vec<u8>,
}

impl Session {
    pub fn shape(&self) -> &'static Shape {
        &SHAPES[self.shape]
    }

    /// Whether it means the same in every process and at any speed. The reference applies what a filter has declined in
    /// one session also to others that have not negotiated. And macros that come before all commands are forgotten if
    /// it must wait for what follows: `macros-first`.
    pub fn is_fair(&self) -> bool {
        let mut frames = self.steps.iter().flat_map(|step| &step.frames).map(|frame| frame.get(4)).peekable();
        let macros_first = frames.peek() == Some(&Some(&b'D'));
        let negotiates = frames.find(|command| *command != Some(&b'D')) == Some(Some(&b'O'));
        negotiates || !macros_first && self.shape().off == self.shape().default_off()
    }
}

/// A frame of the protocol.
pub fn frame(command: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32 + 1).to_be_bytes().to_vec();
    frame.push(command);
    frame.extend(payload);
    frame
}

/// A frame, readable.
pub fn describe(frame: &[u8]) -> String {
    let shown = |bytes: &[u8]| match bytes.len() {
        0..=120 => format!("\"{}\"", bytes.escape_ascii()),
        n => format!("\"{}\"... {n} bytes", bytes[..40].escape_ascii()),
    };
    match frame {
        [a, b, c, d, command, payload @ ..]
            if u32::from_be_bytes([*a, *b, *c, *d]) as usize == payload.len() + 1 =>
        {
            format!("{} {}", command.escape_ascii(), shown(payload))
        }
        raw => format!("raw {}", shown(raw)),
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  filter: {}", self.shape().name)?;
        write!(f, "{}", self.script)?;
        for (number, step) in self.steps.iter().enumerate() {
            write!(f, "  step {number}:")?;
            for frame in &step.frames {
                write!(f, " [{}]", describe(frame))?;
            }
            if !step.cuts.is_empty() {
                write!(f, " cut at {:?}", step.cuts)?;
            }
            writeln!(f)?;
        }
        writeln!(f, "  end: {} bytes of a frame, then EOF", self.tail.len())
    }
}
