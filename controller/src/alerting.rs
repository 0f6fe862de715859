//! Alerts at the controller: the rules about the fleet, the operators' requests, where alerts are
//! kept, and what is done about some.
//!
//! What is told when, and how it gets out, is for the `alerts` crate; what is wrong is said here.

mod happened;
mod keeper;
mod orders;
mod reacting;
mod rules;

use alerts::{AlertInfo, AskError, NewAck, NewTest, Overview, SilenceRow};
use axum::Json;
use axum::extract::{Path, State};
use bytes::Bytes;

use crate::api::{Answer, Api, body};
use crate::asker::Asked;
use crate::clock::now_ms;
use crate::fault::Failure;

pub(crate) use self::happened::Happened;
pub(crate) use self::keeper::TableKeeper;
pub(crate) use self::orders::Orders;
pub(crate) use self::reacting::{check, react};
pub(crate) use self::rules::Rules;

/// The labels that a silence may go by.
const LABELS: [&str; 5] = ["channel", "host", "kind", "order", "site"];
/// The longest silence.
const LONGEST_MS: u64 = 366 * 24 * 3600 * 1000;
/// How many values a silence may name, and how long its texts may be.
const VALUES: usize = 10_000;
const TEXT: usize = 1_000;

impl From<AskError> for Failure {
    fn from(error: AskError) -> Failure {
        let text = error.to_string();
        match error {
            AskError::Unknown { what, .. } => {
                let help = match what {
                    "channel" => "barid alerts channels lists them",
                    "silence" => "barid alerts silences lists them",
                    _ => "barid alerts ls lists them",
                };
                Failure::unknown(&format!("unknown-{what}"), text, help)
            }
            AskError::Over(_) => Failure::conflict(text, "what is over needs nobody"),
            AskError::Full => Failure::conflict(text, "end some: barid alerts unsilence ID"),
            AskError::Channel { .. } => {
                Failure::conflict(text, "correct it in alerts.toml in the state folder")
            }
            AskError::Settings(_) | AskError::Disk(_) | AskError::Gone => Failure::internal(text),
        }
    }
}

/// `GET /v1/alerts`
pub(crate) async fn list(State(api): State<Api>) -> Answer<Overview> {
    Ok(Json(api.alerts.list().await?))
}

/// `POST /v1/alerts/ack`
pub(crate) async fn ack(Asked(api): Asked, bytes: Bytes) -> Answer<AlertInfo> {
    let new: NewAck = body(&bytes)?;
    short_enough(&[&new.note])?;
    // Who asks, as the kernel knows him, and not whom he says that he is.
    Ok(Json(api.alerts.ack(&new.alert, &api.desk.by, &new.note).await?))
}

/// `POST /v1/alerts/test`
pub(crate) async fn test(State(api): State<Api>, bytes: Bytes) -> Answer<()> {
    let new: NewTest = body(&bytes)?;
    Ok(Json(api.alerts.test(&new.channel).await?))
}

/// `POST /v1/silences`
pub(crate) async fn silence(Asked(api): Asked, bytes: Bytes) -> Answer<SilenceRow> {
    let mut new: SilenceRow = body(&bytes)?;
    new.author = api.desk.by.to_string();
    short_enough(&[&new.reason])?;
    if new.reason.is_empty() {
        return Err(Failure::bad("a silence has a reason", "give --reason TEXT"));
    }
    if let Some(label) = new.labels.keys().find(|label| !LABELS.contains(&label.as_str())) {
        let message = format!("alerts have no label {label:?}");
        return Err(Failure::bad(message, format!("there are {}", LABELS.join(", "))));
    }
    if new.labels.values().map(|values| values.len()).sum::<usize>() > VALUES {
        return Err(Failure::bad(format!("more than {VALUES} names"), "silence the site instead"));
    }
    let now = now_ms();
    new.from_ms = if new.from_ms == 0 { now } else { new.from_ms };
    if new.until_ms <= new.from_ms.max(now) {
        return Err(Failure::bad("the silence would be over before it begins", "give --for TIME"));
    }
    if new.until_ms - now > LONGEST_MS {
        let help = "switch the kind off in alerts.toml instead";
        return Err(Failure::bad("a silence ends within a year", help));
    }
    Ok(Json(api.alerts.silence(new).await?))
}

/// `DELETE /v1/silences/{id}`
pub(crate) async fn unsilence(State(api): State<Api>, Path(id): Path<String>) -> Answer<()> {
    Ok(Json(api.alerts.unsilence(&id).await?))
}

fn short_enough(texts: &[&str]) -> Result<(), Failure> {
    match texts.iter().find(|text| text.len() > TEXT) {
        Some(_) => Err(Failure::bad("a text is too long", format!("at most {TEXT} bytes"))),
        None => Ok(()),
    }
}
