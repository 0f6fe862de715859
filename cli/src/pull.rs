//! `barid pull`: a path from many hosts into one folder, `DIR/HOST/PATH`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use controller::sets::fold;
use controller::types::{NewPull, PullEvent, PullHost};

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::progress::spinner;
use crate::push::{destination, text};
use crate::screen::Screen;
use crate::targets::TargetArgs;
use crate::units::{millis, parse_duration, show_bytes, show_count};

const EXAMPLES: &str = "\
Examples:
  barid pull /var/log/app -w 'web[1-9]' --to ./logs       ./logs/web1/var/log/app and so on
  barid pull /etc -a --to /srv/etc --exclude '*.gz'
  barid pull /etc -a --to /srv/etc                        again: only what has changed

What breaks off goes on when the same is given once more.";

/// Options of `barid pull`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file or folder at the hosts, absolute
    #[arg(value_name = "PATH")]
    path: PathBuf,
    #[command(flatten)]
    targets: TargetArgs,
    /// The folder on the controller's machine; each host gets one of its own in it
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// What to leave out, as with `barid push`; may be given several times
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// How long to wait for a host of which nothing comes
    #[arg(short = 't', long, value_name = "REACH", default_value = "15s")]
    #[arg(value_parser = parse_duration)]
    reach: Duration,
    /// No progress and no last line
    #[arg(short = 'q', long)]
    quiet: bool,
}

/// What has been collected.
#[derive(Default)]
struct Sum {
    hosts: u64,
    /// Names by state.
    states: BTreeMap<String, Vec<String>>,
    files: u64,
    bytes: u64,
    written: u64,
    received: u64,
}

/// Collects, and tells how it goes.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let to = std::path::absolute(&args.to);
    let to = to.map_err(|error| {
        Failure::usage(format!("{}: {error}", args.to.display()), "name a folder, as --to ./logs")
    })?;
    let new = NewPull {
        targets: args.targets.required(screen)?,
        path: text(&destination(&args.path)?)?,
        to: text(&to)?,
        exclude: args.exclude,
        reach_ms: millis(args.reach),
    };
    let mut events = client.post_lines("/v1/pulls", &new).await?;
    let bar = (screen.is_watched() && !args.quiet).then(spinner);
    let (mut sum, mut coming) = (Sum::default(), BTreeMap::new());
    let ended = loop {
        let event: PullEvent = match events.next().await? {
            Some(event) => event,
            None => break false,
        };
        if screen.json && !matches!(event, PullEvent::Receiving { .. }) {
            screen.json(&event)?;
        }
        match event {
            PullEvent::Begun { hosts } => sum.hosts = hosts,
            PullEvent::Receiving { host, received } => drop(coming.insert(host, received)),
            PullEvent::Host(host) => {
                coming.remove(&host.host);
                sum.add(&host);
                if !screen.json {
                    match &bar {
                        Some(bar) => bar.suspend(|| warn(screen, &host))?,
                        None => warn(screen, &host)?,
                    }
                }
            }
            PullEvent::Ended => break true,
        }
        if let Some(bar) = &bar {
            bar.set_message(sum.progress(&coming));
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if !ended {
        let message = "the controller stopped answering before everything was collected";
        return Err(Failure::new(Exit::Unreachable, "connection-lost", message)
            .with_help("pull again: what has come does not come again"));
    }
    let silent = sum.hosts.saturating_sub(sum.done());
    if silent > 0 {
        screen.warn(&format!("of {silent} hosts nothing was said: see the controller's log"))?;
        sum.states.entry("failed".into()).or_default();
    }
    if !screen.json && !args.quiet {
        screen.print(&sum.report(&new))?;
    }
    Ok(Exit::of(sum.states.keys().map(|state| (state.as_str(), None)), false))
}

/// Names what of a host is missing.
fn warn(screen: &mut Screen, host: &PullHost) -> Result<(), Failure> {
    let name = &host.host;
    if host.state != "ok" {
        screen.warn(&format!("{name}: {}: {}", host.state, host.message))?;
    }
    if host.left_out > 0 {
        let (some, count) = (host.named.join(", "), show_count(host.left_out));
        let more = if host.left_out > host.named.len() as u64 { " and others" } else { "" };
        screen.warn(&format!("{name}: left out {count} links out of the folder: {some}{more}"))?;
    }
    if host.skipped > 0 {
        let count = show_count(host.skipped);
        screen.warn(&format!("{name}: left out {count} sockets, pipes and devices"))?;
    }
    Ok(())
}

impl Sum {
    fn add(&mut self, host: &PullHost) {
        self.states.entry(host.state.clone()).or_default().push(host.host.clone());
        self.files += host.files;
        self.bytes += host.bytes;
        self.written += host.written;
        self.received += host.received;
    }

    fn done(&self) -> u64 {
        self.states.values().map(|hosts| hosts.len() as u64).sum()
    }

    fn progress(&self, coming: &BTreeMap<String, u64>) -> String {
        let received = self.received + coming.values().sum::<u64>();
        let (done, hosts) = (show_count(self.done()), show_count(self.hosts));
        format!("{done}/{hosts} hosts, {} received", show_bytes(received))
    }

    fn report(&self, new: &NewPull) -> String {
        let ok = self.states.get("ok").map_or(0, Vec::len) as u64;
        let (ok, hosts) = (show_count(ok), show_count(self.hosts));
        let (files, bytes) = (show_count(self.files), show_bytes(self.bytes));
        let (written, received) = (show_count(self.written), show_bytes(self.received));
        let mut text = format!(
            "{} -> {}: {ok} of {hosts} hosts, {files} files, {bytes}\n  \
             {written} files and folders written, {received} received\n",
            new.path, new.to
        );
        for (state, hosts) in self.states.iter().filter(|(state, _)| *state != "ok") {
            let count = show_count(hosts.len() as u64);
            text.push_str(&format!("  {state} ({count}): {}\n", fold(hosts)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_who_is_missing() {
        let host = |name: &str, state: &str| PullHost {
            host: name.into(),
            state: state.into(),
            files: 2,
            bytes: 2048,
            written: 1,
            received: 100,
            ..PullHost::default()
        };
        let mut sum = Sum { hosts: 4, ..Sum::default() };
        for (name, state) in
            [("web1", "ok"), ("web2", "not-reached"), ("web3", "not-reached"), ("db", "ok")]
        {
            sum.add(&host(name, state));
        }
        let new = NewPull {
            targets: controller::types::Targets::default(),
            path: "/etc".into(),
            to: "/srv/etc".into(),
            exclude: Vec::new(),
            reach_ms: 0,
        };
        assert_eq!(
            sum.report(&new),
            "/etc -> /srv/etc: 2 of 4 hosts, 8 files, 8.0 KiB\n  \
             4 files and folders written, 400 B received\n  \
             not-reached (2): web[2-3]\n"
        );
        assert_eq!(Exit::of(sum.states.keys().map(|s| (s.as_str(), None)), false), Exit::Missed);
        sum.add(&host("web4", "failed"));
        assert_eq!(Exit::of(sum.states.keys().map(|s| (s.as_str(), None)), false), Exit::Failed);
    }
}
