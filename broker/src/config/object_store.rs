//! Where the archive is and how to reach it.

use std::path::Path;
use std::time::Duration;

use varve_tiering::tier::bucket::{BucketOptions, S3Options};

use super::settings::Reader;

/// The object store's address, and how patient to be with it. Credentials come from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStoreConfig {
    /// `file://`, `s3://`, `gs://`, `az://` or `memory://`, with bucket and prefix.
    pub url: url::Url,
    /// It was given, and is not the directory in `varve.data.dir`.
    pub is_given: bool,
    /// URL of the API, for stores that speak S3 but are not AWS.
    pub endpoint: Option<String>,
    /// Region of the bucket; `None`: as the environment says.
    pub region: Option<String>,
    /// Whether the bucket's name goes into the path; `None`: exactly with an endpoint.
    pub path_style: Option<bool>,
    /// Tries of one request, the first included; at least 1.
    pub attempts: u32,
    /// The longest that one try may take, besides the time for moving its bytes.
    pub attempt_timeout: Duration,
}

impl ObjectStoreConfig {
    /// Whether objects lie on this machine, so that caching them on its disk gains nothing.
    pub fn is_local(&self) -> bool {
        matches!(self.url.scheme(), "file" | "memory")
    }

    /// How to open the bucket at [`url`](Self::url).
    pub fn bucket_options(&self) -> BucketOptions {
        BucketOptions {
            s3: S3Options { endpoint: self.endpoint.clone(), region: self.region.clone(), path_style: self.path_style },
            attempts: self.attempts,
            attempt_timeout: self.attempt_timeout,
            // One that is named may be a share. Were it made where that is not mounted, it would be taken for an archive that is empty.
            make_directory: !self.is_given,
            ..BucketOptions::default()
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>, data_dir: &Path) -> ObjectStoreConfig {
        let endpoint = reader.text("varve.object.store.endpoint");
        if endpoint.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            reader.invalid("varve.object.store.endpoint", "http://host:port or https://host:port");
        }
        ObjectStoreConfig {
            url: url(reader, data_dir),
            is_given: reader.text("varve.object.store.url").is_some(),
            endpoint,
            region: reader.text("varve.object.store.region"),
            path_style: reader.maybe_flag("varve.object.store.path.style"),
            attempts: reader.count("varve.object.store.request.attempts"),
            attempt_timeout: reader.millis("varve.object.store.request.timeout.ms"),
        }
    }
}

fn url(reader: &mut Reader<'_>, data_dir: &Path) -> url::Url {
    let name = "varve.object.store.url";
    let allowed = "file:///directory, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory://";
    let local = |directory: &Path| {
        let absolute = std::path::absolute(directory).unwrap_or_else(|_| Path::new("/").join(directory));
        url::Url::from_directory_path(absolute).unwrap_or_else(|()| unreachable!("the path was made absolute"))
    };
    let Some(text) = reader.text(name) else { return local(&data_dir.join("archive")) };
    // `file:archive` and `file://./archive` name a directory from where the node was started.
    if let Some(path) = text.strip_prefix("file:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() {
            reader.invalid(name, allowed);
        }
        return local(Path::new(path));
    }
    let parsed = url::Url::parse(&text).ok();
    let whole = |url: &url::Url| match url.scheme() {
        "s3" | "gs" | "az" => url.host_str().is_some_and(|bucket| !bucket.is_empty()),
        "memory" => true,
        _ => false,
    };
    parsed.filter(whole).unwrap_or_else(|| {
        reader.invalid(name, allowed);
        local(&data_dir.join("archive"))
    })
}
