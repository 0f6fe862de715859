//! What the hosts of one order have answered so far: equal answers once, however they arrived.
//!
//! Answers come in groups that grow and change: a host whose relay was lost may still answer for
//! itself, and a stream that is asked for again begins from the start. So each host belongs to
//! the group of its last answer, and [`Gathered::add`] says for which hosts an answer is news.
//!
//! Fifty thousand hosts may say something of their own, so each text is here once, and whoever
//! shows it borrows it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash, Hasher};
use std::rc::Rc;

use controller::sets::natural_cmp;
use controller::types::Answer;
use data_encoding::BASE64;

/// The answers to one order.
#[derive(Default)]
pub(crate) struct Gathered {
    /// Distinct answers, their hosts left out.
    answers: Vec<Rc<Answer>>,
    /// Where each of them is.
    index: HashMap<Distinct, u32>,
    /// Which answer is the last of each host.
    of_host: HashMap<Box<str>, u32>,
}

/// An answer that is looked for by what it says.
#[derive(PartialEq, Eq)]
struct Distinct(Rc<Answer>);

impl Hash for Distinct {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let answer = &self.0;
        (&answer.state, answer.code, &answer.stdout, &answer.stderr).hash(hasher);
        (&answer.fault, &answer.warnings, answer.written, answer.unchanged).hash(hasher);
        (answer.deleted, answer.drift).hash(hasher);
    }
}

/// Hosts that have given the same answer.
#[derive(Clone)]
pub(crate) struct Group<'a> {
    /// Their names, in natural order.
    pub(crate) hosts: Vec<&'a str>,
    /// What they said; its own lists of hosts are empty.
    pub(crate) answer: &'a Answer,
}

impl Gathered {
    /// Takes note of an answer. Gives it back with the hosts for which it is news.
    pub(crate) fn add(&mut self, mut answer: Answer) -> (Rc<Answer>, Vec<String>) {
        let hosts = std::mem::take(&mut answer.hosts);
        answer.set = String::new();
        let at = self.position(answer);
        let mut news = Vec::new();
        for host in hosts {
            match self.of_host.entry(host.into()) {
                Entry::Occupied(known) if *known.get() == at => {}
                Entry::Occupied(mut known) => {
                    known.insert(at);
                    news.push(String::from(&**known.key()));
                }
                Entry::Vacant(new) => {
                    news.push(String::from(&**new.key()));
                    new.insert(at);
                }
            }
        }
        news.sort_by(|a, b| natural_cmp(a, b));
        (self.answers[at as usize].clone(), news)
    }

    /// How many hosts have answered.
    pub(crate) fn len(&self) -> usize {
        self.of_host.len()
    }

    /// Whether a host has answered.
    pub(crate) fn contains(&self, host: &str) -> bool {
        self.of_host.contains_key(host)
    }

    /// The word for how a host has ended, if it has answered.
    pub(crate) fn state(&self, host: &str) -> Option<&str> {
        self.of_host.get(host).map(|at| self.answers[*at as usize].state.as_str())
    }

    /// All answers that hosts hold to, the largest group first.
    pub(crate) fn groups(&self) -> Vec<Group<'_>> {
        let mut counts = vec![0; self.answers.len()];
        self.of_host.values().for_each(|at| counts[*at as usize] += 1);
        // Most groups may have one host: no room for more.
        let all = self.answers.iter().zip(counts);
        let all = all.map(|(answer, count)| Group { hosts: Vec::with_capacity(count), answer });
        let mut groups: Vec<Group<'_>> = all.collect();
        for (host, at) in &self.of_host {
            groups[*at as usize].hosts.push(host);
        }
        groups.retain(|group| !group.hosts.is_empty());
        order(&mut groups);
        groups
    }

    fn position(&mut self, answer: Answer) -> u32 {
        let answers = &mut self.answers;
        *self.index.entry(Distinct(Rc::new(answer))).or_insert_with_key(|answer| {
            answers.push(answer.0.clone());
            u32::try_from(answers.len() - 1).expect("there are no more answers than hosts")
        })
    }
}

/// Puts groups together whose answers have the same key, the largest first.
pub(crate) fn join<'a, K: Eq + Hash>(
    groups: &[Group<'a>],
    key: impl Fn(&'a Answer) -> K,
) -> Vec<(K, Group<'a>)> {
    let mut joined: Vec<(K, Group<'a>)> = Vec::new();
    // Keys may be long and many: they are in `joined` alone.
    let mut index: HashMap<u64, usize> = HashMap::new();
    let random = RandomState::new();
    for group in groups {
        let key = key(group.answer);
        let mut hash = random.hash_one(&key);
        loop {
            match index.entry(hash) {
                Entry::Occupied(at) if joined[*at.get()].0 == key => {
                    joined[*at.get()].1.hosts.extend(&group.hosts);
                    break;
                }
                // Another key with this hash has its place.
                Entry::Occupied(_) => hash = hash.wrapping_add(1),
                Entry::Vacant(new) => {
                    new.insert(joined.len());
                    joined.push((key, group.clone()));
                    break;
                }
            }
        }
    }
    drop(index);
    for (_, group) in &mut joined {
        group.hosts.sort_unstable_by(|a, b| natural_cmp(a, b));
    }
    joined.sort_unstable_by(|(_, a), (_, b)| rank(a, b));
    joined
}

/// Standard output as the host wrote it.
pub(crate) fn stdout(answer: &Answer) -> Cow<'_, [u8]> {
    output(&answer.stdout, answer.binary)
}

/// Standard error as the host wrote it.
pub(crate) fn stderr(answer: &Answer) -> Cow<'_, [u8]> {
    output(&answer.stderr, answer.binary)
}

/// Output as a host wrote it, from how the API gives it.
pub(crate) fn output(text: &str, is_base64: bool) -> Cow<'_, [u8]> {
    match is_base64 {
        // Text that should be base64 and is not is better shown than lost.
        true => BASE64.decode(text.as_bytes()).map_or(text.as_bytes().into(), Cow::Owned),
        false => text.as_bytes().into(),
    }
}

fn order(groups: &mut [Group<'_>]) {
    for group in &mut *groups {
        group.hosts.sort_unstable_by(|a, b| natural_cmp(a, b));
    }
    groups.sort_unstable_by(rank);
}

/// The largest group first, then by the first name.
fn rank(a: &Group<'_>, b: &Group<'_>) -> std::cmp::Ordering {
    let (one, other) = (a.hosts.first().unwrap_or(&""), b.hosts.first().unwrap_or(&""));
    b.hosts.len().cmp(&a.hosts.len()).then_with(|| natural_cmp(one, other))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// An answer of these hosts.
    pub(crate) fn answer(hosts: &str, state: &str, code: Option<i32>, stdout: &str) -> Answer {
        Answer {
            hosts: controller::sets::expand(hosts).expect("a set"),
            set: hosts.into(),
            state: state.into(),
            code,
            stdout: stdout.into(),
            stdout_size: stdout.len() as u64,
            ..Answer::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::answer;
    use super::*;

    fn shape(gathered: &Gathered) -> Vec<(String, String)> {
        let folded =
            |group: Group<'_>| (controller::sets::fold(&group.hosts), group.answer.stdout.clone());
        gathered.groups().into_iter().map(folded).collect()
    }

    #[test]
    fn equal_answers_meet_and_only_news_is_news() {
        let mut gathered = Gathered::default();
        let (_, news) = gathered.add(answer("n[2,1]", "ok", None, "a"));
        assert_eq!(news, ["n1", "n2"]);
        gathered.add(answer("n3", "ok", None, "b"));
        let (_, news) = gathered.add(answer("n[2-10]", "ok", None, "a"));
        assert_eq!(news.len(), 8, "n2 had said so before, n3 had said something else");
        assert_eq!(shape(&gathered), [("n[1-10]".to_string(), "a".to_string())]);
        assert_eq!(
            (gathered.len(), gathered.contains("n3"), gathered.contains("x")),
            (10, true, false)
        );
    }

    #[test]
    fn a_later_answer_replaces_an_earlier_one() {
        let mut gathered = Gathered::default();
        gathered.add(answer("n[1-3]", "relay-lost", None, ""));
        gathered.add(answer("n[1-2]", "ok", None, "a"));
        let shape = shape(&gathered);
        assert_eq!(shape, [("n[1-2]".into(), "a".into()), ("n3".into(), String::new())]);
    }

    #[test]
    fn groups_join_by_a_key() {
        let mut gathered = Gathered::default();
        for (hosts, stderr) in [("n1", "x"), ("n2", "y"), ("m1", "x")] {
            gathered.add(Answer { stderr: stderr.into(), ..answer(hosts, "ok", None, "a") });
        }
        let groups = gathered.groups();
        assert_eq!(groups.len(), 2);
        let joined = join(&groups, |answer| answer.stdout.clone());
        assert_eq!(joined.len(), 1);
        assert_eq!(joined[0].1.hosts, ["m1", "n1", "n2"]);
    }

    #[test]
    fn binary_output_is_decoded() {
        let binary = |text: &str| Answer { binary: true, ..answer("n1", "ok", None, text) };
        assert_eq!(stdout(&binary("/wA=")).as_ref(), b"\xff\x00");
        assert_eq!(stdout(&binary("no base64!")).as_ref(), b"no base64!");
        assert_eq!(stdout(&answer("n1", "ok", None, "/wA=")).as_ref(), b"/wA=");
    }
}
