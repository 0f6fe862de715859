//! The order of names, and which known name was most likely meant by an unknown one.

use std::cmp::Ordering;

use super::MAX_DIGITS;

/// How people sort names: numbers by their value, so `web2` comes before `web10`. A total order.
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(&x), Some(&y)) = (left.first(), right.first()) {
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (number, after) = left.split_at(digits_at_start(left));
            let (other, after_other) = right.split_at(digits_at_start(right));
            let (number, other) = (strip_zeros(number), strip_zeros(other));
            let order = number.len().cmp(&other.len()).then_with(|| number.cmp(other));
            if order.is_ne() {
                return order;
            }
            (left, right) = (after, after_other);
        } else if x != y {
            return x.cmp(&y);
        } else {
            (left, right) = (&left[1..], &right[1..]);
        }
    }
    // Names that differ in zeros only are told apart by plain order.
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// The known name that was most likely meant, if any is close.
pub fn suggest(unknown: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> Option<String> {
    let wanted: Vec<char> = unknown.chars().collect();
    let mut limit = (wanted.len() / 3).clamp(1, 3);
    let number = last_number(unknown);
    let mut best: Option<(usize, u64, String)> = None;
    for name in known {
        let name = name.as_ref();
        let Some(distance) = distance(&wanted, name, limit) else { continue };
        let gap = match (number, last_number(name)) {
            (Some(a), Some(b)) => a.abs_diff(b),
            _ => u64::MAX,
        };
        let closer = best.as_ref().is_none_or(|(d, g, n)| {
            (distance, gap).cmp(&(*d, *g)).then_with(|| natural_cmp(name, n)).is_lt()
        });
        if closer {
            limit = distance;
            best = Some((distance, gap, name.to_owned()));
        }
    }
    best.map(|(_, _, name)| name)
}

/// Whether a name is what a glob means: `*` is any text, `?` any one character.
///
/// Goes back to the last `*` only, which is enough, so it takes at most the product of the lengths.
pub(super) fn glob_matches(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    let (mut g, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        match glob.get(g) {
            Some(b'*') => {
                retry = Some((g + 1, n));
                g += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (g, n) = (g + 1, n + 1),
            _ => {
                let Some((after, from)) = retry else { return false };
                retry = Some((after, from + 1));
                (g, n) = (after, from + 1);
            }
        }
    }
    glob[g..].iter().all(|c| *c == b'*')
}

fn last_number(name: &str) -> Option<u64> {
    let last = name.rfind(|c: char| c.is_ascii_digit())?;
    let front = &name[..=last];
    let digits = &front[front.trim_end_matches(|c: char| c.is_ascii_digit()).len()..];
    (digits.len() <= MAX_DIGITS).then(|| digits.parse().ok()).flatten()
}

fn digits_at_start(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_digit()).count()
}

fn strip_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    &digits[zeros..]
}

/// The edit distance (insert, delete, replace, swap neighbours) if it is at most `limit`.
fn distance(wanted: &[char], name: &str, limit: usize) -> Option<usize> {
    let name: Vec<char> = name.chars().collect();
    if wanted.len().abs_diff(name.len()) > limit {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=name.len()).collect();
    for (i, &c) in wanted.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &d) in name.iter().enumerate() {
            let mut cost = (above[j] + usize::from(c != d)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && c == name[j - 1] && wanted[i - 1] == d {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        if row.iter().min().is_none_or(|least| *least > limit) {
            return None;
        }
        (before, above) = (above, row);
    }
    above.last().copied().filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_as_people_do() {
        let mut names = ["web10", "web2", "web02", "Web1", "web", "web2-a", "a1b3", "a1b20"];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(names, ["Web1", "a1b3", "a1b20", "web", "web02", "web2", "web2-a", "web10"]);
    }

    #[test]
    fn suggests_what_is_close() {
        let known = crate::sets::expand("web[1-8],db1,gateway").expect("a set");
        let check = |unknown: &str, expected: Option<&str>| {
            assert_eq!(suggest(unknown, &known).as_deref(), expected, "{unknown}");
        };
        check("web9", Some("web8"));
        check("wbe3", Some("web3"));
        check("gatway", Some("gateway"));
        check("db", Some("db1"));
        check("mail", None);
        check("", None);
    }

    #[test]
    fn globs() {
        let check = |glob: &str, name: &str, expected: bool| {
            assert_eq!(glob_matches(glob, name), expected, "{glob} {name}");
        };
        check("*", "", true);
        check("*", "web1", true);
        check("web?", "web1", true);
        check("web?", "web", false);
        check("web?", "web12", false);
        check("*b*1", "web1b11", true);
        check("*b*1", "web1b12", false);
        check("a*a*a*a*b", &"a".repeat(60), false);
        check("web1", "web1", true);
        check("web1", "web10", false);
        check("", "", true);
        check("", "a", false);
    }
}
