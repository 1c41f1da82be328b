//! Every request with every right that might matter: allowed with what Kafka says is needed, denied without.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kafka_protocol::messages::ApiKey;
use serde_json::Value;
use varve_metadata::model::acl::Operation;

use crate::broker::{Broker, Prepared, Right};

/// One request, and what it takes.
pub(crate) struct Case {
    /// Which request, and what of it.
    pub(crate) name: &'static str,
    pub(crate) key: i16,
    /// Each line is a set of rights that is enough, in the order in which they are looked at. No line: it takes nothing.
    pub(crate) needs: Vec<Vec<Right>>,
    pub(crate) sign: Sign,
    /// The code where it is denied, if it is not that of the first right that is missing.
    pub(crate) code: Option<i64>,
    /// Brings the broker into the state that the request needs, as the administrator.
    pub(crate) prepare: fn(&mut Broker) -> Result<()>,
    pub(crate) request: fn(&Broker) -> Result<Prepared>,
    /// Kafka does the same only a moment later, or not at all: not asked there.
    pub(crate) only_ours: bool,
}

/// The number of a request, be it one that this suite's codec knows or not.
pub(crate) struct Key(pub(crate) i16);

impl From<ApiKey> for Key {
    fn from(key: ApiKey) -> Key {
        Key(key as i16)
    }
}

/// How an answer shows that access was denied.
pub(crate) enum Sign {
    /// The first of these fields that is there and not 0 is the code.
    Code(&'static [&'static str]),
    /// The field is an empty list.
    Empty(&'static str),
    /// The field is 0.
    Zero(&'static str),
}

const DENIALS: [i64; 5] = [29, 30, 31, 53, 65];
/// Kafka serves them only with a reporter of client metrics in its class path.
const ONLY_WITH_A_REPORTER: [i16; 2] = [ApiKey::GetTelemetrySubscriptions as i16, ApiKey::PushTelemetry as i16];
/// Kafka's broker and its controller learn of a rule one after the other.
const KAFKAS_ATTEMPTS: usize = 100;

impl Case {
    /// Whether these rights are enough, and what Kafka's code is if not.
    fn expected(&self, rights: &[Right]) -> Result<(), i64> {
        let has = |(operation, resource): &Right| {
            let grants = |(given, on): &Right| on == resource && operation.granted_by().contains(*given);
            rights.iter().any(grants)
        };
        if self.needs.is_empty() || self.needs.iter().any(|needs| needs.iter().all(has)) {
            return Ok(());
        }
        let missing = self.needs[0].iter().find(|need| !has(need)).map_or(0, |(_, resource)| resource.refusal());
        Err(self.code.unwrap_or(missing))
    }

    /// The sets of rights to try.
    fn rights(&self) -> BTreeSet<Vec<Right>> {
        let mut sets = BTreeSet::from([Vec::new()]);
        for needs in &self.needs {
            for (place, (_, resource)) in needs.iter().enumerate() {
                let possible = resource.resource_type().operations().iter().chain([Operation::All]);
                for operation in possible {
                    let mut rights = needs.clone();
                    rights[place] = (operation, *resource);
                    rights.sort_unstable();
                    rights.dedup();
                    sets.insert(rights);
                }
            }
        }
        sets
    }

    fn seen(&self, answer: &Value) -> Result<(), i64> {
        match self.sign {
            Sign::Code(fields) => {
                let codes = fields.iter().filter_map(|field| answer.pointer(field)?.as_i64());
                match codes.into_iter().find(|code| *code != 0) {
                    Some(code) if DENIALS.contains(&code) => Err(code),
                    _ => Ok(()),
                }
            }
            Sign::Empty(field) => match answer.pointer(field).and_then(Value::as_array) {
                Some(list) if !list.is_empty() => Ok(()),
                _ => Err(0),
            },
            Sign::Zero(field) => match answer.pointer(field).and_then(Value::as_i64) {
                Some(0) | None => Err(0),
                Some(_) => Ok(()),
            },
        }
    }

    fn agrees(&self, expected: Result<(), i64>, seen: Result<(), i64>) -> bool {
        match self.sign {
            Sign::Code(_) => expected == seen,
            Sign::Empty(_) | Sign::Zero(_) => expected.is_ok() == seen.is_ok(),
        }
    }

    /// Tries all sets of rights; one line for each that is not answered as it should be.
    pub(crate) fn walk(&self, broker: &mut Broker) -> Result<(usize, Vec<String>)> {
        let (mut asked, mut wrong) = (0, Vec::new());
        for rights in self.rights() {
            broker.grant(&rights)?;
            let expected = self.expected(&rights);
            let attempts = if broker.is_kafka { KAFKAS_ATTEMPTS } else { 1 };
            let mut seen = Ok(());
            let mut last = Value::Null;
            for _ in 0..attempts {
                (self.prepare)(broker)?;
                last =
                    broker.call(&(self.request)(broker)?).with_context(|| format!("{} with {rights:?}", self.name))?;
                seen = self.seen(&last);
                if self.agrees(expected, seen) {
                    break;
                }
            }
            asked += 1;
            if !self.agrees(expected, seen) {
                wrong.push(format!("{} with {rights:?}: expected {expected:?}, found {seen:?} in {last}", self.name));
            }
        }
        Ok((asked, wrong))
    }
}

/// Walks all cases whose request the broker advertises. A request that it advertises and that has no case is an error.
pub(crate) fn walk(broker: &mut Broker, cases: &[Case]) -> Result<()> {
    let known: BTreeSet<i16> = cases.iter().map(|case| case.key).collect();
    let missing: Vec<Option<ApiKey>> = broker
        .served
        .keys()
        .filter(|key| !(known.contains(key) || broker.is_kafka && is_unknown(**key)))
        .map(|key| ApiKey::try_from(*key).ok())
        .collect();
    ensure!(missing.is_empty(), "served, and nothing here says what it takes: {missing:?}");
    // Else nothing would be compared.
    let is_unserved = |case: &&Case| {
        broker.is_kafka
            && !case.only_ours
            && !ONLY_WITH_A_REPORTER.contains(&case.key)
            && !broker.served.contains_key(&case.key)
    };
    let unserved: Vec<&str> = cases.iter().filter(is_unserved).map(|case| case.name).collect();
    ensure!(unserved.is_empty(), "Apache Kafka does not serve {unserved:?}");
    let (mut asked, mut wrong) = (0, Vec::new());
    for case in cases {
        let is_asked = broker.served.contains_key(&case.key) && !(case.only_ours && broker.is_kafka);
        if is_asked {
            let (tried, found) = case.walk(broker)?;
            asked += tried;
            wrong.extend(found);
        }
    }
    eprintln!("{asked} sets of rights");
    ensure!(wrong.is_empty(), "{} are not answered as they should be\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// Requests of Kafka's that this suite's codec does not know.
fn is_unknown(key: i16) -> bool {
    ApiKey::try_from(key).is_err() || key > ApiKey::ListConfigResources as i16
}
