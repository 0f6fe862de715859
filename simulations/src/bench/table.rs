//! Markdown tables, and figures as people read them.

use std::time::Duration;

/// Prints a heading.
pub(crate) fn heading(text: &str) {
    println!("\n### {text}\n");
}

/// Prints a table, padded so that it reads well before it is rendered, too.
pub(crate) fn print(head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
    };
    println!("{}", line(&head));
    let rule = widths.iter().enumerate().map(|(column, width)| match column {
        0 => "-".repeat(width + 2),
        _ => format!("{}:", "-".repeat(width + 1)),
    });
    println!("|{}|", rule.collect::<Vec<_>>().join("|"));
    for row in rows {
        println!("{}", line(row));
    }
}

/// A duration in milliseconds, or in seconds if it is long.
pub(crate) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 10.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.1} ms", seconds * 1000.0),
    }
}

/// Bytes, in decimal units.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        n if n >= 1e6 => format!("{:.2} MB", n / 1e6),
        n if n >= 1e3 => format!("{:.1} kB", n / 1e3),
        n => format!("{n:.0} B"),
    }
}

/// Memory, in binary units, as the system counts it.
pub(crate) fn memory(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// How many times one is of the other.
pub(crate) fn ratio(one: f64, other: f64) -> String {
    format!("{:.3}", one / other)
}

/// Spread of some times.
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    /// Sorts them.
    pub(crate) fn of(mut times: Vec<Duration>) -> Spread {
        times.sort_unstable();
        Spread(times)
    }

    /// The nearest rank: the smallest time that this share of all do not exceed.
    pub(crate) fn rank(&self, share: f64) -> Duration {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or_default()
    }

    /// Cells: how many, p50, p99, least, most.
    pub(crate) fn cells(&self) -> [String; 5] {
        let ranks = [0.5, 0.99, 0.0, 1.0].map(|share| time(self.rank(share)));
        let [middle, high, least, most] = ranks;
        [self.0.len().to_string(), middle, high, least, most]
    }
}
