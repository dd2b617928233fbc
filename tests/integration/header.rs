//! The C headers. They are made of `src/ffi/*.rs` by cbindgen and committed, so that building needs no generator;
//! a test holds the committed text against what the sources say now. `make header` writes it, by this very code.
//! Others hold what the headers define against the reference's, whose text they never read.

use crate::support::{Library, repository, run, stdout, temp_dir};
use cbindgen::{Builder, Config};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// When this is set the headers are written instead of compared.
const WRITE: &str = "LIBMILTER_WRITE_HEADERS";

/// The sources of `mfapi.h`, in the order in which it shows them. `variadic` is not among them: what it exports is a
/// C variadic function, but not to Rust's eyes; its prototype stands in cbindgen.toml.
const MFAPI: [&str; 4] = ["types", "library", "context", "message"];

/// The source of `mfdef.h`.
const MFDEF: [&str; 1] = ["mfdef"];

const MFDEF_START: &str = "\
/*
 * libmilter/mfdef.h: the constants of the protocol between a mail server and a mail filter.
 *
 * Made by cbindgen: change the Rust source in src/ffi, then `make header`.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef _LIBMILTER_MFDEF_H
#define _LIBMILTER_MFDEF_H 1

/* The newest version of the protocol. */
#ifndef SMFI_PROT_VERSION
#define SMFI_PROT_VERSION 6
#endif
";

#[test]
fn headers_are_what_the_sources_say() {
    let mut config = Config::from_file(repository().join("cbindgen.toml")).unwrap();
    check("mfapi.h", &make(config.clone(), &MFAPI));
    config.header = Some(MFDEF_START.to_owned());
    config.trailer = Some("#endif\n".to_owned());
    check("mfdef.h", &make(config, &MFDEF));
}

fn check(name: &str, made: &str) {
    let path = repository().join("include/libmilter").join(name);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(committed == made, "{} is stale: run `make header`", path.display());
}

/// One header.
fn make(config: Config, modules: &[&str]) -> String {
    let mut builder = Builder::new().with_config(config);
    let mut longs = HashSet::new();
    for module in modules {
        let path = repository().join("src/ffi").join(module).with_extension("rs");
        longs.extend(long_constants(&fs::read_to_string(&path).unwrap()));
        builder = builder.with_src(path);
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    finish(&String::from_utf8(text).unwrap(), &longs)
}

/// The constants of type `long` in a Rust source.
fn long_constants(source: &str) -> impl Iterator<Item = String> {
    source.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("pub const ")?.split_once(": ")?;
        kind.starts_with("c_long ").then(|| name.to_owned())
    })
}

/// Gives the text the form that a C programmer expects and cbindgen has no words for: bit masks are hexadecimal
/// `long`s, negative numbers have parentheses, a comment that fits one line takes one line, and what a comment
/// says about Rust's `unsafe` stays in Rust.
fn finish(text: &str, longs: &HashSet<String>) -> String {
    let mut finished: Vec<String> = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        if line.trim() == "/*" {
            let body = lines.by_ref().take_while(|line| line.trim() != "*/");
            finished.extend(comment(line.trim_end_matches("/*"), body));
        } else if !line.is_empty() || finished.last().is_some_and(|last| !last.is_empty()) {
            finished.push(define(line, longs).unwrap_or_else(|| line.to_owned()));
        }
    }
    finished.join("\n") + "\n"
}

/// A comment, given the lines between its marks.
fn comment<'a>(indent: &str, body: impl Iterator<Item = &'a str>) -> Vec<String> {
    // All lines are taken: the caller goes on behind them.
    let body: Vec<&str> = body.map(|line| line.trim().trim_start_matches('*').trim_start()).collect();
    let mut text = body.split(|line| *line == "# Safety").next().unwrap_or_default();
    while let [start @ .., ""] = text {
        text = start;
    }
    if let [line] = text {
        return vec![format!("{indent}/* {line} */")];
    }
    let mut lines = vec![format!("{indent}/*")];
    lines.extend(text.iter().map(|line| format!("{indent} * {line}").trim_end().to_owned()));
    lines.push(format!("{indent} */"));
    lines
}

/// A `#define` of a number, if that needs another form.
fn define(line: &str, longs: &HashSet<String>) -> Option<String> {
    let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
    let number: i64 = value.parse().ok()?;
    if longs.contains(name) {
        Some(format!("#define {name} 0x{number:08X}L"))
    } else if number < 0 {
        Some(format!("#define {name} ({number})"))
    } else {
        None
    }
}

/// Where the reference's headers are.
const REFERENCE: &str = "/usr/include";

/// The macros that the header in `include` defines, beyond those of the system headers that it includes.
fn macros(include: &Path) -> BTreeMap<String, String> {
    let dir = temp_dir();
    let defined = |source: &str| -> BTreeMap<String, String> {
        let file = dir.path().join("source.c");
        fs::write(&file, source).unwrap();
        stdout(Command::new("cc").args(["-E", "-dM", "-I"]).arg(include).arg(file))
            .lines()
            .filter_map(|line| line.strip_prefix("#define ")?.split_once(' '))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let system = defined("#include <sys/types.h>\n#include <sys/socket.h>\n");
    let mut ours = defined("#include <libmilter/mfapi.h>\n");
    ours.retain(|name, _| !system.contains_key(name));
    ours
}

/// The value and size that constants have with the header in `include`.
fn values<'a>(include: &Path, names: impl Iterator<Item = &'a String>) -> String {
    let dir = temp_dir();
    let print = |name| format!("printf(\"%s %ld %zu\\n\", \"{name}\", (long)({name}), sizeof({name}));\n");
    let (file, program) = (dir.path().join("values.c"), dir.path().join("values"));
    let body: String = names.map(print).collect();
    fs::write(
        &file,
        format!("#include <stdio.h>\n#include <libmilter/mfapi.h>\nint main(void) {{\n{body}}}\n"),
    )
    .unwrap();
    run(Command::new("cc").arg("-I").arg(include).arg(file).arg("-o").arg(&program));
    stdout(&mut Command::new(program))
}

#[test]
fn macros_are_the_references() {
    let (reference, ours) = (Path::new(REFERENCE), repository().join("include"));
    let (their_macros, our_macros) = (macros(reference), macros(&ours));
    assert!(their_macros.len() > 100, "the reference's header is missing: run `make deps`");
    let names = |macros: &BTreeMap<String, String>| macros.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&their_macros), names(&our_macros));

    let is_constant = |name: &&String| {
        ["MI_", "MILTER_", "SMF"].iter().any(|prefix| name.starts_with(prefix)) && !name.contains('(')
    };
    let constants = || their_macros.keys().filter(is_constant);
    assert!(constants().count() > 100);
    assert_eq!(values(reference, constants()), values(&ours, constants()));
    for name in their_macros.keys().filter(|name| !is_constant(name)) {
        assert_eq!(their_macros[name], our_macros[name], "{name}");
    }
}

/// What sources may say before they include the header.
const PREAMBLES: [&str; 34] = [
    "typedef int bool;",
    "typedef char bool;",
    "typedef enum { false, true } bool;",
    "#define bool int",
    "#define bool char",
    "#define true 1\n#define false 0",
    "#define true (1)\n#define false (0)",
    "#define bool int\n#define true 1\n#define false 0\n#define __bool_true_false_are_defined 1",
    "#define __bool_true_false_are_defined 1\ntypedef int bool;",
    "#define __bool_true_false_are_defined\ntypedef char bool;",
    "#define __bool_true_false_are_defined 0\ntypedef unsigned char bool;",
    "#define __bool_true_false_are_defined 1\ntypedef _Bool bool;",
    "#define __bool_true_false_are_defined 1\ntypedef enum { false, true } bool;",
    "#define __bool_true_false_are_defined 1\n#define bool char",
    "enum { false, true };",
    "#include <stdbool.h>",
    "#include <stdbool.h>\n#undef bool\ntypedef int bool;",
    "#include <stdbool.h>\n#undef bool\n#undef true\n#undef false\ntypedef char bool;",
    "#include <stdbool.h>\n#undef __bool_true_false_are_defined",
    "#define SM_CONF_STDBOOL_H",
    "#define SM_CONF_STDBOOL_H 0",
    "#define SM_CONF_STDBOOL_H 0\ntypedef int bool;",
    "#define SM_CONF_STDBOOL_H 1",
    "#include <stdbool.h>\n#define SM_CONF_STDBOOL_H 1",
    "#define __P(X) X",
    "#define SM__P(X) X",
    "#define _SOCK_ADDR struct sockaddr_storage",
    "struct smfi_str;",
    "typedef struct smfi_str SMFICTX;",
    "#include <sys/cdefs.h>",
    "#include <sys/socket.h>",
    "#include <libmilter/mfdef.h>",
    "#include <libmilter/mfapi.h>",
    "#define _LIBMILTER_MFDEF_H 1",
];

/// What they may say behind it.
const SEQUELS: [&str; 6] = [
    "",
    "#include <stdbool.h>",
    "typedef int bool;",
    "#define bool int",
    "bool maybe(int x) { return x ? true : false; }",
    "typedef char int_sized[sizeof(bool) == sizeof(int) ? 1 : -1];",
];

/// How the old and the new are compiled; the last compiler has `bool` as a word of the language, as C23 wants it.
const WAYS: [(&str, &str); 5] =
    [("gcc", "gnu89"), ("gcc", "gnu11"), ("gcc", "gnu2x"), ("g++", "gnu++17"), ("clang-15", "gnu2x")];

#[test]
fn sources_that_get_on_with_the_references_header_get_on_with_ours() {
    let dir = temp_dir();
    // A copy: of headers in a system directory the compiler would hide the warnings.
    let reference = dir.path().join("libmilter");
    fs::create_dir(&reference).unwrap();
    for header in ["mfapi.h", "mfdef.h"] {
        fs::copy(Path::new(REFERENCE).join("libmilter").join(header), reference.join(header)).unwrap();
    }
    let source = dir.path().join("source.c");
    let compiles = |include: &Path, (compiler, standard): (&str, &str)| {
        let language = if compiler.ends_with("++") { "c++" } else { "c" };
        let mut command = Command::new(compiler);
        command.args([
            "-fsyntax-only",
            "-Wall",
            "-Werror",
            "-x",
            language,
            &format!("-std={standard}"),
            "-I",
        ]);
        command.arg(include).arg(&source).output().unwrap().status.success()
    };
    let mut taken = 0;
    let mut check = |preamble: &str, sequel: &str, ways: &[(&'static str, &'static str)]| {
        let text = format!(
            "{preamble}\n#include <libmilter/mfapi.h>\nint f(void);\nint f(void) {{ return smfi_opensocket(1); }}\n{sequel}\n"
        );
        fs::write(&source, &text).unwrap();
        for way in ways {
            if compiles(dir.path(), *way) {
                assert!(compiles(&repository().join("include"), *way), "{way:?}:\n{text}");
                taken += 1;
            }
        }
    };
    for name in macros(Path::new(REFERENCE)).into_keys() {
        check(&format!("#define {name} 12"), "", &WAYS[..2]);
    }
    for preamble in PREAMBLES {
        for sequel in SEQUELS {
            check(preamble, sequel, &WAYS);
        }
    }
    assert!(taken > 500, "{taken}");
}

/// The compilers and the versions of the languages that sources in the wild are built with.
const LANGUAGES: [(&str, &[&str]); 4] = [
    ("gcc", &["gnu89", "c99", "c11", "c17", "c2x"]),
    ("clang-15", &["gnu89", "c99", "c11", "c17", "c2x"]),
    ("g++", &["c++98", "c++11", "c++14", "c++17", "c++20", "c++23"]),
    ("clang++-15", &["c++98", "c++11", "c++14", "c++17", "c++20", "c++2b"]),
];

/// What sources define or include around the header.
const SURROUNDINGS: [&[&str]; 9] = [
    &[],
    &["-DBOOL_BEFORE"],
    &["-DBOOL_AFTER"],
    &["-DBOOL_BEFORE", "-DBOOL_AFTER"],
    &["-DSM_CONF_STDBOOL_H=1"],
    &["-DSM_CONF_STDBOOL_H=0", "-DBOOL_AFTER"],
    &["-DSMFI_VERSION=4"],
    &["-D_SOCK_ADDR=struct sockaddr_storage"],
    &["-DSHORT_NAME"],
];

#[test]
fn every_language_takes_the_header_without_a_warning() {
    let include = repository().join("include");
    for (compiler, standards) in LANGUAGES {
        for standard in standards {
            let cplusplus = standard.starts_with("c++");
            for surroundings in SURROUNDINGS {
                let mut command = Command::new(compiler);
                command.args(["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wundef", "-Werror"]);
                command.args(if cplusplus { ["-x", "c++"] } else { ["-x", "c"] });
                command.args(if cplusplus { "" } else { "-Wstrict-prototypes" }.split_whitespace());
                if (compiler, *standard) == ("clang-15", "gnu89") {
                    // Of every use of what <stdbool.h> defines clang says that C89 did not have it.
                    command.arg("-Wno-c99-extensions");
                }
                command.arg(format!("-std={standard}")).args(surroundings);
                command.arg("-I").arg(&include).arg("-I").arg(include.join("libmilter"));
                run(command.arg(repository().join("c-tests/includer.c")));
            }
        }
    }
}

#[test]
fn cplusplus_links_by_the_names_of_c() {
    let dir = temp_dir();
    for compiler in ["g++", "clang++-15"] {
        run(Command::new(compiler)
            .args(["-shared", "-fPIC", "-Wl,-z,defs", "-I"])
            .arg(repository().join("include"))
            .args(["-x", "c++"])
            .arg(repository().join("c-tests/includer.c"))
            .arg("-o")
            .arg(dir.path().join("includer.so"))
            .arg("-L")
            .arg(Library::Ours.dir())
            .arg("-lmilter"));
    }
}
