//! What a frequency brings to whom, as a Distfile: to be read, compared, and looked at by the plan
//! mode of rdist. Nothing is distributed by it.
//!
//! A label for each entry, an entry of the text for each of its relays, with the hosts whose
//! records name that relay. Sources have the names of the text form of files: content lies in the
//! store, and `barid file cp` copies it out.

use std::collections::BTreeMap;

use mesh::HostSet;

use super::ask::Reader;
use super::book::Entry;
use super::change::Refusal;
use super::dist::ALL;
use super::domain::{Domain, DomainPath};

impl Reader<'_> {
    /// The Distfile of a frequency, if wanted only for the members of a domain.
    pub(crate) fn distfile(
        &self,
        frequency: &str,
        domain: Option<&Domain>,
    ) -> Result<String, Refusal> {
        if frequency != ALL && !self.book.frequencies.contains_key(frequency) {
            let known = self.book.frequencies.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Refusal::UnknownFrequency { name: frequency.into(), known });
        }
        let only = domain.map(|domain| self.members(domain)).transpose()?;
        let of = domain.map_or_else(String::new, |domain| format!(", only to {domain}"));
        let mut text = format!("# what {frequency} brings{of}; sources are content of the store\n");
        for (at, path) in self.roll.paths.iter().enumerate() {
            let entry = &self.book.entries[path];
            if frequency != ALL && entry.frequency != frequency {
                continue;
            }
            let mut members = self.roll.winners.of_entry[at].clone();
            if let Some(only) = &only {
                members = members.intersection(only);
            }
            for (relay, hosts) in self.by_relay(&members) {
                text += &rule(path, entry, relay, &hosts);
            }
        }
        Ok(text)
    }

    fn by_relay(&self, members: &HostSet) -> BTreeMap<&str, Vec<String>> {
        let mut relays: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for name in self.host_names(members) {
            let record = self.book.hosts.get(&name).and_then(|records| records.first());
            let relay = record.map_or("NONE", |record| record.relay.as_str());
            relays.entry(relay).or_default().push(name);
        }
        relays
    }
}

fn rule(path: &DomainPath, entry: &Entry, relay: &str, hosts: &[String]) -> String {
    let (label, dest) = (word(&format!("{}{}", path.domain, path.path)), word(&path.path));
    let hosts: Vec<String> = hosts.iter().map(|host| word(host)).collect();
    let (source, hosts) = (entry.source, hosts.join(" "));
    let mut text = format!("\n# {path}, {}, relay {relay}\n", entry.frequency);
    for pattern in &entry.exclude {
        // The patterns are ours, and rdist has others.
        text += &format!("# without {}\n", pattern.escape_debug());
    }
    let remove = if entry.delete { " -oremove" } else { "" };
    text += &format!("{label}: s{source} -> ( {hosts} )\n\tinstall{remove} {dest} ;\n");
    if !entry.command.is_empty() {
        let command = entry.command.replace('\\', "\\\\").replace('"', "\\\"");
        text += &format!("\tspecial \"{command}\" ;\n");
    }
    text
}

/// A word of the language: what would end it, begin something else or be expanded is escaped.
fn word(text: &str) -> String {
    let mut word = String::new();
    for (n, c) in text.chars().enumerate() {
        let is_special = " \t\"'()=;:[]{}*?$\\".contains(c) || (n == 0 && "-+&#".contains(c));
        if is_special {
            word.push('\\');
        }
        word.push(c);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::book::testing::{book, content};
    use crate::fleet::book::{Book, Roll};
    use crate::fleet::change::{Pen, Policy, PolicyEdit};
    use crate::fleet::types::Author;

    fn with(entries: &[(&str, &str)]) -> Book {
        let mut book = book();
        let pen = Pen { by: Author::default(), at_ms: 0, note: String::new() };
        for (path, frequency) in entries {
            let policy = Policy {
                frequency: (*frequency).into(),
                command: String::new(),
                editor: None,
                delete: false,
                exclude: Vec::new(),
                optional: false,
            };
            let path: DomainPath = path.parse().expect(path);
            book.install(&path, content("x"), policy, &pen).expect("installed");
        }
        book
    }

    fn text(book: &Book, frequency: &str, domain: Option<&str>) -> String {
        let roll = Roll::of(book);
        let domain = domain.map(|text| text.parse::<Domain>().expect(text));
        Reader { book, roll: &roll }.distfile(frequency, domain.as_ref()).expect("written")
    }

    #[test]
    fn x13_each_entry_is_a_label_and_each_relay_a_rule() {
        let mut book = with(&[("common.adm:/etc/hosts", "hour"), ("cc.adm:/etc/motd", "day")]);
        let hosts: DomainPath = "common.adm:/etc/hosts".parse().expect("a domainpath");
        let command = r#"echo "a;b" \n"#.to_owned();
        book.set_policy(&hosts, PolicyEdit::Command(command)).expect("set");
        let label = "common.adm/etc/hosts: s1 ->";
        let rest = "\tinstall /etc/hosts ;\n\tspecial \"echo \\\"a;b\\\" \\\\n\" ;\n";
        let of = |relay: &str, hosts: &str| {
            format!("\n# common.adm:/etc/hosts, hour, relay {relay}\n{label} ( {hosts} )\n{rest}")
        };
        let all = text(&book, "hour", None);
        let (head, rules) = all.split_once("\n\n").expect("a heading");
        assert!(head.starts_with("# what hour brings"), "{head}");
        assert_eq!(format!("\n{rules}"), of("r1", "h1 h2 h3") + &of("r2", "h4"));
        assert_eq!(text(&book, "hour", None), all, "the same bytes each time");
        let some = text(&book, "hour", Some("cc.adm"));
        assert!(some.ends_with(&of("r1", "h1 h2")), "{some}");
        assert!(text(&book, "all", None).contains("cc.adm/etc/motd: s2 -> ( h1 h2 )"));
    }

    /// A text as the language has it: words, strings (with a quote in front) and single characters.
    fn tokens(text: &str) -> Vec<String> {
        let (mut found, mut chars) = (Vec::new(), text.chars().peekable());
        while let Some(c) = chars.next() {
            let mut token = String::new();
            match c {
                ' ' | '\t' | '\n' => continue,
                '#' => {
                    while chars.next_if(|c| *c != '\n').is_some() {}
                    continue;
                }
                '(' | ')' | '=' | ';' | ':' => token.push(c),
                '"' => {
                    token.push('"');
                    loop {
                        match chars.next().expect("the string ends") {
                            '"' => break,
                            '\\' => token.push(chars.next().expect("something is escaped")),
                            c => token.push(c),
                        }
                    }
                }
                first => {
                    let mut next = Some(first);
                    while let Some(c) = next {
                        assert_ne!(c, '\'', "no quote stands in a word");
                        let c = if c == '\\' { chars.next().expect("escaped") } else { c };
                        token.push(c);
                        next = chars.next_if(|c| !" \t\n\"()=;:".contains(*c));
                    }
                }
            }
            found.push(token);
        }
        found
    }

    #[test]
    fn x13_whatever_a_path_has_is_read_as_it_was() {
        let path = "cc.adm:/etc/a b/it's:$x(1);[a]*{b}\\c\"d#-e";
        let mut book = with(&[(path, "hour")]);
        let command = "echo \"$FILE\" 'x' \\n;".to_owned();
        let entry: DomainPath = path.parse().expect("a domainpath");
        book.set_policy(&entry, PolicyEdit::Command(command.clone())).expect("set");
        let (label, string) = (path.replacen(':', "", 1), format!("\"{command}"));
        let rule = [label.as_str(), ":", "s1", "->", "(", "h1", "h2", ")"];
        let dest = entry.path.as_str();
        let commands = ["install", dest, ";", "special", string.as_str(), ";"];
        let expected = [&rule[..], &commands[..]].concat();
        assert_eq!(tokens(&text(&book, "hour", None)), expected);
    }

    #[test]
    fn words_are_taken_as_they_are() {
        for (text, is) in [
            ("/etc/motd", "/etc/motd"),
            ("/a b", "/a\\ b"),
            ("-x.adm/a:b", "\\-x.adm/a\\:b"),
            ("/a/$x*[1]", "/a/\\$x\\*\\[1\\]"),
            ("/it's", "/it\\'s"),
            ("/a#b-c", "/a#b-c"),
        ] {
            assert_eq!(word(text), is);
        }
    }
}
