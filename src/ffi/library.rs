//! Exports that set up, run and stop the library (contract 2.2).

use super::callbacks::Callbacks;
use super::types::{MI_SUCCESS, sm_bool, smfiDesc};
use super::{entry, entry_if, filled};
use crate::log;
use crate::server::endpoint::Endpoint;
use crate::server::listener::Listener;
use crate::server::settings::Settings;
use crate::server::{self, signals};
use crate::session::Timeouts;
use parking_lot::Mutex;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::LazyLock;

/// The version of libmilter that this library stands for: major, minor, patch level.
const VERSION: [c_uint; 3] = [1, 0, 1];

/// The name in log lines before a filter is registered.
const NO_NAME: &CStr = c"libmilter";

/// Configuring, then running, then configuring again.
enum Lifecycle {
    Configuring(Box<Setup>),
    Running,
}

/// What a filter has set up so far.
#[derive(Default)]
struct Setup {
    settings: Settings,
    filter: Option<Callbacks>,
    spec: Option<Vec<u8>>,
    listener: Option<Listener>,
}

static LIBRARY: LazyLock<Mutex<Lifecycle>> =
    LazyLock::new(|| Mutex::new(Lifecycle::Configuring(Box::default())));

/// Lets `change` change the setup; logs and fails when the server runs.
fn configure<T>(function: &str, change: impl FnOnce(&mut Setup) -> Option<T>) -> Option<T> {
    match &mut *LIBRARY.lock() {
        Lifecycle::Configuring(setup) => change(setup),
        Lifecycle::Running => {
            log::error(NO_NAME, format_args!("{function}: too late, smfi_main is running"));
            None
        }
    }
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
        if self.listener.is_some() {
            return Some(());
        }
        let shown = String::from_utf8_lossy(spec);
        let endpoint = match Endpoint::parse(spec) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                self.complain(format_args!("{function}: connection \"{shown}\": {error}"));
                return None;
            }
        };
        match Listener::open(&endpoint, self.settings.backlog, remove_old) {
            Ok(listener) => self.listener = Some(listener),
            Err(error) => {
                self.complain(format_args!("{function}: connection \"{shown}\": {error}"));
                return None;
            }
        }
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
        configure("smfi_register", |setup| {
            setup.filter = None;
            // SAFETY: the caller's promise. Members behind the end of an older, shorter structure are memory of
            // the caller's frame; they are not read.
            match unsafe { Callbacks::read(&raw const desc) } {
                Ok(filter) => setup.filter = Some(filter),
                Err(version) => setup.complain(format_args!(
                    "smfi_register: the filter was built for version {version:#x} of libmilter, which is not \
                     supported"
                )),
            }
            setup.filter.as_ref().map(drop)
        })
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
        let spec = unsafe { filled(connspec) }?.to_vec();
        configure("smfi_setconn", |setup| {
            setup.spec = Some(spec);
            Some(())
        })
    })
}

/// Opens the socket that smfi_setconn named; with `rmsocket` a unix socket that is in the way is removed.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_opensocket(rmsocket: sm_bool) -> c_int {
    entry_if(|| configure("smfi_opensocket", |setup| setup.open("smfi_opensocket", rmsocket != 0)))
}

/// Sets how many connections may wait to be accepted.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_setbacklog(obacklog: c_int) -> c_int {
    entry_if(|| {
        configure("smfi_setbacklog", |setup| (obacklog > 0).then(|| setup.settings.backlog = obacklog))
    })
}

/// Sets how many seconds a read from the MTA or a write to it may take.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_settimeout(otimeout: c_int) -> c_int {
    entry(|| {
        configure("smfi_settimeout", |setup| {
            setup.settings.timeouts = Timeouts::from_seconds(otimeout);
            Some(())
        });
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
    entry(|| {
        configure("smfi_setmaxdatasize", |setup| Some(std::mem::replace(&mut setup.settings.max_payload, sz)))
            .unwrap_or_default()
    })
}

/// Tells the version of the library; each pointer may be NULL.
///
/// # Safety
/// See the module `ffi`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_version(pmajor: *mut c_uint, pminor: *mut c_uint, ppl: *mut c_uint) -> c_int {
    entry(|| {
        for (pointer, number) in [pmajor, pminor, ppl].into_iter().zip(VERSION) {
            // SAFETY: NULL, or a variable of the caller's.
            if let Some(variable) = unsafe { pointer.as_mut() } {
                *variable = number;
            }
        }
        MI_SUCCESS
    })
}

/// Serves MTAs until the filter is to stop: by smfi_stop or a signal.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_main() -> c_int {
    entry_if(|| {
        let (mut setup, filter, listener) = begin()?;
        let result = server::serve(filter, listener, &setup.settings.clone().with_environment());
        if let Err(failure) = &result {
            setup.complain(format_args!("smfi_main: {failure}"));
        }
        setup.listener = None;
        *LIBRARY.lock() = Lifecycle::Configuring(setup);
        result.ok()
    })
}

/// Takes the setup, if it is complete; from then on the library is running.
fn begin() -> Option<(Box<Setup>, Callbacks, Listener)> {
    let library = &mut *LIBRARY.lock();
    let Lifecycle::Configuring(setup) = library else {
        log::error(NO_NAME, format_args!("smfi_main: already running"));
        return None;
    };
    setup.open("smfi_main", false)?;
    let (filter, listener) = (setup.filter.clone()?, setup.listener.take()?);
    match std::mem::replace(library, Lifecycle::Running) {
        Lifecycle::Configuring(setup) => Some((setup, filter, listener)),
        Lifecycle::Running => None,
    }
}

/// Lets smfi_main stop, and return once the running messages are done.
#[unsafe(no_mangle)]
pub extern "C" fn smfi_stop() -> c_int {
    // Nothing but what a signal handler may do.
    signals::request_stop();
    MI_SUCCESS
}
