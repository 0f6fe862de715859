//! The journal of systemd as a channel, by its native protocol: a datagram of fields for each
//! alert.

use std::path::PathBuf;

use serde::Deserialize;
use tokio::net::UnixDatagram;

use super::{Channel, SendError, plain, syslog};
use crate::message::{Message, Told};

/// The journal.
#[derive(Clone, Debug)]
pub(crate) struct Journald {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournaldEntry {
    #[serde(default = "JournaldEntry::path")]
    path: PathBuf,
}

impl JournaldEntry {
    fn path() -> PathBuf {
        "/run/systemd/journal/socket".into()
    }

    pub(crate) fn channel(self) -> Result<Channel, String> {
        Ok(Channel::Journald(Journald { path: self.path }))
    }
}

impl Journald {
    pub(crate) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let failed = |error| SendError::io(self.path.display(), &error);
        let socket = UnixDatagram::unbound().map_err(failed)?;
        for told in &message.alerts {
            socket.send_to(fields(message, told).as_bytes(), &self.path).await.map_err(failed)?;
        }
        Ok(())
    }
}

fn fields(message: &Message, told: &Told) -> String {
    let mut text = String::new();
    let mut add = |name: &str, value: &str| {
        // A newline would begin another field.
        text.push_str(&format!("{name}={}\n", plain(value)));
    };
    add("MESSAGE", &syslog::words(told));
    add("PRIORITY", &syslog::level(told).to_string());
    add("SYSLOG_IDENTIFIER", "barid");
    add("BARID_NODE", &message.from.node);
    add("BARID_ALERT", &told.key);
    add("BARID_KIND", &told.kind);
    add("BARID_SEVERITY", &told.severity);
    add("BARID_STATUS", &told.status);
    add("BARID_GROUP", &message.group);
    add("BARID_ID", &message.id);
    text
}
