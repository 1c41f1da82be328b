//! Rewrites the archive: raw segments to Parquet, key compaction, merge, expiry, sweep.
