//! The C headers. They are made of `src/ffi/*.rs` by cbindgen and committed, so that building needs no generator;
//! a test holds the committed text against what the sources say now. `make header` writes it, by this very code.

use crate::support::repository;
use cbindgen::{Builder, Config};
use std::collections::HashSet;
use std::fs;

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
