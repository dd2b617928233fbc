//! Programs that are built from source against our installed header and library: the extension modules of pymilter
//! and Sendmail::Milter, once through `milter.pc` and once with nothing but `-lmilter`; and the C examples, linked
//! statically by plain `cc`, which need no more than the C library and what the compiler adds by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::filters::{data, listens, source};
use crate::install::{dynamic, install, pkg_config};
use crate::support::{Daemon, SONAME, milter_send, repository, run, stdout, temp_dir, wait_until};

/// How a build is told where the library is.
#[derive(Clone, Copy)]
enum Through {
    PkgConfig,
    PlainName,
}

impl Through {
    const BOTH: [Self; 2] = [Self::PkgConfig, Self::PlainName];

    /// What the compiler is told.
    fn cflags(self, prefix: &Path) -> String {
        match self {
            Self::PkgConfig => pkg_config(prefix, "--cflags").join(" "),
            Self::PlainName => format!("-I{}/include", prefix.display()),
        }
    }

    /// What the linker is told.
    fn libs(self, prefix: &Path) -> String {
        match self {
            Self::PkgConfig => pkg_config(prefix, "--libs").join(" "),
            Self::PlainName => format!("-L{}/lib -lmilter", prefix.display()),
        }
    }
}

/// Unpacks a source archive into `dir`.
fn unpack(archive: &str, dir: &Path) {
    fs::create_dir(dir).unwrap();
    run(Command::new("tar").arg("-xzf").arg(source(archive)).args(["--strip-components=1", "-C"]).arg(dir));
}

/// The only file below `dir` whose name ends so.
fn only_file(dir: &Path, ending: &str) -> PathBuf {
    let found = stdout(Command::new("find").arg(dir).arg("-name").arg(format!("*{ending}")));
    let [file] = found.lines().collect::<Vec<_>>()[..] else { panic!("{ending}: {found}") };
    file.into()
}

/// Checks that the compiler took our header: `dependencies` is what -MD wrote.
fn assert_includes_ours(dependencies: &Path, prefix: &Path) {
    let files = fs::read_to_string(dependencies).unwrap();
    assert!(files.contains(prefix.join("include/libmilter/mfapi.h").to_str().unwrap()), "{files}");
    assert!(!files.contains("/usr/include/libmilter"), "{files}");
}

/// Runs a filter on the installed library and sends it a mail; it must make the changes of `every-call`.
fn filters_mail(command: &mut Command, socket: &Path, prefix: &Path) {
    command.env("LD_LIBRARY_PATH", prefix.join("lib")).arg(socket).stdout(Stdio::null());
    let filter = Daemon::start(command);
    wait_until("the filter", || listens("self", socket));
    assert!(filter.has_mapped(&prefix.join("lib").join(SONAME)), "it does not run on the installed library");
    let output = Command::new(milter_send())
        .arg(socket)
        .arg(repository().join("examples-c/demo.eml"))
        .output()
        .unwrap();
    let dialogue = String::from_utf8_lossy(&output.stderr);
    for change in
        ["+ add header X-Added: at the end", "+ change header 1 of Subject: Changed", "+ replace body"]
    {
        assert!(dialogue.contains(change), "{change}\n{dialogue}");
    }
}

#[test]
fn pymilter_from_source() {
    let dir = temp_dir();
    let prefix = dir.path().join("prefix");
    install(&prefix);
    for (through, name) in Through::BOTH.into_iter().zip(["pc", "plain"]) {
        let build = dir.path().join(name);
        unpack("pymilter-1.0.5.tar.gz", &build);
        // Its setup.py links with -lmilter itself.
        run(Command::new("/usr/bin/python3")
            .current_dir(&build)
            .env("CFLAGS", format!("-MD {}", through.cflags(&prefix)))
            .env("LDFLAGS", through.libs(&prefix))
            .args(["setup.py", "-q", "build_ext", "--inplace"]));
        assert_includes_ours(&only_file(&build, "miltermodule.d"), &prefix);

        let tests = Command::new("/usr/bin/python3")
            .current_dir(&build)
            .env("LD_LIBRARY_PATH", prefix.join("lib"))
            .args(["-m", "unittest", "testmime", "testutils"])
            .output()
            .unwrap();
        let report = String::from_utf8_lossy(&tests.stderr);
        assert!(tests.status.success() && report.contains("Ran 17 tests"), "{report}");
        filters_mail(
            Command::new("/usr/bin/python3").env("PYTHONPATH", &build).arg("-u").arg(data("every-call.py")),
            &dir.path().join(format!("{name}.sock")),
            &prefix,
        );
    }
}

#[test]
fn sendmail_milter_for_perl_from_source() {
    let dir = temp_dir();
    let prefix = dir.path().join("prefix");
    install(&prefix);
    for (through, name) in Through::BOTH.into_iter().zip(["pc", "plain"]) {
        let build = dir.path().join(name);
        unpack("libsendmail-milter-perl_0.18.orig.tar.gz", &build);
        // What today's Perl needs of a source from 2001: a macro that is a statement, and lengths of the right type.
        run(Command::new("sed")
            .current_dir(&build)
            .args(["-i", "-e", "s/^\t(XPUSHs(/\tXPUSHs(/", "-e", "s/(IV) ctx))))/(IV) ctx)))/"])
            .args(["-e", "s/^\\(\t*\\)int len;/\\1STRLEN len;/", "callbacks.c", "intpools.c", "Milter.xs"]));
        // It asks for the trees of sendmail's source; the settings of make win over what it makes of them.
        run(Command::new("perl").current_dir(&build).args(["Makefile.PL", "/nowhere", "/nowhere"]));
        run(Command::new("make")
            .current_dir(&build)
            .arg(format!("INC=-MD {}", through.cflags(&prefix)))
            .arg(format!("LDLOADLIBS={} -lpthread", through.libs(&prefix))));
        assert_includes_ours(&only_file(&build, "callbacks.d"), &prefix);
        filters_mail(
            Command::new("perl")
                .arg(format!("-I{}", build.join("blib/lib").display()))
                .arg(format!("-I{}", build.join("blib/arch").display()))
                .arg(data("every-call.pl")),
            &dir.path().join(format!("{name}.sock")),
            &prefix,
        );
    }
}

#[test]
fn examples_linked_statically() {
    let dir = temp_dir();
    let prefix = dir.path().join("prefix");
    install(&prefix);
    for example in ["add-header", "block-list", "edit-message", "log-everything"] {
        let program = dir.path().join(example);
        run(Command::new("cc")
            .args(["-I"])
            .arg(prefix.join("include"))
            .arg(repository().join("examples-c").join(example).with_extension("c"))
            .arg(prefix.join("lib/libmilter.a"))
            .arg("-o")
            .arg(&program));
        let needed = dynamic(&program, "(NEEDED)");
        let system = |name: &String| {
            ["libc.so.", "libgcc_s.so.", "ld-linux"].iter().any(|known| name.starts_with(known))
        };
        assert!(needed.iter().all(system), "{needed:?}");
        let socket = dir.path().join(format!("{example}.sock"));
        let filter = Daemon::start(Command::new(&program).arg(&socket).stdout(Stdio::null()));
        wait_until("the filter", || listens("self", &socket));
        let message = repository().join("examples-c/demo.eml");
        run(Command::new(milter_send()).arg(&socket).arg(message));
        drop(filter);
    }
}
