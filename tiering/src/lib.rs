//! The bucket: object layout, manifest, upload, cold reads and their cache.
