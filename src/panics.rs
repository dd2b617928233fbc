//! Panics: bugs of this library. They must neither reach C nor take anything from the filter that it is owed, and
//! somebody must be able to report them: what the panic said and where it happened.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Where this thread has panicked last. Only a panic hook is told.
    static PLACE: RefCell<Place> = const { RefCell::new(Place { file: String::new(), line: 0 }) };
}

#[derive(Debug, Clone, Default)]
struct Place {
    file: String,
    line: u32,
}

/// A panic that has been caught; shown as text and place.
#[derive(Debug)]
pub struct Panic {
    text: String,
    place: Place,
}

impl Panic {
    #[cold]
    fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Self { text: text.unwrap_or_default(), place: PLACE.with_borrow(Clone::clone) }
    }

    /// The line of the source file: panics of the same kind have the same one.
    pub fn line(&self) -> u32 {
        self.place.line
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, place } = self;
        write!(f, "{text} at {}:{}", place.file, place.line)
    }
}

/// Runs `body`; a panic in it becomes an error.
///
/// # Errors
/// The panic.
pub fn catch<T>(body: impl FnOnce() -> T) -> Result<T, Panic> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(note_places);
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| Panic::new(&*payload))
}

/// From now on each panic leaves its place.
fn note_places() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if let Some(place) = info.location() {
            PLACE.set(Place { file: place.file().to_owned(), line: place.line() });
        }
        before(info);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_has_text_and_place() {
        assert_eq!(catch(|| 1).unwrap(), 1);
        let line = line!() + 1;
        let panic = catch(|| panic!("number {}", line)).unwrap_err();
        assert_eq!(panic.to_string(), format!("number {line} at {}:{line}", file!()));
        assert_eq!(panic.line(), line);
        assert!(catch(|| panic!("plain")).unwrap_err().to_string().starts_with("plain at "));
    }
}
