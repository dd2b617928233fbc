//! The types of the ABI, by abidiff. Debian's library carries no debug information, so its interface is taken from
//! its header, as the compiler records it for `c-tests/interface.c`; what that is compared with is our header, and
//! our library itself, whose debug build says what the Rust functions really take. (What a function is called and
//! that it is there is compared between the two real libraries, in `abi`.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{Library, SONAME, repository, run, stdout, temp_dir};

/// abidiff's exit status when it has found nothing, or a change that it cannot tell to be harmless.
const SAME: Option<i32> = Some(0);
const CHANGED: Option<i32> = Some(4);

/// Builds `c-tests/interface.c` against the header that `options` lead to.
fn interface(options: &[&str], output: &Path) -> PathBuf {
    run(Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-shared", "-fPIC"])
        .arg(format!("-Wl,-soname,{SONAME}"))
        .args(options)
        .arg(repository().join("c-tests/interface.c"))
        .arg("-o")
        .arg(output));
    output.to_owned()
}

fn abidiff(old: &Path, new: &Path) -> Output {
    Command::new("abidiff").args([old, new]).output().expect("abidiff: run `make deps`")
}

#[track_caller]
fn expect(output: &Output, status: Option<i32>, text: &str) {
    let report = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), status, "{report}");
    assert!(report.contains(text), "{report}");
}

#[test]
fn header_declares_the_same_types() {
    let dir = temp_dir();
    let include = format!("-I{}", repository().join("include").display());
    for bool_by in [&[][..], &["-include", "stdbool.h"]] {
        let reference = interface(bool_by, &dir.path().join("reference.so"));
        let ours = interface(&[&[&*include], bool_by].concat(), &dir.path().join("ours.so"));
        expect(&abidiff(&reference, &ours), SAME, "");
    }
}

/// Builds our library with debug information.
fn with_debug_information() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debug");
    run(Command::new("make")
        .arg("-C")
        .arg(repository())
        .args(["-s", "library", "PROFILE=dev"])
        .arg(format!("TARGET={}", target.display())));
    target.join("lib").join(SONAME)
}

#[test]
fn library_takes_the_same_types() {
    let dir = temp_dir();
    // A caller's bool may be an int or a real one: the library takes what holds either.
    let reference = interface(&[], &dir.path().join("reference.so"));
    let library = with_debug_information();
    // All but smfi_setmlreply and sm_strlcpyn, whose entries are assembler: `c-tests/replies.c` and `undeclared.c` are
    // about them. "Filtered out" are the names of the types, such as i32 for int.
    expect(&abidiff(&reference, &library), SAME, "0 Removed, 0 Changed (30 filtered out), 0 Added functions");
}

#[test]
fn a_changed_type_is_found() {
    let dir = temp_dir();
    let include = dir.path().join("libmilter");
    fs::create_dir(&include).unwrap();
    for name in ["mfapi.h", "mfdef.h"] {
        let text = fs::read_to_string(repository().join("include/libmilter").join(name)).unwrap();
        fs::write(include.join(name), text.replace("int xxfi_version;", "long xxfi_version;")).unwrap();
    }
    let reference = interface(&[], &dir.path().join("reference.so"));
    let altered = interface(&[&format!("-I{}", dir.path().display())], &dir.path().join("altered.so"));
    expect(&abidiff(&reference, &altered), CHANGED, "type of 'int xxfi_version' changed");
}

/// `dpkg-gensymbols`, as the build of a Debian package of `library` would run it.
fn gensymbols(library: &Path, symbols: &Path, dir: &Path) -> Output {
    let tree = dir.join("tree/usr/lib");
    fs::create_dir_all(&tree).unwrap();
    fs::copy(library, tree.join(SONAME)).unwrap();
    let mut option = std::ffi::OsString::from("-I");
    option.push(symbols);
    Command::new("dpkg-gensymbols")
        .current_dir(dir)
        .args(["-plibmilter1.0.1", "-v8.17.1.9", "-c4", "-Osymbols", "-Ptree"])
        .arg(format!("-etree/usr/lib/{SONAME}"))
        .arg(option)
        .output()
        .expect("dpkg-gensymbols: run `make deps`")
}

fn symbols_file() -> PathBuf {
    repository().join("docs/debian/libmilter1.0.1.symbols")
}

#[test]
fn dpkg_gensymbols_accepts_the_symbols_file() {
    let dir = temp_dir();
    let output = gensymbols(&Library::Ours.file(), &symbols_file(), dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let generated = fs::read_to_string(dir.path().join("symbols")).unwrap();
    assert_eq!(generated, fs::read_to_string(symbols_file()).unwrap());
}

#[test]
fn symbols_file_has_the_references_versions() {
    let reference = stdout(Command::new("dpkg-query").args(["--control-show", "libmilter1.0.1", "symbols"]));
    let is_exported =
        |line: &&str| line.starts_with(" smfi_") || line.starts_with(" sm_") || line.starts_with(" mi_stop@");
    let reference: Vec<_> = reference.lines().filter(is_exported).collect();
    let ours = fs::read_to_string(symbols_file()).unwrap();
    let ours: Vec<_> = ours.lines().filter(|line| line.starts_with(' ')).collect();
    assert_eq!(ours, reference);
}

#[test]
fn dpkg_gensymbols_misses_a_function() {
    let dir = temp_dir();
    let symbols = dir.path().join("more");
    fs::write(&symbols, fs::read_to_string(symbols_file()).unwrap() + " smfi_more@Base 0\n").unwrap();
    let output = gensymbols(&Library::Ours.file(), &symbols, dir.path());
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("smfi_more@Base"));
}
