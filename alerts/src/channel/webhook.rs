//! A webhook as a channel: an HTTP POST in the form of Alertmanager's version 4, so that what
//! receives those receives ours, with an `Idempotency-Key` and, if there is a secret, an HMAC of
//! the body.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use ring::hmac;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::Files;
use super::{Channel, SendError, plain, secret};
use crate::clock::rfc3339;
use crate::export::Batch;
use crate::message::{Message, Told};

/// How much of an answer is read.
const ANSWER: usize = 4 << 10;

/// The receiver.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    uri: Uri,
    host: String,
    port: u16,
    /// What TLS goes by, where it is spoken.
    tls: Option<Files>,
    key: Option<hmac::Key>,
    headers: BTreeMap<String, String>,
    external_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookEntry {
    url: String,
    secret_file: Option<PathBuf>,
    /// A whole value for the header `Authorization`.
    authorization_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    external_url: String,
}

impl WebhookEntry {
    pub(crate) fn channel(self) -> Result<Channel, String> {
        // Without the URL itself, which may hold a secret.
        let wrong = |why: &str| format!("webhook.url {why}");
        let uri: Uri = self.url.parse().map_err(|_| wrong("is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("begins neither with http:// nor with https://")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("names no host"))?.to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("holds a password: use authorization_file"));
        }
        let key = self.secret_file.as_deref().map(secret).transpose()?;
        let key = key.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        let mut headers = BTreeMap::new();
        if let Some(path) = self.authorization_file.as_deref() {
            headers.insert("authorization".to_owned(), secret(path)?);
        }
        let tls = tls.then_some(Files { ca: self.ca_file, own: None });
        tls.as_ref().map(Files::config).transpose()?;
        let external_url = self.external_url;
        let webhook = Webhook { uri, host, port, tls, key, headers, external_url };
        Ok(Channel::Webhook(Box::new(webhook)))
    }
}

/// Alertmanager's form, version 4.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    version: &'a str,
    group_key: String,
    truncated_alerts: usize,
    status: &'a str,
    receiver: &'a str,
    group_labels: BTreeMap<&'a str, &'a str>,
    common_labels: BTreeMap<String, String>,
    common_annotations: BTreeMap<String, String>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    alerts: Vec<Entry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    status: &'a str,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    fingerprint: &'a str,
}

/// What is posted: a body, what it is, and what tells it from others.
struct Parcel<'a> {
    body: Vec<u8>,
    kind: &'a str,
    key: &'a str,
}

impl Webhook {
    pub(crate) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let (body, kind, key) = (self.payload(message), "application/json", &message.id);
        self.deliver(&Parcel { body, kind, key }).await
    }

    /// A line of JSON for each event.
    pub(crate) async fn export(&self, batch: &Batch) -> Result<(), SendError> {
        let (body, kind, key) = (batch.lines(), "application/x-ndjson", &batch.key);
        self.deliver(&Parcel { body, kind, key }).await
    }

    async fn deliver(&self, parcel: &Parcel<'_>) -> Result<(), SendError> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        if let Some(tls) = &self.tls {
            return self.post(tls.connect(host, self.port).await?, parcel).await;
        }
        let stream = TcpStream::connect((host, self.port)).await;
        let failed = |error| SendError::io(format_args!("{}:{}", self.host, self.port), &error);
        self.post(stream.map_err(failed)?, parcel).await
    }

    async fn post(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        parcel: &Parcel<'_>,
    ) -> Result<(), SendError> {
        let broken = |error: hyper::Error| SendError::Later(format!("{}: {error}", self.host));
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let answered = async {
            let request = self.request(parcel)?;
            let answer = sender.send_request(request).await.map_err(broken)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER).collect().await;
            let said = body.map(|body| body.to_bytes()).unwrap_or_default();
            judged(status, &plain(String::from_utf8_lossy(&said).trim()))
        };
        let result = answered.await;
        connection.abort();
        result
    }

    fn request(&self, parcel: &Parcel<'_>) -> Result<Request<Full<Bytes>>, SendError> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = match self.uri.port_u16() {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        };
        let mut request = Request::post(path)
            .header("host", host)
            .header("content-type", parcel.kind)
            .header("user-agent", concat!("barid/", env!("CARGO_PKG_VERSION")))
            .header("idempotency-key", parcel.key);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(key) = &self.key {
            let tag = HEXLOWER.encode(hmac::sign(key, &parcel.body).as_ref());
            request = request.header("x-barid-signature", format!("sha256={tag}"));
        }
        let request = request.body(Full::new(Bytes::from(parcel.body.clone())));
        request.map_err(|error| SendError::Refused(error.to_string()))
    }

    fn payload(&self, message: &Message) -> Vec<u8> {
        let (labels, notes): (Vec<_>, Vec<_>) =
            message.alerts.iter().map(|told| (labels(message, told), notes(told))).unzip();
        let payload = Payload {
            version: "4",
            group_key: format!("barid/{}/{}", message.from.node, message.group),
            truncated_alerts: message.more,
            status: if message.status == "resolved" { "resolved" } else { "firing" },
            receiver: "barid",
            group_labels: BTreeMap::from([("site", message.group.as_str())]),
            common_labels: common(&labels),
            common_annotations: common(&notes),
            external_url: &self.external_url,
            alerts: message
                .alerts
                .iter()
                .zip(labels.iter().zip(&notes))
                .map(|(told, (labels, notes))| Entry {
                    status: &told.status,
                    labels: labels.clone(),
                    annotations: notes.clone(),
                    starts_at: rfc3339(told.began_ms),
                    ends_at: match told.ended_ms {
                        0 => "0001-01-01T00:00:00Z".into(),
                        ms => rfc3339(ms),
                    },
                    generator_url: &self.external_url,
                    fingerprint: &told.id,
                })
                .collect(),
        };
        serde_json::to_vec(&payload).expect("a payload is plain data")
    }
}

/// What an answer means. Redirections are not followed: the operator should know.
fn judged(status: StatusCode, said: &str) -> Result<(), SendError> {
    let text = format!("{status}: {said}");
    match status.as_u16() {
        200..=299 => Ok(()),
        // The sender may be early, in a crowd, or not known yet.
        401 | 403 | 404 | 407 | 408 | 425 | 429 => Err(SendError::Later(text)),
        400..=499 => Err(SendError::Refused(text)),
        _ => Err(SendError::Later(text)),
    }
}

fn labels(message: &Message, told: &Told) -> BTreeMap<String, String> {
    let mut labels = told.labels.clone();
    labels.insert("alertname".into(), told.kind.clone());
    labels.insert("severity".into(), told.severity.clone());
    labels.insert("reporter".into(), message.from.node.clone());
    labels
}

fn notes(told: &Told) -> BTreeMap<String, String> {
    let pairs = [("summary", &told.summary), ("description", &told.help)];
    let pairs = pairs.into_iter().filter(|(_, text)| !text.is_empty());
    pairs.map(|(name, text)| (name.into(), text.clone())).collect()
}

/// What all have in common.
fn common(all: &[BTreeMap<String, String>]) -> BTreeMap<String, String> {
    let Some((first, rest)) = all.split_first() else { return BTreeMap::new() };
    let shared =
        |(name, value): &(&String, &String)| rest.iter().all(|map| map.get(*name) == Some(*value));
    first.iter().filter(shared).map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use rustls::ServerConfig;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::message::Sender;

    fn hook(url: String, ca_file: Option<&Path>) -> Webhook {
        let ca_file = ca_file.map(Path::to_path_buf);
        let (secret_file, authorization_file, external_url) = (None, None, String::new());
        let entry = WebhookEntry { url, secret_file, authorization_file, ca_file, external_url };
        match entry.channel().expect("it is valid") {
            Channel::Webhook(webhook) => *webhook,
            other => panic!("{other:?}"),
        }
    }

    /// Answers every request with these bytes. Returns its port.
    async fn server(answer: &'static str, tls: Option<TlsAcceptor>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => reply(tls.accept(stream).await.ok()?, answer).await,
                        None => reply(stream, answer).await,
                    }
                });
            }
        });
        port
    }

    async fn reply(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> Option<()> {
        let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
        while !heard.windows(4).any(|four| four == b"\r\n\r\n") {
            let len = stream.read(&mut buffer).await.ok().filter(|len| *len > 0)?;
            heard.extend_from_slice(&buffer[..len]);
        }
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.shutdown().await.ok()
    }

    fn message() -> Message {
        Message::plain(&Sender::default(), "test", "this is a test", 7)
    }

    #[tokio::test]
    async fn what_an_answer_means() {
        let check = async |answer, said: &str| {
            let port = server(answer, None).await;
            let sent = hook(format!("http://127.0.0.1:{port}/x"), None).send(&message()).await;
            let text = sent.map_or_else(|error| format!("{error:?}"), |()| "taken".into());
            assert!(text.starts_with(said), "{answer}: {text}");
        };
        check("HTTP/1.1 204 No Content\r\n\r\n", "taken").await;
        let text = "HTTP/1.1 400 Bad\r\ncontent-length: 4\r\n\r\nno\u{7}.";
        check(text, "Refused(\"400 Bad Request: no .\")").await;
        check("HTTP/1.1 429 X\r\ncontent-length: 0\r\n\r\n", "Later(").await;
        check("HTTP/1.1 302 X\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n", "Later(").await;
        check("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n", "Later(").await;
        check("nonsense", "Later(").await;
    }

    #[tokio::test]
    async fn https_is_taken_from_those_only_whom_an_authority_knows() {
        let key = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, key.cert.pem()).expect("written");
        let secret = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks all of them")
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], secret.into())
            .expect("the key fits");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let port = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some(acceptor)).await;
        let url = |name| format!("https://{name}:{port}/");
        hook(url("localhost"), Some(&ca)).send(&message()).await.expect("it is taken");
        let error = hook(url("127.0.0.1"), Some(&ca)).send(&message()).await.expect_err("its name");
        assert!(error.to_string().contains("invalid peer certificate"), "{error}");
        let other = rcgen::generate_simple_self_signed(["localhost".into()]).expect("another");
        std::fs::write(&ca, other.cert.pem()).expect("written");
        let error = hook(url("localhost"), Some(&ca)).send(&message()).await.expect_err("its key");
        assert!(error.to_string().contains("invalid peer certificate"), "{error}");
        let hook = hook(url("localhost"), Some(&ca));
        std::fs::write(&ca, "nothing").expect("written");
        let error = hook.send(&message()).await.expect_err("no authority");
        assert!(error.to_string().contains("no certificate is in it"), "{error}");
    }

    #[test]
    fn the_form_is_that_of_alertmanager() {
        let mut message = message();
        message.group = "lyon".into();
        let told =
            Told { key: "b".into(), severity: "critical".into(), ..message.alerts[0].clone() };
        message.alerts.push(told);
        let json: serde_json::Value =
            serde_json::from_slice(&hook("http://x/".into(), None).payload(&message))
                .expect("JSON");
        assert_eq!(json["version"], "4");
        assert_eq!(json["groupKey"], "barid//lyon");
        assert_eq!(json["commonLabels"]["alertname"], "barid-test");
        assert!(json["commonLabels"]["severity"].is_null(), "{json:#}");
        assert_eq!(json["alerts"][1]["labels"]["severity"], "critical");
        assert_eq!(json["alerts"][0]["startsAt"], "1970-01-01T00:00:00.007Z");
        assert_eq!(json["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
        for field in ["receiver", "externalURL", "groupLabels", "truncatedAlerts"] {
            assert!(!json[field].is_null(), "{field}");
        }
    }
}
