//! Sends a fetch response: its head from memory, its records from where they lie.

use std::{fs::File, io};

use rustix::net::SendFlags;
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::TcpStream,
};

use crate::wire::fetch_response::{FetchFrame, Source};

/// Sends `frame` whole. A reader that takes its time holds up this connection and nothing else: the task sleeps until the
/// socket has room again.
///
/// # Errors
/// Of the socket or the file; the connection cannot be used after it.
pub(super) async fn send(stream: &mut TcpStream, frame: FetchFrame) -> io::Result<()> {
    let FetchFrame { head, splices } = frame;
    let mut sent = 0;
    for splice in splices {
        if splice.at > sent {
            send_more(stream, &head[sent..splice.at]).await?;
            sent = splice.at;
        }
        match splice.source {
            Source::Memory(bytes) => stream.write_all(&bytes).await?,
            Source::File { file, position, len } => send_file(stream, &file, position, len).await?,
        }
    }
    if sent < head.len() {
        stream.write_all(&head[sent..]).await?;
    }
    Ok(())
}

/// Sends bytes and tells the kernel that more follow at once, so that they share a packet.
async fn send_more(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let sent = stream
            .async_io(Interest::WRITABLE, || rustix::net::send(stream, bytes, flags).map_err(io::Error::from))
            .await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// From the page cache to the socket without passing through this process.
async fn send_file(stream: &TcpStream, file: &File, position: u64, len: u32) -> io::Result<()> {
    let (mut at, end) = (position, position + u64::from(len));
    while at < end {
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let mut from = at;
                rustix::fs::sendfile(stream, file, Some(&mut from), (end - at) as usize).map_err(io::Error::from)
            })
            .await?;
        if sent == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the segment ends before its records do"));
        }
        at += sent as u64;
    }
    Ok(())
}
