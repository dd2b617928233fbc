//! Memory when there is none: the allocator of this library. Rust ends the process when malloc(3) has nothing to give,
//! but a filter must live on under a memory limit, as it does with a library in C. Two rules make that so:
//!
//! - What a peer or the filter sizes is asked for [`fallibly`], and its session ends or its call fails.
//! - The rest is small (sessions, their places in tables, log lines). When malloc(3) has nothing, it comes out of a
//!   reserve that was set aside when the library was loaded, and is used for nothing else. While half of that is taken no
//!   session is begun ([`is_short`]); when all of it is, whoever needs memory waits for it a while.
//!
//! And glibc's malloc shall not take the room that the stacks of the threads need: see [`heed_limit`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// Bytes of a unit of the reserve, and their alignment.
const UNIT: usize = 64;

/// Units of a group. A piece of memory lies in one group, or has several groups to itself.
const GROUP: usize = u64::BITS as usize;

/// Groups in the reserve: 1 MiB, of which nothing costs memory before it is used.
const GROUPS: usize = 256;

/// The most groups of one piece: 32 KiB. Tables grow by pieces of this order.
const LARGEST: usize = 8;

/// The most bytes of one piece. The fuzz targets hold the rest of the library to less: their input is short.
const LARGEST_PIECE: usize = if cfg!(fuzzing) { 4096 } else { UNIT * GROUP * LARGEST };

/// How often to ask again for a small piece, and how long to wait in between.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// malloc(3), and behind it the reserve.
struct WithReserve;

#[global_allocator]
static ALLOCATOR: WithReserve = WithReserve;

static RESERVE: Reserve<GROUPS> = Reserve::new();

thread_local! {
    /// Whether the thread asks for memory [`fallibly`].
    static MAY_FAIL: Cell<bool> = const { Cell::new(false) };
}

/// Does something that copes with a lack of memory: what it asks for never comes out of the reserve.
pub fn fallibly<T>(ask: impl FnOnce() -> T) -> T {
    /// Also if it panics.
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            MAY_FAIL.set(false);
        }
    }
    MAY_FAIL.set(true);
    let _over = Over;
    ask()
}

/// Whether there is so little memory that no new session should be begun.
pub fn is_short() -> bool {
    RESERVE.is_half_used()
}

/// Lets malloc(3) take at most a quarter of a limit on the address space for its arenas. Of these glibc makes one for
/// nearly every thread, each 64 MiB of address space, whatever is in it; under a limit of 230 MB three threads left no room
/// for a fourth, and the filter refused everybody for ever. Nothing changes without a limit, with one that is large, or
/// when the environment says how many arenas there shall be. Where an address has 32 bits, an arena is 1 MiB, and needs no care.
pub fn heed_limit() {
    if cfg!(target_pointer_width = "32") {
        return;
    }
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the call fills in the limit.
    if unsafe { libc::getrlimit(libc::RLIMIT_AS, limit.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: the call has succeeded.
    let limit = unsafe { limit.assume_init() }.rlim_cur;
    let is_chosen = std::env::var_os("MALLOC_ARENA_MAX").is_some()
        || std::env::var("GLIBC_TUNABLES").is_ok_and(|tunables| tunables.contains("arena_max"));
    if let Some(arenas) = arenas_within(limit as _)
        && !is_chosen
    {
        limit_arenas(arenas);
    }
}

#[cfg(target_env = "gnu")]
fn limit_arenas(arenas: i32) {
    // SAFETY: it takes numbers, and may be called at any time.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
}

/// Other C libraries have none.
#[cfg(not(target_env = "gnu"))]
fn limit_arenas(_: i32) {}

/// How many arenas there may be, the one without a reservation among them; `None` if that needs no care.
fn arenas_within(limit: u64) -> Option<i32> {
    const ARENA: u64 = 64 << 20;
    const LARGE: u64 = 4 << 30;
    (limit < LARGE).then(|| 1 + i32::try_from(limit / 4 / ARENA).unwrap_or(i32::MAX))
}

/// Whether malloc(3) is to have nothing, for the sake of a test.
#[inline(always)]
fn is_feigned() -> bool {
    #[cfg(any(test, fuzzing))]
    return shortage::strikes();
    #[cfg(not(any(test, fuzzing)))]
    false
}

/// Shortages that tests and fuzz targets feign, each for its own thread: malloc(3) and mmap(2) have nothing to give.
#[cfg(any(test, fuzzing))]
pub mod shortage {
    use std::cell::Cell;

    thread_local! {
        static IS_ON: Cell<bool> = const { Cell::new(false) };
        /// How many requests are served before it begins, and how many are refused then.
        static PLAN: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
    }

    /// Serves so many of the next requests that [`during`] sees, and refuses so many after them.
    pub fn plan(served: u32, refused: u32) {
        PLAN.set((served, refused));
    }

    /// Does something to which the [`plan`] applies, or with `false` something to which it does not.
    pub fn during<T>(is_on: bool, body: impl FnOnce() -> T) -> T {
        /// Also if it panics.
        struct Back(bool);
        impl Drop for Back {
            fn drop(&mut self) {
                IS_ON.set(self.0);
            }
        }
        let _back = Back(IS_ON.replace(is_on));
        body()
    }

    /// Whether this request is refused.
    pub(in crate::sys) fn strikes() -> bool {
        if !IS_ON.get() {
            return false;
        }
        match PLAN.get() {
            (0, 0) => false,
            (0, refused) => {
                PLAN.set((0, refused - 1));
                true
            }
            (served, refused) => {
                PLAN.set((served - 1, refused));
                false
            }
        }
    }
}

// SAFETY: every piece comes from the system's allocator or from the reserve, and goes back to where its address says
// that it came from. Both give pieces of the asked size and alignment that nobody else has.
unsafe impl GlobalAlloc for WithReserve {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let memory = if is_feigned() { null_mut() } else { unsafe { System.alloc(layout) } };
        if memory.is_null() { in_need(layout) } else { memory }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let memory = if is_feigned() { null_mut() } else { unsafe { System.alloc_zeroed(layout) } };
        if !memory.is_null() {
            return memory;
        }
        let memory = in_need(layout);
        if !memory.is_null() {
            // SAFETY: it has this size.
            unsafe { memory.write_bytes(0, layout.size()) };
        }
        memory
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if RESERVE.has(memory) {
            RESERVE.give_back(memory, layout.size());
        } else {
            // SAFETY: then it came from there; the caller's promise.
            unsafe { System.dealloc(memory, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !RESERVE.has(memory) && !is_feigned() {
            // SAFETY: then it came from there; the caller's promise.
            let moved = unsafe { System.realloc(memory, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller promises that the size is not 0 and not too large.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: both have so many bytes, and the new one is nobody else's.
            unsafe {
                moved.copy_from_nonoverlapping(memory, size.min(layout.size()));
                self.dealloc(memory, layout);
            }
        }
        moved
    }
}

/// What the system does not give: out of the reserve if it is small, or null.
#[cold]
#[inline(never)]
fn in_need(layout: Layout) -> *mut u8 {
    if MAY_FAIL.get() || layout.size() > LARGEST_PIECE || layout.align() > UNIT {
        return null_mut();
    }
    for _ in 0..TRIES {
        let memory = RESERVE.take(layout.size());
        if !memory.is_null() {
            return memory;
        }
        sleep(PAUSE);
        // SAFETY: the size is not 0, as the callers of the allocator promise.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            return memory;
        }
    }
    null_mut()
}

/// Memory that is there from the start.
#[repr(C, align(64))]
struct Reserve<const GROUPS: usize> {
    memory: UnsafeCell<[[u8; UNIT * GROUP]; GROUPS]>,
    /// For each group, one bit for each unit that is taken.
    taken: [AtomicU64; GROUPS],
}

// SAFETY: the memory is only handed out, in pieces that do not overlap; the bits are atomic.
unsafe impl<const GROUPS: usize> Sync for Reserve<GROUPS> {}

impl<const GROUPS: usize> Reserve<GROUPS> {
    const fn new() -> Self {
        Self {
            memory: UnsafeCell::new([[0; UNIT * GROUP]; GROUPS]),
            taken: [const { AtomicU64::new(0) }; GROUPS],
        }
    }

    /// A piece of at least `size` bytes; null if there is none.
    fn take(&self, size: usize) -> *mut u8 {
        let units = size.div_ceil(UNIT).max(1);
        let unit =
            if units <= GROUP { self.take_units(units) } else { self.take_groups(units.div_ceil(GROUP)) };
        let memory: *mut u8 = self.memory.get().cast();
        unit.map_or(null_mut(), |unit| memory.wrapping_add(unit * UNIT))
    }

    /// Claims units of one group; the first of them.
    fn take_units(&self, units: usize) -> Option<usize> {
        self.taken.iter().enumerate().find_map(|(group, taken)| {
            let claim = |taken: u64| free_run(taken, units).map(|at| taken | bits(at, units));
            let before = taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, claim).ok()?;
            Some(group * GROUP + free_run(before, units)?)
        })
    }

    /// Claims whole groups, from the end; the first unit of them.
    fn take_groups(&self, groups: usize) -> Option<usize> {
        let claim = |taken: &AtomicU64| {
            taken.compare_exchange(0, u64::MAX, Ordering::AcqRel, Ordering::Acquire).is_ok()
        };
        (0..=GROUPS.checked_sub(groups)?).rev().find_map(|first| {
            let claimed = self.taken[first..first + groups].iter().take_while(|taken| claim(taken)).count();
            if claimed == groups {
                return Some(first * GROUP);
            }
            self.release_groups(first, claimed);
            None
        })
    }

    fn release_groups(&self, first: usize, groups: usize) {
        self.taken[first..first + groups].iter().for_each(|taken| taken.store(0, Ordering::Release));
    }

    /// Whether a piece came from here.
    #[inline]
    fn has(&self, memory: *mut u8) -> bool {
        self.offset(memory) < size_of_val(&self.memory)
    }

    /// How far behind the beginning an address is; far behind the end if it is before that.
    #[inline]
    fn offset(&self, memory: *mut u8) -> usize {
        memory.addr().wrapping_sub(self.memory.get().addr())
    }

    /// Takes back a piece that came from here with this size.
    fn give_back(&self, memory: *mut u8, size: usize) {
        let (unit, units) = (self.offset(memory) / UNIT, size.div_ceil(UNIT).max(1));
        if units <= GROUP {
            self.taken[unit / GROUP].fetch_and(!bits(unit % GROUP, units), Ordering::AcqRel);
        } else {
            self.release_groups(unit / GROUP, units.div_ceil(GROUP));
        }
    }

    /// Whether about half of it is taken.
    fn is_half_used(&self) -> bool {
        // Small pieces come from the beginning, large ones from the end.
        self.taken[GROUPS / 2].load(Ordering::Relaxed) != 0
    }
}

/// `units` bits from bit `at` on.
fn bits(at: usize, units: usize) -> u64 {
    (u64::MAX >> (GROUP - units)) << at
}

/// Where the first so many bits are that are 0.
fn free_run(taken: u64, units: usize) -> Option<usize> {
    (0..=GROUP - units).find(|&at| taken & bits(at, units) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn pieces_do_not_overlap_and_come_back() {
        let reserve = Reserve::<4>::new();
        let sizes = [8192, 1, 64, 65, 4090, 200, 63, 128, 1000];
        let pieces: Vec<(usize, usize)> =
            sizes.iter().map(|&size| (reserve.take(size).addr(), size)).collect();
        for (index, &(start, size)) in pieces.iter().enumerate() {
            assert!(start != 0 && start.is_multiple_of(UNIT) && reserve.has(start as *mut u8));
            for &(other, its_size) in &pieces[..index] {
                assert!(start + size <= other || other + its_size <= start, "{start:x} {other:x}");
            }
        }
        assert!(reserve.take(4096).is_null(), "all groups have something taken");
        assert!(reserve.is_half_used());
        for (start, size) in pieces {
            reserve.give_back(start as *mut u8, size);
        }
        assert!(!reserve.is_half_used());
        let whole: Vec<_> = (0..4).map(|_| reserve.take(4096)).collect();
        assert!(whole.iter().all(|piece| !piece.is_null()) && reserve.take(1).is_null());
        let inside = std::ptr::from_ref(&reserve.taken).cast_mut().cast::<u8>();
        assert!(
            !reserve.has(inside)
                && !reserve.has(null_mut())
                && !reserve.has((&raw const reserve).cast_mut().cast::<u8>().wrapping_sub(1))
        );
    }

    #[test]
    fn arenas_take_a_quarter_of_the_limit() {
        let megabytes = |limit: u64| arenas_within(limit << 20);
        assert_eq!([200, 255, 256, 500, 1024].map(megabytes), [Some(1), Some(1), Some(2), Some(2), Some(5)]);
        assert_eq!((megabytes(4096), arenas_within(libc::RLIM_INFINITY)), (None, None));
    }

    #[test]
    fn threads_get_different_pieces() {
        let reserve = Arc::new(Reserve::<2>::new());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let reserve = Arc::clone(&reserve);
                thread::spawn(move || (0..32).map(|_| reserve.take(64).addr()).collect::<Vec<_>>())
            })
            .collect();
        let mut all: Vec<usize> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        all.sort_unstable();
        all.dedup();
        assert!(all.len() == 128 && all[0] != 0 && reserve.take(1).is_null());
    }

    #[test]
    fn a_piece_of_the_reserve_may_grow_out_of_it_and_back() {
        let layout = Layout::from_size_align(100, 8).unwrap();
        let memory = in_need(layout);
        assert!(RESERVE.has(memory));
        // SAFETY: each piece has the size that is written and read, and goes back with its own layout.
        unsafe {
            memory.write_bytes(7, 100);
            let moved = ALLOCATOR.realloc(memory, layout, 10_000);
            assert!(!RESERVE.has(moved));
            assert!((0..100).all(|at| moved.add(at).read() == 7));
            ALLOCATOR.dealloc(moved, Layout::from_size_align(10_000, 8).unwrap());
        }
        let of = |size, align| in_need(Layout::from_size_align(size, align).unwrap());
        assert!(of(40_000, 8).is_null() && of(64, 128).is_null(), "it is for small pieces");
        assert!(fallibly(|| in_need(layout)).is_null());
        assert!(!is_short());
    }
}
