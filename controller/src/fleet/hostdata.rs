//! The text form of host records, and the tables that are made of them.
//!
//! One line for each address of a host: `IP ETHER NAME ALIASES RELAY VIEWS L2 L3 ...`, with lists
//! by commas; the k-th value of a level belongs to the k-th view, and a single one to all.
//! `NONE`, `UNKNOWN` and `IGNORE` stand where there is no value. A record keeps the words as they
//! were written, so that what is read is written again byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::domain::Domain;
use super::levels::Levels;

/// There is no value.
pub const NONE: &str = "NONE";
/// There should be a value, but nobody knows it yet.
pub const UNKNOWN: &str = "UNKNOWN";
/// No distribution for this host.
pub const IGNORE: &str = "IGNORE";

/// The most records, and the longest line.
const RECORDS: usize = 200_000;
const LINE: usize = 8 << 10;

/// One address of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: String,
    /// Its hardware address.
    pub ether: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// The relay that serves it.
    pub relay: String,
    /// Its views.
    pub views: Vec<String>,
    /// The values of the levels below, for all views or one for each.
    pub levels: Vec<Vec<String>>,
}

/// A line that cannot be read. Nothing of the text was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct LineError {
    /// Which line, the first is 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// Whether a word stands for no value.
pub fn is_place_holder(word: &str) -> bool {
    matches!(word, NONE | UNKNOWN | IGNORE)
}

impl Record {
    /// A host of which nothing but its name is known.
    pub fn named(name: &str, levels: usize) -> Record {
        let unknown = || vec![UNKNOWN.to_owned()];
        Record {
            name: name.into(),
            ip: UNKNOWN.into(),
            ether: UNKNOWN.into(),
            aliases: vec![NONE.into()],
            relay: UNKNOWN.into(),
            views: unknown(),
            levels: vec![unknown(); levels.saturating_sub(1)],
        }
    }

    /// Whether files go to it at all.
    pub fn is_ignored(&self) -> bool {
        self.views.iter().any(|view| view == IGNORE)
    }

    /// The domains that it belongs to, as deep as they are known, in the order of its views.
    pub fn domains(&self, levels: &Levels) -> Vec<Domain> {
        if self.is_ignored() {
            return Vec::new();
        }
        let views = self.views.iter().enumerate().filter(|(_, view)| !is_place_holder(view));
        let domain = |(k, view): (usize, &String)| {
            let mut words = vec![view.clone()];
            for (n, values) in self.levels.iter().enumerate() {
                let value = values.get(k).or(values.first()).filter(|word| !is_place_holder(word));
                let default = || levels.levels.get(n + 1).and_then(|level| level.default.as_ref());
                match value.or_else(default) {
                    Some(word) => words.push(word.clone()),
                    None => break,
                }
            }
            Domain::of(words)
        };
        views.map(domain).collect()
    }

    /// What of it is not known, by the names of its fields.
    pub fn unknown(&self, levels: &Levels) -> Vec<String> {
        let is_unknown = |words: &[String]| words.iter().any(|word| word == UNKNOWN);
        let one = std::slice::from_ref;
        let fields = [
            ("address", one(&self.ip)),
            ("ether", one(&self.ether)),
            ("aliases", &self.aliases[..]),
            ("relay", one(&self.relay)),
            ("views", &self.views),
        ];
        let levels = levels.levels.iter().skip(1).map(|level| level.name.as_str());
        let fields = fields.into_iter().chain(levels.zip(self.levels.iter().map(Vec::as_slice)));
        fields.filter(|(_, words)| is_unknown(words)).map(|(name, _)| name.to_owned()).collect()
    }

    /// What decides which files it gets.
    fn distribution(&self) -> (&String, &Vec<String>, &Vec<Vec<String>>) {
        (&self.relay, &self.views, &self.levels)
    }

    fn line(&self) -> String {
        let mut line =
            format!("{} {} {} {}", self.ip, self.ether, self.name, self.aliases.join(","));
        let rest = [std::slice::from_ref(&self.relay), &self.views];
        for words in rest.into_iter().chain(self.levels.iter().map(Vec::as_slice)) {
            line.push(' ');
            line.push_str(&words.join(","));
        }
        line
    }

    fn aliases(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().map(String::as_str).filter(|alias| !is_place_holder(alias))
    }
}

/// Writes records, sorted, a line each.
pub fn write<'a>(records: impl IntoIterator<Item = &'a Record>) -> String {
    let mut records: Vec<&Record> = records.into_iter().collect();
    records.sort();
    records.iter().map(|record| record.line() + "\n").collect()
}

/// Reads records, and checks them against the levels and one another.
pub fn read(text: &str, levels: &Levels) -> Result<Vec<Record>, LineError> {
    let mut records: Vec<Record> = Vec::new();
    let mut first: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (n, line) in text.lines().enumerate() {
        let at = |what: String| LineError { line: n + 1, what };
        if line.len() > LINE || records.len() == RECORDS {
            return Err(at(format!("more than {RECORDS} records, or a line over {LINE} bytes")));
        }
        let line = line.split('#').next().unwrap_or_default();
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.is_empty() {
            continue;
        }
        let record = record(&fields, levels).map_err(at)?;
        check(&record, levels).map_err(at)?;
        match first.get(&record.name) {
            None => drop(first.insert(record.name.clone(), (n + 1, records.len()))),
            Some((line, at_first)) => {
                let older: &Record = &records[*at_first];
                if older.ip == record.ip {
                    return Err(at(format!(
                        "{}: the address is in line {line} already",
                        record.name
                    )));
                }
                if older.distribution() != record.distribution() {
                    let what = "says something else of relay, views or levels";
                    return Err(at(format!("{}: line {line} {what}", record.name)));
                }
            }
        }
        records.push(record);
    }
    records.sort();
    Ok(records)
}

fn record(fields: &[&str], levels: &Levels) -> Result<Record, String> {
    let wanted = levels.levels.len() + 5;
    if fields.len() != wanted {
        let names = levels.levels.iter().skip(1).map(|level| level.name.to_uppercase());
        let names = names.collect::<Vec<_>>().join(" ");
        let found = fields.len();
        return Err(format!(
            "{found} fields instead of {wanted}: IP ETHER NAME ALIASES RELAY VIEWS {names}"
        ));
    }
    let list = |field: &str| field.split(',').map(String::from).collect::<Vec<_>>();
    Ok(Record {
        ip: fields[0].into(),
        ether: fields[1].into(),
        name: fields[2].into(),
        aliases: list(fields[3]),
        relay: fields[4].into(),
        views: list(fields[5]),
        levels: fields[6..].iter().map(|field| list(field)).collect(),
    })
}

/// Whether a record makes sense by itself.
pub fn check(record: &Record, levels: &Levels) -> Result<(), String> {
    let Record { name, ip, ether, aliases, relay, views, levels: values } = record;
    let is_name = |text: &String| {
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !text.is_empty() && text.len() <= 255 && text.chars().all(fine) && !text.starts_with('-')
    };
    if !is_name(name) || is_place_holder(name) {
        return Err(format!("{name:?} is no name of a host"));
    }
    if let Some(wrong) = aliases.iter().chain([relay]).find(|word| !is_name(word)) {
        return Err(format!("{name}: {wrong:?} is no name of a host"));
    }
    if ip.parse::<IpAddr>().is_err() && !is_place_holder(ip) {
        return Err(format!("{name}: {ip:?} is no address"));
    }
    let hex =
        |part: &str| (1..=2).contains(&part.len()) && part.chars().all(|c| c.is_ascii_hexdigit());
    let parts: Vec<&str> = ether.split(':').collect();
    let is_ether = parts.len() == 6 && parts.iter().all(|part| hex(part));
    if !is_ether && !is_place_holder(ether) {
        return Err(format!("{name}: {ether:?} is no hardware address"));
    }
    if views.len() > 1 && views.iter().any(|view| is_place_holder(view)) {
        return Err(format!("{name}: {} among other views", views.join(",")));
    }
    let distinct: BTreeSet<&String> = views.iter().collect();
    if distinct.len() < views.len() {
        return Err(format!("{name}: a view stands twice in {}", views.join(",")));
    }
    for (values, level) in values.iter().zip(levels.levels.iter().skip(1)) {
        if values.len() != 1 && values.len() != views.len() {
            let (found, views) = (values.len(), views.len());
            return Err(format!("{name}: {found} values of {} for {views} views", level.name));
        }
    }
    for domain in record.domains(levels) {
        let verified = levels.verify(&domain, super::domain::Wild::Off);
        verified.map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// A table made of host records, and what is wrong in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The lines.
    pub text: String,
    /// What stands twice.
    pub complaints: Vec<String>,
}

/// The hosts file, sorted by address. `several`: names may stand several times.
pub fn hosts_table<'a>(records: impl IntoIterator<Item = &'a Record>, several: bool) -> Table {
    let mut rows: Vec<(IpAddr, &Record)> = Vec::new();
    for record in records {
        rows.extend(record.ip.parse::<IpAddr>().ok().map(|ip| (ip, record)));
    }
    rows.sort();
    let mut table = Table::default();
    let (mut addresses, mut names, mut aliases) =
        (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for (ip, record) in rows {
        let mut line = format!("{ip} {}", record.name);
        record.aliases().for_each(|alias| line.extend([" ", alias]));
        table.text.push_str(&line);
        table.text.push('\n');
        let name = record.name.as_str();
        let mut complain = |what: &str, word: &str| {
            table.complaints.push(format!("duplicate {what} {word}: {name}"));
        };
        if !addresses.insert(ip) {
            complain("address", &ip.to_string());
        }
        if !names.insert(name) && !several {
            complain("name", name);
        }
        for alias in record.aliases() {
            let other = aliases.insert(alias, name).is_some_and(|other| other != name || !several);
            if other || names.contains(alias) {
                complain("alias", alias);
            }
        }
    }
    table
}

/// The ethers file.
pub fn ethers_table<'a>(records: impl IntoIterator<Item = &'a Record>) -> Table {
    let given = |record: &&Record| !is_place_holder(&record.ether);
    let mut rows: Vec<&Record> = records.into_iter().filter(given).collect();
    rows.sort_by_key(|record| (&record.ether, &record.name));
    let mut table = Table::default();
    let mut seen = BTreeSet::new();
    for Record { ether, name, .. } in rows {
        table.text.push_str(&format!("{ether} {name}\n"));
        if !seen.insert(ether.to_lowercase()) {
            table.complaints.push(format!("duplicate address {ether}: {name}"));
        }
    }
    table
}

/// Which hosts `chslave` means: those of a relay, or of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The clients of a relay.
    Relay(String),
    /// The hosts in a network: its first address and how many bits count.
    Network(IpAddr, u32),
}

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<From, String> {
        let wrong =
            || format!("{text}: neither a relay nor a network such as 10.1.2 or 10.0.0.0/8");
        if let Some((net, bits)) = text.split_once('/') {
            let net: IpAddr = net.parse().map_err(|_| wrong())?;
            let bits: u32 = bits.parse().map_err(|_| wrong())?;
            let most = if net.is_ipv4() { 32 } else { 128 };
            return if bits <= most { Ok(From::Network(net, bits)) } else { Err(wrong()) };
        }
        let parts: Vec<&str> = text.split('.').collect();
        let octets: Vec<u8> = parts.iter().filter_map(|part| part.parse().ok()).collect();
        if octets.len() == parts.len() && octets.len() <= 4 {
            let bits = 8 * octets.len();
            let mut whole = [0; 4];
            whole[..octets.len()].copy_from_slice(&octets);
            return Ok(From::Network(IpAddr::from(whole), u32::try_from(bits).unwrap_or(32)));
        }
        Ok(From::Relay(text.to_owned()))
    }
}

impl From {
    /// Whether a record is meant.
    pub fn has(&self, record: &Record) -> bool {
        match (self, record.ip.parse::<IpAddr>()) {
            (From::Relay(relay), _) => record.relay == *relay,
            (From::Network(net, bits), Ok(ip)) => within(*net, *bits, ip),
            (From::Network(..), Err(_)) => false,
        }
    }
}

fn within(net: IpAddr, bits: u32, ip: IpAddr) -> bool {
    let first = |a: u128, b: u128, width: u32| {
        let shift = width - bits.min(width);
        a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    };
    match (net, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => first(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => first(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! The hosts of the specification's examples.

    /// h1 to h4 and the gateway.
    pub(crate) const HOSTS: &str = "\
130.62.5.1 08:00:20:01:02:03 h1 loghost,mailhost r1 adm cc sunos sun4 NONE
130.62.5.2 UNKNOWN h2 NONE r1 adm cc sunos sun4 diskless
130.62.6.7 NONE h3 NONE r1 adm osgrp riscos ws NONE   # a comment
130.62.6.10 NONE h4 four r2 adm,prt osgrp,lab1 riscos ws disked
130.62.1.1 NONE gw NONE NONE IGNORE NONE NONE NONE NONE
";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::levels::testing::levels;

    #[test]
    fn the_example_is_read() {
        let levels = levels();
        let records = read(testing::HOSTS, &levels).expect("it is right");
        let domains = |name: &str| {
            let record = records.iter().find(|record| record.name == name).expect(name);
            record.domains(&levels).iter().map(Domain::to_string).collect::<Vec<_>>()
        };
        assert_eq!(domains("h1"), ["disked.sun4.sunos.cc.adm"]);
        assert_eq!(domains("h2"), ["diskless.sun4.sunos.cc.adm"]);
        assert_eq!(domains("h4"), ["disked.ws.riscos.osgrp.adm", "disked.ws.riscos.lab1.prt"]);
        assert!(domains("gw").is_empty());
        let unknown = records.iter().find(|record| record.name == "h2").expect("h2");
        assert_eq!(unknown.unknown(&levels), ["ether"]);
        let text = write(&records);
        assert_eq!(write(&read(&text, &levels).expect("again")), text);
    }

    #[test]
    fn what_is_wrong_names_the_line() {
        let good = testing::HOSTS.lines().next().expect("a line");
        let check = |line: &str, says: &str| {
            let error = read(&format!("{good}\n# x\n{line}\n"), &levels()).expect_err(line);
            assert!(error.line == 3 && error.what.contains(says), "{line}: {error}");
        };
        check("1.2.3.4 NONE x NONE r1 adm cc sunos sun4", "9 fields instead of 10");
        check("1.2.3 NONE x NONE r1 adm cc sunos sun4 NONE", "\"1.2.3\" is no address");
        check("1.2.3.4 xyz x NONE r1 adm cc sunos sun4 NONE", "no hardware address");
        check("1.2.3.4 NONE x NONE r1 adm nosuch sunos sun4 NONE", "unknown group \"nosuch\"");
        check("1.2.3.4 NONE x NONE r1 adm cc riscos sun4 NONE", "not possible with os riscos");
        check("1.2.3.4 NONE x NONE r1 adm,prt cc,lab1,z sunos sun4 NONE", "3 values of group");
        check("1.2.3.4 NONE h1 NONE r2 adm cc sunos sun4 NONE", "line 1 says something else");
        check("130.62.5.1 NONE h1 NONE r1 adm cc sunos sun4 NONE", "in line 1 already");
        check("1.2.3.4 NONE NONE NONE r1 adm cc sunos sun4 NONE", "no name of a host");
        check("1.2.3.4 NONE x NONE r1 adm,adm cc sunos sun4 NONE", "stands twice");
    }

    #[test]
    fn tables_say_what_stands_twice() {
        let more = "130.62.5.1 NONE h5 four r1 adm cc sunos sun4 NONE\n\
                    10.0.0.9 NONE h1 NONE r1 adm cc sunos sun4 NONE\n";
        let records = read(&(testing::HOSTS.to_owned() + more), &levels()).expect("it is right");
        let table = hosts_table(&records, false);
        assert_eq!(table.text.lines().count(), 7);
        assert_eq!(table.text.lines().next(), Some("10.0.0.9 h1"));
        assert_eq!(
            table.complaints,
            [
                "duplicate name h1: h1",
                "duplicate address 130.62.5.1: h5",
                "duplicate alias four: h4"
            ]
        );
        assert_eq!(hosts_table(&records, true).complaints.len(), 2);
        assert_eq!(ethers_table(&records).text, "08:00:20:01:02:03 h1\n");
    }

    #[test]
    fn networks_and_relays() {
        let records = read(testing::HOSTS, &levels()).expect("it is right");
        let meant = |from: &str| {
            let from: From = from.parse().expect(from);
            let meant = records.iter().filter(|record| from.has(record));
            meant.map(|record| record.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(meant("r1"), ["h1", "h2", "h3"]);
        assert_eq!(meant("130.62.6"), ["h3", "h4"]);
        assert_eq!(meant("130.62.4.0/23"), ["h1", "h2"]);
        assert_eq!(meant("0.0.0.0/0").len(), 5);
        assert!(meant("130.62.60").is_empty());
        assert!("10.0.0.0/33".parse::<From>().is_err());
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![Just(NONE.to_owned()), Just(UNKNOWN.to_owned()), "[a-z][a-z0-9_.-]{0,6}"]
    }

    fn record() -> impl Strategy<Value = Record> {
        let list = || proptest::collection::vec(word(), 1..3);
        let os = prop_oneof![Just("sunos"), Just(UNKNOWN)];
        let views = prop_oneof![
            Just((vec!["adm"], vec!["cc"])),
            Just((vec!["prt", "adm"], vec!["lab1", "osgrp"])),
            Just((vec![IGNORE], vec![NONE])),
            Just((vec![UNKNOWN], vec![UNKNOWN])),
        ];
        let name = "[a-z][a-z0-9]{0,8}";
        (name, any::<[u8; 4]>(), any::<[u8; 6]>(), list(), word(), views, os).prop_map(
            |(name, ip, ether, aliases, relay, (views, groups), os)| {
                let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
                let ether = ether.map(|byte| format!("{byte:02x}")).join(":");
                Record {
                    ip: IpAddr::from(ip).to_string(),
                    levels: vec![words(&groups), words(&[os]), words(&["sun4"]), words(&[NONE])],
                    views: words(&views),
                    name,
                    ether,
                    aliases,
                    relay,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(records in proptest::collection::btree_map("[a-z]{1,6}", record(), 0..20)) {
            let mut records: Vec<Record> =
                records.into_iter().map(|(name, record)| Record { name, ..record }).collect();
            let text = write(&records);
            records.sort();
            prop_assert_eq!(read(&text, &levels()), Ok(records.clone()));
            prop_assert_eq!(write(&read(&text, &levels()).expect("read")), text);
        }

        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,200}") {
            read(&text, &levels()).ok();
        }
    }
}
