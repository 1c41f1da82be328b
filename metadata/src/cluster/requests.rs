//! What can be asked of cluster state: each request is a decision of the controller, made on the newest image. One for more
//! things than the store takes at once is made in parts, of which those before an error have happened.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::{ClusterMetadata, MetadataError};
use crate::{
    controller::{
        self, AlterError, AlterQuota, AlterRequest, BrokerRules, CreateTopicError, CreationDefaults, Decision,
        ElectError, Election, FeatureError, FeatureUpdate, GrowError, GrowTopic, NewTopic, QuotaError, ReassignError,
        Reassignment, ScramChange, TokenChange, UnregisterError,
    },
    image::{
        BrokerImage, ClusterImage, Endpoint, TopicImage,
        record::{self, BrokerRecord, Key},
    },
    model::{
        BrokerId, TopicId,
        acl::{Acl, AclFilter},
    },
};

impl ClusterMetadata {
    /// Makes this broker known, or known anew.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn register(&self, broker: BrokerImage) -> Result<(), MetadataError> {
        let mut decision = Decision::default();
        decision.put(&Key::Broker(broker.id), record::encode(BrokerRecord::of(&broker)));
        self.change(None, false, |_| ((), decision.clone())).await
    }

    /// Tells where this broker, in its life `incarnation`, is reached from now on; `false` if it is not registered in that life.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn announce(
        &self,
        id: BrokerId,
        incarnation: Uuid,
        endpoints: BTreeMap<String, Endpoint>,
    ) -> Result<bool, MetadataError> {
        self.change(None, false, |image| {
            let mut decision = Decision::default();
            let Some(broker) = image.brokers().get(&id).filter(|broker| broker.incarnation == incarnation) else {
                return (false, decision);
            };
            if broker.endpoints != endpoints {
                let broker = BrokerImage { endpoints: endpoints.clone(), ..broker.clone() };
                // Whether it is fenced stands in the same place, and is the controller's.
                decision.rewrites.push(Key::Broker(id));
                decision.put(&Key::Broker(id), record::encode(BrokerRecord::of(&broker)));
            }
            (true, decision)
        })
        .await
    }

    /// Creates topics: one result for each, in order. With `validate_only` nothing is written. `deadline` bounds the wait for
    /// other changes; a change that was begun is finished.
    ///
    /// # Errors
    /// [`MetadataError`] for the request as a whole.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        defaults: CreationDefaults,
        validate_only: bool,
        deadline: Option<Instant>,
    ) -> Result<Vec<Result<Arc<TopicImage>, CreateTopicError>>, MetadataError> {
        controller::check_partition_count(topics, defaults)?;
        let start = TopicId::random().to_wire().as_u128() as usize;
        let decide = |image: &ClusterImage, topics: &[NewTopic]| {
            controller::create_topics(image, topics, defaults, &mut TopicId::random, start)
        };
        self.change_each(topics, deadline, validate_only, decide).await
    }

    /// Deletes topics, each named once; `false` for one that does not exist.
    ///
    /// # Errors
    /// [`MetadataError`] for the request as a whole.
    pub async fn delete_topics(&self, ids: &[TopicId], deadline: Option<Instant>) -> Result<Vec<bool>, MetadataError> {
        self.change_each(ids, deadline, false, controller::delete_topics).await
    }

    /// Adds partitions to topics, each named once: one result for each, in order.
    ///
    /// # Errors
    /// [`MetadataError`] for the request as a whole.
    pub async fn create_partitions(
        &self,
        topics: &[GrowTopic],
        validate_only: bool,
        deadline: Option<Instant>,
    ) -> Result<Vec<Result<(), GrowError>>, MetadataError> {
        let start = TopicId::random().to_wire().as_u128() as usize;
        self.change_each(topics, deadline, validate_only, |image, topics| {
            controller::create_partitions(image, topics, start)
        })
        .await
    }

    /// Changes settings of resources, each named once: one result for each, in order.
    ///
    /// # Errors
    /// [`MetadataError`] for the request as a whole.
    pub async fn alter_configs(
        &self,
        requests: &[AlterRequest],
        rules: &dyn BrokerRules,
        validate_only: bool,
    ) -> Result<Vec<Result<(), AlterError>>, MetadataError> {
        self.change_each(requests, None, validate_only, |image, requests| {
            controller::alter_configs(image, requests, rules)
        })
        .await
    }

    /// Makes rules of who may do what; those that exist stay.
    ///
    /// # Errors
    /// [`MetadataError`] for the request as a whole.
    pub async fn create_acls(&self, acls: &[Acl]) -> Result<(), MetadataError> {
        // Of too many none is made, however they would be divided.
        controller::create_acls(&self.image(), acls)?;
        let decide = |image: &ClusterImage, acls: &[Acl]| match controller::create_acls(image, acls) {
            Ok(decision) => (vec![Ok(())], decision),
            Err(too_many) => (vec![Err(too_many)], Decision::default()),
        };
        let made = self.change_each(acls, None, false, decide).await?;
        Ok(made.into_iter().collect::<Result<(), _>>()?)
    }

    /// Deletes the rules that each filter asks for, and gives them back filter by filter. A rule that two filters ask for
    /// is given back twice; one that somebody else deletes at the same moment, not at all.
    ///
    /// # Errors
    /// [`MetadataError`] for the request as a whole.
    pub async fn delete_acls(&self, filters: &[AclFilter]) -> Result<Vec<Vec<Acl>>, MetadataError> {
        let mut found = controller::find_acls(&self.image(), filters)?;
        let each: BTreeSet<Acl> = found.iter().flatten().cloned().collect();
        let each: Vec<Acl> = each.into_iter().collect();
        let removed = self.change_each(&each, None, false, controller::remove_acls).await?;
        let removed: HashSet<&Acl> =
            each.iter().zip(removed).filter(|(_, is_removed)| *is_removed).map(|(acl, _)| acl).collect();
        found.iter_mut().for_each(|acls| acls.retain(|acl| removed.contains(acl)));
        Ok(found)
    }

    /// Changes what users log in with, each user and mechanism named once: one result for each, in order, `false` where there
    /// is nothing to take away.
    ///
    /// # Errors
    /// [`MetadataError`] for the request as a whole.
    pub async fn alter_scram_credentials(&self, changes: &[ScramChange]) -> Result<Vec<bool>, MetadataError> {
        self.change_each(changes, None, false, controller::alter_scram_credentials).await
    }

    /// Changes delegation tokens, each named once: one result for each, in order, `false` for one that does not exist.
    ///
    /// # Errors
    /// [`MetadataError`] for the request as a whole.
    pub async fn alter_delegation_tokens(&self, changes: &[TokenChange]) -> Result<Vec<bool>, MetadataError> {
        self.change_each(changes, None, false, controller::alter_delegation_tokens).await
    }

    /// Changes client quotas: one result for each distinct entity. `unresolved`: names of addresses that have none.
    ///
    /// # Errors
    /// [`MetadataError`] for the request as a whole.
    pub async fn alter_client_quotas(
        &self,
        requests: &[AlterQuota],
        unresolved: &BTreeSet<String>,
        validate_only: bool,
    ) -> Result<BTreeMap<BTreeMap<String, Option<String>>, Result<(), QuotaError>>, MetadataError> {
        // All that is said of one entity is looked at together.
        let mut by_entity: BTreeMap<&BTreeMap<String, Option<String>>, Vec<AlterQuota>> = BTreeMap::new();
        for request in requests {
            by_entity.entry(&request.entity).or_default().push(request.clone());
        }
        let each: Vec<Vec<AlterQuota>> = by_entity.into_values().collect();
        let decide = |image: &ClusterImage, each: &[Vec<AlterQuota>]| {
            let (results, decision) = controller::alter_client_quotas(image, &each.concat(), unresolved);
            (vec![results], decision)
        };
        Ok(self.change_each(&each, None, validate_only, decide).await?.into_iter().flatten().collect())
    }

    /// Moves partitions to other brokers, or cancels that: one result for each, in order.
    ///
    /// # Errors
    /// [`MetadataError`] for the request as a whole.
    pub async fn reassign_partitions(
        &self,
        asked: &[Reassignment],
        keep_factor: bool,
        deadline: Option<Instant>,
    ) -> Result<Vec<Result<(), ReassignError>>, MetadataError> {
        let decide =
            |image: &ClusterImage, asked: &[Reassignment]| controller::reassign_partitions(image, asked, keep_factor);
        self.change_each(asked, deadline, false, decide).await
    }

    /// Elects leaders: one result for each partition, in order.
    ///
    /// # Errors
    /// [`MetadataError`] for the request as a whole.
    pub async fn elect_leaders(
        &self,
        election: Election,
        asked: &[(String, i32)],
        deadline: Option<Instant>,
    ) -> Result<Vec<Result<(), ElectError>>, MetadataError> {
        let decide = |image: &ClusterImage, asked: &[(String, i32)]| controller::elect_leaders(image, election, asked);
        self.change_each(asked, deadline, false, decide).await
    }

    /// Sets levels of features, all or none. `node` is this broker.
    ///
    /// # Errors
    /// [`MetadataError`]; the inner error is that of the levels.
    pub async fn update_features(
        &self,
        updates: &[FeatureUpdate],
        node: BrokerId,
        validate_only: bool,
        deadline: Option<Instant>,
    ) -> Result<Result<(), FeatureError>, MetadataError> {
        self.change(deadline, validate_only, |image| controller::update_features(image, updates, node)).await
    }

    /// Forgets a broker that is gone for good.
    ///
    /// # Errors
    /// [`MetadataError`]; the inner error says why it is kept.
    pub async fn unregister_broker(&self, id: i32) -> Result<Result<(), UnregisterError>, MetadataError> {
        self.change(None, false, |image| controller::unregister_broker(image, id)).await
    }
}
