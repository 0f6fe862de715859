//! What a tree of up to a million hosts costs: the simulator where it reaches, the model beyond.
//!
//! The trees have sites of a hundred hosts, and regions in between the sites and the root; the
//! sites' links are slow and long. Charts go below `docs/scale/`.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use simulations::fleet::{Measured, Phase, REST, Shape, measure as play};
use simulations::model;

use crate::chart::{Series, draw};
use crate::table;

/// Sites of the trees that are shown.
const SITES: [usize; 6] = [16, 64, 256, 1_024, 4_096, 10_000];
/// Hosts of a site.
const HOSTS: usize = 100;
/// Up to so many sites the simulator plays the tree.
const PLAYED: usize = 1_024;
/// What a push brings.
const CONTENT: u64 = 20_000_000;

/// One size, by the model and perhaps by the simulator.
struct Row {
    hosts: usize,
    shape: Shape,
    played: Option<Measured>,
    alike: Phase,
    mixed: Phase,
    push: Phase,
    rest: Phase,
    storm: Phase,
}

/// Plays and computes, prints tables, and writes the charts. `most`: the largest tree that is
/// played, in sites.
pub(crate) fn measure(docs: &Path, most: usize) -> Result<()> {
    let mut rows = Vec::new();
    for sites in SITES {
        let shape = shape(sites);
        let played = match sites <= most.min(PLAYED) {
            true => Some(play(1, &shape).map_err(|violation| anyhow!("{violation}"))?),
            false => None,
        };
        rows.push(Row {
            hosts: sites * HOSTS,
            alike: model::run(&shape, false),
            mixed: model::run(&shape, true),
            push: model::push(&shape),
            rest: model::rest(&shape),
            storm: model::storm(&shape),
            shape,
            played,
        });
    }
    compare(&rows);
    tiers(&rows);
    nodes(&rows);
    let dir = docs.join("scale");
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    for (name, chart) in charts(&rows) {
        let path = dir.join(name);
        std::fs::write(&path, chart).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// A root, regions, sites and hosts.
fn shape(sites: usize) -> Shape {
    let regions = (sites as f64).sqrt().round() as usize;
    Shape::far(vec![regions, sites / regions, HOSTS], CONTENT)
}

type Pick = (&'static str, fn(&Row) -> &Phase, fn(&Measured) -> &Phase);

const PHASES: [Pick; 4] = [
    ("run, all alike", |row| &row.alike, |played| &played.alike),
    ("run, 12 ends", |row| &row.mixed, |played| &played.mixed),
    ("push, 20 MB", |row| &row.push, |played| &played.push),
    ("a fault at every host", |row| &row.storm, |played| &played.storm),
];

fn root_bytes(phase: &Phase) -> f64 {
    let root = phase.tiers.first().copied().unwrap_or_default();
    (root.down.1 + root.up.1 + root.content) as f64
}

fn root_frames(phase: &Phase) -> f64 {
    let root = phase.tiers.first().copied().unwrap_or_default();
    (root.down.0 + root.up.0) as f64
}

/// Model and simulator, where both reach; the model alone beyond.
fn compare(rows: &[Row]) {
    table::heading("To the last host, and what the root does for it");
    let mut lines = Vec::new();
    for (what, modelled, measured) in PHASES {
        for row in rows {
            let played = row.played.as_ref().map(measured);
            let model = modelled(row);
            let both = |of: fn(&Phase) -> f64, unit: fn(f64) -> String| match played {
                Some(played) => vec![
                    unit(of(model)),
                    unit(of(played)),
                    format!("{:.2}", of(model) / of(played)),
                ],
                None => vec![unit(of(model)), "-".into(), "-".into()],
            };
            let mut line = vec![what.to_owned(), row.hosts.to_string()];
            line.extend(both(|phase| phase.last.as_secs_f64(), |time| format!("{time:.2} s")));
            line.extend(both(root_frames, |frames| format!("{frames:.0}")));
            line.extend(both(root_bytes, bytes));
            lines.push(line);
        }
    }
    let head = [
        "work",
        "hosts",
        "last: model",
        "simulator",
        "ratio",
        "root's frames: model",
        "simulator",
        "ratio",
        "root's bytes: model",
        "simulator",
        "ratio",
    ];
    table::print(&head, &lines);
}

/// The largest tree, tier by tier: bytes on each link.
fn tiers(rows: &[Row]) {
    let Some(row) = rows.last() else { return };
    table::heading("A million hosts: bytes on one link of each tier, by the model");
    let counts = row.shape.counts();
    let names = ["root to region", "region to site", "site to host"];
    let phases = PHASES.map(|(what, modelled, _)| (what, modelled(row)));
    let phases = phases.into_iter().chain([("a minute at rest", &row.rest)]);
    let mut lines = Vec::new();
    for (what, phase) in phases {
        for (tier, crossed) in phase.tiers.iter().enumerate() {
            let links = counts[tier + 1] as f64;
            let down = (crossed.down.1 + crossed.content) as f64;
            let all = down + crossed.up.1 as f64;
            lines.push(vec![
                what.to_owned(),
                names[tier].to_owned(),
                links.to_string(),
                bytes(down / links),
                bytes(crossed.up.1 as f64 / links),
                bytes(all),
            ]);
        }
    }
    table::print(&["work", "tier", "links", "down", "up", "all links"], &lines);
}

/// What nodes cost in one process, and what links cost at rest.
fn nodes(rows: &[Row]) {
    table::heading("The real core, all nodes in one process");
    let mut lines = Vec::new();
    for row in rows {
        let Some(played) = &row.played else { continue };
        let kib = played.memory_kib.unwrap_or_default() as f64;
        let minute = REST.as_secs_f64();
        let rest = root_frames(&played.rest) / minute;
        lines.push(vec![
            played.nodes.to_string(),
            format!("{:.1} s", played.linked.last.as_secs_f64()),
            format!("{:.1}", kib / played.nodes as f64),
            format!("{:.0} MiB", kib / 1024.0),
            format!("{rest:.1}"),
            format!("{:.1}", root_frames(&row.rest) / minute),
            format!("{:.0} s", played.real.as_secs_f64()),
        ]);
    }
    let head = [
        "nodes",
        "linked after (virtual)",
        "KiB a node",
        "memory",
        "root's frames a second at rest",
        "by the model",
        "took",
    ];
    table::print(&head, &lines);
}

fn bytes(count: f64) -> String {
    match count {
        count if count >= 1e9 => format!("{:.2} GB", count / 1e9),
        count if count >= 1e6 => format!("{:.2} MB", count / 1e6),
        count if count >= 1e3 => format!("{:.1} kB", count / 1e3),
        count => format!("{count:.0} B"),
    }
}

fn charts(rows: &[Row]) -> Vec<(&'static str, String)> {
    let chart = |title, y_name, of: fn(&Phase) -> f64| {
        let mut series = Vec::new();
        for (colour, (name, modelled, measured)) in PHASES.into_iter().enumerate() {
            let points = rows.iter().map(|row| (row.hosts as f64, of(modelled(row))));
            let (points, name) = (points.collect(), name.to_owned());
            series.push(Series { name, points, dots: false, colour });
            let played = rows
                .iter()
                .filter_map(|row| Some((row.hosts as f64, of(measured(row.played.as_ref()?)))));
            let points: Vec<_> = played.collect();
            if !points.is_empty() {
                series.push(Series { name: "simulated".into(), points, dots: true, colour });
            }
        }
        draw(title, "hosts", y_name, &series)
    };
    let up = |phase: &Phase| {
        let root = phase.tiers.first().copied().unwrap_or_default();
        root.up.1 as f64
    };
    vec![
        ("time.svg", chart("Time to the last host", "seconds", |p| p.last.as_secs_f64())),
        ("rate.svg", chart("Frames that the root handles", "a second", model::root_rate)),
        ("up.svg", chart("What comes up to the root", "bytes", up)),
    ]
}
