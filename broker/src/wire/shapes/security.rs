//! Who somebody is, and what they may do.

use crate::wire::shape::{
    Kind::{Array, Blob, Fixed, Struct, Text},
    Shape, always, since,
};

pub(in crate::wire) static SASL_HANDSHAKE: Shape = Shape {
    flexible_since: i16::MAX,
    fields: &[
        always(Text), // mechanism
    ],
};

pub(in crate::wire) static SASL_AUTHENTICATE: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Blob), // auth_bytes
    ],
};

pub(in crate::wire) static DESCRIBE_USER_SCRAM_CREDENTIALS: Shape = Shape {
    flexible_since: 0,
    fields: &[
        always(Array(&Struct(&[
            always(Text), // name
        ]))), // users
    ],
};

pub(in crate::wire) static ALTER_USER_SCRAM_CREDENTIALS: Shape = Shape {
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

pub(in crate::wire) static CREATE_DELEGATION_TOKEN: Shape = Shape {
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

pub(in crate::wire) static RENEW_DELEGATION_TOKEN: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Blob),     // hmac
        always(Fixed(8)), // renew_period_ms
    ],
};

pub(in crate::wire) static EXPIRE_DELEGATION_TOKEN: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Blob),     // hmac
        always(Fixed(8)), // expiry_time_period_ms
    ],
};

pub(in crate::wire) static DESCRIBE_DELEGATION_TOKEN: Shape = Shape {
    flexible_since: 2,
    fields: &[
        always(Array(&Struct(&[
            always(Text), // principal_type
            always(Text), // principal_name
        ]))), // owners
    ],
};

pub(in crate::wire) static DESCRIBE_ACLS: Shape = Shape {
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

pub(in crate::wire) static CREATE_ACLS: Shape = Shape {
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

pub(in crate::wire) static DELETE_ACLS: Shape = Shape {
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
