//! What keeps new replicas from brokers that are drained.

use std::collections::{BTreeMap, BTreeSet};

use super::{asks, client::Client, view::View};

/// The cordons of a drain. A broker that is down cannot be told; it is when it comes back meanwhile.
#[derive(Debug)]
pub(super) struct Cordons {
    /// Brokers, and whether they were seen to be cordoned.
    were_seen: BTreeMap<i32, bool>,
    /// Those that were told here, and not by somebody before.
    told: BTreeSet<i32>,
}

/// What is to be done about one of them at one look.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Set,
    /// Somebody took it back.
    GiveUp,
}

/// No look at the cluster that failed, but the end of a drain.
#[derive(Debug, thiserror::Error)]
#[error("broker {0} may take new replicas again: somebody took the drain back, or set cordoned.log.dirs")]
pub(super) struct TakenBack(i32);

impl Cordons {
    pub(super) fn of(leaving: &BTreeSet<i32>) -> Cordons {
        Cordons { were_seen: leaving.iter().map(|id| (*id, false)).collect(), told: BTreeSet::new() }
    }

    /// Sets those that are not there.
    ///
    /// # Errors
    /// [`TakenBack`], or a broker does not let itself be told.
    pub(super) async fn keep(&mut self, client: &mut Client, view: &View) -> anyhow::Result<()> {
        for id in self.were_seen.keys().copied().collect::<Vec<_>>() {
            match self.step(view, id) {
                Step::Nothing => {}
                Step::Set => {
                    asks::cordon(client, id, true).await?;
                    self.told.insert(id);
                }
                Step::GiveUp => return Err(TakenBack(id).into()),
            }
        }
        Ok(())
    }

    /// The brokers that were told, also where the last attempt failed half-way.
    pub(super) fn told(&self) -> &BTreeSet<i32> {
        &self.told
    }

    /// From now on it may take what it is given: it is no longer the one that was drained.
    pub(super) fn forget(&mut self, id: i32) {
        self.were_seen.remove(&id);
    }

    fn step(&mut self, view: &View, id: i32) -> Step {
        let Some(was_seen) = self.were_seen.get_mut(&id) else { return Step::Nothing };
        match view.brokers.get(&id) {
            None => Step::Nothing,
            Some(broker) if broker.is_fenced || broker.is_silent => Step::Nothing,
            Some(broker) if broker.is_cordoned => {
                *was_seen = true;
                Step::Nothing
            }
            Some(_) if *was_seen => Step::GiveUp,
            Some(_) => Step::Set,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::view::BrokerView, *};

    #[test]
    fn a_dead_broker_that_comes_back_while_it_is_drained_is_cordoned_then() {
        let at = |broker| View { brokers: [(2, broker)].into(), partitions: Vec::new() };
        let serves = BrokerView::default();
        let down = BrokerView { is_fenced: true, ..serves.clone() };
        let starts = BrokerView { is_cordoned: true, is_silent: true, ..serves.clone() };
        let cordoned = BrokerView { is_cordoned: true, ..serves.clone() };
        let mut cordons = Cordons::of(&[2].into());
        let mut step = |broker: &BrokerView| cordons.step(&at(broker.clone()), 2);
        assert_eq!(step(&down), Step::Nothing);
        assert_eq!(step(&starts), Step::Nothing);
        assert_eq!(step(&serves), Step::Set, "it is back");
        assert_eq!(step(&serves), Step::Set, "the first attempt had no effect");
        assert_eq!(step(&cordoned), Step::Nothing);
        assert_eq!(step(&down), Step::Nothing, "down once more");
        assert_eq!(step(&serves), Step::GiveUp, "somebody took it back");
        cordons.forget(2);
        assert_eq!(cordons.step(&at(serves.clone()), 2), Step::Nothing, "it is another one");
        assert_eq!(Cordons::of(&[3].into()).step(&at(serves), 3), Step::Nothing, "it is forgotten");
    }
}
