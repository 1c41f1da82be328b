//! Share groups (KIP-932), and the keepers of their state.

use crate::wire::shape::{
    Field,
    Kind::{Array, Fixed, Struct, Text},
    Shape, always, since,
};

pub(in crate::wire) static SHARE_GROUP_HEARTBEAT: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text),         // group_id
        always(Text),         // member_id
        always(Fixed(4)),     // member_epoch
        always(Text),         // rack_id
        always(Array(&Text)), // subscribed_topic_names
    ],
};

pub(in crate::wire) static SHARE_GROUP_DESCRIBE: Shape = Shape {
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

pub(in crate::wire) static SHARE_FETCH: Shape = Shape {
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

pub(in crate::wire) static SHARE_ACKNOWLEDGE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text),                                      // group_id
        always(Text),                                      // member_id
        always(Fixed(4)),                                  // share_session_epoch
        since(2, Fixed(1)),                                // is_renew_ack
        always(Array(&Struct(ACKNOWLEDGEMENTS_OF_TOPIC))), // topics
    ],
};

pub(in crate::wire) static INITIALIZE_SHARE_GROUP_STATE: Shape = Shape {
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

pub(in crate::wire) static READ_SHARE_GROUP_STATE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text),                             // group_id
        always(Array(&Struct(LEADERS_OF_TOPIC))), // topics
    ],
};

pub(in crate::wire) static READ_SHARE_GROUP_STATE_SUMMARY: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text),                             // group_id
        always(Array(&Struct(LEADERS_OF_TOPIC))), // topics
    ],
};

pub(in crate::wire) static WRITE_SHARE_GROUP_STATE: Shape = Shape {
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

pub(in crate::wire) static DELETE_SHARE_GROUP_STATE: Shape = Shape {
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

pub(in crate::wire) static DESCRIBE_SHARE_GROUP_OFFSETS: Shape = Shape {
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

pub(in crate::wire) static ALTER_SHARE_GROUP_OFFSETS: Shape = Shape {
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

pub(in crate::wire) static DELETE_SHARE_GROUP_OFFSETS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Text), // group_id
        always(Array(&Struct(&[
            always(Text), // topic_name
        ]))), // topics
    ],
};
