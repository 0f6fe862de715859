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
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bus::{Answer, AnswerLine, End, Fault, Heard, Line, Message, Why, encode_data};
use bytes::Bytes;
use futures_core::Stream;
use mesh::HostId;
use mesh::bus::BUS_BYTES;
use relay::Running;
use relay::bus::{BusError, Hub, Received};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::policy::{Denied, Does, Policy};
use crate::who::Who;

/// Lines that may wait for a slow reader, beside what waits in his queue.
const LINES: usize = 4;
/// How long a request waits for answers, unless it says otherwise, and at most.
const DEADLINE: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(3600);

/// What the routes work with.
#[derive(Clone)]
struct Api {
    hub: Hub,
    policy: Arc<Policy>,
}

type Parameters = Query<Vec<(String, String)>>;

/// A request that is not carried out.
struct Failure(StatusCode, Fault);

impl Failure {
    fn new(status: StatusCode, code: &str, message: String, help: &str) -> Failure {
        Failure(status, Fault { code: code.into(), message, help: help.into() })
    }

    fn bad(message: impl Into<String>) -> Failure {
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
            BusError::Subject { .. } | BusError::TooLong(_) => Failure::bad(text),
            BusError::Full(_) => {
                let help = "end some that are not needed";
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "full", text, help)
            }
            BusError::Gone => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", text, ""),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Failure {
        let help = "bus.toml in the node's state folder says who may what";
        Failure::new(StatusCode::FORBIDDEN, "denied", denied.to_string(), help)
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

/// The answer to whoever comes when there is no more room.
pub(crate) fn full(what: &str) -> Response {
    let help = "end some that are not needed";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Failure::new(status, "full", what.to_owned(), help).into_response()
}

/// The routes to the bus of a node.
pub(crate) fn router(node: &Arc<Running>, policy: Arc<Policy>) -> Router {
    Router::new()
        .route("/v1/bus/pub", post(publish))
        .route("/v1/bus/sub", post(subscribe))
        .route("/v1/bus/req", post(ask))
        .route("/v1/bus/answer", post(answer))
        .layer(DefaultBodyLimit::max(BUS_BYTES))
        .with_state(Api { hub: node.bus().clone(), policy })
}

async fn publish(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    Query(parameters): Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Heard>, Failure> {
    let (subject, body) = (one(&parameters, "subject")?, body?);
    api.policy.check(who, Does::Publish, subject)?;
    Ok(Json(Heard { heard: api.hub.publish(subject, body).await? }))
}

async fn answer(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    Query(parameters): Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<serde_json::Value>, Failure> {
    let (request, body) = (one(&parameters, "request")?, body?);
    // Whoever could not have got the message cannot know the number.
    api.policy.check_any(who, Does::Subscribe)?;
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
    Query(parameters): Parameters,
) -> Result<Response, Failure> {
    let patterns: Vec<String> = parameters
        .into_iter()
        .map(|(name, value)| match name.as_str() {
            "subject" => Ok(value),
            _ => Err(Failure::bad(format!("there is no parameter {name:?}"))),
        })
        .collect::<Result<_, _>>()?;
    if patterns.is_empty() {
        return Err(Failure::bad("at least one `subject` is needed"));
    }
    for pattern in &patterns {
        api.policy.check(who, Does::Subscribe, pattern)?;
    }
    let mut subscription = api.hub.subscribe(&patterns).await?;
    let (lines, response) = line_stream();
    tokio::spawn(async move {
        if lines.send(line(&Line::Ready(patterns))).await.is_err() {
            return;
        }
        loop {
            let received = tokio::select! {
                received = subscription.next() => received,
                () = lines.closed() => return,
            };
            let next = match received {
                Some(Received::Message(message)) => Line::Message(shown(message)),
                Some(Received::Missed(count)) => Line::Missed(count),
                None => return,
            };
            if lines.send(line(&next)).await.is_err() {
                return;
            }
        }
    });
    Ok(response)
}

async fn ask(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    Query(parameters): Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let (subject, body) = (one(&parameters, "subject")?, body?);
    api.policy.check(who, Does::Publish, subject)?;
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
    let mut asked = api.hub.ask(subject, body).await?;
    let (lines, response) = line_stream();
    tokio::spawn(async move {
        let mut answers = 0;
        let why = loop {
            if !asked.heard {
                break Why::Nobody;
            }
            if answers == most {
                break Why::Enough;
            }
            let next = tokio::select! {
                next = timeout_at(until, asked.next()) => next,
                () = lines.closed() => return,
            };
            let answer = match next {
                Ok(Some(answer)) => answer,
                Ok(None) => break Why::Stopped,
                Err(_) => break Why::Deadline,
            };
            answers += 1;
            let (data, binary) = encode_data(&answer.body);
            let answer = Answer { from: answer.from.0, node: answer.node, data, binary };
            if lines.send(line(&AnswerLine::Answer(answer))).await.is_err() {
                return;
            }
        };
        lines.send(line(&AnswerLine::End(End { why, answers }))).await.ok();
    });
    Ok(response)
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
    }
}

/// The one parameter of this name.
fn one<'a>(parameters: &'a [(String, String)], name: &str) -> Result<&'a str, Failure> {
    let mut found = parameters.iter().filter(|(other, _)| other == name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Ok(value),
        _ => Err(Failure::bad(format!("one `{name}` is needed"))),
    }
}

fn line(line: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(line).expect("plain lines are valid JSON");
    text.push(b'\n');
    text.into()
}

/// A response of lines, and the queue that feeds it.
fn line_stream() -> (mpsc::Sender<Bytes>, Response) {
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
