//! Who waits for a partition to grow.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use varve_metadata::model::PartitionId;

/// One long poll, over any number of partitions.
#[derive(Debug, Default, Clone)]
pub struct Waiter(Arc<Poll>);

#[derive(Debug, Default)]
struct Poll {
    woken: Notify,
    /// Partitions that had news and were not asked for since.
    news: Mutex<BTreeSet<PartitionId>>,
}

impl Waiter {
    /// Returns once any watched partition grew since the last return. Cancel-safe.
    pub async fn woken(&self) {
        self.0.woken.notified().await;
    }

    /// Which of the partitions that are watched by name had news since this was last asked.
    pub(crate) fn take_news(&self) -> BTreeSet<PartitionId> {
        std::mem::take(&mut *self.0.news.lock())
    }
}

/// The waiters of one partition, or of what is read of it. An append that nobody waits for costs one relaxed load.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    count: AtomicUsize,
    list: Mutex<Vec<Place>>,
}

#[derive(Debug)]
struct Place {
    poll: Arc<Poll>,
    /// To be remembered of what is watched.
    name: Option<PartitionId>,
    wakes: bool,
}

impl Waiters {
    /// Adds `waiter` until the returned watch is dropped. The caller looks at the partition *after* this: what comes
    /// later wakes it, so nothing falls in between.
    pub(crate) fn watch(self: &Arc<Waiters>, waiter: &Waiter) -> Watch {
        self.add(Place { poll: waiter.0.clone(), name: None, wakes: true })
    }

    /// The same for who waits for so much that it does not look at all of it each time: it remembers that `name` had news, and is woken
    /// by it or (not `wakes`) hears of it later.
    pub(super) fn watch_by_name(self: &Arc<Waiters>, waiter: &Waiter, name: PartitionId, wakes: bool) -> Watch {
        self.add(Place { poll: waiter.0.clone(), name: Some(name), wakes })
    }

    fn add(self: &Arc<Waiters>, place: Place) -> Watch {
        let poll = place.poll.clone();
        let mut list = self.list.lock();
        list.push(place);
        self.count.store(list.len(), Ordering::SeqCst);
        Watch { waiters: self.clone(), poll }
    }

    #[cfg(test)]
    pub(super) fn is_watched(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Wakes all who watch.
    pub(crate) fn wake(&self) {
        // Sequentially consistent on both sides: either this load sees the watcher, or the watcher's look at the
        // partition, which comes after its store, sees the records.
        if self.count.load(Ordering::SeqCst) > 0 {
            for Place { poll, name, wakes } in self.list.lock().iter() {
                if let Some(name) = name {
                    poll.news.lock().insert(*name);
                }
                if *wakes {
                    poll.woken.notify_one();
                }
            }
        }
    }
}

/// A waiter's place in one partition's list; leaves it on drop.
#[derive(Debug)]
pub struct Watch {
    waiters: Arc<Waiters>,
    poll: Arc<Poll>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut list = self.waiters.list.lock();
        if let Some(place) = list.iter().position(|other| Arc::ptr_eq(&other.poll, &self.poll)) {
            list.swap_remove(place);
        }
        self.waiters.count.store(list.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use varve_metadata::model::{PartitionIndex, TopicId};

    use super::*;

    #[test]
    fn only_watchers_are_woken_and_a_wake_before_the_wait_is_kept() {
        let (watched, other) = (Arc::new(Waiters::default()), Arc::new(Waiters::default()));
        let waiter = Waiter::default();
        let watch = watched.watch(&waiter);
        other.wake();
        assert!(waiter.woken().now_or_never().is_none());
        watched.wake();
        assert!(waiter.woken().now_or_never().is_some());
        drop(watch);
        watched.wake();
        assert!(waiter.woken().now_or_never().is_none());
    }

    #[test]
    fn what_is_watched_by_name_is_remembered_until_it_is_asked_for() {
        let partitions = [Arc::new(Waiters::default()), Arc::new(Waiters::default())];
        let topic = TopicId::random();
        let names = [0, 1].map(|index| PartitionId { topic, index: PartitionIndex(index) });
        let waiter = Waiter::default();
        let watches = [0, 1].map(|at| partitions[at].watch_by_name(&waiter, names[at], at == 0));
        partitions[1].wake();
        assert!(waiter.woken().now_or_never().is_none(), "that can wait");
        partitions[0].wake();
        partitions[0].wake();
        assert!(waiter.woken().now_or_never().is_some());
        assert_eq!(waiter.take_news(), BTreeSet::from(names));
        assert_eq!(waiter.take_news(), BTreeSet::new());
        drop(watches);
        partitions.iter().for_each(|partition| partition.wake());
        assert_eq!(waiter.take_news(), BTreeSet::new());
    }
}
