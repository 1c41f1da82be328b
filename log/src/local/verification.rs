//! Transactions that are about to begin in a log (KIP-890): their first append must be vouched for by the transaction's
//! coordinator, or a late batch could open a transaction that nobody will ever end.
//!
//! ```text
//!   begin ──► guard ──► the coordinator is asked ──► append with the guard ──► the transaction is open: no guard needed
//!               └──────── a marker of the producer meanwhile takes the guard away: the append is refused ────────┘
//! ```

use std::{collections::HashMap, time::Duration};

use varve_metadata::model::{ProducerEpoch, ProducerId, Sequence, Timestamp, VerificationGuard};

use crate::format::BatchHeader;

/// A producer wants to begin a transaction in the log.
#[derive(Clone, Copy, Debug)]
pub struct TransactionBegin {
    /// Who.
    pub producer: ProducerId,
    /// In which epoch.
    pub epoch: ProducerEpoch,
    /// Sequence of the first record; `None` from coordinators, who number nothing.
    pub base_sequence: Option<Sequence>,
    /// The producer's epoch rises with every transaction (transaction version 2).
    pub raises_epoch: bool,
    /// The wall clock.
    pub now: Timestamp,
}

/// What the server says of an append that concerns a transaction.
#[derive(Clone, Copy, Debug, Default)]
pub struct TransactionTerms {
    /// For the batch that begins a transaction: what was given out before its coordinator was asked.
    pub guard: Option<VerificationGuard>,
    /// For a marker: the coordinator raises the epoch with every transaction, so that one which does not is late.
    pub raises_epoch: bool,
}

/// A transaction of one producer that the coordinator is being asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    guard: VerificationGuard,
    epoch: ProducerEpoch,
    /// The smallest first sequence that asked: a larger one must not come before it.
    pub(super) lowest_sequence: i32,
    pub(super) raises_epoch: bool,
    since: Timestamp,
}

/// What holds for an append that may begin a transaction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Admission {
    pub(super) beginning: Option<Beginning>,
    pub(super) guard: Option<VerificationGuard>,
    /// Without proof it is refused (`transaction.partition.verification.enable`).
    pub(super) is_enforced: bool,
}

impl Admission {
    /// Whether a transaction may begin.
    pub(super) fn allows(&self) -> bool {
        let is_proven = self.guard.is_some() && self.guard == self.beginning.map(|beginning| beginning.guard);
        is_proven || !self.is_enforced
    }
}

/// The transactions about to begin, by producer.
#[derive(Debug, Default)]
pub(super) struct Verifications {
    beginnings: HashMap<ProducerId, Beginning>,
    given_out: u64,
}

impl Verifications {
    pub(super) fn begin(&mut self, begin: &TransactionBegin) -> VerificationGuard {
        let sequence = begin.base_sequence.map_or(-1, Sequence::to_wire);
        let given_out = &mut self.given_out;
        let beginning = self.beginnings.entry(begin.producer).or_insert_with(|| {
            *given_out += 1;
            Beginning {
                guard: VerificationGuard(*given_out),
                epoch: begin.epoch,
                lowest_sequence: sequence,
                raises_epoch: begin.raises_epoch,
                since: begin.now,
            }
        });
        if begin.epoch > beginning.epoch {
            (beginning.epoch, beginning.lowest_sequence) = (begin.epoch, sequence);
        } else if begin.epoch == beginning.epoch {
            beginning.lowest_sequence = beginning.lowest_sequence.min(sequence);
        }
        beginning.guard
    }

    pub(super) fn get(&self, producer: ProducerId) -> Option<Beginning> {
        self.beginnings.get(&producer).copied()
    }

    /// A batch is in the log: the transaction it belongs to has begun or ended, so what was given out for it is void. Only
    /// the marker of a transaction before the next one, in the epoch that this one raised, leaves it standing.
    pub(super) fn note(&mut self, header: &BatchHeader) {
        let Some(producer) = header.producer_id.filter(|_| header.attributes.is_transactional()) else { return };
        let is_next = |beginning: &Beginning| {
            beginning.raises_epoch && header.attributes.is_control() && header.producer_epoch == Some(beginning.epoch)
        };
        if self.beginnings.get(&producer).is_some_and(|beginning| !is_next(beginning)) {
            self.beginnings.remove(&producer);
        }
    }

    /// Forgets those whose append never came.
    pub(super) fn expire(&mut self, now: Timestamp, after: Duration) {
        let is_old = |beginning: &Beginning| {
            let silent = now.to_wire().saturating_sub(beginning.since.to_wire());
            u128::try_from(silent).is_ok_and(|silent| silent >= after.as_millis())
        };
        self.beginnings.retain(|_, beginning| !is_old(beginning));
    }
}
