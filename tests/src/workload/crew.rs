//! Writers and groups at work on one topic while something happens to the brokers; then everything is read, and judged.

use std::{
    sync::mpsc::{self, Receiver},
    thread,
};

use anyhow::{Context, Result, ensure};

use super::{Member, Random, Routes, Stop, Writer, read_all};
use crate::{
    history::{Event, History, Place, Recorder, check},
    node::eventually,
};

/// Who is at work.
#[derive(Clone, Debug)]
pub struct Crew {
    /// The topic.
    pub topic: &'static str,
    /// Its number of partitions.
    pub partitions: i32,
    /// How many write, each to all partitions.
    pub writers: u32,
    /// The groups that read.
    pub groups: &'static [&'static str],
    /// Members of each group.
    pub members: usize,
}

/// A sign that a client has found a fault: there is no need to go on.
pub type Faults = Receiver<()>;

impl Crew {
    /// The topic's partitions.
    pub fn places(&self) -> Vec<Place> {
        (0..self.partitions).map(|partition| Place { topic: self.topic.to_owned(), partition }).collect()
    }

    /// Has them work during `trouble`; then writers end what they have begun, and groups read to the end. What became of it
    /// all is written down with `recorder`, for [`judge`](Self::judge).
    ///
    /// # Errors
    /// `trouble` fails, a client is answered what it must not be, or a group does not get to the end.
    ///
    /// # Panics
    /// A client panics.
    pub fn work<T>(
        &self,
        routes: &Routes,
        recorder: &Recorder,
        random: &mut Random,
        trouble: impl FnOnce(&mut Random, &Faults) -> Result<T>,
    ) -> Result<T> {
        let (writing, reading) = (Stop::default(), Stop::default());
        let (fault, faults) = mpsc::channel::<()>();
        thread::scope(|scope| -> Result<T> {
            let mut clients = Vec::new();
            // A client that ends with an error tells the others' end.
            let mut spawn = |client: Box<dyn FnOnce() -> Result<()> + Send>| {
                let fault = fault.clone();
                clients.push(scope.spawn(move || {
                    let result = client();
                    if result.is_err() {
                        let _ = fault.send(());
                    }
                    result
                }));
            };
            for id in 0..self.writers {
                let (places, routes, recorder) = (self.places(), routes.clone(), recorder.clone());
                let writer = Writer { id, places, routes, recorder, stop: writing.clone() };
                let seed = random.below(u64::MAX);
                spawn(Box::new(move || writer.run(seed)));
            }
            for group in self.groups.iter().flat_map(|group| vec![*group; self.members]) {
                let (group, topic, partitions) = (group.to_owned(), self.topic.to_owned(), self.partitions);
                let (routes, recorder) = (routes.clone(), recorder.clone());
                let member = Member { group, topic, partitions, routes, recorder, stop: reading.clone() };
                let seed = random.below(u64::MAX);
                spawn(Box::new(move || member.run(seed)));
            }
            let readers = clients.split_off(self.writers as usize);
            let troubled = trouble(random, &faults);
            writing.now();
            let mut ended: Vec<Result<()>> =
                clients.into_iter().map(|client| client.join().expect("no panic")).collect();
            let caught_up = troubled.and_then(|gained| self.await_groups(routes, &faults).map(|()| gained));
            reading.now();
            ended.extend(readers.into_iter().map(|client| client.join().expect("no panic")));
            // A client's fault comes of a broker's end, or the other way round: both are told.
            match (ended.into_iter().collect::<Result<()>>(), caught_up) {
                (Ok(()), caught_up) => caught_up,
                (Err(fault), Ok(_)) => Err(fault),
                (Err(fault), Err(after)) => Err(fault.context(format!("{after:#}"))),
            }
        })
    }

    /// Waits until each group has committed the end of each partition.
    fn await_groups(&self, routes: &Routes, faults: &Faults) -> Result<()> {
        for (group, place) in self.groups.iter().flat_map(|group| self.places().into_iter().map(move |at| (group, at)))
        {
            let end = eventually("the end is told", || {
                let end = routes.to_leader(&place);
                Ok(end.and_then(|mut leader| leader.list_offset(&place.topic, place.partition, -1)).ok())
            })?;
            eventually(&format!("{group} has read {place} up to {end}"), || {
                ensure!(faults.try_recv().is_err(), "a client has found a fault");
                let committed = routes
                    .to_coordinator(group)
                    .and_then(|mut coordinator| coordinator.committed(group, &place.topic, place.partition));
                Ok(committed.is_ok_and(|committed| committed.unwrap_or(0) >= end).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Reads everything, and compares it with what clients did and were told.
    ///
    /// # Errors
    /// A promise is broken, or nothing happened at all.
    pub fn judge(&self, routes: &Routes, recorder: &Recorder) -> Result<()> {
        let log = self.places().into_iter().map(|place| read_all(routes, &place).map(|contents| (place, contents)));
        let history = History { events: recorder.events(), log: log.collect::<Result<_>>().context("reading all")? };
        let records: usize = history.log.values().map(|contents| contents.records.len()).sum();
        println!("{records} records, {} events", history.events.len());
        let faults = check(&history);
        ensure!(faults.is_empty(), "{} faults, the first {:#?}", faults.len(), &faults[..faults.len().min(5)]);
        let is_committed = history.events.iter().any(|event| matches!(event, Event::Commit { .. }));
        ensure!(records > 0 && is_committed, "something happened");
        Ok(())
    }
}
