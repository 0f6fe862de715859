//! How far an order is: a bar on a terminal, a line now and then elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use controller::sets;
use controller::types::OrderInfo;
use indicatif::{ProgressBar, ProgressStyle};

use crate::units::{show_bytes, show_count};

/// How often progress is told where no bar can be drawn.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// How many sites a progress line names.
const SITES_IN_LINE: usize = 4;

/// What turns while something is prepared of which nobody knows how long it takes.
pub(crate) fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("barid: {spinner} {msg} {elapsed}");
    let style = style.expect("the template is right").tick_chars("|/-\\ ");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Tells how far an order is: a bar on a terminal, a line now and then elsewhere.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    tells: bool,
    told: Instant,
}

impl Progress {
    /// For an order; `tells` allows lines where no bar is drawn.
    pub(crate) fn new(order: &OrderInfo, draws_bar: bool, tells: bool) -> Progress {
        let bar = draws_bar.then(|| {
            let style = "{prefix} [{bar:24}] {human_pos}/{human_len} {elapsed} {msg}";
            let style = ProgressStyle::with_template(style).expect("the template is right");
            let bar = ProgressBar::new(order.count).with_style(style.progress_chars("=> "));
            bar.set_prefix(format!("barid: {} {}", order.kind, order.short));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        let travels = ["push", "stage"].contains(&order.kind.as_str());
        Progress { bar, tells: tells && travels, told: Instant::now() }
    }

    /// Moves the bar, or gives the line to print if it is time for one. `standing`: how it is at
    /// the sites, where there is room to say so.
    pub(crate) fn tell(
        &mut self,
        order: &OrderInfo,
        done: u64,
        sent: &BTreeMap<String, u64>,
        standing: impl FnOnce() -> String,
    ) -> Option<String> {
        let sites = show_sites(sent, Some(SITES_IN_LINE));
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(format!("{}  {sites}", standing()).trim().to_owned());
            return None;
        }
        if !self.tells || self.told.elapsed() < TOLD_EVERY {
            return None;
        }
        self.told = Instant::now();
        let (done, count) = (show_count(done), show_count(order.count));
        let OrderInfo { kind, short, .. } = order;
        Some(format!("{kind} {short}  {done}/{count} hosts done  {sites}").trim_end().to_owned())
    }

    /// Whether there is a bar.
    pub(crate) fn is_drawn(&self) -> bool {
        self.bar.is_some()
    }

    /// Does something that writes, with the bar out of the way.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// `lyon 12.0 MiB, paris 3.0 MiB`: what went over each site's link, the most first.
pub(crate) fn show_sites(sent: &BTreeMap<String, u64>, limit: Option<usize>) -> String {
    let mut sites: Vec<(&str, u64)> = sent.iter().map(|(site, n)| (site.as_str(), *n)).collect();
    sites.retain(|(_, bytes)| *bytes > 0);
    sites.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| sets::natural_cmp(a.0, b.0)));
    let shown = limit.unwrap_or(sites.len());
    let name = |site: &str| if site.is_empty() { "no site".to_owned() } else { site.to_owned() };
    let part = |(site, bytes): &(&str, u64)| format!("{} {}", name(site), show_bytes(*bytes));
    let mut parts: Vec<String> = sites.iter().take(shown).map(part).collect();
    if let Some(rest) = sites.get(shown..).filter(|rest| !rest.is_empty()) {
        let bytes = rest.iter().map(|(_, bytes)| bytes).sum();
        parts.push(format!("{} more sites {}", rest.len(), show_bytes(bytes)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_the_most_first() {
        let sent = |sites: &[(&str, u64)]| {
            sites.iter().map(|(site, bytes)| ((*site).to_owned(), *bytes)).collect()
        };
        let all: BTreeMap<String, u64> =
            sent(&[("a", 1024), ("b", 4096), ("", 10), ("idle", 0), ("c", 1024)]);
        assert_eq!(show_sites(&all, None), "b 4.0 KiB, a 1.0 KiB, c 1.0 KiB, no site 10 B");
        assert_eq!(show_sites(&all, Some(1)), "b 4.0 KiB, 3 more sites 2.0 KiB");
        assert_eq!(show_sites(&BTreeMap::new(), Some(1)), "");
    }
}
