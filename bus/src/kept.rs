//! What nodes keep of the bus: the newest messages, streams and queues.
//!
//! Who keeps something is found by the subject, or named by its number as a [`Holder`].

use std::time::Duration;

use bytes::Bytes;

use crate::client::{BusError, Client, Messages, Stream, document, escaped};
use crate::wire::{AllKept, Heard, Message, Place, Taken};

/// Which node keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// Whoever says so first.
    #[default]
    Any,
    /// The one of this number.
    Node(u32),
}

impl Holder {
    fn query(self) -> String {
        match self {
            Holder::Any => String::new(),
            Holder::Node(at) => format!("&at={at}"),
        }
    }
}

impl Client {
    /// Subscribes as [`Client::subscribe`] does; the newest message of each subject that some node
    /// keeps comes first. One that is published just then may come twice.
    pub async fn subscribe_last(&self, patterns: &[&str]) -> Result<Messages, BusError> {
        let subjects: Vec<_> = patterns.iter().map(|p| format!("subject={}", escaped(p))).collect();
        let path = format!("/v1/bus/sub?{}&last=1", subjects.join("&"));
        Ok(Stream::new(self.post(&path, Bytes::new()).await?))
    }

    /// Publishes a message, and waits until a node says that it has it on disk. After an error it
    /// may be there all the same.
    pub async fn publish_kept(
        &self,
        subject: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Place, BusError> {
        let (subject, ms) = (escaped(subject), within.as_millis());
        let path = format!("/v1/bus/pub?subject={subject}&kept=1&deadline_ms={ms}");
        let heard = document::<Heard>(self.post(&path, body).await?).await?;
        heard.kept.ok_or_else(|| BusError::Answer("it does not say where it is kept".into()))
    }

    /// Reads a stream from where this reader is, and goes on as more comes. What is not
    /// acknowledged comes again next time. `new`: a reader who is not known yet begins at the next
    /// message, and not at the oldest.
    pub async fn read(
        &self,
        pattern: &str,
        reader: &str,
        new: bool,
        holder: Holder,
    ) -> Result<Messages, BusError> {
        let (subject, reader) = (escaped(pattern), escaped(reader));
        let from = if new { "new" } else { "first" };
        let at = holder.query();
        let path = format!("/v1/bus/read?subject={subject}&as={reader}&from={from}{at}");
        Ok(Stream::new(self.post(&path, Bytes::new()).await?))
    }

    /// A reader has everything up to this message.
    pub async fn ack(&self, pattern: &str, reader: &str, place: &Place) -> Result<(), BusError> {
        let (subject, reader) = (escaped(pattern), escaped(reader));
        let Place { by, seq, .. } = place;
        self.said(&format!("/v1/bus/ack?subject={subject}&as={reader}&seq={seq}&at={by}")).await
    }

    /// A reader will not come again: nothing is kept for him any more.
    pub async fn forget(
        &self,
        pattern: &str,
        reader: &str,
        holder: Holder,
    ) -> Result<(), BusError> {
        let (subject, reader) = (escaped(pattern), escaped(reader));
        let at = holder.query();
        self.said(&format!("/v1/bus/forget?subject={subject}&as={reader}{at}")).await
    }

    /// The next message of a queue that nobody else has; none: there is none in time.
    pub async fn take(
        &self,
        pattern: &str,
        wait: Duration,
        holder: Holder,
    ) -> Result<Option<Message>, BusError> {
        let (subject, ms) = (escaped(pattern), wait.as_millis());
        let at = holder.query();
        let path = format!("/v1/bus/take?subject={subject}&wait_ms={ms}{at}");
        Ok(document::<Taken>(self.post(&path, Bytes::new()).await?).await?.message)
    }

    /// A message of a queue is done, and nobody gets it any more.
    pub async fn done(&self, pattern: &str, place: &Place) -> Result<(), BusError> {
        let (subject, token) = (escaped(pattern), place.token.as_deref().unwrap_or_default());
        let Place { by, seq, .. } = place;
        let token = escaped(token);
        self.said(&format!("/v1/bus/done?subject={subject}&seq={seq}&token={token}&at={by}")).await
    }

    /// What a node keeps; of this machine's own if none is named.
    pub async fn kept(&self, holder: Holder) -> Result<AllKept, BusError> {
        let path = format!("/v1/bus/kept?{}", holder.query().trim_start_matches('&'));
        document(self.post(&path, Bytes::new()).await?).await
    }

    async fn said(&self, path: &str) -> Result<(), BusError> {
        document::<serde_json::Value>(self.post(path, Bytes::new()).await?).await.map(drop)
    }
}
