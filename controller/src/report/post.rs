//! Reports of hours and days that are over, sent to the channels that have them.
//!
//! How far they have been sent is on disk, so that a restart sends none twice and none too few: a
//! controller that was away sends what it had not, as far back as reports are kept. A report in
//! which nothing stands is not sent, and none is made that no channel has. What a channel does not
//! take waits in its queue, on disk; what the disk does not take is made again.

use std::time::Duration;

use alerts::{AskError, Sender, Written};
use jiff::Zoned;
use timing::clock_text;
use tracing::{info, warn};

use super::make::{Ask, make};
use super::parts::Whose;
use super::{Style, text};
use crate::clock::now_ms;
use crate::fault::Failure;
use crate::filters::Filters;
use crate::fleet::Fleet;
use crate::live::Live;
use crate::orders::blocking;
use crate::period::{Every, Period, closed};
use crate::tables::Tables;
use crate::types::Report;

/// How long to sleep at most: then the clock is looked at again.
const LOOK: Duration = Duration::from_secs(20);
/// What is heard of in the last moment of an hour is on disk by then.
const GRACE_MS: u64 = 3_000;
/// How long the text of a report may be, in bytes.
const LONGEST: usize = 1 << 20;

/// Sends reports.
pub(crate) struct Post {
    pub(crate) desk: alerts::Desk,
    pub(crate) from: Sender,
    pub(crate) live: Live,
    pub(crate) fleet: Fleet,
    pub(crate) tables: Tables,
}

impl Post {
    /// Sends what is over, until the runtime ends.
    pub(crate) async fn run(self) {
        loop {
            let mut pause = LOOK;
            for every in [Every::Hour, Every::Day] {
                match self.send(every).await {
                    Ok(next) => pause = pause.min(next),
                    Err(failure) => {
                        let error = failure.error.message;
                        warn!(kind = every.word(), %error, "reports wait to be sent");
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends those that are over and were not sent. Returns when the next one will be.
    async fn send(&self, every: Every) -> Result<Duration, Failure> {
        let now = Zoned::now();
        let tables = self.tables.clone();
        let sent = blocking(move || Ok(tables.report_sent(every.word())?)).await?;
        let (due, present) = closed(every, sent, &now, GRACE_MS);
        if sent.is_none_or(|sent| sent > present.end_ms) {
            // From now on; also if the clock was ahead.
            self.note(every, present.start_ms).await?;
        }
        let Some(last) = due.last() else { return Ok(left(present)) };
        if !self.desk.has_reports(every.word()).await.map_err(no_report)? {
            // Whoever wants reports from now on gets those that are over from now on.
            self.note(every, last.end_ms).await?;
            return Ok(left(present));
        }
        for time in due {
            let report = self.make(every, time, &now).await?;
            if !(report.problems.is_empty() && report.resolved.is_empty()) {
                let written = written(every, time, &report);
                let channels = self.desk.report(&self.from, written, now_ms()).await;
                let channels = channels.map_err(no_report)?;
                info!(report = report.title, channels, "a report is over");
            }
            self.note(every, time.end_ms).await?;
        }
        Ok(left(present))
    }

    async fn make(&self, every: Every, time: Period, now: &Zoned) -> Result<Report, Failure> {
        let (hosts, fleet) = (self.live.state().hosts.clone(), self.fleet.known());
        let (tables, zone) = (self.tables.clone(), now.time_zone().clone());
        blocking(move || {
            let filters = Filters::load(&tables)?;
            let whose = Whose { hosts: &hosts, fleet: &fleet };
            let ask = Ask { every: Some(every), time, zone: &zone, only: None, by: None };
            let mut report = make(&tables, &filters, &whose, &ask)?;
            report.is_over = true;
            Ok(report)
        })
        .await
    }

    async fn note(&self, every: Every, until_ms: u64) -> Result<(), Failure> {
        let tables = self.tables.clone();
        blocking(move || Ok(tables.note_report_sent(every.word(), until_ms)?)).await
    }
}

/// How long it is until the present hour or day is over.
fn left(present: Period) -> Duration {
    let left = (present.end_ms + GRACE_MS).saturating_sub(now_ms());
    Duration::from_millis(left.max(1))
}

fn no_report(error: AskError) -> Failure {
    Failure::internal(error.to_string())
}

fn written(every: Every, time: Period, report: &Report) -> Written {
    let style = Style { escape: alerts::plain, time: clock_text, count: |n| n.to_string() };
    let mut text = text(report, &style);
    if text.len() > LONGEST {
        let length = text.len();
        text.truncate(text.floor_char_boundary(LONGEST));
        text += &format!("\n... cut: the whole of it has {length} bytes; `barid report`\n");
    }
    let (problems, kind) = (report.problems.len(), every.word());
    let noun = if problems == 1 { "problem" } else { "problems" };
    Written {
        kind: kind.into(),
        subject: format!("{problems} {noun} in the {kind} {}", report.title),
        text,
        start_ms: time.start_ms,
        end_ms: time.end_ms,
    }
}
