//! Writing names with the groups that hold them: `@lyon,web7` instead of fifty names.

use std::collections::HashSet;

use super::{fold, natural_cmp};

/// A group as it is written, and who is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// As it stands in a set: `@lyon`.
    pub name: String,
    /// Its members.
    pub hosts: Vec<String>,
}

/// Writes names with whole groups where they fit, the largest first, and folds the rest. No name
/// is written twice, and nobody is written who is not among the names.
pub fn regroup<'n>(names: impl IntoIterator<Item = &'n str>, groups: &[Group]) -> String {
    let mut rest: HashSet<&str> = names.into_iter().collect();
    let mut fitting: Vec<&Group> =
        groups.iter().filter(|group| (1..=rest.len()).contains(&group.hosts.len())).collect();
    fitting.sort_by(|a, b| {
        b.hosts.len().cmp(&a.hosts.len()).then_with(|| natural_cmp(&a.name, &b.name))
    });
    let mut parts: Vec<&str> = Vec::new();
    for group in fitting {
        if group.hosts.iter().all(|host| rest.contains(host.as_str())) {
            for host in &group.hosts {
                rest.remove(host.as_str());
            }
            parts.push(&group.name);
        }
    }
    parts.sort_by(|a, b| natural_cmp(a, b));
    let rest = fold(rest);
    if !rest.is_empty() {
        parts.push(&rest);
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::expand;

    #[test]
    fn the_largest_whole_groups_first() {
        let group =
            |name: &str, set: &str| Group { name: name.into(), hosts: expand(set).expect("a set") };
        let groups = [
            group("@small", "n[1-2]"),
            group("@big", "n[1-5]"),
            group("@other", "n[5-7]"),
            group("@last", "n[8-9]"),
            group("@nobody", ""),
        ];
        let check = |set: &str, expected: &str| {
            let names = expand(set).expect("a set");
            assert_eq!(regroup(names.iter().map(String::as_str), &groups), expected, "{set}");
        };
        check("n[1-6]", "@big,n6");
        check("n[1-2]", "@small");
        check("n[1-9]", "@big,@last,n[6-7]");
        check("n[8-9],n[1-2],db", "@last,@small,db");
        check("x", "x");
        check("", "");
    }
}
