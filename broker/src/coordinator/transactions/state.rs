//! Where a transaction is in its life.

/// Where a transaction is in its life; drawn in the module above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransactionState {
    /// The producer is known; nothing was added yet.
    Empty,
    /// Partitions are part of it.
    Ongoing,
    /// It commits; markers are being written.
    PrepareCommit,
    /// It aborts; markers are being written.
    PrepareAbort,
    /// It has committed.
    CompleteCommit,
    /// It has aborted.
    CompleteAbort,
    /// Its transactional id is being forgotten.
    Dead,
    /// A producer is being fenced. Never seen: fencing and `PrepareAbort` are one step.
    PrepareEpochFence,
}

impl TransactionState {
    /// Every state.
    pub const ALL: [TransactionState; 8] = [
        TransactionState::Empty,
        TransactionState::Ongoing,
        TransactionState::PrepareCommit,
        TransactionState::PrepareAbort,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
        TransactionState::Dead,
        TransactionState::PrepareEpochFence,
    ];

    /// Kafka's name for it, as requests and tools show it.
    pub const fn name(self) -> &'static str {
        match self {
            TransactionState::Empty => "Empty",
            TransactionState::Ongoing => "Ongoing",
            TransactionState::PrepareCommit => "PrepareCommit",
            TransactionState::PrepareAbort => "PrepareAbort",
            TransactionState::CompleteCommit => "CompleteCommit",
            TransactionState::CompleteAbort => "CompleteAbort",
            TransactionState::Dead => "Dead",
            TransactionState::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<TransactionState> {
        TransactionState::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Its number in records.
    pub fn to_wire(self) -> i8 {
        TransactionState::ALL.iter().position(|state| *state == self).unwrap_or_default() as i8
    }

    /// The state of that number.
    pub fn from_wire(number: i8) -> Option<TransactionState> {
        TransactionState::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Whether nothing is under way, so that the transactional id may be forgotten.
    pub(super) const fn is_idle(self) -> bool {
        matches!(self, TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort)
    }

    /// Whether its end is decided and its markers are being written.
    pub(super) const fn is_prepared(self) -> bool {
        matches!(self, TransactionState::PrepareCommit | TransactionState::PrepareAbort)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_kafkas_numbers_and_names() {
        let names: Vec<&str> = (0..8).map(|number| TransactionState::from_wire(number).unwrap().name()).collect();
        let kafkas = ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead"];
        assert_eq!(names[..7], kafkas);
        assert_eq!(names[7], "PrepareEpochFence");
        assert_eq!((TransactionState::from_wire(8), TransactionState::from_wire(-1)), (None, None));
        for state in TransactionState::ALL {
            assert_eq!(TransactionState::from_wire(state.to_wire()), Some(state));
            assert_eq!(TransactionState::from_name(state.name()), Some(state));
        }
    }
}
