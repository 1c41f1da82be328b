//! The Parquet object: record batches to columns and back, byte for byte. Pure: no IO, no clock.
