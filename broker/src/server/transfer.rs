//! Sends answers: from memory, and the records of a fetch from where they lie.
//!
//! A reader may take as long as it likes over an answer, as long as it takes *something* now and then: each step has a time
//! of its own, after which [`io::ErrorKind::TimedOut`] ends the connection.

use std::{io, os::unix::fs::FileExt, time::Duration};

use rustix::net::SendFlags;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, Interest},
    net::TcpStream,
    time::timeout,
};
use varve_log::local::LogSlice;

use super::transport::Transport;
use crate::wire::fetch_response::{FetchFrame, Source};

/// What an encrypted answer is gathered in, piece by piece: all that one takes, however long it is.
const GATHER_BYTES: usize = 64 * 1024;

/// Sends `frame` whole. A reader that takes its time holds up this connection and nothing else: the task sleeps until the
/// socket has room again, and gives up when none came for `stall`.
///
/// # Errors
/// Of the socket or the file; the connection cannot be used after it.
pub(super) async fn send(transport: &mut Transport, frame: FetchFrame, stall: Duration) -> io::Result<()> {
    match transport {
        Transport::Plain(stream) => send_plain(stream, frame, stall).await,
        Transport::Tls(stream) => {
            let buffer = Vec::with_capacity(GATHER_BYTES.min(usize::try_from(frame.bytes()).unwrap_or(GATHER_BYTES)));
            Gather { stream: stream.as_mut(), buffer, stall }.send(frame).await
        }
    }
}

/// An answer on its way through TLS, which encrypts what it is handed: pieces are gathered, so that few records carry them.
struct Gather<'a, W> {
    stream: &'a mut W,
    buffer: Vec<u8>,
    stall: Duration,
}

impl<W: AsyncWrite + Unpin> Gather<'_, W> {
    async fn send(mut self, frame: FetchFrame) -> io::Result<()> {
        let FetchFrame { head, splices } = frame;
        let mut sent = 0;
        for splice in splices {
            self.put(&head[sent..splice.at]).await?;
            sent = splice.at;
            match splice.source {
                Source::Memory(bytes) => self.put(&bytes).await?,
                Source::File(slice) => self.put_file(&slice).await?,
            }
        }
        self.put(&head[sent..]).await?;
        write_all(self.stream, &self.buffer, self.stall).await
    }

    async fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.make_room().await?;
            let taken = bytes.len().min(GATHER_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// As [`put`](Self::put), through the page cache.
    async fn put_file(&mut self, slice: &LogSlice) -> io::Result<()> {
        let (mut at, end) = (slice.position, slice.position + u64::from(slice.len));
        while at < end {
            self.make_room().await?;
            let filled = self.buffer.len();
            let taken = (GATHER_BYTES - filled).min((end - at) as usize);
            self.buffer.resize(filled + taken, 0);
            slice.file.read_exact_at(&mut self.buffer[filled..], at)?;
            at += taken as u64;
        }
        Ok(())
    }

    async fn make_room(&mut self) -> io::Result<()> {
        if self.buffer.len() == GATHER_BYTES {
            write_all(self.stream, &self.buffer, self.stall).await?;
            self.buffer.clear();
        }
        Ok(())
    }
}

async fn send_plain(stream: &mut TcpStream, frame: FetchFrame, stall: Duration) -> io::Result<()> {
    let FetchFrame { head, splices } = frame;
    let mut sent = 0;
    for splice in splices {
        if splice.at > sent {
            send_more(stream, &head[sent..splice.at], stall).await?;
            sent = splice.at;
        }
        match splice.source {
            Source::Memory(bytes) => write_all(stream, &bytes, stall).await?,
            Source::File(slice) => send_file(stream, &slice, stall).await?,
        }
    }
    if sent < head.len() {
        write_all(stream, &head[sent..], stall).await?;
    }
    Ok(())
}

/// Writes all of `bytes` and keeps none back, as long as some go out within every `stall`.
///
/// # Errors
/// Of the socket.
pub(super) async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    stall: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = within(stall, stream.write(bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    within(stall, stream.flush()).await
}

/// One step towards the reader.
async fn within<T>(stall: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(stall, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Sends bytes and tells the kernel that more follow at once, so that they share a packet.
async fn send_more(stream: &TcpStream, mut bytes: &[u8], stall: Duration) -> io::Result<()> {
    while !bytes.is_empty() {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let step =
            stream.async_io(Interest::WRITABLE, || rustix::net::send(stream, bytes, flags).map_err(io::Error::from));
        let sent = within(stall, step).await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// From the page cache to the socket without passing through this process.
async fn send_file(stream: &TcpStream, slice: &LogSlice, stall: Duration) -> io::Result<()> {
    let (mut at, end) = (slice.position, slice.position + u64::from(slice.len));
    while at < end {
        let step = stream.async_io(Interest::WRITABLE, || {
            let mut from = at;
            rustix::fs::sendfile(stream, &slice.file, Some(&mut from), (end - at) as usize).map_err(io::Error::from)
        });
        let sent = within(stall, step).await?;
        if sent == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the segment ends before its records do"));
        }
        at += sent as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use super::*;

    /// Takes ten bytes at a time, each after as long as `pause`; nothing more once `room` is used up.
    struct Reader {
        room: usize,
        pause: Duration,
        asked: bool,
    }

    impl AsyncWrite for Reader {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            if self.room == 0 {
                return Poll::Pending;
            }
            self.asked = !self.asked;
            if self.asked {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            std::thread::sleep(self.pause);
            let taken = bytes.len().min(10).min(self.room);
            self.room -= taken;
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_reader_that_is_slower_than_the_limit_altogether_gets_its_answer() {
        let stall = Duration::from_millis(300);
        let mut reader = Reader { room: 200, pause: stall / 10, asked: false };
        write_all(&mut reader, &[7; 200], stall).await.expect("no step takes as long as the limit");
        assert_eq!(reader.room, 0);
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_more_is_given_up() {
        let mut reader = Reader { room: 50, pause: Duration::ZERO, asked: false };
        let stopped = write_all(&mut reader, &[7; 200], Duration::from_millis(50)).await.unwrap_err();
        assert_eq!((stopped.kind(), reader.room), (io::ErrorKind::TimedOut, 0));
    }
}
