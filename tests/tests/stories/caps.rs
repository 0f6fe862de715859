//! How much content a link may carry: by calendar, by order, for one push; what is not counted; and
//! that it gives way where it is told to.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tests::{Fleet, LIMIT, Spec, listing, sample_tree, show, wait_for};

use crate::order;

const DEST: &str = "/srv/app";
/// Bits a second; and bytes.
const RATE: &str = "400k";
const BYTES: u64 = 50_000;
/// What a link may carry at once before the cap is felt: a saved 50 ms, and a piece.
const AT_ONCE: u64 = 10_000;

/// A relay whose calendar always allows 8 Mbit/s, with a host.
fn site() -> Result<Fleet> {
    let mut fleet = Fleet::new()?;
    fleet.add(
        &Spec::new("relay", "r1", "controller")
            .at("lyon")
            .with("yield = true\n[[cap]]\nrate = \"8M\"\n"),
    )?;
    fleet.add(&Spec::new("host", "web", "r1").at("lyon"))?;
    fleet.wait_up(2)?;
    Ok(fleet)
}

/// Content that the controller has sent down its only link.
fn sent(fleet: &Fleet) -> Result<u64> {
    let tree = fleet.json(&["tree", "--json"])?;
    tree["links"][0]["content_sent"].as_u64().context("a number of bytes")
}

/// Waits until the controller's link has this cap, as `barid tree` shows it.
fn wait_cap(fleet: &Fleet, cap: u64) -> Result<()> {
    wait_for(&format!("a cap of {cap} bit/s"), LIMIT, || {
        let tree = fleet.json(&["tree", "--json"])?;
        let up = tree["links"][0]["since_ms"].as_u64().is_some_and(|since| since > 0);
        let now = tree["links"][0]["cap"].as_u64().unwrap_or(0);
        Ok((up && now == cap).then_some(()))
    })
}

fn cap(fleet: &Fleet, args: &[&str]) -> Result<String> {
    let output = fleet.barid(&[&["tree", "cap"], args].concat())?;
    ensure!(output.status.success(), "{}", show(&output.stderr));
    Ok(show(&output.stdout))
}

/// Watches content go down until so much has, and that it never goes faster than the cap.
fn watch_cap(fleet: &Fleet, begun: Instant, from: u64, until: u64) -> Result<()> {
    wait_for("content to go down a capped link", LIMIT, || {
        let sent = sent(fleet)? - from;
        let most = begun.elapsed().as_secs_f64() * BYTES as f64 + AT_ONCE as f64;
        ensure!((sent as f64) < most, "{sent} bytes went where {most:.0} may");
        Ok((sent >= until).then_some(()))
    })
}

/// An operator caps a site while a push is under way to it, and lifts the cap again.
#[test]
fn a_cap_holds_at_once_over_restarts_and_is_lifted_live() -> Result<()> {
    let mut fleet = site()?;
    wait_cap(&fleet, 8_000_000)?;
    assert!(cap(&fleet, &["lyon"])?.contains("content at 8 Mbit/s at most, by its calendar"));
    let said = cap(&fleet, &["lyon", RATE])?;
    assert!(said.contains("content at 400 kbit/s at most, by order"), "{said}");
    wait_cap(&fleet, 400_000)?;
    let shown = show(&fleet.barid(&["tree"])?.stdout);
    // The parent's own congestion controller says so.
    assert!(shown.contains("cap 400 kbit/s  gives way"), "{shown}");
    fleet.kill("r1")?;
    fleet.restart("r1")?;
    wait_cap(&fleet, 400_000)?;

    let source = fleet.path().join("source");
    // With this cap it would take three minutes and more.
    sample_tree(&source, 10_000_000)?;
    let text = source.to_str().context("a plain path")?;
    let (begun, before) = (Instant::now(), sent(&fleet)?);
    let id = order(&fleet, &["push", text, "--dest", DEST, "-w", "web", "--async", "--json"])?;
    watch_cap(&fleet, begun, before, 150_000)?;
    // Orders do not wait behind it.
    let ran = fleet.barid(&["run", "-w", "web", "--", "true"])?;
    assert!(ran.status.success(), "{}", show(&ran.stderr));
    cap(&fleet, &["r1", "none", "--for", "1h"])?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    assert_eq!(listing(&fleet.at("web", DEST))?, listing(&source)?);
    wait_cap(&fleet, 0)?;
    cap(&fleet, &["lyon", "--clear"])?;
    wait_cap(&fleet, 8_000_000)
}

/// One push goes slowly, on links that would carry more; what comes beside it does not.
#[test]
fn one_push_may_be_slow_by_itself() -> Result<()> {
    let fleet = site()?;
    cap(&fleet, &["lyon", "none"])?;
    let source = fleet.path().join("source");
    sample_tree(&source, 300_000)?;
    let text = source.to_str().context("a plain path")?;
    let (begun, before) = (Instant::now(), sent(&fleet)?);
    let slow = ["push", text, "--dest", DEST, "-w", "web", "--rate", RATE, "--async", "--json"];
    let id = order(&fleet, &slow)?;
    watch_cap(&fleet, begun, before, 150_000)?;
    let other = fleet.path().join("other");
    sample_tree(&other, 200_000)?;
    let text = other.to_str().context("a plain path")?;
    std::fs::write(other.join("own"), "other")?;
    let pushed = fleet.barid(&["push", text, "--dest", "/srv/other", "-w", "web"])?;
    assert!(pushed.status.success(), "{}", show(&pushed.stderr));
    fleet.wait_states(&id, &[("ok", 1)])?;
    assert_eq!(listing(&fleet.at("web", DEST))?, listing(&source)?);
    Ok(())
}

#[test]
fn what_is_no_cap_is_said_and_changes_nothing() -> Result<()> {
    let fleet = site()?;
    wait_cap(&fleet, 8_000_000)?;
    let wrong = |args: &[&str], code, words: &str| -> Result<()> {
        let output = fleet.barid(args)?;
        let said = show(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        Ok(())
    };
    wrong(&["tree", "cap", "lyon", "2"], 2, "write bits a second as 500k, 2M")?;
    wrong(&["tree", "cap", "rome", "2M"], 2, "no node and no site rome")?;
    wrong(&["tree", "cap", "lyon", "--for", "2h"], 2, "RATE")?;
    wrong(&["push", "/etc/hostname", "-w", "web", "--rate", "slow"], 2, "is not a rate")?;
    let state = fleet.path().join("broken");
    std::fs::create_dir(&state)?;
    std::fs::write(state.join("node.toml"), "[[cap]]\ndays = \"someday\"\nrate = \"2M\"\n")?;
    let broken = ["node", "--state", state.to_str().context("a plain path")?];
    wrong(&broken, 2, "days \"someday\"")?;
    wait_cap(&fleet, 8_000_000)
}
