//! A connection's bytes, in the clear or through TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

/// How long the other end may take over the end of TLS. It is not waited for beyond that: it would get nothing more anyway.
const GOODBYE: Duration = Duration::from_secs(1);

/// One connection below Kafka's protocol.
pub(super) enum Transport {
    Plain(TcpStream),
    /// Boxed: its state is several kilobytes, which plaintext connections need not carry.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Reads some bytes, at most `limit`, into the empty or started `buffer`; 0 is the end. While nothing comes, an empty
    /// buffer holds no memory: ten thousand idle connections weigh little.
    pub(super) async fn read_some(&mut self, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => loop {
                buffer.reserve(limit);
                match stream.try_read_buf(&mut (&mut *buffer).limit(limit)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if buffer.is_empty() {
                            *buffer = BytesMut::new();
                        }
                        stream.readable().await?;
                    }
                    read => return read,
                }
            },
            // What was decrypted waits in TLS's own buffer, so a small read costs no call of the system.
            Transport::Tls(stream) => {
                let mut first = [0; 4];
                let read = stream.read(&mut first).await?;
                buffer.extend_from_slice(&first[..read]);
                Ok(read)
            }
        }
    }

    /// Tells the other end that nothing more comes.
    pub(super) async fn close(mut self) {
        if let Transport::Tls(stream) = &mut self {
            let _ = timeout(GOODBYE, stream.shutdown()).await;
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
