//! The load generator behind `make bench` and `make bench-quick`: plays what an MTA sends to filters on this
//! library, on Debian's libmilter, on other milter libraries and on bare servers, and compares what that costs.
//! It tests nothing: a missed target is reported, not an error.

mod chart;
mod counters;
mod cpu;
mod crowd;
mod figures;
mod goals;
mod link;
mod measure;
mod message;
mod pictures;
mod report;
mod rounds;
mod scenario;
mod selection;
mod stats;
mod subject;

use std::path::Path;

use crate::figures::Plan;
use crate::link::Address;
use crate::selection::Selection;
use crate::subject::Workshop;

const USAGE: &str = "usage: milter full|quick [only=SCENARIO,...] [subjects=SUBJECT,...] [seconds=NUMBER]
       milter load SCENARIO SOCKET MESSAGES";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    // This very program is <target>/release/deps/milter-<hash>.
    let program = std::env::current_exe().expect("our own path");
    let workshop = Workshop::new(program.ancestors().nth(3).expect("Cargo's directory"));
    let usage = || -> ! {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    match words[..] {
        ["load", id, spec, messages] => {
            let mut scenarios = scenario::ALL.iter().chain(&scenario::EAGER);
            let scenario = scenarios.find(|scenario| scenario.id == id).expect("a scenario of the plan");
            let address = Address::parse(spec).expect("unix:PATH or inet:PORT@127.0.0.1");
            measure::load(&address, scenario, messages.parse().expect("a number")).expect(id);
        }
        [thoroughness @ ("full" | "quick"), ref rest @ ..] => {
            let full = thoroughness == "full";
            let Some(selection) = Selection::parse(rest) else { usage() };
            let figures = if full { Plan::full() } else { Plan::quick() }.run(&workshop, &selection);
            if selection.is_partial() {
                print!("{}", report::tables(&figures));
            } else if full {
                report::write(&figures, &repository.join("docs")).expect("docs/ can be written");
            }
            print!("{}", goals::lines(&figures));
        }
        _ => usage(),
    }
}
