//! Watches callbacks that take long: each is logged once while it runs, and the MTA is told meanwhile that the filter is
//! still at the end of its message. A watched filter is the filter itself with a note of each call, for the watch and for
//! who [observes](crate::observe) the session. Where nobody does either, the filter is served as it is.

use crate::log;
use crate::protocol::{Arguments, Choice, Kind, Offer, Peer, Refusal, Text, Wants};
use crate::session::{Context, Filter, Link, NoMemory, Session, Verdict};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The longest time between two signs of life to an MTA.
const SIGN_EVERY: Duration = Duration::from_secs(10);

/// How often somebody looks, unless the limits are shorter than that.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many callbacks are logged by one look; of the others only the number is.
const MOST_LINES: usize = 10;

/// What is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Callbacks that take longer are logged.
    pub slow: Option<Duration>,
    /// Whether the MTA is told meanwhile that the filter is working, where that is possible.
    pub keeps_alive: bool,
}

/// A filter whose callbacks are watched or observed.
pub struct Watched<F> {
    filter: F,
    watch: Option<Arc<Watch>>,
}

/// Who looks at the callbacks that run.
pub struct Watch {
    terms: Terms,
    /// The desks of all threads that run callbacks.
    desks: Mutex<Vec<Weak<Desk>>>,
    next_look: Mutex<Instant>,
}

/// What one thread is at. Locked by the thread for an instant before and after each callback. While somebody who looks has
/// locked it, the callback cannot end.
type Desk = Mutex<Work>;

#[derive(Default)]
struct Work {
    session: Option<(Arc<Context>, Arc<Link>)>,
    callback: Option<Callback>,
    /// The queue id of the message when the callback began; empty if there was none.
    queue_id: Vec<u8>,
}

struct Callback {
    kind: Kind,
    since: Instant,
    is_logged: bool,
    next_sign: Instant,
}

thread_local! {
    static DESK: RefCell<Option<Arc<Desk>>> = const { RefCell::new(None) };
}

/// The calling thread serves a session until this is dropped.
pub struct Serving(Arc<Desk>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.lock().session = None;
    }
}

/// A callback runs until this is dropped.
struct Calling(Arc<Desk>);

impl Drop for Calling {
    fn drop(&mut self) {
        self.0.lock().callback = None;
    }
}

impl<F: Filter> Watched<F> {
    /// The filter; its callbacks are known to the watch, if there is one.
    pub fn new(filter: F, watch: Option<Arc<Watch>>) -> Self {
        Self { filter, watch }
    }

    /// Calls a callback, and tells the watch and who observes the session of it.
    fn around<T>(
        &self,
        kind: Kind,
        ctx: &Context,
        call: impl FnOnce(&F) -> T,
        verdict: impl FnOnce(&T) -> Option<Verdict>,
    ) -> T {
        let observed = ctx.observed().map(|observed| (observed, observed.callback_begins()));
        let calling = self.watch.as_ref().and_then(|_| begin(kind, ctx));
        let result = call(&self.filter);
        drop(calling);
        if let Some((observed, since)) = observed {
            observed.callback_ends(kind, verdict(&result).map(|Verdict(status)| status), since);
        }
        result
    }

    fn around_verdict(&self, kind: Kind, ctx: &Context, call: impl FnOnce(&F) -> Verdict) -> Verdict {
        self.around(kind, ctx, call, |verdict| Some(*verdict))
    }
}

fn begin(kind: Kind, ctx: &Context) -> Option<Calling> {
    let desk = DESK.with_borrow(Clone::clone)?;
    let now = Instant::now();
    let mut work = desk.lock();
    // Now, because nobody may look at macros while the filter may write to them.
    ctx.copy_queue_id(&mut work.queue_id);
    work.callback = Some(Callback { kind, since: now, is_logged: false, next_sign: now });
    drop(work);
    Some(Calling(desk))
}

impl Terms {
    /// After how long a callback gets its first sign of life, and how often then.
    fn sign_every(self) -> Duration {
        self.slow.map_or(SIGN_EVERY, |slow| slow.min(SIGN_EVERY))
    }
}

impl Watch {
    /// A watch with these terms.
    pub fn new(terms: Terms) -> Self {
        Self { terms, desks: Mutex::new(Vec::new()), next_look: Mutex::new(Instant::now()) }
    }

    /// To be called before the calling thread runs callbacks for this session.
    #[cold]
    pub fn serve(&self, session: &Session) -> Serving {
        let desk = DESK.with_borrow_mut(|desk| {
            Arc::clone(desk.get_or_insert_with(|| {
                let new = Arc::<Desk>::default();
                self.desks.lock().push(Arc::downgrade(&new));
                new
            }))
        });
        desk.lock().session = Some((Arc::clone(session.context()), Arc::clone(session.link())));
        Serving(desk)
    }

    /// Looks at all callbacks that run; when to look again. Nothing in it waits for an MTA or for a callback.
    pub fn look(&self, name: &CStr) -> Instant {
        let now = Instant::now();
        let next_look = &mut *self.next_look.lock();
        if now < *next_look {
            return *next_look;
        }
        *next_look = now + (self.terms.sign_every() / 4).min(LOOK_EVERY);
        let mut lines = Vec::new();
        let mut more = 0;
        let desks = {
            let all = &mut *self.desks.lock();
            all.retain(|desk| desk.strong_count() > 0);
            all.clone()
        };
        for desk in desks.iter().filter_map(Weak::upgrade) {
            let work = &mut *desk.lock();
            if self.is_slow(work, now) {
                if lines.len() < MOST_LINES { lines.extend(work.describe(now)) } else { more += 1 }
            }
        }
        for (line, about) in lines {
            if log::details_wanted() {
                log::about_session(libc::LOG_WARNING, None, name, format_args!("{line}"), &about);
            } else {
                log::warning(name, format_args!("{line} ({about})"));
            }
        }
        if more > 0 {
            log::warning(name, format_args!("{more} more callbacks are slow"));
        }
        *next_look
    }

    /// Whether a callback has become slow that was not before. Gives the MTA a sign of life if it is time for one.
    fn is_slow(&self, work: &mut Work, now: Instant) -> bool {
        let Work { session: Some((context, _)), callback: Some(callback), .. } = work else { return false };
        let time = now.saturating_duration_since(callback.since);
        let every = self.terms.sign_every();
        if self.terms.keeps_alive && time >= every && now >= callback.next_sign {
            callback.next_sign = now + every;
            context.keep_alive();
        }
        let is_slow = self.terms.slow.is_some_and(|slow| time >= slow);
        is_slow && !std::mem::replace(&mut callback.is_logged, is_slow)
    }
}

impl Work {
    fn describe(&self, now: Instant) -> Option<(String, log::About)> {
        let (Some((context, link)), Some(callback)) = (&self.session, &self.callback) else { return None };
        let (name, time) = (callback.kind.name(), now.saturating_duration_since(callback.since));
        let line = format!("the {name} callback has been running for {} s", time.as_secs());
        let about = log::About {
            session: context.number(),
            peer: context.peer(link).to_string(),
            queue_id: self.queue_id.clone(),
            reason: None,
        };
        Some((line, about))
    }
}

impl<F: Filter> Filter for Watched<F> {
    fn name(&self) -> &CStr {
        self.filter.name()
    }

    fn wants(&self) -> Wants {
        self.filter.wants()
    }

    #[inline]
    fn has(&self, kind: Kind) -> bool {
        self.filter.has(kind)
    }

    fn negotiate(&self, ctx: &Context, offer: &Offer) -> Result<Choice, Refusal> {
        self.around(Kind::Negotiate, ctx, |filter| filter.negotiate(ctx, offer), |_| None)
    }

    fn connect(&self, ctx: &Context, host: Text<'_>, peer: Peer<'_>) -> Verdict {
        self.around_verdict(Kind::Connect, ctx, |filter| filter.connect(ctx, host, peer))
    }

    fn helo(&self, ctx: &Context, name: Text<'_>) -> Verdict {
        self.around_verdict(Kind::Helo, ctx, |filter| filter.helo(ctx, name))
    }

    fn mail(&self, ctx: &Context, arguments: Arguments<'_>) -> Result<Verdict, NoMemory> {
        self.around(Kind::Mail, ctx, |filter| filter.mail(ctx, arguments), |verdict| verdict.ok())
    }

    fn rcpt(&self, ctx: &Context, arguments: Arguments<'_>) -> Result<Verdict, NoMemory> {
        self.around(Kind::Rcpt, ctx, |filter| filter.rcpt(ctx, arguments), |verdict| verdict.ok())
    }

    fn data(&self, ctx: &Context) -> Verdict {
        self.around_verdict(Kind::Data, ctx, |filter| filter.data(ctx))
    }

    fn header(&self, ctx: &Context, name: Text<'_>, value: Text<'_>) -> Verdict {
        self.around_verdict(Kind::Header, ctx, |filter| filter.header(ctx, name, value))
    }

    fn end_of_header(&self, ctx: &Context) -> Verdict {
        self.around_verdict(Kind::EndOfHeader, ctx, |filter| filter.end_of_header(ctx))
    }

    fn body(&self, ctx: &Context, piece: &mut [u8]) -> Verdict {
        self.around_verdict(Kind::Body, ctx, |filter| filter.body(ctx, piece))
    }

    fn end_of_message(&self, ctx: &Context) -> Verdict {
        self.around_verdict(Kind::EndOfMessage, ctx, |filter| filter.end_of_message(ctx))
    }

    fn unknown(&self, ctx: &Context, line: &mut [u8]) -> Verdict {
        self.around_verdict(Kind::Unknown, ctx, |filter| filter.unknown(ctx, line))
    }

    fn abort(&self, ctx: &Context) {
        self.around(Kind::Abort, ctx, |filter| filter.abort(ctx), |()| None);
    }

    fn close(&self, ctx: &Context) {
        self.around(Kind::Quit, ctx, |filter| filter.close(ctx), |()| None);
    }
}
