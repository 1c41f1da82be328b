//! Which rules a request means.

use super::{Acl, Operation, PatternType, Permission, ResourcePattern, ResourceType};

/// A question for rules: those that agree with everything that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclFilter {
    /// Of this type; `None`: of any.
    pub resource_type: Option<ResourceType>,
    /// How `name` is compared with the rules' names.
    pub pattern_type: PatternFilter,
    /// `None`: of any name.
    pub name: Option<String>,
    /// For this principal, word by word: `User:*` finds the rules for everybody, not those for anybody.
    pub principal: Option<String>,
    /// For this host, word by word.
    pub host: Option<String>,
    /// Of this operation, word by word: what implies it does not count.
    pub operation: Option<Operation>,
    /// That allow, or that deny.
    pub permission: Option<Permission>,
}

/// How a filter looks at names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PatternFilter {
    /// Patterns of both types that bear the filter's name.
    #[default]
    Any,
    /// Patterns that match the resource of the filter's name: its own, those of its prefixes, and the wildcard.
    Match,
    /// Patterns of this type that bear the filter's name.
    Exactly(PatternType),
}

impl AclFilter {
    /// Whether `acl` is one of those asked for.
    pub fn matches(&self, acl: &Acl) -> bool {
        self.matches_pattern(&acl.pattern)
            && self.principal.as_ref().is_none_or(|principal| *principal == acl.principal)
            && self.host.as_ref().is_none_or(|host| *host == acl.host)
            && self.operation.is_none_or(|operation| operation == acl.operation)
            && self.permission.is_none_or(|permission| permission == acl.permission)
    }

    fn matches_pattern(&self, pattern: &ResourcePattern) -> bool {
        if self.resource_type.is_some_and(|wanted| wanted != pattern.resource_type) {
            return false;
        }
        let named = |pattern: &ResourcePattern| self.name.as_ref().is_none_or(|name| *name == pattern.name);
        match self.pattern_type {
            PatternFilter::Any => named(pattern),
            PatternFilter::Exactly(wanted) => wanted == pattern.pattern_type && named(pattern),
            PatternFilter::Match => {
                self.name.as_ref().is_none_or(|name| pattern.matches(pattern.resource_type, name.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(resource_type: ResourceType, pattern_type: PatternType, name: &str) -> Acl {
        Acl {
            pattern: ResourcePattern { resource_type, pattern_type, name: name.into() },
            principal: "User:alice".into(),
            host: "*".into(),
            operation: Operation::Read,
            permission: Permission::Allow,
        }
    }

    fn found(filter: &AclFilter) -> Vec<&'static str> {
        use {PatternType::*, ResourceType::*};
        [
            (Topic, Literal, "logs"),
            (Topic, Literal, "*"),
            (Topic, Prefixed, "lo"),
            (Topic, Prefixed, "logs"),
            (Group, Literal, "logs"),
        ]
        .into_iter()
        .zip(["literal", "wildcard", "prefix", "whole prefix", "group"])
        .filter(|((kind, pattern, name), _)| filter.matches(&acl(*kind, *pattern, name)))
        .map(|(_, what)| what)
        .collect()
    }

    #[test]
    fn a_filter_that_matches_finds_what_applies_and_one_that_names_finds_what_is_called_so() {
        let filter = |pattern_type| AclFilter {
            resource_type: Some(ResourceType::Topic),
            pattern_type,
            name: Some("logs".into()),
            ..AclFilter::default()
        };
        assert_eq!(found(&filter(PatternFilter::Match)), ["literal", "wildcard", "prefix", "whole prefix"]);
        assert_eq!(found(&filter(PatternFilter::Any)), ["literal", "whole prefix"]);
        assert_eq!(found(&filter(PatternFilter::Exactly(PatternType::Literal))), ["literal"]);
        assert_eq!(found(&filter(PatternFilter::Exactly(PatternType::Prefixed))), ["whole prefix"]);
    }

    #[test]
    fn a_filter_without_words_finds_everything() {
        assert_eq!(found(&AclFilter::default()).len(), 5);
        let matching = AclFilter { pattern_type: PatternFilter::Match, ..AclFilter::default() };
        assert_eq!(found(&matching).len(), 5);
    }

    #[test]
    fn a_filter_takes_operations_and_principals_word_by_word() {
        let acl = acl(ResourceType::Topic, PatternType::Literal, "logs");
        for (filter, expected) in [
            (AclFilter { operation: Some(Operation::Describe), ..AclFilter::default() }, false),
            (AclFilter { operation: Some(Operation::Read), ..AclFilter::default() }, true),
            (AclFilter { principal: Some("User:*".into()), ..AclFilter::default() }, false),
            (AclFilter { principal: Some("User:alice".into()), ..AclFilter::default() }, true),
            (AclFilter { host: Some("127.0.0.1".into()), ..AclFilter::default() }, false),
            (AclFilter { permission: Some(Permission::Deny), ..AclFilter::default() }, false),
        ] {
            assert_eq!(filter.matches(&acl), expected, "{filter:?}");
        }
    }
}
