//! How fast the simulator plays, and how large a tree it can.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use simulations::trace::Sink;
use simulations::{Options, Source, run, scale};

use crate::table;

/// For how long seeds are played.
const LIMIT: Duration = Duration::from_secs(15);
/// A root, so many relays, and hosts for ten thousand nodes in all.
const RELAYS: usize = 100;
const HOSTS: usize = 9_899;

/// Plays seeds, then one large run.
pub(crate) fn measure() -> Result<()> {
    // Before anything else has touched this process's memory.
    let large = scale::scale(1, RELAYS, HOSTS).map_err(|violation| anyhow!("{violation}"))?;
    let (source, begun) = (Source::find("default")?, Instant::now());
    let (mut seeds, mut steps, mut time) = (0, 0, Duration::ZERO);
    while begun.elapsed() < LIMIT {
        let played = run(&source, seeds, &Options::default(), Sink::Hash);
        let stats = played.map_err(|failure| anyhow!("{failure}"))?.stats;
        (seeds, steps, time) = (seeds + 1, steps + stats.steps, time + stats.virtual_time);
    }
    let real = begun.elapsed().as_secs_f64();
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    table::heading("The simulator, one thread");
    table::print(
        &["what", "figure"],
        &[
            row("seeds a second", format!("{:.1}", seeds as f64 / real)),
            row("steps a second", format!("{:.0}", steps as f64 / real)),
            row("virtual time per second", table::time(time.div_f64(real))),
            row("largest run", format!("{} nodes", large.stats.nodes)),
            row("its steps", large.stats.steps.to_string()),
            row("it links everybody after", format!("{} virtual", table::time(large.linked))),
            row("its run is answered after", format!("{} virtual", table::time(large.answered))),
            row("it takes", table::time(large.real)),
            row("it needs", large.memory_kib.map_or("unknown".into(), table::memory)),
        ],
    );
    Ok(())
}
