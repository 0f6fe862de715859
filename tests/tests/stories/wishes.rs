//! What hosts ask for themselves: optional files, subscriptions, and files now.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{LIMIT, show, wait_for};

use crate::dist::site;
use crate::domains::Site;

impl Site {
    /// `barid file` at a host, by its node's socket.
    fn here(&self, host: &str, words: &[&str]) -> Result<Command> {
        let socket = self.fleet.state(host).join("node.sock");
        let mut command = self.fleet.command(&[&["file"], words].concat());
        command.env("BARID_BUS", socket);
        Ok(command)
    }

    fn asks(&self, host: &str, words: &[&str]) -> Result<Output> {
        Ok(self.here(host, words)?.output()?)
    }

    /// What a host asks for and gets.
    #[track_caller]
    pub(crate) fn gets(&self, host: &str, words: &[&str]) -> Result<String> {
        let output = self.asks(host, words)?;
        let context = format!("{host} {words:?}: {} {}", output.status, show(&output.stderr));
        ensure!(output.status.success(), context);
        Ok(show(&output.stdout))
    }

    /// What a host asks for and does not get.
    #[track_caller]
    fn is_refused(&self, host: &str, words: &[&str], says: &str) -> Result<()> {
        let output = self.asks(host, words)?;
        let context = format!("{host} {words:?}: {} {}", output.status, show(&output.stderr));
        ensure!(output.status.code() == Some(1), context);
        ensure!(show(&output.stderr).contains(says), context);
        Ok(())
    }

    /// Waits until a host's questions reach the controller. One that is lost on the way, where a
    /// relay does not know yet who wants it, is never answered: then it asks again.
    pub(crate) fn wait_heard(&self, host: &str) -> Result<()> {
        wait_for(&format!("{host} to be heard"), LIMIT, || {
            let listed = self.asks(host, &["subscriptions", "--within", "3s"])?;
            Ok(listed.status.success().then_some(()))
        })
    }
}

#[test]
fn x27_subscriptions_and_requests() -> Result<()> {
    let site = site()?;
    for (name, text) in [("tool", "one\n"), ("motd", "hello\n"), ("rest", "rest\n")] {
        site.write(name, text)?;
    }
    let pack = site.fleet.path().join("pack");
    fs::create_dir_all(pack.join("bin"))?;
    fs::write(pack.join("bin/run"), "first\n")?;
    let (tool, package) = ("osgrp.adm:/etc/tool", "common.adm:/opt/pack");
    site.done(&format!("-o install --optional ./tool {tool} day"))?;
    site.done(&format!("-o install --optional ./pack {package} day"))?;
    site.done("-o install ./motd common.adm:/etc/motd day")?;
    // Nobody lacks what nobody has subscribed to.
    site.done("-o dist --wait day")?;
    site.prints("-o status", "")?;
    assert_eq!(site.at("h3", "/etc/tool"), None);

    // The operator gives it to a host of another domain.
    site.refused("-o subscribe h1 common.adm:/etc/motd", 1, "is not optional")?;
    site.refused(&format!("-o subscribe nobody {tool}"), 1, "unknown host")?;
    site.done(&format!("-o subscribe h1 {tool}"))?;
    assert_eq!(site.no("-o status")?, format!("{tool}: h1\n"));
    let files = site.done("-o domain -F h1")?;
    assert!(files.contains(&format!("day {tool} subscription\n")), "{files}");
    assert!(site.done("-o list osgrp.adm")?.contains(&format!("day {tool} optional\n")));
    site.done("-o dist --wait day")?;
    assert_eq!(site.at("h1", "/etc/tool").as_deref(), Some("one\n"));
    site.write("tool", "two\n")?;
    site.done(&format!("-o cp ./tool {tool}"))?;
    assert_eq!(site.no("-o status")?, format!("{tool}: h1\n"));
    site.done("-o dist --wait day")?;
    assert_eq!(site.at("h1", "/etc/tool").as_deref(), Some("two\n"));
    assert_eq!(site.at("h3", "/etc/tool"), None);

    // A host asks for a package: once, and again only when it asks again.
    site.wait_heard("h2")?;
    site.gets("h2", &["request", "/opt/pack"])?;
    assert_eq!(site.at("h2", "/opt/pack/bin/run").as_deref(), Some("first\n"));
    fs::write(pack.join("bin/run"), "second\n")?;
    site.done(&format!("-o cp ./pack {package}"))?;
    site.prints("-o status", "")?;
    site.done("-o dist --wait day")?;
    assert_eq!(site.at("h2", "/opt/pack/bin/run").as_deref(), Some("first\n"));
    let held = site.done(&format!("-o subscriptions {package}"))?;
    assert_eq!(held, format!("{package} revision 2\n  by request, older: h2\n"));
    site.gets("h2", &["request", package])?;
    assert_eq!(site.at("h2", "/opt/pack/bin/run").as_deref(), Some("second\n"));
    let held = site.done(&format!("-o subscriptions {package}"))?;
    assert_eq!(held, format!("{package} revision 2\n  by request, newest: h2\n"));
    Ok(())
}

#[test]
fn a_host_subscribes_itself_to_what_its_domains_offer() -> Result<()> {
    let mut site = site()?;
    site.write("tool", "one\n")?;
    let tool = "osgrp.adm:/etc/tool";
    site.done(&format!("-o install --optional ./tool {tool} day"))?;
    site.write("motd", "hello\n")?;
    site.done("-o install ./motd common.adm:/etc/motd day")?;
    site.wait_heard("h3")?;
    let offered = site.gets("h3", &["subscriptions"])?;
    assert!(offered.contains(tool), "{offered}");
    site.gets("h3", &["subscribe", "/etc/tool"])?;
    assert_eq!(site.at("h3", "/etc/tool").as_deref(), Some("one\n"));
    let json: Value = serde_json::from_str(&site.gets("h3", &["subscriptions", "--json"])?)?;
    assert_eq!(json["offered"][0]["subscribed"], "host", "{json:#}");
    site.write("tool", "two\n")?;
    site.done(&format!("-o cp ./tool {tool}"))?;
    assert_eq!(site.no("-o status")?, format!("common.adm:/etc/motd: h1 h2 h3 h4\n{tool}: h3\n"));
    site.done("-o dist --wait day")?;
    assert_eq!(site.at("h3", "/etc/tool").as_deref(), Some("two\n"));

    // All of it is known after a restart.
    site.fleet.kill("controller")?;
    site.fleet.restart("controller")?;
    site.fleet.wait_up(6)?;
    let told = site.done(&format!("-o subscriptions {tool}"))?;
    assert_eq!(told, format!("{tool} revision 2\n  subscribers: h3\n"));
    site.wait_heard("h3")?;
    site.gets("h3", &["unsubscribe", tool])?;
    site.is_refused("h3", &["unsubscribe", tool], "nothing of the name")?;
    site.write("tool", "three\n")?;
    site.done(&format!("-o cp ./tool {tool}"))?;
    site.done("-o dist --wait day")?;
    // What it has stays, and is not made newer.
    assert_eq!(site.at("h3", "/etc/tool").as_deref(), Some("two\n"));

    // Asking without a controller ends at once, with a reason.
    site.fleet.kill("controller")?;
    let output = wait_for("h3 to know that nobody answers", LIMIT, || {
        let output = site.asks("h3", &["request", "/etc/motd", "--within", "2s"])?;
        Ok((output.status.code() == Some(6)).then_some(output))
    })?;
    let text = show(&output.stderr);
    assert!(text.contains("controller"), "{text}");
    Ok(())
}

#[test]
fn a_host_gets_nothing_that_is_not_for_it_and_asks_so_often_only() -> Result<()> {
    let site = site()?;
    site.write("secret", "secret\n")?;
    site.done("-o install --optional ./secret osgrp.adm:/etc/secret day")?;
    site.done("-o install ./secret osgrp.adm:/etc/other day")?;
    site.write("motd", "hello\n")?;
    site.done("-o install ./motd common.adm:/etc/motd day")?;
    site.wait_heard("h1")?;
    // What is for others and what is not there are told alike, and nothing changes.
    for name in ["/etc/secret", "osgrp.adm:/etc/other", "/nosuch", "x:/etc/../../root/x"] {
        site.is_refused("h1", &["request", name], "is for this host")?;
    }
    site.is_refused("h1", &["subscribe", "osgrp.adm:/etc/secret"], "is for this host")?;
    assert_eq!(site.at("h1", "/etc/secret"), None);
    let told = site.done("-o subscriptions osgrp.adm:/etc/secret")?;
    assert_eq!(told, "osgrp.adm:/etc/secret revision 1\n");
    // What changed by hand is put right.
    site.gets("h1", &["request", "/etc/motd"])?;
    fs::write(site.fleet.at("h1", "/etc/motd"), "changed by hand\n")?;
    site.gets("h1", &["request", "common.adm:/etc/motd"])?;
    assert_eq!(site.at("h1", "/etc/motd").as_deref(), Some("hello\n"));
    // Whoever asks all the time is told to wait, and another is not.
    let mut refused = None;
    for _ in 0..20 {
        let output = site.asks("h1", &["subscriptions"])?;
        if output.status.code() == Some(1) {
            refused = Some(show(&output.stderr));
            break;
        }
    }
    let text = refused.context("it may not ask for ever")?;
    assert!(text.contains("asks too often: try again in"), "{text}");
    site.wait_heard("h3")?;
    site.gets("h3", &["request", "/etc/other"])?;
    assert_eq!(site.at("h3", "/etc/other").as_deref(), Some("secret\n"));

    // On the host itself only root may, unless bus.toml says more.
    let socket = site.fleet.state("h3").join("node.sock");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(socket)?.permissions());
    assert_eq!(mode & 0o777, 0o600);
    Ok(())
}
