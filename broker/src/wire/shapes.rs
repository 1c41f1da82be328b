//! The layout of each served request, field by field, as Kafka's message definitions give it. Tests hold every line to
//! the encoder of `kafka-protocol` for every version.
#![allow(dead_code, reason = "a layout comes before the handler that uses it")]

use super::shape::{
    Field,
    Kind::{Array, Blob, Fixed, List, NullableStruct, Struct, Text},
    Shape, always, between, since, tagged,
};

pub(super) static PRODUCE: Shape = Shape {
    flexible_since: 9,
    fields: &[
        since(3, Text),   // transactional_id
        always(Fixed(2)), // acks
        always(Fixed(4)), // timeout_ms
        always(Array(&Struct(&[
            between(0, 12, Text), // name
            since(13, Fixed(16)), // topic_id
            always(Array(&Struct(&[
                always(Fixed(4)), // index
                always(Blob),     // records
            ]))), // partition_data
        ]))), // topic_data
    ],
};
pub(super) static FETCH: Shape = Shape {
    flexible_since: 12,
    fields: &[
        tagged(0, 12, Text),      // cluster_id
        between(0, 14, Fixed(4)), // replica_id
        tagged(
            1,
            15,
            Struct(&[
                since(15, Fixed(4)), // replica_id
                since(15, Fixed(8)), // replica_epoch
            ]),
        ), // replica_state
        always(Fixed(4)),         // max_wait_ms
        always(Fixed(4)),         // min_bytes
        since(3, Fixed(4)),       // max_bytes
        since(4, Fixed(1)),       // isolation_level
        since(7, Fixed(4)),       // session_id
        since(7, Fixed(4)),       // session_epoch
        always(Array(&Struct(&[
            between(0, 12, Text), // topic
            since(13, Fixed(16)), // topic_id
            always(Array(&Struct(&[
                always(Fixed(4)),         // partition
                since(9, Fixed(4)),       // current_leader_epoch
                always(Fixed(8)),         // fetch_offset
                since(12, Fixed(4)),      // last_fetched_epoch
                since(5, Fixed(8)),       // log_start_offset
                always(Fixed(4)),         // partition_max_bytes
                tagged(0, 17, Fixed(16)), // replica_directory_id
                tagged(1, 18, Fixed(8)),  // high_watermark
            ]))), // partitions
        ]))), // topics
        since(
            7,
            Array(&Struct(&[
                between(7, 12, Text),       // topic
                since(13, Fixed(16)),       // topic_id
                since(7, Array(&Fixed(4))), // partitions
            ])),
        ), // forgotten_topics_data
        since(11, Text),          // rack_id
    ],
};
pub(super) static LIST_OFFSETS: Shape = Shape {
    flexible_since: 6,
    fields: &[
        always(Fixed(4)),   // replica_id
        since(2, Fixed(1)), // isolation_level
        always(Array(&Struct(&[
            always(Text), // name
            always(Array(&Struct(&[
                always(Fixed(4)),   // partition_index
                since(4, Fixed(4)), // current_leader_epoch
                always(Fixed(8)),   // timestamp
            ]))), // partitions
        ]))), // topics
        since(10, Fixed(4)), // timeout_ms
    ],
};
pub(super) static METADATA: Shape = Shape {
    flexible_since: 9,
    fields: &[
        between(
            0,
            0,
            List(&Struct(&[
                always(Text), // name
            ])),
        ), // topics
        since(
            1,
            Array(&Struct(&[
                since(10, Fixed(16)), // topic_id
                always(Text),         // name
            ])),
        ), // topics
        since(4, Fixed(1)),       // allow_auto_topic_creation
        between(8, 10, Fixed(1)), // include_cluster_authorized_operations
        since(8, Fixed(1)),       // include_topic_authorized_operations
    ],
};
pub(super) static OFFSET_COMMIT: Shape = Shape {
    flexible_since: 8,
    fields: &[
        always(Text),            // group_id
        since(1, Fixed(4)),      // generation_id_or_member_epoch
        since(1, Text),          // member_id
        since(7, Text),          // group_instance_id
        between(2, 4, Fixed(8)), // retention_time_ms
        always(Array(&Struct(&[
            between(0, 9, Text),  // name
            since(10, Fixed(16)), // topic_id
            always(Array(&Struct(&[
                always(Fixed(4)),   // partition_index
                always(Fixed(8)),   // committed_offset
                since(6, Fixed(4)), // committed_leader_epoch
                always(Text),       // committed_metadata
            ]))), // partitions
        ]))), // topics
    ],
};
const OFFSETS_OF_TOPIC: &[Field] = &[
    always(Text),             // name
    always(Array(&Fixed(4))), // partition_indexes
];
pub(super) static OFFSET_FETCH: Shape = Shape {
    flexible_since: 6,
    fields: &[
        between(0, 7, Text),                             // group_id
        between(0, 1, List(&Struct(OFFSETS_OF_TOPIC))),  // topics
        between(2, 7, Array(&Struct(OFFSETS_OF_TOPIC))), // topics
        since(
            8,
            Array(&Struct(&[
                since(8, Text),     // group_id
                since(9, Text),     // member_id
                since(9, Fixed(4)), // member_epoch
                since(
                    8,
                    Array(&Struct(&[
                        between(8, 9, Text),        // name
                        since(10, Fixed(16)),       // topic_id
                        since(8, Array(&Fixed(4))), // partition_indexes
                    ])),
                ), // topics
            ])),
        ), // groups
        since(7, Fixed(1)),                              // require_stable
    ],
};
pub(super) static FIND_COORDINATOR: Shape = Shape {
    flexible_since: 3,
    fields: &[
        between(0, 3, Text),    // key
        since(1, Fixed(1)),     // key_type
        since(4, Array(&Text)), // coordinator_keys
    ],
};
pub(super) static JOIN_GROUP: Shape = Shape {
    flexible_since: 6,
    fields: &[
        always(Text),       // group_id
        always(Fixed(4)),   // session_timeout_ms
        since(1, Fixed(4)), // rebalance_timeout_ms
        always(Text),       // member_id
        since(5, Text),     // group_instance_id
        always(Text),       // protocol_type
        always(Array(&Struct(&[
            always(Text), // name
            always(Blob), // metadata
        ]))), // protocols
        since(8, Text),     // reason
    ],
};
pub(super) static HEARTBEAT: Shape = Shape {
    flexible_since: 4,
    fields: &[
        always(Text),     // group_id
        always(Fixed(4)), // generation_id
        always(Text),     // member_id
        since(3, Text),   // group_instance_id
    ],
};
pub(super) static LEAVE_GROUP: Shape = Shape {
    flexible_since: 4,
    fields: &[
        always(Text),        // group_id
        between(0, 2, Text), // member_id
        since(
            3,
            Array(&Struct(&[
                since(3, Text), // member_id
                since(3, Text), // group_instance_id
                since(5, Text), // reason
            ])),
        ), // members
    ],
};
pub(super) static SYNC_GROUP: Shape = Shape {
    flexible_since: 4,
    fields: &[
        always(Text),     // group_id
        always(Fixed(4)), // generation_id
        always(Text),     // member_id
        since(3, Text),   // group_instance_id
        since(5, Text),   // protocol_type
        since(5, Text),   // protocol_name
        always(Array(&Struct(&[
            always(Text), // member_id
            always(Blob), // assignment
        ]))), // assignments
    ],
};
pub(super) static DESCRIBE_GROUPS: Shape = Shape {
    flexible_since: 5,
    fields: &[
        always(Array(&Text)), // groups
        since(3, Fixed(1)),   // include_authorized_operations
    ],
};
pub(super) static LIST_GROUPS: Shape = Shape {
    flexible_since: 3,
    fields: &[
        since(4, Array(&Text)), // states_filter
        since(5, Array(&Text)), // types_filter
    ],
};
pub(super) static API_VERSIONS: Shape = Shape {
    flexible_since: 3,
    fields: &[
        since(3, Text), // client_software_name
        since(3, Text), // client_software_version
    ],
};
pub(super) static CREATE_TOPICS: Shape = Shape {
    flexible_since: 5,
    fields: &[
        always(Array(&Struct(&[
            always(Text),     // name
            always(Fixed(4)), // num_partitions
            always(Fixed(2)), // replication_factor
            always(Array(&Struct(&[
                always(Fixed(4)),         // partition_index
                always(Array(&Fixed(4))), // broker_ids
            ]))), // assignments
            always(Array(&Struct(&[
                always(Text), // name
                always(Text), // value
            ]))), // configs
        ]))), // topics
        always(Fixed(4)),   // timeout_ms
        since(1, Fixed(1)), // validate_only
    ],
};
pub(super) static DELETE_TOPICS: Shape = Shape {
    flexible_since: 4,
    fields: &[
        since(
            6,
            Array(&Struct(&[
                since(6, Text),      // name
                since(6, Fixed(16)), // topic_id
            ])),
        ), // topics
        between(0, 5, Array(&Text)), // topic_names
        always(Fixed(4)),            // timeout_ms
    ],
};
pub(super) static DELETE_RECORDS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Struct(&[
            always(Text), // name
            always(Array(&Struct(&[
                always(Fixed(4)), // partition_index
                always(Fixed(8)), // offset
            ]))), // partitions
        ]))), // topics
        always(Fixed(4)), // timeout_ms
    ],
};
pub(super) static INIT_PRODUCER_ID: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Text),       // transactional_id
        always(Fixed(4)),   // transaction_timeout_ms
        since(3, Fixed(8)), // producer_id
        since(3, Fixed(2)), // producer_epoch
        since(6, Fixed(1)), // enable2_pc
        since(6, Fixed(1)), // keep_prepared_txn
    ],
};
pub(super) static OFFSET_FOR_LEADER_EPOCH: Shape = Shape {
    flexible_since: 4,
    fields: &[
        since(3, Fixed(4)), // replica_id
        always(Array(&Struct(&[
            always(Text), // topic
            always(Array(&Struct(&[
                always(Fixed(4)),   // partition
                since(2, Fixed(4)), // current_leader_epoch
                always(Fixed(4)),   // leader_epoch
            ]))), // partitions
        ]))), // topics
    ],
};
pub(super) static DESCRIBE_CONFIGS: Shape = Shape {
    flexible_since: 4,
    fields: &[
        always(Array(&Struct(&[
            always(Fixed(1)),     // resource_type
            always(Text),         // resource_name
            always(Array(&Text)), // configuration_keys
        ]))), // resources
        since(1, Fixed(1)), // include_synonyms
        since(3, Fixed(1)), // include_documentation
    ],
};
pub(super) static ALTER_CONFIGS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Struct(&[
            always(Fixed(1)), // resource_type
            always(Text),     // resource_name
            always(Array(&Struct(&[
                always(Text), // name
                always(Text), // value
            ]))), // configs
        ]))), // resources
        always(Fixed(1)), // validate_only
    ],
};
pub(super) static ALTER_REPLICA_LOG_DIRS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Struct(&[
            always(Text), // path
            always(Array(&Struct(&[
                always(Text),             // name
                always(Array(&Fixed(4))), // partitions
            ]))), // topics
        ]))), // dirs
    ],
};
pub(super) static DESCRIBE_LOG_DIRS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Struct(&[
            always(Text),             // topic
            always(Array(&Fixed(4))), // partitions
        ]))), // topics
    ],
};
pub(super) static DESCRIBE_ACLS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Fixed(1)), // resource_type_filter
        always(Text),     // resource_name_filter
        always(Fixed(1)), // pattern_type_filter
        always(Text),     // principal_filter
        always(Text),     // host_filter
        always(Fixed(1)), // operation
        always(Fixed(1)), // permission_type
    ],
};
pub(super) static CREATE_ACLS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Struct(&[
            always(Fixed(1)), // resource_type
            always(Text),     // resource_name
            always(Fixed(1)), // resource_pattern_type
            always(Text),     // principal
            always(Text),     // host
            always(Fixed(1)), // operation
            always(Fixed(1)), // permission_type
        ]))), // creations
    ],
};
pub(super) static DELETE_ACLS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Struct(&[
            always(Fixed(1)), // resource_type_filter
            always(Text),     // resource_name_filter
            always(Fixed(1)), // pattern_type_filter
            always(Text),     // principal_filter
            always(Text),     // host_filter
            always(Fixed(1)), // operation
            always(Fixed(1)), // permission_type
        ]))), // filters
    ],
};
pub(super) static CREATE_PARTITIONS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Struct(&[
            always(Text),     // name
            always(Fixed(4)), // count
            always(Array(&Struct(&[
                always(Array(&Fixed(4))), // broker_ids
            ]))), // assignments
        ]))), // topics
        always(Fixed(4)), // timeout_ms
        always(Fixed(1)), // validate_only
    ],
};
pub(super) static DELETE_GROUPS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Text)), // groups_names
    ],
};
pub(super) static INCREMENTAL_ALTER_CONFIGS: Shape = Shape {
    flexible_since: 1,
    fields: &[
        always(Array(&Struct(&[
            always(Fixed(1)), // resource_type
            always(Text),     // resource_name
            always(Array(&Struct(&[
                always(Text),     // name
                always(Fixed(1)), // config_operation
                always(Text),     // value
            ]))), // configs
        ]))), // resources
        always(Fixed(1)), // validate_only
    ],
};
pub(super) static ELECT_LEADERS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        since(1, Fixed(1)), // election_type
        always(Array(&Struct(&[
            always(Text),             // topic
            always(Array(&Fixed(4))), // partitions
        ]))), // topic_partitions
        always(Fixed(4)),   // timeout_ms
    ],
};
pub(super) static ALTER_PARTITION_REASSIGNMENTS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(4)),   // timeout_ms
        since(1, Fixed(1)), // allow_replication_factor_change
        always(Array(&Struct(&[
            always(Text), // name
            always(Array(&Struct(&[
                always(Fixed(4)),         // partition_index
                always(Array(&Fixed(4))), // replicas
            ]))), // partitions
        ]))), // topics
    ],
};
pub(super) static LIST_PARTITION_REASSIGNMENTS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(4)), // timeout_ms
        always(Array(&Struct(&[
            always(Text),             // name
            always(Array(&Fixed(4))), // partition_indexes
        ]))), // topics
    ],
};
pub(super) static DESCRIBE_CLIENT_QUOTAS: Shape = Shape {
    flexible_since: 1,
    fields: &[
        always(Array(&Struct(&[
            always(Text),     // entity_type
            always(Fixed(1)), // match_type
            always(Text),     // match
        ]))), // components
        always(Fixed(1)), // strict
    ],
};
pub(super) static ALTER_CLIENT_QUOTAS: Shape = Shape {
    flexible_since: 1,
    fields: &[
        always(Array(&Struct(&[
            always(Array(&Struct(&[
                always(Text), // entity_type
                always(Text), // entity_name
            ]))), // entity
            always(Array(&Struct(&[
                always(Text),     // key
                always(Fixed(8)), // value
                always(Fixed(1)), // remove
            ]))), // ops
        ]))), // entries
        always(Fixed(1)), // validate_only
    ],
};
pub(super) static DESCRIBE_QUORUM: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Struct(&[
            always(Text), // topic_name
            always(Array(&Struct(&[
                always(Fixed(4)), // partition_index
            ]))), // partitions
        ]))), // topics
    ],
};
pub(super) static UPDATE_FEATURES: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(4)), // timeout_ms
        always(Array(&Struct(&[
            always(Text),            // feature
            always(Fixed(2)),        // max_version_level
            between(0, 0, Fixed(1)), // allow_downgrade
            since(1, Fixed(1)),      // upgrade_type
        ]))), // feature_updates
        since(1, Fixed(1)), // validate_only
    ],
};
pub(super) static UNREGISTER_BROKER: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(4)), // broker_id
    ],
};
pub(super) static GET_TELEMETRY_SUBSCRIPTIONS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(16)), // client_instance_id
    ],
};
pub(super) static PUSH_TELEMETRY: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(16)), // client_instance_id
        always(Fixed(4)),  // subscription_id
        always(Fixed(1)),  // terminating
        always(Fixed(1)),  // compression_type
        always(Blob),      // metrics
    ],
};
pub(super) static LIST_CONFIG_RESOURCES: Shape = Shape {
    flexible_since: 0,
    fields: &[
        since(1, Array(&Fixed(1))), // resource_types
    ],
};
pub(super) static OFFSET_DELETE: Shape = Shape {
    flexible_since: i16::MAX,
    fields: &[
        always(Text), // group_id
        always(Array(&Struct(&[
            always(Text), // name
            always(Array(&Struct(&[
                always(Fixed(4)), // partition_index
            ]))), // partitions
        ]))), // topics
    ],
};
pub(super) static DESCRIBE_CLUSTER: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(1)),   // include_cluster_authorized_operations
        since(1, Fixed(1)), // endpoint_type
        since(2, Fixed(1)), // include_fenced_brokers
    ],
};
pub(super) static DESCRIBE_TOPIC_PARTITIONS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Struct(&[
            always(Text), // name
        ]))), // topics
        always(Fixed(4)), // response_partition_limit
        always(NullableStruct(&[
            always(Text),     // topic_name
            always(Fixed(4)), // partition_index
        ])), // cursor
    ],
};
pub(super) static CONSUMER_GROUP_HEARTBEAT: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text),         // group_id
        always(Text),         // member_id
        always(Fixed(4)),     // member_epoch
        always(Text),         // instance_id
        always(Text),         // rack_id
        always(Fixed(4)),     // rebalance_timeout_ms
        always(Array(&Text)), // subscribed_topic_names
        since(1, Text),       // subscribed_topic_regex
        always(Text),         // server_assignor
        always(Array(&Struct(&[
            always(Fixed(16)),        // topic_id
            always(Array(&Fixed(4))), // partitions
        ]))), // topic_partitions
    ],
};
pub(super) static CONSUMER_GROUP_DESCRIBE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Text)), // group_ids
        always(Fixed(1)),     // include_authorized_operations
    ],
};
pub(super) static SHARE_GROUP_HEARTBEAT: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text),         // group_id
        always(Text),         // member_id
        always(Fixed(4)),     // member_epoch
        always(Text),         // rack_id
        always(Array(&Text)), // subscribed_topic_names
    ],
};
pub(super) static SHARE_GROUP_DESCRIBE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Text)), // group_ids
        always(Fixed(1)),     // include_authorized_operations
    ],
};
const ACKNOWLEDGEMENTS_OF_TOPIC: &[Field] = &[
    always(Fixed(16)), // topic_id
    always(Array(&Struct(&[
        always(Fixed(4)), // partition_index
        always(Array(&Struct(&[
            always(Fixed(8)),         // first_offset
            always(Fixed(8)),         // last_offset
            always(Array(&Fixed(1))), // acknowledge_types
        ]))), // acknowledgement_batches
    ]))), // partitions
];
pub(super) static SHARE_FETCH: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text),                                      // group_id
        always(Text),                                      // member_id
        always(Fixed(4)),                                  // share_session_epoch
        always(Fixed(4)),                                  // max_wait_ms
        always(Fixed(4)),                                  // min_bytes
        always(Fixed(4)),                                  // max_bytes
        always(Fixed(4)),                                  // max_records
        always(Fixed(4)),                                  // batch_size
        since(2, Fixed(1)),                                // share_acquire_mode
        since(2, Fixed(1)),                                // is_renew_ack
        always(Array(&Struct(ACKNOWLEDGEMENTS_OF_TOPIC))), // topics
        always(Array(&Struct(&[
            always(Fixed(16)),        // topic_id
            always(Array(&Fixed(4))), // partitions
        ]))), // forgotten_topics_data
    ],
};
pub(super) static SHARE_ACKNOWLEDGE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text),                                      // group_id
        always(Text),                                      // member_id
        always(Fixed(4)),                                  // share_session_epoch
        since(2, Fixed(1)),                                // is_renew_ack
        always(Array(&Struct(ACKNOWLEDGEMENTS_OF_TOPIC))), // topics
    ],
};
pub(super) static INITIALIZE_SHARE_GROUP_STATE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text), // group_id
        always(Array(&Struct(&[
            always(Fixed(16)), // topic_id
            always(Array(&Struct(&[
                always(Fixed(4)), // partition
                always(Fixed(4)), // state_epoch
                always(Fixed(8)), // start_offset
            ]))), // partitions
        ]))), // topics
    ],
};
const LEADERS_OF_TOPIC: &[Field] = &[
    always(Fixed(16)), // topic_id
    always(Array(&Struct(&[
        always(Fixed(4)), // partition
        always(Fixed(4)), // leader_epoch
    ]))), // partitions
];
pub(super) static READ_SHARE_GROUP_STATE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text),                             // group_id
        always(Array(&Struct(LEADERS_OF_TOPIC))), // topics
    ],
};
pub(super) static READ_SHARE_GROUP_STATE_SUMMARY: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text),                             // group_id
        always(Array(&Struct(LEADERS_OF_TOPIC))), // topics
    ],
};
pub(super) static WRITE_SHARE_GROUP_STATE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text), // group_id
        always(Array(&Struct(&[
            always(Fixed(16)), // topic_id
            always(Array(&Struct(&[
                always(Fixed(4)),   // partition
                always(Fixed(4)),   // state_epoch
                always(Fixed(4)),   // leader_epoch
                always(Fixed(8)),   // start_offset
                since(1, Fixed(4)), // delivery_complete_count
                always(Array(&Struct(&[
                    always(Fixed(8)), // first_offset
                    always(Fixed(8)), // last_offset
                    always(Fixed(1)), // delivery_state
                    always(Fixed(2)), // delivery_count
                ]))), // state_batches
            ]))), // partitions
        ]))), // topics
    ],
};
pub(super) static DELETE_SHARE_GROUP_STATE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text), // group_id
        always(Array(&Struct(&[
            always(Fixed(16)), // topic_id
            always(Array(&Struct(&[
                always(Fixed(4)), // partition
            ]))), // partitions
        ]))), // topics
    ],
};
pub(super) static DESCRIBE_SHARE_GROUP_OFFSETS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Struct(&[
            always(Text), // group_id
            always(Array(&Struct(&[
                always(Text),             // topic_name
                always(Array(&Fixed(4))), // partitions
            ]))), // topics
        ]))), // groups
    ],
};
pub(super) static ALTER_SHARE_GROUP_OFFSETS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text), // group_id
        always(Array(&Struct(&[
            always(Text), // topic_name
            always(Array(&Struct(&[
                always(Fixed(4)), // partition_index
                always(Fixed(8)), // start_offset
            ]))), // partitions
        ]))), // topics
    ],
};
pub(super) static DELETE_SHARE_GROUP_OFFSETS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text), // group_id
        always(Array(&Struct(&[
            always(Text), // topic_name
        ]))), // topics
    ],
};
pub(super) static SASL_HANDSHAKE: Shape = Shape {
    flexible_since: i16::MAX,
    fields: &[
        always(Text), // mechanism
    ],
};
pub(super) static SASL_AUTHENTICATE: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Blob), // auth_bytes
    ],
};
pub(super) static DESCRIBE_USER_SCRAM_CREDENTIALS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Struct(&[
            always(Text), // name
        ]))), // users
    ],
};
pub(super) static ALTER_USER_SCRAM_CREDENTIALS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Struct(&[
            always(Text),     // name
            always(Fixed(1)), // mechanism
        ]))), // deletions
        always(Array(&Struct(&[
            always(Text),     // name
            always(Fixed(1)), // mechanism
            always(Fixed(4)), // iterations
            always(Blob),     // salt
            always(Blob),     // salted_password
        ]))), // upsertions
    ],
};
pub(super) static CREATE_DELEGATION_TOKEN: Shape = Shape {
    flexible_since: 2,
    fields: &[
        since(3, Text), // owner_principal_type
        since(3, Text), // owner_principal_name
        always(Array(&Struct(&[
            always(Text), // principal_type
            always(Text), // principal_name
        ]))), // renewers
        always(Fixed(8)), // max_lifetime_ms
    ],
};
pub(super) static RENEW_DELEGATION_TOKEN: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Blob),     // hmac
        always(Fixed(8)), // renew_period_ms
    ],
};
pub(super) static EXPIRE_DELEGATION_TOKEN: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Blob),     // hmac
        always(Fixed(8)), // expiry_time_period_ms
    ],
};
pub(super) static DESCRIBE_DELEGATION_TOKEN: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Struct(&[
            always(Text), // principal_type
            always(Text), // principal_name
        ]))), // owners
    ],
};
const PARTITIONS_OF_TOPIC: &[Field] = &[
    always(Text),             // name
    always(Array(&Fixed(4))), // partitions
];
pub(super) static ADD_PARTITIONS_TO_TXN: Shape = Shape {
    flexible_since: 3,
    fields: &[
        since(
            4,
            Array(&Struct(&[
                since(4, Text),                                // transactional_id
                since(4, Fixed(8)),                            // producer_id
                since(4, Fixed(2)),                            // producer_epoch
                since(4, Fixed(1)),                            // verify_only
                since(4, Array(&Struct(PARTITIONS_OF_TOPIC))), // topics
            ])),
        ), // transactions
        between(0, 3, Text),                                // v3_and_below_transactional_id
        between(0, 3, Fixed(8)),                            // v3_and_below_producer_id
        between(0, 3, Fixed(2)),                            // v3_and_below_producer_epoch
        between(0, 3, Array(&Struct(PARTITIONS_OF_TOPIC))), // v3_and_below_topics
    ],
};
pub(super) static ADD_OFFSETS_TO_TXN: Shape = Shape {
    flexible_since: 3,
    fields: &[
        always(Text),     // transactional_id
        always(Fixed(8)), // producer_id
        always(Fixed(2)), // producer_epoch
        always(Text),     // group_id
    ],
};
pub(super) static END_TXN: Shape = Shape {
    flexible_since: 3,
    fields: &[
        always(Text),     // transactional_id
        always(Fixed(8)), // producer_id
        always(Fixed(2)), // producer_epoch
        always(Fixed(1)), // committed
    ],
};
pub(super) static WRITE_TXN_MARKERS: Shape = Shape {
    flexible_since: 1,
    fields: &[
        always(Array(&Struct(&[
            always(Fixed(8)),                            // producer_id
            always(Fixed(2)),                            // producer_epoch
            always(Fixed(1)),                            // transaction_result
            always(Array(&Struct(PARTITIONS_OF_TOPIC))), // topics
            always(Fixed(4)),                            // coordinator_epoch
            since(2, Fixed(1)),                          // transaction_version
        ]))), // markers
    ],
};
pub(super) static TXN_OFFSET_COMMIT: Shape = Shape {
    flexible_since: 3,
    fields: &[
        always(Text),       // transactional_id
        always(Text),       // group_id
        always(Fixed(8)),   // producer_id
        always(Fixed(2)),   // producer_epoch
        since(3, Fixed(4)), // generation_id
        since(3, Text),     // member_id
        since(3, Text),     // group_instance_id
        always(Array(&Struct(&[
            always(Text), // name
            always(Array(&Struct(&[
                always(Fixed(4)),   // partition_index
                always(Fixed(8)),   // committed_offset
                since(2, Fixed(4)), // committed_leader_epoch
                always(Text),       // committed_metadata
            ]))), // partitions
        ]))), // topics
    ],
};
pub(super) static DESCRIBE_PRODUCERS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Struct(PARTITIONS_OF_TOPIC))), // topics
    ],
};
pub(super) static DESCRIBE_TRANSACTIONS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Text)), // transactional_ids
    ],
};
pub(super) static LIST_TRANSACTIONS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Text)),     // state_filters
        always(Array(&Fixed(8))), // producer_id_filters
        since(1, Fixed(8)),       // duration_filter
        since(2, Text),           // transactional_id_pattern
    ],
};
const KEY_AND_VALUE: &[Field] = &[
    always(Text), // key
    always(Text), // value
];
const TOPIC_INFO: &[Field] = &[
    always(Text),                         // name
    always(Fixed(4)),                     // partitions
    always(Fixed(2)),                     // replication_factor
    always(List(&Struct(KEY_AND_VALUE))), // topic_configs
];
const TASK_IDS: &[Field] = &[
    always(Text),            // subtopology_id
    always(List(&Fixed(4))), // partitions
];
const TASK_OFFSET: &[Field] = &[
    always(Text),     // subtopology_id
    always(Fixed(4)), // partition
    always(Fixed(8)), // offset
];
pub(super) static STREAMS_GROUP_HEARTBEAT: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text),     // group_id
        always(Text),     // member_id
        always(Fixed(4)), // member_epoch
        always(Fixed(4)), // endpoint_information_epoch
        always(Text),     // instance_id
        always(Text),     // rack_id
        always(Fixed(4)), // rebalance_timeout_ms
        always(NullableStruct(&[
            always(Fixed(4)), // epoch
            always(List(&Struct(&[
                always(Text),                      // subtopology_id
                always(List(&Text)),               // source_topics
                always(List(&Text)),               // source_topic_regex
                always(List(&Struct(TOPIC_INFO))), // state_changelog_topics
                always(List(&Text)),               // repartition_sink_topics
                always(List(&Struct(TOPIC_INFO))), // repartition_source_topics
                always(List(&Struct(&[
                    always(List(&Fixed(2))), // source_topics
                    always(List(&Fixed(2))), // source_topic_regex
                    always(List(&Fixed(2))), // repartition_source_topics
                ]))), // copartition_groups
            ]))), // subtopologies
        ])), // topology
        always(Array(&Struct(TASK_IDS))), // active_tasks
        always(Array(&Struct(TASK_IDS))), // standby_tasks
        always(Array(&Struct(TASK_IDS))), // warmup_tasks
        always(Text),     // process_id
        always(NullableStruct(&[
            always(Text),     // host
            always(Fixed(2)), // port
        ])), // user_endpoint
        always(Array(&Struct(KEY_AND_VALUE))), // client_tags
        always(Array(&Struct(TASK_OFFSET))), // task_offsets
        always(Array(&Struct(TASK_OFFSET))), // task_end_offsets
        always(Fixed(1)), // shutdown_application
    ],
};
pub(super) static STREAMS_GROUP_DESCRIBE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(List(&Text)), // group_ids
        always(Fixed(1)),    // include_authorized_operations
    ],
};
