//! [`Desk`]: the way to the task that owns the engine. Rules hand in what they see, operators ask,
//! and what the engine wants is done: messages into the queues of channels, then rows to the
//! keeper.

mod answers;
mod channels;
mod events;
mod reacted;
mod reacting;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use mesh::Kind;
use mesh::alerts::Condition;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use self::worker::Worker;
use crate::info::{AlertInfo, Overview};
use crate::keep::{Keeper, SilenceRow};
use crate::message::{Message, Sender, Written};
use crate::reactions::{Act, Wanted};
use crate::rules::Seen;
use crate::settings::Settings;

/// Things that may wait for the desk.
const ASKS: usize = 256;

/// What a desk is made of.
pub struct Setup {
    /// The node's state folder: `alerts.toml` is there, and `alerts/` for what waits.
    pub state: PathBuf,
    /// Who speaks.
    pub from: Sender,
    /// Who keeps alerts over a restart.
    pub keeper: Arc<dyn Keeper>,
    /// Where it says what fires and what is over, for the events of the node.
    pub events: mpsc::Sender<(Kind, String)>,
    /// Who does what reactions want.
    pub acts: mpsc::Sender<Wanted>,
    /// What can be said beforehand against orders among them; nothing: it gives none.
    pub orders: Option<OrderCheck>,
}

/// Says what is wrong with an order that a reaction is to give, as far as its own words tell.
pub type OrderCheck = fn(&Act) -> Result<(), String>;

/// The way to a desk. It ends when all of them are gone.
#[derive(Clone)]
pub struct Desk {
    asks: mpsc::Sender<Ask>,
    settings: watch::Receiver<Arc<Settings>>,
}

/// A request of an operator that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is nothing of that name.
    #[error("there is no {what} {name}")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// Under which name.
        name: String,
    },
    /// It has ended already.
    #[error("the alert {0} is over")]
    Over(String),
    /// No more can be taken.
    #[error("there are too many silences")]
    Full,
    /// The channel did not take the test.
    #[error("channel {name}: {error}")]
    Channel {
        /// The channel.
        name: String,
        /// What went wrong.
        error: String,
    },
    /// Nobody knows which channels there are.
    #[error("the settings of alerts are not valid: {0}")]
    Settings(String),
    /// A report that the disk has not taken for this channel. It goes by none.
    #[error("a report cannot be kept for channel {0}")]
    Disk(String),
    /// The desk has ended.
    #[error("alerts are not at work here")]
    Gone,
}

type Reply<T> = oneshot::Sender<T>;
type Explained = Box<dyn Fn(&Condition) -> Option<String> + Send>;

enum Ask {
    Set { source: &'static str, seen: Vec<Seen>, explained: Explained },
    List(Reply<Overview>),
    Ack { name: String, by: String, note: String, reply: Reply<Result<AlertInfo, AskError>> },
    Silence(SilenceRow, Reply<Result<SilenceRow, AskError>>),
    Unsilence(String, Reply<Result<(), AskError>>),
    Test(String, Reply<Result<(), AskError>>),
    HasReports(String, Reply<Result<bool, AskError>>),
    Report(Box<Message>, Reply<Result<usize, AskError>>),
}

impl Desk {
    /// All that a source sees now. `explained`: why nothing is known of what it leaves out.
    pub async fn set(
        &self,
        source: &'static str,
        seen: Vec<Seen>,
        explained: impl Fn(&Condition) -> Option<String> + Send + 'static,
    ) {
        let explained = Box::new(explained);
        self.asks.send(Ask::Set { source, seen, explained }).await.ok();
    }

    /// All alerts, silences and channels.
    pub async fn list(&self) -> Result<Overview, AskError> {
        self.ask(Ask::List).await
    }

    /// Somebody takes an alert, named by its key or the beginning of its id, upon himself.
    pub async fn ack(&self, name: &str, by: &str, note: &str) -> Result<AlertInfo, AskError> {
        let (name, by, note) = (name.into(), by.into(), note.into());
        self.ask(|reply| Ask::Ack { name, by, note, reply }).await?
    }

    /// Takes a silence and gives it an id.
    pub async fn silence(&self, silence: SilenceRow) -> Result<SilenceRow, AskError> {
        self.ask(|reply| Ask::Silence(silence, reply)).await?
    }

    /// Ends a silence.
    pub async fn unsilence(&self, id: &str) -> Result<(), AskError> {
        let id = id.into();
        self.ask(|reply| Ask::Unsilence(id, reply)).await?
    }

    /// Sends a test message by a channel, and waits until it is taken or not.
    pub async fn test(&self, channel: &str) -> Result<(), AskError> {
        let channel = channel.into();
        self.ask(|reply| Ask::Test(channel, reply)).await?
    }

    /// Whether there is a channel that has reports of this kind.
    pub async fn has_reports(&self, kind: &str) -> Result<bool, AskError> {
        let kind = kind.into();
        self.ask(|reply| Ask::HasReports(kind, reply)).await?
    }

    /// Hands a report to each channel that has those of its kind. Returns how many these are, once
    /// it is on disk for all of them; an error: nobody has it, and it is for the caller to keep.
    pub async fn report(
        &self,
        from: &Sender,
        report: Written,
        at_ms: u64,
    ) -> Result<usize, AskError> {
        let message = Box::new(Message::report(from, report, at_ms));
        self.ask(|reply| Ask::Report(message, reply)).await?
    }

    /// The settings as they are in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| AskError::Gone)?;
        answer.await.map_err(|_| AskError::Gone)
    }
}

/// Starts a desk. Settings that are not valid are an alert of their own.
pub fn start(setup: Setup) -> Desk {
    let (asks, inbox) = mpsc::channel(ASKS);
    let (published, settings) = watch::channel(Arc::default());
    tokio::spawn(async move {
        let worker = spawn_blocking(move || Worker::new(setup, published)).await;
        worker.expect("reading settings does not panic").run(inbox).await;
    });
    Desk { asks, settings }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::keep::FileKeeper;

    fn desk(state: &Path, settings: &str) -> Desk {
        fs::write(state.join("alerts.toml"), settings).expect("written");
        let keeper = Arc::new(FileKeeper::open(state.join("kept.json")));
        let ((events, _), (acts, _)) = (mpsc::channel(1), mpsc::channel(1));
        let (from, orders) = (Sender::default(), None);
        start(Setup { state: state.into(), from, keeper, events, acts, orders })
    }

    fn written() -> Written {
        let (kind, subject, text) = ("hour".into(), "it".into(), String::new());
        Written { kind, subject, text, start_ms: 1, end_ms: 2 }
    }

    #[tokio::test]
    async fn a_report_is_on_disk_for_all_channels_that_have_it_or_for_none() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (state, own) = (dir.path(), dir.path().join("alerts"));
        // The first takes nothing, so what waits for it stays there.
        let channel = |name: &str| {
            format!("[channels.{name}]\nfile = {{ path = '/dev/full' }}\nreports = ['hour']\n")
        };
        fs::create_dir(&own).expect("made");
        fs::write(own.join("b"), "no folder").expect("written");
        let desk = desk(state, &(channel("a") + &channel("b")));
        assert_eq!(desk.has_reports("hour").await, Ok(true));
        assert_eq!(desk.has_reports("day").await, Ok(false));
        let hand = async || desk.report(&Sender::default(), written(), 3).await;
        assert_eq!(hand().await, Err(AskError::Disk("b".into())));
        let waiting = |name: &str| {
            let entries = fs::read_dir(own.join(name)).into_iter().flatten().flatten();
            entries.filter(|entry| entry.path().extension().is_some_and(|it| it == "json")).count()
        };
        assert_eq!(waiting("a"), 0);
        fs::remove_file(own.join("b")).expect("removed");
        assert_eq!(hand().await, Ok(2));
        assert_eq!((waiting("a"), waiting("b")), (1, 1));
    }

    #[tokio::test]
    async fn whether_there_are_channels_for_reports_is_not_known_with_settings_that_are_not_valid()
    {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let broken = desk(dir.path(), "[channels").has_reports("hour").await;
        assert!(matches!(broken, Err(AskError::Settings(_))), "{broken:?}");
    }
}
