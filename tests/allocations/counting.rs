//! Counts what the threads of workers ask of the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

#[global_allocator]
static COUNTING: Counting = Counting;

static ON: AtomicBool = AtomicBool::new(false);
static COUNTED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static WHOSE: Cell<Whose> = const { Cell::new(Whose::Unknown) };
}

/// Whose thread it is. Asked while counting only: threads have their names by then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Unknown,
    Workers,
    Others,
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

fn count() {
    if !ON.load(Relaxed) {
        return;
    }
    let is_workers = WHOSE.try_with(|whose| {
        if whose.get() == Whose::Unknown {
            whose.set(ask());
        }
        whose.get() == Whose::Workers
    });
    if is_workers == Ok(true) {
        COUNTED.fetch_add(1, Relaxed);
    }
}

/// By the kernel's name of the thread, which is read without an allocation.
fn ask() -> Whose {
    let mut name = [0; 16];
    let read = File::open("/proc/thread-self/comm").and_then(|mut file| file.read(&mut name));
    if read.is_ok() && name.starts_with(b"worker-") {
        Whose::Workers
    } else {
        Whose::Others
    }
}

/// What the workers allocate while `work` is done.
pub fn on_workers(work: impl FnOnce()) -> u64 {
    let before = COUNTED.load(Relaxed);
    ON.store(true, Relaxed);
    work();
    ON.store(false, Relaxed);
    COUNTED.load(Relaxed) - before
}
