//! What is kept of the bus, by HTTP: `POST /v1/bus/read|ack|forget|take|done|kept`, and what
//! `pub?kept=1` and `sub?last=1` add.
//!
//! Where it is kept is another node's business; here it is found, asked, and what it says is told
//! on. Whoever may subscribe to a subject may also read what is kept of it.

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::extract::connect_info::ConnectInfo;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use bus::{AllKept, Heard, Line, Message, Place, Reader, Taken, encode_data};
use bytes::Bytes;
use relay::keep::{Ask, Begin, KeepError, Keeper, Policy as Kind, Record, Reply};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::bus::{Api, Failure, Parameters, line, line_stream, one};
use crate::policy::Does;
use crate::who::Who;

/// How long a node is asked to wait at once for what is not there yet.
const WAIT: Duration = Duration::from_secs(20);
/// How long to wait before a node that is away is asked again.
const AWAY: Duration = Duration::from_secs(1);
/// How long to wait for a queue at most, and for the word that a message is kept unless it is said.
const LONGEST: Duration = Duration::from_secs(3600);
const CONFIRM: Duration = Duration::from_secs(5);
/// The longest name of a reader.
const NAME: usize = 128;

impl From<KeepError> for Failure {
    fn from(error: KeepError) -> Failure {
        let text = error.to_string();
        let new = |status, code: &str, help: &str| Failure::new(status, code, text.clone(), help);
        match error {
            KeepError::Nobody { .. } => {
                let help = "[[keep]] in bus.toml of the node that is to keep it says so";
                new(StatusCode::NOT_FOUND, "unknown", help)
            }
            KeepError::NotKept(_) => {
                let help = "[[keep]] in bus.toml of the node that is to keep it says so";
                new(StatusCode::NOT_FOUND, "not-kept", help)
            }
            KeepError::Silent(_) => new(StatusCode::SERVICE_UNAVAILABLE, "away", "try again"),
            KeepError::Unsure(_) => {
                let help = "it may be kept; published again it may be there twice";
                new(StatusCode::GATEWAY_TIMEOUT, "unsure", help)
            }
            KeepError::TooLong(_) => new(StatusCode::BAD_REQUEST, "bad-request", "see docs/bus.md"),
            KeepError::Refused { fault, .. } => {
                let status = match fault.code.as_str() {
                    "unknown" => StatusCode::NOT_FOUND,
                    "over" => StatusCode::CONFLICT,
                    "bad-request" => StatusCode::BAD_REQUEST,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                new(status, &fault.code, "barid bus kept shows what a node keeps")
            }
            KeepError::Bus(error) => error.into(),
        }
    }
}

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/bus/read", post(read))
        .route("/v1/bus/ack", post(ack))
        .route("/v1/bus/forget", post(forget))
        .route("/v1/bus/take", post(take))
        .route("/v1/bus/done", post(done))
        .route("/v1/bus/kept", post(kept))
}

type Answer<T> = Result<Json<T>, Failure>;

/// Who asks about which subjects, and whether he may.
async fn subject(api: &Api, who: Who, parameters: &Parameters) -> Result<String, Failure> {
    let subject = one(parameters, "subject")?;
    api.check(who, Does::Subscribe, subject).await?;
    Ok(subject.into())
}

/// The node that keeps it.
async fn holder(
    keeper: &Keeper,
    parameters: &Parameters,
    subject: &str,
    kind: Kind,
) -> Result<u32, Failure> {
    match number(parameters, "at")? {
        Some(at) => u32::try_from(at).map_err(|_| Failure::bad(format!("there is no node {at}"))),
        None => Ok(keeper.find(subject, kind).await?),
    }
}

/// A parameter that is a number, if it is there.
fn number(parameters: &Parameters, name: &'static str) -> Result<Option<u64>, Failure> {
    if parameters.iter().all(|(other, _)| other != name) {
        return Ok(None);
    }
    let text = one(parameters, name)?;
    let wrong = |_| Failure::bad(format!("{name} is {text:?} and must be a number"));
    text.parse().map(Some).map_err(wrong)
}

fn needed(parameters: &Parameters, name: &'static str) -> Result<u64, Failure> {
    number(parameters, name)?.ok_or_else(|| Failure::bad(format!("one `{name}` is needed")))
}

/// By which name somebody reads. Whoever may read a stream has a place of his own in it, and moves
/// that of nobody else: the names of all but the node's own user begin with his number.
fn reader(who: Who, parameters: &Parameters) -> Result<String, Failure> {
    let reader = one(parameters, "as")?;
    let plain = reader.bytes().all(|byte| byte.is_ascii_graphic());
    if reader.is_empty() || reader.len() > NAME || !plain {
        let what = "must be 1 to 128 printable characters of ASCII without blanks";
        return Err(Failure::bad(format!("as is {reader:?} and {what}")));
    }
    Ok(if who.is_own() { reader.into() } else { format!("{}:{reader}", who.uid) })
}

async fn read(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    parameters: Parameters,
) -> Result<Response, Failure> {
    let subject = subject(&api, who, &parameters).await?;
    let reader = reader(who, &parameters)?;
    let from = match one(&parameters, "from") {
        Ok("new") => Begin::New,
        Ok("first") | Err(_) => Begin::First,
        Ok(other) => return Err(Failure::bad(format!("from is {other:?}: first or new"))),
    };
    let keeper = Keeper::new(&api.hub);
    let at = holder(&keeper, &parameters, &subject, Kind::Stream).await?;
    // What is wrong is said before anything else is.
    let first = Ask::Read {
        subject: subject.clone(),
        reader: reader.clone(),
        from,
        after: None,
        wait_ms: 0,
    };
    let first = keeper.ask(at, &first).await?;
    let (lines, response) = line_stream();
    let ready = line(&Line::Ready(vec![subject.clone()]));
    let wait_ms = u64::try_from(WAIT.as_millis()).unwrap_or(u64::MAX);
    let next = move |after| {
        let (subject, reader) = (subject.clone(), reader.clone());
        Ask::Read { subject, reader, from, after: Some(after), wait_ms }
    };
    let pages = Pages { keeper, at, first: Some(first) };
    tokio::spawn(async move {
        if lines.send(ready).await.is_ok() {
            // Whoever reads may leave while there is nothing to read.
            tokio::select! {
                () = pages.pass(&lines, next) => {}
                () = lines.closed() => {}
            }
        }
    });
    Ok(response)
}

/// A stream, page by page.
struct Pages {
    keeper: Keeper,
    at: u32,
    first: Option<Reply>,
}

impl Pages {
    /// Tells all of it, and goes on when there is more, until nobody reads or something is wrong.
    async fn pass(mut self, lines: &mpsc::Sender<Bytes>, next: impl Fn(u64) -> Ask) {
        let mut after = 0;
        loop {
            let reply = match self.first.take() {
                Some(first) => Ok(first),
                None => self.keeper.ask(self.at, &next(after)).await,
            };
            match reply {
                Ok(reply) => {
                    after = reply.through;
                    if pass(lines, self.at, reply).await.is_none() {
                        return;
                    }
                }
                // It is asked again from the same place when it is back.
                Err(KeepError::Silent(_)) => sleep(AWAY).await,
                Err(error) => {
                    let Failure(_, fault) = Failure::from(error);
                    lines.send(line(&Line::Fault(fault))).await.ok();
                    return;
                }
            }
        }
    }
}

/// Tells what an answer has; none: nobody reads any more.
async fn pass(lines: &mpsc::Sender<Bytes>, at: u32, reply: Reply) -> Option<()> {
    if reply.missed > 0 {
        lines.send(line(&Line::Missed(reply.missed))).await.ok()?;
    }
    for record in reply.records {
        let message = shown(record, at, &reply.name, None);
        lines.send(line(&Line::Message(message))).await.ok()?;
    }
    Some(())
}

fn shown(record: Record, by: u32, name: &str, token: Option<u64>) -> Message {
    let (data, binary) = encode_data(&record.body);
    let (name, seq, at_ms) = (name.to_owned(), record.seq, Some(record.at_ms));
    let token = token.map(|token| token.to_string());
    Message {
        subject: record.subject,
        from: record.from,
        node: record.node,
        request: None,
        data,
        binary,
        kept: Some(Place { by, name, seq, at_ms, token }),
    }
}

/// Tells the newest message of each subject that is kept. Of what nobody keeps there is none.
pub(crate) async fn last(
    api: &Api,
    patterns: &[String],
    lines: &mpsc::Sender<Bytes>,
) -> Option<()> {
    let keeper = Keeper::new(&api.hub);
    for pattern in patterns {
        let Ok(at) = keeper.find(pattern, Kind::Latest).await else { continue };
        let mut after = 0;
        loop {
            let ask = Ask::Latest { subject: pattern.clone(), after };
            // What it cannot say now comes when it is published again.
            let Ok(reply) = keeper.ask(at, &ask).await else { break };
            let more = reply.more && reply.through > after;
            after = reply.through;
            pass(lines, at, reply).await?;
            if !more {
                break;
            }
        }
    }
    Some(())
}

/// Publishes a message that is to be kept.
pub(crate) async fn confirm(
    api: &Api,
    parameters: &Parameters,
    subject: &str,
    body: Bytes,
) -> Answer<Heard> {
    let within = number(parameters, "deadline_ms")?.map_or(CONFIRM, Duration::from_millis);
    let keeper = Keeper::new(&api.hub);
    let confirmed = keeper.confirm(subject, body, within.min(LONGEST)).await?;
    let (by, name, seq) = (confirmed.at, confirmed.name, confirmed.seq);
    let kept = Some(Place { by, name, seq, at_ms: None, token: None });
    Ok(Json(Heard { heard: true, kept }))
}

async fn ack(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    parameters: Parameters,
) -> Answer<Value> {
    let subject = subject(&api, who, &parameters).await?;
    let (reader, seq) = (reader(who, &parameters)?, needed(&parameters, "seq")?);
    let keeper = Keeper::new(&api.hub);
    let at = holder(&keeper, &parameters, &subject, Kind::Stream).await?;
    keeper.ask(at, &Ask::Ack { subject, reader, seq }).await?;
    Ok(Json(json!({})))
}

async fn forget(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    parameters: Parameters,
) -> Answer<Value> {
    let subject = subject(&api, who, &parameters).await?;
    let reader = reader(who, &parameters)?;
    let keeper = Keeper::new(&api.hub);
    let at = holder(&keeper, &parameters, &subject, Kind::Stream).await?;
    keeper.ask(at, &Ask::Forget { subject, reader }).await?;
    Ok(Json(json!({})))
}

async fn take(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    parameters: Parameters,
) -> Answer<Taken> {
    let subject = subject(&api, who, &parameters).await?;
    let wait = Duration::from_millis(number(&parameters, "wait_ms")?.unwrap_or(0)).min(LONGEST);
    let until = Instant::now() + wait;
    let keeper = Keeper::new(&api.hub);
    let at = holder(&keeper, &parameters, &subject, Kind::Queue).await?;
    loop {
        let left = until.saturating_duration_since(Instant::now()).min(WAIT);
        let wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let reply = keeper.ask(at, &Ask::Take { subject: subject.clone(), wait_ms }).await?;
        let (name, token) = (reply.name, reply.token);
        let message = reply.records.into_iter().next();
        let message = message.map(|record| shown(record, at, &name, token));
        if message.is_some() || Instant::now() >= until {
            return Ok(Json(Taken { message }));
        }
    }
}

async fn done(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    parameters: Parameters,
) -> Answer<Value> {
    let subject = subject(&api, who, &parameters).await?;
    let (seq, token) = (needed(&parameters, "seq")?, needed(&parameters, "token")?);
    let keeper = Keeper::new(&api.hub);
    let at = holder(&keeper, &parameters, &subject, Kind::Queue).await?;
    keeper.ask(at, &Ask::Done { subject, seq, token }).await?;
    Ok(Json(json!({})))
}

async fn kept(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    parameters: Parameters,
) -> Answer<AllKept> {
    api.check(who, Does::Subscribe, ">").await?;
    let keeper = Keeper::new(&api.hub);
    let at = match number(&parameters, "at")? {
        None => keeper.own(),
        Some(_) => holder(&keeper, &parameters, ">", Kind::Stream).await?,
    };
    let reply = match keeper.ask(at, &Ask::List).await {
        // A node that keeps nothing has nobody who answers; this one is here.
        Err(KeepError::Silent(silent)) if silent == keeper.own() => Reply::default(),
        reply => reply?,
    };
    let one = |kept: relay::keep::Kept| bus::Kept {
        name: kept.name,
        subject: kept.subject,
        policy: kept.policy,
        messages: kept.messages,
        bytes: kept.bytes,
        next: kept.next,
        dropped: kept.dropped,
        taken: kept.taken,
        lost: kept.lost,
        readers: kept.readers.into_iter().map(|(name, through)| Reader { name, through }).collect(),
    };
    Ok(Json(AllKept { kept: reply.kept.into_iter().map(one).collect(), wrong: reply.wrong }))
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;

    use super::*;

    #[test]
    fn whoever_reads_moves_the_place_of_nobody_else() {
        let of = |uid, name: &str| {
            let parameters = Query(vec![("as".to_owned(), name.to_owned())]);
            reader(Who { uid, gid: uid }, &parameters).map_err(|Failure(_, fault)| fault.message)
        };
        assert_eq!(of(0, "indexer").as_deref(), Ok("indexer"));
        assert_eq!(of(54_321, "indexer").as_deref(), Ok("54321:indexer"));
        assert_eq!(of(54_321, "0:indexer").as_deref(), Ok("54321:0:indexer"));
        assert!(of(0, "").is_err() && of(0, "a b").is_err() && of(0, &"x".repeat(129)).is_err());
    }
}
