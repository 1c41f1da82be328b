//! What each client did of late, for as many clients as fit.

use std::{collections::HashMap, time::Duration};

use super::{Millis, limits::Share};

/// Most clients whose use is remembered, per kind of quota: client ids are the clients' own choice, so their number is not
/// ours to trust.
const MOST: usize = 1 << 16;
/// Below this many nobody looks for idle ones when a client comes.
const FEW: usize = 1 << 10;

/// One client's meter, and how it was treated.
#[derive(Clone, Debug, Default)]
pub(super) struct Metered<M> {
    pub(super) meter: M,
    /// How long it was told to wait so far.
    pub(super) throttled: Duration,
    used: Millis,
}

/// Meters by user, then client id.
#[derive(Debug)]
pub(super) struct Meters<M> {
    users: HashMap<Box<str>, HashMap<Box<str>, Metered<M>>>,
    count: usize,
    /// From this many on, idle ones are looked for when one more comes.
    sweep_at: usize,
}

impl<M> Default for Meters<M> {
    fn default() -> Meters<M> {
        Meters { users: HashMap::new(), count: 0, sweep_at: FEW }
    }
}

impl<M: Default> Meters<M> {
    /// The meter of `share`; a fresh one if it has none. `is_idle` says that a fresh one would say the same.
    pub(super) fn of(&mut self, share: Share<'_>, now: Millis, is_idle: impl Fn(&M) -> bool) -> &mut Metered<M> {
        let (user, client) = share;
        // Looked up twice at worst, but only copied when it is new.
        let is_known = self.users.get(user).is_some_and(|clients| clients.contains_key(client));
        if !is_known {
            self.make_room(is_idle);
            self.users
                .entry(user.into())
                .or_default()
                .insert(client.into(), Metered { meter: M::default(), throttled: Duration::ZERO, used: now });
            self.count += 1;
        }
        let metered = self.users.get_mut(user).and_then(|clients| clients.get_mut(client));
        let metered = metered.expect("looked up, or just put there");
        metered.used = now;
        metered
    }

    fn make_room(&mut self, is_idle: impl Fn(&M) -> bool) {
        if self.count < self.sweep_at {
            return;
        }
        self.sweep(is_idle);
        if self.count >= MOST {
            self.forget_older_half();
        }
        // Looking at all of them is paid for by as many that came.
        self.sweep_at = (2 * self.count).clamp(FEW, MOST);
    }

    /// Drops what is idle.
    pub(super) fn sweep(&mut self, is_idle: impl Fn(&M) -> bool) {
        self.retain(|metered| !is_idle(&metered.meter));
    }

    /// The same, where it takes the name to tell who is idle.
    pub(super) fn sweep_named(&mut self, is_idle: impl Fn(&str, &str, &M) -> bool) {
        self.users.retain(|user, clients| {
            clients.retain(|client, metered| !is_idle(user, client, &metered.meter));
            !clients.is_empty()
        });
        self.count = self.users.values().map(HashMap::len).sum();
    }

    /// Drops the half that was used longest ago: a client that does anything stays.
    fn forget_older_half(&mut self) {
        let mut used: Vec<Millis> = self.users.values().flat_map(HashMap::values).map(|metered| metered.used).collect();
        let middle = used.len() / 2;
        let (_, bound, _) = used.select_nth_unstable(middle);
        let bound = *bound;
        let mut spare = middle;
        self.retain(|metered| {
            let goes = metered.used < bound || metered.used == bound && spare > 0;
            spare = spare.saturating_sub(usize::from(goes));
            !goes
        });
    }

    fn retain(&mut self, mut keep: impl FnMut(&Metered<M>) -> bool) {
        self.users.retain(|_, clients| {
            clients.retain(|_, metered| keep(metered));
            !clients.is_empty()
        });
        self.count = self.users.values().map(HashMap::len).sum();
    }

    /// Everyone, with user and client id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Metered<M>)> {
        self.users.iter().flat_map(|(user, clients)| {
            clients.iter().map(move |(client, metered)| (user.as_ref(), client.as_ref(), metered))
        })
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_clients_takes_bounded_memory_and_who_is_active_stays() {
        let mut meters: Meters<u64> = Meters::default();
        for number in 0..3 * MOST as u64 {
            meters.of(("", &number.to_string()), Millis(number), |_| false).meter = number;
            meters.of(("", "active"), Millis(number), |_| false).meter += 1;
            assert!(meters.len() <= MOST + 1);
        }
        assert_eq!(meters.of(("", "active"), Millis(0), |_| false).meter, 3 * MOST as u64);
    }

    #[test]
    fn idle_clients_go_when_others_come() {
        let mut meters: Meters<u64> = Meters::default();
        for number in 0..10 * FEW {
            meters.of(("u", &number.to_string()), Millis(number as u64), |_| true);
        }
        assert!(meters.len() <= FEW, "{}", meters.len());
    }
}
