//! Where the node listens and what it tells clients, from Kafka's names for both, new and old.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use varve_metadata::config::ConfigError;

use super::{
    listener_settings::{ListenerSettings, listener_prefix},
    sasl::SaslConfig,
    settings::Reader,
    tls::TlsConfig,
};
use crate::security::SecurityProtocol;

/// One socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, upper case: `PLAINTEXT`, `INTERNAL`.
    pub name: String,
    /// Host name or address; `None` listens on all addresses.
    pub host: Option<String>,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// What it speaks below Kafka's own protocol.
    pub protocol: SecurityProtocol,
}

impl Listener {
    /// Its host, unless it stands for all addresses, which nobody can connect to.
    pub(crate) fn own_host(&self) -> Option<&str> {
        self.host.as_deref().filter(|&host| !is_every_address(host))
    }
}

fn is_every_address(host: &str) -> bool {
    host == "0.0.0.0" || host == "::"
}

/// Where whoever is on this machine connects to a socket that is bound to `address`, which may stand for all addresses.
pub(crate) fn reachable_here(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(address) if address.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        other => other,
    }
}

/// What clients are told for one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The listener's name.
    pub name: String,
    /// Host name or address; `None` for this machine's host name.
    pub host: Option<String>,
    /// Port; `None` for the one that the listener got.
    pub port: Option<u16>,
}

/// All listeners. Every listener is advertised, in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Sockets to listen on; never empty.
    pub listeners: Vec<Listener>,
    /// What clients are told, one for each listener, in the same order.
    pub advertised: Vec<Advertised>,
    /// Which listener other brokers use: the index in `listeners`.
    pub inter_broker: usize,
    /// There are other brokers.
    pub is_among_brokers: bool,
    /// The listeners that `advertised.listeners` names; `None` if it is not given, and so all are meant.
    named: Option<BTreeSet<String>>,
}

impl ListenerConfig {
    /// Reads `listeners`, `advertised.listeners`, their map of protocols and their old forms. Errors are noted in `reader`;
    /// what had to be left out or mapped is told in `warnings`.
    pub(super) fn read(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> ListenerConfig {
        let controllers: BTreeSet<String> =
            reader.list("controller.listener.names").iter().map(|name| name.to_ascii_uppercase()).collect();
        let mut listeners = endpoints(reader, "listeners");
        map_old_listener(reader, &mut listeners, warnings);
        let (left_out, mut listeners): (Vec<_>, Vec<_>) =
            listeners.into_iter().partition(|listener| controllers.contains(&listener.name));
        for listener in left_out {
            warnings.push(format!("listener {} is left out: there are no controllers to connect to", listener.name));
        }
        if listeners.is_empty() {
            reader.invalid("listeners", "at least one listener for clients, as NAME://host:port");
            listeners.push(Listener { host: Some("127.0.0.1".into()), ..plaintext(0) });
        }
        check_distinct(reader, &listeners);
        set_protocols(reader, &mut listeners);
        let inter_broker = inter_broker(reader, &listeners);
        let is_among_brokers =
            reader.settings().given("varve.metadata.url").is_some_and(|url| url.value.trim().starts_with("etcd:"));
        check_security(reader, &listeners, is_among_brokers.then_some(inter_broker), warnings);
        let advertised = advertised(reader, &listeners, &controllers, warnings);
        let given = reader.settings().given("advertised.listeners").is_some();
        let named = given.then(|| {
            reader.list("advertised.listeners").iter().filter_map(|text| parse_endpoint(text)).collect::<Vec<_>>()
        });
        let named = named.map(|named| named.into_iter().map(|endpoint| endpoint.name).collect());
        ListenerConfig { listeners, advertised, inter_broker, is_among_brokers, named }
    }

    /// The name of the listener that other brokers use.
    pub fn between_brokers(&self) -> &str {
        &self.listeners[self.inter_broker].name
    }

    /// Whether clients may have been told of the listener `name` for good: by `advertised.listeners`, or without that by
    /// `listeners`.
    pub fn is_advertised(&self, name: &str) -> bool {
        self.named.as_ref().map_or_else(|| self.listener(name).is_some(), |named| named.contains(name))
    }

    /// What `advertised.listeners` has for the listener `name`, wherever that listens.
    pub(crate) fn told_of(&self, name: &str) -> Option<&Advertised> {
        self.named.as_ref().filter(|named| named.contains(name))?;
        self.advertised.iter().find(|advertised| advertised.name == name)
    }

    /// The listener called `name`.
    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.name == name)
    }

    /// Whether brokers speak with each other over the listener of that index.
    pub fn is_between_brokers(&self, index: usize) -> bool {
        self.is_among_brokers && index == self.inter_broker
    }
}

/// The endpoints of `listeners` or `advertised.listeners`; what cannot be read is noted and left out.
fn endpoints(reader: &mut Reader<'_>, name: &str) -> Vec<Listener> {
    let mut endpoints = Vec::new();
    for text in reader.list(name) {
        match parse_endpoint(&text) {
            // The very same once more is one, as in Kafka's lists.
            Some(endpoint) if endpoints.contains(&endpoint) => {}
            Some(endpoint) => endpoints.push(endpoint),
            None => reader.invalid(name, format!("NAME://host:port, comma-separated; {text} is not one")),
        }
    }
    endpoints
}

/// `NAME://host:port`, where the host may be empty, a name, an IPv4 address or an IPv6 address in brackets.
fn parse_endpoint(text: &str) -> Option<Listener> {
    let (name, address) = text.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let host = match host.strip_prefix('[') {
        Some(bracketed) => {
            bracketed.strip_suffix(']').filter(|address| address.parse::<std::net::Ipv6Addr>().is_ok())?
        }
        None if host.contains([':', '/', '@', ' ']) => return None,
        None => host,
    };
    let port = port.parse::<u16>().ok()?;
    let host = Some(host).filter(|host| !host.is_empty()).map(str::to_owned);
    // The map of protocols says which one it is, once all listeners are known.
    named.then(|| Listener { name: name.to_ascii_uppercase(), host, ..plaintext(port) })
}

fn plaintext(port: u16) -> Listener {
    Listener { name: "PLAINTEXT".into(), host: None, port, protocol: SecurityProtocol::Plaintext }
}

/// `host.name` and `port` became `listeners` in Kafka 0.9, and went in 3.0.
fn map_old_listener(reader: &mut Reader<'_>, listeners: &mut Vec<Listener>, warnings: &mut Vec<String>) {
    let (host, port) = (reader.text("host.name"), reader.maybe_int("port"));
    if host.is_none() && port.is_none() {
        return;
    }
    if reader.settings().given("listeners").is_some() {
        warnings.push("host.name and port are ignored: listeners is set".into());
        return;
    }
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(9092);
    let shown = host.as_deref().unwrap_or_default();
    warnings.push(format!("host.name and port are old names: write listeners=PLAINTEXT://{shown}:{port}"));
    *listeners = vec![Listener { host, ..plaintext(port) }];
}

fn check_distinct(reader: &mut Reader<'_>, listeners: &[Listener]) {
    let mut names = BTreeSet::new();
    let mut sockets = BTreeSet::new();
    for listener in listeners {
        if !names.insert(&listener.name) {
            reader.invalid("listeners", format!("each listener once; {} is there twice", listener.name));
        }
        if listener.port != 0 && !sockets.insert((&listener.host, listener.port)) {
            reader.invalid("listeners", format!("each address and port once; port {} is there twice", listener.port));
        }
    }
}

/// Gives every listener the protocol that `listener.security.protocol.map` has for its name.
fn set_protocols(reader: &mut Reader<'_>, listeners: &mut [Listener]) {
    let setting = "listener.security.protocol.map";
    let mut protocols = BTreeMap::new();
    for entry in reader.text(setting).unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let parsed =
            entry.split_once(':').and_then(|(name, protocol)| Some((name, SecurityProtocol::parse(protocol.trim())?)));
        match parsed {
            Some((name, protocol)) => drop(protocols.insert(name.trim().to_ascii_uppercase(), protocol)),
            None => {
                let known = SecurityProtocol::ALL.map(SecurityProtocol::name).join(", ");
                reader.invalid(setting, format!("NAME:PROTOCOL, with PROTOCOL one of {known}; {entry} is not one"));
            }
        }
    }
    for listener in listeners {
        match protocols.get(&listener.name) {
            Some(protocol) => listener.protocol = *protocol,
            None => reader.invalid(setting, format!("an entry for every listener name; {} has none", listener.name)),
        }
    }
}

/// Whether each listener's settings say what its protocol needs. Files are opened when the node starts.
fn check_security(
    reader: &mut Reader<'_>,
    listeners: &[Listener],
    between_brokers: Option<usize>,
    warnings: &mut Vec<String>,
) {
    let texts = reader.settings().texts();
    for (index, listener) in listeners.iter().enumerate() {
        let mut settings = ListenerSettings::of(&texts, &listener.name);
        let is_between_brokers = between_brokers == Some(index);
        match listener.protocol.uses_sasl() {
            true if is_between_brokers => drop(SaslConfig::read_between_brokers(&mut settings)),
            true => drop(SaslConfig::read(&mut settings)),
            false => {}
        }
        match listener.protocol.uses_tls() {
            true if is_between_brokers => drop(TlsConfig::read_between_brokers(&mut settings, listener.protocol)),
            true => drop(TlsConfig::read(&mut settings, listener.protocol)),
            false => {}
        }
        warn_of_client_auth(listener, &texts, warnings);
        settings.into_errors().into_iter().for_each(|error| reader.refuse(error));
    }
}

/// `ssl.client.auth` for all listeners is easily taken for what it is not.
fn warn_of_client_auth(listener: &Listener, texts: &BTreeMap<String, String>, warnings: &mut Vec<String>) {
    const NAME: &str = "ssl.client.auth";
    let own = format!("{}{NAME}", listener_prefix(&listener.name));
    let general = texts.get(NAME).filter(|value| *value != "none");
    if let Some(value) = general
        && listener.protocol == SecurityProtocol::SaslSsl
        && !texts.contains_key(&own)
    {
        warnings.push(format!("{NAME} is not for listeners that speak SASL_SSL: write {own}={value} if that is meant"));
    }
}

/// What clients are told: `advertised.listeners`, its old forms, or the listeners themselves.
fn advertised(
    reader: &mut Reader<'_>,
    listeners: &[Listener],
    controllers: &BTreeSet<String>,
    warnings: &mut Vec<String>,
) -> Vec<Advertised> {
    let setting = "advertised.listeners";
    let mut given = BTreeMap::new();
    for endpoint in endpoints(reader, setting) {
        let known = listeners.iter().any(|listener| listener.name == endpoint.name);
        if !known && !controllers.contains(&endpoint.name) {
            reader.invalid(setting, format!("names of listeners; {} is not in listeners", endpoint.name));
        }
        if endpoint.host.as_deref().is_some_and(is_every_address) {
            reader.invalid(setting, "an address that clients can connect to; 0.0.0.0 is none");
        }
        given.insert(endpoint.name.clone(), endpoint);
    }
    let old = old_advertised(reader, warnings);
    listeners
        .iter()
        .map(|listener| match (given.get(&listener.name), &old) {
            (Some(endpoint), _) => Advertised {
                name: listener.name.clone(),
                host: endpoint.host.clone(),
                port: Some(endpoint.port).filter(|port| *port != 0),
            },
            (None, Some((host, port))) => Advertised {
                name: listener.name.clone(),
                host: host.clone().or_else(|| listener.own_host().map(str::to_owned)),
                port: port.or(Some(listener.port).filter(|port| *port != 0)),
            },
            (None, None) => Advertised {
                name: listener.name.clone(),
                host: listener.own_host().map(str::to_owned),
                port: Some(listener.port).filter(|port| *port != 0),
            },
        })
        .collect()
}

/// `advertised.host.name` and `advertised.port` became `advertised.listeners` in Kafka 0.9, and went in 3.0.
fn old_advertised(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> Option<(Option<String>, Option<u16>)> {
    let (host, port) = (reader.text("advertised.host.name"), reader.maybe_int("advertised.port"));
    if host.is_none() && port.is_none() {
        return None;
    }
    let names = match (&host, port) {
        (Some(_), Some(_)) => "advertised.host.name and advertised.port are",
        (Some(_), None) => "advertised.host.name is",
        (None, _) => "advertised.port is",
    };
    if reader.settings().given("advertised.listeners").is_some() {
        warnings.push(format!("{names} ignored: advertised.listeners is set"));
        return None;
    }
    let example = format!(
        "advertised.listeners=PLAINTEXT://{}:{}",
        host.as_deref().unwrap_or("HOST"),
        port.map_or("PORT".to_owned(), |port| port.to_string())
    );
    let verb = if names.ends_with("are") { "mapped; they are old names" } else { "mapped; it is an old name" };
    warnings.push(format!("{names} {verb}: write {example}"));
    Some((host, port.and_then(|port| u16::try_from(port).ok())))
}

/// The listener that other brokers use: named by `inter.broker.listener.name`, or called as `security.inter.broker.protocol`
/// says. With neither given it is PLAINTEXT, which is the default of the latter, or the first one that speaks it under another
/// name, or the first one. Kafka, too, takes one of the two settings and not both.
fn inter_broker(reader: &mut Reader<'_>, listeners: &[Listener]) -> usize {
    const NAME: &str = "inter.broker.listener.name";
    const PROTOCOL: &str = "security.inter.broker.protocol";
    let given = |name: &str| reader.settings().given(name).map(|setting| setting.value.trim().to_owned());
    let (setting, wanted) = match (given(NAME).filter(|name| !name.is_empty()), given(PROTOCOL)) {
        (Some(name), Some(protocol)) => {
            let rule = "only one of them may be set";
            let error = |other: &str| ConfigError::Conflict {
                name: PROTOCOL.into(),
                value: protocol.clone(),
                other: NAME.into(),
                other_value: other.into(),
                rule: rule.into(),
            };
            reader.refuse(error(&name));
            (NAME, name)
        }
        (Some(name), None) => (NAME, name),
        (None, Some(protocol)) => (PROTOCOL, protocol),
        (None, None) => {
            let named = listeners.iter().position(|listener| listener.name == SecurityProtocol::Plaintext.name());
            let speaks = || listeners.iter().position(|listener| listener.protocol == SecurityProtocol::Plaintext);
            return named.or_else(speaks).unwrap_or(0);
        }
    };
    let found = listeners.iter().position(|listener| listener.name.eq_ignore_ascii_case(&wanted));
    if found.is_none() {
        let names: Vec<_> = listeners.iter().map(|listener| listener.name.as_str()).collect();
        reader.invalid(setting, format!("one of {}", names.join(", ")));
    }
    found.unwrap_or(0)
}
