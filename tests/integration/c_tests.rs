//! The API as C sees it: the programs in `c-tests/`, run on the reference and on ours. Their output, and what goes
//! over the wire meanwhile, must be equal; the differences that are meant stand here, each with its name.

use crate::support::{Daemon, Library, c_compiler, compile_c, repository, run, stdout, temp_dir};
use crate::wire::{ACTIONS, Mta, STEPS};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A line that the reference prints, the line that ours prints in its place, and the entry of
/// `docs/compatibility.md` that says why.
type Difference = (&'static str, &'static str, &'static str);

/// Compiles one of the programs.
fn compile(name: &str, dir: &Path) -> PathBuf {
    let program = dir.join(name);
    compile_c(&format!("c-tests/{name}.c"), &program);
    program
}

/// Checks that `ours` is `reference` but for the differences, of which each must be there.
#[track_caller]
fn compare(reference: &str, ours: &str, differences: &[Difference]) {
    let mut expected: Vec<String> = reference.lines().map(str::to_owned).collect();
    let documented = fs::read_to_string(repository().join("docs/compatibility.md")).unwrap();
    for (theirs, own, name) in differences {
        let entry = |line: &str| line.starts_with("#### ") && line.contains(&format!("`{name}`"));
        assert!(documented.lines().any(entry), "docs/compatibility.md has no entry {name}");
        let mut found = false;
        for line in expected.iter_mut().filter(|line| line == theirs) {
            *line = (*own).to_owned();
            found = true;
        }
        assert!(found, "the reference no longer prints {theirs:?} ({name}):\n{reference}");
    }
    let ours: Vec<&str> = ours.lines().collect();
    for (number, (expected, own)) in expected.iter().zip(&ours).enumerate() {
        assert_eq!(expected, own, "line {}", number + 1);
    }
    assert_eq!(expected.len(), ours.len(), "number of lines");
}

/// Runs a filter on a library, and a mail server's side against it; the wire's transcript and the filter's output.
fn session(library: Library, program: &Path, arguments: &[&str], play: fn(Mta) -> String) -> String {
    if library == Library::Reference {
        // On a loaded machine the reference now and then ends a session by itself.
        for _ in 0..5 {
            if let Ok(transcript) =
                std::panic::catch_unwind(|| session_once(library, program, arguments, play))
            {
                return transcript;
            }
        }
    }
    session_once(library, program, arguments, play)
}

fn session_once(library: Library, program: &Path, arguments: &[&str], play: fn(Mta) -> String) -> String {
    let dir = temp_dir();
    let (socket, log) = (dir.path().join("s"), dir.path().join("log"));
    let arguments = arguments.iter().map(|argument| argument.replace("SOCKET", socket.to_str().unwrap()));
    let filter = Daemon::start(library.command(program).args(arguments).stdout(File::create(&log).unwrap()));
    let wire = play(Mta::connect(&socket));
    // The filter's close callback has ended: all is printed. The reference takes seconds for an orderly end.
    filter.signal(libc::SIGKILL);
    format!("{wire}{}", fs::read_to_string(log).unwrap())
}

#[test]
fn functions_outside_of_callbacks() {
    let dir = temp_dir();
    let program = compile("control", dir.path());
    let [reference, ours] = Library::BOTH.map(|library| {
        let empty = temp_dir();
        stdout(library.command(&program).current_dir(empty.path()))
    });
    let checked = "null-and-unregistered";
    let clear = "socket-spec";
    compare(
        &reference,
        &ours,
        &[
            ("main before all else: crash", "main before all else: -1", checked),
            ("main without register: 0 crash", "main without register: 0 -1", checked),
            ("setsymlist of NULL: crash", "setsymlist of NULL: -1", checked),
            (
                "a bad register takes the good one back: 0 -1 0 0",
                "a bad register takes the good one back: 0 -1 0 -1",
                "failed-register",
            ),
            ("spec unix:: 0 0", "spec unix:: 0 -1", clear),
            ("spec :: 0 0", "spec :: 0 -1", clear),
            ("spec inet:99999: 0 0", "spec inet:99999: 0 -1", clear),
            ("spec inet:1x: 0 0", "spec inet:1x: 0 -1", clear),
            ("path of 107 bytes: 0 -1", "path of 107 bytes: 0 0", "unix-path-length"),
        ],
    );
}

/// A session with every callback in it, the abort of a message too.
fn every_callback(mut mta: Mta) -> String {
    // Every name has a value: behind one that has none the reference reads on beyond its list.
    mta.negotiate(ACTIONS, STEPS)
        .tell('D', b"Cj\0mail.example.org\0{client_addr}\x00192.0.2.1\0{empty}\0\0")
        .ask('C', b"client.example\x004\x12\x34192.0.2.1\0")
        .ask('H', b"client.example\0")
        .tell('D', b"M{i}\0QUEUEID\0{mail_addr}\0a@example.org\0")
        .ask('M', b"<a@example.org>\0SIZE=10\0")
        .ask('R', b"<b@example.org>\0")
        .tell('A', b"")
        .ask('M', b"<a@example.org>\0")
        .ask('U', b"WHAT IS THIS\0")
        .ask('M', b"<a@example.org>\0")
        .ask('R', b"<b@example.org>\0")
        .ask('T', b"")
        .ask('L', b"Subject\0hello\0")
        .ask('N', b"")
        .ask('B', b"body\r\n")
        .ask('E', b"");
    mta.quit()
}

#[test]
fn functions_in_callbacks() {
    let dir = temp_dir();
    let program = compile("callbacks", dir.path());
    for actions in ["1ff", "0", "1", "90"] {
        let [reference, ours] =
            Library::BOTH.map(|lib| session(lib, &program, &["unix:SOCKET", actions], every_callback));
        compare(&reference, &ours, &[]);
    }
}

/// Asks for each of the cases of replies.c.
fn every_reply(mut mta: Mta) -> String {
    mta.negotiate(ACTIONS, STEPS)
        .ask('C', b"client.example\x00U")
        .ask('H', b"client.example\0")
        .ask('M', b"<>\0");
    for case in (0..=17).chain(100..=140) {
        mta.ask('R', format!("{case}\0").as_bytes()).ask('R', format!("{case}\0later\0").as_bytes());
    }
    mta.quit()
}

#[test]
fn replies() {
    let dir = temp_dir();
    let program = compile("replies", dir.path());
    let [reference, ours] =
        Library::BOTH.map(|library| session(library, &program, &["unix:SOCKET"], every_reply));
    compare(&reference, &ours, &[("< y 550-5.7.1\\x00", "< y 550 5.7.1\\x00", "mlreply-without-lines")]);
}

/// A session with the commands that old structs have no callbacks for.
fn old_session(mut mta: Mta) -> String {
    mta.negotiate(ACTIONS, STEPS)
        .ask('C', b"client.example\x00U")
        .ask('H', b"client.example\0")
        .ask('U', b"WHAT\0")
        .ask('M', b"<>\0")
        .ask('R', b"<a@example.org>\0")
        .ask('T', b"")
        .ask('L', b"Subject\0hello\0")
        .ask('N', b"")
        .ask('E', b"");
    mta.quit()
}

#[test]
fn a_short_struct_of_an_old_version_is_not_read_past_its_end() {
    let dir = temp_dir();
    let program = compile("old-struct", dir.path());
    for version in ["2", "3", "4"] {
        let [reference, ours] =
            Library::BOTH.map(|library| session(library, &program, &[version, "unix:SOCKET"], old_session));
        compare(&reference, &ours, &[]);
        assert!(!ours.contains("behind the struct"), "{ours}");
    }
}

#[test]
fn types_and_layout_are_the_references() {
    let dir = temp_dir();
    // Debian's header by itself: the others beside it are this machine's and not for a compiler for another one.
    symlink("/usr/include/libmilter", dir.path().join("libmilter")).unwrap();
    let [reference, ours] = [dir.path().to_owned(), repository().join("include")].map(|include| {
        let program = dir.path().join("types");
        run(Command::new(c_compiler())
            .args(["-std=gnu11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
            .arg(include)
            .arg(repository().join("c-tests/types.c"))
            .arg("-o")
            .arg(&program));
        stdout(&mut Library::Ours.command(&program))
    });
    assert_eq!(reference, ours);
}
