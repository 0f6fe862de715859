//! A report of what grew in a while.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use mesh::{Folded, HostSet, Signature};

use super::parts::{By, Whose, cut, parted};
use crate::cause::cause;
use crate::events;
use crate::fault::Failure;
use crate::filters::{Filters, Way};
use crate::outcomes::path_of;
use crate::period::{Every, Period, title};
use crate::sets;
use crate::tables::Tables;
use crate::tables::events::{Growth, QUARTER_MS};
use crate::types::{Problem, Report, ReportPart};

/// Names of hosts in a problem; more are only in the folded set.
const NAMES: usize = 20;

/// What is wanted.
pub(super) struct Ask<'a> {
    /// Without a kind everything is in it that is not taken out.
    pub(super) every: Option<Every>,
    pub(super) time: Period,
    pub(super) zone: &'a TimeZone,
    /// Only what these hosts had.
    pub(super) only: Option<HostSet>,
    pub(super) by: Option<By>,
}

/// Sums of what grew, with how long each signature has been known.
pub(super) type Sums = Vec<(Folded, u64)>;

/// The report of a while.
pub(super) fn make(
    tables: &Tables,
    filters: &Filters,
    whose: &Whose<'_>,
    ask: &Ask<'_>,
) -> Result<Report, Failure> {
    let Ask { every, time, .. } = *ask;
    let Growth { mut sums, is_partial } = tables.growth(time.start_ms, time.end_ms)?;
    let span = time.end_ms - time.start_ms;
    let mut before = tables.growth(time.start_ms.saturating_sub(span), time.start_ms)?.sums;
    if let Some(only) = &ask.only {
        (sums, before) = (cut(sums, only), cut(before, only));
    }
    let reached = tables.reached(time.start_ms, time.end_ms)?;
    let of = ask
        .only
        .as_ref()
        .map_or(reached.hosts.len(), |only| reached.hosts.intersection(only).len());
    let mut report = Report {
        kind: match every {
            Some(Every::Hour) => "hour".into(),
            Some(Every::Day) => "day".into(),
            None => "errors".into(),
        },
        start_ms: time.start_ms,
        end_ms: time.end_ms,
        title: title(every.unwrap_or(Every::Hour), time, ask.zone),
        is_over: false,
        problems: Vec::new(),
        resolved: Vec::new(),
        parts: Vec::new(),
        discarded: 0,
        daily: 0,
        reached: of,
        updated: ask.only.is_none().then_some(reached.files),
        is_partial,
    };
    for (sum, _) in &sums {
        match filters.way(&sum.sample.line) {
            Way::Delete => report.discarded += sum.total(),
            Way::Day if every == Some(Every::Hour) => report.daily += sum.total(),
            _ => {}
        }
    }
    let is_shown = |sum: &Folded| match filters.way(&sum.sample.line) {
        Way::Delete => false,
        Way::Day => every != Some(Every::Hour),
        Way::Hour => true,
    };
    sums.retain(|(sum, _)| is_shown(sum));
    before.retain(|(sum, _)| is_shown(sum));
    if let Some(by) = ask.by {
        let parts = whose.parts(by);
        let (mut sums, before) = (parted(&sums, &parts), parted(&before, &parts));
        for (name, before) in before {
            sums.entry(name).or_default().1 = before.0;
        }
        for (name, (sums, before)) in sums {
            let (problems, resolved) = problems(&sums, &before, time, whose);
            report.parts.push(ReportPart { name, problems, resolved });
        }
    }
    (report.problems, report.resolved) = problems(&sums, &before, time, whose);
    Ok(report)
}

/// What is wrong, and what was and is not any more; the trouble of single files first, by their
/// domainpaths.
fn problems(
    sums: &Sums,
    before: &Sums,
    time: Period,
    whose: &Whose<'_>,
) -> (Vec<Problem>, Vec<Problem>) {
    let present: BTreeSet<Signature> = sums.iter().map(|(sum, _)| sum.fact.signature).collect();
    // A signature is as new as the quarter of an hour in which it came.
    let since = time.start_ms / QUARTER_MS * QUARTER_MS;
    let found = sums.iter().map(|(sum, first)| problem(sum, *first >= since, whose));
    let gone = before.iter().filter(|(sum, _)| !present.contains(&sum.fact.signature));
    let gone = gone.map(|(sum, _)| problem(sum, false, whose));
    let (mut found, mut gone) = (found.collect::<Vec<_>>(), gone.collect::<Vec<_>>());
    for problems in [&mut found, &mut gone] {
        problems.sort_by_key(|p| {
            let rank = (rank(&p.class), p.severity != "error", u64::MAX - p.hosts);
            (p.path.is_empty(), p.path.clone(), rank)
        });
    }
    (found, gone)
}

fn problem(sum: &Folded, is_new: bool, whose: &Whose<'_>) -> Problem {
    let Folded { fact, sample, .. } = sum;
    let names = events::names(whose.hosts, sum);
    // The line is like theirs; whoever has said it, and of which order, is none of a part's if it
    // is not in it.
    let is_theirs = sum.last_ms > 0 || sum.counts.contains_key(&sample.host);
    let own = |text: String| if is_theirs { text } else { String::new() };
    let (path, line) = path_of(&fact.subject, &sample.line).unwrap_or(("".into(), &sample.line));
    Problem {
        signature: events::hex(&fact.signature.0),
        subject: fact.subject.clone(),
        severity: events::severity(fact.severity).into(),
        class: events::class(fact.class).into(),
        path: path.into(),
        line: line.into(),
        text: own(sample.text.clone()),
        node: own(events::name(whose.hosts, sample.host)),
        cause: cause(fact, line).into(),
        order: own(sample.order.map_or_else(String::new, |order| order.to_string())),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh::{Class, Happening, HostId, Kind, Severity};
    use relay::Journal;

    use super::*;
    use crate::fleet::Known;
    use crate::report::{Style, text};
    use crate::tables::HostRow;
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
        asked(tables, every, start, None, None)
    }

    /// Hosts up to 100 are at Lyon.
    fn asked(
        tables: &Tables,
        every: Every,
        start: u64,
        only: Option<HostSet>,
        by: Option<By>,
    ) -> Report {
        let hosts = (0..400)
            .map(|n| {
                let row = HostRow {
                    name: format!("web{n}"),
                    site: if n <= 100 { "lyon" } else { "oslo" }.into(),
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
        let whose = Whose { hosts: &hosts, fleet: &Known::default() };
        let ask = Ask { every: Some(every), time, zone: &TimeZone::UTC, only, by };
        make(tables, &filters, &whose, &ask).expect("it is made")
    }

    #[test]
    fn some_hosts_and_parts_have_their_own_counts() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tables = tables(&dir);
        say(&tables, 95..105, 2, "at both", NOON);
        say(&tables, 200..201, 1, "at one", NOON);
        say(&tables, 1..2, 1, "over at one", NOON - HOUR);
        let said = |problems: &[Problem]| -> Vec<(String, u64, String)> {
            problems.iter().map(|p| (p.line.clone(), p.count, p.set.clone())).collect()
        };
        let row = |line: &str, count, set: &str| (line.to_owned(), count, set.to_owned());
        let all = asked(&tables, Every::Hour, NOON, None, Some(By::Site));
        assert_eq!(said(&all.problems)[0], row("at both", 20, "web[95-104]"));
        let [lyon, oslo] = all.parts.as_slice() else { panic!("{:?}", all.parts) };
        assert_eq!((lyon.name.as_str(), oslo.name.as_str()), ("lyon", "oslo"));
        assert_eq!(said(&lyon.problems), [row("at both", 12, "web[95-100]")]);
        assert_eq!(said(&lyon.resolved), [row("over at one", 1, "web1")]);
        let expected = [row("at both", 8, "web[101-104]"), row("at one", 1, "web200")];
        assert_eq!((said(&oslo.problems), oslo.resolved.len()), (expected.to_vec(), 0));
        let only = HostSet::from_ranges([(100, 101)]);
        let some = asked(&tables, Every::Hour, NOON, Some(only), None);
        assert_eq!(said(&some.problems), [row("at both", 4, "web[100-101]")]);
        assert!(some.resolved.is_empty() && some.parts.is_empty());
    }

    #[test]
    fn what_is_known_of_all_hosts_together_is_not_said_of_some() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tables = tables(&dir);
        say(&tables, 99..103, 1, "at both", NOON);
        say(&tables, 101..102, 1, "over at both", NOON - HOUR);
        say(&tables, 1..2, 1, "over at both", NOON - HOUR);
        let said = |problem: &Problem| {
            (problem.node.clone(), problem.first_ms > 0 && problem.last_ms >= problem.first_ms)
        };
        let of = |hosts, by| asked(&tables, Every::Hour, NOON, hosts, by);
        let only = |host| Some(HostSet::from_ranges([(host, host)]));
        let all = of(None, Some(By::Site));
        let teller = all.problems[0].node.clone();
        assert_eq!((teller.as_str(), said(&all.problems[0]).1), ("web99", true));
        assert_eq!(said(&of(only(99), None).problems[0]), (teller.clone(), false));
        let other = of(only(102), None);
        assert_eq!(said(&other.problems[0]), (String::new(), false));
        assert_eq!(other.problems[0].line, "at both");
        let every = of(Some(HostSet::from_ranges([(0, 399)])), None);
        assert_eq!(said(&every.problems[0]), (teller.clone(), true));
        let [lyon, oslo] = all.parts.as_slice() else { panic!("{:?}", all.parts) };
        assert_eq!(said(&lyon.problems[0]), (teller, false));
        assert_eq!(said(&oslo.problems[0]), (String::new(), false));
        // Where the time is not known, none is shown.
        let style = Style {
            escape: str::to_owned,
            time: |ms| format!("at {ms}"),
            count: |n| n.to_string(),
        };
        let shown = text(&other, &style);
        assert!(shown.contains("web102, once\n") && !shown.contains("at 0"), "{shown}");
        let shown = text(&all, &style);
        assert!(shown.contains("over at both\n") && !shown.contains("at 0"), "{shown}");
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
