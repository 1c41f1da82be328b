//! CreateAcls, DescribeAcls and DeleteAcls beside Apache Kafka, field by field: valid, at the bounds, and nonsense.

use anyhow::{Result, ensure};
use kafka_protocol::messages::{
    CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, create_acls_request::AclCreation,
    delete_acls_request::DeleteAclsFilter,
};
use varve_tests::{differential::Pair, kafka::Kafka, node::Node};

use crate::broker::text;

const BOTH: [&str; 2] =
    ["authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users=User:ANONYMOUS"];
const VERSIONS: [i16; 3] = [1, 2, 3];
const ANY: i8 = 1;

fn rule(kind: i8, name: &str, pattern: i8) -> AclCreation {
    AclCreation::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_resource_pattern_type(pattern)
        .with_principal(text("User:a"))
        .with_host(text("*"))
        .with_operation(3)
        .with_permission_type(3)
}

/// What is wrong with a rule, or unusual about it.
fn rules() -> Vec<AclCreation> {
    let plain = || rule(2, "t", 3);
    vec![
        plain(),
        rule(2, "t", 4),
        rule(2, "*", 3),
        rule(3, "g", 3),
        rule(4, "kafka-cluster", 3),
        rule(4, "another-cluster", 3),
        rule(5, "x", 4),
        rule(6, "token", 3),
        rule(7, "User:b", 3),
        rule(2, "", 3),
        rule(4, "", 3),
        rule(99, "t", 3),
        rule(2, "t", 99),
        plain().with_operation(99),
        plain().with_permission_type(99),
        plain().with_operation(2),
        plain().with_operation(15),
        plain().with_permission_type(2),
        plain().with_principal(text("a")),
        plain().with_principal(text(":")),
        plain().with_principal(text("Group:a:b")),
        plain().with_host(text("somewhere")),
        plain().with_host(text("")),
    ]
}

fn filter(kind: i8, name: Option<&str>, pattern: i8) -> DeleteAclsFilter {
    DeleteAclsFilter::default()
        .with_resource_type_filter(kind)
        .with_resource_name_filter(name.map(text))
        .with_pattern_type_filter(pattern)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY)
}

fn filters() -> Vec<DeleteAclsFilter> {
    vec![
        filter(ANY, None, ANY),
        filter(2, Some("t"), ANY),
        filter(2, Some("t"), 2),
        filter(2, Some("t"), 3),
        filter(2, Some("toast"), 2),
        filter(2, None, 4),
        filter(ANY, Some("*"), 3),
        filter(ANY, Some(""), ANY),
        filter(99, None, ANY),
        filter(2, None, 99),
        filter(ANY, None, ANY).with_operation(8),
        filter(ANY, None, ANY).with_operation(99),
        filter(ANY, None, ANY).with_permission_type(2),
        filter(ANY, None, ANY).with_permission_type(99),
        filter(ANY, None, ANY).with_principal_filter(Some(text("User:a"))),
        filter(ANY, None, ANY).with_host_filter(Some(text("somewhere"))),
    ]
}

fn described(filter: &DeleteAclsFilter) -> DescribeAclsRequest {
    DescribeAclsRequest::default()
        .with_resource_type_filter(filter.resource_type_filter)
        .with_resource_name_filter(filter.resource_name_filter.clone())
        .with_pattern_type_filter(filter.pattern_type_filter)
        .with_principal_filter(filter.principal_filter.clone())
        .with_host_filter(filter.host_filter.clone())
        .with_operation(filter.operation)
        .with_permission_type(filter.permission_type)
}

#[test]
fn the_requests_about_rules_are_answered_as_apache_kafka_answers_them() -> Result<()> {
    let (kafkas, varves) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let kafka = Kafka::start(kafkas.path(), &BOTH)?;
    let varve = Node::start(varves.path(), &[&BOTH[..], &["node.id=1"]].concat())?;
    let mut pair = Pair::new(kafka.address, varve.address);
    for (place, rule) in rules().into_iter().enumerate() {
        pair.ask(&format!("create {place}"), &VERSIONS, |_, _| {
            CreateAclsRequest::default().with_creations(vec![rule.clone()])
        })?;
    }
    pair.ask("create nothing", &VERSIONS, |_, _| CreateAclsRequest::default())?;
    pair.ask("create all at once", &VERSIONS, |_, _| CreateAclsRequest::default().with_creations(rules()))?;
    let open = [rule(ANY, "t", 3), rule(2, "t", ANY), rule(2, "t", 2), rule(2, "t", 3).with_operation(ANY)];
    for rule in open {
        pair.ask("create what only a filter can say", &VERSIONS, |_, _| {
            CreateAclsRequest::default().with_creations(vec![rule.clone(), rule.clone()])
        })?;
    }
    // Kafka's broker learns of rules a moment after its controller made them.
    pair.until(
        3,
        |_, _| described(&filter(ANY, None, ANY)),
        |answer| {
            let rules = answer["resources"].as_array().into_iter().flatten();
            rules.map(|resource| resource["acls"].as_array().map_or(0, Vec::len)).sum::<usize>() == 15
        },
    )?;
    for (place, filter) in filters().iter().enumerate() {
        pair.ask(&format!("describe {place}"), &VERSIONS, |_, _| described(filter))?;
    }
    pair.ask("delete nothing", &VERSIONS, |_, _| DeleteAclsRequest::default())?;
    let several: Vec<_> = filters().into_iter().skip(1).collect();
    pair.ask("delete some", &VERSIONS, |_, _| DeleteAclsRequest::default().with_filters(several.clone()))?;
    pair.ask("delete the rest", &VERSIONS, |_, _| {
        DeleteAclsRequest::default().with_filters(vec![filter(ANY, None, ANY), filter(ANY, None, ANY)])
    })?;
    let found: Vec<String> = pair
        .differences
        .into_iter()
        .flat_map(|difference| {
            let (name, version) = (difference.name, difference.version);
            difference.lines.into_iter().map(move |line| format!("{name} {version:?}: {line}"))
        })
        // Kafka keeps rules in hash maps: their order means nothing.
        .filter(|line| !line.contains(": in another order"))
        .collect();
    ensure!(found.is_empty(), "{} answers differ\n{}", found.len(), found.join("\n"));
    varve.stop()
}
