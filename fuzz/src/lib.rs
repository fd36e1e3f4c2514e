//! What the targets share: memory that is counted, and a limit that depends on the input.
//!
//! libFuzzer's own limit on allocations needs the address sanitizer's hooks; this one needs nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes in use, and how many may be.
static USED: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The system's allocator, counting.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn charge(size: usize) {
    let used = USED.fetch_add(size, Relaxed).saturating_add(size);
    let limit = LIMIT.load(Relaxed);
    if used > limit {
        // Off first: the message allocates too.
        LIMIT.store(usize::MAX, Relaxed);
        eprintln!("an allocation of {size} bytes: {used} in use, and {limit} allowed");
        std::process::abort();
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        charge(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        charge(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        charge(size);
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `read`, which may take `fixed` bytes and `factor` more for each of the input's.
///
/// The process ends if it takes more, and libFuzzer keeps the input.
pub fn within<T>(input: usize, fixed: usize, factor: usize, read: impl FnOnce() -> T) -> T {
    let limit = USED.load(Relaxed) + fixed + factor * input;
    LIMIT.store(limit, Relaxed);
    let result = read();
    LIMIT.store(usize::MAX, Relaxed);
    result
}
