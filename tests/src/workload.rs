//! Clients that write down what they do (`history`), whatever happens to the brokers meanwhile: idempotent writers, members of
//! groups and producers of transactions. They find leaders and coordinators anew whenever one is gone, so that one node that is killed and a
//! cluster under faults look the same to them.

mod complaints;
mod contents;
mod crew;
mod member;
mod probe;
mod routes;
mod transactor;
mod writer;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

pub use complaints::Complaints;
pub use contents::read_all;
pub use crew::{Crew, Faults};
pub use member::Member;
pub use probe::Probe;
pub use routes::Routes;
pub use transactor::{Transactions, Transactor};
pub use writer::Writer;

/// A sign to all clients of a test to end; clones are the same sign.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Tells all to end. A writer first finds out what became of what it has sent.
    pub fn now(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether they were told.
    pub fn is_told(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Numbers from a seed (the multiplier and increment of Knuth's MMIX).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}
