//! Opening a bucket by its URL.

use std::{path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, S3ConditionalPut},
    azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem,
    memory::InMemory,
    multipart::MultipartStore,
};
use url::Url;

use super::{
    aws::{ChainCredentials, environment},
    local::LocalDirectory,
    metrics::BucketMetrics,
    requests::{Backend, Bucket},
};

/// How to talk to the bucket. The default suits a store in the same region.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// Only for `s3://`.
    pub s3: S3Options,
    /// Attempts of one request, the first included; at least 1.
    pub attempts: u32,
    /// Longest pause after the first failure; doubles with each, up to `longest_pause`. The pause taken is random below it.
    pub first_pause: Duration,
    /// Upper bound of the pause between attempts.
    pub longest_pause: Duration,
    /// Time for one attempt, besides the time to move its bytes at `slowest_rate`.
    pub attempt_timeout: Duration,
    /// Bytes per second below which a transfer counts as stuck.
    pub slowest_rate: u64,
    /// Objects above this many bytes go up in parts of this size. At least 5 MiB (S3's rule).
    pub part_bytes: usize,
    /// Parts of one object in flight; together with `part_bytes` the memory of one upload.
    pub parts_in_flight: usize,
    /// Whether a directory (`file://`) that is not there is made. Not where it may be one that is to be mounted.
    pub make_directory: bool,
}

/// What an S3-compatible store needs besides bucket and prefix.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// Where the store listens, if it is not AWS: `http://host:port` or `https://…`.
    pub endpoint: Option<String>,
    /// Region; `None` asks the environment as AWS's tools do, and falls back on `us-east-1`.
    pub region: Option<String>,
    /// Bucket in the path and not in the host name. `None`: exactly if an endpoint is given.
    pub path_style: Option<bool>,
}

impl Default for BucketOptions {
    fn default() -> BucketOptions {
        BucketOptions {
            s3: S3Options::default(),
            attempts: 6,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(20),
            slowest_rate: 256 << 10,
            part_bytes: 8 << 20,
            parts_in_flight: 4,
            make_directory: true,
        }
    }
}

/// Why a bucket cannot be opened. Configuration is wrong: trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No URL, or one without what its scheme needs.
    #[error("{url:?} is not a bucket: {why}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such directory, and it is not to be made.
    #[error("{} is not there: mount it, or make it", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The local directory cannot be made or read.
    #[error("cannot use {} as a bucket", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the file system says.
        source: std::io::Error,
    },
    /// The store's client does not take the configuration.
    #[error("the object store's configuration is refused")]
    Client(#[from] object_store::Error),
}

impl Bucket {
    /// Opens the bucket at `url`: `file:///directory`, `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix` (account and key from `AZURE_STORAGE_…`), `memory://` (gone with the process). Asks the store
    /// nothing yet.
    ///
    /// # Errors
    /// [`OpenError`]: the URL or the configuration is wrong.
    pub async fn open(url: &str, options: BucketOptions, metrics: BucketMetrics) -> Result<Bucket, OpenError> {
        let refused = |why: &str| OpenError::Url { url: url.to_owned(), why: why.to_owned() };
        let parsed = Url::parse(url).map_err(|error| refused(&error.to_string()))?;
        let host = || parsed.host_str().filter(|host| !host.is_empty()).ok_or_else(|| refused("it names no bucket"));
        let prefix = parsed.path().trim_matches('/');
        if let Some(key) = parsed.query().or(parsed.fragment()) {
            return Err(refused(&format!("{key:?} after the path means nothing here")));
        }
        let (store, backend, prefix) = match parsed.scheme() {
            "file" => {
                let path = parsed.to_file_path().map_err(|()| refused("it names no directory"))?;
                if !options.make_directory && !path.try_exists().unwrap_or(true) {
                    return Err(OpenError::NoDirectory { path });
                }
                let directory = LocalDirectory::open(&path).map_err(|source| OpenError::Directory { path, source })?;
                let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory.root())?);
                (store, Backend::Local(Arc::new(directory)), "")
            }
            "memory" => with_parts(InMemory::new(), prefix),
            "s3" => with_parts(s3(host()?, &options).await?, prefix),
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(host()?);
                let builder = builder.with_retry(no_retry()).with_client_options(client(&options, false));
                with_parts(builder.build()?, prefix)
            }
            "az" => {
                let builder = MicrosoftAzureBuilder::from_env().with_container_name(host()?);
                let builder = builder.with_retry(no_retry()).with_client_options(client(&options, false));
                with_parts(builder.build()?, prefix)
            }
            other => return Err(refused(&format!("scheme {other:?} is none of file, s3, gs, az, memory"))),
        };
        let root = object_store::path::Path::parse(prefix).map_err(|error| refused(&error.to_string()))?;
        Ok(Bucket::new(url, store, backend, root, options, metrics))
    }

    /// A bucket that is gone with the process, for tests.
    pub fn memory() -> Bucket {
        let (store, backend, _) = with_parts(InMemory::new(), "");
        Bucket::new("memory://", store, backend, Default::default(), BucketOptions::default(), BucketMetrics::new())
    }

    /// A bucket over a store of the caller's own making, for tests that need faults.
    pub fn over<S: ObjectStore + MultipartStore>(store: S, options: BucketOptions) -> Bucket {
        Bucket::over_shared(Arc::new(store), options)
    }

    /// The same, where the test keeps the store in hand.
    pub fn over_shared<S: ObjectStore + MultipartStore>(store: Arc<S>, options: BucketOptions) -> Bucket {
        let (store, backend) = (Arc::clone(&store) as Arc<dyn ObjectStore>, Backend::Remote(store));
        Bucket::new("custom://", store, backend, Default::default(), options, BucketMetrics::new())
    }
}

fn with_parts<S: ObjectStore + MultipartStore>(store: S, prefix: &str) -> (Arc<dyn ObjectStore>, Backend, &str) {
    let store = Arc::new(store);
    (Arc::clone(&store) as Arc<dyn ObjectStore>, Backend::Remote(store), prefix)
}

async fn s3(bucket: &str, options: &BucketOptions) -> Result<impl ObjectStore + MultipartStore, OpenError> {
    let environment = environment(options.s3.region.as_deref()).await;
    let region = environment.region().map_or("us-east-1", |region| region.as_ref()).to_owned();
    let endpoint = options.s3.endpoint.clone().or_else(|| environment.endpoint_url().map(str::to_owned));
    let plain = endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_virtual_hosted_style_request(!options.s3.path_style.unwrap_or(endpoint.is_some()))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(no_retry())
        .with_client_options(client(options, plain));
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(chain) = environment.credentials_provider() {
        builder = builder.with_credentials(Arc::new(ChainCredentials::new(chain)));
    }
    Ok(builder.build()?)
}

/// Repeating is done in one place, ours, where a repeated create is told from somebody else's.
fn no_retry() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn client(options: &BucketOptions, allow_http: bool) -> ClientOptions {
    // The time of a whole request depends on its bytes, so it is bounded where those are known.
    ClientOptions::new()
        .with_allow_http(allow_http)
        .with_connect_timeout(options.attempt_timeout)
        .with_timeout_disabled()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const OPENING: &str = "VARVE_TEST_OPENING";

    /// Opens `url` in a process of its own that has these variables and no others of a cloud; what became of it.
    fn opened(url: &str, variables: &[(&str, &str)]) -> String {
        let test =
            "tier::bucket::open::tests::buckets_of_google_and_azure_open_with_the_credentials_of_the_environment";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--nocapture"]).env_clear().env(OPENING, url).envs(variables.iter().copied());
        let output = child.output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
        printed.lines().find_map(|line| line.split_once("outcome: ")).unwrap().1.to_owned()
    }

    /// Nothing is asked of the store, so this says no more than that the URL and the variables are understood.
    #[test]
    fn buckets_of_google_and_azure_open_with_the_credentials_of_the_environment() {
        if let Ok(url) = std::env::var(OPENING) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let opened = runtime.block_on(Bucket::open(&url, BucketOptions::default(), BucketMetrics::new()));
            return match opened {
                Ok(_) => println!("outcome: opened"),
                Err(error) => println!("outcome: {error}"),
            };
        }
        let folder = tempfile::tempdir().unwrap();
        let credentials = folder.path().join("credentials.json");
        let user = r#"{"type":"authorized_user","client_id":"a","client_secret":"b","refresh_token":"c"}"#;
        std::fs::write(&credentials, user).unwrap();
        let google = [("GOOGLE_APPLICATION_CREDENTIALS", credentials.to_str().unwrap())];
        assert_eq!(opened("gs://bucket/a/prefix", &google), "opened");
        let azure = [("AZURE_STORAGE_ACCOUNT_NAME", "account"), ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")];
        assert_eq!(opened("az://container/a/prefix", &azure), "opened");
        assert_eq!(opened("az://container/a/prefix", &[]), "the object store's configuration is refused");
        assert!(opened("gs://", &google).contains("it names no bucket"));
    }
}
