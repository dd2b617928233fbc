//! The ABI of the release build: what a program that was linked against the reference finds in our library.

use crate::support::{Library, release_dir, stdout, temp_dir};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// The lines of a tool's output about a file.
fn lines(tool: &str, options: &[&str], file: &std::path::Path) -> Vec<String> {
    let output = stdout(Command::new(tool).env("LC_ALL", "C").args(options).arg(file));
    output.lines().map(str::to_owned).collect()
}

/// The functions that a shared library exports, and what else it does: types and names as `nm` prints them.
fn exports(library: Library) -> BTreeSet<String> {
    let symbols = lines("nm", &["-D", "--defined-only", "--format=posix"], &library.file());
    symbols.iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn exports_are_the_functions_of_libmilter_and_nothing_else() {
    let ours = exports(Library::Ours);
    assert_eq!(ours.len(), 26);
    assert!(ours.iter().all(|symbol| symbol.starts_with("smfi_") && symbol.ends_with(" T")), "{ours:?}");
    let mut reference = exports(Library::Reference);
    reference.retain(|symbol| symbol.starts_with("smfi_"));
    assert_eq!(ours, reference);
}

#[test]
fn soname_and_needed_libraries() {
    let entries = |library: Library, kind: &str| -> BTreeSet<String> {
        let dynamic = lines("readelf", &["-d", "-W"], &library.file());
        let of_kind = dynamic.iter().filter(|line| line.contains(kind));
        of_kind.filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned())).collect()
    };
    assert_eq!(entries(Library::Ours, "(SONAME)"), entries(Library::Reference, "(SONAME)"));
    let needed = entries(Library::Ours, "(NEEDED)");
    assert!(needed.contains("libc.so.6"), "{needed:?}");
    for library in &needed {
        let known = ["libc.so.", "libgcc_s.so.", "libm.so.", "ld-linux"];
        assert!(known.iter().any(|known| library.starts_with(known)), "{library} is needed");
    }
}

#[test]
fn static_library_defines_the_functions() {
    // The index of the archive: what the linker looks names up in. (The members themselves hold LTO code too, at
    // which older binutils stumble.)
    let index = lines("nm", &["--print-armap"], &release_dir().join("libmilter.a"));
    let defined: BTreeSet<String> = index
        .iter()
        .filter_map(|line| line.split_once(" in ").map(|(name, _)| name.to_owned()))
        .filter(|name| name.starts_with("smfi_"))
        .collect();
    let shared: BTreeSet<String> =
        exports(Library::Ours).iter().map(|symbol| symbol.trim_end_matches(" T").to_owned()).collect();
    assert_eq!(defined, shared);
}

/// The scope of the comparison: Debian's build also exports the inside of the library, which no header declares.
const SCOPE: &str = "\
[suppress_function]
symbol_name_regexp = ^([^s]|s[^m]|sm[^f])
[suppress_variable]
symbol_name_regexp = .*
";

#[test]
fn abidiff_finds_no_change_in_the_interface() {
    let dir = temp_dir();
    let scope = dir.path().join("scope.abignore");
    fs::write(&scope, SCOPE).unwrap();
    let report = stdout(
        Command::new("abidiff")
            .arg("--suppressions")
            .arg(scope)
            .args([Library::Reference.file(), Library::Ours.file()]),
    );
    assert!(
        report.lines().any(|line| line.starts_with("Function symbols changes summary: 0 Removed")),
        "{report}"
    );
}
