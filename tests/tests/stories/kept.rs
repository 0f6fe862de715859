//! What nodes keep of the bus: the newest message of each subject, streams and queues, on disk and
//! within their limits.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{Fleet, LIMIT, show, wait_for};

use crate::bus::{Subscriber, bus, publish};

/// Lets a node keep something.
pub(crate) fn keep(fleet: &Fleet, node: &str, lines: &str) -> Result<()> {
    Ok(fs::write(fleet.state(node).join("bus.toml"), format!("[[keep]]\n{lines}"))?)
}

/// Publishes a message that is on disk somewhere when this is over, as soon as somebody keeps it.
pub(crate) fn put(fleet: &Fleet, node: &str, subject: &str, data: &str) -> Result<Value> {
    wait_for(&format!("{subject} to be kept"), LIMIT, || {
        let output = bus(fleet, node, &["pub", "--kept", subject, data])?.output()?;
        if !output.status.success() {
            let said = show(&output.stderr);
            ensure!(said.contains("keeps") || said.contains("is kept"), "{said}");
            return Ok(None);
        }
        let mut heard: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(heard["kept"]["seq"].as_u64() > Some(0), "{heard}");
        Ok(Some(heard["kept"].take()))
    })
}

/// The lines of a command at the bus that ends with this code.
fn lines(mut command: Command, code: i32) -> Result<Vec<Value>> {
    let Output { status, stdout, stderr } = command.output()?;
    ensure!(status.code() == Some(code), "{status}: {} {}", show(&stdout), show(&stderr));
    show(&stdout).lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// What messages among some lines say.
fn said(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["message"]["data"].as_str()).collect()
}

fn refused(mut command: Command, code: i32, why: &str) -> Result<()> {
    let Output { status, stderr, .. } = command.output()?;
    let text = show(&stderr);
    ensure!(status.code() == Some(code) && text.contains(why), "{status}: {text}");
    Ok(())
}

#[test]
fn whoever_comes_late_hears_the_newest_of_each_subject_first() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    let states = "name = \"states\"\nsubject = \"app.*.state\"\npolicy = \"latest\"\n";
    keep(&fleet, "site1-relay", states)?;
    put(&fleet, "site1-host1", "app.web.state", "starting")?;
    put(&fleet, "site1-host2", "app.db.state", "up")?;
    let place = put(&fleet, "site1-host1", "app.web.state", "up since noon")?;
    assert_eq!(place["name"], "states", "{place}");

    // Also at a relay that was killed, and while its site is cut off.
    fleet.kill("controller")?;
    fleet.kill("site1-relay")?;
    fleet.restart("site1-relay")?;
    let by = place["by"].to_string();
    wait_for("the relay to be back", LIMIT, || {
        let output = bus(&fleet, "site1-host2", &["kept", "--at", &by])?.output()?;
        Ok(output.status.success().then_some(()))
    })?;
    let args = ["sub", "--last", "app.*.state", "--count", "2"];
    let mut late = lines(bus(&fleet, "site1-host2", &args)?, 0)?.split_off(1);
    late.sort_by_key(|line| line["message"]["subject"].to_string());
    assert_eq!(said(&late)[0], "up", "{late:#?}");
    let web = &late[1]["message"];
    assert_eq!((&web["node"], &web["kept"]["name"]), (&"site1-host1".into(), &"states".into()));
    assert_eq!(web["kept"]["by"], place["by"], "the relay says so");
    fleet.restart("controller")?;

    // Behind it comes what is published from then on, which has no place.
    let args = ["sub", "--last", "app.*.state"];
    let mut follows = Subscriber::of(bus(&fleet, "site1-relay", &args)?)?;
    assert!(follows.message()?["kept"].is_object() && follows.message()?["kept"].is_object());
    assert!(publish(&fleet, "site1-host2", "app.db.state", "down")?);
    let live = follows.message()?;
    assert!(live["data"] == "down" && live["kept"].is_null(), "{live}");
    // What the nodes say to each other is not for programs.
    refused(bus(&fleet, "site1-host1", &["sub", "_keep.>"])?, 2, "for the nodes themselves")?;
    refused(bus(&fleet, "site1-host1", &["pub", "_keep.who", "x"])?, 2, "for the nodes")?;
    let mut all = Subscriber::new(&fleet, "site1-relay", &[">"])?;
    put(&fleet, "site1-host1", "app.web.state", "once more")?;
    assert_eq!(all.message()?["data"], "once more");
    assert!(publish(&fleet, "site1-relay", "other", "last")?);
    assert_eq!(all.message()?["data"], "last", "and nothing of the questions");
    Ok(())
}

#[test]
fn a_stream_is_read_from_where_its_reader_was_and_what_he_missed_is_told() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    let audit = "name = \"audit\"\nsubject = \"audit.>\"\npolicy = \"stream\"\ncount = 6\n";
    keep(&fleet, "controller", audit)?;
    let host = "site1-host1";
    for n in 1..=5 {
        let place = put(&fleet, host, "audit.login", &n.to_string())?;
        assert_eq!(place["seq"], n, "one after the other: {place}");
    }
    let read = |args: &[&str]| bus(&fleet, host, &[&["read", "audit.>"], args].concat());
    let first = lines(read(&["--as", "indexer", "--count", "3"])?, 0)?;
    assert_eq!(said(&first), ["1", "2", "3"], "{first:#?}");
    let peek = lines(read(&["--as", "indexer", "--peek", "--count", "1"])?, 0)?;
    assert_eq!(said(&peek), ["4"], "it is not acknowledged");
    drop(peek);
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    fleet.wait_up(2)?;
    put(&fleet, host, "audit.logout", "6")?;
    let read = |args: &[&str]| bus(&fleet, host, &[&["read", "audit.>"], args].concat());
    let next = lines(read(&["--as", "indexer", "--count", "3"])?, 0)?;
    assert_eq!(said(&next), ["4", "5", "6"], "{next:#?}");
    // He is the only one who reads, and has all: what goes now is no loss.
    for n in 7..=12 {
        put(&fleet, host, "audit.login", &n.to_string())?;
    }
    let kept = |fleet: &Fleet| -> Result<Value> {
        let mut all = lines(bus(fleet, "controller", &["kept"])?, 0)?;
        Ok(all.first_mut().context("a line")?["kept"][0].take())
    };
    let now = kept(&fleet)?;
    assert_eq!((&now["messages"], &now["dropped"]), (&6.into(), &0.into()), "{now:#}");
    // Two more, which he has not had yet, push out two of those.
    put(&fleet, host, "audit.login", "13")?;
    put(&fleet, host, "audit.logout", "14")?;
    let late = lines(read(&["--as", "indexer", "--count", "6"])?, 0)?;
    let missed: Vec<_> = late.iter().filter_map(|line| line["missed"].as_u64()).collect();
    assert_eq!((missed, said(&late)[0]), (vec![2], "9"), "{late:#?}");
    let now = kept(&fleet)?;
    assert_eq!((&now["dropped"], &now["lost"]), (&2.into(), &json!({"limit": 2})), "{now:#}");
    let event = wait_for("the loss to be an event", LIMIT, || {
        let output = fleet.barid(&["events", "--json", "--since", "1h", "bus.dropped"])?;
        let lines = show(&output.stdout);
        let event = lines.lines().next().map(serde_json::from_str::<Value>).transpose()?;
        Ok(event.filter(|event| event["count"] == 2))
    })?;
    assert_eq!(event["severity"], "warning", "{event:#}");
    assert!(
        event["line"].as_str().is_some_and(|line| line.contains("barid bus kept")),
        "{event:#}"
    );
    // Who is new begins where he wants, and hears of his own subjects alone.
    let of_one = ["read", "audit.logout", "--as", "other", "--count", "1"];
    let other = lines(bus(&fleet, host, &of_one)?, 0)?;
    assert_eq!(said(&other), ["14"], "{other:#?}");
    let mut follows = Subscriber::of(read(&["--as", "third", "--new"])?)?;
    put(&fleet, host, "audit.login", "15")?;
    assert_eq!(follows.message()?["data"], "15");
    drop(follows);
    lines(bus(&fleet, host, &["forget", "audit.>", "--as", "indexer"])?, 0)?;
    refused(bus(&fleet, host, &["forget", "audit.>", "--as", "indexer"])?, 1, "no reader")?;
    refused(bus(&fleet, host, &["read", "other.>", "--as", "x"])?, 1, "keeps a stream of other")?;
    refused(bus(&fleet, host, &["pub", "--kept", "other.x", "y"])?, 1, "keeps messages on other")?;
    refused(
        bus(&fleet, host, &["pub", "--kept", "audit.x", &"x".repeat(61_441)])?,
        2,
        "61440 at most",
    )
}

#[test]
fn each_message_of_a_queue_is_for_one_and_what_he_does_not_do_for_the_next() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    let jobs = "name = \"jobs\"\nsubject = \"jobs.>\"\npolicy = \"queue\"\nlease_s = 3600\n\
                [[keep]]\nname = \"slow\"\nsubject = \"slow.>\"\npolicy = \"queue\"\nlease_s = 1\n";
    keep(&fleet, "site1-relay", jobs)?;
    for n in 1..=4 {
        put(&fleet, "controller", "jobs.thumbnail", &n.to_string())?;
    }
    let take = |fleet: &Fleet, host: &str, args: &[&str]| {
        bus(fleet, host, &[&["take", "jobs.>"], args].concat())
    };
    let one = lines(take(&fleet, "site1-host1", &["--count", "1", "--hold"])?, 0)?;
    let two = lines(take(&fleet, "site1-host2", &["--count", "1"])?, 0)?;
    assert_eq!((said(&one), said(&two)), (vec!["1"], vec!["2"]));
    let rest = lines(take(&fleet, "site1-host2", &["--wait", "200ms"])?, 0)?;
    assert_eq!(said(&rest), ["3", "4"], "what somebody has is not for others");
    let none = take(&fleet, "site1-host2", &["--wait", "200ms", "--count", "1"])?;
    assert!(lines(none, 3)?.is_empty());
    // One who waits gets what comes, wherever it is published.
    let mut waits = take(&fleet, "site1-host2", &["--count", "1"])?;
    let waits = waits.stdout(std::process::Stdio::piped()).spawn()?;
    put(&fleet, "site1-host1", "jobs.thumbnail", "5")?;
    let output = waits.wait_with_output()?;
    assert!(output.status.success() && show(&output.stdout).contains("\"data\":\"5\""));

    // Whoever has one does it once; the relay forgets who has what, and no message.
    let place = one[0]["message"]["kept"].clone();
    let done = |fleet: &Fleet| -> Result<Command> {
        let token = place["token"].as_str().context("a token")?;
        let (seq, by) = (place["seq"].to_string(), place["by"].to_string());
        bus(fleet, "site1-host1", &["done", "jobs.>", &seq, token, "--at", &by])
    };
    fleet.kill("site1-relay")?;
    fleet.restart("site1-relay")?;
    let again = wait_for("what was not done", LIMIT, || {
        let output = take(&fleet, "site1-host2", &["--count", "1", "--hold"])?.output()?;
        Ok(output.status.success().then_some(output.stdout))
    })?;
    let again: Value = serde_json::from_slice(&again)?;
    assert_eq!(again["message"]["data"], "1", "{again:#}");
    refused(done(&fleet)?, 1, "not yours any more")?;
    let place = again["message"]["kept"].clone();
    let token = place["token"].as_str().context("a token")?;
    let (seq, by) = (place["seq"].to_string(), place["by"].to_string());
    lines(bus(&fleet, "site1-host2", &["done", "jobs.>", &seq, token, "--at", &by])?, 0)?;
    let kept = lines(bus(&fleet, "site1-host1", &["kept", "--at", &by])?, 0)?;
    let jobs = &kept[0]["kept"][0];
    assert_eq!((&jobs["messages"], &jobs["next"]), (&0.into(), &6.into()), "{jobs:#}");

    // Who takes longer than he may has it no more.
    put(&fleet, "controller", "slow.job", "6")?;
    let hold = ["take", "slow.>", "--count", "1", "--hold"];
    for host in ["site1-host1", "site1-host2"] {
        let taken = lines(bus(&fleet, host, &hold)?, 0)?;
        assert_eq!(said(&taken), ["6"], "{host}");
    }
    Ok(())
}

#[test]
fn settings_that_are_wrong_are_named_and_what_was_kept_stays() -> Result<()> {
    let fleet = Fleet::new()?;
    let states = "name = \"states\"\nsubject = \"app.>\"\npolicy = \"latest\"\n";
    keep(&fleet, "controller", states)?;
    put(&fleet, "controller", "app.web", "up")?;
    keep(&fleet, "controller", &format!("{states}lease_s = 5\n"))?;
    let all = wait_for("the fault to be told", LIMIT, || {
        let all = lines(bus(&fleet, "controller", &["kept"])?, 0)?;
        Ok(all[0]["wrong"].is_string().then(|| all[0].clone()))
    })?;
    let wrong = all["wrong"].as_str().context("a text")?;
    assert!(wrong.contains("bus.toml: line 1: keep \"states\": lease_s is for"), "{wrong}");
    assert_eq!(all["kept"][0]["messages"], 1, "{all:#}");
    let mut late = Subscriber::of(bus(&fleet, "controller", &["sub", "--last", "app.>"])?)?;
    assert_eq!(late.message()?["data"], "up");
    Ok(())
}
