//! One fetch for all who want the same, which runs to its end even if everybody has given up.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use tracing::Instrument;

use super::error::{ColdError, Damage};

type Outcome<V> = Result<V, ColdError>;
/// What all who wait for the same wait on.
type Flight<V> = Shared<BoxFuture<'static, Outcome<V>>>;
type UnderWay<K, V> = Arc<Mutex<HashMap<K, Flight<V>>>>;

/// The work under way, by what it will give.
pub(super) struct Flights<K, V> {
    under_way: UnderWay<K, V>,
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Flights<K, V> {
        Flights { under_way: Arc::default() }
    }

    /// Waits for the work on `key`: that which is under way, or else `work`, which is then started as a task of its own.
    pub(super) async fn join<F>(&self, key: K, work: impl FnOnce() -> F + Send) -> Outcome<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        self.start(key, work).await
    }

    /// As [`Flights::join`], for who may not wait: the work is under way when this returns.
    pub(super) fn start<F>(&self, key: K, work: impl FnOnce() -> F) -> Flight<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        if let Some(flight) = under_way.get(&key) {
            return flight.clone();
        }
        let landing = Landing { under_way: Arc::clone(&self.under_way), key: key.clone() };
        let work = work();
        // The task ends with its landing, whose lock waits for ours: so it cannot be over before it is listed.
        let flying = async move {
            let _landing = landing;
            work.await
        };
        let task = tokio::spawn(flying.in_current_span());
        let stopped = || ColdError::Unavailable(Arc::new(Damage("the task that read it was stopped")));
        let flight = task.map(move |ended| ended.unwrap_or_else(|_| Err(stopped()))).boxed().shared();
        under_way.insert(key, flight.clone());
        flight
    }

    pub(super) fn is_under_way(&self, key: &K) -> bool {
        self.under_way.lock().contains_key(key)
    }
}

/// Takes a flight off the list when its task ends, in whatever way.
struct Landing<K: Eq + Hash, V> {
    under_way: UnderWay<K, V>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let flight = self.under_way.lock().remove(&self.key);
        drop(flight);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn all_who_want_the_same_share_one_fetch() {
        let flights: Flights<u8, u8> = Flights::new();
        let (gate, fetches) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let (gate, fetches) = (Arc::clone(&gate), Arc::clone(&fetches));
            async move {
                fetches.fetch_add(1, Ordering::Relaxed);
                gate.notified().await;
                Ok(7)
            }
        };
        let waiters = [flights.start(1, work), flights.start(1, work), flights.start(1, work)];
        gate.notify_one();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), 7);
        }
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        while flights.is_under_way(&1) {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
        flights.join(1, work).await.unwrap();
        assert_eq!(fetches.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_fetch_goes_on_when_everybody_has_given_up() {
        let flights: Flights<u8, u8> = Flights::new();
        let (gate, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (open, end) = (Arc::clone(&gate), Arc::clone(&done));
        drop(flights.start(1, || async move {
            open.notified().await;
            end.notify_one();
            Ok(1)
        }));
        gate.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn a_panic_reaches_those_who_wait_as_an_error() {
        let flights: Flights<u8, u8> = Flights::new();
        let outcome = flights.join(1, || async { panic!("a bug in a decoder") }).await;
        assert!(matches!(outcome, Err(ColdError::Unavailable(_))));
        assert!(!flights.is_under_way(&1));
    }
}
