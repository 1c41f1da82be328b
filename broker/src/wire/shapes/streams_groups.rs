//! Streams groups (KIP-1071).

use crate::wire::shape::{
    Field,
    Kind::{Array, Fixed, List, NullableStruct, Struct, Text},
    Shape, always,
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

pub(in crate::wire) static STREAMS_GROUP_HEARTBEAT: Shape = Shape {
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

pub(in crate::wire) static STREAMS_GROUP_DESCRIBE: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(List(&Text)), // group_ids
        always(Fixed(1)),    // include_authorized_operations
    ],
};
