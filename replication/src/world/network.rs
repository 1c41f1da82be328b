//! Fetches and their answers.

use varve_metadata::model::{BrokerId, LeaderEpoch, Offset};

use super::{
    Answer, Body, Break, Message, Role, World,
    log::{Log, Record},
};
use crate::{
    FollowerFetch, Input,
    follower::{Position, ReplicaLog, is_current, truncation},
    lineage::{Lineage, compare},
};

impl World {
    pub(super) fn fetch(&mut self, id: BrokerId) {
        let broker = self.broker_mut(id);
        let Role::Follower { leader, epoch } = broker.role else { return };
        let again = std::mem::replace(&mut broker.fetching, true);
        let position = Position::of(&broker.log);
        let incarnation = broker.incarnation;
        let message = Message { from: id, to: leader, incarnation, epoch, position, body: Body::Fetch };
        if again {
            self.budget.refetches -= 1;
        }
        self.messages.push(message);
    }

    pub(super) fn deliver(&mut self, message: Message) {
        let broker = self.broker(message.to);
        if !broker.up || broker.failed {
            return;
        }
        match &message.body {
            Body::Fetch => self.serve(message),
            Body::WhereStart => self.tell_start(message),
            Body::Answer(answer) => self.take_answer(&message, answer),
        }
    }

    /// The log of a broker that leads in the epoch that a message names.
    fn led_log(&self, message: &Message) -> Option<&Log> {
        let broker = self.broker(message.to);
        let Role::Leader(leader) = &broker.role else { return None };
        let is_of_epoch = leader.epoch() == message.epoch || self.is(Break::TakesOtherEpochs);
        is_of_epoch.then_some(&broker.log)
    }

    fn tell_start(&mut self, message: Message) {
        let Some(log) = self.led_log(&message) else { return };
        let start = match self.broken {
            Some(Break::StartsOverAtZero) => Offset::ZERO,
            Some(Break::StartsOverAtTheEnd) => log.end(),
            _ => log.start,
        };
        self.answer(message, Answer::Start(start));
    }

    fn answer(&mut self, message: Message, answer: Answer) {
        let (to, from) = (message.to, message.from);
        self.messages.push(Message { from: to, to: from, body: Body::Answer(answer), ..message });
    }

    /// A leader reads for a follower.
    pub(super) fn serve(&mut self, message: Message) {
        let Some(log) = self.led_log(&message) else { return };
        let Role::Leader(leader) = &self.broker(message.to).role else { return };
        let from = message.position.from;
        let last_epoch = message.position.last_epoch.filter(|_| !self.is(Break::ComparesNoEpochs));
        let archived = |epoch| self.archived_end_of_epoch(message.to, epoch);
        let answer = match compare(log, leader.epoch(), Position { from, last_epoch }, archived) {
            Lineage::Parted { epoch, end } => Answer::Diverged { epoch, end },
            Lineage::OutOfRange => Answer::NotHere,
            Lineage::Agrees if from < log.start => Answer::NotHere,
            Lineage::Agrees => {
                let records = log.from(from).iter().take(2).map(|record| (record.epoch.0, record.value)).collect();
                Answer::Records { records, high_watermark: leader.high_watermark().0 }
            }
        };
        let fetch = FollowerFetch {
            replica: message.from,
            incarnation: Some(message.incarnation).filter(|_| !self.is(Break::CountsEarlierLives)),
            end: from.min(log.end()),
            log_start: Offset::ZERO,
            leader_start: Offset::ZERO,
            leader_end: log.end(),
        };
        if matches!(answer, Answer::Records { .. }) {
            self.step(message.to, &Input::Fetched(fetch));
        }
        self.answer(message, answer);
    }

    /// A follower takes its leader's answer.
    pub(super) fn take_answer(&mut self, message: &Message, answer: &Answer) {
        let any_epoch = self.is(Break::TakesOtherEpochs);
        let broker = self.broker_mut(message.to);
        let Role::Follower { epoch, leader } = broker.role else { return };
        // Answers come over a connection of the process that asked.
        if broker.incarnation != message.incarnation || leader != message.from && !any_epoch {
            return;
        }
        broker.fetching = false;
        let (asked, now) = ((message.epoch, message.position), (epoch, Position::of(&broker.log)));
        let counts = is_current(asked, now) || any_epoch && asked.1.from == now.1.from;
        if !counts {
            return;
        }
        match answer {
            Answer::Records { records, high_watermark } => {
                for &(epoch, value) in records {
                    broker.log.append(Record { epoch: LeaderEpoch(epoch), value });
                }
                broker.high_watermark = broker.high_watermark.max((*high_watermark).min(broker.log.end()));
            }
            Answer::Diverged { epoch, end } => {
                let cut = truncation(&broker.log, *epoch, *end);
                broker.log.truncate(cut);
                broker.high_watermark = broker.high_watermark.min(cut);
            }
            // The follower waits for what the leader says to that.
            Answer::NotHere => {
                broker.fetching = true;
                let (from, to) = (message.to, message.from);
                self.messages.push(Message { from, to, epoch, body: Body::WhereStart, ..message.clone() });
            }
            // The real one asks once for each answer before, so that this one finds the log as it was.
            Answer::Start(start) => self.start_over(message.to, *start),
        }
    }

    /// The log begins anew where the leader's local one begins. What lies before is in the archive, and its epochs with it.
    fn start_over(&mut self, id: BrokerId, start: Offset) {
        if self.bucket.is_some() && !self.knows_archive_to(id, start) && !self.is(Break::StartsOverWithoutEpochs) {
            self.learn(id);
        }
        let knows = self.knows_archive_to(id, start);
        let broker = self.broker_mut(id);
        let known = broker.archiver.known.as_ref().filter(|_| knows);
        broker.log = Log::starting_at(start, known.map_or(&[], |known| known.0.epochs()));
        broker.high_watermark = broker.high_watermark.min(start);
        broker.fetching = false;
    }

    fn knows_archive_to(&self, id: BrokerId, end: Offset) -> bool {
        self.broker(id).archiver.known.as_ref().is_some_and(|known| known.0.end() >= end)
    }

    /// Whether a message can be taken only after the archive was read.
    pub(super) fn needs_archive(&self, message: &Message) -> bool {
        match message.body {
            Body::Answer(Answer::Start(start)) => self.bucket.is_some() && !self.knows_archive_to(message.to, start),
            _ => false,
        }
    }
}
