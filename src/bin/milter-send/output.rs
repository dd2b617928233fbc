//! Where everything goes that there is to tell: the dialogue, and what standard output gets at the end. The thread
//! that plays the session, the one that keeps the live line going and the one that waits for signals share it.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use milter::mta::{
    Delivery, Disposition, Error, Exchange, Failure, Flavor, Message, Observer, Outcome, Request, Session,
};
use milter::protocol::frame::DEFAULT_MAX_PAYLOAD;
use milter::protocol::{Kind, Offer};
use milter::system::{self, SignalSet};
use parking_lot::Mutex;

use super::Exit;
use super::dialogue::{self, Dialogue};
use super::expect::Expectation;
use super::hints;
use super::input::{Input, Inputs};
use super::load::Load;
use super::options::Options;
use super::report::Report;
use super::test_report::{Case, TestReport};
use super::wishes::Wishes;

/// How often the live line is written anew.
const TICK: Duration = Duration::from_millis(100);

/// How long a signal waits for standard output to take what is being written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What standard output gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The resulting messages.
    Messages,
    Json,
    Tap,
    Junit,
}

/// Everything that there is to tell.
pub struct Output {
    dialogue: Dialogue,
    report: Report,
    tests: TestReport,
    wishes: Wishes,
    load: Option<Arc<Load>>,
    expectations: Vec<Expectation>,
    form: Form,
    with_message: bool,
    with_times: bool,
    /// What became of the messages, for standard output.
    messages: Vec<Message>,
    exit: Exit,
    /// How the filter failed first, if the session went on.
    failed: Option<Exit>,
    delivered: usize,
    started: Instant,
    /// When the step under way began, and how many bytes of the body it has.
    step: (Instant, usize),
    /// When the message under way began.
    message: Instant,
    /// How long the filter has been waited for.
    waited: Duration,
}

impl Output {
    /// Nothing has happened yet.
    pub fn new(options: &Options) -> Self {
        let form = match options {
            Options { json: true, .. } => Form::Json,
            Options { tap: true, .. } => Form::Tap,
            Options { junit: true, .. } => Form::Junit,
            _ => Form::Messages,
        };
        let now = Instant::now();
        Self {
            dialogue: Dialogue::new(options.show, options.color),
            report: Report::new(options.socket.to_string()),
            tests: TestReport::default(),
            wishes: Wishes::default(),
            load: None,
            expectations: options.expect.clone(),
            form,
            with_message: !options.no_message,
            with_times: !options.no_times,
            messages: Vec::new(),
            exit: Exit::Accepted,
            failed: None,
            delivered: 0,
            started: now,
            step: (now, 0),
            message: now,
            waited: Duration::ZERO,
        }
    }

    /// How the program ends.
    pub fn exit(&self) -> Exit {
        match self.failed.unwrap_or(self.exit) {
            // They are there to tell what is right.
            Exit::Accepted | Exit::Rejected | Exit::TempFailed | Exit::Discarded | Exit::Quarantined
                if !self.expectations.is_empty() =>
            {
                if self.tests.has_failures() {
                    Exit::Unexpected
                } else {
                    Exit::Accepted
                }
            }
            exit => exit,
        }
    }

    /// The messages that will be sent, each so many times.
    pub fn inputs(&mut self, inputs: &Inputs, times: usize) -> io::Result<()> {
        self.tests.plan(inputs.messages.len() * times * self.expectations.len());
        inputs.warnings.iter().try_for_each(|warning| self.warn(warning.clone()))
    }

    /// Many connections begin, in place of one session.
    pub fn load_begins(&mut self, load: Arc<Load>) {
        self.load = Some(load);
    }

    /// How far they are, for a terminal.
    pub fn progress(&mut self, text: &str) -> io::Result<()> {
        self.dialogue.progress(text)
    }

    /// They are over.
    pub fn load_ends(&mut self) -> io::Result<()> {
        let Some(load) = self.load.clone() else { return Ok(()) };
        self.report.load(load.to_json());
        self.dialogue.waits_no_more()?;
        load.warnings().into_iter().try_for_each(|warning| self.warn(warning))?;
        match load.error() {
            Some((exit, error, hint)) => self.fails(exit, error, hint),
            None => Ok(()),
        }
    }

    /// The negotiation begins, or already the connection.
    pub fn waits_for(&mut self, what: &'static str) {
        self.step = (Instant::now(), 0);
        self.dialogue.waits_for(what);
    }

    /// How the negotiation ended.
    pub fn negotiation(&mut self, offer: Offer, session: &Session) -> io::Result<()> {
        let time = self.lap();
        self.wishes = Wishes::new(session.agreed());
        self.dialogue.waits_no_more()?;
        self.report.negotiation(offer, session, time);
        self.dialogue.negotiation(offer, session, time)
    }

    /// A message begins; `title` is there if it is one of several.
    pub fn begins_message(&mut self, input: &Input, title: Option<&str>) -> io::Result<()> {
        self.message = Instant::now();
        let pieces = input.message.body_size_for_filter().div_ceil(DEFAULT_MAX_PAYLOAD);
        self.dialogue.message(title, pieces)
    }

    /// What became of it.
    pub fn delivery(&mut self, input: &Input, delivery: &Delivery) -> io::Result<()> {
        let time = self.with_times.then(|| self.message.elapsed());
        self.delivered += 1;
        let checks: Vec<_> = self
            .expectations
            .iter()
            .map(|expectation| (expectation.to_string(), expectation.check(delivery).err()))
            .collect();
        for (expectation, failure) in &checks {
            let (expectation, failure) = (expectation.clone(), failure.clone());
            self.tests.add(Case { message: input.title(), expectation, failure, time });
        }
        if self.exit == Exit::Accepted {
            self.exit = Exit::from(delivery);
        }
        let with_message = self.with_message && delivery.disposition == Disposition::Accepted;
        match self.form {
            Form::Json => self.report.delivery(input, delivery, &checks, time, with_message),
            Form::Messages if with_message => self.messages.push(delivery.mail.message()),
            Form::Messages | Form::Tap | Form::Junit => {}
        }
        self.dialogue.delivery(delivery, &checks, time)
    }

    /// The session is over.
    pub fn ends(&mut self, like: Flavor) -> io::Result<()> {
        for warning in self.wishes.warnings(like) {
            self.warn(warning)?;
        }
        if self.with_times {
            let time = self.started.elapsed();
            self.report.total(time, self.waited);
            self.dialogue.total(self.delivered, time, self.waited)?;
        }
        Ok(())
    }

    /// It ends too early.
    pub fn fails(&mut self, exit: Exit, error: String, hint: Option<String>) -> io::Result<()> {
        self.exit = exit;
        self.tests.error(error.clone());
        let told = self.dialogue.error(&error, hint.as_deref());
        self.report.error(error, hint);
        told
    }

    /// The filter failed, and the session goes on without it.
    pub fn failure(&mut self, failure: &Failure) -> io::Result<()> {
        if self.failed.is_none() {
            self.report.error(failure.text.clone(), None);
            self.failed = Some(if failure.broke_protocol { Exit::ProtocolError } else { Exit::InputOutput });
        }
        self.dialogue.error(&failure.text, None)
    }

    /// [`fails`](Self::fails), because the filter has.
    pub fn filter_fails(&mut self, error: &Error, options: &Options) -> io::Result<()> {
        self.fails(Exit::from(error), error.to_string(), hints::about(error, &options.socket))
    }

    fn warn(&mut self, warning: String) -> io::Result<()> {
        let told = self.dialogue.warning(&warning);
        self.report.warning(&warning);
        told
    }

    /// How long the step under way took, if that is to be told.
    fn lap(&mut self) -> Option<Duration> {
        let time = self.step.0.elapsed();
        self.waited += time;
        self.with_times.then_some(time)
    }

    /// Writes what standard output gets.
    ///
    /// # Errors
    /// It does not take it.
    pub fn finish(&self) -> io::Result<()> {
        let mut stdout = io::BufWriter::new(io::stdout().lock());
        match self.form {
            Form::Json => {
                serde_json::to_writer_pretty(&mut stdout, &self.report)?;
                stdout.write_all(b"\n")?;
            }
            Form::Tap => stdout.write_all(self.tests.to_tap().as_bytes())?,
            Form::Junit => stdout.write_all(self.tests.to_junit().as_bytes())?,
            Form::Messages if let Some(load) = &self.load => stdout.write_all(load.to_text().as_bytes())?,
            Form::Messages => self.messages.iter().try_for_each(|message| message.write_to(&mut stdout))?,
        }
        stdout.flush()
    }

    /// [`finish`](Self::finish), and the exit status behind it. A reader that has gone away needs no message.
    pub fn finish_with(&mut self, exit: Exit) -> Exit {
        match self.finish() {
            Ok(()) => exit,
            Err(error) => {
                if error.kind() != ErrorKind::BrokenPipe {
                    // Nothing is left to be told if this fails too.
                    let _ = self.dialogue.error(&format!("standard output: {error}"), None);
                }
                Exit::InputOutput
            }
        }
    }
}

/// An [`Output`] that several threads use.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Output>>);

impl Shared {
    /// Shares it with a thread for the live line, if there is to be one, and with one that waits for signals.
    pub fn new(output: Output) -> Self {
        let is_live = output.dialogue.is_live();
        let shared = Self(Arc::new(Mutex::new(output)));
        if is_live {
            let ticking = shared.clone();
            // Without it there is no live line.
            let _ = std::thread::Builder::new().spawn(move || {
                loop {
                    std::thread::sleep(TICK);
                    ticking.tell(|output| output.dialogue.tick());
                }
            });
        }
        shared.watch_signals();
        shared
    }

    /// Tells something. If standard error does not take it the program ends.
    pub fn tell(&self, tell: impl FnOnce(&mut Output) -> io::Result<()>) {
        let mut output = self.0.lock();
        if let Err(error) = tell(&mut output) {
            // This much standard output shall have: all of a report, and no half message.
            if output.form != Form::Messages {
                output.report.error(format!("standard error: {error}"), None);
                output.tests.error(format!("standard error: {error}"));
                let _ = output.finish();
            }
            std::process::exit(Exit::InputOutput as i32);
        }
    }

    /// Looks at it.
    pub fn with<T>(&self, look: impl FnOnce(&mut Output) -> T) -> T {
        look(&mut self.0.lock())
    }

    /// Signals that end the program let it tell first how far it came.
    fn watch_signals(&self) {
        let watched: Vec<_> = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP]
            .into_iter()
            .filter(|&number| !system::is_ignored(number))
            .collect();
        let set = SignalSet::of(&watched);
        // The thread inherits the mask, and the threads that start later do.
        let Ok(blocked) = system::Blocked::new(&set) else { return };
        let shared = self.clone();
        let watcher = std::thread::Builder::new().spawn(move || {
            let system::Received::Signal(number) = system::wait(&set) else { return };
            if let Some(mut output) = shared.0.try_lock_for(LAST_WORDS) {
                output.interrupted(number);
                // Nobody may go on telling now.
                system::end_by(number);
            }
            system::end_by(number);
        });
        if watcher.is_ok() {
            // For the whole life of the process.
            std::mem::forget(blocked);
        }
    }
}

impl Output {
    fn interrupted(&mut self, number: libc::c_int) {
        let name = match number {
            libc::SIGINT => "SIGINT",
            libc::SIGTERM => "SIGTERM",
            _ => "SIGHUP",
        };
        let error = format!("interrupted by {name}");
        // Who interrupts need not be told; and nothing is left to be done about a failure.
        let _ = self.dialogue.waits_no_more();
        let _ = self.load_ends();
        self.report.error(error.clone(), None);
        self.tests.error(error);
        if self.with_times && self.load.is_none() {
            self.report.total(self.started.elapsed(), self.waited);
        }
        if self.form != Form::Messages || self.load.is_some() {
            let _ = self.finish();
        }
    }
}

impl Observer for Shared {
    fn begins(&mut self, request: &Request<'_>) {
        let bytes = if let Request::Body(piece) = request { piece.len() } else { 0 };
        let mut output = self.0.lock();
        output.step = (Instant::now(), bytes);
        output.dialogue.waits_for(request.kind().name());
    }

    fn ends(&mut self, exchange: &Exchange) {
        self.tell(|output| {
            let waited =
                matches!(exchange.outcome, Outcome::Answered(_) | Outcome::Refused(_) | Outcome::Failed(_));
            let time = if waited { output.lap() } else { None };
            output.wishes.exchange(exchange);
            if output.form == Form::Json {
                output.report.exchange(exchange, time);
            }
            let bytes = if exchange.command == Kind::Body { output.step.1 } else { 0 };
            output.dialogue.exchange(exchange, bytes, time)?;
            match &exchange.outcome {
                Outcome::Failed(failure) => output.failure(failure),
                _ => Ok(()),
            }
        });
    }
}

/// Writes to standard output; how the program ends.
pub fn print(bytes: &[u8]) -> Exit {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Exit::Accepted,
        Err(error) => {
            if error.kind() != ErrorKind::BrokenPipe {
                let _ = dialogue::say(&format!("milter-send: standard output: {error}"));
            }
            Exit::InputOutput
        }
    }
}
