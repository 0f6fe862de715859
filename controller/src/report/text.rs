//! A report for people: first the files that something is wrong with, by their domainpaths, then
//! what is wrong with nobody's file, by whose trouble it is, then the counts.

use crate::types::{Problem, Report};

/// How much of a set of hosts a problem shows; above this, the first names.
const SET_WIDTH: usize = 60;
/// So many names are shown of more.
const NAMES: usize = 5;

/// How texts, times and numbers are written where the report is read.
pub struct Style {
    /// Takes out what must not be in a line there.
    pub escape: fn(&str) -> String,
    /// Writes unix milliseconds.
    pub time: fn(u64) -> String,
    /// Writes a number.
    pub count: fn(u64) -> String,
}

/// A report for people.
pub fn text(report: &Report, style: &Style) -> String {
    let so_far = if report.is_over { "" } else { ", so far" };
    let mut text = match report.kind.as_str() {
        "errors" => format!("errors since {}\n", (style.time)(report.start_ms)),
        kind => format!("errors of the {kind} {}{so_far}\n", report.title),
    };
    if report.is_partial {
        text += "a part of it is not kept any more\n";
    }
    if report.problems.is_empty() {
        text += "\nnothing went wrong\n";
    }
    if report.parts.is_empty() {
        text += &problems(&report.problems, &report.resolved, style);
    }
    for part in &report.parts {
        text += &format!("\n== {} ==\n", (style.escape)(&part.name));
        text += &problems(&part.problems, &part.resolved, style);
    }
    let events: u64 = report.problems.iter().map(|problem| problem.count).sum();
    let count = report.problems.len() as u64;
    text += &format!("\n{} problems, {} events", (style.count)(count), (style.count)(events));
    if report.daily > 0 {
        text += &format!(", {} left to the daily report", (style.count)(report.daily));
    }
    if report.discarded > 0 {
        text += &format!(", {} discarded", (style.count)(report.discarded));
    }
    text += &format!("\n{} hosts reached by distributions", (style.count)(report.reached));
    if let Some(updated) = report.updated {
        text += &format!(", {} files updated", (style.count)(updated));
    }
    text + "\n"
}

fn problems(problems: &[Problem], resolved: &[Problem], style: &Style) -> String {
    let (mut text, mut last) = (String::new(), "");
    for problem in problems {
        let of = if problem.path.is_empty() { heading(&problem.class) } else { &problem.path };
        if of != last {
            last = of;
            text += &format!("\n{}\n", (style.escape)(of));
        }
        text += &entry(problem, style);
    }
    if !resolved.is_empty() {
        text += "\nnot seen any more\n";
    }
    for Problem { subject, path, line, last_ms, .. } in resolved {
        let of = if path.is_empty() { String::new() } else { format!("{path}: ") };
        let line = (style.escape)(&format!("{subject}: {of}{line}"));
        let last = match last_ms {
            0 => String::new(),
            last_ms => format!(" (last {})", (style.time)(*last_ms)),
        };
        text += &format!("  {line}{last}\n");
    }
    text
}

fn heading(class: &str) -> &str {
    match class {
        "controller" => "controller in trouble",
        "relay" => "relay in trouble",
        "down" => "client down",
        "space" => "client out of space",
        "command" => "client command failed",
        "client" => "client in trouble",
        other => other,
    }
}

/// From when until when, if that is known.
fn when(problem: &Problem, style: &Style) -> String {
    if problem.last_ms == 0 {
        return String::new();
    }
    let (first, last) = ((style.time)(problem.first_ms), (style.time)(problem.last_ms));
    if first == last { format!(", {first}") } else { format!(", {first} to {last}") }
}

fn entry(problem: &Problem, style: &Style) -> String {
    let Problem { subject, count, hosts, set, names, is_new, .. } = problem;
    let state = if *is_new { "new  " } else { "known" };
    let who = match set.chars().count() > SET_WIDTH {
        true => {
            let first = &names[..names.len().min(NAMES)];
            format!("{} hosts, of them {}", (style.count)(*hosts), first.join(", "))
        }
        false if *hosts == 1 => set.clone(),
        false => format!("{} hosts, {set}", (style.count)(*hosts)),
    };
    let times = match count {
        1 => "once".into(),
        count => format!("{} times", (style.count)(*count)),
    };
    let when = when(problem, style);
    let order = &problem.order;
    let order = match order.is_char_boundary(order.len().saturating_sub(6)) && order.len() > 6 {
        true => format!(" ({})", &order[order.len() - 6..]),
        false => String::new(),
    };
    // Under a domainpath nothing else says whose trouble it is.
    let class = match problem.path.as_str() {
        "" => String::new(),
        _ => format!("{}: ", heading(&problem.class)),
    };
    let (who, line) = ((style.escape)(&who), (style.escape)(&problem.line));
    let mut text = format!("  {state}  {subject}{order}  {who}, {times}{when}\n");
    text += &format!("         {class}{line}\n");
    if !problem.cause.is_empty() {
        text += &format!("         probably: {}\n", (style.escape)(&problem.cause));
    }
    text
}
