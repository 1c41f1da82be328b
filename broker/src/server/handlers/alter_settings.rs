//! What AlterConfigs and IncrementalAlterConfigs share (KIP-226, KIP-412): settings change while the node runs.
//!
//! Both are brought to one form, so that what holds for one resource is said once. Topics and brokers are changed in cluster
//! state; loggers in this node.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kafka_protocol::{error::ResponseError, protocol::StrBytes};
use varve_metadata::{
    controller::{AlterRequest, AlterResource, Alteration, ConfigOp},
    image::ConfigResource,
    model::BrokerId,
};

use super::admin_errors::{alter_error, metadata_error};
use crate::security::chain;
use crate::server::{
    Broker,
    authorizer::{Access, Operation},
    broker_rules::Rules,
    listener_rules::SOCKETS,
    log_levels::{LogLevel, ROOT},
    open_listeners::Bound,
    resource_type::ResourceType,
};

/// Kafka's error, and its text.
pub(super) type Refusal = (ResponseError, String);

/// One resource of either request.
pub(super) struct Asked<'a> {
    pub(super) resource_type: i8,
    pub(super) name: &'a str,
    pub(super) changes: Changes<'a>,
}

pub(super) enum Changes<'a> {
    /// Name, operation, value.
    Incremental(Vec<(&'a str, i8, Option<&'a str>)>),
    Replace(Vec<(&'a str, Option<&'a str>)>),
}

/// What a resource's change comes to once it is read.
enum Parsed {
    State(AlterRequest),
    Loggers(Vec<(String, Option<LogLevel>)>),
}

/// The outcome in the answer's terms.
pub(super) fn coded(outcome: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(()) => (0, None),
        // Kafka keeps what it did not expect to itself.
        Err((error @ ResponseError::UnknownServerError, _)) => (error.code(), None),
        Err((error, message)) => (error.code(), Some(StrBytes::from_string(message))),
    }
}

/// One outcome for each resource, in order.
pub(super) async fn alter(
    broker: &Broker,
    access: &Access<'_>,
    asked: &[Asked<'_>],
    validate_only: bool,
) -> Vec<Result<(), Refusal>> {
    let mut times: HashMap<(i8, &str), usize> = HashMap::new();
    for resource in asked {
        *times.entry((resource.resource_type, resource.name)).or_default() += 1;
    }
    let mut outcomes: Vec<Result<(), Refusal>> = Vec::with_capacity(asked.len());
    let (mut requests, mut places) = (Vec::new(), Vec::new());
    for (place, resource) in asked.iter().enumerate() {
        let once = times.get(&(resource.resource_type, resource.name)) == Some(&1);
        let parsed = if once {
            parse(broker, access, resource)
        } else {
            Err(invalid("Each resource must appear at most once."))
        };
        outcomes.push(match parsed {
            Ok(Parsed::State(request)) => {
                requests.push(request);
                places.push(place);
                Ok(())
            }
            Ok(Parsed::Loggers(changes)) => {
                if !validate_only {
                    broker.log_levels.set(&changes);
                }
                Ok(())
            }
            Err(refusal) => Err(refusal),
        });
    }
    if requests.is_empty() {
        return outcomes;
    }
    let mut listening = requests.iter().position(|request| concerns_listeners(broker, request));
    // Listeners are opened before their settings are stored: a change that cannot be is refused, and leaves all as it was.
    let turn = match listening {
        Some(_) => Some(broker.listeners.turn().await),
        None => None,
    };
    let mut bound = Vec::new();
    if let Some(at) = listening {
        match prepare_listeners(broker, &requests[at]).await {
            Ok(prepared) => bound = prepared,
            Err(refusal) => {
                outcomes[places.remove(at)] = Err(refusal);
                requests.remove(at);
                listening = None;
            }
        }
    }
    let image = broker.metadata.image();
    let rules = Rules::of(broker, &image);
    match broker.metadata.alter_configs(&requests, &rules, validate_only).await {
        Ok(results) => {
            // In force before the answer says so.
            broker.telemetry.apply(broker.metadata.image().configs());
            broker.live.apply(broker);
            if !validate_only && listening.is_some_and(|at| results.get(at).is_some_and(Result::is_ok)) {
                broker.listeners.change(broker, bound).await;
            }
            drop(turn);
            for (place, result) in places.into_iter().zip(results) {
                outcomes[place] = result.map_err(|error| alter_error(&error));
            }
        }
        Err(error) => {
            for place in places {
                outcomes[place] = Err(metadata_error(&error));
            }
        }
    }
    outcomes
}

/// Whether the listeners of this node may be others after `request`.
fn concerns_listeners(broker: &Broker, request: &AlterRequest) -> bool {
    let own = ConfigResource::Broker(broker.node);
    if request.resource != AlterResource::Other(own.clone()) {
        return false;
    }
    let image = broker.metadata.image();
    let is_stored = |name: &str| image.configs().get(&own).is_some_and(|settings| settings.contains_key(name));
    SOCKETS.iter().any(|name| match &request.alteration {
        Alteration::Incremental(changes) => changes.contains_key(*name),
        Alteration::Replace(settings) => settings.contains_key(*name) || is_stored(name),
    })
}

/// The listeners that this node would have beside those that it has.
async fn prepare_listeners(broker: &Broker, request: &AlterRequest) -> Result<Vec<Bound>, Refusal> {
    let image = broker.metadata.image();
    let rules = Rules::of(broker, &image);
    let rehearsed = broker.metadata.alter_configs(std::slice::from_ref(request), &rules, true).await;
    for outcome in rehearsed.map_err(|error| metadata_error(&error))? {
        outcome.map_err(|error| alter_error(&error))?;
    }
    let Some(wanted) = rules.take_wanted() else { return Ok(Vec::new()) };
    let now = broker.live.config();
    let prepared = broker.listeners.prepare(&now.listeners, &wanted.listeners, &wanted.settings.texts()).await;
    prepared.map_err(|error| invalid(chain(&error)))
}

fn invalid(message: impl Into<String>) -> Refusal {
    (ResponseError::InvalidRequest, message.into())
}

fn parse(broker: &Broker, access: &Access<'_>, asked: &Asked<'_>) -> Result<Parsed, Refusal> {
    check_names(&asked.changes)?;
    let parsed = read(broker, asked)?;
    if let Some(kind) = ResourceType::from_wire(asked.resource_type) {
        let guard = kind.guarded_by(asked.name);
        let required = access.require(Operation::AlterConfigs, guard);
        required.map_err(|error| (error, guard.refusal_text().to_owned()))?;
    }
    Ok(parsed)
}

fn read(broker: &Broker, asked: &Asked<'_>) -> Result<Parsed, Refusal> {
    let resource = match (ResourceType::from_wire(asked.resource_type), &asked.changes) {
        (Some(ResourceType::BrokerLogger), Changes::Incremental(changes)) => {
            return parse_loggers(broker, asked.name, changes).map(Parsed::Loggers);
        }
        (Some(ResourceType::BrokerLogger), Changes::Replace(_)) | (None, _) => {
            return Err(invalid(format!("Unknown resource type {}", asked.resource_type)));
        }
        (Some(ResourceType::Topic), _) => AlterResource::Topic(asked.name.to_owned()),
        (Some(ResourceType::Broker), _) if asked.name.is_empty() => {
            AlterResource::Other(ConfigResource::BrokerDefaults)
        }
        (Some(ResourceType::Broker), _) => {
            AlterResource::Other(ConfigResource::Broker(this_broker(broker, asked.name)?))
        }
        (Some(ResourceType::ClientMetrics), _) => {
            AlterResource::Other(ConfigResource::ClientMetrics(asked.name.to_owned()))
        }
        (Some(ResourceType::Group), _) => AlterResource::Other(ConfigResource::Group(asked.name.to_owned())),
    };
    let alteration = match &asked.changes {
        Changes::Incremental(changes) => Alteration::Incremental(parse_ops(changes)?),
        Changes::Replace(settings) => {
            let given = settings.iter().filter_map(|(name, value)| Some(((*name).to_owned(), (*value)?.to_owned())));
            Alteration::Replace(given.collect())
        }
    };
    Ok(Parsed::State(AlterRequest { resource, alteration }))
}

/// Each name once, and with a value unless it is deleted.
fn check_names(changes: &Changes<'_>) -> Result<(), Refusal> {
    let (names, nulls): (Vec<&str>, Vec<&str>) = match changes {
        Changes::Incremental(changes) => (
            changes.iter().map(|(name, ..)| *name).collect(),
            changes.iter().filter(|(_, op, value)| *op != DELETE && value.is_none()).map(|(name, ..)| *name).collect(),
        ),
        Changes::Replace(settings) => (
            settings.iter().map(|(name, _)| *name).collect(),
            settings.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect(),
        ),
    };
    if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
        return Err(invalid("Error due to duplicate config keys"));
    }
    if nulls.is_empty() { Ok(()) } else { Err(invalid(format!("Null value not supported for : {}", nulls.join(", ")))) }
}

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn parse_ops(changes: &[(&str, i8, Option<&str>)]) -> Result<BTreeMap<String, ConfigOp>, Refusal> {
    changes
        .iter()
        .map(|(name, op, value)| {
            let value = value.unwrap_or_default().to_owned();
            let op = match *op {
                SET => ConfigOp::Set(value),
                DELETE => ConfigOp::Delete,
                APPEND => ConfigOp::Append(value),
                SUBTRACT => ConfigOp::Subtract(value),
                other => {
                    return Err((ResponseError::UnknownServerError, format!("Unknown operations type {other}")));
                }
            };
            Ok(((*name).to_owned(), op))
        })
        .collect()
}

fn this_broker(broker: &Broker, name: &str) -> Result<BrokerId, Refusal> {
    match name.parse::<i32>() {
        Ok(id) if id == broker.node.to_wire() => Ok(broker.node),
        Ok(_) => Err(invalid(format!("Unexpected broker id, expected {}, but received {name}", broker.node))),
        Err(_) => Err(invalid(format!("Node id must be an integer, but it is: {name}"))),
    }
}

fn parse_loggers(
    broker: &Broker,
    name: &str,
    changes: &[(&str, i8, Option<&str>)],
) -> Result<Vec<(String, Option<LogLevel>)>, Refusal> {
    match name.parse::<i32>() {
        Ok(id) if id == broker.node.to_wire() => {}
        Ok(id) => return Err(invalid(format!("Unexpected node id. Expected {}, but received {id}", broker.node))),
        Err(_) => return Err(invalid(format!("Node id must be an integer, but it is: {name}"))),
    }
    changes
        .iter()
        .map(|(logger, op, value)| {
            let level = match *op {
                SET | DELETE if !broker.log_levels.knows(logger) => {
                    return Err((ResponseError::InvalidConfig, format!("Logger {logger} does not exist!")));
                }
                SET => Some(parse_level(logger, value.unwrap_or_default())?),
                DELETE if *logger == ROOT => {
                    return Err(invalid(format!("Removing the log level of the {ROOT} logger is not allowed")));
                }
                DELETE => None,
                APPEND => return Err(invalid("APPEND operation is not allowed for the BROKER_LOGGER resource")),
                SUBTRACT => return Err(invalid("SUBTRACT operation is not allowed for the BROKER_LOGGER resource")),
                other => {
                    let message =
                        format!("Unknown operation type {other} is not allowed for the BROKER_LOGGER resource");
                    return Err(invalid(message));
                }
            };
            Ok(((*logger).to_owned(), level))
        })
        .collect()
}

fn parse_level(logger: &str, level: &str) -> Result<LogLevel, Refusal> {
    LogLevel::from_kafka(level).ok_or_else(|| {
        let message = format!(
            "Cannot set the log level of {logger} to {level} as it is not a supported log level. Valid log levels are \
             DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
        );
        (ResponseError::InvalidConfig, message)
    })
}
