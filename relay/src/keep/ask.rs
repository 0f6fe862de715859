//! Asking what is kept, for programs at this node: who keeps it, and then that node.
//!
//! Any node may say that it keeps something; whoever wants to hear of one alone names it. An answer
//! counts only if it comes from the node that was asked.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::settings::Policy;
use super::words::{Ask, Fault, Has, KEPT_BYTES, Reply, Who};
use super::{WHO, at_subject, has_subject};
use crate::bus::{BusError, Hub};

/// How long an answer may take, beside the time that it may wait there.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that is kept could not be had, or something is not known to be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// Nobody says that he keeps this.
    #[error("no node that is reached keeps a {} of {subject}", policy.word())]
    Nobody {
        /// Which subjects.
        subject: String,
        /// How.
        policy: Policy,
    },
    /// A message was published, and nobody keeps it.
    #[error("no node that is reached keeps messages on {0}: it was published all the same")]
    NotKept(String),
    /// The node that keeps it does not answer.
    #[error("node {0} does not answer: it is away, or keeps nothing")]
    Silent(u32),
    /// It answers that it will not; nothing was changed.
    #[error("node {at}: {}", fault.message)]
    Refused {
        /// Which node.
        at: u32,
        /// Why.
        fault: Fault,
    },
    /// A message was published, and nobody has said that he keeps it. He may.
    #[error("nobody has said in time that a message on {0} is kept")]
    Unsure(String),
    /// It is longer than what can be kept. It was not published.
    #[error("the message has {0} bytes; what is kept has {KEPT_BYTES} at most")]
    TooLong(usize),
    /// This node's bus will not.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// A message that is known to be on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The number of the node that keeps it.
    pub at: u32,
    /// As what.
    pub name: String,
    /// Under which number.
    pub seq: u64,
}

/// The way to what is kept.
#[derive(Clone)]
pub struct Keeper {
    hub: Hub,
}

impl Keeper {
    /// By the bus of a node.
    pub fn new(hub: &Hub) -> Keeper {
        Keeper { hub: hub.clone() }
    }

    /// The number of this node.
    pub fn own(&self) -> u32 {
        self.hub.host().0
    }

    /// The number of a node that keeps this; of several the one that answers first.
    pub async fn find(&self, subject: &str, policy: Policy) -> Result<u32, KeepError> {
        let who = Who { subject: subject.into(), policy };
        let nobody = || KeepError::Nobody { subject: subject.into(), policy };
        let mut asked = self.hub.ask(WHO, json(&who)).await?;
        if !asked.heard {
            return Err(nobody());
        }
        let until = Instant::now() + PATIENCE;
        let answer = timeout_at(until, asked.next()).await.ok().flatten();
        answer.map(|answer| answer.from.0).ok_or_else(nobody)
    }

    /// Asks a node.
    pub async fn ask(&self, at: u32, ask: &Ask) -> Result<Reply, KeepError> {
        let until = Instant::now() + PATIENCE + Duration::from_millis(ask.wait_ms());
        let mut asked = self.hub.ask(&at_subject(at), json(ask)).await?;
        if !asked.heard {
            return Err(KeepError::Silent(at));
        }
        loop {
            let answer = timeout_at(until, asked.next()).await.ok().flatten();
            let Some(answer) = answer else { return Err(KeepError::Silent(at)) };
            if answer.from.0 != at {
                continue;
            }
            let Some(mut reply) = Reply::decode(&answer.body) else {
                return Err(KeepError::Silent(at));
            };
            return match reply.fault.take() {
                Some(fault) => Err(KeepError::Refused { at, fault }),
                None => Ok(reply),
            };
        }
    }

    /// Publishes a message, and waits until somebody says that he has it on disk.
    pub async fn confirm(
        &self,
        subject: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Confirmed, KeepError> {
        if body.len() > KEPT_BYTES {
            return Err(KeepError::TooLong(body.len()));
        }
        let until = Instant::now() + within;
        let id = self.hub.say(subject, body).await?.id;
        let has = Has { from: self.own(), id };
        // It goes the way of the message, behind it.
        let mut asked = self.hub.ask(&has_subject(subject), json(&has)).await?;
        if !asked.heard {
            return Err(KeepError::NotKept(subject.into()));
        }
        loop {
            let answer = timeout_at(until, asked.next()).await.ok().flatten();
            let Some(answer) = answer else { return Err(KeepError::Unsure(subject.into())) };
            if let Some(reply) = Reply::decode(&answer.body) {
                return Ok(Confirmed { at: answer.from.0, name: reply.name, seq: reply.through });
            }
        }
    }
}

fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).expect("plain data is valid JSON").into()
}
