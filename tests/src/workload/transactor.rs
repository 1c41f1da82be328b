//! Producers of transactions that write to every partition of a topic, and what such a topic may hold in the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Random, Routes, Stop, routes::is_weather};
use crate::{
    client::{Client, Refusal},
    history::Place,
    node::eventually,
    transactions::{CommittedReader, Producer, batch},
};

/// A transaction that is not ended within this time is aborted by its coordinator, milliseconds.
const TIMEOUT_MS: i32 = 20_000;
/// How long a coordinator is asked again before another one is looked for.
const PATIENCE: Duration = Duration::from_millis(500);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// How a transaction ended, as far as its producer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Committed,
    Aborted,
    /// It was to be committed, and nobody said that it was.
    Unknown,
}

/// What all producers of a test did; clones share it. By producer, in its order.
#[derive(Clone, Debug, Default)]
pub struct Transactions(Arc<Mutex<BTreeMap<u32, Vec<End>>>>);

/// A producer with a transactional id of its own.
#[derive(Debug)]
pub struct Transactor {
    /// Which one.
    pub id: u32,
    /// Every transaction writes one record to each.
    pub places: Vec<Place>,
    /// The cluster.
    pub routes: Routes,
    /// Where it writes down what it did.
    pub done: Transactions,
    /// When to end.
    pub stop: Stop,
}

impl Transactor {
    fn name(&self) -> String {
        format!("transactor-{}", self.id)
    }

    /// Begins and ends transactions until it is told to stop. Whatever goes wrong, it introduces itself anew, as Kafka's
    /// producers do after an error that they cannot mend.
    ///
    /// # Errors
    /// It cannot introduce itself for five minutes.
    pub fn run(self, seed: u64) -> Result<()> {
        let mut random = Random(seed);
        let routes = self.routes.waiting_at_most(ANSWER_LIMIT);
        let mut producer: Option<Producer> = None;
        while !self.stop.is_told() {
            let known = match producer {
                Some(known) => known,
                None => self.introduce(&routes)?,
            };
            producer = match self.transact(&routes, known, random.below(4) > 0) {
                Ok(next) => Some(next),
                Err(error) => {
                    routes.complaints().note(&self.name(), &error);
                    thread::park_timeout(PAUSE);
                    None
                }
            };
        }
        // Nothing of ours is open from here on.
        self.introduce(&routes).map(drop)
    }

    fn coordinator(&self, routes: &Routes) -> Result<Client> {
        let mut coordinator = routes.to_transaction_coordinator(&self.name())?;
        coordinator.patience = PATIENCE;
        Ok(coordinator)
    }

    fn introduce(&self, routes: &Routes) -> Result<Producer> {
        // Whatever a coordinator says while others take over, the next one may say otherwise.
        let passes = |error: &anyhow::Error| is_weather(error) || Refusal::of(error).is_none();
        routes.persist_through(passes, &format!("{} introduces itself", self.name()), || {
            self.coordinator(routes)?.init_producer(&self.name(), TIMEOUT_MS)
        })
    }

    /// One transaction; who to be in the next.
    fn transact(&self, routes: &Routes, producer: Producer, commit: bool) -> Result<Producer> {
        let number = self.done.begin(self.id);
        for place in &self.places {
            let value = format!("{}/{number}", self.id);
            let mut leader = routes.to_leader(place)?;
            leader.patience = PATIENCE;
            let batch = batch(producer, 0, None, &value)?;
            leader.produce_in_transaction(&place.topic, place.partition, 12, &self.name(), batch)?;
        }
        let mut coordinator = self.coordinator(routes)?;
        if commit {
            // From here on an answer that is lost leaves the end unknown.
            self.done.end(self.id, number, End::Unknown);
        }
        let next = coordinator.end_transaction(&self.name(), producer, commit)?;
        if commit {
            self.done.end(self.id, number, End::Committed);
        }
        Ok(next)
    }
}

impl Transactions {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<u32, Vec<End>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a new transaction, which counts as aborted until something else is known.
    fn begin(&self, producer: u32) -> usize {
        let mut all = self.locked();
        let own = all.entry(producer).or_default();
        own.push(End::Aborted);
        own.len() - 1
    }

    fn end(&self, producer: u32, number: usize, end: End) {
        if let Some(known) = self.locked().get_mut(&producer).and_then(|own| own.get_mut(number)) {
            *known = end;
        }
    }

    /// How many are known to be committed.
    pub fn committed(&self) -> usize {
        self.locked().values().flatten().filter(|end| **end == End::Committed).count()
    }

    /// Reads what is committed, and compares: a transaction is in every partition or in none, once, in its producer's order,
    /// and as its producer was told.
    ///
    /// # Errors
    /// It is otherwise.
    pub fn judge(&self, routes: &Routes, places: &[Place]) -> Result<()> {
        let logs = places.iter().map(|place| Ok((place, committed_in(routes, place)?)));
        self.compare(&logs.collect::<Result<Vec<_>>>()?)
    }

    fn compare(&self, logs: &[(&Place, Vec<(u32, usize)>)]) -> Result<()> {
        let all = self.locked();
        let mut found: BTreeMap<(u32, usize), usize> = BTreeMap::new();
        for (place, log) in logs {
            let mut last: BTreeMap<u32, usize> = BTreeMap::new();
            for &(producer, number) in log {
                let before = last.insert(producer, number);
                let is_next = before.is_none_or(|before| before < number);
                ensure!(is_next, "{place}: transaction {producer}/{number} comes after {before:?}");
                *found.entry((producer, number)).or_default() += 1;
            }
        }
        for (producer, ends) in all.iter() {
            for (number, end) in ends.iter().enumerate() {
                let times = found.remove(&(*producer, number)).unwrap_or(0);
                let is_right = match end {
                    End::Committed => times == logs.len(),
                    End::Aborted => times == 0,
                    End::Unknown => times == 0 || times == logs.len(),
                };
                ensure!(is_right, "transaction {producer}/{number} is in {times} of {} logs: {end:?}", logs.len());
            }
        }
        ensure!(found.is_empty(), "nobody wrote {found:?}");
        Ok(())
    }
}

/// The transactions that a reader of committed records sees in a partition. Waits until markers on their way are written.
fn committed_in(routes: &Routes, place: &Place) -> Result<Vec<(u32, usize)>> {
    let mut last = None;
    let values = eventually(&format!("{place} has no open transaction"), || {
        let read = || -> Result<Vec<String>> {
            let mut leader = routes.to_leader(place)?;
            let end = leader.list_offset(&place.topic, place.partition, -1)?;
            let mut reader = CommittedReader::start(&mut leader, &place.topic, place.partition)?;
            Ok(reader.read_to(&mut leader, end)?.into_iter().map(|seen| seen.value).collect())
        };
        let read = read();
        last = read.as_ref().err().map(|error| format!("{error:#}"));
        Ok(read.ok())
    })
    .with_context(|| format!("at last: {last:?}"))?;
    let parsed = values.iter().map(|value| -> Result<(u32, usize)> {
        let (producer, number) = value.split_once('/').with_context(|| format!("{value:?} is no record of ours"))?;
        Ok((producer.parse()?, number.parse()?))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: i32) -> Place {
        Place { topic: "t".to_owned(), partition }
    }

    fn judged(ends: &[End], logs: [&[usize]; 2]) -> Result<()> {
        let done = Transactions::default();
        for end in ends {
            let number = done.begin(7);
            done.end(7, number, *end);
        }
        let places = [place(0), place(1)];
        let of = |log: &[usize]| log.iter().map(|number| (7, *number)).collect();
        done.compare(&[(&places[0], of(logs[0])), (&places[1], of(logs[1]))])
    }

    #[test]
    fn whatever_is_half_there_or_not_as_told_or_out_of_order_is_found() {
        use End::{Aborted, Committed, Unknown};
        assert!(judged(&[Committed, Aborted, Unknown], [&[0, 2], &[0, 2]]).is_ok());
        assert!(judged(&[Committed, Aborted, Unknown], [&[0], &[0]]).is_ok());
        assert!(judged(&[Committed], [&[0], &[]]).is_err(), "half");
        assert!(judged(&[Unknown], [&[0], &[]]).is_err(), "half of what nobody knows");
        assert!(judged(&[Aborted], [&[0], &[0]]).is_err(), "aborted");
        assert!(judged(&[Committed, Committed], [&[1, 0], &[0, 1]]).is_err(), "order");
        assert!(judged(&[Committed], [&[0, 0], &[0]]).is_err(), "twice");
        assert!(judged(&[Committed], [&[0, 1], &[0, 1]]).is_err(), "by nobody");
    }
}
