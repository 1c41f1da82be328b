//! How many connections there are, and who gets one more: all together, by listener, by address.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};

use super::live::ConnectionLimits;

/// How often a listener that is full looks whether its limit was raised.
const LOOK: Duration = Duration::from_secs(1);

/// The places for connections of one node.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_listener: HashMap<Arc<str>, usize>,
    by_ip: HashMap<IpAddr, usize>,
}

/// One connection's place, given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    listener: Arc<str>,
    ip: IpAddr,
}

impl Places {
    /// Whether a listener may take in one more, whoever it is (`max.connections`).
    pub(super) fn has_room(&self, listener: &str, limits: &ConnectionLimits) -> bool {
        let taken = self.taken.lock();
        let own = limits.by_listener.get(listener).copied().unwrap_or(usize::MAX);
        taken.total < limits.connections && taken.by_listener.get(listener).copied().unwrap_or(0) < own
    }

    /// Waits until it may. Whoever connects meanwhile waits too, as in Kafka: the operating system holds him.
    pub(super) async fn room(&self, listener: &str, limits: impl Fn() -> Arc<ConnectionLimits>) {
        loop {
            let freed = self.freed.notified();
            if self.has_room(listener, &limits()) {
                return;
            }
            let _ = timeout(LOOK, freed).await;
        }
    }

    /// A place for a connection from `ip`; `None` if that address has as many as it may (`max.connections.per.ip`).
    pub(super) fn take(
        self: &Arc<Places>,
        listener: &Arc<str>,
        ip: IpAddr,
        limits: &ConnectionLimits,
    ) -> Option<Place> {
        let mut taken = self.taken.lock();
        let most = limits.per_ip_overrides.get(&ip).copied().unwrap_or(limits.per_ip);
        let from_ip = taken.by_ip.get(&ip).copied().unwrap_or(0);
        if from_ip >= most {
            return None;
        }
        taken.by_ip.insert(ip, from_ip + 1);
        *taken.by_listener.entry(listener.clone()).or_default() += 1;
        taken.total += 1;
        Some(Place { places: self.clone(), listener: listener.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.total -= 1;
        if let Some(count) = taken.by_listener.get_mut(&self.listener) {
            *count -= 1;
        }
        if let Some(count) = taken.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                taken.by_ip.remove(&self.ip);
            }
        }
        drop(taken);
        self.places.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn places_are_bounded_together_by_listener_and_by_address() {
        let by_listener = HashMap::from([("A".to_owned(), 1)]);
        let limits = ConnectionLimits { connections: 3, by_listener, per_ip: 2, per_ip_overrides: HashMap::new() };
        let (limits, places) = (Arc::new(limits), Arc::new(Places::default()));
        let (a, b): (Arc<str>, Arc<str>) = ("A".into(), "B".into());
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = places.take(&a, here, &limits).unwrap();
        assert!(!places.has_room("A", &limits) && places.has_room("B", &limits), "a listener's own limit is its own");
        let second = places.take(&b, here, &limits).unwrap();
        assert!(places.take(&b, here, &limits).is_none(), "two from one address");
        let third = places.take(&b, there, &limits).unwrap();
        assert!(!places.has_room("B", &limits), "three together");
        assert!(places.room("B", || limits.clone()).now_or_never().is_none());
        drop((second, third));
        assert!(places.room("B", || limits.clone()).now_or_never().is_some());
        let more = ConnectionLimits { by_listener: HashMap::from([("A".to_owned(), 2)]), ..(*limits).clone() };
        assert!(!places.has_room("A", &limits) && places.has_room("A", &more), "from when the limit is raised");
        drop(first);
        assert!(places.has_room("A", &limits));
    }
}
