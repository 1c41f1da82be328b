//! Offsets committed in transactions (KIP-98, KIP-447), and the markers that decide about them.

use std::{collections::BTreeSet, sync::Arc};

use varve_metadata::model::{PartitionIndex, ProducerEpoch, ProducerId, VerificationGuard};

use super::{
    Answer, Batch, CommitAnswer, CommitRequest, CommitTopic, Effect, EndOfTransaction, GroupError, GroupState, Now,
    RequestId, Shard,
    modern::Committer,
    records::CoordinatorRecord,
    shard::{Completion, Step},
};

/// Offsets to be committed with a transaction (TxnOffsetCommit).
#[derive(Clone, Debug)]
pub struct TransactionalCommit {
    /// What, and for which group.
    pub commit: CommitRequest,
    /// Whose transaction.
    pub producer: ProducerId,
    /// In which epoch.
    pub epoch: ProducerEpoch,
    /// Proof that the transaction's coordinator knows of it, where this partition is not part of it yet.
    pub guard: Option<VerificationGuard>,
}

impl Shard {
    /// Commits offsets with a transaction: they count once its marker says so ([`Shard::end_transaction`]). Answered with
    /// [`Answer::Commit`] once they are in the log.
    pub fn commit_in_transaction(
        &mut self,
        now: Now,
        id: RequestId,
        request: TransactionalCommit,
        effects: &mut Vec<Effect>,
    ) {
        let mut step = Step { now, effects };
        let TransactionalCommit { commit, producer, epoch, guard } = request;
        if let Err(error) = self.check_transactional_commit(&commit) {
            return step.answer(id, Answer::Commit(CommitAnswer(Err(error))));
        }
        let (records, outcomes) = self.offset_records(commit, now);
        let answer = CommitAnswer(Ok(outcomes));
        if records.is_empty() {
            return step.answer(id, Answer::Commit(answer));
        }
        let records: Arc<[CoordinatorRecord]> = records.into();
        let batch = Batch::Transactional { producer, epoch, guard, records };
        self.append_batch(batch, Completion::Commit(id, answer), &mut step);
    }

    /// As for other commits, but a rebalance is no hindrance: consumer and producer may disagree about the generation for as
    /// long as the transaction lasts. Producers from before KIP-447 say nothing of themselves, and are believed.
    pub(super) fn check_transactional_commit(&self, request: &CommitRequest) -> Result<(), GroupError> {
        if request.group_id.is_empty() || request.group_id.len() > i16::MAX as usize {
            return Err(GroupError::InvalidGroupId);
        }
        let id_of = |topic: &CommitTopic| self.cluster.topic(&topic.name).map(|facts| facts.id);
        if let Some(checked) = self.check_modern_commit(request, Committer::in_transaction(request), id_of) {
            // This request has no word for a member epoch that is stale.
            return checked.map_err(|error| match error {
                GroupError::StaleMemberEpoch => GroupError::IllegalGeneration,
                error => error,
            });
        }
        if self.shares.contains_key(&request.group_id) {
            return Err(GroupError::GroupIdNotFound);
        }
        let Some(group) = self.groups.get(&request.group_id) else {
            return if request.generation.is_none() { Ok(()) } else { Err(GroupError::IllegalGeneration) };
        };
        let member = &request.member;
        let names_a_member = !member.member_id.is_empty() || member.instance_id.is_some();
        match (group.state, request.generation) {
            (GroupState::Dead, _) => Err(GroupError::CoordinatorNotAvailable),
            (GroupState::Empty, None) => Ok(()),
            (_, generation) if generation.is_some() || names_a_member => {
                group.check_member(member)?;
                if generation == Some(group.generation) { Ok(()) } else { Err(GroupError::IllegalGeneration) }
            }
            _ => Ok(()),
        }
    }

    /// The offsets of a group that open transactions may still change.
    pub fn unstable_offsets(&self, group_id: &str) -> BTreeSet<(String, PartitionIndex)> {
        self.open_commits.keys_of(group_id).map(|key| (key.topic, key.partition)).collect()
    }

    /// Writes the marker that ends a transaction in this partition. Answered with [`Answer::TransactionEnded`] once it is in
    /// the log, and what the transaction committed is visible, or forgotten.
    pub fn end_transaction(&mut self, now: Now, id: RequestId, end: EndOfTransaction, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        self.append_batch(Batch::Marker(end), Completion::EndTransaction(id), &mut step);
    }
}
