//! The scenarios: what is sent, how, and what ratios to Debian's libmilter are wanted. The table only; `measure`
//! plays it.

use std::time::Duration;

use crate::message::Shape;
use crate::subject::Wants;

/// A ratio to Debian's libmilter: what is wanted, and what the bare server reached when the targets were set.
#[derive(Clone, Copy)]
pub struct Target {
    /// At least this (throughput), at most this (costs).
    pub wanted: f64,
    /// The measured limit, where there is one.
    pub limit: Option<f64>,
}

/// One row of the table.
pub struct Scenario {
    /// Its number in the plan.
    pub id: &'static str,
    /// What it plays.
    pub title: &'static str,
    /// What is sent.
    pub shape: Shape,
    /// How the filter is set up; `cpu` is chosen when it starts.
    pub wants: Wants,
    /// How many messages a connection carries.
    pub messages: u32,
    /// Silence before each command; the throughput then counts only the time spent waiting for answers.
    pub silence: Option<Duration>,
    /// Whether the client lets the server work until it waits (SCHED_BATCH).
    pub polite: bool,
    /// Messages in a second.
    pub throughput: Target,
    /// CPU time of the filter's process for a message.
    pub cpu: Target,
    /// System calls of the filter's process for a message.
    pub calls: Target,
    /// For how many messages system calls are counted.
    pub counted: u32,
}

const fn target(wanted: f64, limit: f64) -> Target {
    Target { wanted, limit: Some(limit) }
}

const fn wanted(wanted: f64) -> Target {
    Target { wanted, limit: None }
}

const TYPICAL: Shape = Shape { negotiation_only: false, header_block: false, body: None };
const WITH_HEADER: Wants = Wants { header: true, silent_headers: false, tcp: false, cpu: None };
const UNTOUCHED: Wants = Wants { header: false, ..WITH_HEADER };

/// One message for each connection, a header added: the row that the others vary.
pub const S1: Scenario = Scenario {
    id: "S1",
    title: "one message per connection, 1 header added",
    shape: TYPICAL,
    wants: WITH_HEADER,
    messages: 1,
    silence: None,
    polite: true,
    throughput: target(1.70, 1.91),
    cpu: target(0.48, 0.40),
    calls: target(0.26, 0.24),
    counted: 400,
};

/// Many messages on a connection.
pub const S2: Scenario = Scenario {
    id: "S2",
    title: "100 messages per connection, 1 header added",
    messages: 100,
    throughput: target(1.70, 1.93),
    cpu: target(0.47, 0.40),
    calls: target(0.26, 0.25),
    ..S1
};

/// All rows with targets.
pub static ALL: [Scenario; 8] = [
    S1,
    S2,
    Scenario {
        id: "S3",
        title: "10 MiB body in 64 KiB chunks",
        shape: Shape { body: Some(10 << 20), ..TYPICAL },
        throughput: target(1.30, 1.40),
        cpu: target(0.68, 0.61),
        calls: target(0.30, 0.28),
        counted: 20,
        ..S1
    },
    Scenario {
        id: "S4",
        title: "connect, negotiate, quit",
        shape: Shape { negotiation_only: true, ..TYPICAL },
        throughput: target(1.50, 1.72),
        cpu: target(0.55, 0.42),
        calls: target(0.40, 0.28),
        counted: 1000,
        ..S1
    },
    Scenario {
        id: "S7",
        title: "header replies switched off (pipelined)",
        shape: Shape { header_block: true, ..TYPICAL },
        wants: Wants { silent_headers: true, ..WITH_HEADER },
        throughput: target(2.00, 2.27),
        cpu: target(0.35, 0.27),
        calls: target(0.14, 0.12),
        ..S1
    },
    Scenario {
        id: "S8",
        title: "each command after 3 ms of silence",
        messages: 3,
        silence: Some(Duration::from_millis(3)),
        throughput: wanted(1.2),
        cpu: wanted(0.22),
        calls: wanted(0.15),
        counted: 9,
        ..S1
    },
    Scenario {
        id: "S1 TCP",
        title: "S1 over TCP",
        wants: Wants { tcp: true, ..WITH_HEADER },
        throughput: target(100.0, 114.0),
        cpu: wanted(0.50),
        calls: wanted(0.27),
        // Debian's libmilter takes 43 ms for each.
        counted: 50,
        ..S1
    },
    Scenario {
        id: "S2 TCP",
        title: "S2 over TCP, no header",
        wants: Wants { tcp: true, ..UNTOUCHED },
        throughput: target(1.45, 1.57),
        cpu: target(0.55, 0.51),
        calls: wanted(0.27),
        ..S2
    },
];

/// Two of them with a client that takes the CPU as soon as an answer is there.
pub static EAGER: [Scenario; 2] = [
    Scenario { id: "S1 eager", title: "S1, client interrupts the server", polite: false, ..S1 },
    Scenario { id: "S2 eager", title: "S2, client interrupts the server", polite: false, ..S2 },
];
