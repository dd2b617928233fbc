//! Watches callbacks that take long: each is logged once while it runs, and the MTA is told meanwhile that the filter is
//! still at the end of its message. A watched filter is the filter itself with a note of each call; without a watch the
//! note is one look at a field.

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

/// A filter whose callbacks may be watched.
pub struct Watched<F> {
    filter: F,
    watch: Option<Watch>,
}

struct Watch {
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
    /// The filter, watched if there are terms.
    pub fn new(filter: F, terms: Option<Terms>) -> Self {
        let watch = terms.map(|terms| Watch {
            terms,
            desks: Mutex::new(Vec::new()),
            next_look: Mutex::new(Instant::now()),
        });
        Self { filter, watch }
    }

    /// To be called before the calling thread runs callbacks for this session.
    #[inline]
    pub fn serve(&self, session: &Session) -> Option<Serving> {
        self.watch.as_ref().map(|watch| watch.serve(session))
    }

    /// Looks at all callbacks that run; when to look again. Nothing in it waits for an MTA or for a callback.
    pub fn look(&self) -> Option<Instant> {
        self.watch.as_ref().map(|watch| watch.look(self.filter.name()))
    }

    #[inline]
    fn begin(&self, kind: Kind, ctx: &Context) -> Option<Calling> {
        if self.watch.is_some() { begin(kind, ctx) } else { None }
    }
}

#[cold]
#[inline(never)]
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
    #[cold]
    fn serve(&self, session: &Session) -> Serving {
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

    fn look(&self, name: &CStr) -> Instant {
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
            peer: link.peer().to_string(),
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
        let _calling = self.begin(Kind::Negotiate, ctx);
        self.filter.negotiate(ctx, offer)
    }

    #[inline]
    fn connect(&self, ctx: &Context, host: Text<'_>, peer: Peer<'_>) -> Verdict {
        let _calling = self.begin(Kind::Connect, ctx);
        self.filter.connect(ctx, host, peer)
    }

    #[inline]
    fn helo(&self, ctx: &Context, name: Text<'_>) -> Verdict {
        let _calling = self.begin(Kind::Helo, ctx);
        self.filter.helo(ctx, name)
    }

    #[inline]
    fn mail(&self, ctx: &Context, arguments: Arguments<'_>) -> Result<Verdict, NoMemory> {
        let _calling = self.begin(Kind::Mail, ctx);
        self.filter.mail(ctx, arguments)
    }

    #[inline]
    fn rcpt(&self, ctx: &Context, arguments: Arguments<'_>) -> Result<Verdict, NoMemory> {
        let _calling = self.begin(Kind::Rcpt, ctx);
        self.filter.rcpt(ctx, arguments)
    }

    #[inline]
    fn data(&self, ctx: &Context) -> Verdict {
        let _calling = self.begin(Kind::Data, ctx);
        self.filter.data(ctx)
    }

    #[inline]
    fn header(&self, ctx: &Context, name: Text<'_>, value: Text<'_>) -> Verdict {
        let _calling = self.begin(Kind::Header, ctx);
        self.filter.header(ctx, name, value)
    }

    #[inline]
    fn end_of_header(&self, ctx: &Context) -> Verdict {
        let _calling = self.begin(Kind::EndOfHeader, ctx);
        self.filter.end_of_header(ctx)
    }

    #[inline]
    fn body(&self, ctx: &Context, piece: &mut [u8]) -> Verdict {
        let _calling = self.begin(Kind::Body, ctx);
        self.filter.body(ctx, piece)
    }

    #[inline]
    fn end_of_message(&self, ctx: &Context) -> Verdict {
        let _calling = self.begin(Kind::EndOfMessage, ctx);
        self.filter.end_of_message(ctx)
    }

    #[inline]
    fn unknown(&self, ctx: &Context, line: &mut [u8]) -> Verdict {
        let _calling = self.begin(Kind::Unknown, ctx);
        self.filter.unknown(ctx, line)
    }

    fn abort(&self, ctx: &Context) {
        let _calling = self.begin(Kind::Abort, ctx);
        self.filter.abort(ctx);
    }

    fn close(&self, ctx: &Context) {
        let _calling = self.begin(Kind::Quit, ctx);
        self.filter.close(ctx);
    }
}
