//! Two distributions of one file, planned beside each other, with changes between.

use std::collections::BTreeMap;

use mesh::{HostId, HostSet};

use super::*;
use crate::fleet::hostdata::testing::HOSTS;
use crate::fleet::types::{Author, Change, NewChange, Origin};
use crate::tables::HostRow;

const CONFIG: &str = r#"
domains = ["adm", "prt", "cc.adm", "osgrp.adm", "lab1.prt"]
level = [
    { name = "view" },
    { name = "group" },
    { name = "os", values = ["sunos", "riscos"] },
    { name = "hardware", values = ["sun3", "sun4", "ws"] },
    { name = "disk", default = "disked", values = ["disked", "diskless"] },
]
[frequency.hour]
cron = "0 * * * *"
"#;
const MOTD: &str = "common.adm:/etc/motd";

struct Site {
    folder: tempfile::TempDir,
    planner: Planner,
}

/// The orders of a distribution, as they would be given.
type Drafts = Vec<(Draft, PlanRow)>;

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = relay::Journal::open(&folder.path().join("book"), 1 << 20).expect("opens");
        let packer = Packer::in_folder(folder.path());
        let fleet = Fleet::open(journal, packer.store.clone()).expect("opens");
        let site = Site { folder, planner: Planner { fleet, packer } };
        site.change(Change::ImportConfig { text: CONFIG.into() });
        site.change(Change::ImportHosts { text: HOSTS.into(), force: false });
        let row = |name: &str| HostRow {
            name: name.into(),
            site: String::new(),
            role: "host".into(),
            key: [1; 32],
            enrolled_ms: 1,
        };
        let hosts: BTreeMap<HostId, HostRow> =
            (1..=4).map(|n| (HostId(n), row(&format!("h{n}")))).collect();
        site.planner.fleet.meet(&hosts).expect("they are known");
        site.install(MOTD, "one\n");
        site
    }

    fn change(&self, change: Change) {
        let new = NewChange { by: Author::default(), change };
        assert!(self.planner.fleet.change(new).expect("it is right").changed);
    }

    fn source(&self, text: &str) -> Origin {
        let path = self.folder.path().join("source");
        std::fs::write(&path, text).expect("it is written");
        Origin::File(path.to_str().map(str::to_owned).expect("a plain path"))
    }

    fn install(&self, path: &str, text: &str) {
        self.change(Change::Install {
            content: self.source(text),
            path: path.into(),
            frequency: "hour".into(),
            editor: None,
            command: String::new(),
            exclude: Vec::new(),
            delete_extra: false,
            optional: false,
        });
    }

    fn edit(&self, path: &str, text: &str) {
        let content = self.source(text);
        let (path, note) = (path.into(), String::new());
        self.change(Change::Put { content, path, lock: None, note });
    }

    /// Plans and packs for all.
    fn plan(&self) -> Drafts {
        let due = self.planner.due(&NewDist::of("hour"), None).expect("it is planned");
        let made = (0..due.groups.len()).map(|at| {
            let made = self.planner.drafts(&due, at, "hour").expect("it is packed");
            assert!(made.broken.is_empty());
            made.drafts
        });
        made.flatten().collect()
    }

    /// The orders of a plan that may still be given, by their hosts and what they bring.
    fn given(&self, drafts: &Drafts) -> Vec<(HostSet, String)> {
        let current =
            drafts.iter().filter(|(draft, plan)| self.planner.is_current(plan, &draft.targets));
        let brings =
            |(draft, plan): &(Draft, PlanRow)| (draft.targets.clone(), self.text(&plan.files[0].1));
        current.map(brings).collect()
    }

    /// What is in a file of this root.
    fn text(&self, root: &str) -> String {
        let manifest = self.planner.fleet.shelf.manifest(root).expect("it is there");
        let content::Kind::File { chunks, .. } = &manifest.entries[0].kind else {
            panic!("{root} is no file")
        };
        let store = &self.planner.packer.store;
        let parts = chunks.iter().map(|c| store.get(&c.id).expect("reads").expect("is there"));
        String::from_utf8(parts.flatten().collect()).expect("a text")
    }
}

fn hosts(from: u32, to: u32) -> HostSet {
    HostSet::from_ranges([(from, to)])
}

#[test]
fn an_order_is_not_given_once_what_it_brings_was_edited() {
    let site = Site::new();
    let first = site.plan();
    assert_eq!(site.given(&first), [(hosts(1, 4), "one\n".into())]);
    site.edit(MOTD, "two\n");
    let second = site.plan();
    // Whichever gets its number last: it does not bring what is old.
    assert_eq!(site.given(&second), [(hosts(1, 4), "two\n".into())]);
    assert_eq!(site.given(&first), []);
    // What was planned anew is of the change that it brings.
    assert_eq!(site.given(&site.plan()), site.given(&second));
    assert_eq!(second[0].1.planned, site.planner.fleet.known().book.change);
    assert!(first[0].1.planned < second[0].1.planned);
}

#[test]
fn what_is_as_it_was_is_given_whatever_else_was_changed() {
    let site = Site::new();
    let first = site.plan();
    site.install("common.adm:/etc/other", "other\n");
    assert_eq!(site.given(&first).len(), 1);
    site.edit(MOTD, "two\n");
    site.change(Change::Rollback { path: MOTD.into(), revision: 1 });
    assert_eq!(site.given(&first).len(), 1, "it is the same again");
    site.change(Change::Remove { paths: vec![MOTD.into()] });
    assert_eq!(site.given(&first), [], "nobody is to get it any more");
}

#[test]
fn an_order_is_not_given_once_some_of_its_hosts_get_another_file_in_its_place() {
    let site = Site::new();
    let first = site.plan();
    // It wins at the two hosts of that group.
    site.install("cc.adm:/etc/motd", "for cc\n");
    assert_eq!(site.given(&first), []);
    let mut second = site.given(&site.plan());
    second.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(second, [(hosts(1, 2), "for cc\n".into()), (hosts(3, 4), "one\n".into())]);
}
