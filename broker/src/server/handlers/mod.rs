//! One file per request. Each has
//! `pub(crate) async fn handle(broker: &Broker, context: &RequestContext, request: XRequest) -> XResponse`,
//! a line in [`crate::wire::api::SERVED`] and an arm in [`super::dispatch`].

mod acl_words;
pub(super) mod admin_errors;
#[cfg(test)]
mod admin_test;
pub(super) mod alter_client_quotas;
pub(super) mod alter_configs;
pub(super) mod alter_partition_reassignments;
pub(super) mod alter_replica_log_dirs;
mod alter_settings;
pub(super) mod alter_user_scram_credentials;
pub(super) mod api_versions;
mod cluster_view;
mod config_view;
mod config_words;
#[cfg(test)]
mod configs_test;
pub(super) mod create_acls;
pub(super) mod create_delegation_token;
pub(super) mod create_partitions;
pub(super) mod create_topics;
mod delegation_tokens;
pub(super) mod delete_acls;
pub(super) mod delete_groups;
pub(super) mod delete_records;
pub(super) mod delete_topics;
pub(super) mod describe_acls;
pub(super) mod describe_client_quotas;
pub(super) mod describe_cluster;
pub(super) mod describe_configs;
pub(super) mod describe_delegation_token;
pub(super) mod describe_groups;
pub(super) mod describe_log_dirs;
pub(super) mod describe_quorum;
pub(super) mod describe_topic_partitions;
pub(super) mod describe_user_scram_credentials;
pub(super) mod elect_leaders;
pub(super) mod expire_delegation_token;
pub(super) mod fetch;
mod fetch_read;
pub(super) mod find_coordinator;
mod group_support;
pub(super) mod heartbeat;
pub(super) mod incremental_alter_configs;
pub(super) mod init_producer_id;
pub(super) mod join_group;
pub(super) mod leave_group;
pub(super) mod list_config_resources;
pub(super) mod list_groups;
pub(super) mod list_offsets;
pub(super) mod list_partition_reassignments;
pub(super) mod metadata;
mod mutation_quota;
pub(super) mod offset_commit;
pub(super) mod offset_delete;
pub(super) mod offset_fetch;
pub(super) mod offset_for_leader_epoch;
pub(super) mod produce;
mod produce_errors;
pub(super) mod renew_delegation_token;
pub(super) mod sasl_authenticate;
pub(super) mod sasl_handshake;
pub(super) mod sync_group;
pub(super) mod unregister_broker;
pub(super) mod update_features;
