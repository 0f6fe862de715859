//! A command that says where it runs, and goes on until the test lets it go.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use tests::{Fleet, LIMIT, until, wait_for};

/// A command that leaves a line where it has started, and ends when it is let go.
pub(crate) struct Gate {
    dir: PathBuf,
}

impl Gate {
    pub(crate) fn new(fleet: &Fleet) -> Result<Gate> {
        let dir = fleet.path().join("gate");
        fs::create_dir(&dir)?;
        Ok(Gate { dir })
    }

    pub(crate) fn line(&self) -> String {
        let (dir, go) = (self.dir.display(), until(&self.dir.join("go")));
        format!("echo x >> {dir}/$BARID_NODE; {go}; echo done")
    }

    pub(crate) fn open(&self) -> Result<()> {
        Ok(fs::write(self.dir.join("go"), "")?)
    }

    /// How often the command has started at a host.
    pub(crate) fn starts(&self, host: &str) -> usize {
        fs::read_to_string(self.dir.join(host)).map_or(0, |text| text.lines().count())
    }

    pub(crate) fn wait_started(&self, hosts: &[&str]) -> Result<()> {
        wait_for("the command to run everywhere", LIMIT, || {
            Ok(hosts.iter().all(|host| self.starts(host) > 0).then_some(()))
        })
    }
}
