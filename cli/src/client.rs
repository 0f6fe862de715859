//! The controller's API from the other side: HTTP/1 with JSON over its Unix socket.
//!
//! Each request has a connection of its own. An answer is one JSON document or, where things
//! happen over time, one JSON object per line ([`Lines`]). Nothing is retried here: who asks knows
//! whether asking twice is harmless.

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use controller::USER_HEADER;
use controller::types::ApiError;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::exit::Exit;
use crate::fail::Failure;

/// Who we were before we became who we are, as far as `sudo` tells.
fn became() -> Option<String> {
    std::env::var("SUDO_USER").ok().filter(|user| user.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// The code of a connection that broke; nothing is known about the request then.
const BROKEN: &str = "connection-lost";

/// The longest line of a stream; the controller's own limits keep lines far below.
const LONGEST_LINE: usize = 256 << 20;

/// Where the controller answers.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// The controller at this socket, or else at the first of the usual places that exists.
    pub(crate) fn new(socket: Option<PathBuf>) -> Client {
        let socket = socket.unwrap_or_else(|| {
            let places = usual_places();
            let found = places.iter().find(|path| path.exists()).cloned();
            found.unwrap_or_else(|| places[0].clone())
        });
        Client { socket }
    }

    /// `GET`, one document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        document(self.send(Method::GET, path, Bytes::new()).await?).await
    }

    /// `POST`, one document.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        document(self.send(Method::POST, path, encoded(body)?).await?).await
    }

    /// `POST` of bytes as they are, one document.
    pub(crate) async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        document(self.send(Method::POST, path, body).await?).await
    }

    /// `PUT`, one document.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        document(self.send(Method::PUT, path, encoded(body)?).await?).await
    }

    /// `DELETE`; the answer does not matter.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        let response = self.send(Method::DELETE, path, Bytes::new()).await?;
        response.into_body().collect().await.map_err(|error| broken(&error))?;
        Ok(())
    }

    /// `GET`, a line for each thing that happens.
    pub(crate) async fn get_lines<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Lines<T>, Failure> {
        Ok(Lines::new(self.send(Method::GET, path, Bytes::new()).await?))
    }

    /// `POST`, a line for each thing that happens.
    pub(crate) async fn post_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Lines<T>, Failure> {
        Ok(Lines::new(self.send(Method::POST, path, encoded(body)?).await?))
    }

    /// `GET`, bytes as they come.
    pub(crate) async fn get_pieces(&self, path: &str) -> Result<Pieces, Failure> {
        Ok(Pieces(self.send(Method::GET, path, Bytes::new()).await?.into_body()))
    }

    /// The same, handed on one by one.
    pub(crate) async fn get_bytes(
        &self,
        path: &str,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut pieces = self.get_pieces(path).await?;
        while let Some(piece) = pieces.next().await? {
            take(&piece)?;
        }
        Ok(())
    }

    /// One request; an answer that is not a success becomes the failure it describes.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| no_controller(&self.socket, &error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // The connection ends when the answer has been read or is dropped.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "barid")
            .header("content-type", "application/json");
        if let Some(user) = became() {
            request = request.header(USER_HEADER, user);
        }
        let request = request.body(Full::new(body)).map_err(|error| Failure::local(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| broken(&error))?;
        let error = serde_json::from_slice(&body.to_bytes()).unwrap_or_else(|_| ApiError {
            code: "protocol".into(),
            message: format!("the controller answered {path} with HTTP status {status}"),
            help: "do barid and the controller have the same version?".into(),
        });
        Err(Failure::api(status, error))
    }
}

/// Makes one segment of a path from what somebody typed.
pub(crate) fn segment(id: &str) -> Result<&str, Failure> {
    let is_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match is_id {
        true => Ok(id),
        false => Err(Failure::usage(format!("{id:?} is not an id"), "ids are letters and digits")),
    }
}

/// Whether the connection broke, so that asking again may help.
pub(crate) fn is_broken(failure: &Failure) -> bool {
    failure.exit == Exit::Unreachable
}

/// An answer of bytes.
pub(crate) struct Pieces(Incoming);

impl Pieces {
    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.0.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_) => continue,
                },
                Some(Err(error)) => return Err(broken(&error)),
                None => return Ok(None),
            }
        }
    }
}

/// A stream of JSON objects, one per line.
pub(crate) struct Lines<T> {
    body: Incoming,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no newline.
    searched: usize,
    of: PhantomData<T>,
}

impl<T: DeserializeOwned> Lines<T> {
    fn new(response: Response<Incoming>) -> Lines<T> {
        let body = response.into_body();
        Lines { body, buffer: BytesMut::new(), searched: 0, of: PhantomData }
    }

    /// The next object; `None` when the controller has ended the stream. May be dropped while it
    /// waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Failure> {
        loop {
            if let Some(line) = take_line(&mut self.buffer, &mut self.searched) {
                match line.trim_ascii() {
                    b"" => continue,
                    line => return decoded(line).map(Some),
                }
            }
            if self.buffer.len() > LONGEST_LINE {
                return Err(Failure::new(Exit::Failed, "protocol", "an answer is too long"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(broken(&error)),
                None => return Ok(None),
            }
        }
    }
}

fn take_line(buffer: &mut BytesMut, searched: &mut usize) -> Option<BytesMut> {
    match buffer[*searched..].iter().position(|b| *b == b'\n') {
        Some(found) => {
            let line = buffer.split_to(*searched + found);
            buffer.advance(1);
            *searched = 0;
            Some(line)
        }
        None => {
            *searched = buffer.len();
            None
        }
    }
}

fn usual_places() -> [PathBuf; 2] {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let own = home.join(".local/state/barid/controller/barid.sock");
    ["/run/barid/barid.sock".into(), own]
}

async fn document<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Failure> {
    let body = response.into_body().collect().await.map_err(|error| broken(&error))?;
    decoded(&body.to_bytes())
}

fn encoded(body: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| Failure::local(&error))
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        let message = format!("the controller's answer is not readable: {error}");
        Failure::new(Exit::Failed, "protocol", message)
            .with_help("do barid and the controller have the same version?")
    })
}

fn broken(error: &dyn std::error::Error) -> Failure {
    let message = format!("the connection to the controller broke: {}", relay::chain(error));
    Failure::new(Exit::Unreachable, BROKEN, message).with_help("is the controller still running?")
}

fn no_controller(socket: &Path, error: &io::Error) -> Failure {
    let path = socket.display();
    if error.kind() == io::ErrorKind::PermissionDenied {
        let message = format!("you may not use the controller's socket {path}: {error}");
        return Failure::new(Exit::Denied, "denied", message)
            .with_help("use the account that runs the controller");
    }
    let why = match error.kind() {
        io::ErrorKind::NotFound => "there is no such socket".into(),
        io::ErrorKind::ConnectionRefused => "nobody listens there any more".into(),
        _ => error.to_string(),
    };
    let message = format!("no controller answers at {path}: {why}");
    Failure::new(Exit::Unreachable, "unreachable", message).with_help(
        "start one with `barid controller --state DIR`, or name its socket: \
         --socket DIR/barid.sock or BARID_SOCKET",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole() {
        let mut buffer = BytesMut::new();
        let mut searched = 0;
        let mut lines = Vec::new();
        for piece in ["{\"a\"", ":1}\n{", "}\n\n{\"b", "\":2}\n"] {
            buffer.extend_from_slice(piece.as_bytes());
            while let Some(line) = take_line(&mut buffer, &mut searched) {
                lines.push(String::from_utf8_lossy(&line).into_owned());
            }
        }
        assert_eq!(lines, ["{\"a\":1}", "{}", "", "{\"b\":2}"]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn ids_are_harmless_in_a_path() {
        assert!(segment("7k3q").is_ok() && segment("last").is_ok());
        for id in ["", "a/b", "a?b", "..", "a b", "é"] {
            assert_eq!(segment(id).expect_err(id).exit, Exit::Usage);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn no_controller_names_the_socket_and_the_way_out() {
        let client = Client::new(Some("/nonexistent/barid.sock".into()));
        let failure = client.get::<u32>("/v1/status").await.expect_err("nobody is there");
        assert_eq!(failure.exit, Exit::Unreachable);
        let text = failure.text();
        assert!(text.contains("/nonexistent/barid.sock"), "{text}");
        assert!(text.contains("barid controller --state"), "{text}");
    }
}
