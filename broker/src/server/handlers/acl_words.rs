//! Rules of who may do what, between the wire and our words: what CreateAcls, DeleteAcls and DescribeAcls share.

use kafka_protocol::protocol::StrBytes;
use varve_metadata::model::acl::{AclFilter, Operation, PatternFilter, PatternType, Permission, ResourceType};

/// Kafka's number for "any", wherever a filter may say so.
pub(super) const ANY: i8 = 1;
/// Kafka's number for patterns that match a name.
const MATCH: i8 = 2;

/// A filter as the wire has it.
pub(super) struct WireFilter<'a> {
    pub(super) resource_type: i8,
    pub(super) pattern_type: i8,
    pub(super) name: &'a Option<StrBytes>,
    pub(super) principal: &'a Option<StrBytes>,
    pub(super) host: &'a Option<StrBytes>,
    pub(super) operation: i8,
    pub(super) permission: i8,
}

/// A part of a filter that names nothing that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnknownPart {
    /// The type of the resource, or that of the pattern.
    Pattern,
    /// The operation or the permission.
    Entry,
}

/// The filter in our words.
///
/// # Errors
/// [`UnknownPart`], the pattern first, as in Kafka.
pub(super) fn parse_filter(filter: &WireFilter<'_>) -> Result<AclFilter, UnknownPart> {
    let own = |text: &Option<StrBytes>| text.as_ref().map(ToString::to_string);
    let pattern_type = match filter.pattern_type {
        ANY => Some(PatternFilter::Any),
        MATCH => Some(PatternFilter::Match),
        other => PatternType::from_wire(other).map(PatternFilter::Exactly),
    };
    Ok(AclFilter {
        resource_type: any_or(filter.resource_type, ResourceType::from_wire).ok_or(UnknownPart::Pattern)?,
        pattern_type: pattern_type.ok_or(UnknownPart::Pattern)?,
        name: own(filter.name),
        principal: own(filter.principal),
        host: own(filter.host),
        operation: any_or(filter.operation, Operation::from_wire).ok_or(UnknownPart::Entry)?,
        permission: any_or(filter.permission, Permission::from_wire).ok_or(UnknownPart::Entry)?,
    })
}

fn any_or<T>(raw: i8, parse: fn(i8) -> Option<T>) -> Option<Option<T>> {
    if raw == ANY { Some(None) } else { parse(raw).map(Some) }
}
