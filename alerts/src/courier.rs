//! A courier takes the messages of one channel to it, the oldest first, and tries again with
//! growing pauses where it fails. Each channel has its own, so that one which hangs holds up
//! nobody else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh::Time;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::channel::SendError;
use crate::clock::Clock;
use crate::message::Message;
use crate::outbox::Outbox;
use crate::settings::Way;

/// The longest pause between two tries.
const CAP: Duration = Duration::from_secs(300);

/// How a channel does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    /// Since when it has taken nothing.
    pub(crate) failing: Option<Time>,
    /// What it said last.
    pub(crate) error: String,
    /// How many messages it has taken since the start.
    pub(crate) sent: u64,
    /// How many it has refused.
    pub(crate) refused: u64,
}

/// One channel with its messages.
pub(crate) struct Courier {
    pub(crate) name: String,
    pub(crate) way: Way,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) health: Arc<Mutex<Health>>,
    pub(crate) clock: Clock,
    /// There is something to send.
    pub(crate) more: Notify,
    /// It is worth trying again.
    pub(crate) again: Notify,
}

impl Courier {
    pub(crate) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what waits. Runs until it is dropped.
    pub(crate) async fn run(self: Arc<Courier>) {
        let mut tries = 0;
        loop {
            let outbox = self.outbox.clone();
            let front = spawn_blocking(move || outbox.front()).await;
            let Some((number, message)) = front.expect("reading does not panic") else {
                self.more.notified().await;
                continue;
            };
            let told = match self.send(&message).await {
                Err(SendError::Later(_)) => {
                    tries += 1;
                    timeout(pause(tries), self.again.notified()).await.ok();
                    continue;
                }
                Ok(()) => message.dropped,
                Err(SendError::Refused(_)) => 0,
            };
            tries = 0;
            let outbox = self.outbox.clone();
            let removed = spawn_blocking(move || outbox.remove(number, told)).await;
            removed.expect("removing does not panic");
        }
    }

    /// Sends one message now, whatever waits, and notes how it went.
    pub(crate) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let result = self.way.send(message).await;
        let mut health = self.health();
        let channel = &self.name;
        match &result {
            Ok(()) => {
                health.sent += 1;
                if health.failing.take().is_some() {
                    info!(channel, "alerts go out again");
                }
                health.error.clear();
            }
            Err(error) => {
                health.error = error.to_string();
                match error {
                    // Who refuses one message answers, so the channel is well.
                    SendError::Refused(_) => {
                        health.refused += 1;
                        health.failing = None;
                        warn!(channel, %error, "an alert is not taken, and not sent again");
                    }
                    SendError::Later(_) if health.failing.is_none() => {
                        health.failing = Some(self.clock.now());
                        warn!(channel, %error, "an alert is not taken");
                    }
                    SendError::Later(_) => {}
                }
            }
        }
        result
    }
}

/// Up to a second, two, four ..., never less than half of it: thousands of nodes may have the same
/// receiver.
fn pause(tries: u32) -> Duration {
    let span = Duration::from_secs(1 << tries.min(9)).min(CAP);
    let mut random = [0; 1];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random).ok();
    span.mul_f64(0.5 + f64::from(random[0]) / 510.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::message::Sender;
    use crate::settings::Settings;

    #[tokio::test]
    async fn who_refuses_a_message_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("alerts.toml");
        let text = format!("channels.a.webhook = {{ url = 'http://127.0.0.1:{port}/' }}");
        std::fs::write(&path, text).expect("written");
        let mut channels: BTreeMap<_, _> = Settings::load(&path).expect("valid").channels;
        let courier = Courier {
            name: "a".into(),
            way: channels.remove("a").expect("it is there"),
            outbox: Arc::new(Outbox::open(dir.path(), 3)),
            health: Arc::default(),
            clock: Clock::new(),
            more: Notify::new(),
            again: Notify::new(),
        };
        tokio::spawn(async move {
            for status in ["500 Broken", "400 Bad"] {
                let (mut stream, _) = listener.accept().await.expect("it comes");
                assert!(stream.read(&mut [0; 4096]).await.expect("it asks") > 0);
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("it hears");
            }
        });
        let message = Message::plain(&Sender::default(), "test", "this is a test", 7);
        courier.send(&message).await.expect_err("it is broken");
        assert!(courier.health().failing.is_some());
        courier.send(&message).await.expect_err("it is refused");
        let health = courier.health().clone();
        assert_eq!((health.failing, health.refused), (None, 1));
        assert!(health.error.contains("400 Bad"), "{}", health.error);
    }
}
