//! What clients are told besides who leads and who coordinates: nothing, as long as brokers only hand over what they have.

use std::{
    io::ErrorKind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Error, Result, ensure};
use kafka_protocol::error::ResponseError;

use crate::{client::Refusal, transactions::Refused};

/// Enough to see what is wrong; while brokers fail there are many.
const KEPT: usize = 100;

/// What all clients of a test were told; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Complaints(Arc<Mutex<Vec<String>>>);

impl Complaints {
    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was before is of no concern.
    pub fn forget(&self) {
        self.locked().clear();
    }

    /// Whether there was none.
    ///
    /// # Errors
    /// There was; the first of them.
    pub fn judge(&self) -> Result<()> {
        let all = self.locked();
        ensure!(all.is_empty(), "clients had {} complaints, at first: {:#?}", all.len(), &all[..all.len().min(5)]);
        Ok(())
    }

    /// Writes down what a client was told that wanted `what`, if it is a reason to complain.
    pub(super) fn note(&self, what: &str, error: &Error) {
        let mut all = self.locked();
        if all.len() < KEPT && is_one(error) {
            all.push(format!("{what}: {error:#}"));
        }
    }
}

/// A client that lost its patience was told nothing; whoever gets no answer at all shows as an outage.
fn is_one(error: &Error) -> bool {
    let code = Refusal::of(error).map(Refusal::name).or_else(|| Some(error.downcast_ref::<Refused>()?.0));
    if let Some(code) = code {
        return !is_handover(code);
    }
    let mut io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    !io.any(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// Ask somebody else, or the same one in a moment: what Kafka's clients tell nobody.
fn is_handover(code: ResponseError) -> bool {
    use ResponseError::*;
    matches!(
        code,
        NotLeaderOrFollower
            | FencedLeaderEpoch
            | UnknownLeaderEpoch
            | NotCoordinator
            | CoordinatorLoadInProgress
            | CoordinatorNotAvailable
            | ConcurrentTransactions
            | UnstableOffsetCommit
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_be_sent_to_another_broker_is_no_reason_to_complain() {
        let refused = |code: ResponseError| Error::from(Refused(code));
        let refusal =
            |code: ResponseError| Error::from(Refusal { request: "Produce", code: code.code(), message: None });
        let io = |kind: ErrorKind| Error::from(std::io::Error::from(kind)).context("waiting for an answer");
        for none in [
            refused(ResponseError::ConcurrentTransactions),
            refusal(ResponseError::NotLeaderOrFollower),
            io(ErrorKind::WouldBlock),
        ] {
            assert!(!is_one(&none), "{none:#}");
        }
        for one in [
            refused(ResponseError::InvalidTxnState),
            refusal(ResponseError::NotEnoughReplicas),
            refusal(ResponseError::LeaderNotAvailable),
            io(ErrorKind::ConnectionReset),
            anyhow::anyhow!("an answer that is none"),
        ] {
            assert!(is_one(&one), "{one:#}");
        }
    }

    #[test]
    fn clones_complain_in_one_place() {
        let complaints = Complaints::default();
        complaints.clone().note("a write", &anyhow::anyhow!("no"));
        assert!(complaints.judge().is_err());
        complaints.forget();
        assert!(complaints.judge().is_ok());
    }
}
