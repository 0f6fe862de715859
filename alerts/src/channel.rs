//! Channels: the ways by which a message leaves. Each sends one message, or says why not.
//!
//! A channel keeps nothing and tries nothing twice: its courier does. What goes wrong is either of
//! the kind that may pass ([`SendError::Later`]), or the receiver has said that it never will take
//! this message ([`SendError::Refused`]).

mod command;
mod file;
mod journald;
mod mail;
mod syslog;
mod tls;
mod webhook;

use std::io;
use std::path::Path;

pub(crate) use command::CommandEntry;
pub(crate) use file::FileEntry;
pub(crate) use journald::JournaldEntry;
pub(crate) use mail::MailEntry;
pub(crate) use syslog::SyslogEntry;
pub(crate) use webhook::WebhookEntry;

use crate::export::Batch;
use crate::message::Message;

/// A way by which messages leave.
#[derive(Clone, Debug)]
pub(crate) enum Channel {
    /// A program that gets the message on standard input.
    Command(command::Command),
    /// An HTTP POST in Alertmanager's form.
    Webhook(Box<webhook::Webhook>),
    /// RFC 5424.
    Syslog(syslog::Syslog),
    /// Lines of JSON.
    File(file::File),
    /// The journal of systemd.
    Journald(journald::Journald),
    /// E-mail.
    Mail(Box<mail::Mail>),
}

/// A message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It may go well another time.
    #[error("{0}")]
    Later(String),
    /// The receiver does not want this message, and asking again is no use.
    #[error("refused: {0}")]
    Refused(String),
}

impl SendError {
    /// A failure of the system, said of something.
    pub(crate) fn io(what: impl std::fmt::Display, error: &io::Error) -> SendError {
        SendError::Later(format!("{what}: {error}"))
    }
}

impl Channel {
    /// Sends a message. May be dropped while it waits: then nobody knows whether it has arrived.
    pub(crate) async fn send(&self, message: &Message) -> Result<(), SendError> {
        match self {
            Channel::Command(command) => command.send(message).await,
            Channel::Webhook(webhook) => webhook.send(message).await,
            Channel::Syslog(syslog) => syslog.send(message).await,
            Channel::File(file) => file.send(message).await,
            Channel::Journald(journald) => journald.send(message).await,
            Channel::Mail(mail) => mail.send(message).await,
        }
    }

    /// Hands events on, as lines of JSON. The same holds as for a message.
    pub(crate) async fn export(&self, batch: &Batch) -> Result<(), SendError> {
        match self {
            Channel::Webhook(webhook) => webhook.export(batch).await,
            Channel::Syslog(syslog) => syslog.export(batch).await,
            Channel::File(file) => file.write(batch.lines()).await,
            other => Err(SendError::Refused(format!("events do not go by {}", other.kind()))),
        }
    }

    /// Why events cannot go this way.
    pub(crate) fn no_events(&self) -> Option<String> {
        match self {
            Channel::Webhook(_) | Channel::File(_) => None,
            Channel::Syslog(syslog) if syslog.is_whole() => None,
            Channel::Syslog(_) => {
                Some("go by tls, tcp or unix, not by udp, which loses and cuts".into())
            }
            other => Some(format!("go by webhook, syslog or file, not by {}", other.kind())),
        }
    }

    /// Whether a report can go this way: as text, or with its text in our own form.
    pub(crate) fn has_reports(&self) -> bool {
        matches!(self, Channel::Mail(_) | Channel::Command(_) | Channel::File(_))
    }

    /// By what it goes, in a line.
    pub(crate) fn line(&self) -> String {
        match self {
            Channel::Command(command) => format!("command {}", command.line()),
            other => other.kind().into(),
        }
    }

    /// What kind of channel it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Channel::Command(_) => "command",
            Channel::Webhook(_) => "webhook",
            Channel::Syslog(_) => "syslog",
            Channel::File(_) => "file",
            Channel::Journald(_) => "journald",
            Channel::Mail(_) => "mail",
        }
    }
}

/// Text without control characters, for forms that have lines or headers.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A secret from a file that only its owner may read.
fn secret(path: &Path) -> Result<String, String> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{}: others may read it: chmod 600", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(format!("{}: it is empty", path.display())),
        text => Ok(text.into()),
    }
}
