//! Which settings of listeners may change while the node runs, for whom, and whether the listeners can go on with them.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::{
    config::ConfigErrors,
    image::{CORDONED_LOG_DIRS, ConfigResource},
};

use super::{broker_rules::Rules, handlers::admin_errors::config_text};
use crate::{
    config::{BrokerConfig, Listener, ListenerConfig, listener_prefix, listener_setting},
    security::{SecurityError, chain},
};

/// Keys and trust: they change for one listener of one broker at a time (KIP-226).
const OF_ONE_LISTENER: [&str; 10] = [
    "ssl.keystore.type",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.key",
    "ssl.keystore.certificate.chain",
    "ssl.key.password",
    "ssl.truststore.type",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.certificates",
];

/// What else of TLS and SASL changes while a broker runs: for one listener by its prefix, or for all of one broker. The other
/// settings of this kind only change by the prefix.
const OF_ONE_BROKER: [&str; 22] = [
    "ssl.protocol",
    "ssl.provider",
    "ssl.cipher.suites",
    "ssl.enabled.protocols",
    "ssl.keymanager.algorithm",
    "ssl.trustmanager.algorithm",
    "ssl.endpoint.identification.algorithm",
    "ssl.secure.random.implementation",
    "ssl.client.auth",
    "sasl.mechanism.inter.broker.protocol",
    "sasl.jaas.config",
    "sasl.enabled.mechanisms",
    "sasl.kerberos.service.name",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.ticket.renew.window.factor",
    "sasl.kerberos.ticket.renew.jitter",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal.to.local.rules",
    "sasl.login.refresh.window.factor",
    "sasl.login.refresh.window.jitter",
    "sasl.login.refresh.min.period.seconds",
    "sasl.login.refresh.buffer.seconds",
];

/// What listeners have of their own and all brokers may be told together.
const OF_LISTENERS_EVERYWHERE: [&str; 3] = ["max.connections", "max.connection.creation.rate", "num.network.threads"];

/// Which listeners there are, and what they speak: each broker has its own.
pub(super) const SOCKETS: [&str; 2] = ["listeners", "listener.security.protocol.map"];

/// Whether the setting changes under its own name: what is of one listener alone has that name too, and is refused for it.
pub(super) fn changes_unprefixed(name: &str) -> bool {
    !is_of_security(name) || OF_ONE_LISTENER.contains(&name) || OF_ONE_BROKER.contains(&name)
}

/// Whether listeners have it for their TLS or SASL.
pub(super) fn is_of_security(name: &str) -> bool {
    name.starts_with("ssl.") || name.starts_with("sasl.") || name == "connections.max.reauth.ms"
}

/// Some settings change for one listener, and some for one broker.
///
/// # Errors
/// Why one of `changed` cannot be a setting of `resource`.
pub(super) fn check_whose(resource: &ConfigResource, changed: &[&str]) -> Result<(), String> {
    let general: Vec<&str> = changed.iter().copied().filter(|name| OF_ONE_LISTENER.contains(name)).collect();
    if !general.is_empty() {
        return Err(format!(
            "These security configs can be dynamically updated only per-listener using the listener prefix: [{}]",
            general.join(", ")
        ));
    }
    let of_one_listener = |name: &str| {
        listener_setting(name).is_some_and(|definition| !OF_LISTENERS_EVERYWHERE.contains(&definition.name))
    };
    let is_own = |name: &str| {
        of_one_listener(name) || OF_ONE_BROKER.contains(&name) || SOCKETS.contains(&name) || name == CORDONED_LOG_DIRS
    };
    let own: Vec<&str> = changed.iter().copied().filter(|name| is_own(name)).collect();
    if *resource == ConfigResource::BrokerDefaults && !own.is_empty() {
        return Err(format!(
            "Cannot update these configs at default cluster level, broker id must be specified: [{}]",
            own.join(", ")
        ));
    }
    Ok(())
}

/// What the settings of a node that was `started_with` those are by `texts`, but for its listeners, which stay those of the start.
///
/// # Errors
/// What else is wrong.
pub(super) fn with_first_sockets(
    started_with: &BrokerConfig,
    texts: &BTreeMap<String, String>,
) -> Result<BrokerConfig, ConfigErrors> {
    let mut texts = texts.clone();
    for name in SOCKETS {
        match started_with.settings.given(name) {
            Some(first) => texts.insert(name.to_owned(), first.value.clone()),
            None => texts.remove(name),
        };
    }
    started_with.with_settings(&texts)
}

/// Whether a node that has the listeners `now` can go over to `wanted` while it runs, as far as names and protocols tell.
///
/// # Errors
/// What of it cannot change.
pub(super) fn check_sockets(now: &ListenerConfig, wanted: &ListenerConfig) -> Result<(), String> {
    if wanted.between_brokers() != now.between_brokers() {
        return Err(format!(
            "The listener {} is that of brokers and cannot go, nor can {} become it, while the broker runs",
            now.between_brokers(),
            wanted.between_brokers()
        ));
    }
    for listener in &now.listeners {
        match wanted.listener(&listener.name) {
            Some(other) if other.protocol != listener.protocol => {
                return Err(format!("Security protocol cannot be updated for existing listener {}", listener.name));
            }
            None if now.is_advertised(&listener.name) => {
                return Err(format!(
                    "Advertised listeners must be a subset of listeners: {} is advertised",
                    listener.name
                ));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

impl Rules<'_> {
    fn texts_before(&self) -> BTreeMap<String, String> {
        self.image.configs().of_broker(self.node, &self.config.settings.texts())
    }

    /// What this node's settings would be by `texts`. Listeners that do not fit the file already do not hold, and so stand in the
    /// way of nothing else; new ones have to fit.
    pub(super) fn with_texts(
        &self,
        texts: &BTreeMap<String, String>,
        are_sockets_new: bool,
    ) -> Result<BrokerConfig, String> {
        let wanted = match self.config.with_settings(texts) {
            Err(_) if !are_sockets_new && self.config.with_settings(&self.texts_before()).is_err() => {
                with_first_sockets(self.config, texts)
            }
            wanted => wanted,
        };
        wanted.map_err(|ConfigErrors(errors)| errors.iter().map(config_text).collect::<Vec<_>>().join("; "))
    }

    /// A listener that lets nobody in is a slip of the hand: how many it takes, and how fast, is more than nothing.
    ///
    /// # Errors
    /// Which limit of a listener that there is, or would be, is new among `texts`, and nothing.
    pub(super) fn check_limits(&self, texts: &BTreeMap<String, String>) -> Result<(), String> {
        let before = self.texts_before();
        let wanted = self.wanted.lock();
        let listeners = wanted.as_ref().map_or(&self.now.listeners, |wanted| &wanted.listeners);
        for listener in &listeners.listeners {
            let was_there = self.now.listeners.listener(&listener.name).is_some();
            for name in ["max.connections", "max.connection.creation.rate"] {
                let own = format!("{}{name}", listener_prefix(&listener.name));
                let limit = |texts: &BTreeMap<String, String>| {
                    texts.get(&own).or_else(|| texts.get(name))?.trim().parse::<i64>().ok()
                };
                let is_old = |limit_now: i64| was_there && limit(&before) == Some(limit_now);
                if let Some(limit) = limit(texts).filter(|new| *new <= 0 && !is_old(*new)) {
                    return Err(format!("Invalid {name} {limit}"));
                }
            }
        }
        Ok(())
    }

    /// Whether every listener that there is can go on with what is new to it in these settings, files included. What went bad meanwhile, a file
    /// for one, is no reason to refuse something else.
    pub(super) fn check_listeners(&self, texts: &BTreeMap<String, String>, changed: &[&str]) -> Result<(), String> {
        let before = self.texts_before();
        let is_new = |name: &str| changed.contains(&name) || before.get(name) != texts.get(name);
        let new: BTreeSet<&str> =
            before.keys().chain(texts.keys()).map(String::as_str).filter(|name| is_new(name)).collect();
        let wanted = self.wanted.lock();
        let stays = |listener: &Listener| {
            wanted.as_ref().is_none_or(|wanted| wanted.listeners.listener(&listener.name).is_some())
        };
        for (listener, security) in self.listeners.iter().filter(|(listener, _)| stays(listener)) {
            security.check(&listener.name, texts, &new).map_err(|error| match error {
                SecurityError::Config(error) => format!("Invalid value for the listener {}: {error}", listener.name),
                SecurityError::Tls(error) => {
                    format!("Validation of dynamic config update of SSLFactory failed: {}", chain(&error))
                }
            })?;
        }
        Ok(())
    }
}
