//! Answers as people read them: line by line, or gathered under folded headers, as in clush.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use controller::sets::{self, Group as SetGroup};
use controller::types::{Answer, OrderInfo};

use crate::client::Client;
use crate::exit::{Class, Exit};
use crate::fail::Failure;
use crate::gathered::{Gathered, Group, join, stderr, stdout};
use crate::lines::{Shown, Written};
use crate::nodes::known_groups;
use crate::rows::Row;
use crate::screen::{Screen, To};
use crate::units::{show_bytes, show_count, show_duration};
use crate::words::{complaint, remedy};
use crate::{alike, diff};

/// What stands above and below the names of hosts.
pub(crate) const RULE: &str = "---------------\n";

/// The longest folded set within a sentence.
const SET_IN_LINE: usize = 200;

/// How answers are shown: the same letters as clush.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct View {
    /// Gather equal output of stdout under one header with the folded hosts
    #[arg(short = 'b', long = "gather", help_heading = "View")]
    pub(crate) gather: bool,
    /// Gather as -b does, stderr included
    #[arg(short = 'B', help_heading = "View")]
    pub(crate) merge: bool,
    /// Lines in the order of hosts, no headers; with -b equal lines once, with the folded hosts, as
    /// soon as all hosts have written theirs
    #[arg(short = 'L', help_heading = "View")]
    pub(crate) lines: bool,
    /// No host names beside the output
    #[arg(short = 'N', help_heading = "View")]
    pub(crate) unlabelled: bool,
    /// Groups instead of their members above gathered output, where they fit whole
    #[arg(short = 'r', long = "regroup", help_heading = "View")]
    pub(crate) regroup: bool,
    /// Only how answers differ from the one that most have given
    #[arg(long, conflicts_with_all = ["similar", "lines"], help_heading = "View")]
    pub(crate) diff: bool,
    /// Gather output that differs only in names, numbers, times, addresses and ids; -v: with each
    /// host's own
    #[arg(long, conflicts_with = "lines", help_heading = "View")]
    pub(crate) similar: bool,
    /// Exit with the largest code of the remote commands
    #[arg(short = 'S', help_heading = "View")]
    pub(crate) largest: bool,
    /// No progress and no last line
    #[arg(short = 'q', long, help_heading = "View")]
    pub(crate) quiet: bool,
    /// The groups of -r.
    #[arg(skip)]
    pub(crate) groups: Rc<[SetGroup]>,
}

impl View {
    /// Whether output waits until all have answered.
    pub(crate) fn waits(&self) -> bool {
        self.gather || self.merge || self.lines || self.diff || self.similar
    }

    /// The same with the groups that it wants written.
    pub(crate) async fn with_groups(self, client: &Client) -> Result<View, Failure> {
        if !self.regroup {
            return Ok(self);
        }
        let groups = known_groups(client, "").await?.into();
        Ok(View { groups, ..self })
    }

    /// Hosts as one text.
    pub(crate) fn fold(&self, hosts: &[&str]) -> String {
        match self.groups.is_empty() {
            true => sets::fold(hosts),
            false => sets::regroup(hosts.iter().copied(), &self.groups),
        }
    }

    /// `node[001-284] (284)`, or the name alone of a single host.
    pub(crate) fn counted(&self, hosts: &[&str]) -> String {
        match hosts {
            [host] => (*host).to_owned(),
            hosts => format!("{} ({})", self.fold(hosts), hosts.len()),
        }
    }
}

/// Shows what hosts have answered just now, each line with the name of its host, as far as it was
/// not shown before.
pub(crate) fn live(
    screen: &mut Screen,
    view: &View,
    shown: &mut Shown,
    run: &str,
    (answer, hosts): (&Answer, &[String]),
) -> io::Result<()> {
    for host in hosts {
        let mut sizes = [0; 2];
        if !is_supposed(answer) {
            sizes = shown.given(host);
            let rests = shown.rest(host, stdout(answer), stderr(answer));
            for ((to, rest), size) in [To::Out, To::Err].into_iter().zip(&rests).zip(&mut sizes) {
                labelled(screen, to, view, host, rest)?;
                *size += rest.len() as u64;
            }
        }
        remarks(screen, run, answer, host, sizes)?;
        // What is only supposed may be replaced; it is said at the end if it was not.
        if !is_supposed(answer)
            && let Some(what) = complaint("run", answer)
        {
            screen.warn(&format!("{host}: {what}"))?;
        }
    }
    screen.flush()
}

/// Shows whole lines that a host has written just now.
pub(crate) fn written(
    screen: &mut Screen,
    view: &View,
    host: &str,
    to: To,
    lines: &Written,
) -> io::Result<()> {
    labelled(screen, to, view, host, &lines.broken)?;
    if lines.left_out > 0 {
        let (size, stream) = (show_bytes(lines.left_out), to.stream());
        screen.flush()?;
        screen.warn(&format!("{host}: {size} of {stream} were left out here, it is too fast"))?;
    }
    labelled(screen, to, view, host, &lines.whole)?;
    screen.flush()
}

/// Says at the end which hosts were not heard of.
pub(crate) fn unheard(
    screen: &mut Screen,
    view: &View,
    order: &OrderInfo,
    gathered: &Gathered,
) -> io::Result<()> {
    let mut groups = gathered.groups();
    groups.retain(|group| is_supposed(group.answer));
    complaints(screen, view, order, &groups)
}

/// Shows everything gathered, in the way that was asked for.
pub(crate) fn gathered(
    screen: &mut Screen,
    view: &View,
    order: &OrderInfo,
    gathered: &Gathered,
) -> io::Result<()> {
    let groups = gathered.groups();
    match view {
        View { diff: true, .. } => diff::show(screen, view, &groups)?,
        View { similar: true, .. } => alike::show(screen, view, &groups)?,
        View { lines: true, gather: false, merge: false, .. } => by_host(screen, view, &groups)?,
        View { lines: true, .. } => by_line(screen, view, &groups)?,
        _ => blocks(screen, view, &groups)?,
    }
    afterword(screen, view, order, &groups)
}

/// Shows what was gathered line by line and can be shown now.
pub(crate) fn rows(screen: &mut Screen, view: &View, rows: &[Row]) -> io::Result<()> {
    for (line, hosts) in rows.iter().flatten() {
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        labelled(screen, To::Out, view, &view.fold(&hosts), line)?;
    }
    screen.flush()
}

/// What follows on gathered output: stderr, what must be said about it, and who has failed.
pub(crate) fn afterword(
    screen: &mut Screen,
    view: &View,
    order: &OrderInfo,
    groups: &[Group<'_>],
) -> io::Result<()> {
    if !view.merge {
        for (text, group) in join(groups, stderr) {
            if text.is_empty() {
                continue;
            }
            labelled(screen, To::Err, view, &view.fold(&group.hosts), &text)?;
        }
    }
    for group in groups {
        let sizes = [stdout(group.answer), stderr(group.answer)].map(|kept| kept.len() as u64);
        remarks(screen, &order.short, group.answer, &view.counted(&group.hosts), sizes)?;
    }
    complaints(screen, view, order, groups)
}

/// The last line: `run 7k3q  288 targets: 287 ok, 1 timed-out (node285)  2.1 s`.
pub(crate) fn summary(order: &OrderInfo, gathered: &Gathered, took: Duration) -> String {
    let groups = gathered.groups();
    let mut states: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for group in &groups {
        states.entry(&group.answer.state).or_default().extend(&group.hosts);
    }
    let pending = pending(order, gathered);
    if !pending.is_empty() {
        states.insert("pending", pending.iter().map(String::as_str).collect());
    }
    let mut states: Vec<_> = states.into_iter().collect();
    states.sort_by_key(|(state, hosts)| (Class::of(state), std::cmp::Reverse(hosts.len())));
    let part = |(state, hosts): (&str, Vec<&str>)| match Class::of(state) {
        Class::Good => format!("{} {state}", show_count(hosts.len() as u64)),
        _ => format!("{} {state} ({})", show_count(hosts.len() as u64), short_fold(&hosts)),
    };
    let parts: Vec<String> = states.into_iter().map(part).collect();
    let OrderInfo { kind, short, count, .. } = order;
    let noun = if *count == 1 { "target" } else { "targets" };
    let (count, parts, took) = (show_count(*count), parts.join(", "), show_duration(took));
    format!("{kind} {short}  {count} {noun}: {parts}  {took}")
}

/// The targets without an answer, in natural order.
pub(crate) fn pending(order: &OrderInfo, gathered: &Gathered) -> Vec<String> {
    if u64::try_from(gathered.len()).is_ok_and(|answered| answered >= order.count) {
        return Vec::new();
    }
    let mut names = sets::expand(&order.targets).unwrap_or_default();
    names.retain(|name| !gathered.contains(name));
    names
}

/// How an order with these answers ends this process.
pub(crate) fn exit(gathered: &Gathered, largest: bool) -> Exit {
    let groups = gathered.groups();
    let states = groups.iter().map(|group| (group.answer.state.as_str(), group.answer.code));
    match Exit::of(states, largest) {
        Exit::Ok if groups.iter().any(|group| group.answer.drift > 0) => Exit::Drift,
        exit => exit,
    }
}

/// A folded set that fits into a sentence.
pub(crate) fn short_fold(hosts: &[&str]) -> String {
    let set = sets::fold(hosts);
    if set.len() <= SET_IN_LINE {
        return set;
    }
    // Names are ASCII; should one not be, the cut moves to where a character begins.
    let cut = (0..=SET_IN_LINE).rev().find(|at| set.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...", &set[..cut])
}

/// A table with aligned columns.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(heads.to_vec());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// Whether somebody on the way supposes this, and the host's own word would replace it.
pub(crate) fn is_supposed(answer: &Answer) -> bool {
    ["relay-lost", "not-reached"].contains(&answer.state.as_str())
}

/// Equal output once, under a header.
fn blocks(screen: &mut Screen, view: &View, groups: &[Group<'_>]) -> io::Result<()> {
    let joined = join(groups, |answer| (text_of(view, answer), answer.state.as_str(), answer.code));
    for ((text, _, _), group) in joined {
        if text.is_empty() {
            continue;
        }
        if !view.unlabelled {
            screen.label(To::Out, &format!("{RULE}{}\n{RULE}", view.counted(&group.hosts)))?;
        }
        screen.remote(To::Out, &text)?;
    }
    screen.flush()
}

/// `-L`: all lines of one host, then of the next.
fn by_host(screen: &mut Screen, view: &View, groups: &[Group<'_>]) -> io::Result<()> {
    let each = |group: &Group<'_>| group.hosts.len();
    let mut hosts: Vec<(&str, &Answer)> = Vec::with_capacity(groups.iter().map(each).sum());
    for group in groups {
        hosts.extend(group.hosts.iter().map(|host| (*host, group.answer)));
    }
    hosts.sort_by(|(a, _), (b, _)| sets::natural_cmp(a, b));
    for (host, answer) in hosts {
        labelled(screen, To::Out, view, host, &stdout(answer))?;
    }
    screen.flush()
}

/// `-bL`: the first lines of all hosts, equal ones once, then the second lines, and so on.
fn by_line(screen: &mut Screen, view: &View, groups: &[Group<'_>]) -> io::Result<()> {
    let joined = join(groups, |answer| text_of(view, answer));
    let mut rests: Vec<(&[u8], &[&str])> =
        joined.iter().map(|(text, group)| (text.as_ref(), group.hosts.as_slice())).collect();
    loop {
        rests.retain(|(rest, _)| !rest.is_empty());
        if rests.is_empty() {
            return screen.flush();
        }
        let mut equal: Vec<(&[u8], Vec<&str>)> = Vec::new();
        let mut index: HashMap<&[u8], usize> = HashMap::new();
        for (rest, hosts) in &mut rests {
            let end = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            *rest = after;
            let at = *index.entry(line).or_insert(equal.len());
            if at == equal.len() {
                equal.push((line, Vec::new()));
            }
            equal[at].1.extend_from_slice(hosts);
        }
        for (line, hosts) in equal {
            labelled(screen, To::Out, view, &view.fold(&hosts), line)?;
        }
    }
}

/// `host: line` for each line.
fn labelled(screen: &mut Screen, to: To, view: &View, host: &str, text: &[u8]) -> io::Result<()> {
    for line in lines(text.into()).split_inclusive(|b| *b == b'\n') {
        if !view.unlabelled {
            screen.label(to, &format!("{host}:"))?;
            screen.remote(to, b" ")?;
        }
        screen.remote(to, line)?;
    }
    Ok(())
}

/// The output that is gathered: that of stdout, with -B that of stderr as well.
pub(crate) fn text_of<'a>(view: &View, answer: &'a Answer) -> Cow<'a, [u8]> {
    let out = lines(stdout(answer));
    match lines(stderr(answer)) {
        err if view.merge && !err.is_empty() => [out, err].concat().into(),
        _ => out,
    }
}

/// The text with a newline at its end, unless it is empty.
fn lines(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match text.last() {
        None | Some(b'\n') => text,
        Some(_) => {
            let mut text = text.into_owned();
            text.push(b'\n');
            text.into()
        }
    }
}

/// What must be said about an answer apart from its outcome: cut output, warnings.
/// `shown`: how much of stdout and stderr is.
fn remarks(
    screen: &mut Screen,
    run: &str,
    answer: &Answer,
    hosts: &str,
    [out, err]: [u64; 2],
) -> io::Result<()> {
    let kept = [
        ("stdout", "", out, answer.stdout_size, &answer.stdout_kept),
        ("stderr", " --stderr", err, answer.stderr_size, &answer.stderr_kept),
    ];
    for (name, option, shown, size, kept) in kept {
        if size > shown {
            let (shown, size) = (show_bytes(shown), show_bytes(size));
            screen.warn(&format!("{hosts}: {name} was cut: {shown} of {size} are shown"))?;
            if let Some(kept) = kept {
                // Without the count behind a folded set.
                let set = hosts.split(' ').next().unwrap_or(hosts);
                let bytes = show_bytes(kept.bytes);
                screen.help(&format!("`barid out {run} -w {set}{option}` fetches {bytes}"))?;
            }
        }
    }
    if answer.body_lost {
        screen.warn(&format!("{hosts}: the output was lost on the way; the outcome is right"))?;
    }
    for warning in &answer.warnings {
        screen.warn(&format!("{hosts}: warning: {warning}"))?;
    }
    Ok(())
}

/// One line for each distinct failure, with the folded hosts and what to do.
fn complaints(
    screen: &mut Screen,
    view: &View,
    order: &OrderInfo,
    groups: &[Group<'_>],
) -> io::Result<()> {
    let kind = order.kind.as_str();
    for (what, group) in join(groups, |answer| complaint(kind, answer)) {
        let Some(what) = what else { continue };
        screen.warn(&format!("{}: {what}", view.counted(&group.hosts)))?;
        if let Some(help) = remedy(kind, group.answer, &short_fold(&group.hosts)) {
            screen.help(&help.replace(" ID", &format!(" {}", order.short)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "render_tests.rs"]
pub(crate) mod tests;
