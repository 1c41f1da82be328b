//! What clients did and were told, as data, and a checker that finds what a log that keeps its promises cannot have said.
//!
//! Clients (`workload`) write down each [`Event`] with a [`Recorder`]; at the end somebody reads the partitions, and
//! [`check()`] compares. It knows nothing of brokers, so that one node under `kill -9`, a cluster under faults and a
//! simulation are judged by the same rules:
//!
//! - an acknowledged record is where its acknowledgement said, once; no record is there that nobody wrote;
//! - one writer's records are in its order, and a write that began after another was acknowledged comes after it;
//! - what was once read at an offset stays there, and a read leaves out nothing in between;
//! - an acknowledged commit is found until a later one is; nobody finds an offset that nobody committed, and a committed
//!   offset covers only what the group has read;
//! - of the members of one generation no two own the same partition, and generations only grow.
//!
//! Time is a count of what happened ([`Span`]): one event is before another only if it ended before that began.

mod check;
mod recorder;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, ops::Range};

pub use check::{Fault, check};
pub use recorder::Recorder;

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its topic.
    pub topic: String,
    /// Its index.
    pub partition: i32,
}

/// A record by who wrote it: each writer counts its own from 0 in each partition. Its text form is the record's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordId {
    /// The writer.
    pub writer: u32,
    /// How many it had written to the partition before.
    pub number: u64,
}

/// When something began and ended, in numbers that every client draws from one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Drawn before the first byte was sent.
    pub began: u64,
    /// Drawn after the answer came, or its time was up.
    pub ended: u64,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Acknowledged, the first record at this offset.
    At(i64),
    /// No answer came, or none that says: it may be there or not.
    Unknown,
    /// The broker said that it is not there.
    Refused,
}

/// One thing that a client did.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// One batch of consecutive numbers, sent again until its fate was known.
    Write {
        /// Where.
        place: Place,
        /// By whom.
        writer: u32,
        /// Which records.
        numbers: Range<u64>,
        /// What became of it.
        written: Written,
        /// From the first attempt to the answer.
        span: Span,
    },
    /// Records that came when asked for those from an offset on, in their order.
    Read {
        /// Where.
        place: Place,
        /// The group for which they were read, if for one.
        group: Option<String>,
        /// The offset asked for.
        from: i64,
        /// Offsets and records.
        records: Vec<(i64, RecordId)>,
        /// When.
        span: Span,
    },
    /// A group's offset was set.
    Commit {
        /// The group.
        group: String,
        /// Where.
        place: Place,
        /// Which.
        offset: i64,
        /// Whether the coordinator said so; it may be set even if not.
        acknowledged: bool,
        /// When.
        span: Span,
    },
    /// A group's offset was asked for.
    Committed {
        /// The group.
        group: String,
        /// Where.
        place: Place,
        /// The answer.
        offset: Option<i64>,
        /// When.
        span: Span,
    },
    /// A member was given partitions.
    Assigned {
        /// The group.
        group: String,
        /// Which generation of it.
        generation: i32,
        /// The member.
        member: String,
        /// What it may read now.
        places: Vec<Place>,
        /// When.
        span: Span,
    },
}

/// What is in one partition at the end: the first offset that it still has, and its records.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Records below it were expired or deleted, and are not missed.
    pub start: i64,
    /// Offsets and records, as they lie.
    pub records: Vec<(i64, RecordId)>,
}

/// All that is known.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In any order.
    pub events: Vec<Event>,
    /// What was read when all was over.
    pub log: BTreeMap<Place, Contents>,
}

impl Span {
    /// Whether this was over before `other` began.
    pub fn is_before(self, other: Span) -> bool {
        self.ended < other.began
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.writer, self.number)
    }
}

impl std::str::FromStr for RecordId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<RecordId> {
        let (writer, number) = text.split_once('/').ok_or_else(|| anyhow::anyhow!("{text:?} is no record of ours"))?;
        Ok(RecordId { writer: writer.parse()?, number: number.parse()? })
    }
}
