//! `-bL`: equal lines once, line by line, while hosts still write.
//!
//! The first lines of all hosts make the first row, their second lines the second, and so on. A row
//! is given out as soon as each host has its line of it or has ended, so that whoever watches sees
//! how far the slowest is, and each line stands beside those that it belongs to.
//!
//! A host that was thought lost and answers after all is too late for rows that are given out: its
//! lines come in later ones. So are those of a host that is silent while all others fill the memory
//! that there is for waiting lines. No line is lost.

use std::collections::{HashMap, VecDeque};

use controller::sets::natural_cmp;

/// How many bytes may wait for hosts that have not written as much.
const WAITING: usize = 64 << 20;

/// Lines that are equal, with the names of their hosts in natural order.
pub(crate) type Row = Vec<(Vec<u8>, Vec<String>)>;

/// What a host has written beyond the rows that were given out.
#[derive(Default)]
struct Column {
    lines: VecDeque<Vec<u8>>,
    has_ended: bool,
}

impl Column {
    /// Whether the next row must wait for this host.
    fn is_awaited(&self) -> bool {
        self.lines.is_empty() && !self.has_ended
    }
}

/// The lines of all hosts of one order that are not given out yet.
pub(crate) struct Rows {
    columns: HashMap<String, Column>,
    /// For how many hosts the next row must wait.
    awaited: u64,
    /// Lines that are held, of all hosts.
    held: usize,
    /// The bytes of these lines, and how many they may be.
    bytes: usize,
    limit: usize,
}

impl Rows {
    /// For so many hosts, none of which has written anything.
    pub(crate) fn new(hosts: u64) -> Rows {
        Rows { columns: HashMap::new(), awaited: hosts, held: 0, bytes: 0, limit: WAITING }
    }

    /// Takes whole lines that a host has written. Returns the rows that are complete now.
    pub(crate) fn add(&mut self, host: &str, lines: &[u8]) -> Vec<Row> {
        self.change(host, lines, false)
    }

    /// Takes the last lines of a host.
    pub(crate) fn end(&mut self, host: &str, lines: &[u8]) -> Vec<Row> {
        self.change(host, lines, true)
    }

    /// Everything that is left, whoever is missing.
    pub(crate) fn rest(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        while self.held > 0 {
            rows.push(self.row());
        }
        rows
    }

    fn change(&mut self, host: &str, lines: &[u8], ends: bool) -> Vec<Row> {
        let is_new = !self.columns.contains_key(host);
        let column = self.columns.entry(host.to_owned()).or_default();
        let was_awaited = is_new || column.is_awaited();
        for line in split(lines) {
            (self.held, self.bytes) = (self.held + 1, self.bytes + line.len());
            column.lines.push_back(line);
        }
        column.has_ended |= ends;
        if was_awaited && !column.is_awaited() {
            self.awaited = self.awaited.saturating_sub(1);
        }
        let mut rows = Vec::new();
        while self.held > 0 && (self.awaited == 0 || self.bytes > self.limit) {
            rows.push(self.row());
        }
        rows
    }

    /// The next row: the lines of most hosts first.
    fn row(&mut self) -> Row {
        let mut equal: HashMap<Vec<u8>, Vec<String>> = HashMap::new();
        for (host, column) in &mut self.columns {
            let Some(line) = column.lines.pop_front() else { continue };
            (self.held, self.bytes) = (self.held - 1, self.bytes - line.len());
            self.awaited += u64::from(column.is_awaited());
            equal.entry(line).or_default().push(host.clone());
        }
        let mut row: Row = equal.into_iter().collect();
        for (_, hosts) in &mut row {
            hosts.sort_by(|a, b| natural_cmp(a, b));
        }
        row.sort_by(|(_, a), (_, b)| b.len().cmp(&a.len()).then_with(|| natural_cmp(&a[0], &b[0])));
        row
    }
}

/// The lines of a text, each with its newline, which the last one gets if it has none.
fn split(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    text.split_inclusive(|b| *b == b'\n').map(|line| {
        let mut line = line.to_vec();
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(rows: &[Row]) -> String {
        let line = |(line, hosts): &(Vec<u8>, Vec<String>)| {
            format!("{}: {}", hosts.join(","), String::from_utf8_lossy(line))
        };
        rows.iter().flatten().map(line).collect()
    }

    #[test]
    fn a_row_waits_for_the_slowest_and_no_longer() {
        let mut rows = Rows::new(3);
        assert_eq!(shown(&rows.add("a", b"one\ntwo\n")), "");
        assert_eq!(shown(&rows.add("b", b"one\n")), "");
        assert_eq!(shown(&rows.add("c", b"uno\n")), "a,b: one\nc: uno\n");
        assert_eq!(shown(&rows.end("c", b"")), "");
        assert_eq!(shown(&rows.add("b", b"two\n")), "a,b: two\n");
        assert_eq!(shown(&rows.add("a", b"three\n")), "");
        assert_eq!(shown(&rows.end("b", b"3")), "a: three\nb: 3\n");
        assert_eq!(shown(&rows.end("a", b"four")), "a: four\n");
        assert_eq!(shown(&rows.end("c", b"late\n")), "c: late\n");
        assert_eq!(shown(&rows.rest()), "");
    }

    #[test]
    fn a_silent_host_does_not_hold_up_more_than_there_is_room_for() {
        let mut rows = Rows { limit: 10, ..Rows::new(3) };
        assert_eq!(shown(&rows.add("a", b"one\ntwo\n")), "");
        assert_eq!(shown(&rows.add("b", b"one\n")), "a,b: one\n");
        assert_eq!(shown(&rows.end("c", b"one\n")), "", "it is late, and b is awaited");
        assert_eq!(shown(&rows.end("b", b"")), "a: two\nc: one\n");
    }

    #[test]
    fn what_nobody_ended_is_left() {
        let mut rows = Rows::new(2);
        assert_eq!(shown(&rows.add("a", b"one\ntwo\n")), "");
        assert_eq!(shown(&rows.rest()), "a: one\na: two\n");
    }

    proptest! {
        #[test]
        fn rows_are_the_lines_of_all_side_by_side(
            texts in prop::collection::vec(prop::collection::vec("[xy]?", 0..5), 1..5),
            turns in prop::collection::vec(0usize..5, 0..40),
        ) {
            let mut rows = Rows::new(texts.len() as u64);
            let mut found = Vec::new();
            let mut given = vec![0; texts.len()];
            for at in turns.into_iter().filter(|at| *at < texts.len()) {
                if let Some(line) = texts[at].get(given[at]) {
                    given[at] += 1;
                    found.extend(rows.add(&format!("h{at}"), format!("{line}\n").as_bytes()));
                }
                // Nothing is given out that somebody who still writes has a part in.
                prop_assert!(found.len() <= given.iter().copied().min().unwrap_or_default());
            }
            for (at, text) in texts.iter().enumerate() {
                let rest: String =
                    text[given[at]..].iter().map(|line| format!("{line}\n")).collect();
                found.extend(rows.end(&format!("h{at}"), rest.as_bytes()));
            }
            prop_assert!(rows.rest().is_empty());
            prop_assert_eq!(found.len(), texts.iter().map(Vec::len).max().unwrap_or_default());
            for (number, row) in found.iter().enumerate() {
                let mut lines = HashMap::new();
                for (line, hosts) in row {
                    for host in hosts {
                        prop_assert!(lines.insert(host.clone(), line.clone()).is_none());
                    }
                }
                for (at, text) in texts.iter().enumerate() {
                    let line = text.get(number).map(|line| format!("{line}\n").into_bytes());
                    prop_assert_eq!(lines.get(&format!("h{at}")), line.as_ref());
                }
            }
        }
    }
}
