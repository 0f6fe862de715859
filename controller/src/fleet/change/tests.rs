//! Tests of `change`.

use super::*;
use crate::fleet::book::testing::{book, content};
use crate::fleet::book::{Book, Roll, Wish};
use crate::fleet::domain::{Domain, Wild};

fn d(text: &str) -> Domain {
    text.parse().expect(text)
}

fn p(text: &str) -> DomainPath {
    text.parse().expect(text)
}

fn pen() -> Pen {
    Pen {
        by: Author { user: "ada".into(), host: "desk".into(), pid: 7 },
        at_ms: 0,
        note: "".into(),
    }
}

fn policy(frequency: &str) -> Policy {
    let (command, exclude, optional) = (String::new(), Vec::new(), false);
    let (frequency, editor) = (frequency.into(), None);
    Policy { frequency, command, editor, delete: false, exclude, optional }
}

fn with(paths: &[&str]) -> Book {
    let mut book = book();
    for path in paths {
        book.install(&p(path), content(path), policy("day"), &pen()).expect(path);
    }
    book
}

#[track_caller]
fn refused(result: Done, says: &str) {
    let error = result.expect_err(says).to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn a_domain_with_contents_stays_unless_it_must_go() {
    let mut book = with(&["osgrp.adm:/etc/issue", "cc.adm:/etc/issue"]);
    book.merge(&p("cc.adm:/etc/issue"), &p("osgrp.adm:/etc/issue")).expect("shared");
    refused(book.clone().delete_domain(&d("osgrp.adm"), false), "osgrp.adm:/etc/issue, host h3");
    let effect = book.delete_domain(&d("osgrp.adm"), true).expect("it must go");
    assert_eq!(effect.notes, ["osgrp is UNKNOWN now at h3, h4"]);
    assert_eq!(book.entries.len(), 1);
    assert_eq!(book.sources.len(), 1, "what others share stays");
    let text = |name| book.domains(name).iter().map(Domain::to_string).collect::<Vec<_>>();
    assert_eq!(text("h3"), ["adm"]);
    assert_eq!(text("h4"), ["adm", "disked.ws.riscos.lab1.prt"]);
}

#[test]
fn a_clone_shares_all_files() {
    let mut book = with(&["cc.adm:/etc/issue", "sunos.cc.adm:/etc/motd", "osgrp.adm:/x"]);
    book.create_domain(&d("new.cc.adm")).expect("made");
    book.clone_domain(&d("cc.adm"), &d("c2.adm")).expect("cloned");
    let paths: Vec<String> = book.entries.keys().map(DomainPath::to_string).collect();
    assert!(paths.contains(&"c2.adm:/etc/issue".into()), "{paths:?}");
    assert!(paths.contains(&"sunos.c2.adm:/etc/motd".into()), "{paths:?}");
    assert_eq!((book.entries.len(), book.sources.len()), (5, 3));
    assert!(book.levels.verify(&d("new.c2.adm"), Wild::Off).is_ok());
    refused(book.clone().clone_domain(&d("cc.adm"), &d("c2.adm")), "exists already");
    refused(book.clone().clone_domain(&d("cc.adm"), &d("x.cc.adm")), "not at the same level");
    refused(book.clone().clone_domain(&d("nosuch.adm"), &d("c3.adm")), "unknown group");
}

#[test]
fn a_lock_is_for_its_holder() {
    let mut book = with(&["cc.adm:/a"]);
    let path = p("cc.adm:/a");
    book.lock(&path, "secret".into(), &pen()).expect("free");
    refused(book.clone().lock(&path, "other".into(), &pen()), "locked by ada@desk (process 7)");
    refused(book.clone().put(&path, content("b"), None, &pen()), "locked by");
    refused(book.clone().remove(std::slice::from_ref(&path)), "locked by");
    let effect = book.put(&path, content("b"), Some("secret"), &pen()).expect("the holder");
    assert_eq!(effect.revisions[0].1.number, 2);
    book.unlock(&path, None).expect("anybody may");
    refused(book.clone().unlock(&path, None), "not locked");
    refused(book.put(&path, content("c"), Some("secret"), &pen()), "not locked");
}

#[test]
fn equal_content_is_no_revision() {
    let mut book = with(&["cc.adm:/a"]);
    let before = book.clone();
    let effect = book.put(&p("cc.adm:/a"), content("cc.adm:/a"), None, &pen()).expect("the same");
    assert!(effect.touched.is_empty() && book == before);
}

#[test]
fn a_change_of_shared_content_touches_all_who_share_it() {
    let mut book = with(&["cc.adm:/a", "osgrp.adm:/b"]);
    book.set_policy(&p("osgrp.adm:/b"), PolicyEdit::Command("true".into())).expect("set");
    let effect = book.merge(&p("cc.adm:/a"), &p("osgrp.adm:/b")).expect("merged");
    assert_eq!(effect.touched, [p("osgrp.adm:/b")].into());
    assert_eq!(book.entries[&p("osgrp.adm:/b")].command, "true");
    assert!(book.merge(&p("cc.adm:/a"), &p("osgrp.adm:/b")).expect("again").touched.is_empty());
    let effect = book.put(&p("cc.adm:/a"), content("new"), None, &pen()).expect("put");
    assert_eq!(effect.touched, [p("cc.adm:/a"), p("osgrp.adm:/b")].into());
}

#[test]
fn a_clash_names_host_path_and_both() {
    let old = with(&["common.adm:/etc/motd", "osgrp.adm:/etc/motd", "riscos.common.adm:/etc/motd"]);
    let mut new = old.clone();
    let path = p("common.osgrp.adm:/etc/motd");
    new.install(&path, content("x"), policy("day"), &pen()).expect("by itself it is right");
    let (old, new) = (Roll::of(&old), Roll::of(&new));
    let (host, one, other) = new.new_clash(&old).expect("a clash");
    assert_eq!((host, one, other), ("h3", &p("riscos.common.adm:/etc/motd"), &path));
    assert_eq!(new.new_clash(&new), None, "what clashed before does not hold up what comes");
}

#[test]
fn text_forms_change_all_or_nothing() {
    let mut book = with(&["cc.adm:/a", "osgrp.adm:/b"]);
    let before = book.clone();
    refused(book.clone().import_files("s1:/a:cc.adm:day::EDITOR\n", false), "osgrp.adm:/b");
    refused(book.import_files("s9:/a:cc.adm:day::EDITOR\n", true), "line 1: s9");
    refused(book.import_files("s1:/a:nosuch.adm:day::EDITOR\n", true), "line 1: nosuch.adm");
    refused(book.import_files("s1:/a:cc.adm:never::EDITOR\n", true), "line 1: unknown frequency");
    refused(book.import_files(&"s1:/a:cc.adm:day::EDITOR\n".repeat(2), true), "line 2");
    refused(book.import_hosts("", false), "h1, h2");
    refused(book.import_config("level = []\n[frequency]\n"), "there are none");
    refused(book.import_config("[frequency]\n[[level]]\nname = 3\n"), "line 3: invalid type");
    assert_eq!(book, before);
    let config = toml::to_string(&book.config()).expect("a text");
    book.import_config(&config).expect("it is its own");
    assert_eq!(book, before);
    let wrong = config.replace("0 3 * * *", "0 3 * *");
    refused(book.import_config(&wrong), "frequency day: cron");
    let without = config.replace("\"osgrp.adm\", ", "");
    assert_ne!(without, config);
    refused(book.import_config(&without), "unknown group \"osgrp\"");
}

#[test]
fn something_about_a_host() {
    let mut book = book();
    let domains = vec![d("ws.riscos.lab1.prt"), d("sun3.sunos.cc.adm")];
    let edit = HostEdit { domains: Some(domains), ..HostEdit::default() };
    book.set_host("new", &edit).expect("recorded");
    let text = |book: &Book, name: &str| {
        book.domains(name).iter().map(Domain::to_string).collect::<Vec<_>>()
    };
    assert_eq!(text(&book, "new"), ["disked.ws.riscos.lab1.prt", "disked.sun3.sunos.cc.adm"]);
    let edit = HostEdit { ip: Some("10.0.0.1".into()), ..HostEdit::default() };
    book.set_host("new", &edit).expect("changed");
    assert_eq!(text(&book, "new").len(), 2);
    let edit = HostEdit { domains: Some(vec![d("sun4.riscos.cc.adm")]), ..HostEdit::default() };
    refused(book.set_host("new", &edit), "not possible with os riscos");
    refused(book.remove_host("nobody"), "nobody: unknown host");
}

/// Who gets an entry.
fn gets(book: &Book, path: &str) -> Vec<String> {
    let roll = Roll::of(book);
    let places = roll.of_entry(&p(path));
    places.iter().map(|place| roll.members[place.0 as usize].name.clone()).collect()
}

#[test]
fn what_is_optional_goes_to_subscribers_only() {
    let mut book = with(&["osgrp.adm:/opt/tool"]);
    let tool = p("osgrp.adm:/opt/tool");
    refused(book.clone().subscribe("h1", &tool, Wish::Operator), "is not optional");
    let before = book.clone();
    book.set_optional(&tool, true).expect("made so");
    assert!(book.may_move(&before) && gets(&book, "osgrp.adm:/opt/tool").is_empty());
    // An operator subscribes anybody, by any name.
    book.subscribe("loghost", &tool, Wish::Operator).expect("an alias of h1");
    book.subscribe("h3", &tool, Wish::Host).expect("its own wish");
    // That of a host outside of the domain rests until it is in it.
    book.subscribe("h2", &tool, Wish::Host).expect("its own wish");
    assert_eq!(gets(&book, "osgrp.adm:/opt/tool"), ["h1", "h3"]);
    let domains = Some(vec![d("ws.riscos.osgrp.adm")]);
    book.set_host("h2", &HostEdit { domains, ..HostEdit::default() }).expect("moved");
    assert_eq!(gets(&book, "osgrp.adm:/opt/tool"), ["h1", "h2", "h3"]);
    // A wish of one's own takes nothing back that operators have given.
    refused(book.clone().unsubscribe("h1", &tool, Wish::Host), "by an operator");
    book.subscribe("h1", &tool, Wish::Host).expect("it has it");
    refused(book.clone().unsubscribe("h1", &tool, Wish::Host), "by an operator");
    book.unsubscribe("h3", &tool, Wish::Host).expect("its own");
    refused(book.clone().unsubscribe("h3", &tool, Wish::Operator), "h3 has not subscribed");
    refused(book.clone().subscribe("nobody", &tool, Wish::Operator), "nobody: unknown host");
    // A clone has none, and a host that goes takes its own along.
    book.clone_domain(&d("osgrp.adm"), &d("o2.adm")).expect("cloned");
    assert!(gets(&book, "o2.adm:/opt/tool").is_empty());
    book.remove_host("h2").expect("removed");
    assert_eq!(gets(&book, "osgrp.adm:/opt/tool"), ["h1"]);
    book.set_optional(&tool, false).expect("for all again");
    assert_eq!(gets(&book, "osgrp.adm:/opt/tool"), ["h3", "h4"]);
}

#[test]
fn two_subscriptions_to_one_path_clash() {
    let mut book = with(&["osgrp.adm:/t", "cc.adm:/t"]);
    for path in ["osgrp.adm:/t", "cc.adm:/t"] {
        book.set_optional(&p(path), true).expect(path);
    }
    book.subscribe("h1", &p("osgrp.adm:/t"), Wish::Operator).expect("one");
    let old = Roll::of(&book);
    book.subscribe("h1", &p("cc.adm:/t"), Wish::Operator).expect("by itself it is right");
    assert!(Roll::of(&book).new_clash(&old).is_some_and(|clash| clash.0 == "h1"));
}
