//! DeleteAcls (KIP-140, KIP-290): the rules that filters ask for go, and with them what they allowed or denied.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteAclsRequest, DeleteAclsResponse,
        delete_acls_request::DeleteAclsFilter,
        delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl},
    },
    protocol::StrBytes,
};
use varve_metadata::{
    cluster::MetadataError,
    model::acl::{Acl, AclFilter},
};

use super::{
    acl_words::{UnknownPart, WireFilter, parse_filter},
    admin_errors::metadata_error,
    cluster_view::text,
};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

/// Kafka's error, and its text.
type Refusal = (ResponseError, String);

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DeleteAclsRequest,
) -> DeleteAclsResponse {
    let access = broker.access(context);
    if let Err(error) = access.require(Operation::Alter, Resource::Cluster) {
        return all(&request, (error, Resource::Cluster.refusal_text().to_owned()));
    }
    if !access.is_checked() {
        return all(&request, (ResponseError::SecurityDisabled, "No Authorizer is configured.".to_owned()));
    }
    let parsed: Vec<Result<AclFilter, UnknownPart>> = request.filters.iter().map(parse).collect();
    let filters: Vec<AclFilter> = parsed.iter().filter_map(|parsed| parsed.as_ref().ok().cloned()).collect();
    let mut deleted = match broker.metadata.delete_acls(&filters).await {
        Ok(deleted) => deleted.into_iter(),
        Err(error) => return all(&request, not_deleted(&error)),
    };
    let results = parsed.into_iter().map(|parsed| match parsed {
        Ok(_) => {
            let matching = deleted.next().unwrap_or_default().into_iter().map(matching);
            DeleteAclsFilterResult::default().with_error_message(None).with_matching_acls(matching.collect())
        }
        Err(UnknownPart::Pattern) => failed((ResponseError::InvalidRequest, "Unknown patternFilter.".to_owned())),
        Err(UnknownPart::Entry) => failed((ResponseError::InvalidRequest, "Unknown entryFilter.".to_owned())),
    });
    DeleteAclsResponse::default().with_filter_results(results.collect())
}

fn parse(filter: &DeleteAclsFilter) -> Result<AclFilter, UnknownPart> {
    parse_filter(&WireFilter {
        resource_type: filter.resource_type_filter,
        pattern_type: filter.pattern_type_filter,
        name: &filter.resource_name_filter,
        principal: &filter.principal_filter,
        host: &filter.host_filter,
        operation: filter.operation,
        permission: filter.permission_type,
    })
}

fn not_deleted(error: &MetadataError) -> Refusal {
    match error {
        MetadataError::TooManyAcls(_) => {
            let message = "Cannot remove more than 10000 acls in a single delete operation.";
            (ResponseError::InvalidRequest, message.to_owned())
        }
        _ => metadata_error(error),
    }
}

fn all(request: &DeleteAclsRequest, refusal: Refusal) -> DeleteAclsResponse {
    let results = request.filters.iter().map(|_| failed(refusal.clone()));
    DeleteAclsResponse::default().with_filter_results(results.collect())
}

fn failed((error, message): Refusal) -> DeleteAclsFilterResult {
    DeleteAclsFilterResult::default()
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_string(message)))
}

fn matching(acl: Acl) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl::default()
        .with_error_message(None)
        .with_resource_type(acl.pattern.resource_type.to_wire())
        .with_resource_name(text(&acl.pattern.name))
        .with_pattern_type(acl.pattern.pattern_type.to_wire())
        .with_principal(text(&acl.principal))
        .with_host(text(&acl.host))
        .with_operation(acl.operation.to_wire())
        .with_permission_type(acl.permission.to_wire())
}
