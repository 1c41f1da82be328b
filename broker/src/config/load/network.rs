//! What connections and requests may take.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::config::{
    broker::NetworkConfig,
    settings::{Reader, Setting},
};

pub(super) fn network(reader: &mut Reader<'_>) -> NetworkConfig {
    let queued = u64::try_from(reader.int("queued.max.request.bytes")).ok().filter(|bytes| *bytes > 0);
    let memory = reader.size("varve.request.memory.bytes");
    let request_max_bytes = reader.count("socket.request.max.bytes");
    let request_memory_bytes = queued.unwrap_or(memory);
    if request_memory_bytes < u64::from(request_max_bytes) {
        let name = if queued.is_some() { "queued.max.request.bytes" } else { "varve.request.memory.bytes" };
        reader.invalid(
            name,
            format!("at least socket.request.max.bytes ({request_max_bytes}), or the largest request never fits"),
        );
    }
    NetworkConfig {
        request_max_bytes,
        request_memory_bytes,
        failed_authentication_delay: reader.millis("connection.failed.authentication.delay.ms"),
        idle_timeout: u64::try_from(reader.int("connections.max.idle.ms")).ok().map(Duration::from_millis),
        max_connections: reader.limit("max.connections"),
        max_connections_per_listener: per_listener(reader, ".max.connections"),
        max_connection_rate: reader.limit("max.connection.creation.rate"),
        max_connection_rate_per_listener: per_listener(reader, ".max.connection.creation.rate"),
        max_connections_per_ip: reader.limit("max.connections.per.ip"),
        max_connections_per_ip_overrides: per_ip_overrides(reader),
        listen_backlog: reader.count("socket.listen.backlog.size"),
        send_buffer_bytes: reader.limit("socket.send.buffer.bytes"),
        receive_buffer_bytes: reader.limit("socket.receive.buffer.bytes"),
        fetch_max_bytes: reader.count("fetch.max.bytes"),
        fetch_sessions: reader.count("max.incremental.fetch.session.cache.slots"),
        max_described_partitions: reader.count("max.request.partition.size.limit"),
    }
}

/// A limit as single listeners have it: `listener.name.<listener><suffix>`. Values were checked with all the others.
fn per_listener(reader: &mut Reader<'_>, suffix: &str) -> BTreeMap<String, u64> {
    let limit = |(name, setting): (&str, &Setting)| {
        let listener = name.strip_prefix("listener.name.")?.strip_suffix(suffix)?;
        Some((listener.to_ascii_uppercase(), setting.value.trim().parse().ok()?))
    };
    reader.settings().iter().filter_map(limit).collect()
}

/// By address as connections show it: an IPv4 address is one, however it is written.
fn per_ip_overrides(reader: &mut Reader<'_>) -> BTreeMap<IpAddr, u64> {
    let name = "max.connections.per.ip.overrides";
    let mut limits = BTreeMap::new();
    for entry in reader.text(name).unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        // The last colon: an IPv6 address has colons of its own.
        let parsed = entry.rsplit_once(':').and_then(|(address, limit)| {
            let address = address.trim_start_matches('[').trim_end_matches(']');
            let address: IpAddr = address.parse().ok()?;
            Some((address.to_canonical(), limit.parse().ok()?))
        });
        match parsed {
            Some((address, limit)) => drop(limits.insert(address, limit)),
            None => reader.invalid(name, format!("address:number, comma-separated; {entry} is not one")),
        }
    }
    limits
}
