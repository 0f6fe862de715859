//! Syslog as a channel: RFC 5424, one line for each alert with its fields as structured data, to a
//! Unix socket, by UDP (RFC 5426) or by TCP with counted lines (RFC 6587).

use std::path::PathBuf;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};

use super::{Channel, SendError, plain};
use crate::clock;
use crate::export::{Batch, Exported};
use crate::message::{Message, Told};

/// Facility 3: system daemons.
const FACILITY: u8 = 3;
/// A datagram that every receiver must take (RFC 5426 asks for 480, and advises 2048).
const DATAGRAM: usize = 2_048;

/// The receiver.
#[derive(Clone, Debug)]
pub(crate) struct Syslog {
    to: To,
}

#[derive(Clone, Debug)]
enum To {
    Unix(PathBuf),
    Udp(String),
    Tcp(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SyslogEntry {
    unix: Option<PathBuf>,
    udp: Option<String>,
    tcp: Option<String>,
}

impl SyslogEntry {
    pub(crate) fn channel(self) -> Result<Channel, String> {
        let with_port = |addr: &String| match addr.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
            _ => Err(format!("syslog: {addr:?} is not HOST:PORT")),
        };
        for addr in self.udp.iter().chain(&self.tcp) {
            with_port(addr)?;
        }
        let to = match (self.unix, self.udp, self.tcp) {
            (Some(path), None, None) => To::Unix(path),
            (None, Some(addr), None) => To::Udp(addr),
            (None, None, Some(addr)) => To::Tcp(addr),
            _ => return Err("syslog: give one of unix, udp, tcp".into()),
        };
        Ok(Channel::Syslog(Syslog { to }))
    }
}

impl Syslog {
    /// Whether lines of any length arrive whole.
    pub(crate) fn is_whole(&self) -> bool {
        !matches!(self.to, To::Udp(_))
    }

    /// A line for each event, with its JSON as the text. By TCP they count as taken once the
    /// receiver has read them all and closes: that is the only answer there is.
    pub(crate) async fn export(&self, batch: &Batch) -> Result<(), SendError> {
        let lines: Vec<String> = batch.events.iter().map(|one| event(batch, one)).collect();
        match &self.to {
            To::Unix(path) => unix(path, &lines).await,
            To::Udp(_) => Err(SendError::Refused("events do not go by udp".into())),
            To::Tcp(addr) => {
                let failed = |error| SendError::io(addr, &error);
                let mut stream = tcp(addr, &lines).await.map_err(failed)?;
                while stream.read(&mut [0; 256]).await.map_err(failed)? > 0 {}
                // Who had closed before all had arrived has said so, too.
                stream.take_error().map_err(failed)?.map_or(Ok(()), |error| Err(failed(error)))
            }
        }
    }

    pub(crate) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let lines: Vec<String> = message.alerts.iter().map(|told| line(message, told)).collect();
        match &self.to {
            To::Unix(path) => unix(path, &lines).await,
            To::Udp(addr) => {
                let failed = |error| SendError::io(addr, &error);
                let found = tokio::net::lookup_host(addr).await.map_err(failed)?.next();
                let to = found.ok_or_else(|| SendError::Later(format!("{addr}: no address")))?;
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await.map_err(failed)?;
                // Connected, so that a port at which nobody listens is noticed, if it says so.
                socket.connect(to).await.map_err(failed)?;
                for line in &lines {
                    socket.send(cut(line, DATAGRAM).as_bytes()).await.map_err(failed)?;
                }
                Ok(())
            }
            To::Tcp(addr) => {
                tcp(addr, &lines).await.map_err(|error| SendError::io(addr, &error)).map(drop)
            }
        }
    }
}

/// Sends lines, each with its length before it, and says that there are no more.
async fn tcp(addr: &str, lines: &[String]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    for line in lines {
        let counted = format!("{} {line}", line.len());
        stream.write_all(counted.as_bytes()).await?;
    }
    stream.shutdown().await?;
    Ok(stream)
}

/// `/dev/log` is a datagram socket with most, and a stream with some.
async fn unix(path: &PathBuf, lines: &[String]) -> Result<(), SendError> {
    let failed = |error| SendError::io(path.display(), &error);
    let socket = UnixDatagram::unbound().map_err(failed)?;
    match socket.connect(path) {
        Ok(()) => {
            for line in lines {
                socket.send(line.as_bytes()).await.map_err(failed)?;
            }
            Ok(())
        }
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error()) => {
            let mut stream = UnixStream::connect(path).await.map_err(failed)?;
            for line in lines {
                stream.write_all(format!("{line}\n").as_bytes()).await.map_err(failed)?;
            }
            stream.shutdown().await.map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// An alert in words.
pub(super) fn words(told: &Told) -> String {
    let over = if told.status == "resolved" { "over: " } else { "" };
    format!("{over}{}", told.summary)
}

/// The severity of syslog.
pub(super) fn level(told: &Told) -> u8 {
    match (told.status.as_str(), told.severity.as_str()) {
        ("resolved", _) => 5,
        (_, "critical") => 2,
        (_, "warning") => 4,
        _ => 6,
    }
}

/// What a line begins with: of which severity, when, and who speaks.
fn begin(level: u8, at_ms: u64, node: &str) -> String {
    let (priority, at) = (FACILITY * 8 + level, clock::rfc3339(at_ms));
    let host = match node {
        "" => "-".into(),
        name => header(name),
    };
    format!("<{priority}>1 {at} {host} barid {}", std::process::id())
}

fn event(batch: &Batch, event: &Exported) -> String {
    let begin = begin(event.level, event.at_ms, &batch.from.node);
    format!("{begin} event - {}", event.json)
}

fn line(message: &Message, told: &Told) -> String {
    let begin = begin(level(told), message.at_ms, &message.from.node);
    let fields = [
        ("key", &told.key),
        ("kind", &told.kind),
        ("severity", &told.severity),
        ("status", &told.status),
        ("group", &message.group),
        ("id", &message.id),
    ];
    let field = |(name, value): (&str, &String)| format!(" {name}=\"{}\"", escaped(value));
    let fields: String = fields.into_iter().map(field).collect();
    let text = plain(&words(told));
    // 32473 is the number that RFC 5612 sets aside for those who have none.
    format!("{begin} alert [alert@32473{fields}] {text}")
}

/// Printable ASCII without spaces, as a header wants it.
fn header(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    name.chars().map(plain).take(255).collect()
}

/// A value of structured data.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for c in plain(value).chars() {
        if matches!(c, '"' | '\\' | ']') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Sender;

    #[test]
    fn a_line_is_what_rfc_5424_says_whatever_the_names() {
        let from = Sender { node: "web 1\u{e9}".into(), mesh: "m".into() };
        let mut message =
            Message::plain(&from, "test", "say \"hello\"\nand ] go", 1_763_832_896_999);
        message.group = "a\\b]\"c".into();
        let line = line(&message, &message.alerts[0]);
        let pid = std::process::id();
        let begin =
            format!("<30>1 2025-11-22T17:34:56.999Z web_1_ barid {pid} alert [alert@32473 key=");
        assert!(line.starts_with(&begin), "{line}");
        assert!(line.contains(r#" group="a\\b\]\"c" "#), "{line}");
        assert!(line.ends_with("] say \"hello\" and ] go") && !line.contains('\n'), "{line}");
        assert_eq!(cut("a\u{e9}b", 2), "a");
    }
}
