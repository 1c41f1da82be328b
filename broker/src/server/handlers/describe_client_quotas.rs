//! DescribeClientQuotas (KIP-546): what is set for whom.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeClientQuotasRequest, DescribeClientQuotasResponse,
        describe_client_quotas_request::ComponentData,
        describe_client_quotas_response::{EntityData, EntryData, ValueData},
    },
    protocol::StrBytes,
};
use varve_metadata::{
    image::{QuotaFilter, QuotaMatch, Quotas},
    model::{QuotaEntity, QuotaName},
};

use super::{admin_errors::plain, cluster_view::text};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

/// Exactly the name given.
const EXACT: i8 = 0;
/// The default of that type.
const DEFAULT: i8 = 1;
/// Whatever the name is.
const ANY: i8 = 2;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let allowed = broker.access(context).require(Operation::DescribeConfigs, Resource::Cluster);
    match allowed.map_err(plain).and_then(|()| parse(&request)) {
        Ok(filter) => {
            let image = broker.metadata.image();
            let entries = image.quotas().matching(&filter).map(|(entity, quotas)| entry(entity, quotas));
            // Kafka's is empty, not absent.
            let answer = DescribeClientQuotasResponse::default().with_error_message(Some(StrBytes::default()));
            answer.with_entries(Some(entries.collect()))
        }
        Err((error, message)) => DescribeClientQuotasResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(message)))
            .with_entries(None),
    }
}

fn entry(entity: &QuotaEntity, quotas: &Quotas) -> EntryData {
    let parts = entity.parts().into_iter().map(|(kind, name)| {
        EntityData::default().with_entity_type(text(kind)).with_entity_name(name.as_deref().map(text))
    });
    let values = quotas.iter().map(|(key, value)| ValueData::default().with_key(text(key.name())).with_value(*value));
    EntryData::default().with_entity(parts.collect()).with_values(values.collect())
}

fn parse(request: &DescribeClientQuotasRequest) -> Result<QuotaFilter, (ResponseError, String)> {
    let invalid = |message: &str| Err((ResponseError::InvalidRequest, message.to_owned()));
    let mut filter = QuotaFilter { strict: request.strict, ..QuotaFilter::default() };
    for component in &request.components {
        let asked = component.entity_type.as_str();
        if asked.is_empty() {
            return invalid("Invalid empty entity type.");
        }
        if filter.parts.contains_key(asked) {
            return invalid(&format!("Entity type {asked} cannot appear more than once in the filter."));
        }
        let kinds = [QuotaEntity::USER, QuotaEntity::CLIENT_ID, QuotaEntity::IP];
        let Some(kind) = kinds.into_iter().find(|kind| *kind == asked) else {
            return Err((ResponseError::UnsupportedVersion, format!("Unsupported entity type {asked}")));
        };
        filter.parts.insert(kind, parse_match(component)?);
    }
    if filter.parts.contains_key(QuotaEntity::IP) && filter.parts.len() > 1 {
        return invalid(
            "Invalid entity filter component combination. IP filter component should not be used with user or clientId \
             filter component.",
        );
    }
    Ok(filter)
}

fn parse_match(component: &ComponentData) -> Result<QuotaMatch, (ResponseError, String)> {
    let refused = |message: String| Err((ResponseError::InvalidRequest, message));
    let also = |name: &str| format!("Request specified {name}, but also specified a match string.");
    match (component.match_type, &component._match) {
        (EXACT, Some(name)) => Ok(QuotaMatch::Exact(QuotaName::Named(name.to_string()))),
        (EXACT, None) => refused("Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned()),
        (DEFAULT, None) => Ok(QuotaMatch::Exact(QuotaName::Default)),
        (DEFAULT, Some(_)) => refused(also("MATCH_TYPE_DEFAULT")),
        (ANY, None) => Ok(QuotaMatch::Any),
        (ANY, Some(_)) => refused(also("MATCH_TYPE_SPECIFIED")),
        (unknown, _) => refused(format!("Unknown match type {unknown}")),
    }
}
