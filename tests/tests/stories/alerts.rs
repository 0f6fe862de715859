//! Alerts: one for each cause, told at the end that notices, by whichever way is left.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Fleet, LIMIT, Spec, show, wait_for};

use crate::witness::{Hook, mail_server, tcp_lines};

/// Everything soon, where beats come every 0.5 s.
pub(super) const SOON: &str = "
clear_s = 1
gather_s = 1
returning_s = 30
rules.host-lost.hold_s = 1
rules.relay-lost.hold_s = 1
rules.below-lost.hold_s = 1
rules.controller-silent.hold_s = 1
rules.parent-lost.hold_s = 1
rules.channel-failing.hold_s = 1
";

/// Gives a node channels; the controller takes them while it runs.
pub(super) fn give(fleet: &Fleet, node: &str, channels: &str) -> Result<()> {
    let state = fleet.state(node);
    fs::create_dir_all(&state)?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    Ok(fs::write(state.join("alerts.toml"), format!("{SOON}{channels}"))?)
}

pub(super) fn wait_channels(fleet: &Fleet, count: usize) -> Result<()> {
    wait_for("the channels to be there", LIMIT, || {
        let channels = fleet.json(&["alerts", "channels", "--json"])?;
        Ok((channels.as_array().context("channels")?.len() == count).then_some(()))
    })
}

/// Waits until exactly these alerts are on, by their keys, in their order.
pub(super) fn wait_alerts(fleet: &Fleet, keys: &[&str]) -> Result<Vec<Value>> {
    let mut last = Vec::new();
    let found = wait_for(&format!("the alerts {keys:?}"), LIMIT, || {
        let alerts = fleet.json(&["alerts", "--json"])?;
        last = alerts.as_array().context("alerts")?.clone();
        let mut on: Vec<_> = last.iter().filter_map(|alert| alert["key"].as_str()).collect();
        on.sort_unstable();
        Ok((on == keys).then(|| last.clone()))
    });
    found.with_context(|| format!("there are {last:#?}"))
}

/// The lines of a file channel, each alert as `+key` or `-key`.
pub(super) fn lines(path: &Path) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let message: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        for alert in message["alerts"].as_array().context("alerts")? {
            let sign = if alert["status"] == "firing" { '+' } else { '-' };
            words.push(format!("{sign}{}", alert["key"].as_str().context("a key")?));
        }
    }
    Ok(words)
}

pub(super) fn wait_word(path: &Path, word: &str) -> Result<Vec<String>> {
    wait_for(&format!("{word} in {}", path.display()), LIMIT, || {
        let words = lines(path)?;
        Ok(words.iter().any(|other| other == word).then_some(words))
    })
}

fn wait_hook(hook: &Hook, word: &str) -> Result<()> {
    wait_for(&format!("the webhook to hear {word}"), LIMIT, || {
        Ok(hook.words()?.iter().any(|other| other == word).then_some(()))
    })
}

#[test]
fn a_dead_relay_is_one_alert_and_what_is_told_outlives_the_controller() -> Result<()> {
    let mut fleet = Fleet::tree(2, 3)?;
    let hook = Hook::start(false)?;
    let secret = fleet.path().join("secret");
    fs::write(&secret, "key\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let text = secret.display();
    let url = format!("http://{}/alerts", hook.addr);
    let channel = format!("channels.ops.webhook = {{ url = \"{url}\", secret_file = \"{text}\" }}");
    give(&fleet, "controller", &channel)?;
    wait_channels(&fleet, 1)?;
    wait_alerts(&fleet, &[])?;

    fleet.kill("site1-relay")?;
    let alerts = wait_alerts(&fleet, &["relay-lost/site1-relay"])?;
    let summary = "relay site1-relay lost, 3 nodes unknown behind it: site1-host[1-3]";
    assert_eq!(alerts[0]["summary"], summary, "{alerts:#?}");
    wait_hook(&hook, "+relay-lost/site1-relay")?;
    let post = hook.posts.all()[0].clone();
    let json = post.json()?;
    assert_eq!((&json["version"], &json["status"]), (&"4".into(), &"firing".into()), "{json:#}");
    assert_eq!(json["groupLabels"]["site"], "site1", "{json:#}");
    assert_eq!(json["alerts"][0]["annotations"]["summary"], summary, "{json:#}");
    assert!(post.header("idempotency-key").is_some_and(|key| key.len() == 32), "{}", post.head);
    let signature = post.header("x-barid-signature").context("a signature")?;
    assert!(signature.starts_with("sha256=") && signature.len() == 7 + 64, "{signature}");

    // The controller dies while it is on: nothing is told twice, and the end is told.
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    wait_alerts(&fleet, &["relay-lost/site1-relay"])?;
    fleet.restart("site1-relay")?;
    wait_alerts(&fleet, &[])?;
    wait_hook(&hook, "-relay-lost/site1-relay")?;
    assert_eq!(hook.words()?, ["+relay-lost/site1-relay", "-relay-lost/site1-relay"]);

    // A host alone is a host's alert; somebody takes it, somebody else silences the next.
    fleet.kill("site2-host2")?;
    let alerts = wait_alerts(&fleet, &["host-lost/site2-host2"])?;
    wait_hook(&hook, "+host-lost/site2-host2")?;
    let id = alerts[0]["id"].as_str().context("an id")?;
    let acked = fleet.json(&["alerts", "ack", &id[..4], "--note", "on it", "--json"])?;
    assert_eq!(acked["note"], "on it", "{acked:#}");
    let user = show(&std::process::Command::new("id").arg("-un").output()?.stdout);
    assert!(acked["acked_by"].as_str().is_some_and(|by| by.contains(user.trim())), "{acked:#}");
    let shown = show(&fleet.barid(&["alerts", "show", id])?.stdout);
    assert!(shown.contains("look at the host itself"), "{shown}");
    let silence = ["alerts", "silence", "-w", "site2-host3", "--for", "1h", "--reason", "works"];
    assert!(fleet.barid(&silence)?.status.success());
    fleet.kill("site2-host3")?;
    let alerts = wait_alerts(&fleet, &["host-lost/site2-host2", "host-lost/site2-host3"])?;
    assert!(alerts[1]["silenced_by"].is_string() || alerts[0]["silenced_by"].is_string());
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    let silences = fleet.json(&["alerts", "silences", "--json"])?;
    assert_eq!(silences[0]["reason"], "works", "{silences:#}");
    fleet.restart("site2-host2")?;
    fleet.restart("site2-host3")?;
    wait_alerts(&fleet, &[])?;
    wait_hook(&hook, "-host-lost/site2-host2")?;
    let words = hook.words()?;
    assert_eq!(words[2..], ["+host-lost/site2-host2", "-host-lost/site2-host2"], "{words:?}");
    Ok(())
}

#[test]
fn who_is_cut_off_says_so_himself_and_once_for_each_site() -> Result<()> {
    let mut fleet = Fleet::new()?;
    let out = |name: &str| fleet.path().join(format!("{name}.alerts"));
    let (by_relay, by_command, by_host) = (out("relay"), out("command"), out("host"));
    let file = |path: &Path| format!("channels.file.file = {{ path = \"{}\" }}\n", path.display());
    let argv = format!("['/bin/sh', '-c', 'cat >> {0}; echo >> {0}']", by_command.display());
    let command = format!("channels.command.command = {{ argv = {argv} }}\n");
    give(&fleet, "relay", &(file(&by_relay) + &command))?;
    fleet.add(&Spec::new("relay", "relay", "controller").at("lyon"))?;
    give(&fleet, "host", &file(&by_host))?;
    fleet.add(&Spec::new("host", "host", "relay").at("lyon"))?;
    fleet.wait_up(2)?;

    fleet.kill("controller")?;
    wait_word(&by_relay, "+controller-silent/lyon")?;
    wait_word(&by_command, "+controller-silent/lyon")?;
    fleet.kill("relay")?;
    let words = wait_word(&by_host, "+parent-lost/host")?;
    assert!(!words.iter().any(|word| word.contains("controller-silent")), "{words:?}");

    fleet.restart("relay")?;
    wait_word(&by_host, "-parent-lost/host")?;
    fleet.restart("controller")?;
    // The relay was killed meanwhile: something may be told twice, but the end is told by both.
    wait_word(&by_relay, "-controller-silent/lyon")?;
    wait_word(&by_command, "-controller-silent/lyon")?;
    fleet.wait_up(2)?;
    let words = lines(&by_host)?;
    assert!(!words.iter().any(|word| word.contains("controller-silent")), "{words:?}");

    // A host whose relay has no channels speaks for itself.
    fs::remove_file(fleet.state("relay").join("alerts.toml"))?;
    fleet.kill("relay")?;
    fleet.restart("relay")?;
    fleet.wait_up(2)?;
    fleet.kill("controller")?;
    wait_word(&by_host, "+controller-silent/lyon")?;

    // Its channels are tried where it is, with nobody else there.
    let state = fleet.state("host");
    let state = state.to_str().context("a path")?;
    let output = fleet.barid(&["alerts", "test", "file", "--state", state])?;
    assert!(output.status.success(), "{}", show(&output.stderr));
    wait_word(&by_host, "+barid-test")?;
    let channels = fleet.json(&["alerts", "channels", "--state", state, "--json"])?;
    assert_eq!((&channels[0]["name"], &channels[0]["kind"]), (&"file".into(), &"file".into()));
    Ok(())
}

#[test]
fn a_channel_that_hangs_hurts_no_other_and_gets_everything_later() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    let hook = Hook::start(true)?;
    let (mail_addr, mails) = mail_server()?;
    let (tcp_addr, tcp) = tcp_lines()?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    let unix_path = fleet.path().join("log");
    let unix = UnixDatagram::bind(&unix_path)?;
    let journal_path = fleet.path().join("journal");
    let journal = UnixDatagram::bind(&journal_path)?;
    udp.set_read_timeout(Some(LIMIT))?;
    unix.set_read_timeout(Some(LIMIT))?;
    journal.set_read_timeout(Some(LIMIT))?;
    let (url, port) = (format!("http://{}/", hook.addr), mail_addr.port());
    let (unix_text, journal_text) = (unix_path.display(), journal_path.display());
    let channels = format!(
        "channels.hang = {{ timeout_s = 2, webhook = {{ url = \"{url}\" }} }}\n\
         channels.mail.mail = {{ server = \"127.0.0.1\", port = {port}, tls = \"none\", \
         from = \"barid@example.com\", to = [\"ops@example.com\"] }}\n\
         channels.tcp.syslog = {{ tcp = \"{tcp_addr}\" }}\n\
         channels.udp.syslog = {{ udp = \"{}\" }}\n\
         channels.unix.syslog = {{ unix = \"{unix_text}\" }}\n\
         channels.journal.journald = {{ path = \"{journal_text}\" }}\n",
        udp.local_addr()?
    );
    give(&fleet, "controller", &channels)?;
    wait_channels(&fleet, 6)?;
    fleet.kill("site1-host1")?;

    let mut buffer = [0; 4096];
    let summary = "host site1-host1 lost, below site1-relay";
    let mut next = |read: &mut dyn FnMut(&mut [u8]) -> std::io::Result<usize>| -> Result<String> {
        let len = read(&mut buffer)?;
        Ok(show(&buffer[..len]))
    };
    for line in [next(&mut |b| udp.recv(b))?, next(&mut |b| unix.recv(b))?] {
        assert!(line.starts_with("<28>1 ") && line.ends_with(summary), "{line}");
        assert!(line.contains("key=\"host-lost/site1-host1\""), "{line}");
    }
    let fields = next(&mut |b| journal.recv(b))?;
    assert!(fields.contains(&format!("MESSAGE={summary}\n")), "{fields}");
    let mail = wait_for("a mail", LIMIT, || Ok(mails.all().first().cloned()))?;
    assert!(mail.contains(&format!("Subject: [barid] site1: {summary}")), "{mail}");
    assert!(mail.contains("References: <") && mail.contains("To: ops@example.com"), "{mail}");
    let line = wait_for("a line by TCP", LIMIT, || Ok(tcp.all().first().cloned()))?;
    let (length, rest) = line.split_once(' ').context("a counted line")?;
    assert_eq!(length.parse::<usize>()?, rest.len(), "{line}");

    // That it hangs is an alert itself, told by the others; what waits outlives a kill.
    let keys = ["channel-failing/hang", "host-lost/site1-host1"];
    wait_alerts(&fleet, &keys)?;
    wait_for("the other channels to tell of it", LIMIT, || {
        let told = mails.all().iter().any(|mail| mail.contains("channel hang takes no alerts"));
        Ok(told.then_some(()))
    })?;
    let output = fleet.barid(&["alerts", "test", "hang"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(show(&output.stderr).contains("no answer within 2 s"), "{}", show(&output.stderr));
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    assert!(hook.posts.all().is_empty());
    hook.recover();
    wait_hook(&hook, "+host-lost/site1-host1")?;
    wait_alerts(&fleet, &["host-lost/site1-host1"])?;
    let words = hook.words()?;
    assert!(!words.iter().any(|word| word.contains("channel-failing")), "{words:?}");
    Ok(())
}

#[test]
fn wrong_settings_are_named_and_the_old_ones_stay() -> Result<()> {
    let fleet = Fleet::new()?;
    let path = fleet.path().join("out");
    let channel = format!("channels.out.file = {{ path = \"{}\" }}\n", path.display());
    give(&fleet, "controller", &channel)?;
    wait_channels(&fleet, 1)?;
    give(&fleet, "controller", &format!("{channel}rules.host-gone.off = true\n"))?;
    let alerts = wait_alerts(&fleet, &["alerts-config/alerts.toml"])?;
    let summary = alerts[0]["summary"].as_str().context("a summary")?;
    assert!(summary.contains("rules.host-gone: no such kind of alert"), "{summary}");
    wait_word(&path, "+alerts-config/alerts.toml")?;
    give(&fleet, "controller", &channel)?;
    wait_alerts(&fleet, &[])?;
    wait_word(&path, "-alerts-config/alerts.toml")?;
    let output = fleet.barid(&["alerts", "test", "nobody"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(show(&output.stderr).contains("no channel nobody"), "{}", show(&output.stderr));
    let output = fleet.barid(&["alerts", "silence", "--for", "1h", "--reason", "x"])?;
    assert_eq!(output.status.code(), Some(2), "{}", show(&output.stderr));
    Ok(())
}

#[test]
fn a_sign_of_life_goes_out_as_long_as_the_controller_lives() -> Result<()> {
    let mut fleet = Fleet::new()?;
    let hook = Hook::start(false)?;
    let url = format!("http://{}/", hook.addr);
    let channel = format!(
        "channels.life.webhook = {{ url = \"{url}\" }}\n\
         deadman = {{ channel = \"life\", every_s = 1 }}\n"
    );
    give(&fleet, "controller", &channel)?;
    let alive = || Ok::<_, anyhow::Error>(hook.words()?.len());
    wait_for("three signs of life", LIMIT, || Ok((alive()? >= 3).then_some(())))?;
    fleet.kill("controller")?;
    let before = alive()?;
    fleet.restart("controller")?;
    wait_for("more signs of life", LIMIT, || Ok((alive()? > before + 1).then_some(())))?;
    Ok(())
}

#[test]
fn what_fires_and_what_is_over_are_events_and_in_no_report() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    // Nobody listens there, and nobody to hosts: what is not told is news to who comes later.
    let closed = "[channels.ops]\nkinds = [\"relay-lost\"]\n\
                  webhook = { url = \"http://127.0.0.1:9/\" }\n";
    give(&fleet, "controller", closed)?;
    wait_channels(&fleet, 1)?;
    fleet.kill("site1-host1")?;
    let event = found(&fleet, "alert.firing", "host-lost: host site1-host1 lost")?;
    assert_eq!(
        (&event["severity"], &event["class"]),
        (&"warning".into(), &"down".into()),
        "{event:#}"
    );
    let alerts = wait_alerts(&fleet, &["host-lost/site1-host1"])?;
    assert_eq!(alerts[0]["told_ms"], 0, "no channel takes it: {alerts:#?}");
    let heard = fleet.path().join("heard");
    let more = format!("{closed}[channels.log]\nfile = {{ path = \"{}\" }}\n", heard.display());
    give(&fleet, "controller", &more)?;
    wait_word(&heard, "+host-lost/site1-host1")?;
    fleet.kill("site1-relay")?;
    found(&fleet, "alert.firing", "relay-lost")?;
    found(&fleet, "alert.channel-failed", "channel ops takes no alerts")?;
    fleet.restart("site1-relay")?;
    fleet.restart("site1-host1")?;
    found(&fleet, "alert.resolved", "relay-lost")?;
    found(&fleet, "alert.resolved", "host-lost")?;
    let report = fleet.json(&["report", "errors", "--json"])?;
    assert!(!report.to_string().contains("host-lost:"), "{report:#}");
    Ok(())
}

/// Waits for an event of this subject with such a line.
fn found(fleet: &Fleet, subject: &str, like: &str) -> Result<Value> {
    wait_for(&format!("{subject}: {like}"), LIMIT, || {
        let mut events = fleet_events(fleet, subject)?.into_iter();
        Ok(events.find(|event| event["line"].as_str().is_some_and(|line| line.contains(like))))
    })
}

fn fleet_events(fleet: &Fleet, subject: &str) -> Result<Vec<Value>> {
    let output = fleet.barid(&["events", "--json", "--since", "1h", subject])?;
    let lines = show(&output.stdout);
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
