//! Rules of who may do what, without an authorizer: there is nothing to be described, made or deleted.
//! `tests/tests/authorization` has the answers with one.

use anyhow::Result;
use kafka_protocol::messages::{
    CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, create_acls_request::AclCreation,
    delete_acls_request::DeleteAclsFilter,
};
use varve_tests::differential::Pair;

use super::request::{text, versions};

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    let all = versions(1, 3);
    pair.ask("describe-acls-disabled", &all, |_, _| {
        DescribeAclsRequest::default()
            .with_resource_type_filter(1)
            .with_pattern_type_filter(1)
            .with_operation(1)
            .with_permission_type(1)
    })?;
    pair.ask("create-acls-disabled", &all, |_, _| {
        let rule = AclCreation::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_resource_pattern_type(3)
            .with_principal(text("User:a"))
            .with_host(text("*"))
            .with_operation(3)
            .with_permission_type(3);
        CreateAclsRequest::default().with_creations(vec![rule.clone(), rule])
    })?;
    pair.ask("delete-acls-disabled", &all, |_, _| {
        let filter = DeleteAclsFilter::default()
            .with_resource_type_filter(1)
            .with_pattern_type_filter(1)
            .with_operation(1)
            .with_permission_type(1);
        DeleteAclsRequest::default().with_filters(vec![filter])
    })?;
    Ok(())
}
