//! A member of a classic consumer group.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use kafka_protocol::error::ResponseError;

use super::{Random, Routes, Stop, contents, routes::is_weather};
use crate::{
    client::{Client, FetchSpec, Membership, Refusal},
    history::{Event, Place, Recorder},
};

/// After this time without a word a member is out: what a group that lost its members waits before it forms again.
const SESSION: Duration = Duration::from_secs(1);
/// Of so many rounds of reading, after one it vanishes without a word and comes back as somebody else.
const VANISHES_ONE_IN: u64 = 400;
/// Bytes of one read: a few batches.
const READ_BYTES: i32 = 8 << 10;
/// Longest wait of one read, milliseconds.
const READ_WAIT_MS: i32 = 20;

/// Reads what its group gives it, from where the group stands, and commits what it read.
pub struct Member {
    /// Its group.
    pub group: String,
    /// The topic that the group reads.
    pub topic: String,
    /// The topic's number of partitions.
    pub partitions: i32,
    /// The cluster.
    pub routes: Routes,
    /// Where it writes down what it did.
    pub recorder: Recorder,
    /// When to leave.
    pub stop: Stop,
}

/// Why a member stops reading what it was given.
enum Turn {
    /// The group rebalances, or does not know it any more: join again, as who it was or as somebody else.
    Rejoin(Membership),
    /// It was told to stop.
    Stopped(Membership),
}

impl Member {
    /// Reads until it is told to stop, and leaves the group.
    ///
    /// # Errors
    /// A broker answers what it must not answer, or none answers for five minutes.
    pub fn run(self, seed: u64) -> Result<()> {
        let mut random = Random(seed);
        let mut who = Membership::outsider(&self.group);
        loop {
            let began = self.recorder.now();
            let Some((joined, places)) = self.join(&mut who)? else { continue };
            self.recorder.note(Event::Assigned {
                group: self.group.clone(),
                generation: joined.generation,
                member: joined.member.clone(),
                places: places.clone(),
                span: self.recorder.since(began),
            });
            match self.read(joined, &places, &mut random)? {
                Turn::Rejoin(next) => who = next,
                Turn::Stopped(last) => {
                    // Whoever is not there any more needs not leave.
                    let _ = self.routes.to_coordinator(&self.group).and_then(|mut client| client.leave(&last));
                    return Ok(());
                }
            }
        }
    }

    /// Joins and gets partitions; none if the group went on without it meanwhile, with who it is then.
    fn join(&self, who: &mut Membership) -> Result<Option<(Membership, Vec<Place>)>> {
        let result = self.routes.persist(&format!("{} is joined", self.group), || {
            let mut client = self.routes.to_coordinator(&self.group)?;
            let joined = client.join(who, &self.topic, SESSION)?;
            let plan = joined.to_assign.map_or_else(BTreeMap::new, |members| self.assign(members));
            let partitions = client.sync(&joined.membership, &self.topic, &plan);
            Ok((joined.membership.clone(), partitions.map_err(|error| (joined.membership, error))))
        });
        let (joined, partitions) = match result {
            Ok(done) => done,
            Err(error) => {
                *who = self.after(who, &error).ok_or(error)?;
                return Ok(None);
            }
        };
        match partitions {
            Ok(partitions) => {
                let place = |partition| Place { topic: self.topic.clone(), partition };
                Ok(Some((joined, partitions.into_iter().map(place).collect())))
            }
            Err((member, error)) => {
                // After a broken connection it asks again as who it was told to be.
                *who = if is_weather(&error) { member } else { self.after(&member, &error).ok_or(error)? };
                Ok(None)
            }
        }
    }

    /// Partitions in turn to members in order.
    fn assign(&self, mut members: Vec<String>) -> BTreeMap<String, Vec<i32>> {
        members.sort();
        let mut plan: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (partition, member) in (0..self.partitions).zip(members.iter().cycle()) {
            plan.entry(member.clone()).or_default().push(partition);
        }
        plan
    }

    /// Reads and commits until the group rebalances.
    fn read(&self, who: Membership, places: &[Place], random: &mut Random) -> Result<Turn> {
        let mut positions = Vec::new();
        for place in places {
            positions.push(self.committed(place)?.unwrap_or(0));
        }
        loop {
            if self.stop.is_told() {
                return Ok(Turn::Stopped(who));
            }
            if random.below(VANISHES_ONE_IN) == 0 {
                return Ok(Turn::Rejoin(Membership::outsider(&self.group)));
            }
            let beat = self.as_member(&who, |client| client.heartbeat(&who))?;
            if let Some(next) = beat {
                return Ok(Turn::Rejoin(next));
            }
            for (place, position) in places.iter().zip(&mut positions) {
                let next = self.read_some(place, *position)?;
                if next > *position {
                    *position = next;
                    if let Some(next) = self.commit(&who, place, next)? {
                        return Ok(Turn::Rejoin(next));
                    }
                }
            }
        }
    }

    /// Asks for the group's offset, and writes it down.
    fn committed(&self, place: &Place) -> Result<Option<i64>> {
        self.routes.persist(&format!("{}'s offset in {place}", self.group), || {
            let mut client = self.routes.to_coordinator(&self.group)?;
            let began = self.recorder.now();
            let offset = client.committed(&self.group, &place.topic, place.partition)?;
            let (group, place, span) = (self.group.clone(), place.clone(), self.recorder.since(began));
            self.recorder.note(Event::Committed { group, place, offset, span });
            Ok(offset)
        })
    }

    /// Reads once; where to read on.
    fn read_some(&self, place: &Place, from: i64) -> Result<i64> {
        self.routes.persist(&format!("{} reads {place} from {from}", self.group), || {
            let mut client = self.routes.to_leader(place)?;
            let (topic, partition) = (place.topic.as_str(), place.partition);
            let spec = FetchSpec { topic, partition, max_bytes: READ_BYTES, max_wait_ms: READ_WAIT_MS };
            let mut records = Vec::new();
            let began = self.recorder.now();
            let next = contents::fetch(&mut client, &spec, from, &mut records)?;
            if !records.is_empty() {
                let (place, group) = (place.clone(), Some(self.group.clone()));
                self.recorder.note(Event::Read { place, group, from, records, span: self.recorder.since(began) });
            }
            Ok(next)
        })
    }

    /// Commits once, and writes it down; who to be from now on, if the group has gone on.
    fn commit(&self, who: &Membership, place: &Place, offset: i64) -> Result<Option<Membership>> {
        self.as_member(who, |client| {
            let began = self.recorder.now();
            let result = client.commit_as(who, &place.topic, place.partition, offset);
            let (group, place, span) = (self.group.clone(), place.clone(), self.recorder.since(began));
            self.recorder.note(Event::Commit { group, place, offset, acknowledged: result.is_ok(), span });
            result
        })
    }

    /// Does something as a member of its generation until it is done, or the group has gone on: then who to be.
    fn as_member(
        &self,
        who: &Membership,
        mut act: impl FnMut(&mut Client) -> Result<()>,
    ) -> Result<Option<Membership>> {
        let result = self.routes.persist(&format!("a word of {}", self.group), || {
            let mut client = self.routes.to_coordinator(&self.group)?;
            act(&mut client)
        });
        match result {
            Ok(()) => Ok(None),
            Err(error) => Ok(Some(self.after(who, &error).ok_or(error)?)),
        }
    }

    /// Who to be after a refusal that says that the group has gone on; none if it says something else.
    fn after(&self, who: &Membership, error: &anyhow::Error) -> Option<Membership> {
        match Refusal::of(error)?.name() {
            ResponseError::RebalanceInProgress => Some(who.clone()),
            ResponseError::IllegalGeneration => Some(who.clone()),
            ResponseError::UnknownMemberId => Some(Membership::outsider(&self.group)),
            _ => None,
        }
    }
}
