//! The recipes for packages in `packaging/`, by their shape: version, SONAME, what they let `make` do, and that those which
//! nobody has built yet say so. (`packaging/rpm/check` builds the RPM packages.)

use crate::support::{repository, stdout};
use std::fs;
use std::process::Command;

/// A recipe that a shell reads: its file, the name of the version's variable, its functions, and the SONAME's end that
/// it gives the library.
struct Recipe {
    file: &'static str,
    version: &'static str,
    build: &'static str,
    check: &'static str,
    package: &'static str,
    soversion: &'static str,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

const ALPINE: Recipe = Recipe {
    file: "packaging/alpine/APKBUILD",
    version: "$pkgver",
    build: "build",
    check: "check",
    package: "package",
    soversion: "1.0.2",
};
const ARCH: Recipe = Recipe { file: "packaging/arch/PKGBUILD", ..ALPINE };
const GENTOO: Recipe = Recipe {
    file: concat!("packaging/gentoo/libmilter-rs-", env!("CARGO_PKG_VERSION"), ".ebuild"),
    version: "$PV",
    build: "src_compile",
    check: "src_test",
    package: "src_install",
    soversion: "1.0.2",
};

fn text(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What the recipe prints when the packager's tool runs this of it. The tool's own functions say what they are called with.
fn run_in(recipe: &Recipe, what: &str) -> String {
    let tool = "for tool in make emake install rm cd; do eval \"$tool() { echo $tool \\\"\\$*\\\"; }\"; done\n\
        for tool in inherit einstalldocs default default_dev amove die; do eval \"$tool() { :; }\"; done\n\
        use() { false; }\nget_libdir() { echo lib64; }\n\
        P=libmilter-rs-$1 PV=$1 D=/tree ED=/tree EPREFIX= pkgdir=/tree\n";
    let script = format!("set -eu\n{tool}. ./{}\n{what}\n", recipe.file);
    stdout(Command::new("bash").args(["-c", &script, "recipe", VERSION]).current_dir(repository()))
}

/// The words of the calls of `make`.
fn make_calls(output: &str) -> Vec<Vec<&str>> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("make ").or(line.strip_prefix("emake ")));
    lines.map(|line| line.split(' ').collect()).collect()
}

#[test]
fn recipes_build_this_version_with_the_name_of_their_distribution() {
    let makefile = text("Makefile");
    for recipe in [ALPINE, ARCH, GENTOO] {
        let file = recipe.file;
        assert_eq!(run_in(&recipe, &format!("echo {}", recipe.version)), format!("{VERSION}\n"), "{file}");
        let soversion = format!("SOVERSION={}", recipe.soversion);
        for (function, goals) in [
            (recipe.build, &["library", "milter-send"][..]),
            (recipe.check, &["demo"]),
            (recipe.package, &["install"]),
        ] {
            let output = run_in(&recipe, function);
            let calls = make_calls(&output);
            assert_eq!(calls.len(), 1, "{file}: {function}: {output}");
            assert!(calls[0].starts_with(goals) && calls[0].contains(&&*soversion), "{file}: {output}");
            for word in &calls[0] {
                let Some((variable, _)) = word.split_once('=') else { continue };
                let known = variable == "DESTDIR" || makefile.contains(&format!("\n{variable} ?="));
                assert!(known, "{file}: the Makefile has no {variable}");
            }
            if function == recipe.package {
                assert!(calls[0].contains(&"DESTDIR=/tree") && calls[0].contains(&"PREFIX=/usr"), "{file}");
            }
        }
    }
}

#[test]
fn recipes_for_make_and_rpm_have_the_same() {
    let spec = text("packaging/rpm/libmilter-rs.spec");
    assert!(spec.contains(&format!("\nVersion:        {VERSION}\n")));
    assert!(spec.contains("\n%global soversion 1.0\n"));
    let uses = spec.lines().filter(|line| line.starts_with("make ")).collect::<Vec<_>>();
    assert_eq!(uses.len(), 3);
    assert!(uses.iter().all(|line| line.contains("SOVERSION=%{soversion}")), "{uses:?}");
    let port = text("packaging/freebsd/Makefile");
    assert!(port.contains(&format!("\nDISTVERSION=\t{VERSION}\n")) && port.contains("SOVERSION=6 "));
    assert!(port.contains("\nBROKEN="), "it does not compile there");
}

#[test]
fn all_recipes_stand_for_the_same_release_and_compiler() {
    let makefile = text("Makefile");
    let stands_for = makefile.lines().find_map(|line| line.strip_prefix("VERSION = ")).unwrap();
    for file in [ALPINE.file, ARCH.file, "packaging/rpm/libmilter-rs.spec"] {
        assert!(text(file).contains(stands_for), "{file}: {stands_for}");
    }
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    for file in
        [ALPINE.file, ARCH.file, GENTOO.file, "packaging/rpm/libmilter-rs.spec", "packaging/freebsd/Makefile"]
    {
        assert!(text(file).contains(oldest), "{file}: Rust {oldest}");
    }
}

/// In its first line, and in the document that people read before they take it.
#[test]
fn what_nobody_has_built_says_so() {
    let platforms = text("docs/platforms.md");
    for (file, name) in [
        (ALPINE.file, "Alpine"),
        (ARCH.file, "Arch"),
        (GENTOO.file, "Gentoo"),
        ("packaging/freebsd/Makefile", "FreeBSD"),
    ] {
        assert!(text(file).starts_with("# UNTRIED"), "{file}");
        let row = platforms.lines().find(|line| line.starts_with(&format!("| {name}"))).unwrap();
        assert!(row.contains("untried"), "{row}");
    }
}
