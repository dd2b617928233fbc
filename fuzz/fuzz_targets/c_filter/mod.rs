//! A filter in C's clothes: a callback table as a program registers it, whose functions do what the script of their
//! session says. All sessions of an input are served by one thread with one set of buffers, some commands at a time, as
//! the engine does it with many. Calls may name another session, one that has ended, or none.
//!
//! What must hold: a callback gets the context of its session; strings end, and stay while the callback runs; each function
//! succeeds or fails as the stage, the negotiation and its arguments say; the filter gets what it is owed, and nothing
//! twice; the MTA hears whole frames, and nothing after the end.

use crate::conversation::{self, Delivery, Ending, MOST_AT_ONCE, Said, Word};
use arbitrary::Arbitrary;
use milter::fuzzing::{Buffers, Callbacks, Cause, Context, SMFICTX, Shutdown, Timeouts, shortage, smfiDesc};
use milter::protocol::{Actions, Kind, Steps, frame};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_ulong, c_void};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::Arc;

const MOST_SESSIONS: usize = 4;

/// How often a callback calls at most.
const MOST_CALLS: usize = 6;

/// How many macros all [`Call::ManyMacros`] of an input ask for: each of them looks through all that are defined, which may
/// be thousands in each stage.
const MOST_MACROS: usize = 2000;

/// Modifications of more bytes may not fit into a frame.
const SURELY_FITS: usize = 60_000;

const MI_SUCCESS: c_int = 0;
const MI_FAILURE: c_int = -1;

#[expect(improper_ctypes, reason = "a context is opaque")]
unsafe extern "C" {
    fn smfi_register(desc: smfiDesc) -> c_int;
    fn smfi_setconn(connection: *mut c_char) -> c_int;
    fn smfi_setbacklog(backlog: c_int) -> c_int;
    fn smfi_settimeout(timeout: c_int) -> c_int;
    fn smfi_setmaxdatasize(size: usize) -> usize;
    fn smfi_version(major: *mut c_uint, minor: *mut c_uint, patch: *mut c_uint) -> c_int;
    fn smfi_stop() -> c_int;
    fn smfi_getsymval(ctx: *mut SMFICTX, name: *mut c_char) -> *mut c_char;
    fn smfi_setpriv(ctx: *mut SMFICTX, data: *mut c_void) -> c_int;
    fn smfi_getpriv(ctx: *mut SMFICTX) -> *mut c_void;
    fn smfi_setreply(ctx: *mut SMFICTX, code: *mut c_char, xcode: *mut c_char, text: *mut c_char) -> c_int;
    fn smfi_setmlreply(ctx: *mut SMFICTX, code: *const c_char, xcode: *const c_char, ...) -> c_int;
    fn smfi_setsymlist(ctx: *mut SMFICTX, stage: c_int, names: *mut c_char) -> c_int;
    fn smfi_addheader(ctx: *mut SMFICTX, name: *mut c_char, value: *mut c_char) -> c_int;
    fn smfi_insheader(ctx: *mut SMFICTX, index: c_int, name: *mut c_char, value: *mut c_char) -> c_int;
    fn smfi_chgheader(ctx: *mut SMFICTX, name: *mut c_char, index: c_int, value: *mut c_char) -> c_int;
    fn smfi_chgfrom(ctx: *mut SMFICTX, address: *mut c_char, arguments: *mut c_char) -> c_int;
    fn smfi_addrcpt(ctx: *mut SMFICTX, address: *mut c_char) -> c_int;
    fn smfi_addrcpt_par(ctx: *mut SMFICTX, address: *mut c_char, arguments: *mut c_char) -> c_int;
    fn smfi_delrcpt(ctx: *mut SMFICTX, address: *mut c_char) -> c_int;
    fn smfi_replacebody(ctx: *mut SMFICTX, body: *mut c_uchar, length: c_int) -> c_int;
    fn smfi_quarantine(ctx: *mut SMFICTX, reason: *mut c_char) -> c_int;
    fn smfi_progress(ctx: *mut SMFICTX) -> c_int;
}

#[derive(Debug, Arbitrary)]
pub struct Input {
    scripts: Vec<Script>,
    delivery: Delivery,
}

#[derive(Debug, Arbitrary)]
struct Script {
    /// Begins with a whole envelope, unless this is 0.
    start: u8,
    version: u8,
    /// A bit for each callback that is NULL.
    missing: u16,
    flags: u64,
    /// What the negotiate callback returns, and takes.
    choice: (u8, u64, u64),
    max_payload: Option<u16>,
    /// The MTA does not read before the end.
    deaf: bool,
    /// What the filter does at one callback after the other, over and over.
    deeds: Vec<(u8, Vec<Deed>)>,
    commands: Vec<Said<Words>>,
    /// The last bytes, which need not be frames.
    tail: Vec<u8>,
}

/// A text, short or long.
#[derive(Debug, Arbitrary)]
struct Words {
    bytes: Vec<u8>,
    length: u8,
}

impl Word for Words {
    const MANY: bool = true;

    fn bytes(&self) -> Cow<'_, [u8]> {
        let length = match self.length {
            0..=235 => self.bytes.len().min(300),
            236..=245 => 3000,
            246..=252 => 30_000,
            _ => 66_000,
        };
        let pattern: &[u8] = if self.bytes.is_empty() && length > 300 { b"x" } else { &self.bytes };
        pattern.iter().copied().cycle().take(if pattern.is_empty() { 0 } else { length }).collect()
    }
}

impl Words {
    /// As a C string of its own, up to the first NUL; NULL at times.
    fn c(&self) -> CText {
        if self.length % 16 == 15 && self.length < 236 {
            return CText(None);
        }
        let mut bytes = self.bytes().into_owned();
        bytes.truncate(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
        bytes.push(0);
        CText(Some(bytes.into_boxed_slice()))
    }
}

/// A C string whose memory ends with it, so that the sanitizer sees who reads further.
struct CText(Option<Box<[u8]>>);

impl CText {
    fn pointer(&self) -> *mut c_char {
        self.0.as_ref().map_or(null_mut(), |bytes| bytes.as_ptr().cast_mut().cast())
    }

    fn length(&self) -> usize {
        self.0.as_ref().map_or(0, |bytes| bytes.len() - 1)
    }

    fn is_filled(&self) -> bool {
        self.length() > 0
    }

    fn is_null(&self) -> bool {
        self.0.is_none()
    }
}

#[derive(Debug, Arbitrary)]
struct Deed {
    /// Whose context: its own for most numbers.
    whose: u8,
    call: Call,
}

#[derive(Debug, Arbitrary)]
enum Call {
    AddHeader(Words, Words),
    InsertHeader(i32, Words, Words),
    ChangeHeader(Words, i32, Words),
    ChangeSender(Words, Words),
    AddRecipient(Words),
    AddRecipientWith(Words, Words),
    DeleteRecipient(Words),
    ReplaceBody(Words, Option<i32>),
    Quarantine(Words),
    Progress,
    Reply(Code, Words),
    ReplyOfLines(Code, u8, Words, Words),
    Macro(Words, bool),
    ManyMacros(u16),
    MacroList(i8, Words),
    SetPrivate(u8),
    GetPrivate,
    Setup(u8, i32),
}

#[derive(Debug, Arbitrary)]
struct Code {
    usual: u8,
    own: (Words, Words),
}

impl Code {
    fn texts(&self) -> (CText, CText) {
        let of = |code: &[u8]| CText(Some(code.into()));
        match self.usual % 8 {
            0 => (self.own.0.c(), self.own.1.c()),
            1 => (of(b"550\0"), self.own.1.c()),
            2 | 3 => (of(b"550\0"), of(b"5.7.1\0")),
            4 => (of(b"451\0"), CText(None)),
            5 => (of(b"421\0"), of(b"4.7.0\0")),
            _ => (of(b"554\0"), CText(None)),
        }
    }
}

/// One session as the callbacks see it.
struct Player {
    number: usize,
    script: *const Script,
    context: Arc<Context>,
    mta: Rc<UnixStream>,
    /// What the MTA says, but for the tail.
    frames: Rc<[Vec<u8>]>,
    /// How many of these frames the callbacks are past.
    understood: Cell<usize>,
    /// Whether the tail has been sent.
    says_last: Cell<bool>,
    heard: RefCell<Vec<u8>>,
    /// How much of that has been looked at.
    parsed: Cell<usize>,
    /// The actions of the last negotiation, and the steps of all.
    actions: Cell<u32>,
    steps: Cell<u32>,
    calls: Cell<usize>,
    seen: RefCell<Vec<&'static str>>,
    /// The values that this callback got, and what is in them.
    values: RefCell<Vec<(*const c_char, Vec<u8>)>>,
    private: Cell<*mut c_void>,
    /// The stages whose macros it has asked for.
    asked: Cell<u8>,
    ended: Cell<bool>,
}

thread_local! {
    static PLAYERS: RefCell<Vec<Rc<Player>>> = const { RefCell::new(Vec::new()) };
    static CURRENT: Cell<usize> = const { Cell::new(0) };
    static HAS_SHORTAGES: Cell<bool> = const { Cell::new(false) };
    static MACROS_LEFT: Cell<usize> = const { Cell::new(MOST_MACROS) };
}

fn player(number: usize) -> Rc<Player> {
    PLAYERS.with_borrow(|players| Rc::clone(&players[number]))
}

/// Does something that is the library's work.
fn library<T>(body: impl FnOnce() -> T) -> T {
    shortage::during(true, body)
}

impl Player {
    fn ctx(&self) -> *mut SMFICTX {
        Arc::as_ptr(&self.context).cast_mut().cast()
    }

    fn script(&self) -> &Script {
        // SAFETY: `play` borrows the scripts for longer than any player lives.
        unsafe { &*self.script }
    }

    /// Whether all is as usual, so that each call's result is known.
    fn is_predictable(&self) -> bool {
        !HAS_SHORTAGES.get() && !self.script().deaf && self.script().max_payload.is_none()
    }

    /// The MTA reads what there is.
    fn hear(&self) {
        let heard = &mut *self.heard.borrow_mut();
        let _ = (&*self.mta).read_to_end(heard);
        while let Ok(Some(length)) = frame::measure(&heard[self.parsed.get()..], usize::MAX)
            && let Some(frame) = heard[self.parsed.get()..].get(..length)
        {
            conversation::check_answer(frame);
            if frame[4] == b'O' {
                let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
                self.actions.set(number(9));
                self.steps.set(self.steps.get() | number(13));
            }
            self.parsed.set(self.parsed.get() + length);
        }
    }

    /// Checks that the payload a callback has got is that of a frame of one of these kinds, behind the frames that earlier
    /// callbacks have got.
    fn understands(&self, kinds: &[u8], is_payload: impl Fn(&[u8]) -> bool) {
        let is_it = |frame: &Vec<u8>| frame.len() > 4 && kinds.contains(&frame[4]) && is_payload(&frame[5..]);
        match self.frames[self.understood.get()..].iter().position(is_it) {
            Some(at) => self.understood.set(self.understood.get() + at + 1),
            None => assert!(self.says_last.get(), "nobody has said what a callback got"),
        }
    }

    /// What a modification must return, if that is known.
    fn expected(&self, action: u32, valid: bool, length: usize) -> Option<c_int> {
        let event = *self.seen.borrow().last()?;
        if !valid || self.ended.get() {
            return Some(MI_FAILURE);
        }
        if CURRENT.get() != self.number {
            return None;
        }
        match event {
            "eom" if self.is_predictable() && length <= SURELY_FITS => {
                Some(if self.actions.get() & action == action { MI_SUCCESS } else { MI_FAILURE })
            }
            "negotiate" | "connect" | "helo" | "mail" | "rcpt" | "data" | "header" | "eoh" => {
                Some(MI_FAILURE)
            }
            _ => None,
        }
    }
}

/// Begins a callback: its session, whose status is then to be returned.
fn enter(ctx: *mut SMFICTX, event: &'static str, use_arguments: impl FnOnce(bool)) -> c_int {
    shortage::during(false, || {
        let player = player(CURRENT.get());
        assert_eq!(ctx, player.ctx(), "another session's context");
        assert!(!player.ended.get(), "{event} after the end");
        player.seen.borrow_mut().push(event);
        if !player.script().deaf {
            player.hear();
        }
        let call = player.calls.replace(player.calls.get() + 1);
        let deeds = &player.script().deeds;
        let deed = deeds.get(call % deeds.len().max(1));
        let mut status = 0;
        if let Some((number, deeds)) = deed {
            for deed in deeds.iter().take(MOST_CALLS) {
                perform(&player, deed);
                // A call may have sent something for another session, whose MTA reads on this thread as well.
                PLAYERS.with_borrow(|players| {
                    players.iter().filter(|player| !player.script().deaf).for_each(|player| player.hear())
                });
            }
            status = match number % 64 {
                number @ 0..=12 => i32::from(number),
                13 => -1,
                14 => i32::MIN,
                15 => i32::MAX,
                _ => 0,
            };
        }
        for (value, bytes) in player.values.take() {
            // SAFETY: a value stays until its stage is defined anew or forgotten, which no callback does.
            assert_eq!(unsafe { CStr::from_ptr(value) }.to_bytes(), bytes, "a value has changed");
        }
        use_arguments(call.is_multiple_of(3));
        status
    })
}

/// Makes a call, and checks what it returns.
fn perform(own: &Rc<Player>, deed: &Deed) {
    let count = PLAYERS.with_borrow(Vec::len);
    let whose = match deed.whose {
        0..=223 => Some(Rc::clone(own)),
        224..=231 => None,
        other => Some(player(usize::from(other) % count)),
    };
    let ctx = whose.as_ref().map_or(null_mut(), |player| player.ctx());
    let is_live = whose.as_ref().is_some_and(|player| !player.ended.get());
    let modified = |result: c_int, action: Actions, valid: bool, length: usize| {
        let expected = match &whose {
            None => Some(MI_FAILURE),
            Some(player) => player.expected(action.bits(), valid, length),
        };
        assert!(matches!(result, MI_SUCCESS | MI_FAILURE));
        assert_eq!(expected.unwrap_or(result), result, "{deed:?} in {:?}", own.seen.borrow());
    };
    // SAFETY: the contexts are NULL or those of sessions whose memory is kept; strings end with NUL, or are NULL.
    unsafe {
        match &deed.call {
            Call::AddHeader(name, value) => {
                let (name, value) = (name.c(), value.c());
                let result = library(|| smfi_addheader(ctx, name.pointer(), value.pointer()));
                let valid = name.is_filled() && !value.is_null();
                modified(result, Actions::ADDHDRS, valid, name.length() + value.length());
            }
            Call::InsertHeader(index, name, value) => {
                let (name, value) = (name.c(), value.c());
                let result = library(|| smfi_insheader(ctx, *index, name.pointer(), value.pointer()));
                let valid = name.is_filled() && !value.is_null() && *index >= 0;
                modified(result, Actions::ADDHDRS, valid, name.length() + value.length());
            }
            Call::ChangeHeader(name, index, value) => {
                let (name, value) = (name.c(), value.c());
                let result = library(|| smfi_chgheader(ctx, name.pointer(), *index, value.pointer()));
                let valid = name.is_filled() && *index >= 0;
                modified(result, Actions::CHGHDRS, valid, name.length() + value.length());
            }
            Call::ChangeSender(address, arguments) => {
                let (address, arguments) = (address.c(), arguments.c());
                let result = library(|| smfi_chgfrom(ctx, address.pointer(), arguments.pointer()));
                let length = address.length() + arguments.length();
                modified(result, Actions::CHGFROM, address.is_filled(), length);
            }
            Call::AddRecipient(address) => {
                let address = address.c();
                let result = library(|| smfi_addrcpt(ctx, address.pointer()));
                modified(result, Actions::ADDRCPT, address.is_filled(), address.length());
            }
            Call::AddRecipientWith(address, arguments) => {
                let (address, arguments) = (address.c(), arguments.c());
                let result = library(|| smfi_addrcpt_par(ctx, address.pointer(), arguments.pointer()));
                let length = address.length() + arguments.length();
                modified(result, Actions::ADDRCPT_PAR, address.is_filled(), length);
            }
            Call::DeleteRecipient(address) => {
                let address = address.c();
                let result = library(|| smfi_delrcpt(ctx, address.pointer()));
                modified(result, Actions::DELRCPT, address.is_filled(), address.length());
            }
            Call::ReplaceBody(body, length) => {
                let mut body = body.bytes().into_owned();
                // A length is that of the body, or one that there cannot be; NULL has any.
                let (pointer, length) = match length {
                    None => (body.as_mut_ptr(), body.len() as c_int),
                    Some(length) if *length > 0 => (null_mut(), *length),
                    Some(length) => (body.as_mut_ptr(), *length),
                };
                let result = library(|| smfi_replacebody(ctx, pointer, length));
                let valid = length >= 0 && (!pointer.is_null() || length == 0);
                modified(result, Actions::CHGBODY, valid, body.len());
            }
            Call::Quarantine(reason) => {
                let reason = reason.c();
                let result = library(|| smfi_quarantine(ctx, reason.pointer()));
                modified(result, Actions::QUARANTINE, reason.is_filled(), reason.length());
            }
            Call::Progress => {
                let result = library(|| smfi_progress(ctx));
                assert!(is_live || result == MI_FAILURE);
                assert!(!is_live || result == MI_SUCCESS || !whose.as_ref().unwrap().is_predictable());
            }
            Call::Reply(code, text) => {
                let ((code, xcode), text) = (code.texts(), text.c());
                let result = library(|| smfi_setreply(ctx, code.pointer(), xcode.pointer(), text.pointer()));
                assert!(is_live || result == MI_FAILURE);
            }
            Call::ReplyOfLines(code, count, line, last) => {
                let ((code, xcode), line, last) = (code.texts(), line.c(), last.c());
                let result = library(|| set_reply_of_lines(ctx, &code, &xcode, *count, &line, &last));
                assert!(is_live || result == MI_FAILURE);
                assert!(*count % 40 <= 33 || line.is_null() || result == MI_FAILURE, "more than 32 lines");
            }
            Call::Macro(name, write) => {
                let name = name.c();
                let value = library(|| smfi_getsymval(ctx, name.pointer()));
                assert!(value.is_null() || is_live && name.is_filled());
                got(own, value, *write);
            }
            Call::ManyMacros(count) => {
                let count = usize::from(*count).min(MACROS_LEFT.get());
                MACROS_LEFT.set(MACROS_LEFT.get() - count);
                for number in 0..count {
                    let name = format!("{{{number}}}\0");
                    let value = library(|| smfi_getsymval(ctx, name.as_ptr().cast_mut().cast()));
                    assert!(value.is_null() || is_live);
                    got(own, value, false);
                }
            }
            Call::MacroList(stage, names) => {
                let names = names.c();
                let result = library(|| smfi_setsymlist(ctx, c_int::from(*stage), names.pointer()));
                let is_valid = is_live && !names.is_null() && (0..=6).contains(stage);
                let Some(player) = whose.as_ref().filter(|_| is_valid) else {
                    assert_eq!(result, MI_FAILURE);
                    return;
                };
                let is_fresh = player.asked.get() & 1 << stage == 0;
                assert!(is_fresh || result == MI_FAILURE, "asked twice");
                assert!(!is_fresh || result == MI_SUCCESS || HAS_SHORTAGES.get());
                if result == MI_SUCCESS {
                    player.asked.set(player.asked.get() | 1 << stage);
                }
            }
            Call::SetPrivate(number) => {
                let pointer = std::ptr::without_provenance_mut(usize::from(*number));
                let result = library(|| smfi_setpriv(ctx, pointer));
                assert_eq!(result, if is_live { MI_SUCCESS } else { MI_FAILURE });
                if let Some(player) = whose.as_ref().filter(|_| is_live) {
                    player.private.set(pointer);
                }
            }
            Call::GetPrivate => {
                let expected =
                    whose.as_ref().filter(|_| is_live).map_or(null_mut(), |player| player.private.get());
                assert_eq!(library(|| smfi_getpriv(ctx)), expected);
            }
            Call::Setup(which, number) => set_up(*which, *number),
        }
    }
}

/// Remembers a value that smfi_getsymval has returned; or writes into it, as some filters do.
///
/// # Safety
/// The value is NULL or what it returned in this callback.
unsafe fn got(own: &Player, value: *mut c_char, write: bool) {
    if value.is_null() {
        return;
    }
    // SAFETY: the library's promise, which the sanitizer checks.
    let bytes = unsafe { CStr::from_ptr(value) }.to_bytes().to_vec();
    if !write {
        own.values.borrow_mut().push((value, bytes));
        return;
    }
    // What was remembered may be this very value.
    own.values.borrow_mut().clear();
    let middle = bytes.len() / 2;
    // SAFETY: it lies in the value.
    unsafe { value.add(middle).write(0) };
}

/// Calls smfi_setmlreply with up to 39 lines; what stands behind the first NULL may not be looked at.
///
/// # Safety
/// As of `perform`.
unsafe fn set_reply_of_lines(
    ctx: *mut SMFICTX,
    code: &CText,
    xcode: &CText,
    count: u8,
    line: &CText,
    last: &CText,
) -> c_int {
    let count = usize::from(count) % 40;
    let not_a_line: *mut c_char = std::ptr::without_provenance_mut(1);
    let l: [*mut c_char; 41] = std::array::from_fn(|at| match at {
        at if at + 1 == count => last.pointer(),
        at if at < count => line.pointer(),
        at if at == count => null_mut(),
        _ => not_a_line,
    });
    let (code, xcode) = (code.pointer(), xcode.pointer());
    // SAFETY: all are pointers, a NULL among them; the caller's promise.
    unsafe {
        smfi_setmlreply(
            ctx, code, xcode, l[0], l[1], l[2], l[3], l[4], l[5], l[6], l[7], l[8], l[9], l[10], l[11],
            l[12], l[13], l[14], l[15], l[16], l[17], l[18], l[19], l[20], l[21], l[22], l[23], l[24], l[25],
            l[26], l[27], l[28], l[29], l[30], l[31], l[32], l[33], l[34], l[35], l[36], l[37], l[38], l[39],
            l[40],
        )
    }
}

/// Calls for which a filter has no reason in a callback.
///
/// # Safety
/// None is needed: no pointer of the input goes out.
unsafe fn set_up(which: u8, number: i32) {
    // SAFETY: pointers are NULL, or lead to a variable.
    unsafe {
        match which % 7 {
            0 => assert_eq!(library(|| smfi_setconn(null_mut())), MI_FAILURE),
            1 => {
                let expected = if number > 0 { MI_SUCCESS } else { MI_FAILURE };
                assert_eq!(library(|| smfi_setbacklog(number)), expected);
            }
            2 => assert_eq!(library(|| smfi_settimeout(number)), MI_SUCCESS),
            3 => {
                library(|| smfi_setmaxdatasize(number as usize));
                assert_eq!(library(|| smfi_setmaxdatasize(65_535)), number as usize);
            }
            4 => assert_eq!(library(|| smfi_version(null_mut(), null_mut(), null_mut())), MI_SUCCESS),
            5 => {
                let mut major = 0;
                assert_eq!(library(|| smfi_version(&mut major, null_mut(), null_mut())), MI_SUCCESS);
                assert_eq!(major, 1);
            }
            _ => assert_eq!(library(|| smfi_stop()), MI_SUCCESS),
        }
    }
}

/// Checks that the first string a callback got is the first one of a frame of this kind.
///
/// # Safety
/// It is one.
unsafe fn understand(kind: u8, text: *const c_char) {
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    let is_payload = |payload: &[u8]| payload.split(|byte| *byte == 0).next() == Some(text);
    player(CURRENT.get()).understands(&[kind], is_payload);
}

/// Reads a string that a callback got, and writes into it.
///
/// # Safety
/// It is one.
unsafe fn use_string(text: *mut c_char, write: bool) {
    // SAFETY: the caller's promise; the sanitizer looks.
    let length = unsafe { CStr::from_ptr(text) }.count_bytes();
    if write {
        // SAFETY: all of it is the callback's, its NUL too.
        unsafe { text.write_bytes(0, length + 1) };
    }
}

unsafe extern "C-unwind" fn on_connect(
    ctx: *mut SMFICTX,
    host: *mut c_char,
    address: *mut libc::sockaddr,
) -> c_int {
    enter(ctx, "connect", |write| {
        // SAFETY: the library's promise: a string, and NULL or an address as long as its family says.
        unsafe {
            understand(b'C', host);
            use_string(host, write);
            if address.is_null() {
                return;
            }
            let length = match c_int::from((*address).sa_family) {
                libc::AF_INET => size_of::<libc::sockaddr_in>(),
                libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
                libc::AF_UNIX => size_of::<libc::sockaddr_un>(),
                family => panic!("family {family}"),
            };
            address.cast::<u8>().write_bytes(7, length);
        }
    })
}

unsafe extern "C-unwind" fn on_helo(ctx: *mut SMFICTX, name: *mut c_char) -> c_int {
    // SAFETY: the library's promise.
    enter(ctx, "helo", |write| unsafe {
        understand(b'H', name);
        use_string(name, write);
    })
}

/// # Safety
/// They are strings, and NULL is behind the last; there is one at least.
unsafe fn use_arguments(kind: u8, arguments: *mut *mut c_char, write: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        assert!(!(*arguments).is_null());
        understand(kind, *arguments);
        let mut at = 0;
        while !(*arguments.add(at)).is_null() {
            use_string(*arguments.add(at), write);
            if write {
                arguments.add(at).write(null_mut());
            }
            at += 1;
        }
    }
}

unsafe extern "C-unwind" fn on_mail(ctx: *mut SMFICTX, arguments: *mut *mut c_char) -> c_int {
    // SAFETY: the library's promise.
    enter(ctx, "mail", |write| unsafe { use_arguments(b'M', arguments, write) })
}

unsafe extern "C-unwind" fn on_rcpt(ctx: *mut SMFICTX, arguments: *mut *mut c_char) -> c_int {
    // SAFETY: the library's promise.
    enter(ctx, "rcpt", |write| unsafe { use_arguments(b'R', arguments, write) })
}

unsafe extern "C-unwind" fn on_header(ctx: *mut SMFICTX, name: *mut c_char, value: *mut c_char) -> c_int {
    enter(ctx, "header", |write| {
        // SAFETY: the library's promise. An empty name may be the value as well: nothing is written then.
        unsafe {
            use_string(value, false);
            use_string(name, write);
        }
    })
}

unsafe extern "C-unwind" fn on_eoh(ctx: *mut SMFICTX) -> c_int {
    enter(ctx, "eoh", |_| {})
}

unsafe extern "C-unwind" fn on_body(ctx: *mut SMFICTX, piece: *mut c_uchar, length: usize) -> c_int {
    enter(ctx, "body", |_| {
        // SAFETY: the library's promise: the piece, and a NUL behind it.
        unsafe {
            assert_eq!(piece.add(length).read(), 0);
            let bytes = std::slice::from_raw_parts(piece, length);
            player(CURRENT.get()).understands(b"BE", |payload| payload == bytes);
            piece.write_bytes(b'x', length);
        }
    })
}

unsafe extern "C-unwind" fn on_eom(ctx: *mut SMFICTX) -> c_int {
    enter(ctx, "eom", |_| {})
}

unsafe extern "C-unwind" fn on_abort(ctx: *mut SMFICTX) -> c_int {
    enter(ctx, "abort", |_| {})
}

unsafe extern "C-unwind" fn on_close(ctx: *mut SMFICTX) -> c_int {
    enter(ctx, "close", |_| {})
}

unsafe extern "C-unwind" fn on_unknown(ctx: *mut SMFICTX, line: *const c_char) -> c_int {
    // SAFETY: the library's promise.
    enter(ctx, "unknown", |_| unsafe { understand(b'U', line) })
}

unsafe extern "C-unwind" fn on_data(ctx: *mut SMFICTX) -> c_int {
    enter(ctx, "data", |_| {})
}

unsafe extern "C-unwind" fn on_negotiate(
    ctx: *mut SMFICTX,
    actions: c_ulong,
    steps: c_ulong,
    _: c_ulong,
    _: c_ulong,
    chosen_actions: *mut c_ulong,
    chosen_steps: *mut c_ulong,
    unused2: *mut c_ulong,
    unused3: *mut c_ulong,
) -> c_int {
    enter(ctx, "negotiate", |_| {});
    let player = player(CURRENT.get());
    let (status, own_actions, own_steps) = player.script().choice;
    // SAFETY: the library's promise: all lead to variables.
    unsafe {
        (*unused2, *unused3) = (1, 1);
        match status % 8 {
            // All that is wished for and offered.
            0..=2 => (*chosen_actions, *chosen_steps) = (actions & own_actions, steps & own_steps),
            3 => (*chosen_actions, *chosen_steps) = (own_actions, own_steps),
            _ => {}
        }
    }
    match status {
        250.. => 1,
        status if status % 8 == 4 => 10,
        _ => 0,
    }
}

/// What a program registers.
fn description(script: &Script) -> smfiDesc {
    const VERSIONS: [c_int; 12] = [
        0x0100_0001,
        0x0100_0001,
        0x0100_0001,
        0x0100_0001,
        0x0100_0001,
        2,
        3,
        4,
        0x0100_0000,
        0x0100_00ff,
        1,
        0x0200_0000,
    ];
    let has = |bit: u16| script.missing >> bit & 1 == 0;
    macro_rules! unless_missing {
        ($bit:literal, $callback:ident) => {
            if has($bit) { Some($callback) } else { None }
        };
    }
    smfiDesc {
        xxfi_name: if script.version > 240 { null_mut() } else { c"fuzz".as_ptr().cast_mut() },
        xxfi_version: VERSIONS[usize::from(script.version) % VERSIONS.len()],
        xxfi_flags: script.flags,
        xxfi_connect: unless_missing!(0, on_connect),
        xxfi_helo: unless_missing!(1, on_helo),
        xxfi_envfrom: unless_missing!(2, on_mail),
        xxfi_envrcpt: unless_missing!(3, on_rcpt),
        xxfi_header: unless_missing!(4, on_header),
        xxfi_eoh: unless_missing!(5, on_eoh),
        xxfi_body: unless_missing!(6, on_body),
        xxfi_eom: unless_missing!(7, on_eom),
        xxfi_abort: unless_missing!(8, on_abort),
        xxfi_close: unless_missing!(9, on_close),
        xxfi_unknown: unless_missing!(10, on_unknown),
        xxfi_data: unless_missing!(11, on_data),
        xxfi_negotiate: unless_missing!(12, on_negotiate),
    }
}

/// One session and the MTA's end of it.
struct Conversation<'a> {
    inner: conversation::Conversation,
    filter: Callbacks,
    player: Rc<Player>,
    shortages: &'a [(u8, u8)],
    turns: usize,
}

impl<'a> Conversation<'a> {
    /// `None` if the filter's version is none.
    fn new(
        script: &Script,
        ending: Ending,
        buffers: &mut Buffers,
        shutdown: &Arc<Shutdown>,
        shortages: &'a [(u8, u8)],
    ) -> Option<Self> {
        let description = description(script);
        // SAFETY: the structure is one of the newest version, and its callbacks have the types of the header.
        let (registered, filter) =
            unsafe { (smfi_register(description), Callbacks::read(&raw const description)) };
        assert_eq!(filter.is_ok(), registered == MI_SUCCESS);
        let filter = filter.ok()?;
        // The rest of a frame may come as late as it likes; it is this thread that sends it. But nobody reads what a deaf MTA
        // leaves in the socket, so that sending must not wait there. The same limit ends a session on half a frame.
        let timeouts = if script.deaf { Timeouts(0) } else { Timeouts(-1) };
        let frames = conversation::frames(script.start, &script.commands);
        // It may be more than the usual, for which the inbox has room without growing.
        let max_payload = script.max_payload.map(|size| usize::from(size) / 4 * 5);
        let inner = library(|| {
            conversation::Conversation::new(frames, ending, max_payload, timeouts, buffers, shutdown)
        });
        let player = PLAYERS.with_borrow_mut(|players| {
            let player = Rc::new(Player {
                number: players.len(),
                script,
                context: Arc::clone(inner.session.context()),
                mta: Rc::clone(&inner.mta),
                frames: Rc::clone(&inner.frames),
                understood: Cell::default(),
                says_last: Cell::default(),
                heard: RefCell::default(),
                parsed: Cell::default(),
                actions: Cell::default(),
                steps: Cell::default(),
                calls: Cell::default(),
                seen: RefCell::default(),
                values: RefCell::default(),
                private: Cell::new(null_mut()),
                asked: Cell::default(),
                ended: Cell::default(),
            });
            players.push(Rc::clone(&player));
            player
        });
        Some(Self { inner, filter, player, shortages, turns: 0 })
    }

    fn say(&mut self, count: usize, cut: u8, buffers: &mut Buffers) -> bool {
        if self.player.ended.get() || !self.inner.say(count, cut) {
            return false;
        }
        self.run(Cause::Ready, buffers);
        true
    }

    fn run(&mut self, cause: Cause, buffers: &mut Buffers) {
        if !self.shortages.is_empty() {
            let (served, refused) = self.shortages[self.turns % self.shortages.len()];
            shortage::plan(u32::from(served), u32::from(refused));
            self.turns += 1;
        }
        CURRENT.set(self.player.number);
        self.player.ended.set(library(|| self.inner.run(&self.filter, cause, buffers)));
        shortage::plan(0, 0);
        buffers.inbox.release();
        if !self.player.script().deaf {
            self.player.hear();
        }
    }

    /// The MTA says its last bytes and leaves. Then what the filter saw and the MTA heard is looked at.
    fn leave(mut self, buffers: &mut Buffers) {
        let player = Rc::clone(&self.player);
        if !player.ended.get() {
            player.says_last.set(true);
            self.inner.say_last(&player.script().tail);
        }
        for cause in self.inner.last_causes {
            if !player.ended.get() {
                self.run(*cause, buffers);
            }
        }
        assert!(player.ended.get() && player.context.has_ended());
        player.hear();
        let heard = player.heard.borrow().len();
        refuses(player.ctx());
        drop(self.inner);
        player.hear();
        assert_eq!(player.heard.borrow().len(), heard, "bytes after the end");
        assert_eq!((&*player.mta).read(&mut [0]).unwrap(), 0, "the connection is not closed");
        let is_whole = player.parsed.get() == heard;
        assert!(is_whole || player.script().deaf, "half a frame");
        check_order(&player);
    }
}

/// A session that has ended takes no call any more.
fn refuses(ctx: *mut SMFICTX) {
    let (name, code) = (c"j".as_ptr().cast_mut(), c"550".as_ptr().cast_mut());
    // SAFETY: the context's memory is kept by its player; the strings are such.
    unsafe {
        assert!(smfi_getsymval(ctx, name).is_null() && smfi_getpriv(ctx).is_null());
        let results = [
            smfi_setpriv(ctx, null_mut()),
            smfi_setreply(ctx, code, null_mut(), name),
            smfi_setmlreply(ctx, code, std::ptr::null(), name, null_mut::<c_char>()),
            smfi_setsymlist(ctx, 0, name),
            smfi_addheader(ctx, name, name),
            smfi_insheader(ctx, 0, name, name),
            smfi_chgheader(ctx, name, 0, name),
            smfi_chgfrom(ctx, name, name),
            smfi_addrcpt(ctx, name),
            smfi_addrcpt_par(ctx, name, name),
            smfi_delrcpt(ctx, name),
            smfi_replacebody(ctx, name.cast(), 1),
            smfi_quarantine(ctx, name),
            smfi_progress(ctx),
        ];
        assert!(results.iter().all(|&result| result == MI_FAILURE), "{results:?}");
    }
}

/// What holds for the callbacks of every session, whatever the MTA sends.
fn check_order(player: &Player) {
    let script = player.script();
    let has = |bit: u16| script.missing >> bit & 1 == 0;
    let mut events = player.seen.take();
    let what = format!("{events:?}");
    if has(9) {
        assert_eq!(events.pop(), Some("close"), "{what}");
        let closes = events.iter().filter(|event| **event == "close").count();
        let new_connections = player
            .frames
            .iter()
            .filter(|frame| frame.get(4) == Some(&u8::from(Kind::QuitNewConnection)))
            .count();
        assert!(closes <= new_connections, "closed too often: {what}");
    }
    let off = Steps::from_bits_retain(player.steps.get());
    // Version 2 knows no callback for unknown commands.
    let version = description(script).xxfi_version;
    let hears_all = has(2) && has(10) && version >= 3 && !off.intersects(Steps::NOMAIL | Steps::NOUNKNOWN);
    conversation::check_messages(events, hears_all);
}

/// Plays the sessions of an input. Without memory are, if there are any, so many requests at each turn of a session, after so
/// many that are served.
pub fn play(input: &Input, shortages: &[(u8, u8)]) {
    HAS_SHORTAGES.set(!shortages.is_empty());
    MACROS_LEFT.set(MOST_MACROS);
    let buffers = &mut Buffers::default();
    let shutdown = Arc::new(Shutdown::new().unwrap());
    let mut conversations: Vec<_> = input
        .scripts
        .iter()
        .take(MOST_SESSIONS)
        .enumerate()
        .filter_map(|(number, script)| {
            Conversation::new(script, input.delivery.ending(number), buffers, &shutdown, shortages)
        })
        .collect();
    if !conversations.is_empty() {
        for (whose, count, cut) in input.delivery.turns(conversations.len()) {
            conversations[whose].say(count, cut, buffers);
        }
    }
    while conversations.iter_mut().any(|conversation| conversation.say(MOST_AT_ONCE, 0, buffers)) {}
    for conversation in conversations {
        conversation.leave(buffers);
    }
    PLAYERS.take();
}
