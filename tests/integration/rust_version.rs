//! The oldest Rust that builds the library, which Cargo.toml states. No such compiler is at hand where the tests run: its
//! statement is checked by clippy, which knows since when each function of the standard library is stable, and by what
//! the dependencies say of themselves. `.ci/run` runs clippy on the whole.

use crate::support::{repository, stdout, temp_dir};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// What Cargo.toml says.
fn oldest() -> String {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let line = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    line.trim_matches('"').to_owned()
}

/// A version to compare.
fn number(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap()).collect()
}

#[test]
fn the_documents_name_the_oldest_rust() {
    for (file, sentence) in [
        ("README.md", "needs Rust OLDEST or newer, a C compiler"),
        ("README.md", "It needs Rust OLDEST or newer to build"),
        ("CONTRIBUTING.md", "Rust OLDEST or newer"),
    ] {
        let text = fs::read_to_string(repository().join(file)).unwrap();
        assert!(text.contains(&sentence.replace("OLDEST", &oldest())), "{file}: {sentence}");
    }
}

#[test]
fn no_dependency_needs_a_newer_one() {
    let metadata = stdout(
        Command::new(env!("CARGO"))
            .args(["metadata", "--locked", "--format-version", "1"])
            .current_dir(repository()),
    );
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100);
    for package in packages {
        let Some(wanted) = package["rust_version"].as_str() else { continue };
        assert!(number(wanted) <= number(&oldest()), "{} needs Rust {wanted}", package["name"]);
    }
}

/// What clippy says to a library with our Cargo.toml's version, and this function in it.
fn clippy(dir: &Path, function: &str) -> Output {
    fs::create_dir_all(dir.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"probe\"\nversion = \"0.0.0\"\nedition = \"2024\"\nrust-version = \"{}\"\n",
        oldest()
    );
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("src/lib.rs"), format!("//! A probe.\n\n/// Uses a function.\n{function}\n")).unwrap();
    let mut command = Command::new(env!("CARGO"));
    command.args(["clippy", "--offline", "--quiet", "--target-dir"]).arg(dir.join("target"));
    command.args(["--", "-D", "warnings"]).current_dir(dir).output().unwrap()
}

#[test]
fn clippy_finds_a_function_that_is_newer() {
    let dir = temp_dir();
    // Stable since 1.88 and since 1.89.
    let old = "pub fn probe(array: &[u8]) -> &[[u8; 2]] {\n    array.as_chunks().0\n}";
    let new = "pub fn probe(file: &std::fs::File) -> std::io::Result<()> {\n    file.lock()\n}";
    let accepted = clippy(&dir.path().join("old"), old);
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    let refused = clippy(&dir.path().join("new"), new);
    let report = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && report.contains("clippy::incompatible-msrv"), "{report}");
}
