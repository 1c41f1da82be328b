//! Subscriptions by pattern. Matching every topic against every pattern is not for the path of a request: the shard asks for
//! it by an effect, and takes the result as its next input.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use regex::{Regex, RegexBuilder};
use varve_metadata::model::{Principal, Timestamp};

use super::{
    group::ConsumerGroup,
    member::ConsumerMember,
    plan::{Outcome, Plan},
};
use crate::coordinator::{
    Effect, ModernGroupError, Now, Shard,
    cluster::{ClusterView, metadata_hash},
    locks::{Need, Task},
    records::{ConsumerRecord, CoordinatorRecord, GroupEpochRecord, ResolvedRegex},
    shard::{Completion, Step},
};

/// Most memory of one compiled pattern.
const PATTERN_BYTES: usize = 1 << 20;
/// Time between two looks of one group, in milliseconds. Kafka's constant.
const MIN_REFRESH_MS: i64 = 10_000;

/// Patterns to be matched against the names of all topics, off the path of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexJob {
    /// For which group.
    pub group_id: String,
    /// The patterns.
    pub patterns: BTreeSet<String>,
    /// In whose name: topics that this member may not see are not found.
    pub asker: Asker,
}

/// Who asks for the topics behind a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Whom its connection authenticated.
    pub principal: Principal,
    /// Its address.
    pub peer: SocketAddr,
}

/// Compiles a pattern so that it matches whole names only, as RE2's `matches` does. It takes time proportional to the name,
/// whatever the pattern.
///
/// # Errors
/// What is wrong with the pattern.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    // By itself first: a parenthesis too many must not close ours.
    let build = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
    let whole = build(pattern).and_then(|_| build(&format!(r"\A(?:{pattern})\z")));
    whole.map_err(|error| match error {
        regex::Error::Syntax(text) => syntax_fault(&text),
        regex::Error::CompiledTooBig(_) => "pattern too large".to_owned(),
        other => other.to_string(),
    })
}

/// The last line of a syntax error, which is the one that says what is wrong.
fn syntax_fault(text: &str) -> String {
    let last = text.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

/// The topics that each pattern matches, among those that may be seen. A pattern that cannot be compiled matches none.
pub fn find_topics(
    patterns: &BTreeSet<String>,
    cluster: &dyn ClusterView,
    at: Timestamp,
    sees: &dyn Fn(&str) -> bool,
) -> BTreeMap<String, ResolvedRegex> {
    let found = patterns.iter().map(|pattern| {
        let mut topics = BTreeSet::new();
        if let Ok(regex) = compile(pattern) {
            topics.extend(cluster.topic_names().filter(|name| regex.is_match(name) && sees(name)).map(str::to_owned));
        }
        (pattern.clone(), ResolvedRegex { topics, version: cluster.version(), at })
    });
    found.collect()
}

/// What a member's pattern means for its group.
pub(super) struct PatternChange {
    pub(super) is_changed: bool,
    /// The topics behind the new pattern are known, so that the group can be assigned at once.
    pub(super) is_resolved: bool,
    /// The pattern that nobody subscribes by any more.
    pub(super) dropped: BTreeSet<String>,
    pub(super) resolve: Option<RegexJob>,
}

impl Shard {
    /// Compares the patterns of a member before and after its request.
    ///
    /// # Errors
    /// [`ModernGroupError::InvalidRegex`].
    pub(super) fn plan_patterns(
        &self,
        now: Now,
        group: &ConsumerGroup,
        member: &ConsumerMember,
        updated: &ConsumerMember,
        asker: Option<&Asker>,
        records: &mut Vec<CoordinatorRecord>,
    ) -> Result<PatternChange, ModernGroupError> {
        let (old, new) = (member.pattern(), updated.pattern());
        let is_changed = member.regex != updated.regex;
        let mut change = PatternChange { is_changed, is_resolved: false, dropped: BTreeSet::new(), resolve: None };
        let mut is_new = false;
        if is_changed {
            if let Some(old) = old.filter(|old| group.subscribers_of(old) == 1) {
                let record = ConsumerRecord::Regex(group.id.clone(), old.to_owned(), None);
                records.push(CoordinatorRecord::Consumer(record));
                change.dropped.extend((new != Some(old)).then(|| old.to_owned()));
            }
            match new {
                Some(new) if group.subscribers_of(new) == 0 => {
                    compile(new).map_err(|why| ModernGroupError::InvalidRegex { regex: new.to_owned(), why })?;
                    is_new = true;
                }
                Some(new) => change.is_resolved = group.regexes.contains_key(new),
                None => change.is_resolved = old.is_some(),
            }
        }
        if let Some(asker) = asker.filter(|_| is_new || !group.regexes.is_empty() || new.is_some()) {
            let patterns = self.plan_resolution(now, group, is_new, new, &change.dropped);
            change.resolve =
                patterns.map(|patterns| RegexJob { group_id: group.id.clone(), patterns, asker: asker.clone() });
        }
        Ok(change)
    }

    /// All patterns of a group are looked at together, so that what is found leads to one rebalance.
    fn plan_resolution(
        &self,
        now: Now,
        group: &ConsumerGroup,
        is_new: bool,
        new: Option<&str>,
        dropped: &BTreeSet<String>,
    ) -> Option<BTreeSet<String>> {
        let last = group.regexes.values().next();
        let age = last.map(|last| now.wall.to_wire().saturating_sub(last.at.to_wire()));
        if group.resolves_regexes || age.is_some_and(|age| age <= MIN_REFRESH_MS) {
            return None;
        }
        let patterns: BTreeSet<String> =
            group.patterns().chain(new).filter(|pattern| !dropped.contains(*pattern)).map(str::to_owned).collect();
        let has_unresolved = patterns.len() != group.regexes.len();
        let has_new_topics = last.map_or(0, |last| last.version) < self.newest_topic_at;
        let is_old = age.is_none_or(|age| i128::from(age) > self.config.regex_refresh_interval.as_millis() as i128);
        let is_due = is_new || has_unresolved || has_new_topics || is_old;
        (is_due && !patterns.is_empty()).then_some(patterns)
    }

    /// The topics behind the patterns of a group are found ([`Effect::Order`]), or, with `None`, could not be looked for.
    pub fn regexes_resolved(
        &mut self,
        now: Now,
        group_id: &str,
        found: Option<BTreeMap<String, ResolvedRegex>>,
        effects: &mut Vec<Effect>,
    ) {
        let mut step = Step { now, effects };
        let task = Task::Resolved(group_id.to_owned(), found.unwrap_or_default());
        self.run_or_wait(group_id, Need::Alone, task, &mut step);
    }

    pub(in crate::coordinator) fn take_resolved(
        &mut self,
        group_id: &str,
        found: BTreeMap<String, ResolvedRegex>,
        step: &mut Step<'_>,
    ) {
        let Some(group) = self.consumers.get_mut(group_id) else { return };
        group.resolves_regexes = false;
        let group = &*group;
        let mut records = Vec::new();
        let mut topics = group.topics_of(group.members.values(), &found.keys().cloned().collect());
        let mut is_changed = false;
        for (pattern, resolved) in found {
            if group.subscribers_of(&pattern) == 0 {
                continue;
            }
            let before = group.regexes.get(&pattern).map(|before| &before.topics);
            is_changed |= before.map_or(!resolved.topics.is_empty(), |before| *before != resolved.topics);
            topics.extend(resolved.topics.iter().cloned());
            let record = ConsumerRecord::Regex(group_id.to_owned(), pattern, Some(resolved));
            records.push(CoordinatorRecord::Consumer(record));
        }
        let hash = metadata_hash(self.cluster.as_ref(), &topics);
        if is_changed || hash != group.metadata_hash {
            let record = GroupEpochRecord { epoch: group.epoch + 1, metadata_hash: hash };
            tracing::info!(group = group_id, epoch = record.epoch, "topics behind patterns changed");
            records.push(CoordinatorRecord::Consumer(ConsumerRecord::Group(group_id.to_owned(), Some(record))));
        }
        self.carry_out(Plan { records, outcome: Outcome::of(group_id) }, Completion::Consumer, step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_and_only_those() {
        let pattern = compile("orders|bills-.*").unwrap();
        for (name, matches) in [("orders", true), ("orders-2", false), ("bills-", true), ("all-bills-1", false)] {
            assert_eq!(pattern.is_match(name), matches, "{name}");
        }
    }

    #[test]
    fn a_pattern_that_only_closes_our_parenthesis_is_none() {
        assert!(compile("a)(b").is_err());
        assert!(compile("(").is_err());
        assert!(compile("[a").is_err());
    }

    #[test]
    fn a_pattern_that_would_take_all_memory_is_refused() {
        assert!(compile(&"(?:a{1000}){1000}".repeat(10)).is_err());
    }
}
