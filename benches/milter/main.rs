//! The load generator behind `make bench` and `make bench-quick`: plays what an MTA sends to filters on this
//! library, on Debian's libmilter, on other milter libraries and on bare servers, and compares what that costs.
//! It tests nothing: a missed target is reported, not an error.

mod busy;
mod chart;
mod counters;
mod cpu;
mod figures;
mod goals;
mod idle;
mod link;
mod measure;
mod message;
mod pictures;
mod placement;
mod plan;
mod report;
mod rounds;
mod scenario;
mod selection;
mod stats;
mod subject;

use std::path::Path;

use crate::plan::Plan;
use crate::selection::Selection;
use crate::subject::{Subject, Workshop};

fn usage() -> ! {
    eprintln!("usage: milter full|quick [only=SCENARIO,...] [subjects=SUBJECT,...] [seconds=NUMBER]");
    eprintln!("scenarios: {}", Plan::scenarios().join(" "));
    eprintln!("subjects: {}", Subject::ALL.map(Subject::word).join(" "));
    std::process::exit(2);
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [thoroughness @ ("full" | "quick"), ref rest @ ..] = words[..] else { usage() };
    let Some(selection) = Selection::parse(rest, &Plan::scenarios()) else { usage() };
    let full = thoroughness == "full";
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    // This very program is <target>/release/deps/milter-<hash>.
    let program = std::env::current_exe().expect("our own path");
    let workshop = Workshop::new(program.ancestors().nth(3).expect("Cargo's directory"));
    let figures = if full { Plan::full() } else { Plan::quick() }.run(&workshop, &selection);
    if selection.is_partial() {
        print!("{}", report::tables(&figures));
    } else if full {
        report::write(&figures, &repository.join("docs")).expect("docs/ can be written");
    }
    print!("{}", goals::lines(&figures));
}
