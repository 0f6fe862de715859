//! Outputs that are alike: one text and its variables on the link, every byte at the controller.

use std::io::{Read, Write};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Fleet, connect};

use crate::{answer, order};

const HOSTS: u64 = 12;

/// What came to the controller over its only link, in bytes.
fn received(fleet: &Fleet) -> Result<u64> {
    let mut socket = connect(fleet.state("controller").join("barid.sock"))?;
    socket.write_all(b"GET /v1/links HTTP/1.0\r\nhost: barid\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").context("a response")?;
    let links: Value = serde_json::from_str(body)?;
    links[0]["wire_received"].as_u64().context("a number of bytes")
}

fn expected(host: &str) -> String {
    let minute = host.trim_start_matches("site1-host");
    let line = |n| format!("{host} unit-{n} active since 12:{minute:0>2}, as it should be here\n");
    (0..1_500).map(line).collect()
}

#[test]
fn a_site_that_differs_in_names_and_times_is_little_more_than_one_host() -> Result<()> {
    let fleet = Fleet::tree(1, usize::try_from(HOSTS)?)?;
    let line = "awk -v host=$BARID_NODE 'BEGIN { minute = substr(host, 11); \
                for (n = 0; n < 1500; n++) printf \
                \"%s unit-%d active since 12:%02d, as it should be here\\n\", host, n, minute }'";
    let before = received(&fleet)?;
    let id = order(&fleet, &["run", "-a", "--async", "--json", line])?;
    let detail = fleet.wait_states(&id, &[("ok", HOSTS)])?;
    let came = received(&fleet)? - before;
    let mut all = 0;
    for n in 1..=HOSTS {
        let host = format!("site1-host{n}");
        let text = expected(&host);
        all += text.len();
        assert!(answer(&detail, &host)?["stdout"] == text.as_str(), "{host}");
    }
    println!("{all} bytes of output came as {came}");
    assert!(came < expected("site1-host1").len() as u64, "{came} of {all}");
    Ok(())
}
