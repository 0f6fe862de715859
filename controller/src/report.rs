//! Error reports: what went wrong in an hour, a day or any while, each distinct thing once, with
//! who had it, what it probably comes from, and whether it is new, known or over.
//!
//! A report is made of what grew in its time when somebody asks for it, past ones as well as the
//! present one; so a change of the filters shows everywhere. Successes are not in it. `make` makes
//! it, `parts` cuts it down to some hosts or into sites and domains, `text` writes it for people,
//! and `post` sends those of hours and days that are over.

mod make;
mod parts;
pub(crate) mod post;
mod text;

use axum::Json;
use axum::extract::{Path, Query, State, rejection::QueryRejection};
use bytes::Bytes;
use jiff::Zoned;
use serde::Deserialize;

use self::make::{Ask, make};
use self::parts::{By, Whose};
pub use self::text::{Style, text};
use crate::api::{Answer, Api, body};
use crate::clock::now_ms;
use crate::fault::Failure;
use crate::filters::{Filters, LISTS, List};
use crate::orders::blocking;
use crate::period::{Every, Period, PeriodError, period};
use crate::types::{Filter, Report, Targets};

/// A report of errors is about this long, if nobody says.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Which report.
#[derive(Deserialize)]
pub(crate) struct Asked {
    time: Option<i64>,
    since_ms: Option<u64>,
    /// Only what hosts of this set had.
    set: Option<String>,
    /// In parts, one for each `site` or `domain`.
    by: Option<String>,
}

/// `GET /v1/reports/{kind}`
pub(crate) async fn report(
    State(api): State<Api>,
    Path(kind): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Answer<Report> {
    let Query(asked) = asked.map_err(|error| Failure::bad(error.body_text(), "see docs/api.md"))?;
    let (now, at) = (now_ms(), Zoned::now());
    let every = match kind.as_str() {
        "hour" => Some(Every::Hour),
        "day" => Some(Every::Day),
        "errors" => None,
        other => {
            let message = format!("there is no report by {other:?}");
            return Err(Failure::unknown("not-found", message, "hour, day or errors"));
        }
    };
    let by = match asked.by.as_deref() {
        None => None,
        Some("site") => Some(By::Site),
        Some("domain") => Some(By::Domain),
        Some(other) => {
            let message = format!("a report has no parts by {other:?}");
            return Err(Failure::bad(message, "site or domain"));
        }
    };
    let time = match every {
        Some(every) => period(every, asked.time, &at).map_err(no_period)?,
        None => Period {
            start_ms: asked.since_ms.unwrap_or(now.saturating_sub(DAY_MS)),
            // What is heard of while this is made belongs to it.
            end_ms: now + 1,
        },
    };
    let only = match asked.set {
        None => None,
        Some(set) => {
            let targets = Targets { sets: vec![set], ..Targets::default() };
            Some(api.meant(targets).await?.1)
        }
    };
    let (hosts, fleet) = (api.live.state().hosts.clone(), api.fleet.known());
    blocking(move || {
        let filters = Filters::load(&api.tables)?;
        let whose = Whose { hosts: &hosts, fleet: &fleet };
        let ask = Ask { every, time, zone: at.time_zone(), only, by };
        let mut report = make(&api.tables, &filters, &whose, &ask)?;
        report.is_over = time.end_ms <= now;
        Ok(report)
    })
    .await
    .map(Json)
}

fn no_period(error: PeriodError) -> Failure {
    let text = error.to_string();
    match error {
        PeriodError::Nonsense(_) => Failure::bad(text, "barid report hour 8, barid report day -1"),
        PeriodError::None(_) => Failure::unknown("no-report", text, ""),
    }
}

/// `GET /v1/filters/{name}`
pub(crate) async fn filter(State(api): State<Api>, Path(name): Path<String>) -> Answer<Filter> {
    known(&name)?;
    blocking(move || Ok(Filter { text: api.tables.filter(&name)? })).await.map(Json)
}

/// `PUT /v1/filters/{name}`
pub(crate) async fn set_filter(
    State(api): State<Api>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Answer<Filter> {
    known(&name)?;
    let new: Filter = body(&bytes)?;
    blocking(move || {
        List::read(&name, &new.text)?;
        api.tables.set_filter(&name, &new.text)?;
        Ok(new)
    })
    .await
    .map(Json)
}

fn known(name: &str) -> Result<(), Failure> {
    match LISTS.contains(&name) {
        true => Ok(()),
        false => {
            let message = format!("there is no filter {name:?}");
            Err(Failure::unknown("not-found", message, "delete or day"))
        }
    }
}
