//! A filter that is started and stopped again and again, at random moments and in every way, while MTAs come and go
//! (`c-tests/cycles.c`); and the same with system calls that are late or fail (`c-tests/chaos.c`). The C program checks that
//! each session is closed once, each message ends once, and nothing runs afterwards. In `make check` this takes seconds;
//! `make soak` lets it last.

use crate::support::{Daemon, Library, compile_c_with, repository, run, temp_dir};
use milter::protocol::frame;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// MTAs at the same time.
const MTAS: usize = 8;

/// How many milliseconds each test lasts: a tenth of `make soak`, or two seconds.
fn duration() -> u64 {
    std::env::var("SOAK_SECONDS").map_or(2000, |seconds| seconds.parse::<u64>().unwrap() * 100)
}

/// Commands of a session that ends in order, after so many of them by hanging up.
pub fn dialogue(commands: usize) -> Vec<u8> {
    let offer = [6, 0x1ff, 0x1f_ffff].map(u32::to_be_bytes).concat();
    let whole: [(u8, &[u8]); 10] = [
        (b'O', &offer),
        (b'C', b"client\0U"),
        (b'H', b"chaos\0"),
        (b'M', b"<a@b>\0"),
        (b'R', b"<c@d>\0"),
        (b'L', b"Subject\0test\0"),
        (b'N', b""),
        (b'B', b"text\r\n"),
        (b'E', b""),
        (b'Q', b""),
    ];
    let mut bytes = Vec::new();
    for (kind, payload) in &whole[..commands] {
        frame::append(&mut bytes, *kind, &[payload]);
    }
    bytes
}

/// MTAs come and go until it is over.
fn besiege(socket: &Path, is_over: &AtomicBool, mut random: fastrand::Rng) {
    while !is_over.load(Ordering::Relaxed) {
        let Ok(mut mta) = UnixStream::connect(socket) else {
            // Between two runs.
            thread::sleep(Duration::from_micros(200));
            continue;
        };
        let _ = mta.set_read_timeout(Some(Duration::from_millis(300)));
        let mut bytes = dialogue(random.usize(0..=10));
        if random.u8(0..4) == 0 {
            bytes.truncate(random.usize(0..=bytes.len()));
        }
        // The filter may end the session at any moment.
        let _ = mta.write_all(&bytes);
        match random.u8(0..4) {
            0 => {}
            1 => thread::sleep(Duration::from_millis(random.u64(0..150))),
            _ => {
                let _ = mta.shutdown(Shutdown::Write);
                let _ = mta.read_to_end(&mut Vec::new());
            }
        }
    }
}

/// Lets the filter run with these variables in its environment, and MTAs besiege it; what it printed at its end.
fn play(variables: &[(&str, &str)], seed: u64, may_fail: bool) -> String {
    let dir = temp_dir();
    let (program, socket) = (dir.path().join("cycles"), dir.path().join("s"));
    // Its syslog stands in for the C library's only if it is exported.
    compile_c_with("c-tests/cycles.c", &program, &["-rdynamic"]);
    let (output, errors) = (dir.path().join("output"), dir.path().join("errors"));
    let mut command = Library::Ours.command(&program);
    command.arg(&socket).arg(duration().to_string()).arg(seed.to_string());
    if may_fail {
        command.arg("may-fail");
    }
    // Messages are not waited for.
    command.env("LIBMILTER_DRAIN", "0").envs(variables.iter().copied());
    let mut filter =
        Daemon::start(command.stdout(File::create(&output).unwrap()).stderr(File::create(&errors).unwrap()));
    let is_over = AtomicBool::new(false);
    let status = thread::scope(|scope| {
        for number in 0..MTAS as u64 {
            let (socket, is_over) = (&socket, &is_over);
            let random = fastrand::Rng::with_seed(seed << 8 | number);
            scope.spawn(move || besiege(socket, is_over, random));
        }
        thread::sleep(Duration::from_millis(duration()));
        // Whatever happens here, the siege must end.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| filter.wait()));
        is_over.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|_| {
            filter.signal(libc::SIGKILL);
            panic!("it does not end: seed {seed}, {}", fs::read_to_string(&errors).unwrap())
        })
    });
    let errors = fs::read_to_string(errors).unwrap();
    assert!(status.success(), "{status}, seed {seed}: {errors}");
    let printed = fs::read_to_string(output).unwrap() + &errors;
    println!("seed {seed}: {printed}");
    printed
}

/// The numbers in what was printed.
pub fn numbers(printed: &str) -> Vec<u64> {
    printed.split(|byte: char| !byte.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[test]
fn stops_at_any_moment_close_every_session_once() {
    for threads in ["park", "session"] {
        let numbers = numbers(&play(&[("LIBMILTER_THREADS", threads)], 1, false));
        let [runs, failures, sessions, messages, aborts] = numbers[..] else { panic!("{numbers:?}") };
        assert!(runs > 10 && failures == 0 && sessions > 50, "{numbers:?}");
        assert!(messages > 10 && aborts > 1, "{numbers:?}");
    }
}

#[test]
fn system_calls_that_fail_break_no_promise() {
    let dir = temp_dir();
    let chaos = dir.path().join("chaos.so");
    run(Command::new("cc")
        .args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread"])
        .arg(repository().join("c-tests/chaos.c"))
        .arg("-o")
        .arg(&chaos));
    for (seed, rate) in [(1, "10"), (2, "50"), (3, "200")] {
        let variables = [
            ("LD_PRELOAD", chaos.to_str().unwrap()),
            ("CHAOS_SEED", &seed.to_string()),
            ("CHAOS_RATE", rate),
            ("LIBMILTER_THREADS", if seed == 2 { "session" } else { "park" }),
        ];
        let numbers = numbers(&play(&variables, seed, true));
        let [runs, failures, sessions, _, _, faults, delays, transfers] = numbers[..] else {
            panic!("{numbers:?}")
        };
        assert!(runs > failures && sessions > 10, "{numbers:?}");
        assert!(faults > 10 && delays > 10 && transfers > 10, "{numbers:?}");
    }
}
