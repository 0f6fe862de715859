//! Going back: by pushing what was there before, or by exchanging two names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::{Fleet, listing, sample_tree};

use crate::{answer, order};

const DEST: &str = "/srv/app";
const HOSTS: [&str; 3] = ["site1-host1", "site1-host2", "site2-host1"];

fn push(fleet: &Fleet, source: &Path, more: &[&str]) -> Result<String> {
    let source = source.to_str().context("a plain path")?;
    let args = ["push", source, "--dest", DEST, "--async", "--json"];
    let id = order(fleet, &[&args, more].concat())?;
    Ok(id)
}

/// Both versions of a source: the first with a file that the second lacks, and the other way round.
fn versions(fleet: &Fleet) -> Result<[std::path::PathBuf; 2]> {
    let [one, two] = ["one", "two"].map(|name| fleet.path().join(name));
    sample_tree(&one, 300_000)?;
    sample_tree(&two, 300_000)?;
    fs::write(one.join("version"), "1\n")?;
    fs::write(two.join("version"), "2\n")?;
    fs::write(one.join("only in one"), "1\n")?;
    fs::write(two.join("only in two"), "2\n")?;
    Ok([one, two])
}

pub(crate) fn content_sent(fleet: &Fleet) -> Result<u64> {
    let links = fleet.json(&["tree", "--json"])?.to_string();
    let fields = links.split("\"content_sent\":").skip(1);
    let digits = fields.map(|field| field.chars().take_while(char::is_ascii_digit).collect());
    digits.map(|digits: String| digits.parse::<u64>().context("a number")).sum()
}

#[test]
fn files_that_were_replaced_come_back_and_what_was_added_goes() -> Result<()> {
    let fleet = Fleet::tree(2, 2)?;
    let [one, two] = versions(&fleet)?;
    let first = push(&fleet, &one, &["-a"])?;
    fleet.wait_states(&first, &[("ok", 4)])?;
    let output = fleet.barid(&["rollback", &first])?;
    let said = tests::show(&output.stderr);
    ensure!(!output.status.success() && said.contains("nothing is known of what was"), "{said}");

    let second = push(&fleet, &two, &["-a", "--delete=installed"])?;
    fleet.wait_states(&second, &[("ok", 4)])?;
    let there = fleet.at(HOSTS[0], DEST);
    fs::write(there.join("own"), "of the host\n")?;
    assert!(there.join("only in two").exists() && !there.join("only in one").exists());

    let back = order(&fleet, &["rollback", &second, "--async", "--json"])?;
    fleet.wait_states(&back, &[("ok", 4)])?;
    assert_eq!(fs::read_to_string(there.join("own"))?, "of the host\n");
    fs::remove_file(there.join("own"))?;
    for host in HOSTS {
        let mut lists = [listing(&fleet.at(host, DEST))?, listing(&one)?];
        lists.iter_mut().for_each(|list| drop(list.remove(Path::new(""))));
        assert_eq!(lists[0], lists[1], "{host}");
    }
    // The second push is in place nowhere now; going back from what is there goes forward.
    let output = fleet.barid(&["rollback", &second])?;
    ensure!(tests::show(&output.stderr).contains("no host has what that push"));
    let forward = ["rollback", "--dest", DEST, "-w", "site2-host1", "--async", "--json"];
    fleet.wait_states(&order(&fleet, &forward)?, &[("ok", 1)])?;
    assert_eq!(fs::read_to_string(fleet.at("site2-host1", DEST).join("version"))?, "2\n");
    assert_eq!(fs::read_to_string(there.join("version"))?, "1\n");

    // By now hosts have different trees before them.
    let output = fleet.barid(&["rollback", "--dest", DEST, "-a"])?;
    let said = tests::show(&output.stderr);
    ensure!(said.contains("different trees before"), "{said}");
    Ok(())
}

#[test]
fn a_tree_that_was_exchanged_comes_back_without_a_byte_of_content() -> Result<()> {
    let fleet = Fleet::tree(2, 1)?;
    let [one, two] = versions(&fleet)?;
    for source in [&one, &two] {
        let id = push(&fleet, source, &["-a", "--tree"])?;
        fleet.wait_states(&id, &[("ok", 2)])?;
    }
    for host in ["site1-host1", "site2-host1"] {
        assert_eq!(listing(&fleet.at(host, DEST))?, listing(&two)?, "{host}");
        assert_eq!(listing(&fleet.at(host, "/srv/.app.barid-previous"))?, listing(&one)?);
    }
    let sent = content_sent(&fleet)?;
    let back = order(&fleet, &["rollback", "last", "--async", "--json"])?;
    fleet.wait_states(&back, &[("ok", 2)])?;
    for host in ["site1-host1", "site2-host1"] {
        assert_eq!(listing(&fleet.at(host, DEST))?, listing(&one)?, "{host}");
    }
    assert_eq!(content_sent(&fleet)?, sent, "names were exchanged, nothing travelled");

    // One host has lost what it had kept: it fetches what it lacks, and the result is the same.
    fs::remove_dir_all(fleet.at("site1-host1", "/srv/.app.barid-previous"))?;
    let forward = order(&fleet, &["rollback", "last", "--async", "--json"])?;
    let detail = fleet.wait_states(&forward, &[("ok", 2)])?;
    assert!(answer(&detail, "site1-host1")?["written"].as_u64() > Some(0), "{detail:#}");
    for host in ["site1-host1", "site2-host1"] {
        assert_eq!(listing(&fleet.at(host, DEST))?, listing(&two)?, "{host}");
    }
    Ok(())
}
