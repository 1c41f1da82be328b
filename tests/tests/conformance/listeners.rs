//! Listeners that come and go while the broker runs: IncrementalAlterConfigs of `listeners`.

use std::net::TcpListener;

use anyhow::Result;
use kafka_protocol::messages::MetadataRequest;
use varve_tests::differential::{Pair, Side};

use super::{
    configs::{ask, change},
    topics::catch_up,
};

const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const LISTENERS: &str = "listeners";
const MAP: &str = "listener.security.protocol.map";
const PROTOCOLS: &str = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,EXTRA:PLAINTEXT,MORE:PLAINTEXT";

/// `of_kafka`: the listeners of that broker. Those of the other one take any port.
pub(crate) fn script(pair: &mut Pair, of_kafka: &str) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let extra = "EXTRA://127.0.0.1:0";
    let own = |side: &Side| if side.is_kafka() { of_kafka } else { "PLAINTEXT://127.0.0.1:0" };
    let with = |more: String| move |side: &Side| format!("{},{more}", own(side));
    // Kafka's controller stays: Varve has none, and leaves it out.
    let without = |side: &Side| match side.is_kafka() {
        true => format!("{},{extra}", own(side).replace("PLAINTEXT://", "MORE://")),
        false => extra.to_owned(),
    };
    let is_wide = |protocols: &str| Some(protocols.to_owned());
    let set = |pair: &mut Pair,
               name: &str,
               resource: &str,
               listeners: &dyn Fn(&Side) -> String,
               map: Option<String>|
     -> Result<()> {
        for validate in [true, false] {
            pair.ask(&format!("incremental-alter-listeners-{name}-{validate}"), &[1], |_, side| {
                let listeners = listeners(side);
                let mut changes = Vec::new();
                if !listeners.is_empty() {
                    changes.push((LISTENERS, SET, Some(listeners.as_str())));
                }
                if let Some(map) = &map {
                    changes.push((MAP, SET, Some(map.as_str())));
                }
                change(BROKER, resource, &changes).with_validate_only(validate)
            })?;
        }
        catch_up(pair, &format!("listeners-{name}"))
    };
    let unchanged = |_: &Side| String::new();
    set(pair, "no-protocol", "1", &with(extra.to_owned()), None)?;
    set(pair, "default", "", &with(extra.to_owned()), is_wide(PROTOCOLS))?;
    set(pair, "added", "1", &with(extra.to_owned()), is_wide(PROTOCOLS))?;
    set(pair, "again", "1", &with(extra.to_owned()), None)?;
    pair.ask("metadata-listeners", &[9], |_, _| MetadataRequest::default().with_topics(Some(Vec::new())))?;
    pair.ask("describe-configs-listeners", &[4], |_, _| ask(BROKER, "1", Some(&[MAP])))?;
    set(pair, "advertised-gone", "1", &without, None)?;
    set(pair, "same-twice", "1", &with(format!("{extra},{extra}")), None)?;
    set(pair, "twice", "1", &with(format!("{extra},EXTRA://127.0.0.1:1")), None)?;
    set(pair, "nonsense", "1", &with("EXTRA".to_owned()), None)?;
    set(
        pair,
        "protocol-changed",
        "1",
        &unchanged,
        is_wide(&PROTOCOLS.replace("EXTRA:PLAINTEXT", "EXTRA:SASL_PLAINTEXT")),
    )?;
    set(pair, "protocol-gone", "1", &unchanged, is_wide("CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"))?;
    set(pair, "protocol-unknown", "1", &unchanged, is_wide("CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,EXTRA:QUIC"))?;
    set(pair, "in-use", "1", &with(format!("{extra},MORE://{}", taken.local_addr()?)), None)?;
    set(pair, "gone", "1", &|side: &Side| own(side).to_owned(), None)?;
    pair.ask("incremental-alter-listeners-undone", &[1], |_, _| {
        change(BROKER, "1", &[(LISTENERS, DELETE, None), (MAP, DELETE, None)])
    })?;
    catch_up(pair, "listeners-undone")
}
