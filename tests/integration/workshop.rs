//! A copy of the crate into which single bugs are put, to see whether tests find them.

use crate::support::{repository, run, temp_dir};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A bug: `good` stands once in `file`, and becomes `bad`.
pub struct Mutant {
    pub name: &'static str,
    pub file: &'static str,
    pub good: &'static str,
    pub bad: &'static str,
}

/// The copy, built apart from the crate itself.
pub struct Workshop {
    dir: tempfile::TempDir,
    target: PathBuf,
}

impl Workshop {
    /// A copy without a bug; workshops with different names can be used at the same time.
    pub fn new(name: &str) -> Self {
        let dir = temp_dir();
        for entry in fs::read_dir(repository()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if name != "target" && name != "src" && name != ".git" {
                symlink(entry.path(), dir.path().join(&name)).unwrap();
            }
        }
        run(Command::new("cp").arg("-r").arg(repository().join("src")).arg(dir.path()));
        Self { dir, target: Path::new(env!("CARGO_TARGET_TMPDIR")).join(name) }
    }

    /// The directory of the copy.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where it is built.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Calls cargo for the copy.
    pub fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args([command, "--quiet", "--locked", "--manifest-path"])
            .arg(self.dir().join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&self.target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_PROFILE_TEST_DEBUG", "0");
        cargo
    }

    /// Does something while the bug is there.
    pub fn with<T>(&self, mutant: &Mutant, act: impl FnOnce() -> T) -> T {
        let file = self.dir().join(mutant.file);
        let good = fs::read_to_string(&file).unwrap();
        assert_eq!(good.matches(mutant.good).count(), 1, "{}: {} no longer fits", mutant.file, mutant.name);
        fs::write(&file, good.replace(mutant.good, mutant.bad)).unwrap();
        let result = act();
        fs::write(&file, good).unwrap();
        result
    }
}
