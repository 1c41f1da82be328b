//! Topics, settings, quotas, and metrics of clients.

use crate::wire::shape::{
    Kind::{Array, Blob, Fixed, Struct, Text},
    Shape, always, between, since,
};

pub(in crate::wire) static CREATE_TOPICS: Shape = Shape {
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

pub(in crate::wire) static DELETE_TOPICS: Shape = Shape {
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

pub(in crate::wire) static CREATE_PARTITIONS: Shape = Shape {
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

pub(in crate::wire) static DESCRIBE_CONFIGS: Shape = Shape {
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

pub(in crate::wire) static ALTER_CONFIGS: Shape = Shape {
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

pub(in crate::wire) static INCREMENTAL_ALTER_CONFIGS: Shape = Shape {
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

pub(in crate::wire) static LIST_CONFIG_RESOURCES: Shape = Shape {
    flexible_since: 0,
    fields: &[
        since(1, Array(&Fixed(1))), // resource_types
    ],
};

pub(in crate::wire) static DESCRIBE_CLIENT_QUOTAS: Shape = Shape {
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

pub(in crate::wire) static ALTER_CLIENT_QUOTAS: Shape = Shape {
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

pub(in crate::wire) static GET_TELEMETRY_SUBSCRIPTIONS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(16)), // client_instance_id
    ],
};

pub(in crate::wire) static PUSH_TELEMETRY: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Fixed(16)), // client_instance_id
        always(Fixed(4)),  // subscription_id
        always(Fixed(1)),  // terminating
        always(Fixed(1)),  // compression_type
        always(Blob),      // metrics
    ],
};
