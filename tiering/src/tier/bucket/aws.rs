//! Credentials through AWS's own chain: environment, profile, web identity, container, instance.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::{Builder, tls};
use futures::future::BoxFuture;
use object_store::{CredentialProvider, aws::AwsCredential};
use tokio::sync::Mutex;

/// Asked anew this long before they end, so that no request is signed with what ends under way.
const BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);

/// What the environment says about AWS: region and where credentials come from. `region` overrides.
pub(super) async fn environment(region: Option<&str>) -> SdkConfig {
    let http = Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    loader.load().await
}

/// AWS's chain as `object_store` wants it, remembering credentials until shortly before they end.
pub(super) struct ChainCredentials {
    chain: SharedCredentialsProvider,
    last: Mutex<Option<(Arc<AwsCredential>, Option<SystemTime>)>>,
}

impl ChainCredentials {
    pub(super) fn new(chain: SharedCredentialsProvider) -> ChainCredentials {
        ChainCredentials { chain, last: Mutex::new(None) }
    }

    async fn current(&self) -> object_store::Result<Arc<AwsCredential>> {
        // Held while asking: one question at a time, and those who wait get its answer.
        let mut last = self.last.lock().await;
        if let Some((credential, expiry)) = last.as_ref()
            && expiry.is_none_or(|expiry| SystemTime::now() + BEFORE_EXPIRY < expiry)
        {
            return Ok(Arc::clone(credential));
        }
        let found = self.chain.provide_credentials().await.map_err(|error| object_store::Error::Unauthenticated {
            path: "credentials".to_owned(),
            source: Box::new(error),
        })?;
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        });
        *last = Some((Arc::clone(&credential), found.expiry()));
        Ok(credential)
    }
}

impl std::fmt::Debug for ChainCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChainCredentials")
    }
}

impl CredentialProvider for ChainCredentials {
    type Credential = AwsCredential;

    fn get_credential<'a, 'b>(&'a self) -> BoxFuture<'b, object_store::Result<Arc<AwsCredential>>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.current())
    }
}
