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
        let forgets = self.is(Break::TellsWhatARestartForgets);
        let broker = self.broker_mut(id);
        let Role::Follower { leader, epoch } = broker.role else { return };
        let again = std::mem::replace(&mut broker.fetching, true);
        let position = Position::of(&broker.log);
        let incarnation = broker.incarnation;
        // Who tells of no more than it has written down starts there in its next life, too.
        let log_start = broker.log.log_start.min(broker.log.kept_start);
        let log_start = if forgets { broker.log.log_start } else { log_start };
        let body = Body::Fetch { log_start };
        let message = Message { from: id, to: leader, incarnation, epoch, position, body };
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
            Body::Fetch { log_start } => {
                let log_start = *log_start;
                self.serve(message, log_start);
            }
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
        let log_start = self.visible_start(message.to);
        let local = match self.broken {
            Some(Break::StartsOverAtZero) => Offset::ZERO,
            Some(Break::StartsOverAtTheEnd) => log.end(),
            _ => log.local_start().max(log_start),
        };
        self.answer(message, Answer::Start { local, log_start });
    }

    fn answer(&mut self, message: Message, answer: Answer) {
        let (to, from) = (message.to, message.from);
        self.messages.push(Message { from: to, to: from, body: Body::Answer(answer), ..message });
    }

    /// A leader reads for a follower, whose log starts at `replica_start`.
    pub(super) fn serve(&mut self, message: Message, replica_start: Offset) {
        let Some(log) = self.led_log(&message) else { return };
        let log_start = self.visible_start(message.to);
        let Role::Leader(leader) = &self.broker(message.to).role else { return };
        let from = message.position.from;
        let last_epoch = message.position.last_epoch.filter(|_| !self.is(Break::ComparesNoEpochs));
        let archived = |epoch| self.archived_end_of_epoch(message.to, epoch);
        let answer = match compare(log, leader.epoch(), Position { from, last_epoch }, archived) {
            _ if from < log_start => Answer::NotHere,
            Lineage::Parted { epoch, end } => Answer::Diverged { epoch, end },
            Lineage::OutOfRange => Answer::NotHere,
            Lineage::Agrees if from < log.local_start() => Answer::NotHere,
            Lineage::Agrees => {
                let records = log.from(from).iter().take(2).map(|record| (record.epoch.0, record.value)).collect();
                Answer::Records { records, high_watermark: leader.high_watermark().0, log_start }
            }
        };
        let fetch = FollowerFetch {
            replica: message.from,
            incarnation: Some(message.incarnation).filter(|_| !self.is(Break::CountsEarlierLives)),
            end: from.min(log.end()),
            log_start: replica_start,
            leader_start: if self.is(Break::LetsJoinWhoDeletedLess) { Offset::ZERO } else { log_start },
            leader_end: log.end(),
        };
        if matches!(answer, Answer::Records { .. }) {
            self.step(message.to, &Input::Fetched(fetch));
        }
        self.answer(message, answer);
    }

    /// A follower takes its leader's answer.
    pub(super) fn take_answer(&mut self, message: &Message, answer: &Answer) {
        let (any_epoch, forgets) = (self.is(Break::TakesOtherEpochs), self.is(Break::TellsWhatARestartForgets));
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
            Answer::Records { records, high_watermark, log_start } => {
                for &(epoch, value) in records {
                    broker.log.append(Record { epoch: LeaderEpoch(epoch), value });
                }
                broker.high_watermark = broker.high_watermark.max((*high_watermark).min(broker.log.end()));
                broker.log.advance_log_start(*log_start);
                if !forgets {
                    broker.log.keep_start();
                }
            }
            Answer::Diverged { epoch, end } if truncation(&broker.log, *epoch, *end) >= broker.log.log_start => {
                let cut = truncation(&broker.log, *epoch, *end);
                broker.log.truncate(cut);
                broker.high_watermark = broker.high_watermark.min(cut);
            }
            // The follower waits for what the leader says to that.
            Answer::Diverged { .. } | Answer::NotHere => {
                broker.fetching = true;
                let (from, to) = (message.to, message.from);
                self.messages.push(Message { from, to, epoch, body: Body::WhereStart, ..message.clone() });
            }
            // The real one asks once for each answer before, so that this one finds the log as it was.
            Answer::Start { local, log_start } => self.start_over(message.to, *local, *log_start),
        }
    }

    /// The log begins anew where the leader's local one begins. What lies before is in the archive, and its epochs with it.
    fn start_over(&mut self, id: BrokerId, start: Offset, log_start: Offset) {
        if self.asks_archive(id, start, log_start) && !self.is(Break::StartsOverWithoutEpochs) {
            self.learn(id);
        }
        // Of what is deleted nobody answers for an epoch.
        let knows = log_start < start && self.knows_archive_to(id, start);
        let broker = self.broker_mut(id);
        let known = broker.archiver.known.as_ref().filter(|_| knows);
        broker.log = Log::starting_at(start, log_start, known.map_or(&[], |known| known.0.epochs()));
        broker.high_watermark = broker.high_watermark.min(start);
        broker.fetching = false;
    }

    fn knows_archive_to(&self, id: BrokerId, end: Offset) -> bool {
        self.broker(id).archiver.known.as_ref().is_some_and(|known| known.0.end() >= end)
    }

    /// Whether it has to read the archive before it starts over: for what lies before, if that is not deleted.
    fn asks_archive(&self, id: BrokerId, start: Offset, log_start: Offset) -> bool {
        self.bucket.is_some() && log_start < start && !self.knows_archive_to(id, start)
    }

    /// Whether a message can be taken only after the archive was read.
    pub(super) fn needs_archive(&self, message: &Message) -> bool {
        match message.body {
            Body::Answer(Answer::Start { local, log_start }) => self.asks_archive(message.to, local, log_start),
            _ => false,
        }
    }
}
