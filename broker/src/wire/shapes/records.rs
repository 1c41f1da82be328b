//! Records: produced, read, looked for by time or epoch, deleted.

use crate::wire::shape::{
    Kind::{Array, Blob, Fixed, Struct, Text},
    Shape, always, between, since, tagged,
};

pub(in crate::wire) static PRODUCE: Shape = Shape {
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

pub(in crate::wire) static FETCH: Shape = Shape {
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

pub(in crate::wire) static LIST_OFFSETS: Shape = Shape {
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

pub(in crate::wire) static OFFSET_FOR_LEADER_EPOCH: Shape = Shape {
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

pub(in crate::wire) static DELETE_RECORDS: Shape = Shape {
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
