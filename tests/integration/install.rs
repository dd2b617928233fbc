//! What `make` offers to those who build and install: the demonstration, the installed tree, programs that are built
//! through `milter.pc`, another SONAME.

use crate::manual::pages;
use crate::support::{Library, compile_c, release_dir, repository, run, stdout, temp_dir};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Held while `make` puts the library together in the build directory of the tests.
static MAKING: Mutex<()> = Mutex::new(());

/// Where somebody clones the repository, its name is in the path of everything, and perhaps a space.
#[test]
fn the_demonstration_names_the_library_that_the_filter_has() {
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    run(&mut make(&["-s", "all"]));
    let dir = temp_dir();
    let (built, clone) = (release_dir().join(".."), dir.path().join("my libmilter-rs"));
    for file in ["lib/libmilter.so.1.0.1", "examples/edit-message", "release/milter-send"] {
        fs::create_dir_all(clone.join(file).parent().unwrap()).unwrap();
        fs::copy(built.join(file), clone.join(file)).unwrap();
    }
    let demo = stdout(Command::new(repository().join("examples-c/demo")).arg(&clone));
    let library = format!("library  {}/lib/libmilter.so.1.0.1\n", clone.display());
    assert!(demo.contains(&library), "{demo}");
}

/// `make` with the build directory of the tests, where all is built already.
pub fn make(arguments: &[&str]) -> Command {
    let mut command = Command::new("make");
    command.arg("-C").arg(repository()).args(arguments);
    command.arg(format!("TARGET={}", release_dir().parent().unwrap().display()));
    command
}

/// Installs into `prefix`. One at a time: the installations share the directory where make puts the library together.
pub fn install(prefix: &Path) {
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    run(make(&["-s", "library", "milter-send", "install"]).arg(format!("PREFIX={}", prefix.display())));
}

/// All files below a directory, relative to it, sorted.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// What pkg-config says of the library that is installed in `prefix`.
pub fn pkg_config(prefix: &Path, questions: &str) -> Vec<String> {
    let answer = stdout(
        Command::new("pkg-config")
            .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"))
            .args(questions.split(' '))
            .arg("milter"),
    );
    answer.split_whitespace().map(str::to_owned).collect()
}

/// The loader's entries of one kind, as `readelf -d` tells them.
pub fn dynamic(file: &Path, kind: &str) -> Vec<String> {
    let entries = stdout(Command::new("readelf").env("LC_ALL", "C").args(["-d", "-W"]).arg(file));
    let of_kind = entries.lines().filter(|line| line.contains(kind));
    of_kind.map(|line| line.split_once('[').unwrap().1.trim_end_matches(']').to_owned()).collect()
}

// One test: the steps share the directory where make puts the library together.
#[test]
fn make_demo_install_and_uninstall() {
    let alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let demo = stdout(&mut make(&["-s", "demo"]));
    assert!(demo.contains("X-Edited-By: edit-message"), "{demo}");
    assert!(demo.contains("+ delete recipient <drop@example.org>"), "{demo}");
    assert!(demo.contains("lib/libmilter.so.1.0.1"), "{demo}");

    let dir = temp_dir();
    let destination = format!("DESTDIR={}", dir.path().join("stage").display());
    let arguments = ["-s", "PREFIX=/usr", "LIBDIR=/usr/lib64", "INCLUDEDIR=/opt/include", &destination];
    run(make(&arguments).arg("install"));
    let mut expected: Vec<String> = [
        "opt/include/libmilter/mfapi.h",
        "opt/include/libmilter/mfdef.h",
        "usr/bin/milter-send",
        "usr/lib64/libmilter.a",
        "usr/lib64/libmilter.so",
        "usr/lib64/libmilter.so.1.0.1",
        "usr/lib64/pkgconfig/milter.pc",
        "usr/share/bash-completion/completions/milter-send",
        "usr/share/fish/vendor_completions.d/milter-send.fish",
        "usr/share/zsh/site-functions/_milter-send",
    ]
    .map(str::to_owned)
    .into();
    expected.extend(pages().iter().map(|page| {
        let (name, section) = (page.file_name().unwrap(), page.extension().unwrap());
        format!("usr/share/man/man{}/{}", section.display(), name.display())
    }));
    expected.sort();
    assert_eq!(files(&dir.path().join("stage")), expected);
    let link = fs::read_link(dir.path().join("stage/usr/lib64/libmilter.so")).unwrap();
    assert_eq!(link, PathBuf::from(Library::Ours.file().file_name().unwrap()));
    run(make(&arguments).arg("uninstall"));
    assert_eq!(files(&dir.path().join("stage")), Vec::<String>::new());

    let prefix = dir.path().join("prefix");
    drop(alone);
    install(&prefix);
    built_through_pkg_config(&prefix, dir.path());
    linked_statically(&prefix, dir.path());
    pc_file_says_what_debians_says(&prefix);
}

/// A program that knows nothing but pkg-config runs on what is installed, and includes the header by either name.
fn built_through_pkg_config(prefix: &Path, dir: &Path) {
    let program = dir.join("add-header");
    run(Command::new("cc")
        .arg(repository().join("examples-c/add-header.c"))
        .args(pkg_config(prefix, "--cflags"))
        .args(pkg_config(prefix, "--libs"))
        .arg("-o")
        .arg(&program));
    assert!(dynamic(&program, "(NEEDED)").contains(&"libmilter.so.1.0.1".to_owned()));
    let mut usage = Command::new(&program);
    assert_eq!(usage.env("LD_LIBRARY_PATH", prefix.join("lib")).output().unwrap().status.code(), Some(2));
    run(Command::new("cc")
        .args(["-fsyntax-only", "-DSHORT_NAME"])
        .arg(repository().join("c-tests/includer.c"))
        .args(pkg_config(prefix, "--cflags")));
}

/// Packages ask for a version of sendmail, for the variables, and for either way of linking.
fn pc_file_says_what_debians_says(prefix: &Path) {
    let reference =
        |question: &str| stdout(Command::new("pkg-config").args([question, "milter"])).trim().to_owned();
    assert_eq!(pkg_config(prefix, "--modversion"), [reference("--modversion")]);
    run(Command::new("pkg-config")
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"))
        .args(["--exists", "milter >= 8.13"]));
    let (ours, theirs) = (prefix.join("include/libmilter"), reference("--variable=includedir"));
    assert_eq!(pkg_config(prefix, "--variable=includedir"), [ours.to_str().unwrap()]);
    assert_eq!(theirs, "/usr/include/libmilter");
    let moved = "--define-variable=prefix=/elsewhere";
    assert_eq!(
        pkg_config(prefix, &format!("{moved} --variable=includedir")),
        ["/elsewhere/include/libmilter"]
    );
    assert_eq!(
        pkg_config(prefix, &format!("{moved} --cflags --libs")),
        ["-I/elsewhere/include/libmilter", "-I/elsewhere/include", "-L/elsewhere/lib", "-lmilter"]
    );
}

/// Plain `cc` links the static library; the program needs no libmilter any more, and tells its version.
fn linked_statically(prefix: &Path, dir: &Path) {
    let program = dir.join("static");
    run(Command::new("cc")
        .arg(repository().join("c-tests/control.c"))
        .args(pkg_config(prefix, "--cflags"))
        .arg(prefix.join("lib/libmilter.a"))
        .arg("-o")
        .arg(&program));
    assert!(!dynamic(&program, "(NEEDED)").iter().any(|name| name.contains("milter")));
    let empty = temp_dir();
    let printed = stdout(Command::new(program).current_dir(empty.path()));
    assert!(printed.contains("version: 0 1.0.1\n"), "{printed}");

    // And a program that needs no shared library at all.
    let program = dir.join("whole");
    run(Command::new("cc")
        .arg("-static")
        .arg(repository().join("c-tests/own-functions.c"))
        .args(pkg_config(prefix, "--static --cflags --libs"))
        .arg("-o")
        .arg(&program));
    assert_eq!(dynamic(&program, "(NEEDED)"), Vec::<String>::new());
    run(&mut Command::new(program));
}

#[test]
fn another_soname() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soname");
    run(Command::new("make")
        .arg("-C")
        .arg(repository())
        .args(["library", "SOVERSION=6", "PROFILE=dev"])
        .arg(format!("TARGET={}", target.display())));
    assert_eq!(dynamic(&target.join("lib/libmilter.so.6"), "(SONAME)"), ["libmilter.so.6"]);
    let dir = temp_dir();
    let program = dir.path().join("add-header");
    run(Command::new("cc")
        .arg("-I")
        .arg(repository().join("include"))
        .arg(repository().join("examples-c/add-header.c"))
        .arg("-L")
        .arg(target.join("lib"))
        .arg("-lmilter")
        .arg("-o")
        .arg(&program));
    assert!(dynamic(&program, "(NEEDED)").contains(&"libmilter.so.6".to_owned()));
    // And the build that the other tests run on still has its own.
    compile_c("examples-c/add-header.c", &program);
    assert!(dynamic(&program, "(NEEDED)").contains(&"libmilter.so.1.0.1".to_owned()));
}
