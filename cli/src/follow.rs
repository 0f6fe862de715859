//! Watching an order until each target has an outcome, or until nobody wants to watch any more.
//!
//! The order lives at the controller; this only looks at it. A stream of events that breaks is
//! asked for again from the start, which is harmless because [`Gathered`] knows what is news.
//! Ctrl-C says how far the order is; twice within a second leaves it to itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use controller::sets;
use controller::types::{OrderEvent, OrderInfo};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use crate::client::{Client, Lines, is_broken};
use crate::exit::Exit;
use crate::fail::Failure;
use crate::gathered::{Gathered, output};
use crate::lines::Shown;
use crate::render::{self, View};
use crate::screen::{Screen, To};
use crate::units::{show_bytes, show_count, show_duration};

/// Two interrupts within this span mean: leave.
const TWICE: Duration = Duration::from_secs(1);
/// How long a controller may be gone before we give up watching.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(300);
/// How often progress is told where no bar can be drawn.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// How many sites a progress line names.
const SITES_IN_LINE: usize = 4;

/// How the watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Each target has an outcome.
    Closed,
    /// The operator left; the order goes on.
    Detached,
}

/// An order that is being watched.
pub(crate) struct Follow<'a> {
    /// The order, as it was when last heard of.
    pub(crate) order: OrderInfo,
    /// What has been answered.
    pub(crate) gathered: Gathered,
    /// What was shown of output before its answer.
    shown: Shown,
    /// Content bytes sent over each site's link, since we watch.
    pub(crate) content_sent: BTreeMap<String, u64>,
    client: &'a Client,
    screen: &'a mut Screen,
    view: View,
    began: Instant,
    progress: Progress,
    interrupts: Signal,
    last_interrupt: Option<Instant>,
}

/// What comes next.
enum Next {
    Event(OrderEvent),
    Over(Option<Failure>),
    Interrupt,
}

impl<'a> Follow<'a> {
    /// Begins to watch an order that was just given.
    pub(crate) fn new(
        client: &'a Client,
        screen: &'a mut Screen,
        view: View,
        order: OrderInfo,
    ) -> Result<Follow<'a>, Failure> {
        let interrupts = signal(SignalKind::interrupt()).map_err(|error| Failure::local(&error))?;
        let draws_bar =
            screen.is_watched() && !view.quiet && (view.waits() || order.kind == "push");
        let progress = Progress::new(&order, draws_bar, !view.quiet && !screen.json);
        Ok(Follow {
            order,
            gathered: Gathered::default(),
            shown: Shown::default(),
            content_sent: BTreeMap::new(),
            client,
            screen,
            view,
            began: Instant::now(),
            progress,
            interrupts,
            last_interrupt: None,
        })
    }

    /// Watches to the end, and shows what the view wants shown.
    pub(crate) async fn watch(&mut self) -> Result<Ended, Failure> {
        let ended = self.watch_streams().await;
        self.progress.clear();
        let ended = ended?;
        if self.screen.json {
            return Ok(ended);
        }
        if self.view.waits() {
            render::gathered(self.screen, self.view, &self.order, &self.gathered)?;
        } else {
            if ended == Ended::Closed {
                self.show_unfinished()?;
            }
            render::unheard(self.screen, &self.order, &self.gathered)?;
        }
        Ok(ended)
    }

    /// Whether lines are shown as they come, not gathered and not for programs.
    fn shows_lines(&self) -> bool {
        !self.screen.json && !self.view.waits() && self.order.kind == "run"
    }

    /// The last line, and how the process ends.
    pub(crate) fn finish(&mut self, ended: Ended) -> Result<Exit, Failure> {
        if !self.view.quiet && !self.screen.json {
            let text = render::summary(&self.order, &self.gathered, self.took());
            self.screen.say(&text)?;
        }
        if ended == Ended::Detached {
            let OrderInfo { kind, short, .. } = &self.order;
            self.screen.say(&format!("detached; the {kind} goes on: barid runs show {short}"))?;
            return Ok(Exit::Detached);
        }
        self.screen.flush()?;
        Ok(render::exit(&self.gathered, self.view.largest))
    }

    /// Our own output, while no bar is in the way.
    pub(crate) fn screen(&mut self) -> &mut Screen {
        self.screen
    }

    fn took(&self) -> Duration {
        match self.order.closed_ms.checked_sub(self.order.issued_ms) {
            Some(ms) => Duration::from_millis(ms),
            None => self.began.elapsed(),
        }
    }

    /// One stream after the other, until the order closes.
    async fn watch_streams(&mut self) -> Result<Ended, Failure> {
        let output = if self.shows_lines() { "?output=live" } else { "" };
        let path = format!("/v1/orders/{}/events{output}", self.order.id);
        let mut heard = Instant::now();
        loop {
            let before = self.content_sent.clone();
            let lost = match self.client.get_lines(&path).await {
                Ok(mut events) => {
                    let watched = self.watch_one(&mut events, &before).await?;
                    heard = Instant::now();
                    match watched {
                        Ok(ended) => return Ok(ended),
                        Err(lost) => lost,
                    }
                }
                Err(failure) if is_broken(&failure) => Some(failure),
                Err(failure) => return Err(failure),
            };
            if let Some(failure) = lost
                && heard.elapsed() > PATIENCE
            {
                let OrderInfo { kind, short, .. } = &self.order;
                let help = format!("the {kind} goes on; later: `barid runs show {short}`");
                return Err(failure.with_help(help));
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = self.interrupts.recv() => if self.interrupted()? {
                    return Ok(Ended::Detached);
                },
            }
        }
    }

    /// One stream: `Ok` when the watching is over, `Err` when the stream is.
    async fn watch_one(
        &mut self,
        events: &mut Lines<OrderEvent>,
        before: &BTreeMap<String, u64>,
    ) -> Result<Result<Ended, Option<Failure>>, Failure> {
        loop {
            match self.next(events).await? {
                Next::Interrupt if self.interrupted()? => return Ok(Ok(Ended::Detached)),
                Next::Interrupt => {}
                Next::Over(lost) => return Ok(Err(lost)),
                Next::Event(OrderEvent::Lagged) => return Ok(Err(None)),
                Next::Event(event) => {
                    if self.handle_event(event, before)? {
                        return Ok(Ok(Ended::Closed));
                    }
                }
            }
        }
    }

    async fn next(&mut self, events: &mut Lines<OrderEvent>) -> Result<Next, Failure> {
        tokio::select! {
            biased;
            _ = self.interrupts.recv() => Ok(Next::Interrupt),
            event = events.next() => match event {
                Ok(Some(event)) => Ok(Next::Event(event)),
                Ok(None) => Ok(Next::Over(Some(ended_early()))),
                Err(failure) if is_broken(&failure) => Ok(Next::Over(Some(failure))),
                Err(failure) => Err(failure),
            },
        }
    }

    /// Takes an event in. `true`: the order is closed.
    fn handle_event(
        &mut self,
        event: OrderEvent,
        before: &BTreeMap<String, u64>,
    ) -> Result<bool, Failure> {
        match event {
            OrderEvent::Answer(answer) => {
                let printed = self.screen.json.then(|| answer.clone());
                let (answer, news) = self.gathered.add(answer);
                if let Some(mut printed) = printed {
                    // A stream asked for again repeats itself; ours does not.
                    if !news.is_empty() {
                        printed.set = sets::fold(&news);
                        printed.hosts = news;
                        self.screen.json(&OrderEvent::Answer(printed))?;
                    }
                } else if self.shows_lines() {
                    let (screen, view, shown) = (&mut *self.screen, self.view, &mut self.shown);
                    self.progress.aside(|| render::live(screen, view, shown, &answer, &news))?;
                }
                self.tell_progress()?;
            }
            OrderEvent::Output { host, stream, offset, data, binary } => {
                let to = if stream == "stderr" { To::Err } else { To::Out };
                let lines = self.shown.piece(&host, to, offset, &output(&data, binary));
                if self.shows_lines() && !lines.is_empty() {
                    let (screen, view) = (&mut *self.screen, self.view);
                    self.progress.aside(|| render::written(screen, view, &host, to, &lines))?;
                }
            }
            OrderEvent::Progress { done, total, content_sent } => {
                self.content_sent = before.clone();
                for (site, bytes) in content_sent {
                    *self.content_sent.entry(site).or_default() += bytes;
                }
                if self.screen.json {
                    let content_sent = self.content_sent.clone();
                    self.screen.json(&OrderEvent::Progress { done, total, content_sent })?;
                }
                self.tell_progress()?;
            }
            OrderEvent::Closed { order } => {
                self.order = order;
                if self.screen.json {
                    self.screen.json(&OrderEvent::Closed { order: self.order.clone() })?;
                }
                return Ok(true);
            }
            OrderEvent::Lagged => {}
        }
        Ok(false)
    }

    /// Shows the lines that were begun by hosts of which nothing more will come.
    fn show_unfinished(&mut self) -> Result<(), Failure> {
        for (host, [out, err]) in self.shown.unfinished() {
            render::written(self.screen, self.view, &host, To::Out, &out)?;
            render::written(self.screen, self.view, &host, To::Err, &err)?;
        }
        Ok(())
    }

    fn tell_progress(&mut self) -> Result<(), Failure> {
        let done = self.gathered.len() as u64;
        if let Some(line) = self.progress.tell(&self.order, done, &self.content_sent) {
            self.screen.say(&line)?;
        }
        Ok(())
    }

    /// Ctrl-C: says how far the order is. `true`: it was the second, we leave.
    fn interrupted(&mut self) -> Result<bool, Failure> {
        let now = Instant::now();
        let twice = self.last_interrupt.is_some_and(|last| now.duration_since(last) < TWICE);
        self.last_interrupt = Some(now);
        if twice {
            return Ok(true);
        }
        let status = render::summary(&self.order, &self.gathered, self.took());
        let OrderInfo { kind, short, .. } = &self.order;
        let hint =
            format!("again within 1 s detaches, the {kind} goes on: barid runs show {short}");
        let screen = &mut *self.screen;
        self.progress.aside(|| screen.say(&status).and_then(|()| screen.say(&hint)))?;
        Ok(false)
    }
}

fn ended_early() -> Failure {
    Failure::new(Exit::Unreachable, "connection-lost", "the controller ended the answer early")
}

/// Tells how far an order is: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    tells: bool,
    told: Instant,
}

impl Progress {
    fn new(order: &OrderInfo, draws_bar: bool, tells: bool) -> Progress {
        let bar = draws_bar.then(|| {
            let style = "{prefix} [{bar:24}] {human_pos}/{human_len} {elapsed} {msg}";
            let style = ProgressStyle::with_template(style).expect("the template is right");
            let bar = ProgressBar::new(order.count).with_style(style.progress_chars("=> "));
            bar.set_prefix(format!("barid: {} {}", order.kind, order.short));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Progress { bar, tells: tells && order.kind == "push", told: Instant::now() }
    }

    /// Moves the bar, or gives the line to print if it is time for one.
    fn tell(
        &mut self,
        order: &OrderInfo,
        done: u64,
        sent: &BTreeMap<String, u64>,
    ) -> Option<String> {
        let sites = show_sites(sent, Some(SITES_IN_LINE));
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(sites);
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

    /// Does something that writes, with the bar out of the way.
    fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn clear(&mut self) {
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

/// How long an order took, or has taken so far.
pub(crate) fn age(order: &OrderInfo) -> Duration {
    match order.closed_ms {
        0 => crate::units::since(order.issued_ms),
        closed => Duration::from_millis(closed.saturating_sub(order.issued_ms)),
    }
}

/// When an order was given and how it stands, for lists.
pub(crate) fn standing(order: &OrderInfo) -> String {
    let state = if order.closed_ms == 0 { "open" } else { "closed" };
    format!("{state} {}", show_duration(age(order)))
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
