//! Asking first: who cannot take a push says so before any of its content travels.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tests::{Fleet, Spec, listing, noise, show};

use crate::cache::bytes_in;
use crate::full_disk::Disk;

const FOLDER: &str = "/srv/app";

#[test]
fn who_cannot_take_a_push_says_so_before_any_of_it_travels() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.add(&Spec::new("relay", "relay", "controller").at("lyon"))?;
    fleet.add(&Spec::new("host", "lyon1", "relay").at("lyon"))?;
    fleet.add(&Spec::new("host", "lyon2", "relay").at("lyon").with("store_max_mib = 4\n"))?;
    fleet.add(&Spec::new("host", "paris1", "controller").at("paris"))?;
    fleet.wait_up(4)?;
    let disk = Disk::mount(&fleet.at("paris1", FOLDER), 8);
    let source = fleet.path().join("large");
    fs::write(&source, noise(1, 20 << 20))?;
    let source = source.to_str().context("a plain path")?;
    let dest = format!("{FOLDER}/large");
    let args = ["push", source, "--dest", &dest, "-a", "--preflight"];

    let refused = fleet.barid(&args)?;
    let said = show(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("site lyon: lyon2: no room in the content store"), "{said}");
    assert!(said.contains("of 3 hosts cannot take it now; nothing was pushed"), "{said}");
    if disk.is_some() {
        assert!(said.contains("site paris: paris1: "), "{said}");
        assert!(said.contains("-x 'lyon2,paris1'"), "{said}");
    }
    for host in ["lyon1", "lyon2", "paris1"] {
        assert!(!fleet.at(host, &dest).exists(), "{host} has got it");
    }
    let orders = fleet.json(&["runs", "--json"])?.to_string();
    assert!(orders.contains("preflight ") && !orders.contains("\"verify\":false"), "{orders}");
    let objects = fleet.state("relay").join("store/objects");
    let taken = fs::read_dir(&objects).map_or(0, Iterator::count);
    assert_eq!(taken, 0, "content is at the relay");

    let away = [&args[..], &["-x", "lyon2,paris1"]].concat();
    let pushed = fleet.barid(&away)?;
    assert_eq!(pushed.status.code(), Some(0), "{}", show(&pushed.stderr));
    assert!(fs::read(fleet.at("lyon1", &dest))? == fs::read(source)?, "another file");

    // What is in the way keeps a host from it, too, and what it would have to delete.
    let folder = fleet.path().join("folder");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("large"), "a file\n")?;
    let in_the_way = fleet.at("lyon2", &dest);
    fs::create_dir_all(in_the_way.join("with something in it"))?;
    let source = folder.to_str().context("a plain path")?;
    let args = ["push", source, "--dest", FOLDER, "-w", "lyon[1-2]", "--preflight"];
    let refused = fleet.barid(&args)?;
    let said = show(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("lyon2: /srv/app/large is a directory, and is not replaced"), "{said}");
    let left = fs::metadata(fleet.at("lyon1", &dest))?.len();
    assert_eq!(left, 20 << 20, "nothing was pushed to anybody");
    let limit = ["--delete", "--max-delete", "0"];
    let said = show(&fleet.barid(&[&args[..], &limit].concat())?.stderr);
    assert!(said.contains("would be deleted"), "{said}");
    let pushed = fleet.barid(&[&args[..], &["--delete"]].concat())?;
    assert_eq!(pushed.status.code(), Some(0), "{}", show(&pushed.stderr));
    assert_eq!(fs::read_to_string(&in_the_way)?, "a file\n");
    drop(disk);
    Ok(())
}

#[test]
fn a_relay_without_room_says_so_before_any_of_it_travels() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.add(&Spec::new("relay", "r1", "controller").at("lyon"))?;
    fleet.add(&Spec::new("relay", "r2", "r1").at("paris").with("store_max_mib = 4\n"))?;
    fleet.add(&Spec::new("host", "lyon1", "r1").at("lyon"))?;
    fleet.add(&Spec::new("host", "paris1", "r2").at("paris"))?;
    fleet.wait_up(4)?;
    let source = fleet.path().join("large");
    fs::write(&source, noise(1, 20 << 20))?;
    let source = source.to_str().context("a plain path")?;
    let dest = format!("{FOLDER}/large");
    let args = ["push", source, "--dest", &dest, "--preflight", "-w"];
    let refused = fleet.barid(&[&args[..], &["lyon1,paris1"]].concat())?;
    let said = show(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("site paris: relay r2: no room in the content store"), "{said}");
    assert!(said.contains("a relay cannot take it now; nothing was pushed"), "{said}");
    for relay in ["r1", "r2"] {
        let objects = fleet.state(relay).join("store/objects");
        assert_eq!(fs::read_dir(&objects).map_or(0, Iterator::count), 0, "content is at {relay}");
    }
    let pushed = fleet.barid(&[&args[..], &["lyon1"]].concat())?;
    assert_eq!(pushed.status.code(), Some(0), "{}", show(&pushed.stderr));
    assert!(fs::read(fleet.at("lyon1", &dest))? == fs::read(source)?, "another file");
    Ok(())
}

#[test]
fn hosts_that_have_nearly_all_of_it_get_what_they_lack() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.add(&Spec::new("relay", "relay", "controller").at("lyon"))?;
    fleet.add(&Spec::new("host", "lyon1", "relay").at("lyon"))?;
    fleet.add(&Spec::new("host", "lyon2", "relay").at("lyon"))?;
    fleet.wait_up(3)?;
    let source = fleet.path().join("source");
    let name = |n: u64| format!("file{n:02}");
    let fill = |dir: &Path| -> Result<()> {
        fs::create_dir_all(dir)?;
        (0..40).try_for_each(|n| Ok(fs::write(dir.join(name(n)), noise(n, 100_000))?))
    };
    fill(&source)?;
    let taken = || -> Result<u64> {
        let store = fleet.state("relay").join("store");
        Ok(bytes_in(&store.join("objects"))? + bytes_in(&store.join("volumes"))?)
    };
    let mut crossed = Vec::new();
    for (dest, more) in [("/srv/asked", &["--preflight"][..]), ("/srv/unasked", &[])] {
        // Somebody else has put it there: one host lacks a file, the other has another one.
        for host in ["lyon1", "lyon2"] {
            fill(&fleet.at(host, dest))?;
        }
        fs::remove_file(fleet.at("lyon1", dest).join(name(7)))?;
        fs::write(fleet.at("lyon2", dest).join(name(9)), "something else\n")?;
        let before = taken()?;
        let args = ["push", source.to_str().context("a plain path")?, "--dest", dest, "-a"];
        let pushed = fleet.barid(&[&args, more].concat())?;
        assert_eq!(pushed.status.code(), Some(0), "{}", show(&pushed.stderr));
        crossed.push(taken()?.saturating_sub(before));
        for host in ["lyon1", "lyon2"] {
            assert_eq!(listing(&fleet.at(host, dest))?, listing(&source)?, "{host}");
        }
    }
    // Both files, and the manifest; or all forty.
    let [asked, unasked] = crossed[..] else { anyhow::bail!("two pushes") };
    assert!((200_000..600_000).contains(&asked), "{crossed:?}");
    assert!(unasked > 4_000_000, "{crossed:?}");
    Ok(())
}
