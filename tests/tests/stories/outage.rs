//! A bad day: hosts, relays, a line and the controller fail in one fleet, and what is told is what
//! is true: one alert for each cause, by every channel, from whoever is left to say it.
//!
//! Most hosts are a crowd in this process, behind real relays. `BARID_OUTAGE=20x50` plays it with
//! 20 relays of 50 hosts each; without it the fleet is small.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use mesh::State;
use protos::Answer;
use serde_json::Value;
use simulations::crowd::{Crowd, Roll};
use simulations::wan::{Profile, UdpLink};
use tests::{Fleet, LIMIT, Spec, binary, wait_for};

use crate::alerts::{give, wait_alerts, wait_channels, wait_word};
use crate::witness::{Heard, Hook, mail_server, udp_lines};

/// Hosts that a small process can have at once with quick beats.
const QUICK: usize = 100;

/// Somebody who is told by all channels.
struct Witness {
    mails: Heard<String>,
    hook: Hook,
    syslog: Heard<String>,
    /// Where a command writes what it is given.
    command: PathBuf,
}

impl Witness {
    /// He, and the channels by which he is told.
    fn start(dir: &Path, name: &str) -> Result<(Witness, String)> {
        let (mail, mails) = mail_server()?;
        let hook = Hook::start(false)?;
        let (udp, syslog) = udp_lines()?;
        let command = dir.join(format!("{name}.told"));
        let argv = format!("['/bin/sh', '-c', 'cat >> {0}; echo >> {0}']", command.display());
        let channels = format!(
            "channels.mail.mail = {{ server = \"127.0.0.1\", port = {}, tls = \"none\", \
             from = \"barid@example.com\", to = [\"ops@example.com\"] }}\n\
             channels.hook.webhook = {{ url = \"http://{}/\" }}\n\
             channels.syslog.syslog = {{ udp = \"{udp}\" }}\n\
             channels.command.command = {{ argv = {argv} }}\n",
            mail.port(),
            hook.addr
        );
        Ok((Witness { mails, hook, syslog, command }, channels))
    }

    /// Waits until he has heard by each channel that an alert is on, or over.
    fn hears(&self, on: bool, key: &str) -> Result<()> {
        let sign = if on { '+' } else { '-' };
        wait_word(&self.command, &format!("{sign}{key}"))?;
        let (kind, _) = key.split_once('/').context("a kind and what it is about")?;
        let summary = self.summary(on, key)?;
        let word = format!("{sign}{kind}/");
        wait_for(&format!("the webhook to hear {sign}{key}"), LIMIT, || {
            let told = self.hook.posts.all().iter().any(|post| post.body.contains(&summary));
            let status = self.hook.words()?.iter().any(|other| other.starts_with(&word));
            Ok((told && status).then_some(()))
        })?;
        wait_for(&format!("syslog to hear {sign}{key}"), LIMIT, || {
            let named = format!("key=\"{key}\"");
            let told = |line: &String| line.contains(&named) && line.contains(&summary);
            Ok(self.syslog.all().iter().any(told).then_some(()))
        })?;
        wait_for(&format!("a mail of {sign}{key}"), LIMIT, || {
            // Long lines are folded in mails.
            let plain = |text: &str| text.replace("=\r\n", "").replace("=3D", "=");
            let told = |mail: &String| plain(mail).contains(&summary);
            Ok(self.mails.all().iter().any(told).then_some(()))
        })
    }

    /// What the command was told of an alert.
    fn summary(&self, on: bool, key: &str) -> Result<String> {
        let status = if on { "firing" } else { "resolved" };
        for line in fs::read_to_string(&self.command)?.lines() {
            let told: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let mut alerts = told["alerts"].as_array().context("alerts")?.iter();
            if let Some(found) = alerts.find(|one| one["key"] == key && one["status"] == status) {
                return Ok(found["summary"].as_str().context("a summary")?.to_owned());
            }
        }
        anyhow::bail!("the command was not told of {key}")
    }
}

/// How many relays there are, and hosts behind each.
fn shape() -> Result<(usize, usize)> {
    let Ok(text) = env::var("BARID_OUTAGE") else { return Ok((4, 4)) };
    let parsed = text.split_once('x').and_then(|(r, h)| Some((r.parse().ok()?, h.parse().ok()?)));
    let (relays, hosts) = parsed.with_context(|| format!("BARID_OUTAGE={text}: not like 20x50"))?;
    ensure!(relays >= 4 && hosts >= 1, "BARID_OUTAGE={text}: 4x1 at least");
    Ok((relays, hosts))
}

/// A fleet with a crowd behind its relays, the second of which has a line that can fail. Behind the
/// third there are two real hosts besides.
struct Day {
    fleet: Fleet,
    line: UdpLink,
    _crowd: Crowd,
    nodes: u64,
}

fn begin(relays: usize, hosts: usize, channels: [&str; 3]) -> Result<Day> {
    let beat = if relays * hosts > QUICK { 2_000 } else { 500 };
    let pace = format!("beat_interval_ms = {beat}\nredial_base_ms = 200\nredial_cap_ms = 2000\n");
    let name = |no: usize| format!("site{}-host{}", 1 + no / hosts, 1 + no % hosts);
    let everybody: Vec<_> =
        (0..relays * hosts).map(|no| (name(no), format!("site{}", 1 + no / hosts))).collect();
    let mut roll = None;
    let prepared = Fleet::prepared(binary()?, &pace, &[], |state| {
        roll = Some(Roll::found(state, &everybody)?);
        Ok(())
    });
    let (mut fleet, roll) = (prepared?, roll.context("the state was prepared")?);
    give(&fleet, "controller", channels[0])?;
    give(&fleet, "site1-relay", channels[1])?;
    give(&fleet, "site3-speaks", channels[2])?;

    let controller = fleet.listen("controller")?.parse().context("where it listens")?;
    let any = "127.0.0.1:0".parse().context("an address")?;
    let line = UdpLink::start(any, controller, &Profile::named("lan")?, 7)?;
    let mut sites = Vec::new();
    let mut members = roll.members.into_iter();
    for no in 1..=relays {
        let relay = format!("site{no}-relay");
        let way = if no == 2 { line.address() } else { controller };
        fleet.route("controller", way.to_string());
        fleet.add(&Spec::new("relay", &relay, "controller").at(&format!("site{no}")))?;
        let listen = fleet.listen(&relay)?.parse().context("where a relay listens")?;
        sites.push((listen, members.by_ref().take(hosts).collect()));
    }
    fleet.wait_up(relays as u64)?;
    for host in ["site3-dies", "site3-speaks"] {
        fleet.add(&Spec::new("host", host, "site3-relay").at("site3"))?;
    }
    let answer = |_: &str, _: &protos::OrderBody| (State::Ok, Answer::default());
    let crowd = Crowd::start(sites, Duration::from_millis(beat), Arc::new(answer))?;
    let nodes = (relays + relays * hosts + 2) as u64;
    fleet.wait_up(nodes)?;
    Ok(Day { fleet, line, _crowd: crowd, nodes })
}

#[test]
fn on_a_bad_day_what_is_told_is_what_is_true() -> Result<()> {
    let (relays, hosts) = shape()?;
    let dir = tempfile::tempdir()?;
    let (root, at_root) = Witness::start(dir.path(), "root")?;
    let (relay, at_relay) = Witness::start(dir.path(), "relay")?;
    let (host, at_host) = Witness::start(dir.path(), "host")?;
    let hangs = Hook::start(true)?;
    let slow = format!(
        "channels.hang = {{ timeout_s = 2, webhook = {{ url = \"http://{}/\" }} }}\n",
        hangs.addr
    );
    let mut day = begin(relays, hosts, [&(at_root + &slow), &at_relay, &at_host])?;
    wait_channels(&day.fleet, 5)?;
    wait_alerts(&day.fleet, &[])?;

    // A host dies, a relay does, and the line of another: each is one alert, and the channel that
    // hangs is one as well.
    day.fleet.kill("site3-dies")?;
    day.fleet.kill("site4-relay")?;
    day.line.link().switch(false);
    let truth = [
        "channel-failing/hang",
        "host-lost/site3-dies",
        "relay-lost/site2-relay",
        "relay-lost/site4-relay",
    ];
    let alerts = wait_alerts(&day.fleet, &truth)?;
    for lost in ["site2-relay", "site4-relay"] {
        let key = format!("relay-lost/{lost}");
        let found = alerts.iter().find(|alert| alert["key"] == *key).context("it is on")?;
        let behind = format!("relay {lost} lost, {hosts} nodes unknown behind it");
        let summary = found["summary"].as_str().context("a summary")?;
        assert!(summary.starts_with(&behind), "{summary}");
    }
    for key in &truth[1..] {
        root.hears(true, key)?;
    }
    // All is well again, and so it is told; who hung is told everything.
    day.fleet.restart("site4-relay")?;
    day.fleet.restart("site3-dies")?;
    day.line.link().switch(true);
    hangs.recover();
    day.fleet.wait_up(day.nodes)?;
    wait_alerts(&day.fleet, &[])?;
    for key in &truth[1..] {
        root.hears(false, key)?;
    }
    wait_for("the channel that hung to be told", LIMIT, || {
        let words = hangs.words()?;
        Ok(words.iter().any(|word| word == "+relay-lost/site4-relay").then_some(()))
    })?;
    let told = root.hook.words()?;
    let is_of_crowd =
        |word: &&String| word.split_once('/').is_some_and(|(_, of)| of.contains("-host"));
    let others: Vec<_> = told.iter().filter(is_of_crowd).collect();
    assert!(others.is_empty(), "of who is behind a cause nothing is told: {others:?}");

    // The controller dies: a relay says so for its site, and a host where the relay is mute.
    day.fleet.kill("controller")?;
    relay.hears(true, "controller-silent/site1")?;
    host.hears(true, "controller-silent/site3")?;
    day.fleet.restart("controller")?;
    relay.hears(false, "controller-silent/site1")?;
    host.hears(false, "controller-silent/site3")?;
    day.fleet.wait_up(day.nodes)?;
    wait_alerts(&day.fleet, &[])?;
    for (who, witness) in [("relay", &relay), ("host", &host)] {
        let words = witness.hook.words()?;
        let silent = |word: &String| word.contains("controller-silent");
        assert!(words.iter().all(silent), "the {who} says nothing else: {words:?}");
    }
    Ok(())
}
