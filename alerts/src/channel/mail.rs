//! E-mail as a channel, by SMTP with STARTTLS or TLS. What is said of one group is one thread.

use std::path::PathBuf;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Mailboxes};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde::Deserialize;

use super::tls::certificates;
use super::{Channel, SendError, plain, secret};
use crate::clock::rfc3339;
use crate::message::{Message, Told};

/// The server, and to whom the mail goes.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    server: String,
    port: u16,
    tls: Tls,
    login: Option<Credentials>,
    from: Mailbox,
    to: Mailboxes,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MailEntry {
    server: String,
    port: Option<u16>,
    #[serde(default)]
    tls: TlsWord,
    ca_file: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    from: String,
    to: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TlsWord {
    #[default]
    Starttls,
    Tls,
    None,
}

impl MailEntry {
    pub(crate) fn channel(self) -> Result<Channel, String> {
        let address = |name: &str, text: &str| {
            let parsed = text.parse::<Mailbox>();
            parsed.map_err(|error| format!("mail.{name}: {text:?} is no address: {error}"))
        };
        let from = address("from", &self.from)?;
        let to = self.to.iter().map(|text| address("to", text));
        let to = to.collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err("mail.to: it names nobody".into());
        }
        let login = match (self.user, self.password_file) {
            (None, None) => None,
            (Some(user), Some(path)) => Some(Credentials::new(user, secret(&path)?)),
            _ => return Err("mail: user and password_file go together".into()),
        };
        if login.is_some() && self.tls == TlsWord::None {
            return Err("mail: a password is not sent without TLS".into());
        }
        if self.ca_file.is_some() && self.tls == TlsWord::None {
            return Err("mail: ca_file is for tls = \"starttls\" or \"tls\"".into());
        }
        let tls = || -> Result<TlsParameters, String> {
            let mut tls = TlsParameters::builder(self.server.clone());
            if let Some(path) = &self.ca_file {
                tls = tls.certificate_store(CertificateStore::None);
                for cert in certificates(path)? {
                    let cert = Certificate::from_der(cert.to_vec());
                    let wrong = |error| format!("{}: {error}", path.display());
                    tls = tls.add_root_certificate(cert.map_err(wrong)?);
                }
            }
            tls.build().map_err(|error| format!("mail.tls: {error}"))
        };
        let (tls, port) = match self.tls {
            TlsWord::Starttls => (Tls::Required(tls()?), 587),
            TlsWord::Tls => (Tls::Wrapper(tls()?), 465),
            TlsWord::None => (Tls::None, 25),
        };
        let port = self.port.unwrap_or(port);
        let (server, to) = (self.server, Mailboxes::from_iter(to));
        Ok(Channel::Mail(Box::new(Mail { server, port, tls, login, from, to })))
    }
}

impl Mail {
    pub(crate) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let mail = self.mail(message).map_err(|error| SendError::Refused(error.to_string()))?;
        let server = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.server);
        let mut server = server.port(self.port).tls(self.tls.clone());
        if let Some(login) = &self.login {
            server = server.credentials(login.clone());
        }
        match server.build().send(mail).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let text = plain(&format!("{}: {}", self.server, chain(&error)));
                // 5xx: this mail, or this sender, is not wanted; authentication may be mended.
                match error.status().map(u16::from) {
                    Some(550..=554) => Err(SendError::Refused(text)),
                    _ => Err(SendError::Later(text)),
                }
            }
        }
    }

    fn mail(&self, message: &Message) -> Result<lettre::Message, lettre::error::Error> {
        let domain = self.from.email.domain();
        let thread = blake3::hash(format!("{}/{}", message.from.node, message.group).as_bytes());
        let thread = format!("<{}.barid@{domain}>", &thread.to_hex()[..24]);
        let mut mail = lettre::Message::builder().from(self.from.clone());
        for to in self.to.iter() {
            mail = mail.to(to.clone());
        }
        mail.subject(plain(&format!("[barid] {}", message.line())))
            .message_id(Some(format!("<{}.barid@{domain}>", message.id)))
            .in_reply_to(thread.clone())
            .references(thread)
            .header(ContentType::TEXT_PLAIN)
            .body(text(message))
    }
}

/// An error with its causes: lettre leaves them to be asked for.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn text(message: &Message) -> String {
    let report = message.report.as_ref();
    let mut text = report.map_or_else(String::new, |report| format!("{}\n", report.text));
    for told in &message.alerts {
        text.push_str(&paragraph(told));
    }
    if message.more > 0 {
        text.push_str(&format!("and {} more: barid alerts ls\n\n", message.more));
    }
    if message.dropped > 0 {
        text.push_str(&format!("{} older messages were dropped.\n\n", message.dropped));
    }
    let (node, mesh) = (&message.from.node, &message.from.mesh);
    text.push_str(&format!("-- \ntold by {node} of mesh {mesh}, {}\n", rfc3339(message.at_ms)));
    text
}

fn paragraph(told: &Told) -> String {
    let state = match (told.status.as_str(), told.again) {
        ("resolved", _) => format!("OVER since {}", rfc3339(told.ended_ms)),
        (_, true) => format!("STILL, since {}", rfc3339(told.began_ms)),
        _ => format!("{} since {}", told.severity.to_uppercase(), rfc3339(told.began_ms)),
    };
    let help = match (told.status.as_str(), told.help.as_str()) {
        ("resolved", _) | (_, "") => String::new(),
        (_, help) => format!("  {help}\n"),
    };
    let id = &told.id;
    let (summary, key) = (plain(&told.summary), plain(&told.key));
    format!("{state}: {summary}\n{help}  {key}  (barid alerts show {id})\n\n")
}
