//! Metrics: every node has a page in the OpenMetrics format, the controller fetches those of nodes
//! that no collector reaches, and the rules and the dashboard name nothing that is not there.

pub(crate) mod page;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::{Fleet, LIMIT, Spec, connect, wait_for};

use crate::bus::{bus, publish};
use crate::kept::{keep, put};

use page::Page;

/// One question by HTTP. Returns the head and the body.
fn ask(mut stream: impl Read + Write, path: &str) -> Result<(String, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: barid\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("a head")?;
    Ok((head.into(), body.into()))
}

fn ask_socket(fleet: &Fleet, node: &str, path: &str) -> Result<(String, String)> {
    let socket = if node == "controller" { "barid.sock" } else { "node.sock" };
    ask(connect(fleet.state(node).join(socket))?, path)
}

pub(crate) fn scrape(fleet: &Fleet, node: &str, path: &str) -> Result<Page> {
    let (head, body) = ask_socket(fleet, node, path)?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{node}{path}: {head}\n{body}");
    ensure!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    Page::read(&body).with_context(|| format!("the page of {node}{path}:\n{body}"))
}

/// A site whose relay has channels and a port for its metrics and keeps messages of the bus, with
/// something done and something failed, so that every family has a sample.
fn busy_site() -> Result<Fleet> {
    let mut fleet =
        Fleet::prepared(tests::binary()?, tests::PACE, &["--metrics", "127.0.0.1:0"], |state| {
            Ok(fs::write(
                state.join("alerts.toml"),
                "[channels.log]\nfile = { path = '/dev/null' }\n",
            )?)
        })?;
    let port = "[metrics]\nlisten = \"127.0.0.1:0\"\n";
    fleet.add(&Spec::new("relay", "r1", "controller").at("lyon").with(port))?;
    for name in ["web1", "web2"] {
        fleet.add(&Spec::new("host", name, "r1").at("lyon"))?;
    }
    fleet.wait_up(3)?;
    fleet.barid(&["run", "-a", "test $BARID_NODE = web1"])?;
    let source = fleet.path().join("source");
    fs::create_dir(&source)?;
    // Nothing that could be made small enough to travel inside of the order.
    fs::write(source.join("file"), tests::noise(1, 300_000))?;
    let source = source.to_str().context("a path")?;
    ensure!(fleet.barid(&["push", source, "-a", "--dest", "/srv"])?.status.success());
    keep(&fleet, "r1", "name = \"jobs\"\nsubject = \"jobs.>\"\npolicy = \"queue\"\n")?;
    put(&fleet, "web1", "jobs.a", "1")?;
    put(&fleet, "web1", "jobs.a", "2")?;
    // Too long to be kept.
    ensure!(publish(&fleet, "web1", "jobs.a", &"x".repeat(61_441))?);
    ensure!(bus(&fleet, "r1", &["take", "jobs.>", "--count", "1", "--hold"])?.status()?.success());
    Ok(fleet)
}

#[test]
fn every_node_has_a_page_and_the_controller_fetches_those_of_others() -> Result<()> {
    let fleet = busy_site()?;
    let closed = [("kind", "run"), ("result", "failed")];
    let own = wait_for("the run to be counted", LIMIT, || {
        let page = scrape(&fleet, "controller", "/metrics")?;
        Ok((page.value("barid_job_targets_total", &closed) == Some(1.0)).then_some(page))
    })?;
    assert_eq!(own.value("barid_nodes", &[("state", "up")]), Some(4.0));
    assert_eq!(own.value("barid_nodes_enrolled", &[]), Some(3.0));
    assert_eq!(own.value("barid_alert_messages_waiting", &[("channel", "log")]), Some(0.0));
    let at = |dir, class| [("side", "relay"), ("peer", "r1"), ("dir", dir), ("class", class)];
    for class in ["beats", "control", "reports"] {
        let received = own.value("barid_link_bytes_total", &at("received", class));
        assert!(received.is_some_and(|bytes| bytes > 0.0), "{class}: {received:?}");
    }
    let web1 = scrape(&fleet, "web1", "/metrics")?;
    let ok = [("kind", "run"), ("result", "ok")];
    assert_eq!(web1.value("barid_job_results_total", &ok), Some(1.0));
    assert_eq!(web1.value("barid_content_installed_bytes_total", &[]), Some(300_000.0));
    assert_eq!(web1.value("barid_parent_linked", &[]), Some(1.0));
    // By way of the controller: the same as there.
    let relay = scrape(&fleet, "controller", "/metrics?relay=r1")?;
    let direct = scrape(&fleet, "r1", "/metrics")?;
    assert_eq!(relay.families().collect::<Vec<_>>(), direct.families().collect::<Vec<_>>());
    assert_eq!(
        relay.value("barid_build_info", &[("version", "0.1.0"), ("role", "relay")]),
        Some(1.0)
    );
    assert_eq!(relay.value("barid_links", &[("side", "host")]), Some(2.0));
    let jobs =
        |page: &Page, name, more| page.value(name, &[&[("keep", "jobs")][..], more].concat());
    assert_eq!(jobs(&relay, "barid_bus_kept_messages", &[("policy", "queue")]), Some(2.0));
    assert_eq!(jobs(&relay, "barid_bus_kept_waiting", &[]), Some(1.0), "one is taken");
    assert!(jobs(&relay, "barid_bus_kept_bytes", &[]) > Some(100.0));
    assert_eq!(jobs(&relay, "barid_bus_kept_lost_total", &[("why", "size")]), Some(1.0));
    let sent = [("side", "host"), ("dir", "sent"), ("class", "content")];
    let sent = relay.value("barid_link_bytes_total", &sent);
    assert!(sent.is_some_and(|bytes| bytes > 0.0), "{sent:?}");
    for page in [&own, &relay, &direct, &web1] {
        let hosts = ["web1", "web2"];
        assert!(!page.mentions(&hosts), "no page names hosts");
    }
    for node in ["controller", "r1"] {
        let log = fleet.log(node);
        let addr = log.lines().find(|line| line.contains("metrics are served"));
        let addr = addr.and_then(|line| line.split("addr=").nth(1)).context("an address")?;
        let addr = addr.split_whitespace().next().context("an address")?;
        let (head, body) = ask(TcpStream::connect(addr)?, "/metrics")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        Page::read(&body)?;
        // The operators' requests are not to be had there.
        let (head, _) = ask(TcpStream::connect(addr)?, "/v1/hosts")?;
        ensure!(head.starts_with("HTTP/1.1 404"), "{head}");
        // Nobody who can reach a port makes work for the links.
        let (head, body) = ask(TcpStream::connect(addr)?, "/metrics?relay=r1")?;
        let is_other = body.contains("role=\"relay\"");
        ensure!(is_other == (node == "r1"), "{node}: {head} {body}");
    }
    Ok(())
}

#[test]
fn who_is_not_there_is_told_so() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    let (head, body) = ask_socket(&fleet, "controller", "/metrics?relay=nobody")?;
    assert!(head.starts_with("HTTP/1.1 404") && body.contains("no node nobody"), "{head} {body}");
    let (head, body) = ask_socket(&fleet, "controller", "/metrics?host=x")?;
    assert!(head.starts_with("HTTP/1.1 400") && body.contains("relay=NAME"), "{head} {body}");
    fleet.kill("site1-relay")?;
    let gone = wait_for("the relay to be away", LIMIT, || {
        let (head, body) = ask_socket(&fleet, "controller", "/metrics?relay=site1-relay")?;
        Ok((!head.starts_with("HTTP/1.1 200")).then_some((head, body)))
    })?;
    assert!(gone.0.starts_with("HTTP/1.1 503"), "{gone:?}");
    // What the link has carried is not forgotten with it.
    let page = scrape(&fleet, "controller", "/metrics")?;
    let beats = [("side", "relay"), ("peer", "site1-relay"), ("dir", "sent"), ("class", "beats")];
    assert!(page.value("barid_link_bytes_total", &beats).is_some_and(|bytes| bytes > 0.0));
    Ok(())
}

#[test]
fn rules_and_dashboard_name_what_is_there() -> Result<()> {
    let fleet = busy_site()?;
    let pages = [("controller", "/metrics"), ("r1", "/metrics"), ("web1", "/metrics")];
    let pages = pages.map(|(node, path)| scrape(&fleet, node, path));
    let pages = pages.into_iter().collect::<Result<Vec<_>>>()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    for file in ["examples/prometheus-rules.yml", "examples/grafana.json", "docs/operations.md"] {
        let text = fs::read_to_string(root.join(file))?;
        let names = page::names(&text);
        ensure!(names.len() > 10, "{file} names {names:?}");
        for name in names {
            let there = pages.iter().any(|page| page.has(&name));
            ensure!(there, "{file} names {name}, which no node exports");
        }
    }
    let dashboard = fs::read_to_string(root.join("examples/grafana.json"))?;
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    ensure!(panels.iter().all(|panel| panel["targets"][0]["expr"].is_string()), "{panels:?}");
    Ok(())
}
