//! Rules that no linter has: what may depend on what, and how the sources look.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds this crate")
}

fn manifest(krate: &str) -> Result<toml::Table> {
    let path = root().join(krate).join("Cargo.toml");
    Ok(fs::read_to_string(&path)?.parse()?)
}

fn dependencies(krate: &str) -> Result<Vec<String>> {
    let manifest = manifest(krate)?;
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    Ok(table.into_iter().flatten().map(|(name, _)| name.clone()).collect())
}

fn sources(krate: &str) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(krate).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path)?;
                found.push((path, text));
            }
        }
    }
    Ok(found)
}

const CRATES: [&str; 15] = [
    "alerts",
    "bus",
    "certs",
    "cli",
    "content",
    "controller",
    "local",
    "mesh",
    "metrics",
    "protos",
    "relay",
    "simulations",
    "tests",
    "timing",
    "wan",
];

#[test]
fn the_core_is_pure() -> Result<()> {
    assert_eq!(dependencies("mesh")?, ["bytes", "rand"]);
    let banned = ["std::fs", "std::net", "std::env", "Instant", "SystemTime", "std::thread"];
    for (path, text) in sources("mesh")? {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let hit = banned.iter().find(|word| line.contains(**word));
            assert!(hit.is_none(), "{}: the core must not use {hit:?}: {line}", path.display());
        }
    }
    assert!(root().join("mesh/clippy.toml").is_file());
    Ok(())
}

#[test]
fn arrows_go_down_only() -> Result<()> {
    let forbidden: [(&str, &[&str]); 13] = [
        ("alerts", &["protos", "certs", "content", "relay", "controller", "quinn"]),
        ("mesh", &["protos", "certs", "content", "relay", "controller"]),
        ("protos", &["certs", "content", "relay", "controller"]),
        ("certs", &["mesh", "protos", "content", "relay", "controller"]),
        ("content", &["mesh", "protos", "certs", "relay", "controller", "tokio"]),
        ("metrics", &["mesh", "tokio"]),
        ("timing", &["protos", "certs", "content", "relay", "controller", "tokio"]),
        ("bus", &["mesh", "protos", "relay", "local", "controller"]),
        ("relay", &["controller", "local", "axum"]),
        ("local", &["controller", "quinn", "redb"]),
        ("controller", &["quinn", "cli"]),
        // What plants bugs into the core is not built together with what runs as root everywhere.
        ("cli", &["simulations"]),
        ("wan", &["mesh", "protos", "relay", "quinn", "tokio"]),
    ];
    for (krate, names) in forbidden {
        for dependency in dependencies(krate)? {
            assert!(!names.contains(&dependency.as_str()), "{krate} depends on {dependency}");
        }
    }
    Ok(())
}

#[test]
fn one_provider_of_cryptography_and_no_system_library() -> Result<()> {
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock"))?.parse()?;
    let packages = lock.get("package").and_then(toml::Value::as_array).context("packages")?;
    let names: Vec<_> =
        packages.iter().filter_map(|package| package.get("name")?.as_str()).collect();
    for banned in ["aws-lc-sys", "aws-lc-rs", "openssl-sys", "native-tls"] {
        assert!(!names.contains(&banned), "{banned} is in the lock file");
    }
    for once in ["rustls", "quinn", "tokio", "prost", "ring", "zstd-sys", "redb"] {
        assert_eq!(names.iter().filter(|name| **name == once).count(), 1, "{once}");
    }
    Ok(())
}

#[test]
fn every_module_says_what_it_is() -> Result<()> {
    for krate in CRATES {
        for (path, text) in sources(krate)? {
            let headed = text.starts_with("//!");
            assert!(headed, "{} has no //! header", path.display());
            for (n, line) in text.lines().enumerate() {
                let long = line.chars().count() > 100;
                assert!(!long, "{}:{} is over 100 characters", path.display(), n + 1);
            }
        }
    }
    Ok(())
}

#[test]
fn what_the_readme_shows_is_what_ci_runs() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let ci = fs::read_to_string(root().join(".ci/run"))?;
    assert!(readme.contains("cargo test --workspace"));
    assert!(readme.contains("cargo run --release -- demo"));
    assert!(ci.contains("cargo test --workspace"));
    Ok(())
}

/// The rows of a table of docs/fleet.md name what there is: each example of the specification, and
/// each test that has the number of one.
#[test]
fn every_example_of_the_fleet_has_its_tests() -> Result<()> {
    let text = fs::read_to_string(root().join("docs/fleet.md"))?;
    let (_, table) = text.split_once("## The examples").context("the table")?;
    let mut told = std::collections::BTreeSet::new();
    for n in 1..=28 {
        let row = table.lines().find_map(|line| line.strip_prefix(&format!("| X{n:02} |")));
        let row = row.with_context(|| format!("X{n:02} is not in the table"))?;
        let names = row.split('`').skip(1).step_by(2).filter(|name| name.starts_with('x'));
        let names: Vec<_> = names.map(String::from).collect();
        assert!(!names.is_empty() || row.starts_with(" none: "), "X{n:02} is shown by nothing");
        let is_own = |name: &String| name.starts_with(&format!("x{n:02}_"));
        assert!(names.iter().all(is_own), "X{n:02}: {names:?}");
        told.extend(names);
    }
    let mut there = std::collections::BTreeSet::new();
    let mut all: Vec<String> = Vec::new();
    for krate in CRATES {
        all.extend(sources(krate)?.into_iter().map(|(_, text)| text));
    }
    for entry in fs::read_dir(root().join("tests/tests/stories"))? {
        let path = entry?.path();
        if path.is_file() {
            all.push(fs::read_to_string(path)?);
        }
    }
    for text in &all {
        let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn x"));
        let names = names.filter_map(|rest| rest.split_once("()")).map(|(name, _)| name);
        let is_number = |name: &&str| name.len() > 3 && name[..2].parse::<u8>().is_ok();
        there.extend(names.filter(is_number).map(|name| format!("x{name}")));
    }
    assert_eq!(told, there, "docs/fleet.md and the tests are not of one mind");
    Ok(())
}
