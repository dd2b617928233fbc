//! Real filters: unmodified Debian packages, run as their service would be, on the reference and on our library,
//! the latter once found through `LD_LIBRARY_PATH` and once through `LD_PRELOAD`. What a filter does to mail must
//! be the same each time, byte for byte; only what is named as varying (a signature's time, say) is masked.
//!
//! Each test leaves its rows of the table of filters in `<target>/tmp/filters/`; `make filters` prints them.

mod amavis;
mod clamav;
mod dkimpy;
mod enclosure;
mod mail;
mod mimedefang;
mod opendkim;
mod opendmarc;
mod perl;
mod postfix;
mod process;
mod pymilter;
mod pyspf;
mod spamassassin;
mod vrfydmn;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::support::{Library, SONAME, stdout};
use enclosure::Enclosure;

pub use enclosure::{data, listens};
pub use pymilter::source;

/// How a filter comes by its libmilter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Footing {
    /// The reference, as Debian installs it.
    Installed,
    /// Ours, by `LD_LIBRARY_PATH`.
    LibraryPath,
    /// Ours, by `LD_PRELOAD`.
    Preload,
}

impl Footing {
    const ALL: [Self; 3] = [Self::Installed, Self::LibraryPath, Self::Preload];

    fn library(self) -> Library {
        match self {
            Self::Installed => Library::Reference,
            Self::LibraryPath | Self::Preload => Library::Ours,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Installed => "reference",
            Self::LibraryPath => "LD_LIBRARY_PATH",
            Self::Preload => "LD_PRELOAD",
        }
    }
}

/// One run of a filter's scenario on one library.
pub struct Run<'a> {
    footing: Footing,
    enclosure: &'a Enclosure,
    dir: PathBuf,
    transcript: RefCell<String>,
}

impl Run<'_> {
    /// A directory of this run alone, which every user can enter.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The network that the run's processes are in.
    pub fn enclosure(&self) -> &Enclosure {
        self.enclosure
    }

    /// The command of the filter under test: inside the network, on this run's library, with `DIR` in its
    /// environment for the filters that are scripts of ours.
    pub fn filter(&self, program: &str) -> Command {
        let mut command = self.enclosure.command();
        command.arg("env").arg(format!("DIR={}", self.dir.display()));
        let library = self.library_file();
        match self.footing {
            Footing::Installed => {}
            Footing::LibraryPath => {
                command.arg(format!("LD_LIBRARY_PATH={}", library.parent().unwrap().display()));
            }
            Footing::Preload => {
                command.arg(format!("LD_PRELOAD={}", library.display()));
            }
        }
        command.arg(program);
        command
    }

    /// The file of `tests/filters/` called `name`, copied into the run's directory with `@DIR@` and `@KEY@` replaced.
    pub fn config(&self, name: &str) -> PathBuf {
        let text = fs::read_to_string(data(name)).unwrap();
        let path = self.dir.join(name);
        let key = self.enclosure.dkim_key();
        let text = text.replace("@DIR@", path_text(&self.dir)).replace("@KEY@", path_text(&key));
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes down, for the comparison, what the filter did. The run's directory appears as `@DIR@`.
    pub fn record(&self, title: &str, text: &str) {
        let text = text.replace(path_text(&self.dir), "@DIR@");
        writeln!(self.transcript.borrow_mut(), "== {title}\n{}", text.trim_end()).unwrap();
    }

    /// The library file that the filter's process must have mapped.
    fn library_file(&self) -> PathBuf {
        match self.footing.library() {
            Library::Reference => Library::Reference.file(),
            Library::Ours => self.enclosure.dir().join("lib").join(SONAME),
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}, so far:\n{}", self.footing.name(), self.transcript.borrow());
        }
    }
}

/// Plays the scenario of the filter in Debian's `package` on both libraries and compares. `outcome` says what
/// the scenario asserts, in the words of the table.
#[track_caller]
fn compare(package: &str, outcome: &str, play: impl Fn(&Run) + Sync) {
    let enclosure = Enclosure::start();
    // A copy that daemons can also read when they run as a user who may not enter the build directory.
    let lib = enclosure.dir().join("lib");
    fs::create_dir(&lib).unwrap();
    fs::copy(Library::Ours.file(), lib.join(SONAME)).unwrap();

    let one_run = &|footing: Footing| {
        let dir = enclosure.dir().join(footing.name());
        fs::create_dir(&dir).unwrap();
        let run = Run { footing, enclosure: &enclosure, dir, transcript: RefCell::default() };
        play(&run);
        run.transcript.take()
    };
    // Together, because most of the time passes in waiting, for the reference's end above all.
    let [reference, by_path, by_preload] = thread::scope(|scope| {
        Footing::ALL
            .map(|footing| scope.spawn(move || one_run(footing)))
            .map(|run| run.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });

    let version = stdout(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]));
    let runs = [(Footing::LibraryPath, by_path), (Footing::Preload, by_preload)];
    let mut rows = String::new();
    for (footing, ours) in &runs {
        let equal = if *ours == reference { "yes" } else { "NO" };
        writeln!(rows, "| {package} | {version} | {} | {outcome} | {equal} |", footing.name()).unwrap();
    }
    let table = Path::new(env!("CARGO_TARGET_TMPDIR")).join("filters");
    fs::create_dir_all(&table).unwrap();
    fs::write(table.join(format!("{package}.md")), rows).unwrap();
    for (footing, ours) in &runs {
        assert!(
            *ours == reference,
            "{package} by {} differs from the reference: {}\n--- reference\n{reference}\n--- ours\n{ours}",
            footing.name(),
            first_difference(&reference, ours)
        );
    }
}

/// The first line in which two transcripts differ.
fn first_difference(a: &str, b: &str) -> String {
    let number = a.lines().zip(b.lines()).take_while(|(a, b)| a == b).count();
    format!("line {}: {:?}, {:?}", number + 1, a.lines().nth(number), b.lines().nth(number))
}

/// `text` with every value that stands between `start` and the next `end` replaced by `name`.
fn mask(text: &str, start: &str, end: &str, name: &str) -> String {
    let mut parts = text.split(start);
    let mut masked = parts.next().unwrap().to_owned();
    for part in parts {
        masked.push_str(start);
        masked.push_str(name);
        masked.push_str(part.find(end).map_or("", |at| &part[at..]));
    }
    masked
}

/// A path as text; all of ours are.
fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}
