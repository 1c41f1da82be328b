//! A link's bytes, in the clear or through TLS.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// One connection below Kafka's protocol.
#[derive(Debug)]
pub(super) enum LinkStream {
    Plain(TcpStream),
    /// Boxed: its state is several kilobytes.
    Tls(Box<TlsStream<TcpStream>>),
}

impl LinkStream {
    /// Speaks TLS over `stream`, with whoever `host` is.
    ///
    /// # Errors
    /// `host` is neither a name nor an address, or one side does not take the other's certificate.
    pub(super) async fn secure(stream: TcpStream, host: &str, config: Arc<ClientConfig>) -> io::Result<LinkStream> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        // Boxed: what a handshake needs is gone when it is over.
        let stream = Box::pin(TlsConnector::from(config).connect(name, stream)).await?;
        Ok(LinkStream::Tls(Box::new(stream)))
    }

    /// Whether the other side has neither closed the connection nor sent what nobody asked for, as far as is known.
    pub(super) fn is_silent(&self) -> bool {
        let tcp = match self {
            LinkStream::Plain(stream) => stream,
            LinkStream::Tls(stream) => stream.get_ref().0,
        };
        let mut byte = [0; 1];
        matches!(tcp.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkStream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            LinkStream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            LinkStream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            LinkStream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkStream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            LinkStream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkStream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            LinkStream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
