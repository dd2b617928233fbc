//! The scenarios with one connection at a time: what is sent, and how. The table only; `measure` plays it, and
//! `goals` says what is wanted.

use std::time::Duration;

use crate::message::Shape;
use crate::subject::Wants;

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
    /// Whether the client runs under SCHED_BATCH.
    pub batch: bool,
    /// For how many messages system calls are counted.
    pub counted: u32,
}

const TYPICAL: Shape = Shape { negotiation_only: false, header_block: false, body: None, write: None };
const LARGE: Shape = Shape { body: Some(10 << 20), ..TYPICAL };
const SILENT_HEADERS: Shape = Shape { header_block: true, ..TYPICAL };
const WITH_HEADER: Wants = Wants { header: true, silent_headers: false, tcp: false, cpu: None };

/// One message for each connection, a header added: the row that the others vary.
pub const S1: Scenario = Scenario {
    id: "S1",
    title: "one message per connection, 1 header added",
    shape: TYPICAL,
    wants: WITH_HEADER,
    messages: 1,
    silence: None,
    batch: false,
    counted: 400,
};

/// S1 again, without and with `LIBMILTER_METRICS`.
pub static METRICS: Scenario =
    Scenario { id: "S1-metrics", title: "S1 without and with LIBMILTER_METRICS", ..S1 };

const S2: Scenario =
    Scenario { id: "S2", title: "100 messages per connection, 1 header added", messages: 100, ..S1 };

const S3: Scenario = Scenario {
    id: "S3",
    title: "10 MiB body in chunks of 65,535 bytes, each in one write",
    shape: LARGE,
    counted: 20,
    ..S1
};

const S4: Scenario = Scenario {
    id: "S4",
    title: "connect, negotiate, quit",
    shape: Shape { negotiation_only: true, ..TYPICAL },
    counted: 1000,
    ..S1
};

const S7: Scenario = Scenario {
    id: "S7",
    title: "header replies switched off (pipelined)",
    shape: SILENT_HEADERS,
    wants: Wants { silent_headers: true, ..WITH_HEADER },
    ..S1
};

/// All that is held against the bare server, and S3 as Postfix writes it.
pub static ALL: [Scenario; 9] = [
    S1,
    S2,
    S3,
    Scenario {
        id: "S3-4096",
        title: "S3 in writes of 4096 bytes, as Postfix makes them",
        shape: Shape { write: Some(4096), ..LARGE },
        ..S3
    },
    S4,
    S7,
    Scenario {
        id: "S8",
        title: "each command after 3 ms of silence",
        messages: 3,
        silence: Some(Duration::from_millis(3)),
        counted: 15,
        ..S1
    },
    Scenario {
        id: "S1-TCP",
        title: "S1 over TCP",
        wants: Wants { tcp: true, ..WITH_HEADER },
        // Debian's libmilter takes 43 ms for each.
        counted: 30,
        ..S1
    },
    Scenario {
        id: "S2-TCP",
        title: "S2 over TCP, no header",
        wants: Wants { tcp: true, header: false, ..WITH_HEADER },
        ..S2
    },
];

/// The same with a client that lets the server work until it waits.
pub static BATCH: [Scenario; 5] = [
    Scenario { id: "S1-batch", batch: true, ..S1 },
    Scenario { id: "S2-batch", batch: true, ..S2 },
    Scenario { id: "S3-batch", batch: true, ..S3 },
    Scenario { id: "S4-batch", batch: true, ..S4 },
    Scenario { id: "S7-batch", batch: true, ..S7 },
];
