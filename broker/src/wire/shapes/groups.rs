//! Groups of the classic and the `consumer` protocol, and the offsets of all.

use crate::wire::shape::{
    Field,
    Kind::{Array, Blob, Fixed, List, Struct, Text},
    Shape, always, between, since,
};

pub(in crate::wire) static FIND_COORDINATOR: Shape = Shape {
    flexible_since: 3,
    fields: &[
        between(0, 3, Text),    // key
        since(1, Fixed(1)),     // key_type
        since(4, Array(&Text)), // coordinator_keys
    ],
};

pub(in crate::wire) static JOIN_GROUP: Shape = Shape {
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

pub(in crate::wire) static SYNC_GROUP: Shape = Shape {
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

pub(in crate::wire) static HEARTBEAT: Shape = Shape {
    flexible_since: 4,
    fields: &[
        always(Text),     // group_id
        always(Fixed(4)), // generation_id
        always(Text),     // member_id
        since(3, Text),   // group_instance_id
    ],
};

pub(in crate::wire) static LEAVE_GROUP: Shape = Shape {
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

pub(in crate::wire) static CONSUMER_GROUP_HEARTBEAT: Shape = Shape {
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

pub(in crate::wire) static CONSUMER_GROUP_DESCRIBE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Text)), // group_ids
        always(Fixed(1)),     // include_authorized_operations
    ],
};

pub(in crate::wire) static DESCRIBE_GROUPS: Shape = Shape {
    flexible_since: 5,
    fields: &[
        always(Array(&Text)), // groups
        since(3, Fixed(1)),   // include_authorized_operations
    ],
};

pub(in crate::wire) static LIST_GROUPS: Shape = Shape {
    flexible_since: 3,
    fields: &[
        since(4, Array(&Text)), // states_filter
        since(5, Array(&Text)), // types_filter
    ],
};

pub(in crate::wire) static DELETE_GROUPS: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Text)), // groups_names
    ],
};

pub(in crate::wire) static OFFSET_COMMIT: Shape = Shape {
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

pub(in crate::wire) static OFFSET_FETCH: Shape = Shape {
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

pub(in crate::wire) static OFFSET_DELETE: Shape = Shape {
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
