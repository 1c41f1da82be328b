//! AlterConfigs (KIP-133): settings are replaced by those of the request.

use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, alter_configs_response::AlterConfigsResourceResponse,
};

use super::alter_settings::{Asked, Changes, alter, coded};
use crate::server::{Broker, RequestContext};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let asked = request.resources.iter().map(|resource| Asked {
        resource_type: resource.resource_type,
        name: &resource.resource_name,
        changes: Changes::Replace(
            resource.configs.iter().map(|config| (config.name.as_str(), config.value.as_deref())).collect(),
        ),
    });
    let asked: Vec<Asked<'_>> = asked.collect();
    let outcomes = alter(broker, &broker.access(context), &asked, request.validate_only).await;
    let answers = request.resources.iter().zip(outcomes).map(|(resource, outcome)| {
        let (code, message) = coded(outcome);
        AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_code(code)
            .with_error_message(message)
    });
    AlterConfigsResponse::default().with_responses(answers.collect())
}
