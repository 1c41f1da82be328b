//! Things to be done at their time.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Things with a time, in no order: there are few of them. Times are monotonic, since some start.
#[derive(Debug)]
pub(super) struct DueQueue<T> {
    things: Mutex<Vec<(Duration, T)>>,
    /// Rung when something was added.
    pub(super) bell: Notify,
}

impl<T> Default for DueQueue<T> {
    fn default() -> DueQueue<T> {
        DueQueue { things: Mutex::default(), bell: Notify::new() }
    }
}

impl<T> DueQueue<T> {
    pub(super) fn push(&self, due: Duration, thing: T) {
        self.things.lock().push((due, thing));
        self.bell.notify_one();
    }

    /// Takes out what is due at `now`; also says when the next one is.
    pub(super) fn take(&self, now: Duration) -> (Vec<T>, Option<Duration>) {
        let mut things = self.things.lock();
        let due = things.extract_if(.., |(due, _)| *due <= now).map(|(_, thing)| thing).collect();
        (due, things.iter().map(|(due, _)| *due).min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_out_at_their_time() {
        let queue = DueQueue::default();
        let at = Duration::from_secs;
        for (due, thing) in [(5, "b"), (3, "a"), (9, "c")] {
            queue.push(at(due), thing);
        }
        assert_eq!(queue.take(at(2)), (vec![], Some(at(3))));
        assert_eq!(queue.take(at(5)), (vec!["b", "a"], Some(at(9))));
        assert_eq!(queue.take(at(9)), (vec!["c"], None));
    }
}
