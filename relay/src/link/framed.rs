//! Messages on a stream: the length, then the bytes; and why a stream or its link ends.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream};

use super::STREAM_NO_UPLINK;

/// The next length-prefixed message of a stream; `None` at its clean end.
pub(crate) async fn read_framed(recv: &mut RecvStream) -> Result<Option<Bytes>, LinkError> {
    read_framed_within(recv, protos::FRAME_LIMIT).await
}

/// The same, for messages that may not be as long as a frame.
pub(crate) async fn read_framed_within(
    recv: &mut RecvStream,
    limit: usize,
) -> Result<Option<Bytes>, LinkError> {
    let mut header = [0; 4];
    match recv.read_exact(&mut header).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let len = protos::parse_header_within(header, limit).map_err(LinkError::Header)?;
    let mut body = BytesMut::zeroed(len);
    recv.read_exact(&mut body).await?;
    Ok(Some(body.freeze()))
}

/// Writes one length-prefixed message.
pub(crate) async fn write_framed(send: &mut SendStream, body: &[u8]) -> Result<(), LinkError> {
    send.write_all(&protos::frame_header(body.len())).await.map_err(LinkError::Write)?;
    send.write_all(body).await.map_err(LinkError::Write)
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the connection is gone")]
    Lost(#[source] quinn::ConnectionError),
    #[error("the stream ended")]
    Ended,
    #[error("the peer has no link to its own parent")]
    NoUplink,
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("a frame is not readable")]
    Frame(#[source] protos::FrameError),
    #[error("the length of a frame is not acceptable")]
    Header(#[source] protos::HeaderError),
    #[error("writing failed")]
    Write(#[source] quinn::WriteError),
    #[error(transparent)]
    Removals(#[from] crate::removed::RemovalsFault),
    #[error("no sign of life for {} s", .0.as_secs())]
    Timeout(Duration),
}

impl From<quinn::ReadExactError> for LinkError {
    fn from(error: quinn::ReadExactError) -> LinkError {
        match error {
            quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => {
                LinkError::Lost(error)
            }
            quinn::ReadExactError::ReadError(quinn::ReadError::Reset(STREAM_NO_UPLINK)) => {
                LinkError::NoUplink
            }
            _ => LinkError::Ended,
        }
    }
}
