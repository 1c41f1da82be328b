//! What there is: brokers, topics and where partitions are; and moving them.

use crate::wire::shape::{
    Kind::{Array, Fixed, List, NullableStruct, Struct, Text},
    Shape, always, between, since,
};

pub(in crate::wire) static API_VERSIONS: Shape = Shape {
    flexible_since: 3,
    fields: &[
        since(3, Text), // client_software_name
        since(3, Text), // client_software_version
    ],
};

pub(in crate::wire) static METADATA: Shape = Shape {
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

pub(in crate::wire) static DESCRIBE_CLUSTER: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(1)),   // include_cluster_authorized_operations
        since(1, Fixed(1)), // endpoint_type
        since(2, Fixed(1)), // include_fenced_brokers
    ],
};

pub(in crate::wire) static DESCRIBE_TOPIC_PARTITIONS: Shape = Shape {
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

pub(in crate::wire) static DESCRIBE_QUORUM: Shape = Shape {
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

pub(in crate::wire) static UPDATE_FEATURES: Shape = Shape {
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

pub(in crate::wire) static UNREGISTER_BROKER: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(4)), // broker_id
    ],
};

pub(in crate::wire) static ELECT_LEADERS: Shape = Shape {
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

pub(in crate::wire) static ALTER_PARTITION_REASSIGNMENTS: Shape = Shape {
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

pub(in crate::wire) static LIST_PARTITION_REASSIGNMENTS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(4)), // timeout_ms
        always(Array(&Struct(&[
            always(Text),             // name
            always(Array(&Fixed(4))), // partition_indexes
        ]))), // topics
    ],
};

pub(in crate::wire) static ALTER_REPLICA_LOG_DIRS: Shape = Shape {
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

pub(in crate::wire) static DESCRIBE_LOG_DIRS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Struct(&[
            always(Text),             // topic
            always(Array(&Fixed(4))), // partitions
        ]))), // topics
    ],
};
