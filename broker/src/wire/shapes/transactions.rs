//! Producer ids and transactions.

use crate::wire::shape::{
    Field,
    Kind::{Array, Fixed, Struct, Text},
    Shape, always, between, since,
};

pub(in crate::wire) static INIT_PRODUCER_ID: Shape = Shape {
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

const PARTITIONS_OF_TOPIC: &[Field] = &[
    always(Text),             // name
    always(Array(&Fixed(4))), // partitions
];

pub(in crate::wire) static ADD_PARTITIONS_TO_TXN: Shape = Shape {
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

pub(in crate::wire) static ADD_OFFSETS_TO_TXN: Shape = Shape {
    flexible_since: 3,
    fields: &[
        always(Text),     // transactional_id
        always(Fixed(8)), // producer_id
        always(Fixed(2)), // producer_epoch
        always(Text),     // group_id
    ],
};

pub(in crate::wire) static END_TXN: Shape = Shape {
    flexible_since: 3,
    fields: &[
        always(Text),     // transactional_id
        always(Fixed(8)), // producer_id
        always(Fixed(2)), // producer_epoch
        always(Fixed(1)), // committed
    ],
};

pub(in crate::wire) static WRITE_TXN_MARKERS: Shape = Shape {
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

pub(in crate::wire) static TXN_OFFSET_COMMIT: Shape = Shape {
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

pub(in crate::wire) static DESCRIBE_PRODUCERS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Struct(PARTITIONS_OF_TOPIC))), // topics
    ],
};

pub(in crate::wire) static DESCRIBE_TRANSACTIONS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Text)), // transactional_ids
    ],
};

pub(in crate::wire) static LIST_TRANSACTIONS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Text)),     // state_filters
        always(Array(&Fixed(8))), // producer_id_filters
        since(1, Fixed(8)),       // duration_filter
        since(2, Text),           // transactional_id_pattern
    ],
};
