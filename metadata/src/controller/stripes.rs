//! Replicas striped over racks, and over the brokers within each rack.
//!
//! ```text
//! racks A, B, C with three brokers each     partition 0: A0 B1 C0     1: B0 C1 A2     2: C0 A0 B2
//! ```
//! Racks come before brokers: a rack of one broker holds as much as one of ten. Within a rack brokers take turns, for leading
//! and for following; fenced ones come last, and none of them leads. Once every broker has led, the order is mixed anew, so
//! that the partitions of a broker that fails are not all followed by the same others. These are the goals of Kafka's
//! `StripedReplicaPlacer`, whose racks and brokers turn in step: with as many racks as brokers in each, one of them leads all.

use std::collections::BTreeMap;

use crate::{image::ClusterImage, model::BrokerId};

/// Gives one partition after the other its replicas.
pub(super) struct Stripes {
    racks: Vec<Rack>,
    /// Rack that the next partition begins with.
    offset: usize,
    round: usize,
    active: usize,
    chance: Chance,
}

#[derive(Default)]
struct Rack {
    leaders: Turns,
    /// The same brokers: whoever follows often leads as often as the others all the same.
    followers: Turns,
    fenced: Turns,
}

/// Brokers that take turns.
#[derive(Clone, Default)]
struct Turns {
    brokers: Vec<BrokerId>,
    next: usize,
}

impl Turns {
    /// The next one that is not among `taken`.
    fn next(&mut self, taken: &[BrokerId]) -> Option<BrokerId> {
        let count = self.brokers.len();
        let mut places = (self.next..self.next + count).map(|place| place % count);
        let place = places.find(|place| !taken.contains(&self.brokers[*place]))?;
        self.next = (place + 1) % count;
        Some(self.brokers[place])
    }
}

impl Stripes {
    /// Over the brokers of `image` that are not cordoned; `start` decides where it begins and how it mixes.
    pub(super) fn new(image: &ClusterImage, start: usize) -> Stripes {
        let mut chance = Chance(start as u64);
        let mut racks: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
        let mut active = 0;
        for broker in image.brokers().values().filter(|broker| !image.is_cordoned(broker.id)) {
            let rack = racks.entry(broker.rack.as_deref()).or_default();
            if broker.fenced {
                rack.fenced.brokers.push(broker.id);
            } else {
                rack.leaders.brokers.push(broker.id);
                active += 1;
            }
        }
        let mut racks: Vec<Rack> = racks.into_values().collect();
        for rack in &mut racks {
            rack.followers = rack.leaders.clone();
            for turns in [&mut rack.leaders, &mut rack.followers, &mut rack.fenced] {
                turns.next = chance.below(turns.brokers.len());
            }
        }
        let offset = chance.below(racks.len());
        Stripes { racks, offset, round: 0, active, chance }
    }

    /// The replicas of the next partition, its leader first. At least one broker is active, and there are `width` or more.
    pub(super) fn next(&mut self, width: usize) -> Vec<BrokerId> {
        if self.round == self.active && self.active > 1 {
            self.mix();
            self.round = 0;
        }
        let count = self.racks.len();
        let mut replicas = Vec::with_capacity(width);
        let mut places = (self.offset..self.offset + count).map(|place| place % count);
        let leads = places.find(|place| {
            let leader = self.racks[*place].leaders.next(&[]);
            replicas.extend(leader);
            leader.is_some()
        });
        // The leader's rack has had its first turn.
        let mut skipped = leads;
        let mut place = self.offset;
        let mut misses = 0;
        while replicas.len() < width && misses <= count {
            if skipped == Some(place) {
                skipped = None;
            } else {
                let rack = &mut self.racks[place];
                match rack.followers.next(&replicas).or_else(|| rack.fenced.next(&replicas)) {
                    Some(replica) => {
                        replicas.push(replica);
                        misses = 0;
                    }
                    None => misses += 1,
                }
            }
            place = (place + 1) % count;
        }
        self.round += 1;
        self.offset = (self.offset + 1) % count;
        replicas
    }

    fn mix(&mut self) {
        self.chance.shuffle(&mut self.racks);
        for rack in &mut self.racks {
            for turns in [&mut rack.leaders, &mut rack.followers, &mut rack.fenced] {
                self.chance.shuffle(&mut turns.brokers);
            }
        }
    }
}

/// Numbers that look random and follow from the first one (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed % limit.max(1) as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        image::{
            BrokerImage, ImageBuilder,
            record::{self, BrokerRecord, Key},
        },
        store::{Change, ChangeBatch, Revision},
    };

    /// Brokers by number, rack and whether they are fenced.
    fn image(brokers: &[(u32, Option<&str>, bool)]) -> ClusterImage {
        let mut builder = ImageBuilder::new(BrokerId(0), BTreeMap::new());
        let changes = brokers.iter().map(|(id, rack, fenced)| {
            let broker = BrokerImage {
                id: BrokerId(*id),
                incarnation: uuid::Uuid::nil(),
                endpoints: BTreeMap::new(),
                rack: rack.map(str::to_owned),
                fenced: *fenced,
                ..BrokerImage::default()
            };
            let value = Some(record::encode(BrokerRecord::of(&broker)));
            Change { key: Key::Broker(broker.id).text(), value }
        });
        builder.apply(&ChangeBatch { revision: Revision(1), changes: changes.collect() }).unwrap();
        builder.image().clone()
    }

    fn place(image: &ClusterImage, start: usize, width: usize, partitions: usize) -> Vec<Vec<u32>> {
        let mut stripes = Stripes::new(image, start);
        let numbers = |replicas: Vec<BrokerId>| replicas.into_iter().map(|id| id.0).collect();
        (0..partitions).map(|_| numbers(stripes.next(width))).collect()
    }

    fn nine() -> ClusterImage {
        let racks = ["a", "b", "c"];
        let brokers: Vec<_> = (0..9).map(|id| (id, Some(racks[id as usize / 3]), false)).collect();
        image(&brokers)
    }

    #[test]
    fn every_partition_has_a_replica_in_every_rack() {
        for start in 0..20 {
            for replicas in place(&nine(), start, 3, 30) {
                let racks: BTreeSet<u32> = replicas.iter().map(|id| id / 3).collect();
                assert_eq!(racks.len(), 3, "{replicas:?}");
            }
        }
    }

    #[test]
    fn leaders_and_replicas_are_spread_evenly() {
        let placed = place(&nine(), 7, 3, 90);
        let mut leads: HashMap<u32, usize> = HashMap::new();
        let mut holds: HashMap<u32, usize> = HashMap::new();
        for replicas in &placed {
            *leads.entry(replicas[0]).or_default() += 1;
            replicas.iter().for_each(|id| *holds.entry(*id).or_default() += 1);
        }
        assert!(leads.len() == 9 && leads.values().all(|count| *count == 10), "{leads:?}");
        assert!(holds.values().all(|count| (27..=33).contains(count)), "{holds:?}");
    }

    #[test]
    fn the_partitions_of_one_leader_are_not_all_followed_by_the_same_brokers() {
        let brokers: Vec<_> = (0..8).map(|id| (id, None, false)).collect();
        let placed = place(&image(&brokers), 3, 2, 160);
        let followers: BTreeSet<u32> = placed.iter().filter(|one| one[0] == 0).map(|one| one[1]).collect();
        assert!(followers.len() >= 5, "{followers:?}");
    }

    #[test]
    fn a_fenced_broker_holds_only_what_the_others_of_its_rack_cannot_and_never_leads() {
        let one_rack = image(&[(1, None, true), (2, None, false), (3, None, false)]);
        for replicas in place(&one_rack, 5, 2, 10) {
            assert!(!replicas.contains(&1), "{replicas:?}");
        }
        for replicas in place(&one_rack, 5, 3, 10) {
            assert_eq!(replicas[2], 1, "{replicas:?}");
        }
        let rack_down = image(&[(1, Some("a"), true), (2, Some("b"), false), (3, Some("b"), false)]);
        for replicas in place(&rack_down, 5, 2, 10) {
            assert!(replicas[0] != 1 && replicas.contains(&1), "racks come first: {replicas:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_cluster_each_replica_is_on_a_broker_of_its_own_and_an_active_one_leads(
            brokers in proptest::collection::vec((0_u8..4, any::<bool>()), 1..12), start in any::<usize>(), width in 1_usize..12,
        ) {
            let racks = [None, Some("a"), Some("b"), Some("c")];
            let mut named: Vec<_> =
                brokers.iter().zip(0..).map(|((rack, fenced), id)| (id, racks[usize::from(*rack)], *fenced)).collect();
            named[0].2 = false;
            let width = width.min(named.len());
            for replicas in place(&image(&named), start, width, 40) {
                let distinct: BTreeSet<u32> = replicas.iter().copied().collect();
                prop_assert_eq!((replicas.len(), distinct.len()), (width, width));
                prop_assert!(!named[replicas[0] as usize].2);
            }
        }
    }
}
