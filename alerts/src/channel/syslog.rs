//! Syslog as a channel: RFC 5424, one line for each alert with its fields as structured data, to a
//! Unix socket, by UDP (RFC 5426), or with counted lines by TCP (RFC 6587) or TLS (RFC 5425).

use std::io;
use std::path::PathBuf;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};

use super::tls::Files;
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
    Tls(Box<Secure>),
}

#[derive(Clone, Debug)]
struct Secure {
    host: String,
    port: u16,
    files: Files,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SyslogEntry {
    unix: Option<PathBuf>,
    udp: Option<String>,
    tcp: Option<String>,
    tls: Option<String>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

impl SyslogEntry {
    pub(crate) fn channel(self) -> Result<Channel, String> {
        for addr in self.udp.iter().chain(&self.tcp) {
            parts(addr)?;
        }
        let own = match (self.cert_file, self.key_file) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert, key)),
            _ => return Err("syslog: cert_file and key_file go together".into()),
        };
        let files = Files { ca: self.ca_file, own };
        if self.tls.is_none() && (files.ca.is_some() || files.own.is_some()) {
            return Err("syslog: ca_file, cert_file and key_file are for tls".into());
        }
        let to = match (self.unix, self.udp, self.tcp, self.tls) {
            (Some(path), None, None, None) => To::Unix(path),
            (None, Some(addr), None, None) => To::Udp(addr),
            (None, None, Some(addr), None) => To::Tcp(addr),
            (None, None, None, Some(addr)) => {
                let (host, port) = parts(&addr)?;
                files.config().map_err(|why| format!("syslog.tls: {why}"))?;
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                To::Tls(Box::new(Secure { host, port, files }))
            }
            _ => return Err("syslog: give one of unix, udp, tcp, tls".into()),
        };
        Ok(Channel::Syslog(Syslog { to }))
    }
}

/// The parts of HOST:PORT.
fn parts(addr: &str) -> Result<(&str, u16), String> {
    let parts = addr.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let parts = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parts.ok_or_else(|| format!("syslog: {addr:?} is not HOST:PORT"))
}

impl Syslog {
    /// Whether lines of any length arrive whole.
    pub(crate) fn is_whole(&self) -> bool {
        !matches!(self.to, To::Udp(_))
    }

    /// A line for each event, with its JSON as the text. By TCP and TLS they count as taken once
    /// the receiver has read them all and closes: that is the only answer there is.
    pub(crate) async fn export(&self, batch: &Batch) -> Result<(), SendError> {
        let lines: Vec<String> = batch.events.iter().map(|one| event(batch, one)).collect();
        match &self.to {
            To::Unix(path) => unix(path, &lines).await,
            To::Udp(_) => Err(SendError::Refused("events do not go by udp".into())),
            To::Tcp(addr) => {
                let failed = |error| SendError::io(addr, &error);
                let mut stream = tcp(addr, &lines).await.map_err(failed)?;
                until_closed(&mut stream).await.map_err(failed)?;
                // Who had closed before all had arrived has said so, too.
                stream.take_error().map_err(failed)?.map_or(Ok(()), |error| Err(failed(error)))
            }
            To::Tls(secure) => secure.send(&lines).await,
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
            To::Tls(secure) => secure.send(&lines).await,
        }
    }
}

impl Secure {
    /// Sends lines, and waits until the receiver closes: only then is it known that it has not
    /// turned us away, which in TLS 1.3 it may after we have spoken.
    async fn send(&self, lines: &[String]) -> Result<(), SendError> {
        let failed = |error| SendError::io(format_args!("{}:{}", self.host, self.port), &error);
        let mut stream = self.files.connect(&self.host, self.port).await?;
        counted(&mut stream, lines).await.map_err(failed)?;
        match until_closed(&mut stream).await {
            // Some close without a word of farewell.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            closed => closed.map_err(failed),
        }
    }
}

async fn tcp(addr: &str, lines: &[String]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    counted(&mut stream, lines).await?;
    Ok(stream)
}

/// Sends lines, each with its length before it, and says that there are no more.
async fn counted(stream: &mut (impl AsyncWrite + Unpin), lines: &[String]) -> io::Result<()> {
    for line in lines {
        let counted = format!("{} {line}", line.len());
        stream.write_all(counted.as_bytes()).await?;
    }
    stream.shutdown().await
}

async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    while stream.read(&mut [0; 256]).await? > 0 {}
    Ok(())
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
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::sync::Arc;

    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::message::Sender;

    /// A certificate that vouches for itself, and its key, in files.
    fn identity(dir: &Path, name: &str) -> (rcgen::CertifiedKey<rcgen::KeyPair>, [PathBuf; 2]) {
        let key = rcgen::generate_simple_self_signed([name.into()]).expect("a certificate");
        let paths = [dir.join(format!("{name}.pem")), dir.join(format!("{name}.key"))];
        std::fs::write(&paths[0], key.cert.pem()).expect("written");
        std::fs::write(&paths[1], key.signing_key.serialize_pem()).expect("written");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&paths[1], private).expect("it is ours");
        (key, paths)
    }

    /// Takes those who show one of these certificates, reads, and hangs up without a farewell.
    /// Returns its port.
    async fn rude(
        own: &rcgen::CertifiedKey<rcgen::KeyPair>,
        known: &rcgen::CertifiedKey<rcgen::KeyPair>,
    ) -> u16 {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(known.cert.der().clone()).expect("it is one");
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let secret = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks all of them")
            .with_client_cert_verifier(verifier.build().expect("it has a root"))
            .with_single_cert(vec![own.cert.der().clone()], secret.into())
            .expect("the key fits");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                until_closed(&mut stream).await.ok();
                drop(stream.into_inner().0);
            }
        });
        port
    }

    #[tokio::test]
    async fn who_asks_for_a_certificate_gets_ours_and_need_not_say_farewell() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (receiver, [ca, _]) = identity(dir.path(), "localhost");
        let (ours, [cert, key]) = identity(dir.path(), "ours");
        let port = rude(&receiver, &ours).await;
        let channel = |own: Option<(&PathBuf, &PathBuf)>| {
            let tls = Some(format!("localhost:{port}"));
            let (cert_file, key_file) = own.map(|(a, b)| (a.clone(), b.clone())).unzip();
            let (unix, udp, tcp, ca_file) = (None, None, None, Some(ca.clone()));
            SyslogEntry { unix, udp, tcp, tls, ca_file, cert_file, key_file }.channel()
        };
        let message = Message::plain(&Sender::default(), "test", "this is a test", 7);
        let send = async |own| channel(own).expect("it is valid").send(&message).await;
        send(Some((&cert, &key))).await.expect("it is taken");
        let error = send(None).await.expect_err("it has shown none");
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
        let (_, [other, its_key]) = identity(dir.path(), "other");
        send(Some((&other, &its_key))).await.expect_err("nobody knows it");
        // Files that do not fit, and a key that others may read.
        let wrong = channel(Some((&cert, &its_key))).expect_err("it is another's key");
        assert!(wrong.starts_with(&format!("syslog.tls: {}: ", its_key.display())), "{wrong}");
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&key, open).expect("it is ours");
        let wrong = channel(Some((&cert, &key))).expect_err("it is no secret");
        assert!(wrong.contains("others may read it: chmod 600"), "{wrong}");
    }

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
