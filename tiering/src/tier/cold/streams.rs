//! Who reads on, and how far ahead of each it pays to fetch. Pure.

use std::{collections::VecDeque, time::Duration};

use varve_metadata::model::{Offset, PartitionId};

/// Readers remembered at most; beyond, the one that was silent the longest is forgotten.
const MOST_STREAMS: usize = 1024;
/// A reader that was silent for longer does not count as reading.
const ACTIVE: Duration = Duration::from_secs(30);

/// What to do for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// A reader that came from elsewhere: fetch what it asked for.
    Jump {
        /// There is room to fetch a whole unit for it.
        roomy: bool,
    },
    /// A reader that goes on where it was: fetch whole units, and up to this many beyond the one it is in.
    Sequential {
        /// Units ahead; 0 to `most`.
        ahead: usize,
    },
}

#[derive(Debug)]
struct Stream {
    partition: PartitionId,
    /// Where its next read will be if it reads on.
    next: Offset,
    /// Reads in a row.
    run: u32,
    seen: Duration,
}

/// The readers of all partitions, told apart by where they will read next.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// By last read, the newest at the end.
    streams: VecDeque<Stream>,
}

impl Streams {
    /// A read of `partition` from `from` at `now` (monotonic). `most`: units ahead at most; `room`: units that all readers
    /// together may have in memory.
    pub(super) fn advise(
        &mut self,
        partition: PartitionId,
        from: Offset,
        now: Duration,
        most: usize,
        room: usize,
    ) -> Advice {
        let known = self.find(partition, from);
        let run = match known {
            Some(place) => {
                let mut stream = self.streams.remove(place).expect("found just now");
                stream.run = stream.run.saturating_add(1);
                stream.seen = now;
                let run = stream.run;
                self.streams.push_back(stream);
                run
            }
            None => {
                if self.streams.len() >= MOST_STREAMS {
                    self.streams.pop_front();
                }
                self.streams.push_back(Stream { partition, next: from, run: 0, seen: now });
                0
            }
        };
        let active = self.streams.iter().rev().take_while(|stream| now.saturating_sub(stream.seen) < ACTIVE);
        // Every active reader's own unit comes first; what room is left is shared.
        let share = room / active.count().max(1);
        match (run, share) {
            (0, _) | (_, 0) => Advice::Jump { roomy: share > 0 },
            (run, share) => Advice::Sequential { ahead: (share - 1).min(most).min(1 << run.min(16) >> 1) },
        }
    }

    /// The read from `from` ended before `next`.
    pub(super) fn served(&mut self, partition: PartitionId, from: Offset, next: Offset) {
        if let Some(place) = self.find(partition, from) {
            self.streams[place].next = next;
        }
    }

    fn find(&self, partition: PartitionId, next: Offset) -> Option<usize> {
        self.streams.iter().rposition(|stream| stream.partition == partition && stream.next == next)
    }
}

#[cfg(test)]
mod tests {
    use varve_metadata::model::{PartitionIndex, TopicId};

    use super::*;

    fn partition() -> PartitionId {
        PartitionId { topic: TopicId::random(), index: PartitionIndex(0) }
    }

    fn offset(raw: u64) -> Offset {
        Offset::new(raw).unwrap()
    }

    #[test]
    fn read_ahead_grows_while_a_reader_reads_on() {
        let (mut streams, at) = (Streams::default(), partition());
        let mut advice = Vec::new();
        for step in 0..6 {
            advice.push(streams.advise(at, offset(step * 10), Duration::ZERO, 4, 100));
            streams.served(at, offset(step * 10), offset(step * 10 + 10));
        }
        let ahead = |ahead| Advice::Sequential { ahead };
        assert_eq!(advice, [Advice::Jump { roomy: true }, ahead(1), ahead(2), ahead(4), ahead(4), ahead(4)]);
        assert_eq!(streams.advise(at, offset(5), Duration::ZERO, 4, 100), Advice::Jump { roomy: true });
    }

    #[test]
    fn an_asker_that_repeats_itself_is_one_reader() {
        let (mut streams, at) = (Streams::default(), partition());
        for _ in 0..10 {
            streams.advise(at, offset(7), Duration::ZERO, 4, 100);
        }
        assert_eq!(streams.streams.len(), 1);
    }

    #[test]
    fn many_readers_share_the_room_and_beyond_it_nobody_fetches_more_than_asked() {
        let mut streams = Streams::default();
        let readers: Vec<_> = (0..10).map(|_| partition()).collect();
        let mut round = |from: u64, now, room| {
            let advise = |at: &PartitionId| {
                let advice = streams.advise(*at, offset(from), now, 4, room);
                streams.served(*at, offset(from), offset(from + 1));
                advice
            };
            readers.iter().map(advise).last().unwrap()
        };
        for from in 0..5 {
            round(from, Duration::ZERO, 30);
        }
        assert_eq!(round(5, Duration::ZERO, 30), Advice::Sequential { ahead: 2 });
        assert_eq!(round(6, Duration::ZERO, 9), Advice::Jump { roomy: false });
        // The others fall silent: one reader has the room for itself.
        let late = ACTIVE * 2;
        assert_eq!(streams.advise(readers[0], offset(7), late, 4, 9), Advice::Sequential { ahead: 4 });
    }

    #[test]
    fn the_number_of_readers_remembered_is_bounded() {
        let mut streams = Streams::default();
        for _ in 0..MOST_STREAMS + 10 {
            streams.advise(partition(), offset(0), Duration::ZERO, 4, 100);
        }
        assert_eq!(streams.streams.len(), MOST_STREAMS);
    }
}
