//! Watching an order until each target has an outcome, or until nobody wants to watch any more.
//!
//! The order lives at the controller; this only looks at it. A stream of events that breaks is
//! asked for again from the start, which is harmless because [`Gathered`] knows what is news.
//! [`keys`](crate::keys) says what the operator can ask for meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use controller::sets;
use controller::types::{Answer, HostInfo, OrderEvent, OrderInfo};
use tokio::time::sleep;

use crate::alike;
use crate::branches::Branches;
use crate::cancel;
use crate::client::{Client, Lines, is_broken};
use crate::exit::Exit;
use crate::fail::Failure;
use crate::gathered::{Gathered, output, stderr, stdout};
use crate::keys::{Keys, Wish};
use crate::lines::{Shown, Written};
use crate::progress::Progress;
use crate::render::{self, View};
use crate::rows::Rows;
use crate::run::OUTPUT_LIMIT;
use crate::save::SaveArgs;
use crate::screen::{Screen, To};
use crate::units::show_duration;

/// How long a controller may be gone before we give up watching.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(300);

/// How the watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Each target has an outcome.
    Closed,
    /// Each target has an outcome, and this operator has cancelled the order.
    Cancelled,
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
    keys: Keys,
    /// For -bL: lines that wait for those of other hosts.
    rows: Option<Rows>,
    /// Files for answers.
    save: SaveArgs,
    /// Where hosts live, if that is shown.
    hosts: Vec<HostInfo>,
    /// Whether the order was taken back from here.
    cancelled: bool,
}

/// What comes next.
enum Next {
    Event(Box<OrderEvent>),
    Over(Option<Failure>),
    Wish(Wish),
}

impl<'a> Follow<'a> {
    /// Begins to watch an order.
    pub(crate) fn new(
        client: &'a Client,
        screen: &'a mut Screen,
        view: View,
        order: OrderInfo,
    ) -> Result<Follow<'a>, Failure> {
        let keys = Keys::new().map_err(|error| Failure::local(&error))?;
        Ok(Follow::listening(keys, client, screen, view, order))
    }

    /// The same for somebody who has listened to the operator before the order was given.
    pub(crate) fn listening(
        keys: Keys,
        client: &'a Client,
        screen: &'a mut Screen,
        view: View,
        order: OrderInfo,
    ) -> Follow<'a> {
        let draws_bar = screen.is_watched() && !view.quiet && (view.waits() || order.kind != "run");
        let progress = Progress::new(&order, draws_bar, !view.quiet && !screen.json);
        let has_rows = view.lines && view.gather && !view.merge && order.kind == "run";
        let rows = (has_rows && !screen.json).then(|| Rows::new(order.count));
        // An older controller does not say it; what is run from here has this one.
        let limit = order.output_limit.unwrap_or(OUTPUT_LIMIT);
        Follow {
            order,
            gathered: Gathered::default(),
            shown: Shown::new(limit),
            content_sent: BTreeMap::new(),
            client,
            screen,
            view,
            began: Instant::now(),
            progress,
            keys,
            rows,
            save: SaveArgs::default(),
            hosts: Vec::new(),
            cancelled: false,
        }
    }

    /// Ends the watching, and goes on listening to the operator.
    pub(crate) fn into_keys(self) -> Keys {
        self.keys
    }

    /// The same, with files for answers.
    pub(crate) fn with_files(self, save: SaveArgs) -> Follow<'a> {
        Follow { save, ..self }
    }

    /// Watches to the end, and shows what the view wants shown.
    pub(crate) async fn watch(&mut self) -> Result<Ended, Failure> {
        if self.progress.is_drawn() {
            self.find_hosts().await;
        }
        let ended = self.watch_streams().await;
        self.progress.clear();
        let ended = ended?;
        if self.screen.json {
            if self.view.similar {
                alike::print_json(self.screen, &self.view, &self.gathered.groups())?;
            }
            return Ok(ended);
        }
        if let Some(mut rows) = self.rows.take() {
            if ended != Ended::Detached {
                for (host, [out, _]) in self.shown.unfinished() {
                    render::rows(self.screen, &self.view, &rows.end(&host, &out))?;
                }
                render::rows(self.screen, &self.view, &rows.rest())?;
            }
            let groups = self.gathered.groups();
            render::afterword(self.screen, &self.view, &self.order, &groups)?;
        } else if self.view.waits() {
            render::gathered(self.screen, &self.view, &self.order, &self.gathered)?;
        } else {
            if ended != Ended::Detached {
                self.show_unfinished()?;
            }
            render::unheard(self.screen, &self.view, &self.order, &self.gathered)?;
        }
        Ok(ended)
    }

    /// Watches to the end, and leaves it to the caller what is said of it.
    pub(crate) async fn watch_quietly(&mut self) -> Result<Ended, Failure> {
        let ended = self.watch_streams().await;
        self.progress.clear();
        ended
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
            self.screen.say(&format!("detached; the {kind} goes on: barid attach {short}"))?;
        }
        if let Some(why) = self.order.stopped.as_deref().filter(|_| !self.screen.json) {
            let why = match why {
                "errors" => "more hosts have failed than allowed",
                "missed" => "more hosts were missed than allowed",
                _ => "its deadline has passed",
            };
            let OrderInfo { short, .. } = &self.order;
            let on = format!("go on with: barid retry {short} --state skipped");
            self.screen.say(&format!("stopped, {why}: the rest was skipped; {on}"))?;
        }
        self.screen.flush()?;
        Ok(match ended {
            Ended::Detached => Exit::Detached,
            Ended::Cancelled => Exit::Cancelled,
            Ended::Closed if self.order.stopped.is_some() => Exit::Stopped,
            Ended::Closed => render::exit(&self.gathered, self.view.largest),
        })
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
        let live = self.shows_lines() || self.rows.is_some();
        let output = if live { "?output=live" } else { "" };
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
                let help = format!("the {kind} goes on; later: `barid attach {short}`");
                return Err(failure.with_help(help));
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                wish = self.keys.next() => if self.grant(wish).await? {
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
                Next::Wish(wish) => {
                    if self.grant(wish).await? {
                        return Ok(Ok(Ended::Detached));
                    }
                }
                Next::Over(lost) => return Ok(Err(lost)),
                Next::Event(event) if *event == OrderEvent::Lagged => return Ok(Err(None)),
                Next::Event(event) => {
                    if self.handle_event(*event, before)? {
                        let ended = if self.cancelled { Ended::Cancelled } else { Ended::Closed };
                        return Ok(Ok(ended));
                    }
                }
            }
        }
    }

    async fn next(&mut self, events: &mut Lines<OrderEvent>) -> Result<Next, Failure> {
        tokio::select! {
            biased;
            wish = self.keys.next() => Ok(Next::Wish(wish)),
            event = events.next() => match event {
                Ok(Some(event)) => Ok(Next::Event(Box::new(event))),
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
                let (answer, news) = self.gathered.add(*answer);
                self.save.save(&answer, &news)?;
                if let Some(mut printed) = printed {
                    // A stream asked for again repeats itself; ours does not.
                    if !news.is_empty() {
                        printed.set = sets::fold(&news);
                        printed.hosts = news;
                        self.screen.json(&OrderEvent::Answer(printed))?;
                    }
                } else if self.shows_lines() {
                    let (screen, view, shown) = (&mut *self.screen, &self.view, &mut self.shown);
                    let run = &self.order.short;
                    let said = (&*answer, &news[..]);
                    self.progress.aside(|| render::live(screen, view, shown, run, said))?;
                } else {
                    self.end_rows(&answer, &news)?;
                }
                self.tell_progress()?;
            }
            OrderEvent::Output { host, stream, offset, data, binary } => {
                let to = if stream == "stderr" { To::Err } else { To::Out };
                // Rows stand beside each other only as long as no line is left out.
                if self.rows.is_some() && offset >= self.shown.limit() {
                    return Ok(false);
                }
                let lines = self.shown.piece(&host, to, offset, &output(&data, binary));
                if let Some(rows) = self.rows.as_mut().filter(|_| to == To::Out) {
                    let rows = rows.add(&host, &lines.whole);
                    let (screen, view) = (&mut *self.screen, &self.view);
                    self.progress.aside(|| render::rows(screen, view, &rows))?;
                } else if self.shows_lines() && lines != Written::default() {
                    let (screen, view) = (&mut *self.screen, &self.view);
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
                if self.screen.json {
                    self.screen.json(&OrderEvent::Closed { order: order.clone() })?;
                }
                self.order = *order;
                return Ok(true);
            }
            OrderEvent::Lagged => {}
        }
        Ok(false)
    }

    /// For -bL: these hosts will write nothing more.
    fn end_rows(&mut self, answer: &Answer, hosts: &[String]) -> Result<(), Failure> {
        let Some(rows) = &mut self.rows else { return Ok(()) };
        let mut complete = Vec::new();
        for host in hosts {
            if render::is_supposed(answer) {
                complete.extend(rows.end(host, &[]));
            } else {
                let [out, _] = self.shown.rest(host, stdout(answer), stderr(answer));
                complete.extend(rows.end(host, &out));
            }
        }
        let (screen, view) = (&mut *self.screen, &self.view);
        self.progress.aside(|| render::rows(screen, view, &complete))?;
        Ok(())
    }

    /// Shows the lines that were begun by hosts of which nothing more will come.
    fn show_unfinished(&mut self) -> Result<(), Failure> {
        for (host, [out, err]) in self.shown.unfinished() {
            for (to, whole) in [(To::Out, out), (To::Err, err)] {
                let lines = Written { whole, ..Written::default() };
                render::written(self.screen, &self.view, &host, to, &lines)?;
            }
        }
        Ok(())
    }

    fn tell_progress(&mut self) -> Result<(), Failure> {
        let done = self.gathered.len() as u64;
        let (order, hosts, gathered) = (&self.order, &self.hosts, &self.gathered);
        let standing = || Branches::new(order, hosts, gathered).in_bar();
        if let Some(line) = self.progress.tell(order, done, &self.content_sent, standing) {
            self.screen.say(&line)?;
        }
        Ok(())
    }

    /// Does what the operator asks for. `true`: we leave.
    async fn grant(&mut self, wish: Wish) -> Result<bool, Failure> {
        match wish {
            Wish::Status => {
                self.find_hosts().await;
                self.say_status()?;
            }
            Wish::Detach => return Ok(true),
            // Taking back what takes something back would be one step too many.
            Wish::Cancel if self.order.kind == "cancel" => return Ok(true),
            Wish::Cancel => self.cancel().await?,
        }
        Ok(false)
    }

    /// Asks where hosts live and who is up. Without an answer they are shown without a place.
    async fn find_hosts(&mut self) {
        if let Ok(hosts) = self.client.get("/v1/hosts").await {
            self.hosts = hosts;
        }
    }

    fn say_status(&mut self) -> Result<(), Failure> {
        let status = render::summary(&self.order, &self.gathered, self.took());
        let OrderInfo { kind, short, .. } = &self.order;
        let hint = match self.keys.may_cancel() && kind != "cancel" {
            true => format!("Ctrl-C twice within 1 s cancels the {kind}; d and Enter leaves it"),
            false => format!("Ctrl-C twice within 1 s leaves; later: barid attach {short}"),
        };
        let branches = Branches::new(&self.order, &self.hosts, &self.gathered);
        let lines = std::iter::once(status).chain(branches.lines()).chain([hint]);
        let screen = &mut *self.screen;
        self.progress.aside(|| lines.into_iter().try_for_each(|line| screen.say(&line)))?;
        Ok(())
    }

    /// Takes the order back everywhere. Its hosts say themselves what became of it, so there is
    /// nothing more to watch than before.
    async fn cancel(&mut self) -> Result<(), Failure> {
        let given = cancel::give(self.client, &self.order.id, cancel::REACH).await;
        self.cancelled |= given.is_ok();
        let (screen, order) = (&mut *self.screen, &self.order);
        self.progress.aside(|| match given {
            Ok(_) => screen.say(&format!("cancelling the {} everywhere", order.kind)),
            Err(failure) => screen.fail(&failure),
        })?;
        Ok(())
    }
}

fn ended_early() -> Failure {
    Failure::new(Exit::Unreachable, "connection-lost", "the controller ended the answer early")
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
