//! Who may do what, as handlers ask it.
//!
//! ```text
//! let access = broker.access(context);                                    once per request
//! access.require(Operation::Alter, Resource::Cluster)?                    Err is Kafka's code for that resource
//! if !access.allows(Operation::Write, Resource::Topic(name)) { … }        once per resource, never per partition
//! access.shows(Operation::Describe, Resource::Group(id))                  filters a list: a no is no denial
//! access.allows_on_some(Operation::Write, ResourceType::Topic)            any resource of that type will do
//! access.authorized_operations(Resource::Cluster)                         the field of KIP-430
//! ```
//! The rules are in the metadata's image and decided there ([`AclImage`](varve_metadata::image::AclImage)); here are the
//! users that stand above them, what happens where there are none, and the audit log. All as Kafka's
//! `StandardAuthorizer`. Without one configured, everything is allowed and nothing is looked up.
//!
//! What a handler answers where access is denied: [`Resource::refusal`] for each resource that the request names, and
//! that comes before any check that would tell whether the resource exists. What the request does not name (all topics,
//! all groups, all offsets of a group) is left out of the answer. A topic that is named by its id alone gets
//! TOPIC_AUTHORIZATION_FAILED without its name (ids are no secret), and UNKNOWN_TOPIC_ID only if there is none.

mod audit;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod streams_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod token_tests;

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::error::ResponseError;
use prometheus::IntGauge;
use varve_metadata::{
    image::{ClusterImage, Verdict},
    model::{
        Principal,
        acl::{CLUSTER_NAME, Operations},
    },
};

pub(crate) use varve_metadata::model::acl::{Operation, ResourceType};

use self::audit::Audit;
use super::{Broker, RequestContext};
use crate::{
    config::AuthorizerConfig,
    metrics::{Metrics, Registry, keep},
};

/// What access is checked for, and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    /// A topic.
    Topic(&'a str),
    /// A group of any type.
    Group(&'a str),
    /// The cluster.
    Cluster,
    /// A `transactional.id`.
    TransactionalId(&'a str),
    /// A delegation token, by its id.
    DelegationToken(&'a str),
    /// A user for whom tokens are made or listed, by its principal.
    User(&'a str),
}

impl<'a> Resource<'a> {
    /// Its type.
    pub(crate) fn resource_type(self) -> ResourceType {
        match self {
            Resource::Topic(_) => ResourceType::Topic,
            Resource::Group(_) => ResourceType::Group,
            Resource::Cluster => ResourceType::Cluster,
            Resource::TransactionalId(_) => ResourceType::TransactionalId,
            Resource::DelegationToken(_) => ResourceType::DelegationToken,
            Resource::User(_) => ResourceType::User,
        }
    }

    /// Its name, as rules name it.
    pub(crate) fn name(self) -> &'a str {
        match self {
            Resource::Cluster => CLUSTER_NAME,
            Resource::Topic(name)
            | Resource::Group(name)
            | Resource::TransactionalId(name)
            | Resource::DelegationToken(name)
            | Resource::User(name) => name,
        }
    }

    /// Kafka's word for "not yours".
    pub(crate) fn refusal(self) -> ResponseError {
        match self {
            Resource::Topic(_) => ResponseError::TopicAuthorizationFailed,
            Resource::Group(_) => ResponseError::GroupAuthorizationFailed,
            Resource::Cluster => ResponseError::ClusterAuthorizationFailed,
            Resource::TransactionalId(_) => ResponseError::TransactionalIdAuthorizationFailed,
            Resource::DelegationToken(_) | Resource::User(_) => ResponseError::DelegationTokenAuthorizationFailed,
        }
    }
}

impl Resource<'_> {
    /// What Kafka says with [`Resource::refusal`] where there is a place for words.
    pub(crate) fn refusal_text(self) -> &'static str {
        match self {
            Resource::Topic(_) => "Topic authorization failed.",
            Resource::Group(_) => "Group authorization failed.",
            Resource::Cluster => "Cluster authorization failed.",
            Resource::TransactionalId(_) => "Transactional Id authorization failed.",
            Resource::DelegationToken(_) | Resource::User(_) => "Delegation Token authorization failed.",
        }
    }
}

/// Kafka's `StandardAuthorizer`, but for the rules.
#[derive(Debug)]
pub(crate) struct Authorizer {
    super_users: HashSet<Principal>,
    /// `allow.everyone.if.no.acl.found`.
    allow_if_no_acl: bool,
    audit: Audit,
}

impl Authorizer {
    pub(crate) fn new(config: &AuthorizerConfig) -> Authorizer {
        Authorizer {
            super_users: config.super_users.iter().cloned().collect(),
            allow_if_no_acl: config.allow_if_no_acl,
            audit: Audit::new(),
        }
    }

    fn takes(&self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Allowed => true,
            Verdict::Denied | Verdict::NotAllowed => false,
            Verdict::NoAcls => self.allow_if_no_acl,
        }
    }
}

impl Broker {
    /// What the request's caller may do, by the rules of this moment.
    pub(crate) fn access<'a>(&'a self, context: &'a RequestContext) -> Access<'a> {
        let checked = self.authorizer.as_ref().map(|authorizer| Checked {
            authorizer,
            image: self.metadata.image(),
            is_super: authorizer.super_users.contains(&context.principal),
        });
        Access { context, checked }
    }

    /// Registers what is counted about access, if it is checked.
    pub(crate) fn register_access(&self, metrics: &Metrics) {
        let Some(authorizer) = &self.authorizer else { return };
        let acls = access_metrics(metrics.registry(), &authorizer.audit);
        metrics.before_scrape_of(&self.metadata, move |metadata| acls.set(metadata.image().acls().len() as i64));
    }
}

/// Declares what is counted about access, for the reference of metrics.
pub(super) fn declare(registry: &Registry) {
    access_metrics(registry, &Audit::new());
}

/// Registers the counter of denials, and a gauge of rules, which it returns.
fn access_metrics(registry: &Registry, audit: &Audit) -> IntGauge {
    keep(registry, Ok(audit.denied()));
    keep(registry, IntGauge::new("varve_acls", "Rules of who may do what"))
}

/// What one request's caller may do.
#[derive(Debug)]
pub(crate) struct Access<'a> {
    context: &'a RequestContext,
    /// `None`: there is no authorizer, everything is allowed.
    checked: Option<Checked<'a>>,
}

#[derive(Debug)]
struct Checked<'a> {
    authorizer: &'a Authorizer,
    image: Arc<ClusterImage>,
    is_super: bool,
}

impl Access<'_> {
    /// Whether there is an authorizer at all.
    pub(crate) fn is_checked(&self) -> bool {
        self.checked.is_some()
    }

    /// Whether the caller may do `operation` with `resource`. A no is a denial: it is counted and logged.
    pub(crate) fn allows(&self, operation: Operation, resource: Resource<'_>) -> bool {
        let Some(checked) = &self.checked else { return true };
        let allowed = checked.decide(self.context, operation, resource);
        let audit = &checked.authorizer.audit;
        if allowed {
            audit.allowed(self.context, operation, resource);
        } else {
            audit.note_denied(self.context, operation, resource);
        }
        allowed
    }

    /// The same, with Kafka's code for the resource where the answer is no.
    ///
    /// # Errors
    /// [`Resource::refusal`].
    pub(crate) fn require(&self, operation: Operation, resource: Resource<'_>) -> Result<(), ResponseError> {
        if self.allows(operation, resource) { Ok(()) } else { Err(resource.refusal()) }
    }

    /// The same for something that the caller did not ask for by name, but may or may not see in a list: a no is
    /// neither counted nor logged.
    pub(crate) fn shows(&self, operation: Operation, resource: Resource<'_>) -> bool {
        self.checked.as_ref().is_none_or(|checked| checked.decide(self.context, operation, resource))
    }

    /// Whether there may be a resource of that type with which the caller may do `operation`. A no is no denial.
    pub(crate) fn allows_on_some(&self, operation: Operation, resource_type: ResourceType) -> bool {
        let Some(checked) = &self.checked else { return true };
        let (principal, host) = (&self.context.principal, self.context.peer.ip());
        // As Kafka does: a made-up name lets super users, wildcards and the lack of rules speak first.
        let made_up = || checked.image.acls().decide(principal, host, operation, resource_type, "hardcode");
        checked.is_super
            || checked.authorizer.takes(made_up())
            || checked.image.acls().allows_on_some(principal, host, operation, resource_type)
    }

    /// Everything that the caller may do with `resource`, as the fields of KIP-430 carry it.
    pub(crate) fn authorized_operations(&self, resource: Resource<'_>) -> i32 {
        let possible = resource.resource_type().operations();
        possible.iter().filter(|operation| self.shows(*operation, resource)).collect::<Operations>().to_wire()
    }
}

impl Checked<'_> {
    fn decide(&self, context: &RequestContext, operation: Operation, resource: Resource<'_>) -> bool {
        self.is_super || {
            let (kind, name) = (resource.resource_type(), resource.name());
            let verdict = self.image.acls().decide(&context.principal, context.peer.ip(), operation, kind, name);
            self.authorizer.takes(verdict)
        }
    }
}
