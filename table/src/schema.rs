//! The columns of a Parquet object and how each is written.
//!
//! ```text
//! id  column                   Parquet                          encoding
//!  1  offset                   int64, required                  DELTA_BINARY_PACKED
//!  2  timestamp                timestamp(us, UTC), optional     DELTA_BINARY_PACKED
//!  3  key                      binary, optional                 dictionary where keys repeat, else PLAIN; Bloom filter
//!  4  headers                  list<element>, required
//!  5    element                struct, required
//!  6      key                  binary, required                 dictionary
//!  7      value                binary, optional                 dictionary where values repeat, else PLAIN
//!  8  value                    binary, optional                 PLAIN
//! ```
//! Small columns come first and `value` last, so that a fetch is two runs of bytes. A record without headers has an empty
//! list. `timestamp` is the record's own timestamp (under LogAppendTime the time of the append, as a consumer sees it); it
//! is null where Kafka has none (-1) and where the milliseconds do not fit (negative, or beyond `i64::MAX` microseconds).

use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use parquet::{
    arrow::parquet_to_arrow_schema,
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{BloomFilterPosition, EnabledStatistics, WriterProperties, WriterPropertiesPtr, WriterVersion},
    schema::{
        parser::parse_message_type,
        types::{ColumnPath, SchemaDescPtr, SchemaDescriptor},
    },
};

use crate::options::EncodeOptions;

const MESSAGE: &str = "
message varve {
  REQUIRED INT64 offset = 1;
  OPTIONAL INT64 timestamp (TIMESTAMP(MICROS,true)) = 2;
  OPTIONAL BYTE_ARRAY key = 3;
  REQUIRED GROUP headers (LIST) = 4 {
    REPEATED GROUP list {
      REQUIRED GROUP element = 5 {
        REQUIRED BYTE_ARRAY key = 6;
        OPTIONAL BYTE_ARRAY value = 7;
      }
    }
  }
  OPTIONAL BYTE_ARRAY value = 8;
}
";

/// Leaf columns of a row group.
pub(crate) const COLUMNS: usize = 6;
/// Places among the leaf columns of a row group.
pub(crate) const OFFSET_LEAF: usize = 0;
pub(crate) const KEY_LEAF: usize = 2;
pub(crate) const VALUE_LEAF: usize = 5;

/// The Parquet schema, parsed once.
pub(crate) fn parquet_schema() -> SchemaDescPtr {
    static SCHEMA: OnceLock<SchemaDescPtr> = OnceLock::new();
    SCHEMA
        .get_or_init(|| {
            let message = parse_message_type(MESSAGE).expect("a constant that a test parses");
            Arc::new(SchemaDescriptor::new(Arc::new(message)))
        })
        .clone()
}

/// The Arrow schema of the same columns, with byte columns as views: a view borrows from the decompressed page or batch,
/// an offset array would copy.
pub(crate) fn arrow_schema() -> SchemaRef {
    static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
    SCHEMA
        .get_or_init(|| {
            let plain = parquet_to_arrow_schema(&parquet_schema(), None).expect("a constant that a test converts");
            Arc::new(Schema::new(plain.fields().iter().map(with_views).collect::<Fields>()))
        })
        .clone()
}

fn with_views(field: &Arc<Field>) -> Arc<Field> {
    let data_type = match field.data_type() {
        DataType::Binary => DataType::BinaryView,
        DataType::List(element) => DataType::List(with_views(element)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(with_views).collect()),
        other => other.clone(),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

/// Which byte columns of one row group repeat themselves enough for a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dictionaries {
    pub(crate) key: bool,
    pub(crate) header_value: bool,
}

/// Properties of the columns of one row group.
pub(crate) fn writer_properties(
    options: &EncodeOptions,
    dictionaries: Dictionaries,
    group_rows: u64,
) -> WriterPropertiesPtr {
    let path = |parts: &[&str]| ColumnPath::new(parts.iter().map(|part| (*part).to_owned()).collect());
    let (offset, timestamp) = (path(&["offset"]), path(&["timestamp"]));
    let (key, value) = (path(&["key"]), path(&["value"]));
    let header_key = path(&["headers", "list", "element", "key"]);
    let header_value = path(&["headers", "list", "element", "value"]);
    let level = ZstdLevel::try_new(options.zstd_level).unwrap_or_default();
    let properties = WriterProperties::builder()
        .set_created_by(concat!("varve ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(level))
        .set_data_page_size_limit(options.page_bytes)
        .set_data_page_row_count_limit(usize::MAX)
        .set_write_batch_size(256)
        .set_max_row_group_row_count(None)
        .set_bloom_filter_position(BloomFilterPosition::AfterRowGroup)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_statistics_enabled(offset.clone(), EnabledStatistics::Page)
        .set_column_statistics_enabled(timestamp.clone(), EnabledStatistics::Page)
        .set_column_encoding(offset, Encoding::DELTA_BINARY_PACKED)
        .set_column_encoding(timestamp, Encoding::DELTA_BINARY_PACKED)
        .set_column_encoding(value, Encoding::PLAIN)
        .set_column_dictionary_enabled(key.clone(), dictionaries.key)
        .set_column_dictionary_enabled(header_key, true)
        .set_column_dictionary_enabled(header_value, dictionaries.header_value)
        .set_column_bloom_filter_enabled(key.clone(), true)
        .set_column_bloom_filter_fpp(key.clone(), 0.01)
        // Without it the filter is sized for the largest row group there could be. It is folded to what was inserted.
        .set_column_bloom_filter_ndv(key, group_rows.max(1));
    Arc::new(properties.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_id_and_place() {
        let schema = parquet_schema();
        let leaves: Vec<_> = schema
            .columns()
            .iter()
            .map(|leaf| (leaf.path().string(), leaf.self_type().get_basic_info().id()))
            .collect();
        let expected = [
            ("offset", 1),
            ("timestamp", 2),
            ("key", 3),
            ("headers.list.element.key", 6),
            ("headers.list.element.value", 7),
            ("value", 8),
        ];
        assert_eq!(leaves, expected.map(|(path, id)| (path.to_owned(), id)));
        assert_eq!(expected.len(), COLUMNS);
        let places = [OFFSET_LEAF, KEY_LEAF, VALUE_LEAF].map(|leaf| expected[leaf].0);
        assert_eq!(places, ["offset", "key", "value"]);
    }

    #[test]
    fn byte_columns_are_views_in_memory() {
        let schema = arrow_schema();
        assert_eq!(schema.field(2).data_type(), &DataType::BinaryView);
        assert_eq!(schema.field(0).data_type(), &DataType::Int64);
        assert!(schema.field(1).data_type().to_string().contains("UTC"));
    }
}
