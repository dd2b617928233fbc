//! Endurance: good, slow, hostile and aborting MTAs at once for a long time, and very many connections that send garbage.
//! Memory, threads and descriptors must not grow, and the filter (`c-tests/cycles.c`) watches over its callbacks.
//!
//! `make soak` runs this for SOAK_SECONDS with SOAK_SESSIONS; without these variables it takes seconds. With
//! SOAK_LIBRARY=reference the same runs on Debian's library, which is not judged. A chart of what was sampled is put into
//! the target directory.

use crate::chaos::{dialogue, numbers};
use crate::support::{
    Daemon, Library, PATIENCE, allow_descriptors, compile_c_with, release_dir, temp_dir, wait_until,
};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A number that the environment may set.
fn setting(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

fn library() -> Library {
    match std::env::var("SOAK_LIBRARY").as_deref() {
        Ok("reference") => Library::Reference,
        _ => Library::Ours,
    }
}

struct Filter {
    process: Daemon,
    dir: tempfile::TempDir,
}

impl Filter {
    fn start(library: Library) -> Self {
        let dir = temp_dir();
        let program = dir.path().join("cycles");
        // Its syslog stands in for the C library's only if it is exported.
        compile_c_with("c-tests/cycles.c", &program, &["-rdynamic"]);
        let mut command = library.command(&program);
        command.arg(dir.path().join("s")).args(["0", "0"]);
        command.stdout(File::create(dir.path().join("output")).unwrap());
        let filter = Self { process: Daemon::start(&mut command), dir };
        let mut first = None;
        wait_until("the filter listens", || {
            first = UnixStream::connect(filter.socket()).ok();
            first.is_some()
        });
        // Hear the filter close this one, or it would be counted with the filter's own descriptors.
        let mut first = first.unwrap();
        first.set_read_timeout(Some(PATIENCE)).unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        assert_eq!(first.read(&mut [0]).unwrap(), 0);
        // By then all descriptors are open that are not for sessions.
        wait_until("the filter serves", || filter.status("Threads").is_some_and(|threads| threads > 2));
        filter
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// A number in a line of /proc/PID/status; `None` when it has crashed.
    fn status(&self, name: &str) -> Option<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    fn open_files(&self) -> Option<usize> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.process.pid())).ok()?.count())
    }

    fn sample(&self) -> Option<Sample> {
        Some(Sample {
            memory: self.status("VmRSS")?,
            threads: self.status("Threads")?,
            descriptors: self.open_files()?,
        })
    }

    /// Stops it; what it has counted: runs, failures, sessions, messages, aborts.
    #[track_caller]
    fn stop(&mut self) -> Vec<u64> {
        self.process.signal(libc::SIGTERM);
        let status = self.process.wait();
        assert!(status.success(), "{status}");
        numbers(&fs::read_to_string(self.dir.path().join("output")).unwrap())
    }
}

/// What the filter has at one moment; memory in KiB.
#[derive(Clone, Copy, Debug)]
struct Sample {
    memory: usize,
    threads: usize,
    descriptors: usize,
}

/// Connects; between two attempts it rests, so that a crashed filter costs nothing.
fn connect(filter: &Filter) -> Option<UnixStream> {
    let stream = UnixStream::connect(filter.socket()).inspect_err(|_| {
        thread::sleep(Duration::from_millis(10));
    });
    let stream = stream.ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    Some(stream)
}

/// An answer's kind.
fn hear(mta: &mut UnixStream) -> Option<u8> {
    let mut head = [0; 5];
    mta.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize - 1;
    mta.read_exact(&mut vec![0; length]).ok()?;
    Some(head[4])
}

/// Frames of a session in order, one by one.
fn frames() -> Vec<Vec<u8>> {
    let whole = dialogue(9);
    let mut rest = &whole[..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let length = 4 + u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        frames.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    frames
}

/// A whole session with some messages; `None` if an answer is missing.
fn good(filter: &Filter, random: &mut fastrand::Rng) -> Option<()> {
    let mut mta = connect(filter)?;
    let frames = frames();
    let (beginning, message) = frames.split_at(3);
    for frame in beginning.iter().chain((0..random.usize(1..5)).flat_map(|_| message)) {
        mta.write_all(frame).ok()?;
        // The end of the message brings a modification first.
        while !matches!(hear(&mut mta)?, b'O' | b'c') {}
        if random.u8(0..20) == 0 {
            thread::sleep(Duration::from_millis(random.u64(0..150)));
        }
    }
    mta.write_all(b"\0\0\0\x01Q").ok()
}

/// A session that comes in small pieces, with a slow callback.
fn slow(filter: &Filter, random: &mut fastrand::Rng, is_over: &AtomicBool) -> Option<()> {
    let mut mta = connect(filter)?;
    let mut bytes = dialogue(10);
    let name = bytes.windows(6).position(|window| window == b"chaos\0").unwrap();
    bytes.splice(name - 5..name + 6, *b"\0\0\0\x06Hslow\0");
    while !bytes.is_empty() && !is_over.load(Ordering::Relaxed) {
        let piece = bytes.drain(..random.usize(1..4).min(bytes.len())).collect::<Vec<_>>();
        mta.write_all(&piece).ok()?;
        thread::sleep(Duration::from_millis(random.u64(1..30)));
    }
    Some(())
}

/// What no MTA sends.
fn garbage(number: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = dialogue(random.usize(0..=8));
    match number % 8 {
        0 => bytes = b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        1 => bytes.extend(b"\0\0\0\0"),
        2 => bytes.extend(b"\x7f\xff\xff\xffB"),
        3 => bytes.extend(b"\0\0\0\x01Z"),
        4 => bytes.extend(b"\0\0\0\x04Hab"),
        5 => bytes.extend(b"\0\0\0\x05DC{a}"),
        6 => bytes.truncate(random.usize(0..=bytes.len())),
        _ => bytes.extend((0..random.usize(1..200)).map(|_| random.u8(..))),
    }
    bytes
}

/// A connection with garbage, and its end.
fn hostile(filter: &Filter, number: usize, random: &mut fastrand::Rng) -> Option<()> {
    let mut mta = connect(filter)?;
    mta.write_all(&garbage(number, random)).ok()?;
    if random.bool() {
        mta.shutdown(Shutdown::Write).ok()?;
        mta.read_to_end(&mut Vec::new()).ok()?;
    }
    Some(())
}

/// An MTA that goes away in the middle, or does not read.
fn aborting(filter: &Filter, random: &mut fastrand::Rng) -> Option<()> {
    let mut mta = connect(filter)?;
    mta.write_all(&dialogue(random.usize(4..=9))).ok()?;
    if random.bool() {
        hear(&mut mta)?;
        thread::sleep(Duration::from_millis(random.u64(0..200)));
    }
    Some(())
}

/// Lets them all come for a time, and samples meanwhile.
fn soak(filter: &Filter, sessions: usize, time: Duration) -> (Vec<Sample>, [usize; 2]) {
    let (is_over, begun, done) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut samples = Vec::new();
    thread::scope(|scope| {
        for number in 0..sessions {
            let (is_over, begun, done) = (&is_over, &begun, &done);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(number as u64);
                while !is_over.load(Ordering::Relaxed) {
                    match number % 8 {
                        0..4 => {
                            begun.fetch_add(1, Ordering::Relaxed);
                            done.fetch_add(
                                usize::from(good(filter, &mut random).is_some()),
                                Ordering::Relaxed,
                            );
                        }
                        // That these break off is what they are for.
                        4 | 5 => drop(slow(filter, &mut random, is_over)),
                        6 => drop(hostile(filter, random.usize(..), &mut random)),
                        _ => drop(aborting(filter, &mut random)),
                    }
                    // Not as fast as the machine allows: it is not about speed.
                    thread::sleep(Duration::from_millis(random.u64(0..100)));
                }
            });
        }
        let start = Instant::now();
        while start.elapsed() < time {
            thread::sleep((time / 1000).clamp(Duration::from_millis(50), Duration::from_secs(1)));
            samples.extend(filter.sample());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    (samples, [begun.into_inner(), done.into_inner()])
}

/// The middle one of the values in a part of the samples.
fn median(samples: &[Sample], value: fn(&Sample) -> usize) -> usize {
    let mut values: Vec<_> = samples.iter().map(value).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// What a curve shows, by name.
type Curve = (&'static str, fn(&Sample) -> usize);

/// One curve for each of the three.
fn chart(samples: &[Sample], time: Duration) -> String {
    const CURVES: [Curve; 3] = [
        ("resident memory, KiB", |sample| sample.memory),
        ("threads", |sample| sample.threads),
        ("descriptors", |sample| sample.descriptors),
    ];
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"520\" font-family=\"sans-serif\" font-size=\"12\">\n",
    );
    for (row, (title, value)) in CURVES.into_iter().enumerate() {
        let (top, most) = (30 + row * 165, samples.iter().map(value).max().unwrap_or(1).max(1));
        let points = samples.iter().enumerate().fold(String::new(), |mut points, (number, sample)| {
            let x = 60.0 + 720.0 * number as f64 / samples.len() as f64;
            let y = (top + 120) as f64 - 120.0 * value(sample) as f64 / most as f64;
            let _ = write!(points, "{x:.1},{y:.1} ");
            points
        });
        let _ = writeln!(
            svg,
            "<text x=\"60\" y=\"{}\">{title}</text><text x=\"55\" y=\"{}\" text-anchor=\"end\">{most}</text>\
             <text x=\"55\" y=\"{}\" text-anchor=\"end\">0</text>\
             <path d=\"M60 {top}V{}H780\" fill=\"none\" stroke=\"#888\"/>\
             <polyline points=\"{points}\" fill=\"none\" stroke=\"#06c\"/>",
            top - 8,
            top + 8,
            top + 122,
            top + 120,
        );
    }
    let _ =
        writeln!(svg, "<text x=\"780\" y=\"510\" text-anchor=\"end\">{} s</text>\n</svg>", time.as_secs());
    svg
}

#[test]
fn memory_threads_and_descriptors_stay_flat() {
    let time = Duration::from_secs(setting("SOAK_SECONDS").unwrap_or(10) as u64);
    let sessions = setting("SOAK_SESSIONS").unwrap_or(32);
    let mut filter = Filter::start(library());
    let files = filter.open_files().unwrap();
    let (samples, [begun, done]) = soak(&filter, sessions, time);
    let path = release_dir().parent().unwrap().join("soak.svg");
    fs::write(&path, chart(&samples, time)).unwrap();
    let (early, late) = (&samples[samples.len() / 4..samples.len() / 2], &samples[samples.len() * 3 / 4..]);
    println!(
        "{:?}: {begun} good sessions begun, {done} done; {}",
        library(),
        [early, late]
            .map(|part| format!(
                "{} KiB, {} threads, {} descriptors",
                median(part, |sample| sample.memory),
                median(part, |sample| sample.threads),
                median(part, |sample| sample.descriptors)
            ))
            .join(" early, ")
            + " late"
    );
    if library() == Library::Reference {
        return;
    }
    assert_eq!(begun, done, "good sessions were disturbed");
    // What malloc keeps creeps up a little while hundreds of threads come and go. A few bytes that each session leaves behind
    // are far more in half an hour.
    let slack = 512 + 2 * sessions;
    let [before, after] = [early, late].map(|part| median(part, |sample| sample.memory));
    assert!(after <= before + slack, "{before} KiB, later {after} KiB: see {}", path.display());
    for sample in &samples {
        // An MTA that has gone away may be back before the filter has closed its last connection.
        assert!(
            sample.descriptors <= files + 2 * sessions + 16 && sample.threads <= sessions + 16,
            "{sample:?}"
        );
    }
    wait_until("threads have ended and descriptors are closed", || {
        filter.sample().is_some_and(|sample| sample.threads <= 4 && sample.descriptors <= files)
    });
    let [_, _, all, messages, aborts] = filter.stop()[..] else { panic!() };
    println!("{all} sessions, {messages} messages, {aborts} aborts");
    assert!(all as usize >= done && aborts > 0);
}

/// The same memory after few and after many, within 256 KiB.
#[test]
fn hostile_connections_leave_nothing_behind() {
    const PEERS: usize = 4;
    let all = if setting("SOAK_SECONDS").is_some() { 150_000 } else { 15_000 };
    let mut filter = Filter::start(library());
    let besiege = |from: usize, to: usize| {
        thread::scope(|scope| {
            for peer in 0..PEERS {
                let filter = &filter;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed((from + peer) as u64);
                    for number in (from + peer..to).step_by(PEERS) {
                        // That it breaks off is what it is for.
                        let _ = hostile(filter, number, &mut random);
                        if filter.status("VmRSS").is_none() {
                            return println!("crashed after {number} connections");
                        }
                    }
                });
            }
        });
        if library() == Library::Ours {
            wait_until("threads at rest", || filter.status("Threads").is_some_and(|threads| threads <= 4));
        }
        filter.status("VmRSS")
    };
    let (few, many) = (besiege(0, all * 2 / 15), besiege(all * 2 / 15, all));
    println!("{:?}: {few:?} KiB after {}, {many:?} KiB after {all}", library(), all * 2 / 15);
    if library() == Library::Reference {
        return;
    }
    let (few, many) = (few.unwrap(), many.unwrap());
    assert!(many <= few + 256, "{few} KiB after a few, {many} KiB after all");
    filter.stop();
}

/// Peers that say nothing at all, and some that stop in the middle of a frame, need no threads; others are served meanwhile.
#[test]
fn very_many_silent_connections_cost_only_themselves() {
    const GOOD: usize = 20;
    let all = if setting("SOAK_SECONDS").is_some() { 10_000 } else { 1_000 };
    allow_descriptors(all + 200);
    let mut filter = Filter::start(library());
    let before = filter.sample().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut served = || (0..GOOD).filter(|_| good(&filter, &mut random).is_some()).count();
    let mut silent = Vec::new();
    for number in 0..all {
        let Some(mut mta) = connect(&filter) else { break };
        if number % 4 == 0 && mta.write_all(b"\0\0\0\x0dO\0").is_err() {
            break;
        }
        silent.push(mta);
    }
    let mut during = before;
    wait_until(
        "all are connected, on a handful of threads, or with the reference as many as there will be",
        || {
            thread::sleep(Duration::from_secs(1));
            let last = std::mem::replace(&mut during, filter.sample().unwrap_or(before));
            match library() {
                Library::Ours => {
                    during.descriptors >= before.descriptors + silent.len() && during.threads <= 8
                }
                Library::Reference => {
                    (during.descriptors, during.threads) == (last.descriptors, last.threads)
                }
            }
        },
    );
    let done = served();
    println!(
        "{:?}: {} silent connections: {before:?}, then {during:?}; {done} of {GOOD} good sessions done",
        library(),
        silent.len()
    );
    if library() == Library::Reference {
        return;
    }
    assert_eq!((silent.len(), done), (all, GOOD));
    // Those that are silent are there still: whose frame is completed gets an answer.
    for mta in silent.iter_mut().step_by(all / 100 * 4) {
        mta.write_all(b"\0\0\x06\0\0\x01\xff\0\x1f\xff\xff").unwrap();
        assert_eq!(hear(mta), Some(b'O'));
    }
    drop(silent);
    wait_until("descriptors are closed", || {
        filter.sample().is_some_and(|now| now.threads <= 4 && now.descriptors <= before.descriptors)
    });
    filter.stop();
}
