//! The room on the disk that holds a node's state, and what is refused for want of it.
//!
//! Work is refused *before* the disk is full, so that the refusal itself, and all that has been
//! begun, can still be written. A little is set aside in a file of its own for the time when the
//! disk is full all the same; it is given up then and taken again when there is room. A node that
//! is short of room says so to the whole tree and goes on with everything that needs none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh::Input;
use protos::Work;
use rustix::fs::FallocateFlags;
use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use crate::drive::Arrival;

/// What is set aside, in bytes: room for thousands of refusals.
const RESERVE: u64 = 2 << 20;
/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often, while there is too little room.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The room on the state disk of one node.
#[derive(Clone)]
pub(crate) struct Space(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    /// What is to stay free, in bytes.
    floor: u64,
    /// Whether something waits for room now.
    stuck: AtomicBool,
    changed: Notify,
}

impl Space {
    /// Watches the disk of a state folder, of which `floor` bytes are to stay free.
    pub(crate) fn new(dir: &Path, floor: u64) -> Space {
        let (stuck, changed) = (AtomicBool::new(false), Notify::new());
        Space(Arc::new(Inner { dir: dir.into(), floor, stuck, changed }))
    }

    /// Why this work is refused here, if it is. What takes other work back never is, and commands
    /// are for longer than pushes are not, so that one can still be given that makes room.
    pub(crate) fn refusal(&self, work: &Work) -> Option<String> {
        let wanted = match work {
            Work::Push(_) | Work::Dist(_) | Work::Stage(_) => self.0.floor,
            Work::Run(_) => self.0.floor / 4,
            Work::Cancel(_)
            | Work::Recall(_)
            | Work::Lapse(_)
            | Work::Steer(_)
            | Work::Delegate(_) => return None,
        };
        self.lack(wanted)
    }

    /// What is to be said if less than this is free, in bytes, or something waits for room.
    pub(crate) fn lack(&self, wanted: u64) -> Option<String> {
        let free = self.free();
        if free >= wanted && !self.is_stuck() {
            return None;
        }
        let (dir, free, wanted) = (self.0.dir.display(), mib(free), mib(wanted));
        Some(format!(
            "no space left on the state disk: {free} MiB free in {dir}, {wanted} MiB are wanted"
        ))
    }

    /// What is to stay free, in bytes.
    pub(crate) fn floor(&self) -> u64 {
        self.0.floor
    }

    /// A write has failed for want of room. Returns whether what was set aside was given up just
    /// now, so that there may be room at once.
    pub(crate) fn stuck(&self) -> bool {
        if !self.0.stuck.swap(true, Ordering::AcqRel) {
            warn!(
                dir = %self.0.dir.display(),
                "the state disk is full: nothing more is acknowledged until there is room"
            );
            self.0.changed.notify_one();
        }
        std::fs::remove_file(self.reserve()).is_ok()
    }

    /// A write has succeeded.
    pub(crate) fn written(&self) {
        if self.0.stuck.load(Ordering::Relaxed) && self.0.stuck.swap(false, Ordering::AcqRel) {
            info!("what waited for room on the state disk is written");
            self.0.changed.notify_one();
        }
    }

    /// Tells the core, and the log once, when room runs short and when it is back.
    pub(crate) async fn watch(self, inbox: mpsc::Sender<Arrival>) {
        let mut short = false;
        loop {
            let was = short;
            short = self.is_short(was);
            if short != was {
                let free_mib = mib(self.free());
                match short {
                    true => warn!(%free_mib, "degraded: the state disk is short of room"),
                    false => info!(%free_mib, "there is room on the state disk again"),
                }
                if inbox.send(Arrival::Input(Input::Degraded(short))).await.is_err() {
                    return;
                }
            }
            if !short {
                self.set_aside();
            }
            let pause = if short { LOOK_AGAIN } else { LOOK };
            tokio::time::timeout(pause, self.0.changed.notified()).await.ok();
        }
    }

    /// `was`: whether it was short before. There must be somewhat more room for it to be over.
    fn is_short(&self, was: bool) -> bool {
        let floor = self.0.floor;
        let enough = if was { floor + floor / 8 } else { floor };
        self.is_stuck() || self.free() < enough
    }

    fn is_stuck(&self) -> bool {
        self.0.stuck.load(Ordering::Acquire)
    }

    /// What is free, in bytes. A disk that does not say has room.
    pub(crate) fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0.dir);
        stat.map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn reserve(&self) -> PathBuf {
        self.0.dir.join("reserve")
    }

    /// Sets a little aside, unless that would itself make room short.
    fn set_aside(&self) {
        let path = self.reserve();
        if path.exists() || self.free() < self.0.floor.saturating_add(2 * RESERVE) {
            return;
        }
        let made = std::fs::File::create(&path).and_then(|file| {
            Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE)?)
        });
        if made.is_err() {
            // Nothing is lost but a comfort: refusals may have to wait for room.
            std::fs::remove_file(&path).ok();
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{}.{}", bytes >> 20, (bytes >> 10) % 1024 * 10 / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Work {
        Work::Run(protos::Run::new(["true"], Duration::from_secs(1)))
    }

    #[test]
    fn what_is_refused_depends_on_what_it_needs() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let free = Space::new(dir.path(), 0).free();
        assert_eq!(Space::new(dir.path(), free / 2).refusal(&run()), None);
        let poor = Space::new(dir.path(), free * 8);
        let why = poor.refusal(&run()).expect("it is refused");
        assert!(why.starts_with("no space left on the state disk: "), "{why}");
        assert_eq!(poor.refusal(&Work::Cancel(mesh::OrderId([1; 16]))), None);
        // Less than is to stay free, more than a command needs.
        assert_eq!(Space::new(dir.path(), free * 2).refusal(&run()), None);
    }

    #[test]
    fn what_was_set_aside_is_given_up_once_when_a_write_fails() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let space = Space::new(dir.path(), 0);
        space.set_aside();
        assert_eq!(
            std::fs::metadata(dir.path().join("reserve")).expect("it is there").len(),
            RESERVE
        );
        assert!(space.stuck(), "it is given up");
        assert!(!space.stuck(), "it is gone");
        assert!(space.lack(0).is_some() && space.is_short(false));
        space.written();
        assert!(space.lack(0).is_none() && !space.is_short(true));
    }
}
