//! Putting right what distributions have brought, by the word of the relay next to a host: for a
//! site that is cut off.
//!
//! A relay asks its own children by the bus, and a node obeys its parent alone. What shall be there
//! every host knows itself, from the orders that it has had: the word brings nothing. When a relay
//! does it by itself is in `site`, and that nothing is done twice then in `once`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use mesh::HostId;
use mesh::bus::Message;
use relay::Running;
use relay::bus::{Asked, BusError, Received};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::bus::{Failure, Parameters, Whole, line, line_stream, one};
use crate::once::Once;

/// What a relay says it on. All nodes listen to one subject, whoever their parents are.
const SUBJECT: &str = "barid.restore";
/// The longest wish, and how long its end is awaited, unless it says otherwise, and at most.
const WISH: usize = 256 << 10;
const DEADLINE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// How long the last line waits for whoever reads slowly.
const LAST: Duration = Duration::from_secs(5);
/// So many files of one host are named; more are counted.
const NAMED: usize = 200;

/// What is wished of a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRestore {
    /// What is distributed so often; empty: all of it.
    pub frequency: String,
    /// Names of children; none: all.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// What is heard of it, a line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreLine {
    /// What a host says.
    Host {
        /// Its name.
        host: String,
        /// What it has done.
        done: RestoreDone,
    },
    /// All have spoken, or the time is over.
    End {
        /// Who has not spoken.
        silent: Vec<String>,
    },
}

/// What one host has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreDone {
    /// How many destinations were looked at.
    pub files: u64,
    /// Those that were not as they should be, and are now.
    pub restored: Vec<String>,
    /// Those that are not, each with the reason.
    pub failed: Vec<(String, String)>,
    /// How many more there are of either.
    #[serde(default)]
    pub more: u64,
}

/// What a relay says to its children.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    frequency: String,
    /// Their numbers; none: all.
    #[serde(default)]
    hosts: Vec<u32>,
    /// When the frequency was due, if it is for that: then it is done once. 0: it is not.
    #[serde(default, skip_serializing_if = "is_zero")]
    due_ms: u64,
    /// By when it must have begun, in milliseconds since 1970; 0: at any time.
    #[serde(default, skip_serializing_if = "is_zero")]
    by_ms: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The route, at a node whose children are to put things right.
pub(crate) fn router(node: Arc<Running>) -> Router {
    Router::new()
        .route("/v1/restore", post(restore))
        .layer(DefaultBodyLimit::max(WISH))
        .with_state(node)
}

async fn restore(
    State(node): State<Arc<Running>>,
    Query(parameters): Parameters,
    Whole(body): Whole,
) -> Result<Response, Failure> {
    let wrong = |error| Failure::bad(format!("no wish to put files right: {error}"));
    let NewRestore { frequency, hosts } = serde_json::from_slice(&body).map_err(wrong)?;
    let within = match one(&parameters, "deadline_ms") {
        Err(_) => DEADLINE,
        Ok(text) => {
            let wrong = |_| Failure::bad(format!("deadline_ms is {text:?} and must be a number"));
            Duration::from_millis(text.parse().map_err(wrong)?).min(LONGEST)
        }
    };
    let children = node.links().into_iter().filter(|link| !link.is_parent);
    let mut children: BTreeMap<HostId, String> =
        children.map(|link| (link.host, link.name)).collect();
    let is_child = |name: &&String| children.values().any(|child| child == *name);
    if let Some(other) = hosts.iter().find(|name| !is_child(name)) {
        return Err(Failure::bad(format!("{other}: not linked to this relay")));
    }
    if !hosts.is_empty() {
        children.retain(|_, name| hosts.contains(name));
    }
    let named =
        if hosts.is_empty() { Vec::new() } else { children.keys().map(|id| id.0).collect() };
    let until = Instant::now() + within;
    let word = Word { frequency, hosts: named, due_ms: 0, by_ms: 0 };
    let asked = Asking::new(&node, &word, children).await?;
    let (lines, response) = line_stream();
    tokio::spawn(async move {
        let mut asked = asked;
        timeout_at(until, pass_on(&mut asked, &lines)).await.ok();
        let silent = asked.silent;
        let end = RestoreLine::End { silent: silent.into_values().collect() };
        timeout(LAST, lines.send(line(&end))).await.ok();
    });
    Ok(response)
}

/// Children that were told to put something right, and what they say.
pub(crate) struct Asking {
    asked: Asked,
    /// Who has not spoken.
    pub(crate) silent: BTreeMap<HostId, String>,
}

impl Asking {
    async fn new(
        node: &Running,
        word: &Word,
        silent: BTreeMap<HostId, String>,
    ) -> Result<Asking, BusError> {
        let body = serde_json::to_vec(word).expect("a plain word is valid JSON");
        let asked = node.bus().ask(SUBJECT, body.into()).await?;
        Ok(Asking { asked, silent })
    }

    /// Has these children do what was due then, if they begin in time.
    pub(crate) async fn due(
        node: &Running,
        (frequency, due_ms, by_ms): (&str, u64, u64),
        children: BTreeMap<HostId, String>,
    ) -> Result<Asking, BusError> {
        let hosts = children.keys().map(|id| id.0).collect();
        let word = Word { frequency: frequency.into(), hosts, due_ms, by_ms };
        Asking::new(node, &word, children).await
    }

    /// What the next of them says; none: all have spoken, or nobody hears it.
    pub(crate) async fn next(&mut self) -> Option<(HostId, String, RestoreDone)> {
        while self.asked.heard && !self.silent.is_empty() {
            let answer = self.asked.next().await?;
            let Ok(done) = serde_json::from_slice::<RestoreDone>(&answer.body) else { continue };
            let Some(host) = self.silent.remove(&answer.from) else { continue };
            return Some((answer.from, host, done));
        }
        None
    }
}

/// Passes on what children say, until all have spoken.
async fn pass_on(asked: &mut Asking, lines: &mpsc::Sender<Bytes>) {
    while let Some((_, host, done)) = asked.next().await {
        if lines.send(line(&RestoreLine::Host { host, done })).await.is_err() {
            return;
        }
    }
}

/// Does what the parent says, whoever that is, until the node stops.
pub(crate) async fn obey(node: Arc<Running>, once: Arc<Once>) {
    let mut words = match node.bus().subscribe(&[SUBJECT.into()]).await {
        Ok(words) => words,
        Err(error) => return warn!(%error, "the parent's wishes are not heard"),
    };
    while let Some(received) = words.next().await {
        let Received::Message(message) = received else { continue };
        let mut links = node.links().into_iter();
        if links.any(|link| link.is_parent && link.host == message.from) {
            carry_out(&node, &once, &message).await;
        }
    }
}

async fn carry_out(node: &Running, once: &Once, message: &Message) {
    let Ok(Word { frequency, hosts, due_ms, by_ms }) = serde_json::from_slice(&message.body) else {
        return;
    };
    if !hosts.is_empty() && !hosts.contains(&node.host().0) {
        return;
    }
    let done = match due_ms {
        0 => put_right(node, &frequency).await,
        due_ms => once.put_right(node, &frequency, (due_ms, by_ms)).await,
    };
    let Some(request) = message.request else { return };
    let body = serde_json::to_vec(&done).expect("a plain answer is valid JSON");
    if let Err(error) = node.bus().answer(message.from, request, body.into()).await {
        warn!(%error, "the parent is not told what was put right");
    }
}

/// Puts right what is distributed so often; empty: all of it.
pub(crate) async fn put_right(node: &Running, frequency: &str) -> RestoreDone {
    let mut done = RestoreDone::default();
    let all = match node.restore(frequency).await {
        Ok(all) => all,
        Err(error) => {
            done.failed.push((String::new(), relay::chain(&error)));
            return done;
        }
    };
    done.files = all.len() as u64;
    for one in all {
        if done.restored.len() + done.failed.len() >= NAMED {
            done.more += u64::from(one.changed > 0 || !one.fault.is_empty());
        } else if !one.fault.is_empty() {
            done.failed.push((one.dest, one.fault));
        } else if one.changed > 0 {
            done.restored.push(one.dest);
        }
    }
    done
}
