//! One persistent connection to the operators' API: the least HTTP that measures nothing but the
//! controller.
//!
//! Just enough of HTTP/1.1: one request after the other, answers by length or in chunks. It is for
//! benchmarks and trusts the controller; everybody else wants a real client.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// How long the controller may be silent in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(120);

/// The connection.
pub(crate) struct Api {
    stream: BufReader<UnixStream>,
}

/// How the body of an answer is delimited.
enum Body {
    Sized(usize),
    Chunked,
}

impl Api {
    /// Connects to a controller's socket.
    pub(crate) fn connect(socket: &Path) -> Result<Api> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(Api { stream: BufReader::new(stream) })
    }

    /// A request whose answer is one JSON document.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut document = Vec::new();
        self.exchange(method, path, body, |piece| {
            document.extend_from_slice(piece);
            Ok(())
        })?;
        serde_json::from_slice(&document).with_context(|| format!("the answer to {path}"))
    }

    /// A page as it is.
    pub(crate) fn text(&mut self, path: &str) -> Result<String> {
        let mut page = Vec::new();
        self.exchange("GET", path, None, |piece| {
            page.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(String::from_utf8(page)?)
    }

    /// A request that is answered by lines of JSON. Returns the last.
    pub(crate) fn last_line(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let (mut line, mut last) = (Vec::new(), Vec::new());
        self.exchange(method, path, body, |piece| {
            for byte in piece {
                match byte {
                    b'\n' => last = std::mem::take(&mut line),
                    byte => line.push(*byte),
                }
            }
            Ok(())
        })?;
        ensure!(!last.is_empty(), "{method} {path} was answered by no line");
        Ok(serde_json::from_slice(&last)?)
    }

    /// Follows an order to its end. Returns it as it was closed.
    pub(crate) fn follow(&mut self, id: &str) -> Result<Value> {
        let last = self.last_line("GET", &format!("/v1/orders/{id}/events"), None)?;
        ensure!(last["type"] == "closed", "the events of {id} end with {last}");
        Ok(last["order"].clone())
    }

    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: barid\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        self.stream.get_mut().write_all(&request)?;
        let (status, delimited) = self.head()?;
        let mut refusal = Vec::new();
        let mut take = |piece: &[u8]| match status {
            200..=299 => sink(piece),
            _ => {
                refusal.extend_from_slice(piece);
                Ok(())
            }
        };
        match delimited {
            Body::Sized(len) => take(&self.exactly(len)?)?,
            Body::Chunked => loop {
                let line = self.line()?;
                let len = usize::from_str_radix(&line, 16)
                    .with_context(|| format!("{line:?} is not the length of a chunk"))?;
                let piece = self.exactly(len)?;
                ensure!(self.line()?.is_empty(), "a chunk is followed by its end of line");
                if len == 0 {
                    break;
                }
                take(&piece)?;
            },
        }
        match status {
            200..=299 => Ok(()),
            _ => bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&refusal)),
        }
    }

    fn head(&mut self) -> Result<(u16, Body)> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("{line:?} is not a status line"))?;
        let mut body = Body::Sized(0);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':').map(|(name, value)| (name, value.trim())) {
                Some(("content-length", len)) => body = Body::Sized(len.parse()?),
                Some(("transfer-encoding", "chunked")) => body = Body::Chunked,
                Some(_) => {}
                None => return Ok((status, body)),
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the controller has hung up");
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn exactly(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
