//! Transactions whose answer was lost, brought to an end by reading.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Expect, MetadataStore, Revision, StoreError, Transaction};

/// Pause before a transaction without an answer is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes `transaction`, and when its answer is lost ([`StoreError::Unknown`]) finds out what happened, until `deadline`.
///
/// It is sent again: what compares a revision can happen only once, so either this attempt is the one, or it meets a
/// conflict, and then the values tell whose write was first. A transaction that compares nothing is only sent again:
/// its writes are the same however often they happen. Values must therefore tell their writer, or be all the same to it.
///
/// # Errors
/// As [`MetadataStore::transact`]; [`StoreError::Unknown`] only once `deadline` has passed.
pub async fn transact_settled(
    store: &dyn MetadataStore,
    transaction: Transaction,
    deadline: Instant,
) -> Result<Revision, StoreError> {
    let mut may_have_happened = false;
    loop {
        let failed = match store.transact(transaction.clone()).await {
            Ok(revision) => return Ok(revision),
            Err(StoreError::Conflict) if may_have_happened => match shown_by(store, &transaction).await {
                Ok(Some(revision)) => return Ok(revision),
                Ok(None) => return Err(StoreError::Conflict),
                Err(error) => StoreError::Unknown(Box::new(error)),
            },
            Err(StoreError::Unknown(cause)) => {
                may_have_happened = true;
                StoreError::Unknown(cause)
            }
            Err(StoreError::Unavailable(cause)) if may_have_happened => StoreError::Unknown(cause),
            Err(error) => return Err(error),
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(failed);
        }
        sleep(PAUSE).await;
    }
}

/// The revision of the transaction if the store shows all that it writes, and none of its expectations holds any more.
async fn shown_by(store: &dyn MetadataStore, transaction: &Transaction) -> Result<Option<Revision>, StoreError> {
    let mut newest = Revision(0);
    for write in &transaction.writes {
        let found = store.get(write.key()).await?;
        if found.as_ref().map(|found| &found.value) != write.value() {
            return Ok(None);
        }
        let expected = transaction.expect.iter().find(|(key, _)| key == write.key()).map(|(_, expect)| *expect);
        let now = found.as_ref().map_or(Expect::Absent, |found| Expect::At(found.modified));
        if expected == Some(now) {
            return Ok(None);
        }
        newest = newest.max(found.map_or(Revision(0), |found| found.modified));
    }
    Ok(Some(newest))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::store::{
        MemoryStore, StoreFuture,
        steered::{Steered, Steering},
    };

    /// A store behind a network that loses answers: `before` requests do not arrive, the next `after` answers do not.
    struct Lossy {
        store: MemoryStore,
        before: AtomicU32,
        after: AtomicU32,
    }

    impl Lossy {
        fn losing(before: u32, after: u32) -> Steered<Lossy> {
            let (before, after) = (AtomicU32::new(before), AtomicU32::new(after));
            Steered(Lossy { store: MemoryStore::new(), before, after })
        }

        fn takes(counter: &AtomicU32) -> bool {
            counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        }
    }

    impl Steering for Lossy {
        fn behind(&self) -> &dyn MetadataStore {
            &self.store
        }

        fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
            Box::pin(async move {
                if Lossy::takes(&self.before) {
                    return Err(StoreError::Unknown("lost on the way there".into()));
                }
                let answer = self.store.transact(transaction).await;
                if Lossy::takes(&self.after) {
                    return Err(StoreError::Unknown("lost on the way back".into()));
                }
                answer
            })
        }
    }

    fn create(value: &'static str) -> Transaction {
        Transaction::default().put("k", value).expecting("k", Expect::Absent)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_found_again_and_a_lost_request_is_sent_again() {
        for (before, after) in [(0, 0), (1, 0), (0, 1), (3, 0), (0, 3), (2, 2)] {
            let store = Lossy::losing(before, after);
            let deadline = Instant::now() + Duration::from_secs(60);
            let revision = transact_settled(&store, create("ours"), deadline).await.unwrap();
            assert_eq!(store.get("k").await.unwrap().unwrap().modified, revision);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_first_is_told_from_us() {
        let store = Lossy::losing(1, 0);
        store.store.transact(create("theirs")).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let outcome = transact_settled(&store, create("ours"), deadline).await;
        assert!(matches!(outcome, Err(StoreError::Conflict)));
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_deadline_the_outcome_stays_unknown() {
        let store = Lossy::losing(u32::MAX, 0);
        let deadline = Instant::now() + Duration::from_secs(5);
        let outcome = transact_settled(&store, create("ours"), deadline).await;
        assert!(matches!(outcome, Err(StoreError::Unknown(_))));
    }
}
