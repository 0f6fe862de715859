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

/// Bytes of content that crossed the uplink of each relay, by its name.
fn sent_to(fleet: &Fleet, relay: &str) -> Result<u64> {
    fn find(value: &serde_json::Value, relay: &str) -> Option<u64> {
        match value {
            serde_json::Value::Object(fields) => {
                let own = fields.get("name").is_some_and(|name| name == relay);
                let sent = own.then(|| value["content_sent"].as_u64()).flatten();
                sent.or_else(|| fields.values().find_map(|value| find(value, relay)))
            }
            serde_json::Value::Array(values) => values.iter().find_map(|value| find(value, relay)),
            _ => None,
        }
    }
    find(&fleet.json(&["tree", "--json"])?, relay).context("a link with its bytes")
}

/// A program of 3 MB whose addresses, one in every 40 bytes, are this far into it.
fn program(shift: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3_000_000);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for n in 0..75_000_u32 {
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        let address = 0x0040_0000 + n % 7 * 4096 + shift;
        bytes.extend_from_slice(&u64::from(address).to_le_bytes());
    }
    bytes
}

#[test]
fn a_new_version_costs_what_changed_and_a_changed_host_alone_pays_for_it() -> Result<()> {
    let fleet = Fleet::tree(2, 2)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 200_000)?;
    fs::create_dir(source.join("lib-1.2.3"))?;
    fs::write(source.join("lib-1.2.3/libprog.so"), program(0))?;
    let text = source.to_str().context("a plain path")?;
    let hosts = ["site1-host1", "site1-host2", "site2-host1", "site2-host2"];
    let id = push(&fleet, text, &["-a"])?;
    fleet.wait_states(&id, &[("ok", 4)])?;
    let relays = ["site1-relay", "site2-relay"];
    let first = relays.map(|relay| sent_to(&fleet, relay));
    let [first1, first2] = first;
    let first = [first1?, first2?];
    assert!(first.iter().all(|sent| *sent > 2_000_000), "{first:?}");

    // One host is not as it was left: a byte in the middle of the program is another.
    let there = fleet.at("site1-host2", DEST).join("lib-1.2.3/libprog.so");
    let mut bytes = fs::read(&there)?;
    bytes[1_500_000] ^= 1;
    fs::write(&there, bytes)?;

    // The new version: every address has moved, and so has the file.
    fs::rename(source.join("lib-1.2.3"), source.join("lib-1.2.4"))?;
    fs::write(source.join("lib-1.2.4/libprog.so"), program(0x1f8))?;
    fs::write(source.join("a/one.conf"), "one = 2\n".repeat(100))?;
    let id = push(&fleet, text, &["-a"])?;
    fleet.wait_states(&id, &[("ok", 4)])?;
    for host in hosts {
        let there = fleet.at(host, DEST);
        fs::remove_dir_all(there.join("lib-1.2.3"))?;
        let mut is = listing(&there)?;
        let mut shall = listing(&source)?;
        // Removing the old folder has just changed the time of the one it was in.
        for listing in [&mut is, &mut shall] {
            listing.remove(std::path::Path::new(""));
        }
        assert_eq!(is, shall, "{host}");
    }
    // 3 MB have changed; what tells how is short enough to travel inside the order. The changed
    // host fetches the one piece of the old program that it lacks, and nobody else anything.
    let [now1, now2] = relays.map(|relay| sent_to(&fleet, relay));
    let (site1, site2) = (now1? - first[0], now2? - first[1]);
    assert!(site1 > 0 && site1 < 300_000, "{site1}");
    assert_eq!(site2, 0);
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
