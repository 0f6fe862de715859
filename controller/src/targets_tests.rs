//! Tests of `targets`.

use super::*;
use crate::groups::Groups;
use crate::tables::facts::FactsRow;

/// Orders that never were: `last/failed` is everybody with an even number.
struct Even;

impl Past for Even {
    fn targets(&self, order: &str, state: Option<&str>) -> Result<HostSet, Failure> {
        assert_eq!(order, "last");
        Ok((1..=9).filter(|id| state.is_none() || id % 2 == 0).map(HostId).collect())
    }
}

/// Two sites with a relay each, and four hosts in one, three in the other; a3 and b2 are down.
fn scene() -> Scene {
    let rows = [
        (1, "a-relay", "lyon", "relay"),
        (2, "a1", "lyon", "host"),
        (3, "a2", "lyon", "host"),
        (4, "a3", "lyon", "host"),
        (5, "a10", "lyon", "host"),
        (6, "b-relay", "paris", "relay"),
        (7, "b1", "paris", "host"),
        (8, "b2", "paris", "host"),
        (9, "b3", "paris", "host"),
        (10, "deep", "paris", "relay"),
        (11, "alone", "", "host"),
    ];
    let row = |(id, name, site, role): (u32, &str, &str, &str)| {
        let (name, site, role) = (name.into(), site.into(), role.into());
        (HostId(id), HostRow { name, site, role, key: [0; 32], enrolled_ms: 0 })
    };
    Scene {
        hosts: Arc::new(rows.into_iter().map(row).collect()),
        up: HostSet::from_ranges([(1, 3), (5, 7), (9, 11)]),
        silent: HostSet::one(HostId(8)),
        labels: Arc::new(
            [(2, "10"), (3, "9"), (7, "7")].map(|(id, rack)| (HostId(id), labels(rack))).into(),
        ),
        facts: Arc::new(
            [(1, "debian"), (2, "plan9"), (4, "alpine"), (8, "alpine")]
                .map(|(id, os)| (HostId(id), Arc::new(facts(os))))
                .into(),
        ),
        below: BTreeMap::from([
            (HostId(1), HostSet::from_ranges([(1, 5)])),
            (HostId(6), HostSet::from_ranges([(6, 10)])),
            (HostId(11), HostSet::one(HostId(11))),
        ]),
        fleet: Known::default(),
    }
}

fn labels(rack: &str) -> Labels {
    [("rack".to_owned(), rack.to_owned()), ("os".to_owned(), "debian".to_owned())].into()
}

fn facts(os: &str) -> FactsRow {
    let facts = [("os", os), ("mem", "8G"), ("rack", "77")];
    let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    FactsRow { revision: 1, heard_ms: 0, facts }
}

const FILE: &str = r#"
web = "a[1-2],b1"
edge = "@web,@paris!b3"
wrong = "a1,nobody"
round = "@round"
[sources.racks]
file = "racks.toml"
[sources.up]
map = ["sh", "-c", "case $1 in x) echo 'a1 b[1-2]';; y) echo @web;; esac", "map", "$GROUP"]
list = ["printf", "x\ny\nz\n"]
reverse = ["sh", "-c", "test $1 = a1 && echo x y", "reverse", "$NODE"]
[sources.mute]
map = ["printf", "a1"]
all = ["printf", "a1,b1"]
"#;

fn folder() -> tempfile::TempDir {
    let state = tempfile::tempdir().expect("a folder");
    std::fs::write(state.path().join("groups.toml"), FILE).expect("written");
    std::fs::write(state.path().join("racks.toml"), "r1 = \"a1\"\nr2 = \"a2\"\n").expect("written");
    state
}

fn resolved(targets: &Targets) -> Result<String, Failure> {
    let (scene, state) = (scene(), folder());
    let book = Groups::new(state.path()).open()?;
    let set = Namespace::new(&scene, &book, &Even).resolve(targets)?;
    Ok(sets::fold(names(&scene.hosts, &set)))
}

fn of(set: &str) -> Result<String, Failure> {
    resolved(&Targets { sets: vec![set.into()], ..Targets::default() })
}

#[track_caller]
fn check(set: &str, expected: &str) {
    assert_eq!(of(set).as_deref(), Ok(expected), "{set}");
}

#[track_caller]
fn check_wrong(set: &str, code: &str, says: &str) {
    let error = of(set).expect_err(set).error;
    let text = format!("{} {}", error.message, error.help);
    assert_eq!(error.code, code, "{text}");
    assert!(text.contains(says), "{text}");
}

#[test]
fn names_and_patterns() {
    check("a[1-3]!a2,b1", "a[1,3],b1");
    check("a*", "a[1-3,10],a-relay,alone");
    check("a?", "a[1-3]");
    check("?1!b1", "a1");
    check("/^[ab][0-9]$/", "a[1-3],b[1-3]");
    check("@*&b*", "b[1-3],b-relay");
    check("(a1,b1)^(b1,b2)", "a1,b2");
}

#[test]
fn places_and_states() {
    check("@lyon", "a[1-3,10]");
    check("@site:paris", "b[1-3]");
    check("@site:*", "a[1-3,10],b[1-3]");
    check("@relay:a-relay", "a[1-3,10]");
    check("@relay:*", "a[1-3,10],b[1-3]");
    check("@role:relay", "a-relay,b-relay,deep");
    check("@up", "a[1-2,10],alone,b[1,3]");
    check("@down", "a3,b2");
    check("@stale", "b2");
    check("@down!@stale", "a3");
    check("@run:last", "a[1-3,10],a-relay,b[1-3],b-relay");
    check("@run:last/*!@role:relay", "a[1-3,10],b[1-3]");
    check("@run:last/failed&@lyon", "a[1,3]");
    check_wrong("@site:lyonn", "unknown-group", "did you mean @site:lyon?");
    check_wrong("@relay:a1", "unknown-group", "a1 is no relay");
    check_wrong("@relay:deep", "unknown-group", "linked to b-relay, not to the controller");
    check_wrong("@role:king", "unknown-group", "unknown role king");
}

#[test]
fn labels_of_hosts() {
    check("{rack>=9 && rack<77}", "a[1-2]");
    check("{os=deb* && rack<10}", "a2,b1");
    check("@lyon!{os}", "a10");
    check("{!os}&@paris", "b3");
    let rakc = "no host has a label or fact rakc did you mean rack?";
    check_wrong("{rakc>9}", "unknown-label", rakc);
    check_wrong("a1!{rack=78}", "unknown-label", "nobody is {rack=78}");
    check_wrong("{rack=}", "bad-request", "a value is missing");
}

#[test]
fn facts_of_hosts() {
    check("{os=alpine && mem>=8G}", "a3,b2");
    check("@lyon&{mem<=8192M}", "a[1,3]");
    check("{rack=77}", "a3,a-relay,b2");
    // What an operator says of it wins over what the host says of itself.
    check("@os:debian", "a[1-2],b1");
    check("@os:alpine&@paris", "b2");
    check("@os:*", "a[1-3],b[1-2]");
    check_wrong("{os=plan9}", "unknown-label", "nobody is {os=plan9}");
    check_wrong("@os:alpin", "unknown-group", "did you mean @os:alpine?");
}

#[test]
fn groups_of_files() {
    check("@web", "a[1-2],b1");
    check("@edge", "a[1-2],b[1-2]");
    check("@racks:r1", "a1");
    check("@racks:r[1-2]", "a[1-2]");
    check("@racks:*!a1", "a2");
    check("@racks:?2", "a2");
    check("@we*,a3", "a[1-3],b1");
    check_wrong("@wbe", "unknown-group", "did you mean @web?");
    check_wrong("@racks:r3", "unknown-group", "racks does not know it");
    check_wrong("@rack:r1", "unknown-group", "did you mean racks?");
    check_wrong("@x*", "unknown-group", "no group fits @x*");
    check_wrong("@wrong", "unknown-host", "group @wrong: unknown host nobody");
    check_wrong("@round", "bad-request", "refers to itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn groups_of_programs() {
    let checks = || {
        check("@up:x", "a1,b[1-2]");
        check("@up:y", "a[1-2],b1");
        check("@up:*!b1", "a[1-2],b2");
        check("@mute:*", "a1,b1");
        check("@mute:anything", "a1");
        // z is listed and empty, which no group has to be.
        check("a1,@up:z", "a1");
        check_wrong("@up:w", "unknown-group", "up does not know it");
        check_wrong("@mute:x?", "bad-request", "cannot say which groups it has");
        check_wrong("@mute:../x", "unknown-group", "mute does not know it");
        let (scene, state) = (scene(), folder());
        let book = Groups::new(state.path()).open().expect("readable");
        let namespace = Namespace::new(&scene, &book, &Even);
        assert_eq!(namespace.groups_of("up", "a1"), Ok(Some(vec!["@up:x".into(), "@up:y".into()])));
        assert_eq!(namespace.groups_of("racks", "a1"), Ok(None));
        assert_eq!(namespace.listed("up").map(|list| list.len()), Ok(3));
    };
    tokio::task::spawn_blocking(checks).await.expect("all is as it should be");
}

#[test]
fn unknown_names_are_named_and_nobody_is_left_is_an_error() {
    check_wrong("a1,a4", "unknown-host", "unknown host a4 did you mean a3?");
    check_wrong("a[4-5]", "unknown-host", "unknown hosts a[4-5] did you mean a3?");
    check_wrong("x[1-900]", "unknown-host", "unknown hosts x[1-900]");
    check_wrong("a1!zz*", "unknown-host", "no name fits zz*");
    check_wrong("a1!/zz/", "unknown-host", "no name fits /zz/");
    check_wrong("a1!a1", "empty-set", "nobody is left");
    check_wrong("a1,,", "bad-request", "column 4");
    check_wrong("^hosts", "bad-request", "files are read where");
    assert_eq!(resolved(&Targets::default()).expect_err("nobody").error.code, "bad-request");
}

#[test]
fn options_of_every_kind_work_together() {
    let check = |targets: Targets, expected: &str| {
        assert_eq!(resolved(&targets).as_deref(), Ok(expected), "{targets:?}");
    };
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let all = Targets { all: true, ..Targets::default() };
    check(all.clone(), "a[1-3,10],alone,b[1-3]");
    check(Targets { exclude: list(&["a[1-2]", "alone"]), ..all.clone() }, "a[3,10],b[1-3]");
    check(Targets { exclude_groups: list(&["lyon"]), ..all.clone() }, "alone,b[1-3]");
    check(Targets { limit: list(&["@lyon,b1", "@up"]), ..all.clone() }, "a[1-2,10],b1");
    check(Targets { groups: list(&["paris", "racks:r1"]), ..Targets::default() }, "a1,b[1-3]");
    let one_each =
        Targets { pick: "1/site".into(), seed: 4, limit: list(&["@site:*"]), ..all.clone() };
    let once = resolved(&one_each);
    assert_eq!(
        (once.clone(), once.map(|set| set.split(',').count())),
        (resolved(&one_each), Ok(2))
    );
    let error = resolved(&Targets { pick: "half".into(), ..all }).expect_err("no number");
    assert!(error.error.message.contains("\"half\" is no choice"), "{error:?}");
}

#[test]
fn files_that_are_wrong_are_named() {
    let check = |text: &str, says: &str| {
        let state = tempfile::tempdir().expect("a folder");
        std::fs::write(state.path().join("groups.toml"), text).expect("written");
        let error = Groups::new(state.path()).open().err().expect("it is wrong").error;
        assert!(error.message.contains(says), "{error:?}");
        assert!(error.message.contains(".toml"), "{error:?}");
    };
    check("web = 1", "web");
    check("up = \"a1\"", "@up has a meaning already");
    check("[sources.site]\nmap = [\"true\"]", "source site: the name has a meaning already");
    check("[sources.x]\nlist = [\"true\"]", "either a `file` or a `map`");
    check("[sources.x]\nfile = \"none.toml\"", "no such file");
    check("[sources.x]\nmap = [\"a\"]\ntimeout_s = 0", "timeout_s");
    check("[sources.\"x y\"]\nmap = [\"a\"]", "a source's name has");
    check("[sources.x]\nmpa = [\"a\"]", "unknown field `mpa`");
}

#[test]
fn domains_are_sets() {
    use crate::fleet::book::{Roll, testing};
    let book = testing::book();
    let roll = Arc::new(Roll::of(&book));
    let row = |name: &String| HostRow {
        name: name.clone(),
        site: String::new(),
        role: "host".into(),
        key: [0; 32],
        enrolled_ms: 0,
    };
    let hosts = book.enrolled.iter().map(|(name, own)| (HostId(own.id), row(name))).collect();
    let fleet = Known { book: Arc::new(book), roll };
    let scene = Scene { hosts: Arc::new(hosts), fleet, ..Scene::default() };
    let state = folder();
    let groups = Groups::new(state.path()).open().expect("opens");
    let of = |set: &str| {
        let targets = Targets { sets: vec![set.into()], ..Targets::default() };
        let set = Namespace::new(&scene, &groups, &Even).resolve(&targets)?;
        Ok::<_, Failure>(sets::fold(names(&scene.hosts, &set)))
    };
    assert_eq!(of("@domain:cc.adm").as_deref(), Ok("h[1-2]"));
    assert_eq!(of("@domain:sun4.sunos.cc.adm").as_deref(), Ok("h1"));
    assert_eq!(of("@domain:common.adm!@domain:osgrp.adm").as_deref(), Ok("h[1-2]"));
    assert_eq!(of("h1,@domain:prt").as_deref(), Ok("h[1,4]"));
    assert_eq!(of("@domain:h3.host").as_deref(), Ok("h3"));
    let error = of("@domain:nosuch.adm").expect_err("no such domain").error;
    assert_eq!(error.code, "unknown-group");
    assert!(error.message.contains("unknown group \"nosuch\" below adm"), "{}", error.message);
}
