//! The rules, one function each; pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Contents, Event, History, Place, RecordId, Span, Written};

/// Something that cannot have happened on a log that keeps its promises.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each line says what its fields are")]
pub enum Fault {
    /// An acknowledged record is not where it was said to be.
    Lost { place: Place, offset: i64, record: RecordId, found: Option<RecordId> },
    /// A record is there twice.
    Duplicated { place: Place, record: RecordId, offsets: [i64; 2] },
    /// Offsets of a partition do not rise.
    OutOfPlace { place: Place, offset: i64, after: i64 },
    /// A writer's later record lies before an earlier one.
    Reordered { place: Place, first: RecordId, then: RecordId },
    /// A write that began after another was acknowledged lies before it.
    Overtaken { place: Place, writer: u32, offset: i64, acknowledged_before: i64 },
    /// Nobody wrote this record, or its writer was told that it is not there.
    Invented { place: Place, offset: i64, record: RecordId },
    /// Somebody read another record at this offset.
    Changed { place: Place, offset: i64, read: RecordId, found: Option<RecordId> },
    /// A read from an offset on left out a record before the last one that came.
    Skipped { place: Place, from: i64, left_out: i64 },
    /// A group's offset is below one that was committed, or found, before.
    WentBack { group: String, place: Place, found: Option<i64>, before: i64 },
    /// A group's offset is one that nobody committed.
    NeverCommitted { group: String, place: Place, offset: i64 },
    /// A group committed more than its members had read.
    Unread { group: String, place: Place, committed: i64, unread: i64 },
    /// Two members of one generation own the same partition.
    Shared { group: String, generation: i32, place: Place, members: [String; 2] },
    /// A member was given partitions in a generation below one that others had before.
    OldGeneration { group: String, generation: i32, before: i32 },
}

/// Everything in `history` that cannot have happened. Empty is what a test wants.
pub fn check(history: &History) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (place, contents) in &history.log {
        order(place, contents, &mut faults);
    }
    writes(history, &mut faults);
    reads(history, &mut faults);
    commits(history, &mut faults);
    coverage(history, &mut faults);
    ownership(history, &mut faults);
    faults
}

/// Offsets rise, no record comes twice, each writer's come in order.
fn order(place: &Place, contents: &Contents, faults: &mut Vec<Fault>) {
    let mut seen: BTreeMap<RecordId, i64> = BTreeMap::new();
    let mut last_of: BTreeMap<u32, RecordId> = BTreeMap::new();
    let mut last_offset = contents.start - 1;
    for &(offset, record) in &contents.records {
        let place = || place.clone();
        if offset <= last_offset {
            faults.push(Fault::OutOfPlace { place: place(), offset, after: last_offset });
        }
        last_offset = last_offset.max(offset);
        if let Some(first) = seen.insert(record, offset) {
            faults.push(Fault::Duplicated { place: place(), record, offsets: [first, offset] });
        }
        if let Some(first) = last_of.insert(record.writer, record).filter(|last| last.number > record.number) {
            faults.push(Fault::Reordered { place: place(), first, then: record });
        }
    }
}

/// Acknowledged records are where they were said to be, in the order of their acknowledgements; others may be there only if
/// they may have been written.
fn writes(history: &History, faults: &mut Vec<Fault>) {
    let mut possible: BTreeSet<(&Place, RecordId)> = BTreeSet::new();
    let mut acknowledged: BTreeMap<&Place, Vec<(Span, u32, i64)>> = BTreeMap::new();
    let nothing = Contents::default();
    for event in &history.events {
        let Event::Write { place, writer, numbers, written, span } = event else { continue };
        let ids = numbers.clone().map(|number| RecordId { writer: *writer, number });
        match written {
            Written::Refused => continue,
            Written::Unknown => possible.extend(ids.map(|id| (place, id))),
            Written::At(base) => {
                acknowledged.entry(place).or_default().push((*span, *writer, *base));
                let contents = history.log.get(place).unwrap_or(&nothing);
                for (offset, record) in (*base..).zip(ids) {
                    possible.insert((place, record));
                    let found = at(contents, offset);
                    if found != Some(record) && offset >= contents.start {
                        faults.push(Fault::Lost { place: place.clone(), offset, record, found });
                    }
                }
            }
        }
    }
    for (place, contents) in &history.log {
        for &(offset, record) in &contents.records {
            if !possible.contains(&(place, record)) {
                faults.push(Fault::Invented { place: place.clone(), offset, record });
            }
        }
    }
    for (place, mut writes) in acknowledged {
        // The highest offset of what was over before each write began, by walking both orders at once.
        let mut by_end = writes.clone();
        by_end.sort_by_key(|(span, ..)| span.ended);
        writes.sort_by_key(|(span, ..)| span.began);
        let mut over = by_end.into_iter().peekable();
        let mut highest: Option<i64> = None;
        for (span, writer, offset) in writes {
            while let Some((_, _, before)) = over.next_if(|(earlier, ..)| earlier.is_before(span)) {
                highest = highest.max(Some(before));
            }
            if let Some(acknowledged_before) = highest.filter(|highest| *highest >= offset) {
                faults.push(Fault::Overtaken { place: place.clone(), writer, offset, acknowledged_before });
            }
        }
    }
}

/// What was read is there still, and nothing between was left out.
fn reads(history: &History, faults: &mut Vec<Fault>) {
    let nothing = Contents::default();
    for event in &history.events {
        let Event::Read { place, from, records, .. } = event else { continue };
        let contents = history.log.get(place).unwrap_or(&nothing);
        for &(offset, read) in records.iter().filter(|(offset, _)| *offset >= contents.start) {
            let found = at(contents, offset);
            if found != Some(read) {
                faults.push(Fault::Changed { place: place.clone(), offset, read, found });
            }
        }
        let Some(last) = records.last() else { continue };
        let came: BTreeSet<i64> = records.iter().map(|(offset, _)| *offset).collect();
        let passed = between(contents, *from, last.0);
        if let Some((left_out, _)) = passed.iter().find(|(offset, _)| !came.contains(offset)) {
            faults.push(Fault::Skipped { place: place.clone(), from: *from, left_out: *left_out });
        }
    }
}

/// Committed offsets are found, do not go back, and come from somebody.
fn commits(history: &History, faults: &mut Vec<Fault>) {
    // Of each group and place: offsets that count from a moment on, and all that were ever tried.
    let mut settled: BTreeMap<(&str, &Place), Vec<(u64, i64)>> = BTreeMap::new();
    let mut tried: BTreeSet<(&str, &Place, i64)> = BTreeSet::new();
    let mut asked = Vec::new();
    for event in &history.events {
        match event {
            Event::Commit { group, place, offset, acknowledged, span } => {
                tried.insert((group, place, *offset));
                if *acknowledged {
                    settled.entry((group, place)).or_default().push((span.ended, *offset));
                }
            }
            Event::Committed { group, place, offset, span } => {
                asked.push((group.as_str(), place, *offset, *span));
                if let Some(offset) = offset {
                    settled.entry((group, place)).or_default().push((span.ended, *offset));
                }
            }
            _ => {}
        }
    }
    for (group, place, found, span) in asked {
        if let Some(offset) = found.filter(|offset| !tried.contains(&(group, place, *offset))) {
            faults.push(Fault::NeverCommitted { group: group.to_owned(), place: place.clone(), offset });
        }
        let before = settled.get(&(group, place)).into_iter().flatten().filter(|(ended, _)| *ended < span.began);
        if let Some(before) = before.map(|(_, offset)| *offset).max().filter(|before| found < Some(*before)) {
            faults.push(Fault::WentBack { group: group.to_owned(), place: place.clone(), found, before });
        }
    }
}

/// Reads of one group in one place: when each ended, and what it gave.
type Reads<'a> = Vec<(u64, &'a [(i64, RecordId)])>;

/// A group had read all below what it committed.
fn coverage(history: &History, faults: &mut Vec<Fault>) {
    let mut reads: BTreeMap<(&str, &Place), Reads<'_>> = BTreeMap::new();
    for event in &history.events {
        if let Event::Read { place, group: Some(group), records, span, .. } = event {
            reads.entry((group, place)).or_default().push((span.ended, records));
        }
    }
    let mut commits: BTreeMap<(&str, &Place), Vec<(u64, i64)>> = BTreeMap::new();
    for event in &history.events {
        if let Event::Commit { group, place, offset, span, .. } = event
            && reads.contains_key(&(group.as_str(), place))
        {
            commits.entry((group, place)).or_default().push((span.began, *offset));
        }
    }
    for ((group, place), mut commits) in commits {
        let Some(contents) = history.log.get(place) else { continue };
        let mut reads = reads.remove(&(group, place)).unwrap_or_default();
        reads.sort_by_key(|(ended, _)| *ended);
        commits.sort_unstable();
        let mut reads = reads.into_iter().peekable();
        let mut read: BTreeSet<i64> = BTreeSet::new();
        // Everything of the log below this was read; it only grows, so that the log is walked once.
        let mut covered = 0;
        for (began, committed) in commits {
            while let Some((_, records)) = reads.next_if(|(ended, _)| *ended < began) {
                read.extend(records.iter().map(|(offset, _)| *offset));
            }
            while contents.records.get(covered).is_some_and(|(offset, _)| read.contains(offset)) {
                covered += 1;
            }
            if let Some((unread, _)) = contents.records.get(covered).filter(|(offset, _)| *offset < committed) {
                let (group, place) = (group.to_owned(), place.clone());
                faults.push(Fault::Unread { group, place, committed, unread: *unread });
            }
        }
    }
}

/// One owner for each partition of a generation, and generations that only grow.
fn ownership(history: &History, faults: &mut Vec<Fault>) {
    let mut owners: BTreeMap<(&str, i32, &Place), &str> = BTreeMap::new();
    let mut generations: BTreeMap<&str, Vec<(Span, i32)>> = BTreeMap::new();
    for event in &history.events {
        let Event::Assigned { group, generation, member, places, span } = event else { continue };
        generations.entry(group).or_default().push((*span, *generation));
        for place in places {
            let owner = owners.insert((group, *generation, place), member);
            if let Some(other) = owner.filter(|owner| owner != member) {
                let (group, members) = (group.clone(), [other.to_owned(), member.clone()]);
                faults.push(Fault::Shared { group, generation: *generation, place: place.clone(), members });
            }
        }
    }
    for (group, mut given) in generations {
        let mut by_end = given.clone();
        by_end.sort_by_key(|(span, _)| span.ended);
        given.sort_by_key(|(span, _)| span.began);
        let mut over = by_end.into_iter().peekable();
        let mut highest = i32::MIN;
        for (span, generation) in given {
            while let Some((_, earlier)) = over.next_if(|(earlier, _)| earlier.is_before(span)) {
                highest = highest.max(earlier);
            }
            if generation < highest {
                faults.push(Fault::OldGeneration { group: group.to_owned(), generation, before: highest });
            }
        }
    }
}

/// The record at an offset.
fn at(contents: &Contents, offset: i64) -> Option<RecordId> {
    let found = contents.records.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
    Some(contents.records[found].1)
}

/// Records from an offset up to another one, with it.
fn between(contents: &Contents, from: i64, to: i64) -> &[(i64, RecordId)] {
    let start = contents.records.partition_point(|(offset, _)| *offset < from);
    let end = contents.records.partition_point(|(offset, _)| *offset <= to);
    contents.records.get(start..end).unwrap_or_default()
}
