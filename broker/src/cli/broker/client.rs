//! Asking a cluster: any of its brokers, or one of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use kafka_protocol::{error::ResponseError, protocol::Request};

use super::Bootstrap;
use crate::{
    cli::ConfigurationArgs,
    links::{Link, LinkError, LinkLimits},
    security::ListenerSecurity,
};

const LIMITS: LinkLimits = LinkLimits { setup: Duration::from_secs(10), answer: Duration::from_secs(60) };

/// Host and port.
type Address = (String, u16);

/// Connections to a cluster, one request at a time.
pub(in crate::cli) struct Client {
    bootstrap: Vec<Address>,
    /// How brokers speak with each other.
    security: Arc<ListenerSecurity>,
    /// Brokers that the cluster named, by id.
    brokers: BTreeMap<i32, Address>,
    open: BTreeMap<Address, Link>,
}

impl Client {
    /// For the brokers that were named, or the one of the configuration, which also says how to connect.
    ///
    /// # Errors
    /// They are not addresses, or the configuration is refused.
    pub(in crate::cli) fn of(at: &Bootstrap, configuration: &ConfigurationArgs) -> anyhow::Result<Client> {
        let config = configuration.load()?.config;
        let listener = &config.listeners.listeners[config.listeners.inter_broker];
        let texts = config.settings.texts();
        let security = ListenerSecurity::open_between_brokers(&listener.name, listener.protocol, &texts)
            .with_context(|| format!("the listener {}", listener.name))?;
        let bootstrap = match &at.bootstrap_server {
            Some(named) => named.split(',').map(|address| parse(address.trim())).collect::<anyhow::Result<_>>()?,
            None => {
                // A listener on all addresses has a name of its own where others are told one, which its certificate is for.
                let host = listener.own_host().map(str::to_owned);
                let told = config.listeners.told_of(&listener.name).filter(|_| host.is_none());
                let port = told.and_then(|told| told.port).unwrap_or(listener.port);
                let host = host.or_else(|| told.and_then(|told| told.host.clone()));
                vec![(host.unwrap_or_else(|| "localhost".to_owned()), port)]
            }
        };
        Ok(Client { bootstrap, security, brokers: BTreeMap::new(), open: BTreeMap::new() })
    }

    /// From now on these brokers are asked too.
    pub(in crate::cli) fn knows(&mut self, brokers: BTreeMap<i32, Address>) {
        self.brokers = brokers;
    }

    /// Asks whichever broker answers. A request whose answer is lost may be sent twice.
    ///
    /// # Errors
    /// None answers.
    pub(in crate::cli) async fn ask<R: Request>(&mut self, version: i16, request: &R) -> anyhow::Result<R::Response> {
        let mut places: Vec<Address> = self.open.keys().cloned().collect();
        places.extend(self.bootstrap.iter().chain(self.brokers.values()).cloned());
        let mut last = None;
        for place in places {
            match self.ask_at(&place, version, request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(anyhow::Error::from(error).context(format!("{}:{}", place.0, place.1))),
            }
        }
        Err(last.context("no broker is known")?.context("no broker answers"))
    }

    /// Asks one broker.
    ///
    /// # Errors
    /// It does not answer, or its address is not known.
    pub(in crate::cli) async fn ask_broker<R: Request>(
        &mut self,
        id: i32,
        version: i16,
        request: &R,
    ) -> anyhow::Result<R::Response> {
        let place = self.brokers.get(&id).with_context(|| format!("there is no broker {id}"))?.clone();
        self.ask_at(&place, version, request).await.with_context(|| format!("broker {id} at {}:{}", place.0, place.1))
    }

    async fn ask_at<R: Request>(
        &mut self,
        place: &Address,
        version: i16,
        request: &R,
    ) -> Result<R::Response, LinkError> {
        // One that broke is made anew once: the broker may have been started again since.
        let kept = self.open.remove(place).filter(Link::is_open);
        let mut link = match kept {
            Some(link) => link,
            None => {
                let security = self.security.clone();
                Link::connect(&place.0, place.1, security, "varve-broker-cli".to_owned(), LIMITS).await?
            }
        };
        let answer = link.ask(version, request).await?;
        self.open.insert(place.clone(), link);
        Ok(answer)
    }
}

fn parse(address: &str) -> anyhow::Result<Address> {
    let parsed = address.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    let (host, port) = parsed.with_context(|| format!("{address} is not HOST:PORT"))?;
    ensure!(!host.is_empty(), "{address} is not HOST:PORT");
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

/// Kafka's error, in words.
///
/// # Errors
/// The code is one.
pub(in crate::cli) fn check(code: i16, message: Option<&str>) -> anyhow::Result<()> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => match message.filter(|message| !message.is_empty()) {
            Some(message) => bail!("{message} ({error:?})"),
            None => bail!("{error:?}"),
        },
    }
}
