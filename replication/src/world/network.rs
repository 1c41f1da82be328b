//! Fetches and their answers.

use varve_metadata::model::{BrokerId, LeaderEpoch, Offset};

use super::{Answer, Break, Message, Role, World, log::Record};
use crate::{
    FollowerFetch, Input,
    follower::{Position, ReplicaLog, is_current, truncation},
};

impl World {
    pub(super) fn fetch(&mut self, id: BrokerId) {
        let broker = self.broker_mut(id);
        let Role::Follower { leader, epoch } = broker.role else { return };
        let again = std::mem::replace(&mut broker.fetching, true);
        let position = Position::of(&broker.log);
        let incarnation = broker.incarnation;
        let message = Message { from: id, to: leader, incarnation, epoch, position, answer: None };
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
        match &message.answer {
            None => self.serve(message),
            Some(answer) => self.take_answer(&message, answer),
        }
    }

    /// A leader reads for a follower.
    pub(super) fn serve(&mut self, message: Message) {
        let compares_epochs = !self.is(Break::ComparesNoEpochs);
        let any_epoch = self.is(Break::TakesOtherEpochs);
        let broker = self.broker(message.to);
        let Role::Leader(leader) = &broker.role else { return };
        let log = &broker.log;
        if leader.epoch() != message.epoch && !any_epoch {
            return;
        }
        let from = message.position.from;
        let parted = message.position.last_epoch.filter(|_| compares_epochs).and_then(|last| {
            let known = if last == leader.epoch() { Some((last, log.end())) } else { log.end_of_epoch(last) };
            let (epoch, end) = known.unwrap_or((LeaderEpoch(0), Offset::ZERO));
            (epoch < last || end < from).then_some((epoch, end))
        });
        let answer = match parted {
            Some((epoch, end)) => Answer::Diverged { epoch, end },
            None => {
                let rest = log.records.get(from.get() as usize..).unwrap_or(&[]);
                let records = rest.iter().take(2).map(|record| (record.epoch.0, record.value)).collect();
                Answer::Records { records, high_watermark: leader.high_watermark().0 }
            }
        };
        let fetch = FollowerFetch {
            replica: message.from,
            incarnation: Some(message.incarnation).filter(|_| !self.is(Break::CountsEarlierLives)),
            end: from.min(log.end()),
            log_start: Offset::ZERO,
            leader_end: log.end(),
        };
        let (to, from) = (message.to, message.from);
        if parted.is_none() {
            self.step(to, &Input::Fetched(fetch));
        }
        self.messages.push(Message { from: to, to: from, answer: Some(answer), ..message });
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
        }
    }
}
