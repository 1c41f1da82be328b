//! DescribeAcls (KIP-140, KIP-290): the rules of who may do what that a filter asks for.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeAclsRequest, DescribeAclsResponse,
        describe_acls_response::{AclDescription, DescribeAclsResource},
    },
    protocol::StrBytes,
};
use varve_metadata::model::acl::{Acl, ResourcePattern};

use super::{
    acl_words::{WireFilter, parse_filter},
    cluster_view::text,
};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeAclsRequest,
) -> DescribeAclsResponse {
    let access = broker.access(context);
    if let Err(error) = access.require(Operation::Describe, Resource::Cluster) {
        return refused(error, Resource::Cluster.refusal_text());
    }
    if !access.is_checked() {
        return refused(ResponseError::SecurityDisabled, "No Authorizer is configured on the broker");
    }
    let filter = parse_filter(&WireFilter {
        resource_type: request.resource_type_filter,
        pattern_type: request.pattern_type_filter,
        name: &request.resource_name_filter,
        principal: &request.principal_filter,
        host: &request.host_filter,
        operation: request.operation,
        permission: request.permission_type,
    });
    // What there is not, no rule is about.
    let found = filter.map(|filter| broker.metadata.image().acls().find(&filter)).unwrap_or_default();
    DescribeAclsResponse::default().with_resources(by_pattern(found))
}

fn refused(error: ResponseError, message: &'static str) -> DescribeAclsResponse {
    DescribeAclsResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_static_str(message)))
}

/// Rules of one pattern stand together: they come in the order of patterns.
fn by_pattern(acls: Vec<Acl>) -> Vec<DescribeAclsResource> {
    let mut resources: Vec<DescribeAclsResource> = Vec::new();
    let mut last: Option<ResourcePattern> = None;
    for acl in acls {
        let described = AclDescription::default()
            .with_principal(text(&acl.principal))
            .with_host(text(&acl.host))
            .with_operation(acl.operation.to_wire())
            .with_permission_type(acl.permission.to_wire());
        match resources.last_mut() {
            Some(resource) if last.as_ref() == Some(&acl.pattern) => resource.acls.push(described),
            _ => resources.push(
                DescribeAclsResource::default()
                    .with_resource_type(acl.pattern.resource_type.to_wire())
                    .with_resource_name(text(&acl.pattern.name))
                    .with_pattern_type(acl.pattern.pattern_type.to_wire())
                    .with_acls(vec![described]),
            ),
        }
        last = Some(acl.pattern);
    }
    resources
}
