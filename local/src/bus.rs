//! The bus by HTTP: `POST /v1/bus/pub|sub|req|answer`, for programs on this machine.
//!
//! Who asks is known by the socket; what he may is for the [`Policy`] to say. A subscriber that
//! does not read is not waited for: his queue is the hub's, and what does not fit there is counted.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bus::{Answer, AnswerLine, End, Fault, Heard, Line, Message, Why, encode_data};
use bytes::Bytes;
use futures_core::Stream;
use mesh::HostId;
use mesh::bus::BUS_BYTES;
use relay::Running;
use relay::bus::{Asked, BusError, Hub, Received};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::keep;
use crate::listen::REQUEST;
use crate::policy::{Denied, Does, Policy};
use crate::room::Crowded;
use crate::who::Who;

/// Lines that may wait for a slow reader, beside what waits in his queue.
const LINES: usize = 4;
/// Messages that have come are written in pieces of about so many bytes.
const CHUNK: usize = 16 << 10;
/// How long a request waits for answers, unless it says otherwise, and at most.
const DEADLINE: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(3600);
/// How long the last line of a request waits for whoever reads slowly.
const LAST: Duration = Duration::from_secs(5);

/// What the routes work with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) hub: Hub,
    policy: Arc<Policy>,
}

impl Api {
    /// Whether somebody may do this with a subject, or with all that a pattern matches.
    pub(crate) async fn check(&self, who: Who, does: Does, text: &str) -> Result<(), Failure> {
        if mesh::bus::is_reserved(text) {
            let what = format!("{text:?} is for the nodes themselves");
            return Err(Failure::bad(format!("{what}, as all that begins with _keep")));
        }
        Ok(self.policy.check(who, does, text).await?)
    }
}

pub(crate) type Parameters = Query<Vec<(String, String)>>;

/// A request that is not carried out.
pub(crate) struct Failure(pub(crate) StatusCode, pub(crate) Fault);

impl Failure {
    pub(crate) fn new(status: StatusCode, code: &str, message: String, help: &str) -> Failure {
        Failure(status, Fault { code: code.into(), message, help: help.into() })
    }

    pub(crate) fn bad(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "bad-request", message.into(), "see docs/bus.md")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Failure {
        let text = error.to_string();
        match error {
            BusError::Subject { .. } | BusError::TooLong(_) | BusError::Unasked(..) => {
                Failure::bad(text)
            }
            BusError::TooMany => {
                let help = "subscribe twice, or to coarser ones: app.> instead of app.a, app.b";
                Failure::new(StatusCode::BAD_REQUEST, "bad-request", text, help)
            }
            BusError::Share { .. } => {
                let help = "end subscriptions of this user, or take coarser patterns: app.> \
                            instead of app.a, app.b";
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "full", text, help)
            }
            BusError::Full { .. } => {
                let help = "end programs that are not needed";
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "full", text, help)
            }
            BusError::Gone => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", text, ""),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Failure {
        match denied {
            Denied::No { .. } => {
                let help = "bus.toml in the node's state folder says who may what";
                Failure::new(StatusCode::FORBIDDEN, "denied", denied.to_string(), help)
            }
            Denied::Unknown { .. } => {
                let help = "try again; the node's log says more";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Failure::new(status, "names", denied.to_string(), help)
            }
        }
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Failure {
        let too_long = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
        match too_long {
            true => Failure::bad(format!("the message is longer than {BUS_BYTES} bytes")),
            false => Failure::bad(rejection.body_text()),
        }
    }
}

/// The body of a request, once it is here whole. Who does not send it in time is told so, and hyper
/// ends a connection by which the rest of a body may still come.
pub(crate) struct Whole(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Whole, Failure> {
        let slow = |_| {
            let message = format!("the message did not come whole within {REQUEST:?}");
            Failure::new(StatusCode::REQUEST_TIMEOUT, "slow", message, "send it at once")
        };
        let taken = timeout(REQUEST, Bytes::from_request(request, state)).await.map_err(slow)?;
        Ok(Whole(taken?))
    }
}

/// The answer to whoever comes when there is no more room.
pub(crate) fn full(what: &Crowded) -> Response {
    let help = "each program that subscribes holds one: end some that are not needed";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Failure::new(status, "full", what.to_string(), help).into_response()
}

/// The routes to the bus of a node.
pub(crate) fn router(node: &Arc<Running>, policy: Arc<Policy>) -> Router {
    Router::new()
        .route("/v1/bus/pub", post(publish))
        .route("/v1/bus/sub", post(subscribe))
        .route("/v1/bus/req", post(ask))
        .route("/v1/bus/answer", post(answer))
        .merge(keep::routes())
        .layer(DefaultBodyLimit::max(BUS_BYTES))
        .with_state(Api { hub: node.bus().clone(), policy })
}

async fn publish(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    parameters: Parameters,
    Whole(body): Whole,
) -> Result<Json<Heard>, Failure> {
    let subject = one(&parameters, "subject")?;
    api.check(who, Does::Publish, subject).await?;
    if flag(&parameters, "kept")? {
        return keep::confirm(&api, &parameters, subject, body).await;
    }
    Ok(Json(Heard { heard: api.hub.publish(subject, body).await?, kept: None }))
}

async fn answer(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    Query(parameters): Parameters,
    Whole(body): Whole,
) -> Result<Json<serde_json::Value>, Failure> {
    let request = one(&parameters, "request")?;
    // Whoever could not have got the message cannot know the number.
    api.policy.check_any(who, Does::Subscribe).await?;
    let parsed = request
        .split_once('.')
        .and_then(|(to, request)| Some((HostId(to.parse().ok()?), request.parse::<u64>().ok()?)));
    let wrong = || Failure::bad(format!("{request:?} is not what a message says in `request`"));
    let (to, number) = parsed.ok_or_else(wrong)?;
    api.hub.answer(to, number, body).await?;
    Ok(Json(serde_json::json!({})))
}

async fn subscribe(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    parameters: Parameters,
) -> Result<Response, Failure> {
    let last = flag(&parameters, "last")?;
    let Query(parameters) = parameters;
    let patterns: Vec<String> = parameters
        .into_iter()
        .filter(|(name, _)| name != "last")
        .map(|(name, value)| match name.as_str() {
            "subject" => Ok(value),
            _ => Err(Failure::bad(format!("there is no parameter {name:?}"))),
        })
        .collect::<Result<_, _>>()?;
    if patterns.is_empty() {
        return Err(Failure::bad("at least one `subject` is needed"));
    }
    for pattern in &patterns {
        api.check(who, Does::Subscribe, pattern).await?;
    }
    let mut subscription = match who.is_own() {
        true => api.hub.subscribe(&patterns).await?,
        false => api.hub.subscribe_as(who.uid, &patterns).await?,
    };
    let (lines, response) = line_stream();
    tokio::spawn(async move {
        if lines.send(line(&Line::Ready(patterns.clone()))).await.is_err() {
            return;
        }
        if last && keep::last(&api, &patterns, &lines).await.is_none() {
            return;
        }
        loop {
            let received = tokio::select! {
                received = subscription.next() => received,
                () = lines.closed() => return,
            };
            let Some(received) = received else { return };
            let mut chunk = line(&told(received)).to_vec();
            // Few large pieces: who reads keeps up with many who publish.
            while chunk.len() < CHUNK
                && let Some(received) = subscription.ready()
            {
                chunk.extend_from_slice(&line(&told(received)));
            }
            if lines.send(chunk.into()).await.is_err() {
                return;
            }
        }
    });
    Ok(response)
}

fn told(received: Received) -> Line {
    match received {
        Received::Message(message) => Line::Message(shown(message)),
        Received::Missed(count) => Line::Missed(count),
    }
}

async fn ask(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    Query(parameters): Parameters,
    Whole(body): Whole,
) -> Result<Response, Failure> {
    let subject = one(&parameters, "subject")?;
    api.check(who, Does::Publish, subject).await?;
    let number = |name: &'static str, default: u64| match one(&parameters, name) {
        Ok(text) => {
            let wrong = |_| Failure::bad(format!("{name} is {text:?} and must be a number"));
            text.parse::<u64>().map_err(wrong)
        }
        Err(_) => Ok(default),
    };
    let default = u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX);
    let within = Duration::from_millis(number("deadline_ms", default)?).min(LONGEST);
    let most = number("most", 1)?.max(1);
    let until = Instant::now() + within;
    let no_room = |_| {
        let (message, help) = ("the request found no room in time", "try again in a moment");
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "full", message.into(), help)
    };
    let mut asked = timeout_at(until, api.hub.ask(subject, body)).await.map_err(no_room)??;
    let (lines, response) = line_stream();
    tokio::spawn(async move {
        let mut answers = 0;
        let gathered = match asked.heard {
            true => gather(&mut asked, &lines, most, &mut answers),
            false => return last(&lines, Why::Nobody, 0).await,
        };
        // Answers that nobody reads have no more time than those that do not come.
        let why = match timeout_at(until, gathered).await {
            Ok(Some(why)) => why,
            Ok(None) => return,
            Err(_) => Why::Deadline,
        };
        drop(asked);
        last(&lines, why, answers).await;
    });
    Ok(response)
}

/// Where answers come from.
trait Answers {
    fn next(&mut self) -> impl Future<Output = Option<mesh::bus::Answer>> + Send;
}

impl Answers for Asked {
    fn next(&mut self) -> impl Future<Output = Option<mesh::bus::Answer>> + Send {
        Asked::next(self)
    }
}

/// Passes answers on until there are enough. Returns why no more come; `None`: nobody reads them
/// any more.
async fn gather(
    from: &mut impl Answers,
    lines: &mpsc::Sender<Bytes>,
    most: u64,
    answers: &mut u64,
) -> Option<Why> {
    while *answers < most {
        let answer = tokio::select! {
            answer = from.next() => answer,
            () = lines.closed() => return None,
        };
        let Some(answer) = answer else { return Some(Why::Stopped) };
        let (data, binary) = encode_data(&answer.body);
        let answer = Answer { from: answer.from.0, node: answer.node, data, binary };
        lines.send(line(&AnswerLine::Answer(answer))).await.ok()?;
        *answers += 1;
    }
    Some(Why::Enough)
}

/// Says why no more answers come, if that is read soon.
async fn last(lines: &mpsc::Sender<Bytes>, why: Why, answers: u64) {
    let end = line(&AnswerLine::End(End { why, answers }));
    timeout(LAST, lines.send(end)).await.ok();
}

fn shown(message: mesh::bus::Message) -> Message {
    let (data, binary) = encode_data(&message.body);
    Message {
        subject: message.subject.as_str().into(),
        from: message.from.0,
        node: message.node,
        request: message.request.map(|request| format!("{}.{request}", message.from.0)),
        data,
        binary,
        kept: None,
    }
}

/// Whether this is asked for.
fn flag(parameters: &[(String, String)], name: &str) -> Result<bool, Failure> {
    match parameters.iter().find(|(other, _)| other == name) {
        None => Ok(false),
        Some((_, value)) if value == "1" => Ok(true),
        Some((_, value)) => Err(Failure::bad(format!("{name} is {value:?} and can be 1 only"))),
    }
}

/// The one parameter of this name.
pub(crate) fn one<'a>(parameters: &'a [(String, String)], name: &str) -> Result<&'a str, Failure> {
    let mut found = parameters.iter().filter(|(other, _)| other == name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Ok(value),
        _ => Err(Failure::bad(format!("one `{name}` is needed"))),
    }
}

pub(crate) fn line(line: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(line).expect("plain lines are valid JSON");
    text.push(b'\n');
    text.into()
}

/// A response of lines, and the queue that feeds it.
pub(crate) fn line_stream() -> (mpsc::Sender<Bytes>, Response) {
    let (lines, queue) = mpsc::channel(LINES);
    let body = Body::from_stream(Lines(queue));
    (lines, ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

struct Lines(mpsc::Receiver<Bytes>);

impl Stream for Lines {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|line| line.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many that come at once.
    struct Come(u64);

    impl Answers for Come {
        async fn next(&mut self) -> Option<mesh::bus::Answer> {
            self.0 = self.0.checked_sub(1)?;
            let (to, from, node) = (HostId(1), HostId(2), String::new());
            Some(mesh::bus::Answer { to, request: 1, from, node, body: Bytes::new() })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_nobody_reads_end_with_the_request() {
        let (lines, queue) = mpsc::channel(LINES);
        let until = Instant::now() + Duration::from_secs(10);
        let (mut come, mut sent) = (Come(100), 0);
        let gathered = gather(&mut come, &lines, 50, &mut sent);
        assert!(timeout_at(until, gathered).await.is_err(), "it does not wait for the reader");
        assert_eq!(sent, LINES as u64);
        last(&lines, Why::Deadline, sent).await;
        assert_eq!(Instant::now(), until + LAST, "nor for ever to say so");
        drop(queue);
        assert!(gather(&mut Come(9), &lines, 9, &mut sent).await.is_none());
    }

    #[tokio::test]
    async fn answers_end_when_there_are_enough_or_no_more_come() {
        for (come, most, expected) in
            [(9, 2, (Why::Enough, 2)), (2, 9, (Why::Stopped, 2)), (0, 1, (Why::Stopped, 0))]
        {
            let (lines, _queue) = mpsc::channel(LINES);
            let mut sent = 0;
            let why = gather(&mut Come(come), &lines, most, &mut sent).await;
            assert_eq!(why.map(|why| (why, sent)), Some(expected));
        }
    }
}
