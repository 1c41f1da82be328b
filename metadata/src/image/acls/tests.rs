//! The index against a scan of all rules, which is how Kafka's documentation explains them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use proptest::{collection::vec, prelude::*, sample::select};

use super::{AclImage, Verdict};
use crate::model::{
    Principal,
    acl::{Acl, AclFilter, Operation, PatternType, Permission, ResourcePattern, ResourceType, WILDCARD_PRINCIPAL},
};

const NAMES: [&str; 9] = ["*", "a", "ab", "abc", "abd", "b", "é", "éa", "ébc"];
const PRINCIPALS: [&str; 4] = ["User:alice", "User:bob", WILDCARD_PRINCIPAL, "Group:alice"];
const HOSTS: [&str; 5] = ["*", "127.0.0.1", "10.0.0.1", "::1", "localhost"];

fn any_acl() -> impl Strategy<Value = Acl> {
    let pattern = (
        select(vec![ResourceType::Topic, ResourceType::Group]),
        select(vec![PatternType::Literal, PatternType::Prefixed]),
        select(NAMES.to_vec()),
    );
    let permission = select(vec![Permission::Allow, Permission::Allow, Permission::Deny]);
    (pattern, select(PRINCIPALS.to_vec()), select(HOSTS.to_vec()), select(Operation::EVERY.to_vec()), permission)
        .prop_map(|((resource_type, pattern_type, name), principal, host, operation, permission)| Acl {
            pattern: ResourcePattern { resource_type, pattern_type, name: name.into() },
            principal: principal.into(),
            host: host.into(),
            operation,
            permission,
        })
}

fn address() -> impl Strategy<Value = IpAddr> {
    let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
    select(vec![
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from([10, 0, 0, 1]),
        IpAddr::from(mapped),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
    ])
}

fn insert(image: &mut AclImage, acl: &Acl) {
    let mut rules = image.rules(&acl.pattern, &acl.principal);
    rules.insert(&acl.host, acl.operation, acl.permission);
    image.set(&acl.pattern, &acl.principal, rules);
}

fn remove(image: &mut AclImage, acl: &Acl) {
    let mut rules = image.rules(&acl.pattern, &acl.principal);
    rules.remove(&acl.host, acl.operation, acl.permission);
    image.set(&acl.pattern, &acl.principal, rules);
}

/// The rules for somebody, in the words of Kafka's documentation.
fn is_for(acl: &Acl, principal: &Principal, host: IpAddr) -> bool {
    (acl.principal == WILDCARD_PRINCIPAL || acl.principal == principal.to_string())
        && (acl.host == "*" || acl.host == host.to_canonical().to_string())
}

fn says(acl: &Acl, operation: Operation) -> bool {
    use Operation::*;
    let implied = match operation {
        Describe => matches!(acl.operation, Read | Write | Delete | Alter),
        DescribeConfigs => acl.operation == AlterConfigs,
        _ => false,
    };
    acl.operation == operation || acl.operation == All || (implied && acl.permission == Permission::Allow)
}

fn naive(
    acls: &BTreeSet<Acl>,
    principal: &Principal,
    host: IpAddr,
    operation: Operation,
    kind: ResourceType,
    name: &str,
) -> Verdict {
    let about: Vec<&Acl> = acls.iter().filter(|acl| acl.pattern.matches(kind, name)).collect();
    let says = |permission| {
        about.iter().any(|acl| acl.permission == permission && is_for(acl, principal, host) && says(acl, operation))
    };
    match (says(Permission::Deny), says(Permission::Allow), about.is_empty()) {
        (true, _, _) => Verdict::Denied,
        (_, true, _) => Verdict::Allowed,
        (_, _, true) => Verdict::NoAcls,
        (_, _, false) => Verdict::NotAllowed,
    }
}

/// Whether some name is allowed, found by trying: the names of all rules, and longer ones that no rule names.
fn naive_some(
    acls: &BTreeSet<Acl>,
    principal: &Principal,
    host: IpAddr,
    operation: Operation,
    kind: ResourceType,
) -> bool {
    let about = |acl: &&Acl| acl.pattern.resource_type == kind && is_for(acl, principal, host);
    // Only what a rule says itself counts here, not what it implies.
    let named = |acl: &&Acl| acl.operation == operation || acl.operation == Operation::All;
    let meant: Vec<&Acl> = acls.iter().filter(about).filter(named).collect();
    let allowed = |name: &str| {
        let applies = |acl: &&&Acl| acl.pattern.matches(kind, name);
        let of = |permission| meant.iter().filter(applies).any(|acl| acl.permission == permission);
        of(Permission::Allow) && !of(Permission::Deny)
    };
    let names = acls.iter().flat_map(|acl| [acl.pattern.name.clone(), format!("{}~", acl.pattern.name)]);
    names.chain(["~".to_owned()]).any(|name| name != "*" && allowed(&name))
}

proptest! {
    #[test]
    fn the_index_decides_as_a_scan_of_all_rules_does(
        steps in vec((any_acl(), any::<bool>()), 0..40),
        principal in select(vec!["User:alice", "User:bob", "User:carol", "Group:alice"]),
        host in address(),
        operation in select(Operation::EVERY[1..].to_vec()),
        name in select(vec!["a", "ab", "abcd", "abd", "c", "é", "ébc", "ébcd"]),
    ) {
        let (mut image, mut acls) = (AclImage::default(), BTreeSet::new());
        for (acl, added) in &steps {
            if *added {
                insert(&mut image, acl);
                acls.insert(acl.clone());
            } else {
                remove(&mut image, acl);
                acls.remove(acl);
            }
        }
        let principal = Principal::parse(principal).unwrap();
        for kind in [ResourceType::Topic, ResourceType::Group, ResourceType::Cluster] {
            prop_assert_eq!(
                image.decide(&principal, host, operation, kind, name),
                naive(&acls, &principal, host, operation, kind, name)
            );
        }
        prop_assert_eq!(image.len(), acls.len());
        let all: Vec<Acl> = acls.into_iter().collect();
        prop_assert_eq!(image.find(&AclFilter::default()), all);
    }

    #[test]
    fn some_resource_is_allowed_if_and_only_if_one_can_be_named(
        acls in vec(any_acl(), 0..12),
        principal in select(vec!["User:alice", "User:carol"]),
        host in address(),
        operation in select(vec![Operation::Write, Operation::Read, Operation::Describe]),
    ) {
        // A wildcard that allows is taken at its word by Kafka, whatever prefixes are denied beside it.
        let acls: BTreeSet<Acl> = acls.into_iter().filter(|acl| acl.pattern.name != "*").collect();
        let mut image = AclImage::default();
        acls.iter().for_each(|acl| insert(&mut image, acl));
        let principal = Principal::parse(principal).unwrap();
        for kind in [ResourceType::Topic, ResourceType::Group] {
            prop_assert_eq!(
                image.allows_on_some(&principal, host, operation, kind),
                naive_some(&acls, &principal, host, operation, kind)
            );
        }
    }

    #[test]
    fn nothing_is_left_of_rules_that_were_taken_away(acls in vec(any_acl(), 0..20)) {
        let mut image = AclImage::default();
        acls.iter().for_each(|acl| insert(&mut image, acl));
        acls.iter().for_each(|acl| remove(&mut image, acl));
        prop_assert!(image.is_empty() && image.types.iter().all(|acls| acls.by_principal.is_empty() && acls.named.is_empty()));
    }
}

fn acl(pattern_type: PatternType, name: &str, operation: Operation, permission: Permission) -> Acl {
    let pattern = ResourcePattern { resource_type: ResourceType::Topic, pattern_type, name: name.into() };
    Acl { pattern, principal: "User:alice".into(), host: "*".into(), operation, permission }
}

fn on_some(acls: &[Acl]) -> bool {
    let mut image = AclImage::default();
    acls.iter().for_each(|acl| insert(&mut image, acl));
    let host = IpAddr::from([127, 0, 0, 1]);
    image.allows_on_some(&Principal::user("alice"), host, Operation::Write, ResourceType::Topic)
}

#[test]
fn wildcards_decide_alone_whether_some_resource_is_allowed() {
    use {Operation::*, PatternType::*, Permission::*};
    assert!(on_some(&[acl(Literal, "*", Write, Allow), acl(Prefixed, "a", Write, Deny)]));
    assert!(!on_some(&[acl(Literal, "*", Write, Deny), acl(Literal, "a", Write, Allow)]));
    assert!(!on_some(&[acl(Literal, "*", All, Deny), acl(Literal, "*", All, Allow)]));
    assert!(!on_some(&[acl(Literal, "ab", Write, Allow), acl(Prefixed, "a", All, Deny)]));
    assert!(on_some(&[acl(Prefixed, "a", Write, Allow), acl(Literal, "a", Write, Deny)]));
    assert!(!on_some(&[acl(Literal, "a", Read, Allow)]));
}

#[test]
fn a_decision_costs_the_same_among_a_hundred_thousand_rules() {
    let mut image = AclImage::default();
    for user in 0..20 {
        for topic in 0..5_000 {
            let mut one = acl(PatternType::Prefixed, &format!("team-{topic}-"), Operation::Write, Permission::Allow);
            one.principal = format!("User:{user}");
            insert(&mut image, &one);
        }
    }
    assert_eq!(image.len(), 100_000);
    let acls = image.of(ResourceType::Topic);
    let looked_up: usize = acls.applying(&Principal::user("7")).map(|patterns| patterns.lengths.len() + 2).sum();
    // Prefixes of 7 to 10 bytes, the name, the wildcard; nobody has rules for everybody.
    assert_eq!(looked_up, 6);
    let host = IpAddr::from([127, 0, 0, 1]);
    let decide = |name: &str| image.decide(&Principal::user("7"), host, Operation::Write, ResourceType::Topic, name);
    assert_eq!((decide("team-4999-x"), decide("other")), (Verdict::Allowed, Verdict::NoAcls));
}
