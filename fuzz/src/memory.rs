//! Memory with a lid: whoever asks for more than hostile bytes may cost is found, as a crash.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes in one piece: far above what inputs of some KiB need, far below what a length read from them may ask for.
const PIECE: usize = 64 << 20;
/// Bytes at a time. A chat template may hold what its limits let it make.
const ALL: usize = 1 << 30;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The system's memory, and no more of it than that.
pub struct Capped;

fn check(size: usize) {
    let live = LIVE.fetch_add(size, Ordering::Relaxed) + size;
    if size > PIECE && !crate::MAY_GROW.load(Ordering::Relaxed) || live > ALL {
        eprintln!("{size} bytes were asked for where {} are in use", live - size);
        std::process::abort();
    }
}

// SAFETY: the system's allocator does all that a caller sees.
unsafe impl GlobalAlloc for Capped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        check(size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
