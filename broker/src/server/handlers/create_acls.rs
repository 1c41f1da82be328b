//! CreateAcls (KIP-140, KIP-290): new rules of who may do what. They hold when they are answered.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreateAclsRequest, CreateAclsResponse, create_acls_request::AclCreation,
        create_acls_response::AclCreationResult,
    },
    protocol::StrBytes,
};
use varve_metadata::{
    cluster::MetadataError,
    model::acl::{
        Acl, CLUSTER_NAME, Operation as AclOperation, PatternType, Permission, ResourcePattern, ResourceType,
    },
};

use super::{acl_words::ANY, admin_errors::metadata_error};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

/// Kafka's error, and its text where it gives one.
type Refusal = (ResponseError, Option<String>);

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: CreateAclsRequest,
) -> CreateAclsResponse {
    let access = broker.access(context);
    if let Err(error) = access.require(Operation::Alter, Resource::Cluster) {
        return all(&request, (error, Some(Resource::Cluster.refusal_text().to_owned())));
    }
    if !access.is_checked() {
        return all(&request, (ResponseError::SecurityDisabled, Some("No Authorizer is configured.".to_owned())));
    }
    // Kafka cannot even say such a rule, and fails the request as a whole.
    if request.creations.iter().any(is_open) {
        return all(&request, (ResponseError::UnknownServerError, None));
    }
    let parsed: Vec<Result<Acl, String>> = request.creations.iter().map(parse).collect();
    let valid: Vec<Acl> = parsed.iter().filter_map(|parsed| parsed.as_ref().ok().cloned()).collect();
    let made = broker.metadata.create_acls(&valid).await;
    let results = parsed.into_iter().map(|parsed| match (parsed, &made) {
        (Err(message), _) => result(Some((ResponseError::InvalidRequest, Some(message)))),
        (Ok(_), Err(error)) => result(Some(not_made(error))),
        (Ok(_), Ok(())) => result(None),
    });
    CreateAclsResponse::default().with_results(results.collect())
}

fn not_made(error: &MetadataError) -> Refusal {
    let (code, message) = metadata_error(error);
    match error {
        MetadataError::TooManyAcls(_) => {
            (code, Some("Unable to perform excessively large batch operation.".to_owned()))
        }
        _ => (code, Some(message)),
    }
}

fn all(request: &CreateAclsRequest, refusal: Refusal) -> CreateAclsResponse {
    let results = request.creations.iter().map(|_| result(Some(refusal.clone())));
    CreateAclsResponse::default().with_results(results.collect())
}

fn result(refusal: Option<Refusal>) -> AclCreationResult {
    // A success has an empty message, as in Kafka, and not none.
    let Some((error, message)) = refusal else { return AclCreationResult::default() };
    AclCreationResult::default().with_error_code(error.code()).with_error_message(message.map(StrBytes::from_string))
}

/// Whether a part is left open that only a filter may leave open.
fn is_open(creation: &AclCreation) -> bool {
    const MATCH: i8 = 2;
    let pattern_type = creation.resource_pattern_type;
    let words = [creation.resource_type, pattern_type, creation.operation, creation.permission_type];
    words.contains(&ANY) || pattern_type == MATCH
}

/// The rule, or Kafka's words for what is wrong with it.
fn parse(creation: &AclCreation) -> Result<Acl, String> {
    let resource_type = ResourceType::from_wire(creation.resource_type);
    let name = creation.resource_name.to_string();
    if resource_type == Some(ResourceType::Cluster) && name != CLUSTER_NAME {
        return Err(format!("The only valid name for the CLUSTER resource is {CLUSTER_NAME}"));
    }
    if name.is_empty() {
        return Err("Invalid empty resource name".to_owned());
    }
    let unknown = |part: &str| format!("Invalid {part} UNKNOWN");
    let resource_type = resource_type.ok_or_else(|| unknown("resourceType"))?;
    let pattern_type = PatternType::from_wire(creation.resource_pattern_type).ok_or_else(|| unknown("patternType"))?;
    let operation = AclOperation::from_wire(creation.operation).ok_or_else(|| unknown("operation"))?;
    let permission = Permission::from_wire(creation.permission_type).ok_or_else(|| unknown("permissionType"))?;
    let principal = creation.principal.to_string();
    if !principal.contains(':') {
        return Err(format!(
            "Could not parse principal from `{principal}` (no colon is present separating the principal type from the \
             principal name)"
        ));
    }
    let pattern = ResourcePattern { resource_type, pattern_type, name };
    Ok(Acl { pattern, principal, host: creation.host.to_string(), operation, permission })
}
