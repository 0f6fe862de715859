//! Pushes: the tree at every host is the tree at the source, and each byte crosses a link once.

use std::fs;

use anyhow::{Context, Result};
use tests::{Fleet, listing, sample_tree};

use crate::{answer, order};

const DEST: &str = "/srv/app";

fn push(fleet: &Fleet, source: &str, more: &[&str]) -> Result<String> {
    let args = ["push", source, "--dest", DEST, "--async", "--json"];
    order(fleet, &[&args, more].concat())
}

fn content_sent(fleet: &Fleet) -> Result<u64> {
    let tree = fleet.json(&["tree", "--json"])?;
    let text = tree.to_string();
    // However the document is laid out, each of the controller's links has one such field.
    let fields = text.split("\"content_sent\":").skip(1);
    let value = |field: &str| {
        let digits = field.find(|c: char| !c.is_ascii_digit()).unwrap_or(field.len());
        field[..digits].parse::<u64>().context("a number")
    };
    fields.map(value).sum()
}

#[test]
fn trees_are_equal_and_a_second_push_changes_nothing() -> Result<()> {
    let fleet = Fleet::tree(2, 3)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 3_000_000)?;
    let text = source.to_str().context("a plain path")?;
    let hosts = ["site1-host1", "site1-host3", "site2-host2"];

    let id = push(&fleet, text, &["-a"])?;
    fleet.wait_states(&id, &[("ok", 6)])?;
    for host in hosts {
        assert_eq!(listing(&fleet.at(host, DEST))?, listing(&source)?, "{host}");
    }
    // Six hosts behind two links: the content crossed each of them once.
    let first = content_sent(&fleet)?;
    assert!(first > 2 * 3_000_000 && first < 2 * 3_200_000, "{first}");

    let id = push(&fleet, text, &["-a"])?;
    let detail = fleet.wait_states(&id, &[("ok", 6)])?;
    for host in hosts {
        assert_eq!(answer(&detail, host)?["written"], 0, "{detail:#}");
    }

    fs::write(source.join("a/one.conf"), "one = 2\n")?;
    let id = push(&fleet, text, &["-a"])?;
    let detail = fleet.wait_states(&id, &[("ok", 6)])?;
    assert_eq!(answer(&detail, hosts[0])?["written"], 1, "{detail:#}");
    for host in hosts {
        assert_eq!(listing(&fleet.at(host, DEST))?, listing(&source)?, "{host}");
    }
    // One small file travels inside the order.
    assert_eq!(content_sent(&fleet)?, first);
    Ok(())
}

#[test]
fn a_host_that_was_changed_by_hand_is_put_right() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 300_000)?;
    let text = source.to_str().context("a plain path")?;
    let id = push(&fleet, text, &["-a"])?;
    fleet.wait_states(&id, &[("ok", 2)])?;

    let there = fleet.at("site1-host1", DEST);
    fs::write(there.join("big.bin"), "not what it was")?;
    fs::remove_file(there.join("a/b/two.conf"))?;
    fs::write(source.join("new"), "new\n")?;
    let id = push(&fleet, text, &["-a"])?;
    fleet.wait_states(&id, &[("ok", 2)])?;
    assert_eq!(listing(&there)?, listing(&source)?);
    Ok(())
}

#[test]
fn a_host_that_comes_later_still_gets_its_push() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 300_000)?;
    fleet.kill("site1-host2")?;
    fleet.wait_up(2)?;
    let id = push(&fleet, source.to_str().context("a plain path")?, &["-a", "-t", "1s"])?;
    fleet.wait_states(&id, &[("ok", 1), ("not-reached", 1)])?;
    fleet.restart("site1-host2")?;
    fleet.wait_states(&id, &[("ok", 2)])?;
    assert_eq!(listing(&fleet.at("site1-host2", DEST))?, listing(&source)?);
    Ok(())
}

#[test]
fn a_single_file_is_a_push_too() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let source = fleet.path().join("motd");
    fs::write(&source, "welcome\n")?;
    let args = ["push", source.to_str().context("a path")?, "-a", "--dest", "/etc/motd"];
    let output = fleet.barid(&args)?;
    assert!(output.status.success(), "{}", tests::show(&output.stderr));
    assert_eq!(fs::read_to_string(fleet.at("site1-host1", "/etc/motd"))?, "welcome\n");
    Ok(())
}

#[test]
fn of_two_pushes_to_one_place_the_later_stays() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let (mistake, fix) = (fleet.path().join("mistake"), fleet.path().join("fix"));
    sample_tree(&mistake, 40 << 20)?;
    sample_tree(&fix, 1_000)?;
    fs::write(fix.join("a/one.conf"), "right\n")?;
    // The fix is small and overtakes the mistake, which still has to fetch its content.
    let first = push(&fleet, mistake.to_str().context("a path")?, &["-a"])?;
    let second = push(&fleet, fix.to_str().context("a path")?, &["-a"])?;
    fleet.wait_states(&second, &[("ok", 2)])?;
    tests::wait_for("the mistake to end too", tests::LIMIT, || {
        let detail = fleet.order(&first)?;
        Ok((detail["order"]["states"].get("pending").is_none()).then_some(()))
    })?;
    for host in ["site1-host1", "site1-host2"] {
        let there = fleet.at(host, DEST).join("a/one.conf");
        assert_eq!(fs::read_to_string(there)?, "right\n", "{host}");
    }
    Ok(())
}
