//! Error reports: what went wrong in an hour, a day or any while, each distinct thing once, with
//! who had it, what it probably comes from, and whether it is new, known or over.
//!
//! A report is made of what grew in its time when somebody asks for it, past ones as well as the
//! present one; so a change of the filters shows everywhere. Successes are not in it.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, Query, State, rejection::QueryRejection};
use bytes::Bytes;
use jiff::Zoned;
use mesh::{Folded, HostId};
use serde::Deserialize;

use crate::api::{Answer, Api, body};
use crate::cause::cause;
use crate::clock::now_ms;
use crate::events;
use crate::fault::Failure;
use crate::filters::{Filters, LISTS, List, Way};
use crate::orders::blocking;
use crate::period::{Every, Period, PeriodError, period, title};
use crate::sets;
use crate::tables::events::{Growth, QUARTER_MS};
use crate::tables::{HostRow, Tables};
use crate::types::{Filter, Problem, Report};

/// Names of hosts in a problem; more are only in the folded set.
const NAMES: usize = 20;
/// A report of errors is about this long, if nobody says.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Which report.
#[derive(Deserialize)]
pub(crate) struct Asked {
    time: Option<i64>,
    since_ms: Option<u64>,
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
    let time = match every {
        Some(every) => period(every, asked.time, &at).map_err(no_period)?,
        None => Period {
            start_ms: asked.since_ms.unwrap_or(now.saturating_sub(DAY_MS)),
            // What is heard of while this is made belongs to it.
            end_ms: now + 1,
        },
    };
    let hosts = api.live.state().hosts.clone();
    let make = move || {
        let filters = Filters::load(&api.tables)?;
        let mut report = make(&api.tables, &filters, &hosts, (every, time))?;
        report.is_over = time.end_ms <= now;
        report.title = match every {
            Some(every) => title(every, time, at.time_zone()),
            None => title(Every::Hour, time, at.time_zone()),
        };
        Ok(report)
    };
    blocking(make).await.map(Json)
}

fn no_period(error: PeriodError) -> Failure {
    let text = error.to_string();
    match error {
        PeriodError::Nonsense(_) => Failure::bad(text, "barid report hour 8, barid report day -1"),
        PeriodError::None(_) => Failure::unknown("no-report", text, ""),
    }
}

/// The report of a while. Without a kind everything is in it that is not taken out.
fn make(
    tables: &Tables,
    filters: &Filters,
    hosts: &BTreeMap<HostId, HostRow>,
    (every, time): (Option<Every>, Period),
) -> Result<Report, Failure> {
    let Growth { sums, is_partial } = tables.growth(time.start_ms, time.end_ms)?;
    let mut report = Report {
        kind: match every {
            Some(Every::Hour) => "hour".into(),
            Some(Every::Day) => "day".into(),
            None => "errors".into(),
        },
        start_ms: time.start_ms,
        end_ms: time.end_ms,
        title: String::new(),
        is_over: false,
        problems: Vec::new(),
        resolved: Vec::new(),
        discarded: 0,
        daily: 0,
        is_partial,
    };
    let present: BTreeSet<_> = sums.iter().map(|(sum, _)| sum.fact.signature).collect();
    for (sum, first) in &sums {
        // A signature is as new as the quarter of an hour in which it came.
        let is_new = *first >= time.start_ms / QUARTER_MS * QUARTER_MS;
        match filters.way(&sum.sample.line) {
            Way::Delete => report.discarded += sum.total(),
            Way::Day if every == Some(Every::Hour) => report.daily += sum.total(),
            _ => report.problems.push(problem(sum, is_new, hosts)),
        }
    }
    let span = time.end_ms - time.start_ms;
    let before = tables.growth(time.start_ms.saturating_sub(span), time.start_ms)?;
    for (sum, _) in before.sums.iter().filter(|(sum, _)| !present.contains(&sum.fact.signature)) {
        let way = filters.way(&sum.sample.line);
        if way == Way::Hour || way == Way::Day && every != Some(Every::Hour) {
            report.resolved.push(problem(sum, false, hosts));
        }
    }
    for problems in [&mut report.problems, &mut report.resolved] {
        problems.sort_by_key(|p| (rank(&p.class), p.severity != "error", u64::MAX - p.hosts));
    }
    Ok(report)
}

fn problem(sum: &Folded, is_new: bool, hosts: &BTreeMap<HostId, HostRow>) -> Problem {
    let Folded { fact, sample, .. } = sum;
    let names = events::names(hosts, sum);
    Problem {
        signature: events::hex(&fact.signature.0),
        subject: fact.subject.clone(),
        severity: events::severity(fact.severity).into(),
        class: events::class(fact.class).into(),
        line: sample.line.clone(),
        text: sample.text.clone(),
        node: events::name(hosts, sample.host),
        cause: cause(fact, &sample.line).into(),
        order: sample.order.map_or_else(String::new, |order| order.to_string()),
        count: sum.total(),
        hosts: names.len() as u64,
        set: sets::fold(&names),
        names: names.into_iter().take(NAMES).collect(),
        first_ms: sum.first_ms,
        last_ms: sum.last_ms,
        is_new,
    }
}

/// The trouble of those on whom most depends comes first.
fn rank(class: &str) -> usize {
    let ranks = ["controller", "relay", "down", "space", "command", "client"];
    ranks.iter().position(|known| *known == class).unwrap_or(ranks.len())
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

#[cfg(test)]
mod tests {
    use mesh::{Class, Happening, Kind, Severity};
    use relay::Journal;

    use super::*;
    use crate::tables::events::note_events;

    const HOUR: u64 = 3_600_000;
    const NOON: u64 = 1_800_000_000_000 / HOUR * HOUR;

    fn tables(dir: &tempfile::TempDir) -> Tables {
        let journal = Journal::open(&dir.path().join("c.redb"), 1 << 20).expect("it is made");
        Tables::open(journal).expect("they are made")
    }

    /// As many hosts say the same, `each` times.
    fn say(tables: &Tables, hosts: std::ops::Range<u32>, each: u64, line: &str, at_ms: u64) {
        let kind = Kind { subject: "host.test", severity: Severity::Warning, class: Class::Client };
        let events: Vec<_> = hosts
            .map(|host| {
                let who = (HostId(host), "");
                let Happening { fact, sample, .. } =
                    Happening::new(kind, who, at_ms, line, relay::hash);
                Folded {
                    window: (at_ms / mesh::WINDOW_MS) as u32,
                    fact,
                    sample: sample.into(),
                    first_ms: at_ms,
                    last_ms: at_ms,
                    counts: BTreeMap::from([(HostId(host), each)]),
                }
            })
            .collect();
        tables.write(|txn| note_events(txn, &events, None, at_ms)).expect("they are noted");
    }

    fn made(tables: &Tables, every: Every, start: u64) -> Report {
        let hosts = (0..400)
            .map(|n| {
                let row = HostRow {
                    name: format!("web{n}"),
                    site: "lyon".into(),
                    role: "host".into(),
                    key: [0; 32],
                    enrolled_ms: 0,
                };
                (HostId(n), row)
            })
            .collect();
        let length = if every == Every::Hour { HOUR } else { 24 * HOUR };
        let time = Period { start_ms: start, end_ms: start + length };
        let filters = Filters::load(tables).expect("they are read");
        make(tables, &filters, &hosts, (Some(every), time)).expect("it is made")
    }

    #[test]
    fn x17_filters_route_and_what_is_new_is_urgent() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tables = tables(&dir);
        tables.set_filter("day", "device busy\n").expect("set");
        tables.set_filter("delete", "stale handle\n").expect("set");
        for line in ["device busy", "stale handle", "stale handle, device busy", "brand-new"] {
            say(&tables, 1..3, 1, line, NOON);
        }
        let lines = |report: &Report| -> Vec<String> {
            let mut lines: Vec<_> = report.problems.iter().map(|p| p.line.clone()).collect();
            lines.sort();
            lines
        };
        let hour = made(&tables, Every::Hour, NOON);
        assert_eq!(lines(&hour), ["brand-new"]);
        assert_eq!((hour.discarded, hour.daily), (4, 2));
        let day = made(&tables, Every::Day, NOON);
        assert_eq!(lines(&day), ["brand-new", "device busy"]);
    }

    #[test]
    fn x19_three_hundred_equal_errors_are_one_line() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tables = tables(&dir);
        say(&tables, 1..301, 1, "tar: no space left on device", NOON);
        // Told once more, by another way.
        say(&tables, 50..100, 1, "tar: no space left on device", NOON);
        say(&tables, 7..8, 3, "tar: no space left on device", NOON);
        let report = made(&tables, Every::Hour, NOON);
        let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
        assert_eq!((problem.hosts, problem.count), (300, 302));
        assert_eq!((problem.set.as_str(), problem.names.len()), ("web[1-300]", NAMES));
        assert!(problem.cause.starts_with("a file system is full"), "{}", problem.cause);
    }

    #[test]
    fn new_known_and_resolved() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tables = tables(&dir);
        say(&tables, 1..2, 1, "comes and goes", NOON);
        say(&tables, 1..2, 1, "stays", NOON);
        say(&tables, 2..3, 1, "stays", NOON + HOUR);
        let of = |problems: &[Problem]| -> Vec<(String, bool)> {
            problems.iter().map(|p| (p.line.clone(), p.is_new)).collect()
        };
        let first = made(&tables, Every::Hour, NOON);
        assert!(first.problems.iter().all(|p| p.is_new) && first.resolved.is_empty());
        let second = made(&tables, Every::Hour, NOON + HOUR);
        assert_eq!(of(&second.problems), [("stays".into(), false)]);
        assert_eq!(of(&second.resolved), [("comes and goes".into(), false)]);
        assert!(made(&tables, Every::Hour, NOON + 5 * HOUR).problems.is_empty());
    }

    #[test]
    fn old_events_go_and_leave_their_number() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tables = tables(&dir);
        say(&tables, 1..2, 1, "old", NOON);
        say(&tables, 1..2, 1, "young", NOON + 9 * HOUR);
        assert_eq!(tables.retire_events(NOON + HOUR, NOON + HOUR).expect("it goes"), 1);
        let left = tables.events(0, 10).expect("read");
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].folded.sample.line, "young");
        assert_eq!(tables.events_retired().expect("read"), (1, NOON + HOUR));
        assert!(made(&tables, Every::Hour, NOON).problems.is_empty());
    }

    #[test]
    fn whoever_reads_on_sees_what_has_grown_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tables = tables(&dir);
        say(&tables, 1..2, 1, "alpha", NOON);
        say(&tables, 1..2, 1, "beta", NOON + 1);
        let rows = tables.events(0, 10).expect("read");
        let cursor = rows.last().expect("two").cursor;
        say(&tables, 5..6, 4, "alpha", NOON + 2);
        say(&tables, 1..2, 1, "beta", NOON + 3);
        let rows = tables.events(cursor, 10).expect("read");
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((rows[0].folded.total(), rows[0].heard_last_ms), (5, NOON + 2));
        assert_eq!(tables.cursor_at(NOON + 2).expect("read"), rows[0].cursor - 1);
        assert_eq!(tables.cursor_at(NOON + 9).expect("read"), rows[0].cursor);
        // Where the first one was nothing is left.
        assert_eq!(tables.cursor_at(0).expect("read"), cursor - 1);
    }
}
