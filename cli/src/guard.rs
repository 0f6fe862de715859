//! A question before an order for many: above a number of hosts whoever gives it says how many.
//!
//! On a terminal it is asked above [`DEFAULT`] hosts, or above what `--confirm-over` says. Where
//! nobody can be asked, an order is refused only if that option, or its variable, is given: a
//! script that has run for years must not begin to fail because the fleet has grown.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};

use controller::types::{Resolved, Targets};

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::render::short_fold;
use crate::screen::Screen;
use crate::targets::resolve;
use crate::units::show_count;

/// Above how many hosts people are asked if nothing else is said.
const DEFAULT: u64 = 100;

/// The options of a question.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct GuardArgs {
    /// Ask for the number of hosts above so many [default: 100 on a terminal, else never]
    #[arg(long, value_name = "N", env = "BARID_CONFIRM_OVER", hide_env_values = true)]
    #[arg(help_heading = "Safety")]
    pub(crate) confirm_over: Option<u64>,
    /// Do not ask
    #[arg(long, help_heading = "Safety")]
    pub(crate) yes: bool,
}

/// The targets of an order, asked about if they are many: then exactly those that were shown.
pub(crate) async fn confirmed(
    args: GuardArgs,
    client: &Client,
    screen: &mut Screen,
    targets: Targets,
    verb: &str,
) -> Result<Targets, Failure> {
    if args.yes {
        return Ok(targets);
    }
    let terminal = if screen.is_watched() { terminal() } else { None };
    let Some(limit) = limit(args, terminal.is_some()) else { return Ok(targets) };
    let resolved = resolve(client, &targets).await?;
    if resolved.hosts.len() as u64 <= limit {
        return Ok(targets);
    }
    let Some(terminal) = terminal else { return Err(unasked(&resolved, limit, verb)) };
    question(screen, &resolved, verb)?;
    let mut answer = String::new();
    BufReader::new(terminal).read_line(&mut answer)?;
    agreed(&answer, resolved)
}

/// Above how many hosts to ask; none: never.
fn limit(args: GuardArgs, has_terminal: bool) -> Option<u64> {
    args.confirm_over.or(has_terminal.then_some(DEFAULT))
}

/// The terminal of whoever gives the order, whatever standard input is.
fn terminal() -> Option<File> {
    File::open("/dev/tty").ok().filter(File::is_terminal)
}

fn question(screen: &mut Screen, resolved: &Resolved, verb: &str) -> Result<(), Failure> {
    let hosts: Vec<&str> = resolved.hosts.iter().map(String::as_str).collect();
    let count = show_count(hosts.len() as u64);
    screen.say(&format!("this {verb} is for {count} hosts: {}", short_fold(&hosts)))?;
    screen.say("type how many hosts they are, and Enter, to go on:")?;
    Ok(())
}

/// Takes the number with or without commas, and nothing else.
fn agreed(answer: &str, resolved: Resolved) -> Result<Targets, Failure> {
    let typed: String = answer.trim().chars().filter(|c| *c != ',').collect();
    if typed != resolved.hosts.len().to_string() {
        return Err(Failure::new(Exit::Declined, "declined", "not confirmed: nothing was started"));
    }
    // A group may change while somebody thinks.
    Ok(Targets { sets: vec![resolved.set], ..Targets::default() })
}

fn unasked(resolved: &Resolved, limit: u64, verb: &str) -> Failure {
    let count = show_count(resolved.hosts.len() as u64);
    let message = format!(
        "this {verb} is for {count} hosts, more than --confirm-over {limit}, \
         and there is no terminal to ask at: nothing was started"
    );
    Failure::new(Exit::Declined, "declined", message)
        .with_help("--yes says that this is meant; --plan shows who it would be")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Resolved {
        Resolved { hosts: vec!["a1".into(), "a2".into(), "a3".into()], set: "a[1-3]".into() }
    }

    #[test]
    fn only_the_number_is_a_yes() {
        let targets = agreed("3\n", three()).expect("it is the number");
        assert_eq!((targets.sets, targets.all), (vec!["a[1-3]".into()], false));
        for answer in ["", "\n", "y\n", "yes\n", "4\n", "33\n"] {
            assert_eq!(agreed(answer, three()).expect_err(answer).exit, Exit::Declined);
        }
        let many = Resolved { hosts: vec![String::new(); 1_200], set: String::new() };
        assert!(agreed("1,200\n", many).is_ok());
    }

    #[test]
    fn scripts_are_asked_only_if_they_say_so() {
        let over = |confirm_over| GuardArgs { confirm_over, yes: false };
        assert_eq!(limit(over(None), true), Some(DEFAULT));
        assert_eq!(limit(over(None), false), None);
        assert_eq!(limit(over(Some(5)), false), Some(5));
        assert_eq!(limit(over(Some(5)), true), Some(5));
        assert!(unasked(&three(), 2, "run").text().contains("--yes"));
    }
}
