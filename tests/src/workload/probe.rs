//! How long a topic cannot be written to.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};

use super::{Routes, Stop};
use crate::{client::Client, history::Place};

/// A client that waits longer for an answer would measure its own patience.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Between two writes, and between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Writes to each partition again and again with acks=all, and knows how long that did not work. Ends when dropped.
pub struct Probe {
    gaps: Arc<Mutex<Vec<Gap>>>,
    stop: Stop,
}

/// One partition's time since its last acknowledgement, and the longest such time so far.
#[derive(Clone, Copy)]
struct Gap {
    last: Instant,
    longest: Duration,
}

fn locked(gaps: &Mutex<Vec<Gap>>) -> MutexGuard<'_, Vec<Gap>> {
    gaps.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Probe {
    /// Begins.
    pub fn start(routes: &Routes, places: Vec<Place>) -> Probe {
        let none = Gap { last: Instant::now(), longest: Duration::ZERO };
        let probe = Probe { gaps: Arc::new(Mutex::new(vec![none; places.len()])), stop: Stop::default() };
        for (place, at) in places.into_iter().zip(0..) {
            let (routes, gaps, stop) = (routes.waiting_at_most(ANSWER_LIMIT), probe.gaps.clone(), probe.stop.clone());
            thread::spawn(move || write(&routes, &place, &stop, || note(&gaps, at)));
        }
        probe
    }

    /// Forgets what was before, except for what has not ended.
    pub fn reset(&self) {
        locked(&self.gaps).iter_mut().for_each(|gap| gap.longest = Duration::ZERO);
    }

    /// The longest time since [`reset`](Self::reset) in which some partition acknowledged nothing.
    pub fn longest(&self) -> Duration {
        let gaps = locked(&self.gaps);
        gaps.iter().map(|gap| gap.longest.max(gap.last.elapsed())).max().unwrap_or_default()
    }

    /// Whether every partition has acknowledged something after `since`.
    pub fn is_whole_since(&self, since: Instant) -> bool {
        locked(&self.gaps).iter().all(|gap| gap.last > since)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.now();
    }
}

fn note(gaps: &Mutex<Vec<Gap>>, at: usize) {
    let gap = &mut locked(gaps)[at];
    gap.longest = gap.longest.max(gap.last.elapsed());
    gap.last = Instant::now();
}

fn write(routes: &Routes, place: &Place, stop: &Stop, acknowledged: impl Fn()) {
    let mut leader: Option<Client> = None;
    while !stop.is_told() {
        let mut attempt = || -> Result<()> {
            let client = match &mut leader {
                Some(client) => client,
                none => none.insert(routes.to_leader(place)?),
            };
            client.produce(&place.topic, place.partition, batch()?).map(drop)
        };
        match attempt() {
            Ok(()) => acknowledged(),
            Err(error) => {
                leader = None;
                routes.complaints().note(&format!("{place} is probed"), &error);
                routes.turn_to_another();
            }
        }
        thread::park_timeout(PAUSE);
    }
}

fn batch() -> Result<Bytes> {
    let now = std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64;
    let mut builder = BatchBuilder::new(Offset::ZERO);
    let timestamp = Timestamp::from_wire(now);
    builder.push(RecordContent { timestamp, key: None, value: Some(b"is anybody there"), headers: &[] });
    Ok(builder.build()?.into())
}
