//! [`Client`]: one HTTP request for each thing that is done, over the node's Unix socket.

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::files::{FileAsk, FileSaid};
use crate::wire::{AnswerLine, Fault, Heard, Line};

/// The longest line of a stream: the longest body in base64, and somewhat more.
const LONGEST: usize = 1 << 20;

/// Something that was not done.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no node behind the socket, or it may not be opened.
    #[error("{}: the node's socket cannot be opened", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke; whether it was done is not known.
    #[error("the connection to the node broke")]
    Broken(#[source] hyper::Error),
    /// The node will not; nothing was done.
    #[error("{}", .0.message)]
    Refused(Fault),
    /// The node says something that this version does not understand.
    #[error("the node's answer is not readable: {0}")]
    Answer(String),
}

/// The way to the bus.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Messages as they come. Dropping it ends the subscription.
pub type Messages = Stream<Line>;
/// Answers as they come, and at last why there are no more.
pub type Answers = Stream<AnswerLine>;
/// What is heard of files that this host asks for, to the last line.
pub type FileAnswers = Stream<FileSaid>;

/// Lines of JSON as they come.
pub struct Stream<T> {
    body: Incoming,
    buffer: BytesMut,
    of: PhantomData<T>,
}

impl Client {
    /// The bus at this socket. Nothing is opened yet.
    pub fn new(socket: impl AsRef<Path>) -> Client {
        Client { socket: socket.as_ref().to_owned() }
    }

    /// Publishes a message. Returns whether anybody wants it, as far as the node knows.
    pub async fn publish(&self, subject: &str, body: Bytes) -> Result<bool, BusError> {
        let path = format!("/v1/bus/pub?subject={}", escaped(subject));
        Ok(document::<Heard>(self.post(&path, body).await?).await?.heard)
    }

    /// Subscribes to whatever matches one of these patterns. The first line says that it stands.
    pub async fn subscribe(&self, patterns: &[&str]) -> Result<Messages, BusError> {
        let subjects: Vec<_> = patterns.iter().map(|p| format!("subject={}", escaped(p))).collect();
        let path = format!("/v1/bus/sub?{}", subjects.join("&"));
        Ok(Stream::new(self.post(&path, Bytes::new()).await?))
    }

    /// Asks whoever wants such messages, until there are `most` answers or the time is over.
    pub async fn ask(
        &self,
        subject: &str,
        body: Bytes,
        deadline: Duration,
        most: u64,
    ) -> Result<Answers, BusError> {
        let (subject, ms) = (escaped(subject), deadline.as_millis());
        let path = format!("/v1/bus/req?subject={subject}&deadline_ms={ms}&most={most}");
        Ok(Stream::new(self.post(&path, body).await?))
    }

    /// Answers a message by what its `request` says.
    pub async fn answer(&self, request: &str, body: Bytes) -> Result<(), BusError> {
        let path = format!("/v1/bus/answer?request={}", escaped(request));
        document::<serde_json::Value>(self.post(&path, body).await?).await.map(drop)
    }

    /// Asks the controller about files of this host, until its last word or the time is over.
    pub async fn files(&self, ask: &FileAsk, deadline: Duration) -> Result<FileAnswers, BusError> {
        let body = serde_json::to_vec(ask).expect("a plain question is valid JSON");
        let path = format!("/v1/files?deadline_ms={}", deadline.as_millis());
        Ok(Stream::new(self.post(&path, body.into()).await?))
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, BusError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream =
            stream.map_err(|source| BusError::Socket { path: self.socket.clone(), source })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(BusError::Broken)?;
        // The connection ends when the answer has been read or is dropped.
        tokio::spawn(connection);
        let request = Request::post(path).header("host", "barid").body(Full::new(body));
        let request = request.map_err(|error| BusError::Answer(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(BusError::Broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await.map_err(BusError::Broken)?.to_bytes();
        let unknown = |_| BusError::Answer(format!("HTTP status {status}"));
        Err(serde_json::from_slice(&body).map_or_else(unknown, BusError::Refused))
    }
}

impl<T: DeserializeOwned> Stream<T> {
    pub(crate) fn new(response: Response<Incoming>) -> Stream<T> {
        Stream { body: response.into_body(), buffer: BytesMut::new(), of: PhantomData }
    }

    /// The next one; `None` at the end. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<T>, BusError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                let line = serde_json::from_slice(&line);
                return line.map(Some).map_err(|error| BusError::Answer(error.to_string()));
            }
            if self.buffer.len() > LONGEST {
                return Err(BusError::Answer("a line is too long".into()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(BusError::Broken(error)),
                None => return Ok(None),
            }
        }
    }
}

pub(crate) async fn document<T: DeserializeOwned>(
    response: Response<Incoming>,
) -> Result<T, BusError> {
    let body = response.into_body().collect().await.map_err(BusError::Broken)?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| BusError::Answer(error.to_string()))
}

/// Text as it may stand in a query.
pub(crate) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~*".contains(&byte);
    let escape = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_a_query() {
        assert_eq!(escaped("app.web-1.*"), "app.web-1.*");
        assert_eq!(escaped("a.>&b=\n\u{e9}"), "a.%3E%26b%3D%0A%C3%A9");
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_named() {
        let error = Client::new("/nowhere/node.sock").publish("a", Bytes::new()).await;
        let text = error.expect_err("there is no node").to_string();
        assert_eq!(text, "/nowhere/node.sock: the node's socket cannot be opened");
    }
}
