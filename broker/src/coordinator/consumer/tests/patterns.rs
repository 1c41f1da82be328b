//! Subscriptions by pattern.

use super::*;
use crate::coordinator::GroupError;

fn by_pattern(member: &str, pattern: &str) -> ConsumerHeartbeat {
    ConsumerHeartbeat { topics: None, regex: Some(pattern.to_owned()), ..first(member) }
}

#[test]
fn topics_behind_a_pattern_are_found_beside_the_request() {
    let mut groups = cluster_of(2);
    assert_eq!(groups.told(by_pattern("a", "or.*")), (1, Some(orders(&[]))), "not resolved yet");
    assert_eq!(groups.to_resolve.len(), 1);
    // No second search meanwhile.
    groups.told(next("a", 1));
    assert_eq!(groups.to_resolve.len(), 1);
    groups.resolve_patterns();
    assert_eq!(groups.told(next("a", 1)), (2, Some(orders(&[0, 1]))));
    assert_eq!(groups.restarted().described(), groups.described());
    assert_eq!(groups.described().members[0].regex.as_deref(), Some("or.*"));
}

#[test]
fn a_second_member_with_the_pattern_is_assigned_at_once() {
    let mut groups = cluster_of(2);
    groups.told(by_pattern("a", "or.*"));
    groups.resolve_patterns();
    groups.told(next("a", 1));
    assert_eq!(groups.told(by_pattern("b", "or.*")).0, 3);
    assert_eq!(groups.to_resolve, []);
}

#[test]
fn a_pattern_that_is_none_is_refused() {
    let mut groups = cluster_of(1);
    let error = groups.beat(by_pattern("a", "(")).unwrap_err();
    assert_eq!(error.kind(), GroupError::InvalidRegularExpression);
    assert!(error.to_string().starts_with("SubscribedTopicRegex `(` is not a valid regular expression: "), "{error}");
    assert_eq!(groups.log, []);
}

#[test]
fn new_topics_are_found_after_a_while() {
    let mut groups = cluster_of(1);
    groups.told(by_pattern("a", ".*s"));
    groups.resolve_patterns();
    groups.told(next("a", 1));
    groups.put_topic("bills", topic_id(0xb), 1);
    groups.told(next("a", 2));
    assert_eq!(groups.to_resolve, [], "the last search was not ten seconds ago");
    groups.pass(SECOND * 11);
    groups.told(next("a", 2));
    groups.resolve_patterns();
    assert_eq!(groups.told(next("a", 2)).1.unwrap().len(), 2);
}

#[test]
fn a_pattern_goes_with_its_last_subscriber() {
    let mut groups = cluster_of(1);
    groups.told(by_pattern("a", "or.*"));
    groups.resolve_patterns();
    groups.told(next("a", 1));
    groups.told(by_pattern("b", "or.*"));
    groups.told(leaving("a"));
    assert_eq!(groups.shard.consumers[GROUP].regexes.len(), 1);
    // From a pattern to a name.
    let named =
        ConsumerHeartbeat { regex: Some(String::new()), topics: Some(["orders".to_owned()].into()), ..next("b", 3) };
    groups.told(named);
    assert_eq!(groups.shard.consumers[GROUP].regexes.len(), 0);
    assert!(groups.shard.consumers[GROUP].is_subscribed("orders"));
    assert_eq!(groups.restarted().described(), groups.described());
}

#[test]
fn what_was_found_for_a_group_that_is_gone_is_dropped() {
    let mut groups = cluster_of(1);
    groups.told(by_pattern("a", "or.*"));
    groups.told(leaving("a"));
    let written = groups.log.len();
    groups.resolve_patterns();
    assert_eq!(groups.shard.consumers[GROUP].regexes.len(), 0);
    assert_eq!(groups.log.len(), written);
}
