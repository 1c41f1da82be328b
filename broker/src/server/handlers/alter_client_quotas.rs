//! AlterClientQuotas (KIP-546): quotas are set and removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterClientQuotasRequest, AlterClientQuotasResponse,
        alter_client_quotas_response::{EntityData, EntryData},
    },
    protocol::StrBytes,
};
use tokio::net::lookup_host;
use varve_metadata::{controller::AlterQuota, model::QuotaEntity};

use super::{
    admin_errors::{metadata_error, plain},
    cluster_view::text,
};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    let asked: Vec<AlterQuota> = request
        .entries
        .iter()
        .map(|entry| AlterQuota {
            entity: entry
                .entity
                .iter()
                .map(|part| (part.entity_type.to_string(), part.entity_name.as_ref().map(ToString::to_string)))
                .collect(),
            changes: entry.ops.iter().map(|op| (op.key.to_string(), (!op.remove).then_some(op.value))).collect(),
        })
        .collect();
    if let Err(error) = broker.access(context).require(Operation::AlterConfigs, Resource::Cluster) {
        let refused = asked.iter().map(|asked| answer(&asked.entity, Some(plain(error))));
        return AlterClientQuotasResponse::default().with_entries(refused.collect());
    }
    let unresolved = unresolved(&asked).await;
    let altered = broker.metadata.alter_client_quotas(&asked, &unresolved, request.validate_only).await;
    // In force before the answer says so.
    broker.quotas.apply(&broker.metadata).await;
    let entries = match altered {
        Ok(results) => results
            .into_iter()
            .map(|(entity, result)| {
                let refusal = result.err().map(|error| (ResponseError::InvalidRequest, error.to_string()));
                answer(&entity, refusal)
            })
            .collect(),
        Err(error) => asked.iter().map(|asked| answer(&asked.entity, Some(metadata_error(&error)))).collect(),
    };
    AlterClientQuotasResponse::default().with_entries(entries)
}

/// Names in place of addresses that nobody can resolve. One by one: such names are rare, and typed by hand.
async fn unresolved(asked: &[AlterQuota]) -> BTreeSet<String> {
    let named = asked.iter().filter_map(|asked| asked.entity.get(QuotaEntity::IP)?.as_deref());
    let hosts: BTreeSet<&str> = named.filter(|name| !name.is_empty() && name.parse::<IpAddr>().is_err()).collect();
    let mut unresolved = BTreeSet::new();
    for host in hosts {
        if !lookup_host((host, 0)).await.is_ok_and(|mut found| found.next().is_some()) {
            unresolved.insert(host.to_owned());
        }
    }
    unresolved
}

fn answer(entity: &BTreeMap<String, Option<String>>, refusal: Option<(ResponseError, String)>) -> EntryData {
    let parts = entity.iter().map(|(kind, name)| {
        EntityData::default().with_entity_type(text(kind)).with_entity_name(name.as_deref().map(text))
    });
    let entry = EntryData::default().with_error_message(None).with_entity(parts.collect());
    match refusal {
        None => entry,
        Some((error, message)) => {
            entry.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(message)))
        }
    }
}
