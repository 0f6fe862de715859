//! What went wrong with the files of a distribution, in terms of domainpaths.
//!
//! A host that answers says it of each file. Of one that does not it is said of each file that the
//! order would have brought, if these are few; of more it is said once, since then the host is
//! what is wrong.

use std::borrow::Cow;
use std::collections::BTreeMap;

use mesh::{Class, State};
use protos::{Answer, Disted};

use super::Told;
use crate::cause;
use crate::fleet::domain::DomainPath;
use crate::fleet::store::PlanRow;

/// Of more files than this an order that did not arrive is told once.
const EACH: usize = 8;

/// What there is to say of an order that has brought this.
pub(super) fn told(plan: &PlanRow, state: State, answer: Option<Answer>) -> Vec<Told> {
    let mut of_files = BTreeMap::new();
    if let Some(said) = answer.as_ref().and_then(|answer| answer.dist.as_ref()) {
        of_files = by_file(plan, said);
    }
    if !of_files.is_empty() {
        return of_files.into_values().collect();
    }
    let whole = Told::of_order(state, answer);
    match plan.files.len() {
        1..=EACH => {
            let one = |(path, _): &(DomainPath, String)| Told {
                path: path.to_string(),
                text: whole.text.clone(),
                class: whole.class,
            };
            plan.files.iter().map(one).collect()
        }
        files => {
            // Behind how it ended, which must stay the beginning: by that causes are known.
            let (end, rest) = match whole.text.split_once(": ") {
                Some((end, rest)) => (end, format!(": {rest}")),
                None => (whole.text.as_str(), String::new()),
            };
            vec![Told { text: format!("{end} ({files} files){rest}"), ..whole }]
        }
    }
}

/// A file that is not in place is told before a command that has failed.
fn by_file(plan: &PlanRow, said: &Disted) -> BTreeMap<(bool, u32), Told> {
    let failed = said.failed.iter().map(|fault| (false, fault));
    let commands = said.commands.iter().map(|fault| (true, fault));
    let mut found = BTreeMap::new();
    for (is_command, fault) in failed.chain(commands) {
        // What an order never had nobody can say anything of.
        let Some((path, _)) = plan.files.get(fault.item as usize) else { continue };
        let text = match is_command {
            true => format!("its command: {}", fault.detail),
            false => fault.detail.clone(),
        };
        let class = match (cause::class(&text), is_command) {
            (Class::Command, false) => Class::Client,
            (class, _) => class,
        };
        found.insert((is_command, fault.item), Told { path: path.to_string(), text, class });
    }
    found
}

/// A text under the domainpath that it is about. A path that looks as if it ended before is quoted.
pub(crate) fn under(path: &str, text: &str) -> String {
    match path {
        "" => text.to_owned(),
        path if path.contains(": ") => format!("{}: {text}", serde_json::Value::from(path)),
        path => format!("{path}: {text}"),
    }
}

/// The domainpath that a line of a distribution is about, and the rest of it.
pub(crate) fn path_of<'a>(subject: &str, line: &'a str) -> Option<(Cow<'a, str>, &'a str)> {
    if !subject.starts_with("dist.") {
        return None;
    }
    let (path, rest) = match line.starts_with('"') {
        true => {
            let mut quoted = serde_json::Deserializer::from_str(line).into_iter::<String>();
            let path = quoted.next()?.ok()?;
            (Cow::from(path), line[quoted.byte_offset()..].strip_prefix(": ")?)
        }
        false => {
            let (path, rest) = line.split_once(": ")?;
            (Cow::from(path), rest)
        }
    };
    path.parse::<DomainPath>().is_ok().then_some((path, rest))
}

#[cfg(test)]
mod tests {
    use mesh::{Fact, Severity};
    use protos::ItemFault;

    use super::*;

    fn plan(files: usize) -> PlanRow {
        let path = |n| format!("cc.adm:/etc/f{n}").parse::<DomainPath>().expect("it is one");
        let files = (0..files).map(|n| (path(n), String::new())).collect();
        PlanRow { planned: 1, files, verify: false }
    }

    fn lines(plan: &PlanRow, state: State, answer: Option<Answer>) -> Vec<String> {
        let told = told(plan, state, answer);
        told.iter()
            .map(|told| format!("{:?} {}", told.class, under(&told.path, &told.text)))
            .collect()
    }

    #[test]
    fn each_file_is_told_under_its_domainpath() {
        let fault = |item, detail: &str| ItemFault { item, detail: detail.into() };
        let said = Disted {
            failed: vec![fault(1, "is a folder"), fault(9, "nothing of ours")],
            commands: vec![fault(0, "exit code 3: no"), fault(2, "No space left on device")],
            ..Disted::default()
        };
        let answer = Answer { dist: Some(said), ..Answer::default() };
        let expected = [
            "Client cc.adm:/etc/f1: is a folder",
            "Command cc.adm:/etc/f0: its command: exit code 3: no",
            "Space cc.adm:/etc/f2: its command: No space left on device",
        ];
        assert_eq!(lines(&plan(3), State::Failed(1), Some(answer)), expected);
    }

    #[test]
    fn a_host_that_is_down_is_told_under_its_files_or_once() {
        let expected = ["Down cc.adm:/etc/f0: not reached", "Down cc.adm:/etc/f1: not reached"];
        assert_eq!(lines(&plan(2), State::NotReached, None), expected);
        assert_eq!(lines(&plan(9), State::NotReached, None), ["Down not reached (9 files)"]);
        let answer = Answer { stderr: "no: not so".into(), ..Answer::default() };
        let of_many = told(&plan(9), State::Failed(127), Some(answer));
        assert_eq!(of_many[0].text, "exit 127 (9 files): no: not so");
        // Why is known as well as of few.
        for (state, text) in [(State::NotReached, "not reached"), (State::Failed(127), "exit 127")]
        {
            let of_many = told(&plan(9), state, None);
            let cause = |line: &str| {
                let (severity, class) = (Severity::Error, Class::Down);
                cause::cause(&Fact::new("dist.missed", severity, class, line, relay::hash), line)
            };
            assert_eq!(cause(&of_many[0].text), cause(text));
            assert!(!cause(text).is_empty());
        }
    }

    #[test]
    fn a_line_says_which_file_it_is_about() {
        let check = |path: &str, text: &str| {
            let line = under(path, text);
            assert_eq!(path_of("dist.missed", &line), Some((path.into(), text)), "{line}");
            assert_eq!(path_of("run.failed", &line), None);
        };
        check("cc.adm:/etc/motd", "not reached");
        check("cc.adm:/etc/motd", "its command: exit code 3: no");
        check("cc.adm:/etc/my: file", "its command: exit code 3: no");
        check("cc.adm:/etc/my: \"file\": \\", "not reached");
        assert_eq!(path_of("dist.missed", "not reached (9 files)"), None);
        assert_eq!(path_of("dist.failed", "exit 1 (9 files): /etc: no"), None);
        assert_eq!(path_of("dist.failed", "\"exit\": no"), None);
    }
}
