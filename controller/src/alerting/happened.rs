//! Alerts about what has happened, as against what is so: events that somebody should look at soon
//! although nothing says when they are over.
//!
//! Such an alert lasts for a while after the last event of its kind, one for each site, however
//! many hosts have told it. What had happened in that while before a restart is read again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alerts::{Desk, Seen};
use mesh::{HostId, Severity};
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::clock::now_ms;
use crate::live::Live;
use crate::orders::blocking;
use crate::sets;
use crate::tables::events::{EventRow, QUARTER_MS};
use crate::tables::{HostRow, Tables};

/// How often to look at least, and the pause after each look.
const LOOK: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);
/// Events that are read at once.
const AT_ONCE: usize = 256;
/// Hosts of one kind of alert that are remembered, and so long a list of them in a summary.
const HOSTS: usize = 10_000;
const LISTED: usize = 120;
/// The longest that anything here lasts.
const LONGEST_MS: u64 = 3600 * 1000;

/// Which events make an alert of which kind, for how long after the last of them.
const RULES: [(&str, &str, u64); 7] = [
    ("host.clock-apart", "clock-apart", 900 * 1000),
    ("host.events-dropped", "limit-reached", LONGEST_MS),
    ("run.cut", "limit-reached", LONGEST_MS),
    ("bus.dropped", "limit-reached", LONGEST_MS),
    ("push.schedule-missed", "schedule-missed", LONGEST_MS),
    ("schedule.missed", "schedule-missed", LONGEST_MS),
    ("push.not-begun", "schedule-missed", LONGEST_MS),
];
/// What ends them at once.
const ENDS: [(&str, &str); 1] = [("host.clock-close", "clock-apart")];

/// The rules.
pub(crate) struct Happened {
    pub(crate) desk: Desk,
    pub(crate) live: Live,
    pub(crate) tables: Tables,
}

/// What was told, and until when it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Recent {
    until_ms: u64,
    line: String,
}

/// By kind of alert and host.
type Known = BTreeMap<(&'static str, HostId), Recent>;
type Hosts = Arc<BTreeMap<HostId, HostRow>>;

impl Happened {
    /// Looks whenever there are more events, and now and then. Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut grown = self.live.events.subscribe();
        let (mut known, mut cursor, mut is_known) = (Known::new(), None, false);
        loop {
            grown.borrow_and_update();
            match self.read(&mut cursor, &mut known).await {
                Ok(()) => is_known = true,
                Err(failure) => {
                    warn!(error = %failure.error.message, "events are not read for alerts");
                }
            }
            if !is_known {
                // What had happened before a restart is not over because it is not read yet.
                sleep(LOOK).await;
                continue;
            }
            let (now, hosts) = (now_ms(), self.live.state().hosts.clone());
            known.retain(|(_, host), recent| {
                recent.until_ms > now && (*host == HostId::ROOT || hosts.contains_key(host))
            });
            let mut all = seen(&known, &hosts);
            all.extend(self.error_rate(now).await);
            self.desk.set("happened", all, |_| None).await;
            sleep(PAUSE).await;
            timeout(LOOK, grown.changed()).await.ok();
        }
    }

    async fn read(
        &self,
        cursor: &mut Option<u64>,
        known: &mut Known,
    ) -> Result<(), crate::fault::Failure> {
        loop {
            let (tables, at) = (self.tables.clone(), *cursor);
            let read = blocking(move || {
                let after = match at {
                    Some(after) => after,
                    None => tables.cursor_at(now_ms().saturating_sub(LONGEST_MS))?,
                };
                Ok((after, tables.events(after, AT_ONCE)?))
            });
            let (after, rows) = read.await?;
            *cursor = Some(rows.last().map_or(after, |row| row.cursor));
            rows.iter().for_each(|row| take(known, row));
            if rows.len() < AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Too many errors in the present and the last quarter of an hour, if that is asked for.
    async fn error_rate(&self, now: u64) -> Option<Seen> {
        let most = self.desk.settings().count("errors-many")?;
        let tables = self.tables.clone();
        let growth = blocking(move || Ok(tables.growth(now.saturating_sub(QUARTER_MS), now)?));
        let growth = growth.await.ok()?;
        let errors = growth.sums.iter().filter(|(sum, _)| sum.fact.severity == Severity::Error);
        let worst = errors.clone().max_by_key(|(sum, _)| sum.total());
        let count: u64 = errors.map(|(sum, _)| sum.total()).sum();
        let line = worst.map(|(sum, _)| sum.sample.line.clone()).unwrap_or_default();
        (count >= most.max(1)).then(|| Seen {
            kind: "errors-many",
            of: "fleet".into(),
            summary: format!("{count} errors within half an hour, most often: {line}"),
            ..Seen::default()
        })
    }
}

fn take(known: &mut Known, row: &EventRow) {
    let told = &row.folded.fact.subject;
    if let Some((_, kind)) = ENDS.iter().find(|(subject, _)| subject == told) {
        row.folded.counts.keys().for_each(|host| drop(known.remove(&(*kind, *host))));
    }
    let rule = RULES.iter().find(|(subject, _, _)| subject == told);
    let Some((_, kind, lasts)) = rule else { return };
    let until_ms = row.heard_last_ms.saturating_add(*lasts);
    for host in row.folded.counts.keys() {
        if known.len() < HOSTS || known.contains_key(&(*kind, *host)) {
            let line = row.folded.sample.line.clone();
            known.insert((*kind, *host), Recent { until_ms, line });
        }
    }
}

/// One for each kind and site.
fn seen(known: &Known, hosts: &Hosts) -> Vec<Seen> {
    let mut groups = BTreeMap::<(&'static str, String), (Vec<String>, &str)>::new();
    for ((kind, host), recent) in known {
        let row = hosts.get(host);
        let site = row.map_or_else(String::new, |row| row.site.clone());
        let name = row.map_or_else(|| "controller".into(), |row| row.name.clone());
        let group = groups.entry((*kind, site)).or_insert_with(|| (Vec::new(), &recent.line));
        group.0.push(name);
    }
    let one = |((kind, site), (names, line)): ((&'static str, String), (Vec<String>, &str))| {
        let folded = match sets::fold(&names) {
            folded if folded.len() <= LISTED => folded,
            _ => format!("{} nodes", names.len()),
        };
        let mut labels = BTreeMap::new();
        if !site.is_empty() {
            labels.insert("site".into(), site.clone());
        }
        let of = if site.is_empty() { "controller".into() } else { site.clone() };
        let summary = format!("{folded}: {line}");
        Seen { kind, of, group: site, labels, summary, ..Seen::default() }
    };
    groups.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use mesh::{Class, Fact, Folded, Sample};

    use super::*;

    fn row(subject: &str, host: u32, heard_last_ms: u64) -> EventRow {
        let fact = Fact::new(subject, Severity::Warning, Class::Client, "line *", relay::hash);
        let (line, text) = (format!("line of {host}"), String::new());
        let sample = Sample { at_ms: 0, host: HostId(host), line, text, order: None };
        let counts = BTreeMap::from([(HostId(host), 1)]);
        let folded = Folded {
            fact: Arc::new(fact),
            window: 0,
            first_ms: 0,
            last_ms: 0,
            sample: Arc::new(sample),
            counts,
        };
        EventRow { cursor: 1, heard_ms: 0, heard_last_ms, folded, order: None }
    }

    #[test]
    fn one_alert_for_each_kind_and_site() {
        let of = |name: &str| HostRow {
            name: name.into(),
            site: "lyon".into(),
            role: "host".into(),
            key: [0; 32],
            enrolled_ms: 0,
        };
        let hosts = (1..4).map(|n| (HostId(n), of(&format!("web{n}")))).collect();
        let mut known = Known::new();
        for host in 1..4 {
            take(&mut known, &row("host.clock-apart", host, 5_000));
        }
        take(&mut known, &row("push.schedule-missed", 0, 5_000));
        take(&mut known, &row("host.started", 2, 5_000));
        let alerts = seen(&known, &Arc::new(hosts));
        let keys: Vec<_> = alerts.iter().map(|seen| Seen::key(seen.kind, &seen.of)).collect();
        assert_eq!(keys, ["clock-apart/lyon", "schedule-missed/controller"]);
        assert_eq!(alerts[0].summary, "web[1-3]: line of 1");
        assert_eq!(known[&("clock-apart", HostId(1))].until_ms, 905_000);
        take(&mut known, &row("host.clock-close", 1, 6_000));
        assert!(!known.contains_key(&("clock-apart", HostId(1))));
    }

    #[test]
    fn each_kind_has_a_rule() {
        for (subject, kind, lasts) in RULES {
            assert!(alerts::Rule::of(kind).is_some() && mesh::is_subject(subject), "{kind}");
            assert!(lasts <= LONGEST_MS);
        }
    }
}
