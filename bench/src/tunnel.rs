//! TLS for a load generator that has none: what comes to a plain address of loopback goes on to a broker's TLS listener.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, mpsc},
};

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// A tunnel; it goes with the process.
pub(crate) struct Tunnel {
    /// Where to connect in plain text.
    pub(crate) address: SocketAddr,
}

impl Tunnel {
    /// Leads to `broker`, whose certificate `authority` (a PEM file) has signed for 127.0.0.1.
    pub(crate) fn to(broker: SocketAddr, authority: &Path) -> Result<Tunnel> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).context("the authority's certificate")?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let (ready, address) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("tunnel".into()).spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                ready.send(listener.local_addr()?)?;
                loop {
                    let (plain, _) = listener.accept().await?;
                    tokio::spawn(carry(plain, broker, connector.clone()));
                }
            })
        })?;
        Ok(Tunnel { address: address.recv().context("the tunnel opened")? })
    }
}

/// One connection, until either end closes it. An error closes it too, which the load generator sees.
async fn carry(mut plain: TcpStream, broker: SocketAddr, connector: TlsConnector) -> std::io::Result<()> {
    let onward = TcpStream::connect(broker).await?;
    plain.set_nodelay(true)?;
    onward.set_nodelay(true)?;
    let mut onward = connector.connect(ServerName::IpAddress(broker.ip().into()), onward).await?;
    tokio::io::copy_bidirectional_with_sizes(&mut plain, &mut onward, 64 << 10, 64 << 10).await.map(drop)
}
