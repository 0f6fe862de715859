//! Distributions that go on beside each other, with an edit between their plans.

use std::fs;

use anyhow::{Context, Result, ensure};
use tests::{LIMIT, noise, show, wait_for};

use crate::dist;

/// So much that packing it takes longer than an edit and an order of what was edited.
const LARGE: usize = 24 << 20;

#[test]
fn what_was_planned_before_an_edit_never_comes_after_it() -> Result<()> {
    let site = dist::site()?;
    site.write("motd", "one\n")?;
    fs::write(site.fleet.path().join("large"), noise(1, LARGE))?;
    let motd = "common.adm:/etc/motd";
    site.done(&format!("-o install ./motd {motd} hour"))?;
    site.done("-o install ./large common.adm:/srv/large hour")?;
    site.write("motd", "two\n")?;
    site.wait_heard("h1")?;

    // It is planned with the first revision, and still packed when there is a second.
    let first = site.command(&["-o", "dist", "--wait", "hour"]).spawn()?;
    wait_for("the first to be made", LIMIT, || {
        let all = site.fleet.json(&["file", "schedule", "--json"])?;
        let mut all = all.as_array().context("frequencies")?.iter();
        Ok(all.any(|one| one["frequency"] == "hour" && one["running"] == true).then_some(()))
    })?;
    site.done(&format!("-o cp ./motd {motd}"))?;
    site.gets("h1", &["request", "/etc/motd"])?;
    assert_eq!(site.at("h1", "/etc/motd").as_deref(), Some("two\n"));
    let first = first.wait_with_output()?;
    ensure!(first.status.success(), "{}", show(&first.stderr));
    assert_eq!(site.at("h1", "/etc/motd").as_deref(), Some("two\n"), "the older came later");

    site.done("-o dist --wait hour")?;
    for host in ["h1", "h2", "h3", "h4"] {
        assert_eq!(site.at(host, "/etc/motd").as_deref(), Some("two\n"), "{host}");
        assert_eq!(fs::metadata(site.fleet.at(host, "/srv/large"))?.len(), LARGE as u64, "{host}");
    }
    site.prints("-o status", "")
}
