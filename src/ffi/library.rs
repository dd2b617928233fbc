//! Exports that set up, run and stop the library (contract 2.2).

use super::callbacks::Callbacks;
use super::types::{MI_SUCCESS, sm_bool, smfiDesc};
use super::{entry, entry_if, filled};
use crate::log;
use crate::server::activation::Passed;
use crate::server::listener::{Access, Listener};
use crate::server::ops::Listen;
use crate::server::settings::Settings;
use crate::server::{self, ops, signals};
use crate::sys::signal::ignore_sigpipe;
use parking_lot::Mutex;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::LazyLock;

/// The version of libmilter that this library stands for: major, minor, patch level.
const VERSION: [c_uint; 3] = [1, 0, 1];

/// The name in log lines before a filter is registered.
const NO_NAME: &CStr = c"libmilter";

/// What a filter has set up. The server works on a copy: what is changed while it runs counts for the next one,
/// but for the limits, which count for the next session.
#[derive(Default)]
struct Setup {
    settings: Settings,
    filter: Option<Callbacks>,
    spec: Option<Vec<u8>>,
    socket: Option<OpenSocket>,
}

/// A socket that smfi_opensocket or smfi_main has opened.
enum OpenSocket {
    Waiting(Listener),
    /// smfi_main is running with it.
    InUse,
}

static SETUP: LazyLock<Mutex<Setup>> = LazyLock::new(Mutex::default);

/// Logs a complaint in the name of the registered filter.
pub(super) fn complain(complaint: std::fmt::Arguments<'_>) {
    SETUP.lock().complain(complaint);
}

impl Setup {
    fn name(&self) -> &CStr {
        self.filter.as_ref().map_or(NO_NAME, |filter| crate::session::Filter::name(filter))
    }

    fn complain(&self, complaint: std::fmt::Arguments<'_>) {
        log::error(self.name(), complaint);
    }

    /// Opens the socket, unless it is open already.
    fn open(&mut self, function: &str, remove_old: bool) -> Option<()> {
        if self.filter.is_none() {
            self.complain(format_args!("{function}: no filter is registered"));
            return None;
        }
        let Some(spec) = &self.spec else {
            self.complain(format_args!("{function}: no connection is set"));
            return None;
        };
        if self.socket.is_some() {
            return Some(());
        }
        ops::set_up_log(self.name());
        let passed = Passed::from_environment();
        let listen = Listen::from_environment(self.name(), &passed);
        let shown = String::from_utf8_lossy(spec).into_owned();
        let mut own = Vec::new();
        if listen.as_ref().is_none_or(|listen| listen.is_added) {
            match passed.resolve(spec) {
                Ok(endpoint) => own.push((shown, endpoint)),
                Err(error) => {
                    self.complain(format_args!("{function}: connection \"{shown}\": {error}"));
                    return None;
                }
            }
        }
        let v6_only = listen.as_ref().is_some_and(|listen| listen.has_both_families(&own));
        let access = Access { v6_only, ..Access::from_environment(self.name()) };
        let own = own.into_iter().map(|socket| (socket, remove_old));
        // Nobody else removes those of the administrator.
        let added =
            listen.map_or_else(Vec::new, |listen| listen.sockets).into_iter().map(|socket| (socket, true));
        let mut all: Option<Listener> = None;
        for ((shown, endpoint), remove_old) in own.chain(added) {
            match Listener::open(&endpoint, self.settings.backlog, remove_old, &access) {
                Ok(listener) => {
                    all = Some(match all {
                        Some(others) => others.and(listener),
                        None => listener,
                    });
                }
                Err(error) => {
                    self.complain(format_args!("{function}: connection \"{shown}\": {error}"));
                    return None;
                }
            }
        }
        self.socket = Some(OpenSocket::Waiting(all?));
        Some(())
    }
}

/// Registers a filter: its name, its callbacks, and the actions that it may want to take.
///
/// # Safety
/// See the module `ffi`. The structure is as long as the version that it declares says, and its callbacks have the
/// types of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_register(desc: smfiDesc) -> c_int {
    entry_if(|| {
        let setup = &mut *SETUP.lock();
        setup.filter = None;
        // SAFETY: the caller's promise. Members behind the end of an older, shorter structure are memory of
        // the caller's frame; they are not read.
        match unsafe { Callbacks::read(&raw const desc) } {
            Ok(filter) => setup.filter = Some(filter),
            Err(version) => setup.complain(format_args!(
                "smfi_register: the filter was built for version {version:#x} of libmilter, which is not supported"
            )),
        }
        setup.filter.as_ref().map(drop)
    })
}

/// Sets where to listen: `unix:path`, `inet:port[@host]`, `inet6:port[@host]`, `fd:number`.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setconn(connspec: *mut c_char) -> c_int {
    entry_if(|| {
        // SAFETY: the caller keeps the promises of `ffi`.
        let spec = unsafe { filled(connspec) }?;
        SETUP.lock().spec = Some(spec.to_vec());
        Some(())
    })
}

/// What counts of a [`sm_bool`], as for the reference. By some calling conventions a caller extends a `_Bool` to a whole
/// register; by those of x86 and of ARM only its low byte is looked at.
const BOOL_BITS: sm_bool =
    if cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64", target_arch = "arm")) {
        0xff
    } else {
        !0
    };

/// Opens the socket that smfi_setconn named; with `rmsocket` a unix socket that is in the way is removed.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_opensocket(rmsocket: sm_bool) -> c_int {
    entry_if(|| SETUP.lock().open("smfi_opensocket", rmsocket & BOOL_BITS != 0))
}

/// Sets how many connections may wait to be accepted.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_setbacklog(obacklog: c_int) -> c_int {
    entry_if(|| (obacklog > 0).then(|| SETUP.lock().settings.backlog = obacklog))
}

/// Sets how many seconds a read from the MTA or a write to it may take.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_settimeout(otimeout: c_int) -> c_int {
    entry(|| {
        SETUP.lock().settings.limits.set_timeout(otimeout);
        MI_SUCCESS
    })
}

/// Sets how much debug output goes to standard error; 0 is none.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_setdbg(odbg: c_int) -> c_int {
    entry(|| {
        log::set_debug_level(odbg);
        MI_SUCCESS
    })
}

/// Sets how many bytes of data a frame may carry; the value before that.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_setmaxdatasize(sz: usize) -> usize {
    entry(|| SETUP.lock().settings.limits.set_max_payload(sz))
}

/// Tells the version of the library; each pointer may be NULL.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_version(pmajor: *mut c_uint, pminor: *mut c_uint, ppl: *mut c_uint) -> c_int {
    entry(|| {
        for (pointer, number) in [pmajor, pminor, ppl].into_iter().zip(VERSION) {
            if !pointer.is_null() {
                // SAFETY: it leads to a variable of the caller's.
                unsafe { pointer.write(number) };
            }
        }
        MI_SUCCESS
    })
}

/// Serves MTAs until the filter is to stop: by smfi_stop or a signal.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_main() -> c_int {
    entry_if(|| {
        // Even if it cannot start: the reference does so, and filters write to pipes afterwards.
        ignore_sigpipe();
        let (filter, listener, settings) = begin()?;
        let settings = settings.with_environment(crate::session::Filter::name(&filter));
        let result = server::serve(filter, listener, &settings);
        let setup = &mut *SETUP.lock();
        setup.socket = None;
        if let Err(failure) = &result {
            setup.complain(format_args!("smfi_main: {failure}"));
        }
        result.ok()
    })
}

/// What a server starts with, if all is set up and no server is running.
fn begin() -> Option<(Callbacks, Listener, Settings)> {
    let setup = &mut *SETUP.lock();
    setup.open("smfi_main", false)?;
    match setup.socket.replace(OpenSocket::InUse) {
        Some(OpenSocket::Waiting(listener)) => {
            Some((setup.filter.clone()?, listener, setup.settings.clone()))
        }
        _ => {
            setup.complain(format_args!("smfi_main: already running"));
            None
        }
    }
}

/// Lets smfi_main stop, and return once the running messages are done.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_stop() -> c_int {
    // Nothing but what a signal handler may do.
    signals::request_stop();
    MI_SUCCESS
}
