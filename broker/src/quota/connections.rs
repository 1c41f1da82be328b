//! How many connections an address may open per second (KIP-612), and all of them together.

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
    /// Of all addresses together (`max.connection.creation.rate`).
    total: Option<f64>,
    rates: HashMap<IpAddr, Rate>,
    total_rate: Rate,
}

impl ConnectionQuotas {
    /// No limits yet.
    pub fn new(window: Window) -> ConnectionQuotas {
        ConnectionQuotas { window, is_set: AtomicBool::new(false), state: Mutex::default() }
    }

    /// From now on these limits hold, in connections per second: of each address in `own`, of every other, of all together.
    pub fn set(&self, own: HashMap<IpAddr, f64>, any: Option<f64>, total: Option<f64>) {
        let is_set = any.is_some() || total.is_some() || !own.is_empty();
        let mut state = self.state.lock();
        (state.own, state.any, state.total) = (own, any, total);
        self.is_set.store(is_set, Ordering::Release);
    }

    /// From now on all addresses together open no more than `total` per second; the other limits stay.
    pub fn set_total(&self, total: Option<f64>) {
        let mut state = self.state.lock();
        state.total = total;
        let is_set = state.any.is_some() || total.is_some() || !state.own.is_empty();
        self.is_set.store(is_set, Ordering::Release);
    }

    /// How long to wait before the next connection of anybody is accepted, this one counted.
    pub fn accept(&self, now: Millis) -> Duration {
        if !self.is_set.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let state = &mut *self.state.lock();
        let Some(quota) = state.total else { return Duration::ZERO };
        state.total_rate.record(self.window, 1.0, now);
        state.total_rate.throttle(self.window, quota, now).min(self.window.size)
    }

    /// How long a connection from `ip` waits until it is closed; zero: it is served. One that is closed does not count.
    pub fn admit(&self, ip: IpAddr, now: Millis) -> Duration {
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
            if state.total.is_some() {
                state.total_rate.record(self.window, -1.0, now);
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
        (0..tries).filter(|_| quotas.admit(ip, Millis(0)).is_zero()).count()
    }

    #[test]
    fn an_address_opens_a_windows_worth_and_then_waits() {
        let quotas = ConnectionQuotas::new(Window::default());
        assert_eq!(admitted(&quotas, ONE, 1000), 1000, "no limits");
        quotas.set(HashMap::from([(ONE, 2.0)]), Some(1.0), None);
        assert_eq!(admitted(&quotas, ONE, 100), 20);
        assert_eq!(admitted(&quotas, TWO, 100), 10, "the default");
        assert!(quotas.admit(ONE, Millis(0)) <= Duration::from_secs(1));
        assert!(quotas.admit(ONE, Millis(11_000)).is_zero());
        quotas.set(HashMap::new(), None, None);
        assert_eq!(admitted(&quotas, ONE, 100), 100);
    }

    #[test]
    fn all_addresses_together_are_slowed_down() {
        let quotas = ConnectionQuotas::new(Window::default());
        quotas.set(HashMap::new(), None, Some(1.0));
        assert!((0..10).all(|_| quotas.accept(Millis(0)).is_zero()));
        assert_eq!(quotas.accept(Millis(0)), Duration::from_secs(1));
    }
}
