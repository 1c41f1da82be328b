//! Which quota a client has, and with whom it shares what was used of it.
//!
//! The first that is set holds (KIP-55): user and client id, user and any client, user, any user and client id, any user and
//! any client, any user, client id, any client. Where only quotas of one shape are set, Kafka counts by that shape alone;
//! the difference shows in who shares a rate, so it is kept here.

use std::collections::HashMap;

use varve_metadata::{
    image::QuotaImage,
    model::{QuotaEntity, QuotaKey, QuotaName},
};

/// Quotas of one kind for one user, or for every user without one.
#[derive(Clone, Debug, Default)]
struct OfUser {
    /// Of all that the user does.
    whole: Option<f64>,
    /// By client id.
    clients: HashMap<String, f64>,
    /// Of a client id that has none.
    any_client: Option<f64>,
}

/// All quotas of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    users: HashMap<String, OfUser>,
    any_user: OfUser,
    clients: HashMap<String, f64>,
    any_client: Option<f64>,
    shapes: Shapes,
}

/// Which shapes of entities have a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shapes {
    user: bool,
    client: bool,
    both: bool,
}

/// Who shares a meter: the empty name is everybody.
pub(super) type Share<'a> = (&'a str, &'a str);

impl Limits {
    /// The quotas of kind `key` that `image` shows.
    pub(super) fn of(image: &QuotaImage, key: QuotaKey) -> Limits {
        let mut limits = Limits::default();
        for (entity, quotas) in image.iter() {
            if let Some(limit) = quotas.get(&key) {
                limits.set(entity, *limit);
            }
        }
        limits
    }

    fn set(&mut self, entity: &QuotaEntity, limit: f64) {
        match entity {
            QuotaEntity::User(user) => {
                self.shapes.user = true;
                self.user(user).whole = Some(limit);
            }
            QuotaEntity::UserClient(user, client) => {
                self.shapes.both = true;
                let of_user = self.user(user);
                match client {
                    QuotaName::Default => of_user.any_client = Some(limit),
                    QuotaName::Named(client) => drop(of_user.clients.insert(client.clone(), limit)),
                }
            }
            QuotaEntity::ClientId(QuotaName::Default) => {
                self.shapes.client = true;
                self.any_client = Some(limit);
            }
            QuotaEntity::ClientId(QuotaName::Named(client)) => {
                self.shapes.client = true;
                self.clients.insert(client.clone(), limit);
            }
            // Connections are counted elsewhere, before anybody knows whose they are.
            QuotaEntity::Ip(_) => {}
        }
    }

    fn user(&mut self, user: &QuotaName) -> &mut OfUser {
        match user {
            QuotaName::Default => &mut self.any_user,
            QuotaName::Named(user) => self.users.entry(user.clone()).or_default(),
        }
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.shapes == Shapes::default()
    }

    /// With whom `user` and `client` share what they use, and how much that may be; `None`: as much as they like.
    pub(super) fn find<'a>(&self, user: &'a str, client: &'a str) -> (Share<'a>, Option<f64>) {
        match self.shapes {
            Shapes { user: true, client: false, both: false } => ((user, ""), self.of_user(user)),
            Shapes { user: false, client: true, both: false } => (("", client), self.of_client(client)),
            Shapes { user: false, client: false, both: true } => ((user, client), self.of_both(user, client)),
            _ => self.find_mixed(user, client),
        }
    }

    fn find_mixed<'a>(&self, user: &'a str, client: &'a str) -> (Share<'a>, Option<f64>) {
        let own = self.users.get(user);
        let any = &self.any_user;
        let of_both = |of: &OfUser| of.clients.get(client).copied().or(of.any_client);
        if let Some(limit) = own.and_then(of_both) {
            return ((user, client), Some(limit));
        }
        if let Some(limit) = own.and_then(|own| own.whole) {
            return ((user, ""), Some(limit));
        }
        if let Some(limit) = of_both(any) {
            return ((user, client), Some(limit));
        }
        match any.whole {
            Some(limit) => ((user, ""), Some(limit)),
            None => (("", client), self.of_client(client)),
        }
    }

    fn of_user(&self, user: &str) -> Option<f64> {
        self.users.get(user).and_then(|own| own.whole).or(self.any_user.whole)
    }

    fn of_client(&self, client: &str) -> Option<f64> {
        self.clients.get(client).copied().or(self.any_client)
    }

    fn of_both(&self, user: &str, client: &str) -> Option<f64> {
        let of = |of: &OfUser| of.clients.get(client).copied().or(of.any_client);
        self.users.get(user).and_then(of).or_else(|| of(&self.any_user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> QuotaName {
        QuotaName::Named(name.to_owned())
    }

    #[test]
    fn the_most_particular_quota_holds_in_eight_steps() {
        let steps = [
            (QuotaEntity::UserClient(named("u"), named("c")), ("u", "c")),
            (QuotaEntity::UserClient(named("u"), QuotaName::Default), ("u", "c")),
            (QuotaEntity::User(named("u")), ("u", "")),
            (QuotaEntity::UserClient(QuotaName::Default, named("c")), ("u", "c")),
            (QuotaEntity::UserClient(QuotaName::Default, QuotaName::Default), ("u", "c")),
            (QuotaEntity::User(QuotaName::Default), ("u", "")),
            (QuotaEntity::ClientId(named("c")), ("", "c")),
            (QuotaEntity::ClientId(QuotaName::Default), ("", "c")),
        ];
        // All of them set: the first holds; without the first the second, and so on.
        for first in 0..steps.len() {
            let mut limits = Limits::default();
            for (place, (entity, _)) in steps.iter().enumerate().skip(first) {
                limits.set(entity, place as f64 + 1.0);
            }
            let (share, limit) = limits.find("u", "c");
            assert_eq!((share, limit), (steps[first].1, Some(first as f64 + 1.0)), "{}", steps[first].0);
        }
        assert!(Limits::default().is_empty());
    }

    #[test]
    fn other_users_and_clients_are_not_meant() {
        let mut limits = Limits::default();
        limits.set(&QuotaEntity::User(named("u")), 1.0);
        assert_eq!(limits.find("other", "c"), (("other", ""), None));
        limits.set(&QuotaEntity::ClientId(named("c")), 2.0);
        assert_eq!(limits.find("other", "c"), (("", "c"), Some(2.0)));
        assert_eq!(limits.find("other", "d"), (("", "d"), None));
    }
}
