//! What has come of a push is decoded while the rest is on its way; nothing depends on it, and
//! nothing of it stays behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use simulations::wan::UdpLink;
use tests::{Fleet, LIMIT, listing, noise, show, wait_for};

use crate::order;
use crate::weak::{HOSTS, behind};

const DEST: &str = "/srv/new";
/// Files of a push: each takes some seconds to come, and has more chunks than there are parts.
const FILES: u64 = 4;
const BYTES: usize = 7 << 20;

/// Two hosts behind a weak link, to which a tree is on its way of which the first segments have
/// been decoded at both.
struct Scene {
    fleet: Fleet,
    source: PathBuf,
    id: String,
    _link: UdpLink,
}

impl Scene {
    fn new() -> Result<Scene> {
        let (fleet, link) = behind("weak")?;
        let source = fleet.path().join("source");
        fs::create_dir(&source)?;
        for n in 0..FILES {
            // Half of it can be saved.
            let letters = noise(n, BYTES).into_iter().map(|byte| b'a' + byte % 16);
            fs::write(source.join(format!("{n}.txt")), letters.collect::<Vec<_>>())?;
        }
        let text = source.to_str().context("a plain path")?;
        let id = order(&fleet, &["push", text, "--dest", DEST, "-a", "--async", "--json"])?;
        let scene = Scene { fleet, source, id, _link: link };
        for host in HOSTS {
            scene.wait_decoded(host, 1)?;
            ensure!(scene.objects(host)? > FILES as usize, "{host} has chunks in its store");
            let log = scene.fleet.log(host);
            ensure!(!log.contains("carried out"), "{host} has begun before all was there: {log}");
        }
        Ok(scene)
    }

    /// Waits until this host has told so often that it has decoded a segment.
    fn wait_decoded(&self, host: &str, times: usize) -> Result<()> {
        wait_for(&format!("{host} to decode a segment ahead"), LIMIT, || {
            let decoded = self.fleet.log(host).matches("decoded ahead").count();
            Ok((decoded >= times).then_some(()))
        })
    }

    /// Large objects in the store of a host.
    fn objects(&self, host: &str) -> Result<usize> {
        files(&self.fleet.state(host).join("store/objects"))
    }
}

fn files(dir: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        count += if path.is_dir() { files(&path)? } else { 1 };
    }
    Ok(count)
}

#[test]
fn a_host_that_is_killed_while_it_decodes_ahead_has_all_of_it_in_the_end() -> Result<()> {
    let mut scene = Scene::new()?;
    let decoded = scene.fleet.log(HOSTS[0]).matches("decoded ahead").count();
    scene.fleet.kill(HOSTS[0])?;
    scene.fleet.restart(HOSTS[0])?;
    scene.wait_decoded(HOSTS[0], decoded + 1)?;
    scene.fleet.wait_states(&scene.id, &[("ok", 2)])?;
    for host in HOSTS {
        assert_eq!(listing(&scene.fleet.at(host, DEST))?, listing(&scene.source)?, "{host}");
        wait_for(&format!("{host} to keep neither parts nor chunks"), LIMIT, || {
            Ok((scene.objects(host)? == 0).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn what_was_decoded_for_an_order_that_never_begins_goes() -> Result<()> {
    let scene = Scene::new()?;
    let output = scene.fleet.barid(&["cancel", &scene.id])?;
    assert!(output.status.success(), "{}", show(&output.stderr));
    scene.fleet.wait_states(&scene.id, &[("cancelled", 2)])?;
    for host in HOSTS {
        // Parts that have come stay as long as their order is known.
        wait_for(&format!("{host} to drop what it has decoded"), LIMIT, || {
            Ok((scene.objects(host)? <= FILES as usize).then_some(()))
        })?;
        assert!(!scene.fleet.at(host, DEST).exists());
    }
    Ok(())
}

#[test]
fn a_newer_push_comes_whole_though_the_older_one_was_decoded() -> Result<()> {
    let scene = Scene::new()?;
    // Half of the files stay as they are: their chunks are here already, and go in between.
    for n in 0..FILES / 2 {
        fs::write(scene.source.join(format!("{n}.txt")), noise(100 + n, 300_000))?;
    }
    let text = scene.source.to_str().context("a plain path")?;
    let push = ["push", text, "--dest", DEST, "-a", "--async", "--json"];
    let newer = order(&scene.fleet, &push)?;
    scene.fleet.wait_states(&newer, &[("ok", 2)])?;
    for host in HOSTS {
        assert_eq!(listing(&scene.fleet.at(host, DEST))?, listing(&scene.source)?, "{host}");
        wait_for(&format!("{host} to drop what it has decoded"), LIMIT, || {
            Ok((scene.objects(host)? <= FILES as usize).then_some(()))
        })?;
    }
    Ok(())
}
