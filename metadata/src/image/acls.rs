//! Every rule of who may do what, laid out so that a decision is a few look-ups.
//!
//! ```text
//! resource type ─► principal ─► literal names  ─► rules by host: operations allowed, operations denied
//!                            └► prefixes       ─► the same        (only lengths that some prefix has are looked up)
//! ```
//! A decision asks two principals (the caller and everybody), and of each the name itself, the wildcard, and as many
//! beginnings of the name as prefixes have different lengths. How many rules there are for others does not matter.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::model::{
    Principal,
    acl::{
        Acl, AclFilter, Operation, Operations, PatternType, Permission, ResourcePattern, ResourceType, WILDCARD,
        WILDCARD_PRINCIPAL,
    },
};

/// All rules.
#[derive(Clone, Debug, Default)]
pub struct AclImage {
    /// By [`ResourceType`], in the order of [`ResourceType::ALL`].
    types: [TypeAcls; 6],
    count: usize,
}

/// The rules for one type of resource.
#[derive(Clone, Debug, Default)]
struct TypeAcls {
    by_principal: HashMap<Arc<str>, Arc<Patterns<Rules>>>,
    /// How many principals have rules for a pattern: tells whether there is any rule for a resource.
    named: Arc<Patterns<usize>>,
}

/// What one principal may and may not do with the resources of one pattern, by host. Its hosts differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<HostRule>);

/// The rules for one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostRule {
    /// As it was given.
    pub(crate) host: String,
    pub(crate) allow: Operations,
    pub(crate) deny: Operations,
    matched: MatchedHost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MatchedHost {
    Every,
    One(IpAddr),
    /// A name, or nonsense: Kafka compares with the address alone.
    None,
}

/// What the rules say about one operation on one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A rule allows it, and none denies it.
    Allowed,
    /// A rule denies it.
    Denied,
    /// There are rules for the resource, and none of them says anything about this.
    NotAllowed,
    /// There are no rules for the resource at all.
    NoAcls,
}

impl AclImage {
    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What the rules say about `operation` on the resource called `name`, asked for by `principal` from `host`.
    pub fn decide(
        &self,
        principal: &Principal,
        host: IpAddr,
        operation: Operation,
        resource_type: ResourceType,
        name: &str,
    ) -> Verdict {
        let host = host.to_canonical();
        let (granting, denying) = (operation.granted_by(), operation.denied_by());
        let acls = self.of(resource_type);
        let mut allowed = false;
        for rules in acls.applying(principal).flat_map(|patterns| patterns.matching(name)) {
            for rule in rules.0.iter().filter(|rule| rule.is_for(host)) {
                if rule.deny.meets(denying) {
                    return Verdict::Denied;
                }
                allowed |= rule.allow.meets(granting);
            }
        }
        match allowed {
            true => Verdict::Allowed,
            false if acls.named.matching(name).next().is_some() => Verdict::NotAllowed,
            false => Verdict::NoAcls,
        }
    }

    /// Whether there is a name, any name, such that the rules allow `operation` on a resource of that name: an allowing
    /// rule that no denying one covers whole. Implied operations do not count, as in Kafka.
    pub fn allows_on_some(
        &self,
        principal: &Principal,
        host: IpAddr,
        operation: Operation,
        resource_type: ResourceType,
    ) -> bool {
        let host = host.to_canonical();
        let meant = Operations::of(&[Operation::All, operation]);
        let applying: Vec<&Patterns<Rules>> = self.of(resource_type).applying(principal).collect();
        let says = |rules: &Rules, of: fn(&HostRule) -> Operations| {
            rules.0.iter().any(|rule| rule.is_for(host) && of(rule).meets(meant))
        };
        let denies = |rules: &Rules| says(rules, |rule| rule.deny);
        let allows = |rules: &Rules| says(rules, |rule| rule.allow);
        let literally = |name: &str, of: &dyn Fn(&Rules) -> bool| {
            applying.iter().filter_map(|patterns| patterns.literal.get(name)).any(of)
        };
        if literally(WILDCARD, &denies) {
            return false;
        }
        if literally(WILDCARD, &allows) {
            return true;
        }
        let prefix_denied = |name: &str| applying.iter().flat_map(|patterns| patterns.prefixes_of(name)).any(denies);
        applying.iter().any(|patterns| {
            let names = patterns.literal.iter().filter(|(_, rules)| allows(rules)).map(|(name, _)| name);
            let prefixes = patterns.prefixed.iter().filter(|(_, rules)| allows(rules)).map(|(name, _)| name);
            names.into_iter().any(|name| !literally(name, &denies) && !prefix_denied(name))
                || prefixes.into_iter().any(|prefix| !prefix_denied(prefix))
        })
    }

    /// The rules that `filter` asks for, in the order of resource type, pattern type, name and principal.
    pub fn find(&self, filter: &AclFilter) -> Vec<Acl> {
        let types =
            ResourceType::ALL.into_iter().filter(|kind| filter.resource_type.is_none_or(|asked| asked == *kind));
        let mut found: Vec<Acl> = types.flat_map(|kind| self.of(kind).find(kind, filter)).collect();
        found.sort_unstable();
        found
    }

    /// The rules of `principal` for `pattern`.
    pub(crate) fn rules(&self, pattern: &ResourcePattern, principal: &str) -> Rules {
        let patterns = self.of(pattern.resource_type).by_principal.get(principal);
        patterns
            .and_then(|patterns| patterns.of(pattern.pattern_type).get(pattern.name.as_str()))
            .cloned()
            .unwrap_or_default()
    }

    /// Puts `rules` in the place of all that `principal` has for `pattern`.
    pub(crate) fn set(&mut self, pattern: &ResourcePattern, principal: &str, rules: Rules) {
        let acls = &mut self.types[place(pattern.resource_type)];
        let (before, after) = (acls.set(pattern, principal, rules.clone()).len(), rules.len());
        self.count = self.count - before + after;
    }

    fn of(&self, resource_type: ResourceType) -> &TypeAcls {
        &self.types[place(resource_type)]
    }
}

fn place(resource_type: ResourceType) -> usize {
    // Kafka's numbers begin with 2 and have no gaps.
    (resource_type.to_wire() - 2) as usize
}

impl TypeAcls {
    /// The rules for `principal`, and those for everybody.
    fn applying(&self, principal: &Principal) -> impl Iterator<Item = &Patterns<Rules>> {
        [principal.as_str(), WILDCARD_PRINCIPAL]
            .into_iter()
            .filter_map(|principal| self.by_principal.get(principal))
            .map(Arc::as_ref)
    }

    fn find<'a>(&'a self, kind: ResourceType, filter: &'a AclFilter) -> impl Iterator<Item = Acl> + 'a {
        let principals = self.by_principal.iter();
        let asked =
            principals.filter(|(principal, _)| filter.principal.as_ref().is_none_or(|asked| **asked == ***principal));
        asked.flat_map(move |(principal, patterns)| {
            patterns.iter().flat_map(move |(pattern_type, name, rules)| {
                let pattern = ResourcePattern { resource_type: kind, pattern_type, name: name.to_string() };
                rules.acls(pattern, principal).filter(|acl| filter.matches(acl))
            })
        })
    }

    /// Returns what was there before.
    fn set(&mut self, pattern: &ResourcePattern, principal: &str, rules: Rules) -> Rules {
        let removed = rules.is_empty();
        let patterns = self.by_principal.entry(principal.into()).or_default();
        let before = Arc::make_mut(patterns).set(pattern, (!removed).then_some(rules)).unwrap_or_default();
        if patterns.is_empty() {
            self.by_principal.remove(principal);
        }
        let named = self.named.of(pattern.pattern_type).get(pattern.name.as_str()).copied().unwrap_or(0);
        let now = named + usize::from(!removed) - usize::from(!before.is_empty());
        if now != named {
            Arc::make_mut(&mut self.named).set(pattern, (now > 0).then_some(now));
        }
        before
    }
}

/// Something for each of many patterns, found by a name that they match.
#[derive(Clone, Debug)]
struct Patterns<T> {
    literal: HashMap<Arc<str>, T>,
    prefixed: HashMap<Arc<str>, T>,
    /// How many prefixes have that many bytes.
    lengths: BTreeMap<usize, usize>,
}

impl<T> Default for Patterns<T> {
    fn default() -> Patterns<T> {
        Patterns { literal: HashMap::new(), prefixed: HashMap::new(), lengths: BTreeMap::new() }
    }
}

impl<T> Patterns<T> {
    fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.prefixed.is_empty()
    }

    fn of(&self, pattern_type: PatternType) -> &HashMap<Arc<str>, T> {
        match pattern_type {
            PatternType::Literal => &self.literal,
            PatternType::Prefixed => &self.prefixed,
        }
    }

    fn iter(&self) -> impl Iterator<Item = (PatternType, &Arc<str>, &T)> {
        let literal = self.literal.iter().map(|(name, value)| (PatternType::Literal, name, value));
        literal.chain(self.prefixed.iter().map(|(name, value)| (PatternType::Prefixed, name, value)))
    }

    /// What belongs to the patterns that match `name`.
    fn matching<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a T> {
        let wildcard = (name != WILDCARD).then_some(WILDCARD);
        let literal = [Some(name), wildcard].into_iter().flatten().filter_map(|name| self.literal.get(name));
        literal.chain(self.prefixes_of(name))
    }

    /// What belongs to the prefixes with which `name` begins.
    fn prefixes_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a T> {
        // A length that falls into the middle of a character is that of no beginning.
        self.lengths.range(..=name.len()).filter_map(|(length, _)| self.prefixed.get(name.get(..*length)?))
    }

    /// Puts `value` in the pattern's place; returns what was there.
    fn set(&mut self, pattern: &ResourcePattern, value: Option<T>) -> Option<T> {
        let prefixed = pattern.pattern_type == PatternType::Prefixed;
        let map = if prefixed { &mut self.prefixed } else { &mut self.literal };
        let added = value.is_some();
        let before = match value {
            Some(value) => map.insert(pattern.name.as_str().into(), value),
            None => map.remove(pattern.name.as_str()),
        };
        if prefixed && added != before.is_some() {
            let count = self.lengths.entry(pattern.name.len()).or_default();
            *count = if added { *count + 1 } else { *count - 1 };
            if *count == 0 {
                self.lengths.remove(&pattern.name.len());
            }
        }
        before
    }
}

impl Rules {
    /// How many rules these are.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|rule| rule.allow.len() + rule.deny.len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn hosts(&self) -> &[HostRule] {
        &self.0
    }

    /// Adds one rule; `false` if it is there already.
    pub(crate) fn insert(&mut self, host: &str, operation: Operation, permission: Permission) -> bool {
        let operations = self.operations_mut(host, permission);
        let new = !operations.contains(operation);
        operations.insert(operation);
        new
    }

    /// Takes one rule away; `false` if it is not there.
    pub(crate) fn remove(&mut self, host: &str, operation: Operation, permission: Permission) -> bool {
        let operations = self.operations_mut(host, permission);
        let there = operations.contains(operation);
        operations.remove(operation);
        self.0.retain(|rule| !rule.allow.is_empty() || !rule.deny.is_empty());
        there
    }

    fn operations_mut(&mut self, host: &str, permission: Permission) -> &mut Operations {
        let place = self.0.iter().position(|rule| rule.host == host).unwrap_or_else(|| {
            self.0.push(HostRule::new(host));
            self.0.len() - 1
        });
        match permission {
            Permission::Allow => &mut self.0[place].allow,
            Permission::Deny => &mut self.0[place].deny,
        }
    }

    fn acls(&self, pattern: ResourcePattern, principal: &str) -> impl Iterator<Item = Acl> {
        self.0.iter().flat_map(move |rule| {
            let allow = rule.allow.iter().map(|operation| (operation, Permission::Allow));
            let deny = rule.deny.iter().map(|operation| (operation, Permission::Deny));
            let (pattern, principal) = (pattern.clone(), principal.to_owned());
            allow.chain(deny).map(move |(operation, permission)| Acl {
                pattern: pattern.clone(),
                principal: principal.clone(),
                host: rule.host.clone(),
                operation,
                permission,
            })
        })
    }
}

impl HostRule {
    fn new(host: &str) -> HostRule {
        let matched = match host {
            WILDCARD => MatchedHost::Every,
            address => {
                address.parse().map_or(MatchedHost::None, |address: IpAddr| MatchedHost::One(address.to_canonical()))
            }
        };
        HostRule { host: host.to_owned(), allow: Operations::default(), deny: Operations::default(), matched }
    }

    fn is_for(&self, host: IpAddr) -> bool {
        match self.matched {
            MatchedHost::Every => true,
            MatchedHost::One(address) => address == host,
            MatchedHost::None => false,
        }
    }
}
