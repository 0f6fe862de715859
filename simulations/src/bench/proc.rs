//! What the system says about a process: processor time, memory, bytes written.

use std::fs;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The unit of processor time in `/proc`: USER_HZ is 100 on every architecture that Barid runs on.
const TICK_MS: u64 = 10;

/// Counters of one process, or of several added up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Its own processor time.
    pub(crate) own: Duration,
    /// That of children it has waited for.
    pub(crate) children: Duration,
    /// Bytes it has caused to be written to a disk.
    pub(crate) written: u64,
}

impl Usage {
    /// Reads the counters.
    pub(crate) fn of(pid: u32) -> Result<Usage> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in brackets may hold anything; the fields begin after its last bracket.
        let (_, fields) = text.rsplit_once(')').context("a name in brackets")?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok());
        let sum = |a, b| Some(ticks(a)? + ticks(b)?);
        let time = |ticks: u64| Duration::from_millis(ticks * TICK_MS);
        Ok(Usage {
            own: time(sum(11, 12).context("utime and stime")?),
            children: time(sum(13, 14).context("cutime and cstime")?),
            written: field(&fs::read_to_string(format!("/proc/{pid}/io"))?, "write_bytes:")
                .unwrap_or_default(),
        })
    }

    /// The counters of several, added up.
    pub(crate) fn sum(pids: &[u32]) -> Result<Usage> {
        pids.iter().try_fold(Usage::default(), |sum, pid| {
            let one = Usage::of(*pid)?;
            Ok(Usage {
                own: sum.own + one.own,
                children: sum.children + one.children,
                written: sum.written + one.written,
            })
        })
    }

    /// What was added since `before`.
    pub(crate) fn since(&self, before: &Usage) -> Usage {
        Usage {
            own: self.own.saturating_sub(before.own),
            children: self.children.saturating_sub(before.children),
            written: self.written.saturating_sub(before.written),
        }
    }
}

/// Resident memory in KiB: all of it, and what is neither file nor shared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) own: u64,
}

impl Memory {
    /// Reads it.
    pub(crate) fn of(pid: u32) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let read = |name| field(&status, name).with_context(|| format!("{name} of {pid}"));
        Ok(Memory { resident: read("VmRSS:")?, own: read("RssAnon:")? })
    }

    /// The one in the middle, by resident memory.
    pub(crate) fn median(pids: &[u32]) -> Result<Memory> {
        let mut all = pids.iter().map(|pid| Memory::of(*pid)).collect::<Result<Vec<_>>>()?;
        all.sort_unstable_by_key(|memory| memory.resident);
        all.get(all.len() / 2).copied().context("at least one process")
    }
}

/// The number after a name, in the files of `/proc`.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Waits until a process that was just started has ended. Returns how, and the most memory that it
/// has had, in KiB, as far as that was seen.
pub(crate) fn to_its_end(child: &mut Child, limit: Duration) -> Result<(ExitStatus, u64)> {
    let (begun, mut most) = (Instant::now(), 0);
    loop {
        // The high-water mark only rises, so the last look tells it.
        let text = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        most = most.max(field(&text, "VmHWM:").unwrap_or_default());
        if let Some(status) = child.try_wait()? {
            return Ok((status, most));
        }
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("a process has not ended within {} s", limit.as_secs());
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The most memory that a process has ever had, in KiB.
pub(crate) fn peak(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    field(&status, "VmHWM:").with_context(|| format!("VmHWM of {pid}"))
}

/// The most memory of a process counts from here on.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| path)
}
