//! Memory asked for, whether touched or not: reserving gigabytes for a claim of ten bytes shows in no resident size.

use std::alloc::System;

use cap::Cap;

/// Most bytes that a target may hold at once. Asking for more ends it, as a crash.
const LIMIT: usize = 512 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, LIMIT);

/// Runs `work` and says how many bytes it asked for in all, those given back included.
pub fn asked_by<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATOR.total_allocated();
    let done = work();
    (done, ALLOCATOR.total_allocated() - before)
}

/// Keeps the panics quiet that the code under test catches itself; libFuzzer's own hook would end the process at each.
/// Those that nobody catches still end it, and are printed before.
pub fn bear_caught_panics() {
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
}
