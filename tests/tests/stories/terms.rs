//! Pushes on terms: what is left alone, what is deleted and how much of it, and pushes that only
//! look.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tests::{Fleet, listing, sample_tree};

use crate::{answer, order};

const DEST: &str = "/srv/app";

fn push(fleet: &Fleet, source: &Path, more: &[&str]) -> Result<String> {
    let source = source.to_str().context("a plain path")?;
    let args = ["push", source, "--dest", DEST, "-a", "--async", "--json"];
    order(fleet, &[&args, more].concat())
}

#[test]
fn what_the_source_lacks_goes_within_limits_and_what_is_excluded_stays() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 100_000)?;
    fs::create_dir(source.join("cache"))?;
    fs::write(source.join("cache/of the source"), "not for hosts\n")?;
    let id = push(&fleet, &source, &["--exclude", "/cache/"])?;
    fleet.wait_states(&id, &[("ok", 2)])?;
    let there = fleet.at("site1-host1", DEST);
    assert!(!there.join("cache").exists());

    // The host has a cache of its own, and many files that nobody has pushed.
    fs::create_dir(there.join("cache"))?;
    fs::write(there.join("cache/own"), "mine\n")?;
    fs::create_dir(there.join("junk"))?;
    for n in 0..110 {
        fs::write(there.join(format!("junk/{n}")), "junk\n")?;
    }
    fs::remove_file(source.join("a/b/two.conf"))?;
    let id = push(&fleet, &source, &["--delete", "--exclude", "/cache/"])?;
    let detail = fleet.wait_states(&id, &[("ok", 1), ("failed", 1)])?;
    let refused = answer(&detail, "site1-host1")?["fault"].as_str().context("a fault")?;
    assert!(refused.contains("112 entries below /srv/app would be deleted, and 100"), "{refused}");
    assert!(there.join("a/b/two.conf").exists() && there.join("junk/0").exists());
    assert_eq!(answer(&detail, "site1-host2")?["deleted"], 1, "{detail:#}");

    // What was installed goes without the rest.
    let id = push(&fleet, &source, &["--delete=installed", "--exclude", "/cache/"])?;
    let detail = fleet.wait_states(&id, &[("ok", 2)])?;
    assert_eq!(answer(&detail, "site1-host1")?["deleted"], 1, "{detail:#}");
    assert!(!there.join("a/b/two.conf").exists() && there.join("junk/0").exists());

    let limit = ["--delete", "--max-delete", "111", "--exclude", "/cache/"];
    let id = push(&fleet, &source, &limit)?;
    let detail = fleet.wait_states(&id, &[("ok", 2)])?;
    assert_eq!(answer(&detail, "site1-host1")?["deleted"], 111, "{detail:#}");
    assert_eq!(fs::read_to_string(there.join("cache/own"))?, "mine\n");
    fs::remove_dir_all(there.join("cache"))?;
    fs::remove_dir_all(source.join("cache"))?;
    let mut lists = [listing(&there)?, listing(&source)?];
    lists.iter_mut().for_each(|list| drop(list.remove(Path::new(""))));
    assert_eq!(lists[0], lists[1]);
    Ok(())
}

#[test]
fn a_verification_tells_how_hosts_differ_and_changes_nothing() -> Result<()> {
    let fleet = Fleet::tree(1, 3)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 100_000)?;
    let id = push(&fleet, &source, &[])?;
    fleet.wait_states(&id, &[("ok", 3)])?;
    let text = source.to_str().context("a plain path")?;
    let verify = |more: &[&str]| {
        fleet.barid(&[&["push", text, "--dest", DEST, "-a", "--verify"], more].concat())
    };
    let output = verify(&["--delete"])?;
    let said = tests::show(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", tests::show(&output.stderr));
    assert!(said.contains("/srv/app: as it should be at 3 of 3 hosts\n"), "{said}");

    // Two hosts drift in the same way: their difference is told once.
    for host in ["site1-host1", "site1-host2"] {
        let there = fleet.at(host, DEST);
        fs::write(there.join("a/one.conf"), "changed by hand\n")?;
        fs::remove_file(there.join("link"))?;
        fs::write(there.join("own"), "x")?;
    }
    let before = listing(&fleet.at("site1-host1", DEST))?;
    let output = verify(&["--delete"])?;
    let said = tests::show(&output.stdout);
    assert_eq!(output.status.code(), Some(10), "{said}{}", tests::show(&output.stderr));
    assert!(said.contains("site1-host[1-2] (2)\n"), "{said}");
    assert_eq!(said.matches("* a/one.conf: content\n").count(), 1, "{said}");
    assert!(said.contains("+ link\n- own\n"), "{said}");
    assert!(said.contains("as it should be at 1 of 3 hosts; at 2"), "{said}");
    assert!(!verify(&[])?.stdout.windows(5).any(|line| line == b"- own"));
    assert_eq!(listing(&fleet.at("site1-host1", DEST))?, before);

    // It was no push: the next one still knows what is there, and puts it right.
    let id = push(&fleet, &source, &["--delete"])?;
    let detail = fleet.wait_states(&id, &[("ok", 3)])?;
    assert_eq!(answer(&detail, "site1-host1")?["written"], 2, "{detail:#}");
    assert_eq!(answer(&detail, "site1-host1")?["deleted"], 1, "{detail:#}");
    assert_eq!(listing(&fleet.at("site1-host1", DEST))?, listing(&source)?);
    Ok(())
}

#[test]
fn terms_that_mean_nothing_are_refused_before_anything_is_read() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 1_000)?;
    let source = source.to_str().context("a plain path")?;
    for (options, words) in [
        (["--exclude", "[a", "--delete"], "the pattern \"[a\" cannot be read"),
        (["--delete", "--max-delete", "some"], "\"some\" is no number of entries"),
    ] {
        let output = fleet.barid(&[&["push", source, "-a"], &options[..]].concat())?;
        let said = tests::show(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{said}");
    }
    Ok(())
}

#[test]
fn a_plan_says_what_changes_for_whom_and_what_it_costs_and_a_budget_holds() -> Result<()> {
    let fleet = Fleet::tree(2, 1)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 200_000)?;
    let text = source.to_str().context("a plain path")?;
    let plan = |more: &[&str]| {
        fleet.json(&[&["push", text, "--dest", DEST, "-a", "--plan", "--json"], more].concat())
    };
    // Nothing is known yet: all of it would travel.
    let first = plan(&[])?;
    assert_eq!(first["push"]["steps"][0]["known"], false, "{first:#}");
    assert!(first["links"][0]["bytes"].as_u64() > Some(200_000), "{first:#}");

    let only = ["push", text, "--dest", DEST, "-w", "site1-host1", "--async", "--json"];
    fleet.wait_states(&order(&fleet, &only)?, &[("ok", 1)])?;
    fs::write(source.join("a/one.conf"), "one = 2\n")?;
    fs::remove_file(source.join("run.sh"))?;
    let second = plan(&[])?;
    let steps = second["push"]["steps"].as_array().context("steps")?;
    let of = |set: &str| steps.iter().find(|step| step["set"] == set).context("a step");
    let known = of("site1-host1")?;
    assert_eq!((&known["changed"], &known["removed"]), (&1.into(), &1.into()), "{second:#}");
    let changes: Vec<_> = known["changes"].as_array().into_iter().flatten().collect();
    assert!(changes.contains(&&"* a/one.conf".into()), "{changes:?}");
    assert!(known["pack_bytes"].as_u64() < Some(2_000), "{known:#}");
    assert_eq!(of("site2-host1")?["known"], false);
    let links = second["links"].as_array().context("links")?;
    let link = |via: &str| links.iter().find(|link| link["via"] == via).context("a link");
    assert!(link("site1-relay")?["bytes"].as_u64() < Some(5_000), "{second:#}");
    assert!(link("site2-relay")?["bytes"].as_u64() > Some(200_000), "{second:#}");
    assert!(!fleet.at("site2-host1", DEST).exists(), "a plan pushes nothing");

    let budget = ["push", text, "--dest", DEST, "-a", "--max-bytes-per-link", "100K"];
    let output = fleet.barid(&budget)?;
    let said = tests::show(&output.stderr);
    assert!(said.contains("would go over the link to site2-relay; 102400 may"), "{said}");
    assert!(!fleet.at("site2-host1", DEST).exists());
    let output =
        fleet.barid(&["push", text, "--dest", DEST, "-a", "--max-bytes-per-link", "1M"])?;
    assert!(output.status.success(), "{}", tests::show(&output.stderr));
    assert_eq!(listing(&fleet.at("site2-host1", DEST))?, listing(&source)?);
    Ok(())
}
