//! `barid run`: a command on many hosts.

use std::collections::BTreeMap;
use std::time::Duration;

use controller::types::{NewRun, OrderInfo, PlanQuery, PushEvent};

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::given::GivenArgs;
use crate::guard::{self, GuardArgs};
use crate::keys::Keys;
use crate::pace::PaceArgs;
use crate::plan;
use crate::render::View;
use crate::retry::{Retries, follow, parse_retries};
use crate::save::SaveArgs;
use crate::screen::Screen;
use crate::targets::TargetArgs;
use crate::units::{millis, parse_duration, parse_some_duration, show_duration};

/// How much of each of stdout and stderr hosts keep: as much as one answer can carry.
pub(crate) const OUTPUT_LIMIT: u64 = 192 << 10;
/// How long a command may run if nobody says.
pub(crate) const USUAL: &str = "1h";
/// And how long hosts that cannot be reached are waited for.
pub(crate) const USUAL_REACH: &str = "15s";

/// What makes a single word a line for the shell.
const SHELL_CHARACTERS: &str = "|&;<>()$`\\\"'*?[]#~!{}";

const EXAMPLES: &str = "\
How COMMAND is read:
  several words      a program and its arguments, exactly as given; no shell is involved
  one word with a    a line for /bin/sh -c, as in pdsh and clush:  barid run -a 'df -h | tail -1'
  space or a shell
  character in it
  --shell            always a line for /bin/sh -c; several words are joined by spaces

Examples:
  barid run -w 'node[001-288]' -b uname -r
  barid run -w '@site:paris!@gpu' --pick 5% -- dnf -y update
  barid run -w @run:last/failed -B cat /var/log/install.log
  barid run -a -x @lyon -u 10m -- systemctl restart sshd
  barid run -g web --async 'sleep 60; uptime'
  barid run -a -f 32 --max-errors 2% -- dnf -y update
  barid run -a --batch 10% --batch-wait 1m -k -- systemctl restart agent
  barid run -g lyon --defer --expires 3d -- update-grub
  barid run -a --with check.sh -l nobody -- {file} --quick
  barid run -a --stdin users.csv -- /opt/import-users";

/// Options of `barid run`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,
    #[command(flatten)]
    pub(crate) view: View,
    #[command(flatten)]
    pub(crate) save: SaveArgs,
    /// How long to wait for a host that cannot be reached
    #[arg(short = 't', long, value_name = "REACH", default_value = USUAL_REACH)]
    #[arg(value_parser = parse_duration)]
    pub(crate) reach: Duration,
    /// Hosts that are away get it when they are back
    #[arg(long, conflicts_with = "retry")]
    pub(crate) defer: bool,
    /// Until when they do, from now on
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_some_duration)]
    #[arg(requires = "defer")]
    pub(crate) expires: Duration,
    /// How long the command may run; then its whole process group is ended
    #[arg(short = 'u', long, value_name = "TIMEOUT", default_value = USUAL)]
    #[arg(value_parser = parse_some_duration)]
    pub(crate) timeout: Duration,
    /// COMMAND is a line for /bin/sh -c
    #[arg(long)]
    pub(crate) shell: bool,
    /// Do not wait: print the run's id, as for `barid runs show ID`
    #[arg(long = "async")]
    pub(crate) detach: bool,
    /// Where it fails, times out or does not arrive, give it again, so often and after a while
    #[arg(long, value_name = "N[:DELAY]", value_parser = parse_retries, conflicts_with = "detach")]
    pub(crate) retry: Option<Retries>,
    /// Only say on which hosts it would run, who of them is away, the way there and the cost
    #[arg(long, help_heading = "Safety")]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) guard: GuardArgs,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    #[command(flatten)]
    pub(crate) given: GivenArgs,
    /// The command
    #[arg(trailing_var_arg = true, required_unless_present = "plan", value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Runs the command, and shows what it says.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let targets = args.targets.required(screen)?;
    let (argv, shell) = command(args.command, args.shell);
    let mut run = NewRun {
        targets,
        argv,
        shell,
        dir: String::new(),
        env: BTreeMap::new(),
        user: String::new(),
        umask: None,
        stdin: Vec::new(),
        files: Vec::new(),
        pace: args.pace.pace(),
        reach_ms: millis(args.reach),
        hold_ms: if args.defer { millis(args.expires) } else { 0 },
        timeout_ms: millis(args.timeout),
        output_limit: OUTPUT_LIMIT,
    };
    if args.plan {
        return plan::show(client, screen, &PlanQuery::Run(Box::new(run))).await;
    }
    run.targets = guard::confirmed(args.guard, client, screen, run.targets, "run").await?;
    args.save.ready()?;
    args.given.fill(&mut run, client).await?;
    let view = args.view.with_groups(client).await?;
    if args.detach {
        let order: OrderInfo = client.post("/v1/runs", &run).await?;
        return detached(screen, &order);
    }
    // From before the order leaves, so that no signal finds nobody.
    let keys = Keys::new().map_err(|error| Failure::local(&error))?;
    let order: OrderInfo = client.post("/v1/runs", &run).await?;
    if screen.json {
        screen.json(&PushEvent::Ordered { order: Box::new(order.clone()), skipped: Vec::new() })?;
    }
    let shown = (view, args.save);
    let (quiet, short) = (shown.0.quiet, order.short.clone());
    let exit = follow(keys, client, screen, shown, order, args.retry.unwrap_or_default()).await?;
    if args.defer && matches!(exit, Exit::Missed) && !quiet && !screen.json {
        let expires = show_duration(args.expires);
        screen.help(&format!(
            "who is away gets it within {expires} when back: barid runs show {short}"
        ))?;
    }
    Ok(exit)
}

/// `--async`: the id, and nothing else, on stdout.
pub(crate) fn detached(screen: &mut Screen, order: &OrderInfo) -> Result<Exit, Failure> {
    match screen.json {
        true => screen.json(order)?,
        false => screen.print(&format!("{}\n", order.short))?,
    }
    Ok(Exit::Ok)
}

/// The words as the API wants them: arguments, or one line for the shell.
fn command(mut words: Vec<String>, shell: bool) -> (Vec<String>, bool) {
    if shell {
        return (vec![words.join(" ")], true);
    }
    let is_line =
        |word: &str| word.chars().any(|c| c.is_whitespace() || SHELL_CHARACTERS.contains(c));
    match words.as_mut_slice() {
        [word] if is_line(word) => (words, true),
        _ => (words, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_may_be_a_shell_line() {
        let check = |words: &[&str], shell: bool, argv: &[&str], is_shell: bool| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            let (found, found_shell) = command(words, shell);
            assert_eq!(
                (found, found_shell),
                (argv.iter().map(|w| (*w).into()).collect(), is_shell)
            );
        };
        check(&["uptime"], false, &["uptime"], false);
        check(&["uname", "-r"], false, &["uname", "-r"], false);
        check(&["echo", "$HOME; ls"], false, &["echo", "$HOME; ls"], false);
        check(&["echo $HOME"], false, &["echo $HOME"], true);
        check(&["a;b"], false, &["a;b"], true);
        check(&["/usr/bin/a-b_c.d=e"], false, &["/usr/bin/a-b_c.d=e"], false);
        check(&["echo", "a  b", "|", "wc"], true, &["echo a  b | wc"], true);
        check(&["uptime"], true, &["uptime"], true);
    }
}
