//! How many connections an address may open per second, and all of them together at one listener or at all (KIP-612).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use super::{Millis, rate::Rate, rate::Window};

/// Addresses that are remembered at most.
const MOST: usize = 1 << 16;

/// Rates of new connections.
#[derive(Debug)]
pub struct ConnectionQuotas {
    window: Window,
    is_set: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections per second, by address.
    own: HashMap<IpAddr, f64>,
    /// Of an address without one.
    any: Option<f64>,
    listeners: ListenerRates,
    rates: HashMap<IpAddr, Rate>,
    total_rate: Rate,
    /// By listener, of those that have a limit.
    listener_rates: HashMap<String, Rate>,
}

/// How many connections all addresses together may open per second (`max.connection.creation.rate`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenerRates {
    /// At all listeners but the protected one.
    pub total: Option<f64>,
    /// At each of these listeners.
    pub own: HashMap<String, f64>,
    /// The listener of brokers: no part of the total, so that clients who come in crowds do not keep brokers apart. Without a
    /// limit of its own it may open as many as all others together. Where there is no other listener there is none to protect.
    pub protected: Option<String>,
}

impl State {
    fn is_set(&self) -> bool {
        self.any.is_some() || !self.own.is_empty() || self.listeners.total.is_some() || !self.listeners.own.is_empty()
    }

    fn is_part_of_total(&self, listener: &str) -> bool {
        self.listeners.protected.as_deref() != Some(listener)
    }

    fn own_limit(&self, listener: &str) -> Option<f64> {
        let otherwise = self.listeners.total.filter(|_| !self.is_part_of_total(listener));
        self.listeners.own.get(listener).copied().or(otherwise)
    }
}

impl ConnectionQuotas {
    /// No limits yet.
    pub fn new(window: Window) -> ConnectionQuotas {
        ConnectionQuotas { window, is_set: AtomicBool::new(false), state: Mutex::default() }
    }

    /// From now on these limits hold, in connections per second: of each address in `own`, of every other.
    pub fn set(&self, own: HashMap<IpAddr, f64>, any: Option<f64>) {
        let mut state = self.state.lock();
        (state.own, state.any) = (own, any);
        self.is_set.store(state.is_set(), Ordering::Release);
    }

    /// From now on all addresses together open no more than this; the limits of single addresses stay.
    pub fn set_listeners(&self, listeners: ListenerRates) {
        let state = &mut *self.state.lock();
        state.listeners = listeners;
        let mut rates = std::mem::take(&mut state.listener_rates);
        rates.retain(|listener, _| state.own_limit(listener).is_some());
        state.listener_rates = rates;
        self.is_set.store(state.is_set(), Ordering::Release);
    }

    /// How long `listener` waits before it goes on with the connection that it just accepted, whoever's that is. It counts.
    pub fn accept(&self, listener: &str, now: Millis) -> Duration {
        if !self.is_set.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let state = &mut *self.state.lock();
        let mut wait = Duration::ZERO;
        if let Some(quota) = state.listeners.total.filter(|_| state.is_part_of_total(listener)) {
            state.total_rate.record(self.window, 1.0, now);
            wait = state.total_rate.throttle(self.window, quota, now);
        }
        if let Some(quota) = state.own_limit(listener) {
            let rate = state.listener_rates.entry(listener.to_owned()).or_default();
            rate.record(self.window, 1.0, now);
            wait = wait.max(rate.throttle(self.window, quota, now));
        }
        wait.min(self.window.size)
    }

    /// How long a connection from `ip` to `listener` waits until it is closed; zero: it is served. One that is closed does not
    /// count.
    pub fn admit(&self, listener: &str, ip: IpAddr, now: Millis) -> Duration {
        if !self.is_set.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let state = &mut *self.state.lock();
        let Some(quota) = state.own.get(&ip).copied().or(state.any) else { return Duration::ZERO };
        if state.rates.len() >= MOST && !state.rates.contains_key(&ip) {
            state.rates.retain(|_, rate| !rate.is_idle(self.window, now));
            if state.rates.len() >= MOST {
                // So many addresses at once: whoever comes new is let in, as before there were quotas.
                return Duration::ZERO;
            }
        }
        let rate = state.rates.entry(ip).or_default();
        rate.record(self.window, 1.0, now);
        let wait = rate.throttle(self.window, quota, now).min(self.window.size);
        if !wait.is_zero() {
            rate.record(self.window, -1.0, now);
            if state.listeners.total.is_some() && state.is_part_of_total(listener) {
                state.total_rate.record(self.window, -1.0, now);
            }
            if let Some(rate) = state.listener_rates.get_mut(listener) {
                rate.record(self.window, -1.0, now);
            }
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn admitted(quotas: &ConnectionQuotas, ip: IpAddr, tries: usize) -> usize {
        (0..tries).filter(|_| quotas.admit("L", ip, Millis(0)).is_zero()).count()
    }

    #[test]
    fn an_address_opens_a_windows_worth_and_then_waits() {
        let quotas = ConnectionQuotas::new(Window::default());
        assert_eq!(admitted(&quotas, ONE, 1000), 1000, "no limits");
        quotas.set(HashMap::from([(ONE, 2.0)]), Some(1.0));
        assert_eq!(admitted(&quotas, ONE, 100), 20);
        assert_eq!(admitted(&quotas, TWO, 100), 10, "the default");
        assert!(quotas.admit("L", ONE, Millis(0)) <= Duration::from_secs(1));
        assert!(quotas.admit("L", ONE, Millis(11_000)).is_zero());
        quotas.set(HashMap::new(), None);
        assert_eq!(admitted(&quotas, ONE, 100), 100);
    }

    #[test]
    fn all_addresses_together_are_slowed_down() {
        let quotas = ConnectionQuotas::new(Window::default());
        quotas.set_listeners(ListenerRates { total: Some(1.0), ..ListenerRates::default() });
        assert!((0..10).all(|_| quotas.accept("L", Millis(0)).is_zero()));
        assert_eq!(quotas.accept("L", Millis(0)), Duration::from_secs(1));
    }

    fn accepted(quotas: &ConnectionQuotas, listener: &str) -> usize {
        (0..100).take_while(|_| quotas.accept(listener, Millis(0)).is_zero()).count()
    }

    #[test]
    fn a_listener_has_a_rate_of_its_own_beside_the_one_of_all() {
        let rates = |total, own: &[(&str, f64)], protected: Option<&str>| ListenerRates {
            total,
            own: own.iter().map(|(name, rate)| ((*name).to_owned(), *rate)).collect(),
            protected: protected.map(str::to_owned),
        };
        let quotas = ConnectionQuotas::new(Window::default());
        quotas.set_listeners(rates(None, &[("A", 1.0)], None));
        assert_eq!((accepted(&quotas, "A"), accepted(&quotas, "B")), (10, 100), "the limit of one is no other's");

        let quotas = ConnectionQuotas::new(Window::default());
        quotas.set_listeners(rates(Some(2.0), &[("A", 1.0)], None));
        assert_eq!(accepted(&quotas, "A"), 10, "its own is the smaller one");
        assert_eq!(accepted(&quotas, "B"), 9, "what A took, the one that waited with it, is taken from all");

        let quotas = ConnectionQuotas::new(Window::default());
        quotas.set_listeners(rates(Some(1.0), &[("BROKERS", 3.0)], Some("BROKERS")));
        assert_eq!(accepted(&quotas, "CLIENTS"), 10);
        assert_eq!(accepted(&quotas, "BROKERS"), 30, "brokers are held to their own listener's limit alone");

        let quotas = ConnectionQuotas::new(Window::default());
        quotas.set_listeners(rates(Some(1.0), &[], Some("BROKERS")));
        assert_eq!(
            (accepted(&quotas, "CLIENTS"), accepted(&quotas, "BROKERS")),
            (10, 10),
            "apart, but not without end"
        );

        quotas.set_listeners(rates(None, &[], None));
        assert_eq!(accepted(&quotas, "CLIENTS"), 100, "as soon as there is no limit");
    }

    #[test]
    fn what_an_address_may_not_open_is_not_counted_against_its_listener() {
        let quotas = ConnectionQuotas::new(Window::default());
        let own = HashMap::from([("A".to_owned(), 1.0)]);
        quotas.set_listeners(ListenerRates { total: Some(1.0), own, protected: None });
        quotas.set(HashMap::new(), Some(0.5));
        for _ in 0..50 {
            assert!(quotas.accept("A", Millis(0)).is_zero(), "five of one address, the others not counted");
            quotas.admit("A", ONE, Millis(0));
        }
        assert!((0..5).all(|_| quotas.accept("A", Millis(0)).is_zero()));
        assert!(!quotas.accept("A", Millis(0)).is_zero());
    }
}
