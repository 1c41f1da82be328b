//! The changes of one batch, read before any of them is shown: a batch that cannot be read whole changes nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::{
    BrokerImage, ConfigResource, ImageError, PartitionImage, Quotas, Rules,
    record::{
        self, AclRecord, BrokerRecord, ClusterRecord, ConfigRecord, ControllerRecord, FeatureRecord, Key, LifeRecord,
        PartitionRecord, PutBackRecord, QuotaRecord, RecordError, StoreRecord, TopicRecord,
    },
};
use crate::{
    model::{
        BrokerId, DelegationToken, DelegationTokenRecord, PartitionId, QuotaEntity, ScramCredential, ScramMechanism,
        TopicId, acl::ResourcePattern,
    },
    store::Revision,
};

/// A key, its value if it has one, and the revision that wrote or removed it.
pub(super) type Written<'a> = (&'a str, Option<&'a Bytes>, Revision);

/// The changes of one batch, read, by what they are about.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) cluster_id: Option<String>,
    pub(super) store: Option<StoreRecord>,
    pub(super) put_back: Option<PutBackRecord>,
    pub(super) brokers: Vec<(BrokerId, Option<BrokerImage>)>,
    pub(super) configs: Vec<(ConfigResource, Option<BTreeMap<String, String>>)>,
    pub(super) quotas: Vec<(QuotaEntity, Option<Quotas>)>,
    pub(super) features: Vec<(String, Option<u16>)>,
    pub(super) topics: Vec<(TopicId, Option<TopicRecord>)>,
    pub(super) deleted: Vec<(TopicId, Option<Revision>)>,
    pub(super) partitions: Vec<(PartitionId, Option<PartitionImage>, Revision)>,
    pub(super) registered: Vec<(BrokerId, Option<Revision>)>,
    pub(super) live: Vec<(BrokerId, Option<LifeRecord>)>,
    pub(super) leaving: Vec<(BrokerId, Option<LifeRecord>)>,
    pub(super) distrusted: Vec<(BrokerId, bool)>,
    pub(super) compactors: Vec<(Uuid, bool)>,
    pub(super) controller: Option<Option<BrokerId>>,
    pub(super) acls: Vec<(ResourcePattern, String, Rules)>,
    pub(super) scram: Vec<((ScramMechanism, String), Option<ScramCredential>)>,
    pub(super) delegation_tokens: Vec<(String, Option<DelegationToken>)>,
}

impl Staged {
    pub(super) fn parse<'a>(changes: impl Iterator<Item = Written<'a>>) -> Result<Staged, ImageError> {
        let mut staged = Staged::default();
        for (key, value, revision) in changes {
            staged.add(key, value, revision).map_err(|error| ImageError::Record { key: key.to_owned(), error })?;
        }
        Ok(staged)
    }

    fn add(&mut self, key: &str, value: Option<&Bytes>, revision: Revision) -> Result<(), RecordError> {
        let value = value.map(Bytes::as_ref);
        match Key::parse(key) {
            Some(Key::Cluster) => {
                let record = value.map(record::decode::<ClusterRecord>).transpose()?;
                self.cluster_id = record.map(|record| record.id);
            }
            Some(Key::Store) => self.store = Some(value.map(record::decode).transpose()?.unwrap_or_default()),
            Some(Key::PutBack) => self.put_back = Some(value.map(record::decode).transpose()?.unwrap_or_default()),
            Some(Key::Broker(id)) => {
                let record = value.map(record::decode::<BrokerRecord>).transpose()?;
                self.registered.push((id, record.is_some().then_some(revision)));
                self.brokers.push((id, record.map(|record| record.into_image(id))));
            }
            Some(Key::Live(id)) => self.live.push((id, value.map(record::decode).transpose()?)),
            Some(Key::Leaving(id)) => self.leaving.push((id, value.map(record::decode).transpose()?)),
            Some(Key::Distrusted(id)) => self.distrusted.push((id, value.is_some())),
            Some(Key::Compactor(id)) => self.compactors.push((id, value.is_some())),
            Some(Key::Controller) => {
                let record = value.map(record::decode::<ControllerRecord>).transpose()?;
                self.controller = Some(record.map(|record| record.broker));
            }
            Some(Key::Topic(id)) => self.topics.push((id, value.map(record::decode).transpose()?)),
            Some(Key::DeletedTopic(id)) => self.deleted.push((id, value.map(|_| revision))),
            Some(Key::Partition(id)) => {
                let record = value.map(record::decode::<PartitionRecord>).transpose()?;
                self.partitions.push((id, record.map(PartitionRecord::into_image), revision));
            }
            Some(Key::Config(resource)) => {
                let record = value.map(record::decode::<ConfigRecord>).transpose()?;
                self.configs.push((resource, record.map(|record| record.settings)));
            }
            Some(Key::Acls(pattern, principal)) => {
                let record = value.map(record::decode::<AclRecord>).transpose()?;
                self.acls.push((pattern, principal, record.map(AclRecord::into_rules).unwrap_or_default()));
            }
            Some(Key::Scram(mechanism, user)) => {
                self.scram.push(((mechanism, user), value.map(record::decode).transpose()?));
            }
            Some(Key::DelegationToken(id)) => {
                let record = value.map(record::decode::<DelegationTokenRecord>).transpose()?;
                let token = record.and_then(|record| record.into_token(id.clone()));
                self.delegation_tokens.push((id, token));
            }
            Some(Key::Quota(entity)) => {
                let record = value.map(record::decode::<QuotaRecord>).transpose()?;
                self.quotas.push((entity, record.map(|record| record.quotas)));
            }
            Some(Key::Feature(name)) => {
                let record = value.map(record::decode::<FeatureRecord>).transpose()?;
                self.features.push((name, record.map(|record| record.level)));
            }
            // Names are in the topics themselves; producer ids are read when a block is taken.
            Some(Key::TopicName(_) | Key::ProducerIds) | None => {}
        }
        Ok(())
    }
}
