//! The ABI of the release build: what a program that was linked against the reference finds in our library.

use crate::install::install;
use crate::support::{Library, compile_c, release_dir, repository, run, stdout, temp_dir};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What programs take from the reference although no header declares it (`26-symbols`).
const UNDECLARED: [&str; 6] =
    ["mi_stop", "sm_errstring", "sm_strlcat", "sm_strlcat2", "sm_strlcpy", "sm_strlcpyn"];

/// Whether it is one of the functions that a program may use.
fn is_for_programs(name: &str) -> bool {
    name.starts_with("smfi_") || UNDECLARED.contains(&name)
}

/// The lines of a tool's output about a file.
fn lines(tool: &str, options: &[&str], file: &Path) -> Vec<String> {
    let output = stdout(Command::new(tool).env("LC_ALL", "C").args(options).arg(file));
    output.lines().map(str::to_owned).collect()
}

/// The functions that a shared library exports, and what else it does, as `nm` prints their names.
fn exports(library: Library) -> BTreeSet<String> {
    let symbols = lines("nm", &["-D", "--defined-only", "--format=posix"], &library.file());
    symbols
        .iter()
        .map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [name, "T", ..] => name.to_owned(),
            _ => line.clone(),
        })
        .collect()
}

#[test]
fn exports_are_the_functions_of_libmilter_and_nothing_else() {
    let ours = exports(Library::Ours);
    assert_eq!(ours.len(), 26 + UNDECLARED.len());
    let mut reference = exports(Library::Reference);
    reference.retain(|name| is_for_programs(name));
    assert_eq!(ours, reference);
}

#[test]
fn what_no_header_declares_does_the_same() {
    let dir = temp_dir();
    let program = dir.path().join("undeclared");
    compile_c("c-tests/undeclared.c", &program);
    let run_on = |library: Library, arguments: &[&str]| {
        let empty = temp_dir();
        stdout(library.command(&program).current_dir(empty.path()).args(arguments))
    };
    let [reference, ours] = Library::BOTH.map(|library| run_on(library, &[]));
    assert!(reference.lines().count() > 70_000);
    for (reference, ours) in reference.lines().zip(ours.lines()) {
        assert_eq!(reference, ours);
    }
    assert_eq!(reference.lines().count(), ours.lines().count());
    for (way, state) in [("smfi_stop", 1), ("1", 1), ("15", 1), ("2", 2)] {
        let [reference, ours] = Library::BOTH.map(|library| run_on(library, &[way]));
        assert_eq!(reference, ours);
        assert!(ours.ends_with(&format!("smfi_main 0\nafterwards {state}\n")), "{ours}");
    }
}

/// The program that AC_CHECK_LIB makes to see whether a library has a function.
fn configure_finds(function: &str, dir: &Path) -> bool {
    let (source, program) = (dir.join("conftest.c"), dir.join("conftest"));
    fs::write(
        &source,
        format!("char {function} ();\nint\nmain (void)\n{{\nreturn {function} ();\n  ;\n  return 0;\n}}\n"),
    )
    .unwrap();
    let mut link = Command::new("cc");
    link.args(["-g", "-O2", "-o"])
        .arg(program)
        .arg(source)
        .arg("-L")
        .arg(dir)
        .args(["-lmilter", "-lpthread"]);
    link.output().unwrap().status.success()
}

#[test]
fn configure_scripts_find_the_library_by_what_they_look_for() {
    let (shared, fixed) = (temp_dir(), temp_dir());
    fs::copy(Library::Ours.file(), shared.path().join("libmilter.so")).unwrap();
    let prefix = fixed.path().join("prefix");
    install(&prefix);
    fs::copy(prefix.join("lib/libmilter.a"), fixed.path().join("libmilter.a")).unwrap();
    for function in ["mi_stop", "sm_strlcpy", "smfi_main", "smfi_register", "smfi_setmlreply"] {
        assert!(configure_finds(function, shared.path()), "{function}");
        assert!(configure_finds(function, fixed.path()), "{function}, static");
    }
    assert!(!configure_finds("mi_go", shared.path()) && !configure_finds("mi_go", fixed.path()));
}

#[test]
fn a_programs_own_functions_win() {
    let dir = temp_dir();
    let own = "101 102 103 104 105 106\n";
    let program = dir.path().join("shared");
    compile_c("c-tests/own-functions.c", &program);
    for library in Library::BOTH {
        assert_eq!(stdout(&mut library.command(&program)), own);
    }
    let (prefix, program) = (dir.path().join("prefix"), dir.path().join("static"));
    install(&prefix);
    run(Command::new("cc")
        .arg("-I")
        .arg(prefix.join("include"))
        .arg(repository().join("c-tests/own-functions.c"))
        .arg(prefix.join("lib/libmilter.a"))
        .arg("-o")
        .arg(&program));
    assert_eq!(stdout(&mut Command::new(&program)), own);
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
        .filter(|name| is_for_programs(name))
        .collect();
    assert_eq!(defined, exports(Library::Ours));
}

/// A program may have another static library that was written in Rust, perhaps with the same compiler: the names of the
/// standard library must not meet.
#[test]
fn static_library_is_one_small_object_without_names_of_its_own() {
    let dir = temp_dir();
    let prefix = dir.path().join("prefix");
    install(&prefix);
    let library = prefix.join("lib/libmilter.a");
    assert_eq!(lines("ar", &["t"], &library).len(), 1);
    let size = fs::metadata(&library).unwrap().len();
    assert!(size < 3 << 20, "{size} bytes");
    assert!(!lines("readelf", &["-SW"], &library).iter().any(|line| line.contains(" .debug")));
    let symbols = lines("nm", &["-g", "--defined-only", "--format=posix"], &library);
    let names: BTreeSet<_> =
        symbols.iter().filter_map(|line| line.split_once(" T ").map(|(name, _)| name)).collect();
    let weak: BTreeSet<_> =
        symbols.iter().filter_map(|line| line.split_once(" W ").map(|(name, _)| name)).collect();
    assert_eq!(weak, BTreeSet::from(UNDECLARED));
    let of_api =
        exports(Library::Ours).into_iter().filter(|name| name.starts_with("smfi_")).collect::<Vec<_>>();
    assert_eq!(names, of_api.iter().map(String::as_str).collect());
    // The name of the member is the only other line.
    assert_eq!(symbols.len(), names.len() + weak.len() + 1, "{symbols:?}");

    let (other, source, program) =
        (dir.path().join("libother.a"), dir.path().join("other.rs"), dir.path().join("program"));
    fs::write(
        &source,
        "#[unsafe(no_mangle)]\npub extern \"C\" fn other(n: i32) -> usize { format!(\"{n}\").len() }\n",
    )
    .unwrap();
    run(Command::new("rustc")
        .args(["--edition", "2024", "--crate-type", "staticlib", "-O", "-o"])
        .arg(&other)
        .arg(&source));
    let main = dir.path().join("main.c");
    fs::write(
        &main,
        "#include <libmilter/mfapi.h>\nsize_t other(int);\n\
         int main(void) { return other(1234) == 4 && smfi_setconn(\"unix:x\") == MI_SUCCESS ? 0 : 1; }\n",
    )
    .unwrap();
    // All of both, whether the program needs it or not.
    run(Command::new("cc")
        .arg("-I")
        .arg(prefix.join("include"))
        .arg(main)
        .arg("-Wl,--whole-archive")
        .args([&library, &other])
        .arg("-Wl,--no-whole-archive")
        .arg("-o")
        .arg(&program));
    run(&mut Command::new(program));
}

/// Which file a function of the library in a program was compiled from, as far as the program can tell.
fn source_of(function: &str, program: &Path) -> String {
    let symbols = lines("nm", &["--format=posix"], program);
    let address =
        symbols.iter().find_map(|line| line.strip_prefix(&format!("{function} T "))?.split(' ').next());
    stdout(Command::new("addr2line").arg("-e").arg(program).arg(address.unwrap()))
}

#[test]
fn a_program_can_have_debug_information_of_the_static_library() {
    let dir = temp_dir();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debug");
    let mut make = Command::new("make");
    make.arg("-C").arg(repository()).args(["-s", "static-debug", "PROFILE=dev"]);
    run(make.arg(format!("TARGET={}", target.display())));
    let prefix = dir.path().join("prefix");
    install(&prefix);
    let (with, without) = (target.join("static-debug/lib/libmilter.a"), prefix.join("lib/libmilter.a"));
    let [with, without] = [with, without].map(|library| {
        let program = dir.path().join("program");
        let mut link = Command::new("cc");
        link.arg("-I").arg(prefix.join("include")).arg(repository().join("examples-c/add-header.c"));
        run(link.arg(&library).arg("-o").arg(&program));
        let exported = lines("nm", &["-g", "--defined-only", "--format=posix"], &library);
        let functions = exported.iter().filter(|line| line.contains(" T ")).count();
        assert_eq!(functions, 26, "{}", library.display());
        ["smfi_main", "smfi_setconn", "smfi_register"].map(|function| source_of(function, &program))
    });
    assert!(with.iter().all(|source| source.contains("/src/ffi/library.rs:")), "{with:?}");
    assert!(without.iter().all(|source| source.starts_with("??")), "{without:?}");
}

/// The scope of the comparison: Debian's build also exports the inside of the library, which no header declares.
const SCOPE: &str = "\
[suppress_function]
symbol_name_regexp = ^(freehostent|mi_([^s]|s[^t]|st[^o]|stop_).*)$
[suppress_variable]
symbol_name_regexp = .*
";

#[test]
fn abidiff_finds_no_change_in_the_interface() {
    let dir = temp_dir();
    let file = dir.path().join("scope.abignore");
    fs::write(&file, SCOPE).unwrap();
    let report = stdout(
        Command::new("abidiff")
            .arg("--suppressions")
            .arg(file)
            .args([Library::Reference.file(), Library::Ours.file()]),
    );
    assert!(
        report.lines().any(|line| line.starts_with("Function symbols changes summary: 0 Removed")),
        "{report}"
    );
}
