//! `--similar`: answers that differ only in names, numbers, times, addresses and ids, under one
//! template.
//!
//! Two answers are alike if their templates ([`mesh::similar`]) are equal, and their hosts ended in
//! the same state. What is the same at all hosts of a group is shown as it is; where they differ is
//! shown what they have there: `<host>` for their own names, `<3..17>` for numbers, `<up|down>` for
//! few values, and `<...>` for many. With `-v` each host's own values follow; `--json` has all of
//! them.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io;

use controller::sets::natural_cmp;
use data_encoding::BASE64;
use mesh::similar::{Template, split};
use serde::Serialize;

use crate::gathered::Group;
use crate::render::{RULE, View, text_of};
use crate::screen::{Screen, To};

/// How many values are shown where hosts differ.
const VALUES_SHOWN: usize = 3;

/// Hosts whose answers are alike.
struct Alike<'a> {
    template: Template,
    state: &'a str,
    code: Option<i32>,
    members: Vec<Member<'a>>,
}

/// Hosts that have given one answer. It is taken apart again whenever it is needed: fifty thousand
/// hosts with a hundred values each are too many to keep.
struct Member<'a> {
    text: usize,
    /// A host of which the text holds its name has the text to itself.
    name: &'a str,
    hosts: Vec<&'a str>,
}

/// All that are alike, with their texts.
struct Sorted<'a> {
    texts: Vec<Cow<'a, [u8]>>,
    groups: Vec<Alike<'a>>,
}

/// Shows the templates, that of the most hosts first.
pub(crate) fn show(screen: &mut Screen, view: &View, groups: &[Group<'_>]) -> io::Result<()> {
    let sorted = sort(view, groups);
    for alike in &sorted.groups {
        let gaps = sorted.gaps(alike);
        if !view.unlabelled {
            let hosts = view.counted(&alike.hosts());
            screen.label(To::Out, &format!("{RULE}{hosts}\n{RULE}"))?;
        }
        screen.remote(To::Out, &shown(&alike.template, &gaps))?;
        if screen.verbose {
            sorted.each(alike, |host, values| {
                // Whose line it is says its name already.
                let told = |gap: &Gap| gap.varies() && gap.has_others;
                let varies = values.iter().zip(&gaps).filter(|(_, gap)| told(gap));
                let values: Vec<&[u8]> = varies.map(|(value, _)| value.trim_ascii()).collect();
                screen.label(To::Out, &format!("  {host}:"))?;
                screen.remote(To::Out, &[b" ", values.join(&b"  "[..]).as_slice(), b"\n"].concat())
            })?;
        }
    }
    screen.flush()
}

/// One group for programs: pieces of text, and what each host has between them.
#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    set: String,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    /// One more than there are values.
    pieces: Vec<String>,
    values: HashMap<&'a str, Vec<String>>,
    /// Whether pieces and values are base64.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    binary: bool,
}

/// The same for programs, a line for each template.
pub(crate) fn print_json(screen: &mut Screen, view: &View, groups: &[Group<'_>]) -> io::Result<()> {
    let sorted = sort(view, groups);
    for alike in &sorted.groups {
        let texts = alike.members.iter().map(|member| &sorted.texts[member.text]);
        let binary = texts.into_iter().any(|text| std::str::from_utf8(text).is_err());
        let write = |bytes: &[u8]| match binary {
            true => BASE64.encode(bytes),
            false => String::from_utf8_lossy(bytes).into_owned(),
        };
        let mut values = HashMap::new();
        sorted.each(alike, |host, found| {
            values.insert(host, found.iter().map(|value| write(value)).collect());
            Ok(())
        })?;
        screen.json(&Line {
            r#type: "similar",
            set: view.fold(&alike.hosts()),
            state: alike.state,
            code: alike.code,
            pieces: alike.template.pieces().map(write).collect(),
            values,
            binary,
        })?;
    }
    Ok(())
}

fn sort<'a>(view: &View, groups: &[Group<'a>]) -> Sorted<'a> {
    let mut sorted = Sorted { texts: Vec::new(), groups: Vec::new() };
    let mut index: HashMap<(Template, &str, Option<i32>), usize> = HashMap::new();
    for group in groups {
        let text = text_of(view, group.answer);
        if text.is_empty() {
            continue;
        }
        let (state, code) = (group.answer.state.as_str(), group.answer.code);
        let (named, nameless): (Vec<&str>, Vec<&str>) =
            group.hosts.iter().copied().partition(|host| contains(&text, host.as_bytes()));
        let alone = named.into_iter().map(|host| (host, vec![host]));
        let together = (!nameless.is_empty()).then_some(("", nameless));
        for (name, hosts) in alone.chain(together) {
            let template = split(&text, name.as_bytes()).0;
            let groups = &mut sorted.groups;
            let at = *index.entry((template, state, code)).or_insert_with_key(|key| {
                let template = key.0.clone();
                groups.push(Alike { template, state, code, members: Vec::new() });
                groups.len() - 1
            });
            groups[at].members.push(Member { text: sorted.texts.len(), name, hosts });
        }
        sorted.texts.push(text);
    }
    sorted.groups.sort_by(|a, b| {
        let (one, other) = (a.hosts(), b.hosts());
        other.len().cmp(&one.len()).then_with(|| natural_cmp(one[0], other[0]))
    });
    sorted
}

impl<'a> Alike<'a> {
    /// Their names, in natural order.
    fn hosts(&self) -> Vec<&'a str> {
        let mut hosts: Vec<&str> =
            self.members.iter().flat_map(|member| member.hosts.iter().copied()).collect();
        hosts.sort_by(|a, b| natural_cmp(a, b));
        hosts
    }
}

impl<'a> Sorted<'a> {
    /// Goes through the hosts, in natural order, with what each has in the gaps.
    fn each(
        &self,
        alike: &Alike<'a>,
        mut tell: impl FnMut(&'a str, &[&[u8]]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut all: Vec<(&'a str, &Member<'a>)> = Vec::new();
        for member in &alike.members {
            all.extend(member.hosts.iter().map(|host| (*host, member)));
        }
        all.sort_by(|(a, _), (b, _)| natural_cmp(a, b));
        for (host, member) in all {
            let text = &self.texts[member.text];
            tell(host, &split(text, member.name.as_bytes()).1)?;
        }
        Ok(())
    }

    /// What there is in each gap.
    fn gaps(&self, alike: &Alike<'_>) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = Vec::new();
        gaps.resize_with(alike.template.gaps(), Gap::default);
        for member in &alike.members {
            let values = split(&self.texts[member.text], member.name.as_bytes()).1;
            for (gap, value) in gaps.iter_mut().zip(values) {
                gap.note(value, member.name);
            }
        }
        gaps
    }
}

/// What hosts have in one gap.
#[derive(Default)]
struct Gap {
    /// As it was first, with the spaces around it.
    first: Vec<u8>,
    /// Up to one more than are shown.
    values: BTreeSet<Vec<u8>>,
    /// The smallest and largest number, as they were written; none if something else was there.
    numbers: Option<[(f64, Vec<u8>); 2]>,
    /// Whether something was there that is not the host's own name.
    has_others: bool,
}

impl Gap {
    fn note(&mut self, value: &[u8], name: &str) {
        let is_first = self.values.is_empty();
        let bare = value.trim_ascii();
        if is_first {
            self.first = value.to_vec();
        }
        self.has_others |= bare != name.as_bytes();
        let number = std::str::from_utf8(bare).ok().and_then(|text| text.parse::<f64>().ok());
        self.numbers = match (number, self.numbers.take()) {
            (Some(number), None) if is_first => {
                Some([(number, bare.to_vec()), (number, bare.to_vec())])
            }
            (Some(number), Some([least, most])) => {
                let now = || (number, bare.to_vec());
                Some([
                    if number < least.0 { now() } else { least },
                    if number > most.0 { now() } else { most },
                ])
            }
            _ => None,
        };
        if self.values.len() <= VALUES_SHOWN {
            self.values.insert(bare.to_vec());
        }
    }

    fn varies(&self) -> bool {
        self.values.len() > 1
    }

    fn write(&self, text: &mut Vec<u8>) {
        if !self.varies() {
            text.extend_from_slice(&self.first);
            return;
        }
        text.push(b'<');
        match &self.numbers {
            _ if !self.has_others => text.extend_from_slice(b"host"),
            Some([least, most]) => text.extend_from_slice(&[&least.1[..], b"..", &most.1].concat()),
            None if self.values.len() <= VALUES_SHOWN => {
                let values: Vec<&[u8]> = self.values.iter().map(Vec::as_slice).collect();
                text.extend_from_slice(&values.join(&b"|"[..]));
            }
            None => text.extend_from_slice(b"..."),
        }
        text.push(b'>');
    }
}

fn shown(template: &Template, gaps: &[Gap]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut gaps = gaps.iter();
    for piece in template.pieces() {
        text.extend_from_slice(piece);
        if let Some(gap) = gaps.next() {
            gap.write(&mut text);
        }
    }
    text
}

/// Whether a name occurs in a text at all.
fn contains(text: &[u8], name: &[u8]) -> bool {
    !name.is_empty() && text.windows(name.len()).any(|window| window == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gathered::Gathered;
    use crate::gathered::testing::answer;
    use crate::screen::testing;

    fn gathered(answers: &[(&str, &str, &str)]) -> Gathered {
        let mut gathered = Gathered::default();
        for (hosts, state, text) in answers {
            let code = (*state == "failed").then_some(1);
            gathered.add(answer(hosts, state, code, text));
        }
        gathered
    }

    fn check(verbose: bool, answers: &[(&str, &str, &str)], expected: &str) {
        let (mut screen, out, _) = testing::screen(false);
        screen.verbose = verbose;
        let view = View { similar: true, ..View::default() };
        show(&mut screen, &view, &gathered(answers).groups()).expect("written");
        assert_eq!(out.text(), expected);
    }

    const UPTIME: [(&str, &str, &str); 5] = [
        ("n1", "ok", "n1  up  5 days, v5.14.0 as blue"),
        ("n2", "ok", "n2  up 17 days, v5.14.0 as blue\n"),
        ("n10", "ok", "n10 up  9 days, v5.14.0 as blue\n"),
        ("n4", "ok", "n4 is down\n"),
        ("n[5-6]", "failed", "n1  up  5 days, v5.14.0 as blue\n"),
    ];

    #[test]
    fn what_differs_is_shown_where_it_does() {
        let rule = "---------------\n";
        let up = "<host> up <5..17> days, v5.14.0 as blue\n";
        let rest = format!(
            "{rule}n[5-6] (2)\n{rule}n1  up  5 days, v5.14.0 as blue\n\
             {rule}n4\n{rule}n4 is down\n"
        );
        check(false, &UPTIME, &format!("{rule}n[1-2,10] (3)\n{rule}{up}{rest}"));
    }

    #[test]
    fn verbose_tells_each_hosts_own() {
        check(
            true,
            &[("n[1-2]", "ok", "at 10:00 [a1] x\n"), ("n3", "ok", "at 11:30 [a2] x\n")],
            "---------------\nn[1-3] (3)\n---------------\nat <10:00|11:30> [a<1..2>] x\n  \
             n1: 10:00  1\n  n2: 10:00  1\n  n3: 11:30  2\n",
        );
    }

    #[test]
    fn many_values_are_not_listed() {
        let texts: Vec<(String, String)> =
            (1..6).map(|i| (format!("n{i}"), format!("10.0.0.{i} ok\n"))).collect();
        let answers: Vec<_> = texts.iter().map(|(n, t)| (n.as_str(), "ok", t.as_str())).collect();
        check(false, &answers, "---------------\nn[1-5] (5)\n---------------\n<...> ok\n");
    }

    #[test]
    fn programs_get_every_byte() {
        let (mut screen, out, _) = testing::screen(false);
        let view = View { similar: true, ..View::default() };
        print_json(&mut screen, &view, &gathered(&UPTIME).groups()).expect("written");
        let first = out.text().lines().next().expect("a line").to_owned();
        let line: serde_json::Value = serde_json::from_str(&first).expect("JSON");
        assert_eq!((&line["set"], &line["state"]), (&"n[1-2,10]".into(), &"ok".into()));
        for (host, _, text) in &UPTIME[..3] {
            let mut whole = String::new();
            let values = line["values"][host].as_array().expect("values");
            for (i, piece) in line["pieces"].as_array().expect("pieces").iter().enumerate() {
                whole.push_str(piece.as_str().expect("text"));
                whole.push_str(values.get(i).and_then(|value| value.as_str()).unwrap_or_default());
            }
            assert_eq!(whole.trim_end(), text.trim_end());
        }
    }
}
