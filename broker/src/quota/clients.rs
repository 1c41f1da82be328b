//! The quotas of users and client ids.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use varve_metadata::{image::QuotaImage, model::QuotaKey};

use super::{Millis, bucket::Bucket, limits::Limits, meters::Meters, metrics::QuotaMetrics, rate::Rate, rate::Window};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The principal's name, without its kind.
    pub user: &'a str,
    /// `client.id`.
    pub client: &'a str,
}

/// All quotas of users and client ids.
#[derive(Debug)]
pub struct Quotas {
    /// Bytes of produce requests per second.
    pub produce: ClientQuota,
    /// Bytes of fetch answers per second.
    pub fetch: ClientQuota,
    /// Time spent on requests, in percent of one thread.
    pub request: ClientQuota,
    /// Partitions made and deleted per second.
    pub mutation: MutationQuota,
}

impl Quotas {
    /// No quotas yet. `window` is that of clients (`quota.window.*`), `mutation_window` that of changes of cluster state
    /// (`controller.quota.window.*`).
    pub fn new(window: Window, mutation_window: Window) -> Quotas {
        Quotas {
            produce: ClientQuota::new(QuotaKey::ProducerByteRate, window, None),
            fetch: ClientQuota::new(QuotaKey::ConsumerByteRate, window, None),
            // Time spent cannot be unspent: a wait beyond one sample would only punish.
            request: ClientQuota::new(QuotaKey::RequestPercentage, window, Some(window.size)),
            mutation: MutationQuota::new(mutation_window),
        }
    }

    /// From now on the quotas of `image` hold; what was used counts on.
    pub fn set(&self, image: &QuotaImage) {
        self.produce.inner.set(image);
        self.fetch.inner.set(image);
        self.request.inner.set(image);
        self.mutation.inner.set(image);
    }

    /// Drops what is remembered of clients that do nothing, and shows in `metrics` who is throttled.
    pub fn refresh(&self, metrics: &QuotaMetrics, now: Millis) {
        metrics.begin();
        for quota in [&self.produce, &self.fetch, &self.request] {
            quota.sweep(now);
            quota.inner.show(metrics);
        }
        self.mutation.sweep(now);
        self.mutation.inner.show(metrics);
    }
}

/// What all kinds have in common.
#[derive(Debug)]
struct Inner<M> {
    key: QuotaKey,
    window: Window,
    is_set: AtomicBool,
    limits: ArcSwap<Limits>,
    meters: Mutex<Meters<M>>,
}

impl<M: Default> Inner<M> {
    fn new(key: QuotaKey, window: Window) -> Inner<M> {
        let (limits, meters) = (ArcSwap::default(), Mutex::default());
        Inner { key, window, is_set: AtomicBool::new(false), limits, meters }
    }

    fn set(&self, image: &QuotaImage) {
        let limits = Limits::of(image, self.key);
        let is_set = !limits.is_empty();
        self.limits.store(Arc::new(limits));
        self.is_set.store(is_set, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    fn show(&self, metrics: &QuotaMetrics) {
        let meters = self.meters.lock();
        metrics.show(self.key, meters.iter().map(|(user, client, metered)| (user, client, metered.throttled)));
    }
}

/// A quota on a rate.
#[derive(Debug)]
pub struct ClientQuota {
    inner: Inner<Rate>,
    most: Option<Duration>,
}

impl ClientQuota {
    fn new(key: QuotaKey, window: Window, most: Option<Duration>) -> ClientQuota {
        ClientQuota { inner: Inner::new(key, window), most }
    }

    /// Whether anybody has such a quota. Costs one load.
    pub fn is_set(&self) -> bool {
        self.inner.is_set()
    }

    /// Notes that `asker` used `amount` (bytes, percent). How long it is to wait now.
    pub fn record(&self, asker: Asker<'_>, amount: f64, now: Millis) -> Duration {
        if !self.is_set() {
            return Duration::ZERO;
        }
        let window = self.inner.window;
        let limits = self.inner.limits.load();
        let (share, Some(quota)) = limits.find(asker.user, asker.client) else { return Duration::ZERO };
        let mut meters = self.inner.meters.lock();
        let metered = meters.of(share, now, |rate| rate.is_idle(window, now));
        metered.meter.record(window, amount, now);
        let wait = metered.meter.throttle(window, quota, now);
        let wait = self.most.map_or(wait, |most| wait.min(most));
        metered.throttled += wait;
        wait
    }

    /// Takes back what [`record`](Self::record) noted, because it is not done after all.
    pub fn take_back(&self, asker: Asker<'_>, amount: f64, now: Millis) {
        let window = self.inner.window;
        let limits = self.inner.limits.load();
        if let (share, Some(_)) = limits.find(asker.user, asker.client) {
            let mut meters = self.inner.meters.lock();
            meters.of(share, now, |rate| rate.is_idle(window, now)).meter.record(window, -amount, now);
        }
    }

    /// The most that `asker` could use at once without waiting, had it used nothing of late; `None`: no limit.
    pub fn burst(&self, asker: Asker<'_>) -> Option<f64> {
        if !self.is_set() {
            return None;
        }
        let (_, quota) = self.inner.limits.load().find(asker.user, asker.client);
        Some(self.inner.window.burst(quota?))
    }

    fn sweep(&self, now: Millis) {
        let window = self.inner.window;
        self.inner.meters.lock().sweep(|rate| rate.is_idle(window, now));
    }
}

/// The quota on changes of cluster state (KIP-599).
#[derive(Debug)]
pub struct MutationQuota {
    inner: Inner<Bucket>,
}

impl MutationQuota {
    fn new(window: Window) -> MutationQuota {
        MutationQuota { inner: Inner::new(QuotaKey::ControllerMutationRate, window) }
    }

    /// Whether anybody has such a quota. Costs one load.
    pub fn is_set(&self) -> bool {
        self.inner.is_set()
    }

    /// `asker` changes `partitions` partitions, whatever it used before. How long it is to wait then.
    pub fn record(&self, asker: Asker<'_>, partitions: usize, now: Millis) -> Duration {
        self.take(asker, partitions, false, now).0
    }

    /// The same, but nothing is taken from a bucket that is overdrawn.
    ///
    /// # Errors
    /// How long to wait before the change is allowed.
    pub fn try_record(&self, asker: Asker<'_>, partitions: usize, now: Millis) -> Result<(), Duration> {
        match self.take(asker, partitions, true, now) {
            (wait, false) => Err(wait),
            (_, true) => Ok(()),
        }
    }

    fn take(&self, asker: Asker<'_>, partitions: usize, strict: bool, now: Millis) -> (Duration, bool) {
        if !self.is_set() {
            return (Duration::ZERO, true);
        }
        let window = self.inner.window;
        let limits = self.inner.limits.load();
        let (share, Some(quota)) = limits.find(asker.user, asker.client) else { return (Duration::ZERO, true) };
        let mut meters = self.inner.meters.lock();
        let metered = meters.of(share, now, |bucket| bucket.is_full(window, quota, now));
        let before = metered.meter.throttle(window, quota, now);
        if strict && !before.is_zero() {
            metered.throttled += before;
            return (before, false);
        }
        metered.meter.take(window, quota, partitions as f64, now);
        let wait = if strict { Duration::ZERO } else { metered.meter.throttle(window, quota, now) };
        metered.throttled += wait;
        (wait, true)
    }

    fn sweep(&self, now: Millis) {
        let window = self.inner.window;
        let limits = self.inner.limits.load();
        // A bucket's size is its owner's quota; who has none any more needs no bucket.
        let mut meters = self.inner.meters.lock();
        meters.sweep_named(|user, client, bucket| {
            limits.find(user, client).1.is_none_or(|quota| bucket.is_full(window, quota, now))
        });
    }
}

#[cfg(test)]
mod tests {
    use varve_metadata::{
        image::QuotaImage,
        model::{QuotaEntity, QuotaName},
    };

    use super::*;

    const ALICE: Asker<'_> = Asker { user: "alice", client: "app" };

    fn quotas(key: QuotaKey, limit: f64) -> Quotas {
        let quotas = Quotas::new(Window::default(), Window::default());
        quotas.set(&QuotaImage::of([(QuotaEntity::User(QuotaName::Default), key, limit)]));
        quotas
    }

    #[test]
    fn who_has_no_quota_is_neither_throttled_nor_remembered() {
        let quotas = Quotas::new(Window::default(), Window::default());
        assert_eq!(quotas.produce.record(ALICE, 1e12, Millis(0)), Duration::ZERO);
        assert_eq!(quotas.fetch.burst(ALICE), None);
        assert_eq!(quotas.mutation.try_record(ALICE, 1_000_000, Millis(0)), Ok(()));
        assert_eq!(quotas.produce.inner.meters.lock().len(), 0);
    }

    #[test]
    fn a_quota_holds_from_the_moment_it_is_set_and_no_longer_than_it_is() {
        let quotas = quotas(QuotaKey::ProducerByteRate, 1000.0);
        assert_eq!(quotas.produce.record(ALICE, 20_000.0, Millis(0)), Duration::from_secs(10));
        assert_eq!(quotas.fetch.record(ALICE, 1e9, Millis(0)), Duration::ZERO, "another kind");
        quotas.set(&QuotaImage::default());
        assert_eq!(quotas.produce.record(ALICE, 20_000.0, Millis(1)), Duration::ZERO);
    }

    #[test]
    fn time_on_requests_is_waited_for_no_longer_than_one_sample() {
        let quotas = quotas(QuotaKey::RequestPercentage, 1.0);
        assert_eq!(quotas.request.record(ALICE, 5000.0, Millis(0)), Duration::from_secs(1));
    }

    #[test]
    fn what_is_not_sent_is_taken_back() {
        let quotas = quotas(QuotaKey::ConsumerByteRate, 1000.0);
        assert_eq!(quotas.fetch.burst(ALICE), Some(10_000.0));
        assert!(!quotas.fetch.record(ALICE, 30_000.0, Millis(0)).is_zero());
        quotas.fetch.take_back(ALICE, 30_000.0, Millis(0));
        assert_eq!(quotas.fetch.record(ALICE, 1.0, Millis(0)), Duration::ZERO);
    }

    #[test]
    fn changes_of_cluster_state_are_refused_or_only_waited_for() {
        let quotas = quotas(QuotaKey::ControllerMutationRate, 1.0);
        assert_eq!(
            quotas.mutation.try_record(ALICE, 13, Millis(0)),
            Ok(()),
            "more than there is, but not overdrawn yet"
        );
        assert_eq!(quotas.mutation.try_record(ALICE, 1, Millis(0)), Err(Duration::from_secs(2)));
        assert_eq!(quotas.mutation.record(ALICE, 1, Millis(0)), Duration::from_secs(3));
        assert_eq!(quotas.mutation.try_record(ALICE, 1, Millis(3000)), Ok(()));
    }
}
