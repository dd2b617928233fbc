//! The filter behind the C callback table: arguments marshalled, C called, the status read.

use super::barrier::{Code, outermost};
use super::types::{SMFICTX, SMFIS_ALL_OPTS, SMFIS_CONTINUE, sfsistat, smfiDesc};
use crate::protocol::{Actions, Arguments, Choice, Kind, KindSet, Offer, Peer, Refusal, Steps, Text, Wants};
use crate::session::{Context, Filter, NoMemory, Verdict};
use crate::sys::memory;
use crate::sys::socket::{inet_name, inet6_name, unix_name};
use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_ulong};
use std::net::{SocketAddrV4, SocketAddrV6};
use std::ptr::{from_mut, null_mut, without_provenance_mut};

/// The bits of a version that say major and minor (`SM_LM_VRS_MAJOR`, `SM_LM_VRS_MINOR` of the header).
const MAJOR_MINOR: c_int = 0x7fff_ff00;

/// What they are in every version since 8.14; before that, versions were 2, 3 and 4.
const VERSION_1_0: c_int = 0x0100_0000;

/// The first versions of the structure ended before these members.
const HAS_UNKNOWN: c_int = 3;
const HAS_DATA: c_int = 4;
const HAS_NEGOTIATE: c_int = 5;

type Simple = Option<unsafe extern "C-unwind" fn(*mut SMFICTX) -> sfsistat>;
type Envelope = Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *mut *mut c_char) -> sfsistat>;

type Negotiate = unsafe extern "C-unwind" fn(
    *mut SMFICTX,
    c_ulong,
    c_ulong,
    c_ulong,
    c_ulong,
    *mut c_ulong,
    *mut c_ulong,
    *mut c_ulong,
    *mut c_ulong,
) -> sfsistat;

/// The callbacks that a filter has registered.
#[derive(Debug, Clone)]
pub struct Callbacks {
    name: CString,
    actions: Actions,
    connect: Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_char, *mut libc::sockaddr) -> sfsistat>,
    helo: Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_char) -> sfsistat>,
    envfrom: Envelope,
    envrcpt: Envelope,
    header: Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_char, *mut c_char) -> sfsistat>,
    eoh: Simple,
    body: Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_uchar, usize) -> sfsistat>,
    eom: Simple,
    abort: Simple,
    close: Simple,
    unknown: Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *const c_char) -> sfsistat>,
    data: Simple,
    negotiate: Option<Negotiate>,
    off: Steps,
    /// The kinds of commands for which there is something to call.
    seen: KindSet,
}

impl Callbacks {
    /// Reads what a filter registers; the error is a version that this library does not serve.
    ///
    /// # Safety
    /// `desc` points to a structure of the version that it declares, whose callbacks have the types of the
    /// header. The members that its version does not have are not read; the memory must be there nevertheless.
    pub unsafe fn read(desc: *const smfiDesc) -> Result<Self, c_int> {
        // SAFETY: these members are in every version. Each is read on its own, so that those behind the end of an
        // old structure are never touched.
        unsafe {
            let version = (*desc).xxfi_version;
            if version & MAJOR_MINOR != VERSION_1_0 && !(2..=4).contains(&version) {
                return Err(version);
            }
            let name = (*desc).xxfi_name;
            let mut callbacks = Self {
                name: if name.is_null() { c"Unknown" } else { CStr::from_ptr(name) }.to_owned(),
                actions: actions_from_c((*desc).xxfi_flags),
                connect: (*desc).xxfi_connect,
                helo: (*desc).xxfi_helo,
                envfrom: (*desc).xxfi_envfrom,
                envrcpt: (*desc).xxfi_envrcpt,
                header: (*desc).xxfi_header,
                eoh: (*desc).xxfi_eoh,
                body: (*desc).xxfi_body,
                eom: (*desc).xxfi_eom,
                abort: (*desc).xxfi_abort,
                close: (*desc).xxfi_close,
                unknown: if version >= HAS_UNKNOWN { (*desc).xxfi_unknown } else { None },
                data: if version >= HAS_DATA { (*desc).xxfi_data } else { None },
                negotiate: if version >= HAS_NEGOTIATE { (*desc).xxfi_negotiate } else { None },
                off: Steps::empty(),
                seen: KindSet::of(&[]),
            };
            callbacks.off = callbacks.steps_off();
            callbacks.seen = Kind::ALL.into_iter().filter(|kind| callbacks.sees(*kind)).collect();
            Ok(callbacks)
        }
    }

    /// Whether the filter sees this kind of command.
    fn sees(&self, kind: Kind) -> bool {
        match kind {
            Kind::Connect => self.connect.is_some(),
            Kind::Helo => self.helo.is_some(),
            Kind::Mail => self.envfrom.is_some(),
            Kind::Rcpt => self.envrcpt.is_some(),
            Kind::Header => self.header.is_some(),
            Kind::EndOfHeader => self.eoh.is_some(),
            Kind::Body => self.body.is_some(),
            Kind::Unknown => self.unknown.is_some(),
            Kind::Data => self.data.is_some(),
            Kind::Negotiate
            | Kind::Macro
            | Kind::EndOfMessage
            | Kind::Abort
            | Kind::Quit
            | Kind::QuitNewConnection => true,
        }
    }

    /// The "do not send" bits of the callbacks that are missing.
    fn steps_off(&self) -> Steps {
        [
            (Kind::Connect, Steps::NOCONNECT),
            (Kind::Helo, Steps::NOHELO),
            (Kind::Mail, Steps::NOMAIL),
            (Kind::Rcpt, Steps::NORCPT),
            (Kind::Header, Steps::NOHDRS),
            (Kind::EndOfHeader, Steps::NOEOH),
            (Kind::Body, Steps::NOBODY),
            (Kind::Unknown, Steps::NOUNKNOWN),
            (Kind::Data, Steps::NODATA),
        ]
        .into_iter()
        .filter(|(kind, _)| !self.sees(*kind))
        .map(|(_, step)| step)
        .collect()
    }
}

/// The context as C knows it.
fn handle(ctx: &Context) -> *mut SMFICTX {
    std::ptr::from_ref(ctx).cast_mut().cast()
}

/// Flags are 32 bits on the wire and `unsigned long` in C; the reference extends bit 31 as a sign (contract 1.7).
fn flags_to_c(bits: u32) -> c_ulong {
    bits.cast_signed() as c_ulong
}

fn actions_from_c(flags: c_ulong) -> Actions {
    Actions::from_bits_retain(flags as u32)
}

/// Calls a callback that gets nothing but the context; one that is missing continues.
fn call(callback: Simple, ctx: &Context) -> Verdict {
    callback.map_or(Verdict::CONTINUE, |callback| {
        // SAFETY: the filter registered the function with this type; the context lives through the call.
        Verdict(unsafe { outermost(handle(ctx), null_mut(), null_mut(), callback as Code) })
    })
}

fn call_envelope(callback: Envelope, ctx: &Context, arguments: Arguments<'_>) -> Result<Verdict, NoMemory> {
    /// Enough for every real command and for NULL, so that no memory is allocated.
    const USUAL: usize = 16;
    let Some(callback) = callback else { return Ok(Verdict::CONTINUE) };
    let mut texts = arguments.texts();
    let mut usual = [null_mut::<c_char>(); USUAL];
    for argument in &mut usual[..USUAL - 1] {
        let Some(mut text) = texts.next() else { break };
        *argument = text.as_mut_ptr().cast();
    }
    let mut many = None;
    if let Some(text) = texts.next() {
        many = Some(many_arguments(&usual[..USUAL - 1], text, texts)?);
    }
    let argv = many.as_deref_mut().unwrap_or(&mut usual).as_mut_ptr().cast();
    // SAFETY: the array ends with NULL; each string before it is writable and ends with NUL, and nothing else uses
    // them during the call.
    Ok(Verdict(unsafe { outermost(handle(ctx), argv, null_mut(), callback as Code) }))
}

/// The array of more arguments than usual: the first ones, the next, and the rest.
#[cold]
fn many_arguments<'a>(
    first: &[*mut c_char],
    next: Text<'a>,
    rest: impl Iterator<Item = Text<'a>>,
) -> Result<Vec<*mut c_char>, NoMemory> {
    let mut argv = Vec::new();
    let reserve =
        |argv: &mut Vec<_>, count| memory::fallibly(|| argv.try_reserve(count)).map_err(|_| NoMemory);
    reserve(&mut argv, first.len())?;
    argv.extend_from_slice(first);
    for mut text in std::iter::once(next).chain(rest) {
        // For this one and for NULL.
        reserve(&mut argv, 2)?;
        argv.push(text.as_mut_ptr().cast());
    }
    argv.push(null_mut());
    Ok(argv)
}

/// The arguments of a negotiate callback, which are more than [`outermost`] hands over.
struct Negotiation {
    callback: Negotiate,
    offered_actions: c_ulong,
    offered_steps: c_ulong,
    actions: c_ulong,
    steps: c_ulong,
}

/// Calls a negotiate callback.
///
/// # Safety
/// The negotiation is a live one, and its callback may be called with this context.
unsafe extern "C-unwind" fn negotiate(ctx: *mut SMFICTX, negotiation: *mut Negotiation) -> sfsistat {
    let (mut unused2, mut unused3) = (0, 0);
    // SAFETY: the caller's promise; all pointers lead to live variables.
    unsafe {
        ((*negotiation).callback)(
            ctx,
            (*negotiation).offered_actions,
            (*negotiation).offered_steps,
            0,
            0,
            &raw mut (*negotiation).actions,
            &raw mut (*negotiation).steps,
            &raw mut unused2,
            &raw mut unused3,
        )
    }
}

impl Filter for Callbacks {
    fn name(&self) -> &CStr {
        &self.name
    }

    fn wants(&self) -> Wants {
        Wants { actions: self.actions, off: self.off }
    }

    #[inline]
    fn has(&self, kind: Kind) -> bool {
        self.seen.contains(kind)
    }

    fn negotiate(&self, ctx: &Context, offer: &Offer) -> Result<Choice, Refusal> {
        let Some(callback) = self.negotiate else { return Ok(Choice::Registered) };
        let offered_actions = flags_to_c(offer.actions.bits());
        let mut negotiation = Negotiation {
            callback,
            offered_actions,
            offered_steps: flags_to_c(offer.steps_for_callback().bits()),
            actions: offered_actions,
            steps: flags_to_c((self.off | (offer.steps & Steps::SKIP)).bits()),
        };
        let argument = (&raw mut negotiation).cast();
        // SAFETY: the filter registered the function with this type; the negotiation lives through the call.
        let status = unsafe { outermost(handle(ctx), argument, null_mut(), negotiate as *const () as Code) };
        match status {
            SMFIS_ALL_OPTS => Ok(Choice::AllOptions),
            SMFIS_CONTINUE => {
                let Negotiation { actions, steps, .. } = negotiation;
                Ok(Choice::Own(actions_from_c(actions), Steps::from_bits_retain(steps as u32)))
            }
            status => Err(Refusal::Callback(status)),
        }
    }

    fn connect(&self, ctx: &Context, mut host: Text<'_>, peer: Peer<'_>) -> Verdict {
        let Some(callback) = self.connect else { return Verdict::CONTINUE };
        let host = host.as_mut_ptr().cast();
        let call = |address: *mut libc::sockaddr| {
            // SAFETY: the filter registered the function with this type; the host name is writable and ends
            // with NUL; the address is NULL or that of a live socket name of its family.
            Verdict(unsafe { outermost(handle(ctx), host, address.cast(), callback as Code) })
        };
        match peer {
            Peer::Unknown => call(null_mut()),
            Peer::Inet { address, port } => {
                call(from_mut(&mut inet_name(SocketAddrV4::new(address, port))).cast())
            }
            Peer::Inet6 { address, port } => {
                call(from_mut(&mut inet6_name(SocketAddrV6::new(address, port, 0, 0))).cast())
            }
            Peer::Unix(path) => match unix_name(path) {
                Ok((mut name, _)) => call(from_mut(&mut name).cast()),
                // A decoded path always fits.
                Err(_) => call(null_mut()),
            },
        }
    }

    fn helo(&self, ctx: &Context, mut name: Text<'_>) -> Verdict {
        self.helo.map_or(Verdict::CONTINUE, |callback| {
            let name = name.as_mut_ptr().cast();
            // SAFETY: the filter registered the function with this type; the name is writable and ends with NUL.
            Verdict(unsafe { outermost(handle(ctx), name, null_mut(), callback as Code) })
        })
    }

    fn mail(&self, ctx: &Context, arguments: Arguments<'_>) -> Result<Verdict, NoMemory> {
        call_envelope(self.envfrom, ctx, arguments)
    }

    fn rcpt(&self, ctx: &Context, arguments: Arguments<'_>) -> Result<Verdict, NoMemory> {
        call_envelope(self.envrcpt, ctx, arguments)
    }

    fn data(&self, ctx: &Context) -> Verdict {
        call(self.data, ctx)
    }

    fn header(&self, ctx: &Context, mut name: Text<'_>, mut value: Text<'_>) -> Verdict {
        self.header.map_or(Verdict::CONTINUE, |callback| {
            let (name, value) = (name.as_mut_ptr().cast(), value.as_mut_ptr().cast());
            // SAFETY: the filter registered the function with this type; both strings are writable and end
            // with NUL.
            Verdict(unsafe { outermost(handle(ctx), name, value, callback as Code) })
        })
    }

    fn end_of_header(&self, ctx: &Context) -> Verdict {
        call(self.eoh, ctx)
    }

    fn body(&self, ctx: &Context, piece: &mut [u8]) -> Verdict {
        self.body.map_or(Verdict::CONTINUE, |callback| {
            let (start, length) = (piece.as_mut_ptr().cast(), without_provenance_mut(piece.len()));
            // SAFETY: the filter registered the function with this type; the piece is writable.
            Verdict(unsafe { outermost(handle(ctx), start, length, callback as Code) })
        })
    }

    fn end_of_message(&self, ctx: &Context) -> Verdict {
        call(self.eom, ctx)
    }

    fn unknown(&self, ctx: &Context, line: &mut [u8]) -> Verdict {
        self.unknown.map_or(Verdict::CONTINUE, |callback| {
            let line = line.as_mut_ptr().cast();
            // SAFETY: the filter registered the function with this type; a NUL stands behind the line.
            Verdict(unsafe { outermost(handle(ctx), line, null_mut(), callback as Code) })
        })
    }

    fn abort(&self, ctx: &Context) {
        call(self.abort, ctx);
    }

    fn close(&self, ctx: &Context) {
        call(self.close, ctx);
    }
}
