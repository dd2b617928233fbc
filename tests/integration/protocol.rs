//! `docs/protocol.md`: that it is complete, that the tests it names exist, that warnings of `milter-send` have their
//! statement there. And two of its statements about programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

use crate::support::{Daemon, Library, compile_c, milter_send, repository, temp_dir, wait_until};

/// How many statements each chapter has.
const CHAPTERS: [(char, usize); 5] = [('A', 16), ('B', 31), ('C', 31), ('D', 48), ('E', 8)];

/// The statements, and the tests that they name.
fn statements() -> BTreeMap<(char, usize), Vec<String>> {
    let text = fs::read_to_string(repository().join("docs/protocol.md")).unwrap();
    let row =
        Regex::new(r"^\| ([A-Z])(\d+) \| (.+) \| (filter|MTA|both|program) \| (.+) \| (.+) \|$").unwrap();
    let test = Regex::new("`([^`]+)`").unwrap();
    let mut statements = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id ")) {
        let parts = row.captures(line).unwrap_or_else(|| panic!("not a statement: {line}"));
        let id = (parts[1].parse().unwrap(), parts[2].parse().unwrap());
        let tests = test.captures_iter(&parts[6]).map(|found| found[1].to_owned()).collect();
        assert!(statements.insert(id, tests).is_none(), "{id:?} is there twice");
    }
    statements
}

/// All Rust files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The names of all tests, with their modules: unit tests of the library, and those of this program.
pub fn tests() -> BTreeSet<String> {
    let function = Regex::new(r"(?m)^(\s*)#\[test\]\n(?:\s*#\[.*\n)*\s*fn (\w+)").unwrap();
    let mut names = BTreeSet::new();
    for (directory, unit) in [("src", true), ("tests/integration", false)] {
        let root = repository().join(directory);
        for file in sources(&root) {
            let inside = file.strip_prefix(&root).unwrap().with_extension("");
            let mut modules: Vec<_> = inside
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .filter(|part| part != "mod")
                .collect();
            if unit && modules.iter().all(|module| module != "tests") {
                modules.push("tests".to_owned());
            }
            let text = fs::read_to_string(&file).unwrap();
            names.extend(
                function.captures_iter(&text).map(|found| format!("{}::{}", modules.join("::"), &found[2])),
            );
        }
    }
    names
}

#[test]
fn no_statement_is_missing_and_every_one_names_its_tests() {
    let statements = statements();
    let expected: BTreeSet<_> = CHAPTERS
        .iter()
        .flat_map(|&(letter, count)| (1..=count).map(move |number| (letter, number)))
        .collect();
    assert_eq!(statements.keys().copied().collect::<BTreeSet<_>>(), expected);
    let known = tests();
    for ((letter, number), named) in &statements {
        assert!(!named.is_empty(), "{letter}{number} names no test");
        for test in named {
            assert!(known.contains(test), "{letter}{number}: there is no test {test}");
        }
    }
}

#[test]
fn every_warning_has_its_statement() {
    let warning = Regex::new(r#"(?:Warning::new\(|warn\(|^\s*|\(\s*)"([A-E])(\d+)","#).unwrap();
    let statements = statements();
    let mut seen = BTreeSet::new();
    for file in sources(&repository().join("src/mta")) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines() {
            if let Some(found) = warning.captures(line) {
                let id = (found[1].parse().unwrap(), found[2].parse().unwrap());
                assert!(statements.contains_key(&id), "{}: {id:?} is no statement", file.display());
                seen.insert(id);
            }
        }
    }
    assert!(seen.len() > 20, "only {seen:?}");
}

/// An example on a library, and milter-send in front of it; what the example printed.
fn play(library: Library, example: &str, arguments: &[&str]) -> String {
    let dir = temp_dir();
    let program = dir.path().join(example);
    compile_c(&format!("examples-c/{example}.c"), &program);
    let socket = dir.path().join("s");
    let log = dir.path().join("log");
    let mut command = library.command(&program);
    let filter = Daemon::start(
        command.arg(format!("unix:{}", socket.display())).stdout(fs::File::create(&log).unwrap()),
    );
    wait_until("the filter listens", || socket.exists());
    let sent = Command::new(milter_send())
        .arg(&socket)
        .args(arguments)
        .arg(repository().join("tests/messages/8bit.eml"))
        .output()
        .unwrap();
    assert!(sent.status.success(), "{example}: {sent:?}");
    filter.signal(libc::SIGKILL);
    String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned()
}

#[test]
fn the_examples_need_no_macro() {
    let names =
        "j i _ v daemon_name daemon_addr mail_addr mail_host mail_mailer rcpt_addr rcpt_host rcpt_mailer";
    let unset: Vec<_> = names.split(' ').flat_map(|name| ["-m", name]).collect();
    for library in Library::BOTH {
        for example in ["add-header", "log-everything", "block-list", "edit-message"] {
            play(library, example, &unset);
        }
    }
}

#[test]
fn refused_recipients_reach_the_callback() {
    let macros =
        ["-m", "rcpt:rcpt_mailer=error", "-m", "rcpt:rcpt_host=5.1.1", "-m", "rcpt:rcpt_addr=User unknown"];
    let arguments = [&macros[..], &["-t", "<nobody@example.org>"]].concat();
    for library in Library::BOTH {
        let said = play(library, "log-everything", &arguments);
        for line in
            ["rcpt: <nobody@example.org>", "macro {rcpt_mailer} = error", "macro {rcpt_addr} = User unknown"]
        {
            assert!(said.contains(line), "{library:?}: no {line:?} in\n{said}");
        }
    }
}
