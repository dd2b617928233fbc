//! The manual pages in `docs/man`: well-formed, one for each function, their synopses as the header has them, and their
//! examples compiled and run.

use crate::install::make;
use crate::mail_servers::filter::Endpoint;
use crate::support::{
    Daemon, Library, compile_c, milter_send, repository, run, stdout, temp_dir, wait_until,
};
use regex::Regex;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The pages of the manual, sorted.
pub fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join("docs/man")).unwrap();
    let mut pages: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    pages
}

/// The pages of functions: the name of the function, and the text.
fn functions() -> Vec<(String, String)> {
    let pages = pages().into_iter();
    pages
        .map(|page| (page.file_stem().unwrap().to_str().unwrap().to_owned(), page))
        .filter(|(name, _)| name.starts_with("smfi_"))
        .map(|(name, page)| (name, fs::read_to_string(page).unwrap()))
        .collect()
}

/// What stands in a section of a page.
fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let (_, rest) =
        page.split_once(&format!("\n.Sh {title}\n")).unwrap_or_else(|| panic!("{title}:\n{page}"));
    rest.split_once("\n.Sh ").map_or(rest, |(section, _)| section)
}

#[test]
fn pages_are_well_formed() {
    run(Command::new("mandoc").args(["-Tlint", "-Wwarning"]).args(pages()));
}

#[test]
fn every_function_of_the_header_has_its_page() {
    let header = fs::read_to_string(repository().join("include/libmilter/mfapi.h")).unwrap();
    let declared = Regex::new(r"(?m)^LIBMILTER_API .*?(smfi_\w+)\(").unwrap();
    let declared: BTreeSet<_> = declared.captures_iter(&header).map(|found| found[1].to_owned()).collect();
    let described: BTreeSet<_> = functions().into_iter().map(|(name, _)| name).collect();
    assert_eq!(declared.len(), 26);
    assert_eq!(declared, described);
    // And the overview names each.
    let overview = fs::read_to_string(repository().join("docs/man/libmilter.3")).unwrap();
    for name in declared {
        assert!(overview.contains(&format!(".It Xr {name} 3\n")), "{name}");
    }
}

/// The declaration that the macros of a synopsis stand for.
fn declaration(synopsis: &str) -> String {
    let (mut result, mut name, mut parameters) = (None, None, Vec::new());
    for line in synopsis.lines() {
        let (macro_name, argument) = line.split_once(' ').unwrap_or((line, ""));
        let argument = argument.trim_matches('"');
        match macro_name {
            ".In" => assert_eq!(argument, "libmilter/mfapi.h"),
            ".Ft" => result = Some(argument),
            ".Fo" => name = Some(argument),
            ".Fa" => parameters.push(argument),
            ".Fc" => {}
            _ => panic!("{line}"),
        }
    }
    format!("{} {}({});\n", result.unwrap(), name.unwrap(), parameters.join(", "))
}

/// A declaration that does not agree with the header's is an error to the compiler.
#[test]
fn synopses_agree_with_the_header() {
    let mut program = "#include <libmilter/mfapi.h>\n".to_owned();
    for (name, page) in functions() {
        let declaration = declaration(section(&page, "SYNOPSIS"));
        assert!(declaration.contains(&format!(" {name}(")), "{declaration}");
        program += &declaration;
    }
    let dir = temp_dir();
    let source = dir.path().join("synopses.c");
    let compile = |program: &str| {
        fs::write(&source, program).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]);
        cc.arg(repository().join("include")).arg(&source).output().unwrap()
    };
    let compiled = compile(&program);
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let wrong = program.replace("int index", "long index");
    assert_ne!(wrong, program);
    assert!(!compile(&wrong).status.success());
}

/// The C in a page's examples.
fn example(page: &str) -> String {
    let (_, code) = section(page, "EXAMPLES").split_once(".Bd -literal -offset indent\n").unwrap();
    let (code, _) = code.split_once("\n.Ed").unwrap();
    code.lines().map(|line| line.trim_start_matches("\\&").replace("\\e", "\\") + "\n").collect()
}

/// A whole filter of what an example shows: some callbacks, what is done before the socket is opened, or all.
fn whole(example: &str) -> String {
    if example.contains("\nmain(") {
        return example.to_owned();
    }
    let mut members = String::new();
    for (function, member) in [
        ("at_negotiate", "negotiate"),
        ("at_helo", "helo"),
        ("at_mail", "envfrom"),
        ("at_rcpt", "envrcpt"),
        ("at_eom", "eom"),
        ("at_close", "close"),
    ] {
        if example.contains(&format!("\n{function}(")) {
            members += &format!(".xxfi_{member} = {function}, ");
        }
    }
    let configured = if example.contains("\nconfigure(") { "configure() == MI_SUCCESS" } else { "1" };
    format!(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <libmilter/mfapi.h>\n{example}
int main(int argc, char **argv)
{{
    struct smfiDesc filter = {{ .xxfi_name = \"example\", .xxfi_version = SMFI_VERSION, .xxfi_flags = 0x1ff, {members} }};
    return argc == 2 && {configured} && smfi_register(filter) == MI_SUCCESS &&
        smfi_setconn(argv[1]) == MI_SUCCESS && smfi_main() == MI_SUCCESS ? 0 : 1;
}}
"
    )
}

/// Compiles and runs the filter of an example, plays a message to it, stops it; what milter-send and the filter said.
#[track_caller]
fn play(name: &str, example: &str, options: &[&str], status: i32) -> String {
    let dir = temp_dir();
    let [source, program, socket, log] =
        ["example.c", "example", "s", "log"].map(|file| dir.path().join(file));
    fs::write(&source, whole(example)).unwrap();
    compile_c(source.to_str().unwrap(), &program);
    let mut command = Library::Ours.command(&program);
    let file = fs::File::create(&log).unwrap();
    command.arg(format!("unix:{}", socket.display()));
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let mut filter = Daemon::start(&mut command);
    Endpoint::Unix(socket.clone()).await_listener();
    let played = Command::new(milter_send())
        .args([&socket, Path::new("examples-c/demo.eml")])
        .args(options)
        .current_dir(repository())
        .output()
        .unwrap();
    let said =
        [played.stderr, played.stdout].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert_eq!(played.status.code(), Some(status), "{name}: {said}");
    // smfi_stop's filter ends by itself.
    if name == "smfi_stop" {
        wait_until("the end of the filter", || filter.ended().is_some());
    } else {
        filter.signal(libc::SIGTERM);
    }
    assert!(filter.wait().success(), "{name}");
    said + &fs::read_to_string(log).unwrap()
}

#[test]
fn examples_do_what_their_pages_say() {
    const ACCEPTED: &str = "accepted at BODYEOB";
    const PAGES: &[(&str, &[&str], i32, &[&str])] = &[
        ("smfi_addheader", &[], 0, &["\nX-Scanned: yes\n"]),
        ("smfi_addrcpt", &[], 0, &["recipient  <archive@example.org>"]),
        ("smfi_addrcpt_par", &[], 0, &["recipient  <audit@example.org> NOTIFY=NEVER"]),
        ("smfi_chgfrom", &[], 0, &["sender     <bounces@example.org>"]),
        ("smfi_chgheader", &[], 0, &["\nSubject: changed\n", "+ delete header 1 of X-Internal"]),
        (
            "smfi_delrcpt",
            &["-t", "<recipient@example.org>"],
            0,
            &["+ delete recipient <recipient@example.org>"],
        ),
        ("smfi_getpriv", &["--helo", "mail.example.com"], 0, &["\nX-Helo: mail.example.com\n"]),
        ("smfi_getsymval", &["-m", "i=QUEUEID"], 0, &["queue identifier: QUEUEID\n"]),
        ("smfi_insheader", &[], 0, &["\nX-First: on top\n"]),
        ("smfi_main", &[], 0, &["\nX-Seen: yes\n", "stopped\n"]),
        ("smfi_opensocket", &[], 0, &["\nX-Rights: few\n"]),
        ("smfi_progress", &[], 0, &["asked for more time"]),
        ("smfi_quarantine", &[], 5, &["looks like a virus"]),
        (
            "smfi_register",
            &["-t", "<bob@example.org>", "-t", "<eve@example.org> NOTIFY=NEVER"],
            0,
            &["refused"],
        ),
        ("smfi_replacebody", &[], 0, &["The body was removed."]),
        ("smfi_setbacklog", &[], 0, &[ACCEPTED]),
        ("smfi_setconn", &[], 0, &[ACCEPTED]),
        ("smfi_setdbg", &[], 0, &["example: ", " at stage "]),
        ("smfi_setmaxdatasize", &[], 0, &[ACCEPTED, "bytes: 65535\n"]),
        (
            "smfi_setmlreply",
            &[],
            3,
            &["451-4.7.1 Too much mail for this address", "451 4.7.1 Try again in an hour"],
        ),
        ("smfi_setpriv", &["-t", "<a@example.org>", "-t", "<b@example.org>"], 0, &["\nX-Recipients: 2\n"]),
        ("smfi_setreply", &[], 1, &["550 5.7.1 We take no mail from you"]),
        ("smfi_setsymlist", &[], 0, &["i {auth_authen}"]),
        ("smfi_settimeout", &[], 0, &[ACCEPTED]),
        ("smfi_stop", &[], 0, &[ACCEPTED]),
        ("smfi_version", &[], 0, &["libmilter 1.0.1\n"]),
    ];
    let functions = functions();
    let names: Vec<_> = functions.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, PAGES.iter().map(|page| page.0).collect::<Vec<_>>());
    for ((name, page), (_, options, status, wanted)) in functions.iter().zip(PAGES) {
        let example = example(page);
        assert!(example.contains(&format!("{name}(")), "{name} is not in its example");
        let said = play(name, &example, options, *status);
        for wanted in *wanted {
            assert!(said.contains(wanted), "{name}: {wanted:?} is not in\n{said}");
        }
    }
}

/// Every page becomes HTML, and what it links to here exists.
#[test]
fn the_manual_as_html() {
    let dir = temp_dir();
    let target = format!("TARGET={}", dir.path().display());
    stdout(make(&["-s", "manual"]).arg(&target));
    let link = Regex::new(r##"href="([^"#:]+)""##).unwrap();
    let api = dir.path().join("api");
    assert_eq!(fs::read_dir(&api).unwrap().count(), pages().len() + 1);
    let mut links = 0;
    for page in fs::read_dir(&api).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains("</html>"), "{}", page.display());
        for target in link.captures_iter(&text) {
            assert!(api.join(&target[1]).exists(), "{}: {}", page.display(), &target[1]);
            links += 1;
        }
    }
    assert!(links > 100, "{links}");
}

/// What differs from the original is told in one place: contract 3 only names it.
#[test]
fn every_difference_of_the_contract_is_described() {
    let read = |file: &str| fs::read_to_string(repository().join("docs").join(file)).unwrap();
    let name = Regex::new("`([^`]+)`").unwrap();
    let (contract, compatibility) = (read("contract/3-deviations.md"), read("compatibility.md"));
    let rows: Vec<_> =
        contract.lines().filter(|line| Regex::new(r"^\| \d+ \|").unwrap().is_match(line)).collect();
    assert!(rows.len() >= 25);
    let headings: BTreeSet<_> = compatibility
        .lines()
        .filter(|line| line.starts_with("#### "))
        .flat_map(|line| name.captures_iter(line).map(|found| found[1].to_owned()))
        .collect();
    let named = rows.iter().flat_map(|row| name.captures_iter(row)).map(|found| found[1].to_owned());
    let described_nowhere: Vec<_> = named.filter(|name| !headings.contains(name)).collect();
    assert_eq!(described_nowhere, Vec::<String>::new());
}

/// A link in the documents leads to a file that is there.
#[test]
fn links_between_documents_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#:]+)(?:#[^)]*)?\)").unwrap();
    let directories = ["", "docs", "docs/contract"].map(|directory| repository().join(directory));
    let files = directories.iter().flat_map(|directory| fs::read_dir(directory).unwrap());
    let files = files.map(|entry| entry.unwrap().path());
    let documents: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "md")).collect();
    assert!(documents.len() >= 10);
    let mut broken = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for target in link.captures_iter(&text) {
            if !document.parent().unwrap().join(&target[1]).exists() {
                broken.push(format!("{}: {}", document.display(), &target[1]));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// The newest section of the changelog is that of the version; so are the lock files.
#[test]
fn the_release_is_consistent() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = fs::read_to_string(repository().join("CHANGELOG.md")).unwrap();
    let newest = changelog.lines().find(|line| line.starts_with("## ")).unwrap();
    assert!(newest.starts_with(&format!("## {version},")), "{newest}");
    let package = fs::read_to_string(repository().join("packaging/debian/changelog")).unwrap();
    assert!(package.starts_with(&format!("libmilter-rs ({version}-")), "{package}");
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    assert!(
        readme
            .contains(&format!("    tar -xf libmilter-rs-{version}.tar.xz\n    cd libmilter-rs-{version}\n"))
    );
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let lock = fs::read_to_string(repository().join(lock)).unwrap();
        assert!(lock.contains(&format!("name = \"libmilter-rs\"\nversion = \"{version}\"\n")));
    }
}

/// The commands of the README's recipe, in order, with a database and a library of the test's own.
#[test]
fn the_diversion_in_the_readme_there_and_back() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, recipe) = readme.split_once("\n### In place of Debian's file\n").unwrap();
    let (recipe, _) = recipe.split_once("\n### ").unwrap();
    let (there, back) = recipe.split_once("To go back").unwrap();
    let commands = |text: &str| -> String {
        text.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| line.to_owned() + "\n").collect()
    };
    let dir = temp_dir();
    let [library, built, database] =
        ["libmilter.so.1.0.1", "target/lib", "dpkg"].map(|name| dir.path().join(name));
    for directory in [&built, &database] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(&library, "Debian's").unwrap();
    fs::write(built.join("libmilter.so.1.0.1"), "ours").unwrap();
    let find = "$(dpkg -L libmilter1.0.1 | grep '/libmilter\\.so\\.1\\.0\\.1$')";
    assert_eq!(commands(there).matches(find).count(), 1, "{there}");
    let found = stdout(Command::new("sh").args(["-c", &format!("echo {find}")]));
    assert_eq!(
        Path::new(found.trim()).canonicalize().unwrap(),
        Library::Reference.file().canonicalize().unwrap()
    );

    let adapted = |text: &str| {
        commands(text)
            .replace(find, library.to_str().unwrap())
            .replace("dpkg-divert", &format!("dpkg-divert --admindir {}", database.display()))
    };
    let set = adapted(there).lines().take_while(|line| line.contains('=')).collect::<Vec<_>>().join("\n");
    let shell = |script: &str| run(Command::new("sh").args(["-euc", script]).current_dir(dir.path()));
    shell(&adapted(there));
    assert_eq!(fs::read_to_string(&library).unwrap(), "ours");
    let kept = dir.path().join("debian-libmilter.so.1.0.1");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "Debian's");
    let diverted = |expected: bool| {
        let diversions = fs::read_to_string(database.join("diversions")).unwrap_or_default();
        assert_eq!(diversions.contains(library.to_str().unwrap()), expected, "{diversions}");
    };
    diverted(true);
    shell(&format!("{set}\n{}", adapted(back)));
    assert_eq!(fs::read_to_string(&library).unwrap(), "Debian's");
    assert!(!kept.exists());
    diverted(false);
}

/// The rule of the README in a profile that includes it, as Debian's profiles do from `local/`. The parser needs no kernel with AppArmor.
#[test]
fn the_apparmor_rule_in_the_readme_is_one() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, rule) = readme.split_once("\n    /opt/libmilter-rs/libmilter.so.1.0.1 ").unwrap();
    let (permissions, _) = rule.split_once('\n').unwrap();
    let rule = format!("  /opt/libmilter-rs/libmilter.so.1.0.1 {permissions}\n");
    let dir = temp_dir();
    let [local, profile] = ["local", "profile"].map(|name| dir.path().join(name));
    fs::write(&profile, format!("/usr/sbin/opendkim {{\n  #include \"{}\"\n}}\n", local.display())).unwrap();
    let parse = |rule: &str| {
        fs::write(&local, rule).unwrap();
        let mut parser = Command::new("/usr/sbin/apparmor_parser");
        parser.args(["--skip-kernel-load", "--skip-cache", "--debug"]).arg(&profile).output().unwrap()
    };
    let parsed = parse(&rule);
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
    // What it has understood: the file may be read, and mapped to be executed.
    let understood = String::from_utf8_lossy(&parsed.stdout);
    let entry = understood.lines().find(|line| line.contains("/opt/libmilter-rs/libmilter.so.1.0.1"));
    assert!(entry.is_some_and(|entry| entry.contains("\trm:rm\t")), "{understood}");
    assert!(!parse(rule.trim_end().trim_end_matches(',')).status.success(), "a rule ends with a comma");
}

/// Nothing in the unit files is unknown to systemd.
#[test]
fn unit_files_are_what_systemd_understands() {
    let dir = temp_dir();
    let drop_in = dir.path().join("opendkim.service.d/libmilter.conf");
    fs::create_dir(drop_in.parent().unwrap()).unwrap();
    let units = repository().join("docs/systemd");
    fs::copy("/lib/systemd/system/opendkim.service", dir.path().join("opendkim.service")).unwrap();
    fs::copy(units.join("opendkim.socket"), dir.path().join("opendkim.socket")).unwrap();
    let text = fs::read_to_string(units.join("opendkim.service.d-libmilter.conf")).unwrap();
    let complaints = |text: &str| {
        fs::write(&drop_in, text).unwrap();
        let verified = Command::new("systemd-analyze")
            .env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()))
            .arg("verify")
            .args(["opendkim.service", "opendkim.socket"].map(|unit| dir.path().join(unit)))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        said.lines()
            .filter(|line| line.contains(dir.path().to_str().unwrap()))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(complaints(&text), Vec::<String>::new());
    assert_eq!(complaints(&text.replace("WatchdogSec", "WatchdogSecs")).len(), 1);
}
