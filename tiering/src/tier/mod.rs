//! IO: the bucket, the manifests in it, uploads, the archiver, cold reads.
