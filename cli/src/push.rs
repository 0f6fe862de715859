//! `barid push`: a file or folder to many hosts, over each link once.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use controller::types::{
    LinkInfo, NewPush, NewStart, OrderInfo, PlanQuery, PushEvent, PushInfo, RolloutInfo, Special,
    Waves,
};

use crate::client::{Client, Lines, segment};
use crate::exit::Exit;
use crate::fail::Failure;
use crate::follow::Follow;
use crate::gathered::Gathered;
use crate::guard::{self, GuardArgs};
use crate::plan;
use crate::preflight::{self, Asked};
use crate::progress::{show_sites, spinner};
use crate::render::View;
use crate::run::detached;
use crate::screen::Screen;
use crate::stage::After;
use crate::targets::TargetArgs;
use crate::units::{
    millis, parse_bytes, parse_duration, parse_some_duration, show_bytes, show_count, show_time,
};

/// How many entries that were left out are named.
const SKIPPED_SHOWN: usize = 10;

const EXAMPLES: &str = "\
Examples:
  barid push /srv/www -w 'web[1-9]'                 to /srv/www at each host
  barid push ./site -a --dest /srv/www --exclude .git
  barid push /srv/www -a --verify                   how hosts differ; exit 10 if any does
  barid push /srv/www -a --delete --exclude 'cache/'
  barid push /srv/www -a --waves 1,5%,25%,100% --gate 'errors<=1% soak=10m'
  barid push agent.rpm -g lyon --dest /opt/agent.rpm --async
  barid push /srv/www -a --stage --hold 3d          content only, by day or by night
  barid push --start last                           and in place, at once everywhere
  barid push /srv/www -a --stage --waves 1,5%,100%  content first, and then in waves

Patterns: a name wherever it occurs, `/logs` at the top only, `cache/` folders only; `*` and `?`
stop at a slash, `**` between slashes does not.";

/// Options of `barid push`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file or folder, on the controller's machine
    #[arg(value_name = "SOURCE", required_unless_present = "start")]
    pub(crate) source: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) targets: TargetArgs,
    /// Where it goes at each host, absolute [default: where SOURCE is here]
    #[arg(long, value_name = "PATH")]
    pub(crate) dest: Option<PathBuf>,
    /// What to leave alone, neither sent nor deleted; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Delete below PATH what SOURCE lacks: everything, or with `installed` only what an earlier
    /// push put there and nobody has changed since
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "all", value_parser = ["all", "installed"])]
    pub(crate) delete: Option<String>,
    /// How many entries a host may delete, as 50 or 5% of what is there; a host that would delete
    /// more changes nothing [default: 100 or 10%, whichever is more]
    #[arg(long, value_name = "N|N%", requires = "delete", help_heading = "Safety")]
    pub(crate) max_delete: Option<String>,
    /// Put SOURCE in place as a whole: build it beside PATH, exchange the two at once, and keep
    /// what was there for `barid rollback`
    #[arg(long, conflicts_with = "delete")]
    pub(crate) tree: bool,
    /// Leave files alone that hold the right thing, whatever their mode, owner and time
    #[arg(long, conflicts_with = "tree")]
    pub(crate) compare: bool,
    /// Leave files alone that were changed later than those of SOURCE, and say so
    #[arg(long, conflicts_with = "tree")]
    pub(crate) younger: bool,
    /// Keep what is replaced as NAME with this behind it, such as .OLD
    #[arg(long, value_name = "SUFFIX", conflicts_with = "tree")]
    pub(crate) savetargets: Option<String>,
    /// Owners and groups by number, not by name
    #[arg(long)]
    pub(crate) numeric_ids: bool,
    /// Run this line in the shell of each host first; where it fails nothing is touched
    #[arg(long, value_name = "LINE", help_heading = "Commands")]
    pub(crate) before: Option<String>,
    /// Run this line in the shell of each host where anything has changed, when all is in place;
    /// $FILES are the files, with colons between
    #[arg(long, value_name = "LINE", help_heading = "Commands")]
    pub(crate) after: Option<String>,
    /// Run this line for each changed file that the pattern means: $FILE is the file at SOURCE,
    /// $REMFILE at the host, $BASEFILE its name; may be given several times
    #[arg(long, value_name = "PATTERN=LINE", value_parser = special, help_heading = "Commands")]
    pub(crate) special: Vec<Special>,
    /// Change nothing: hosts only say how they differ
    #[arg(long, conflicts_with = "plan", help_heading = "Safety")]
    pub(crate) verify: bool,
    /// First ask every host whether it could take SOURCE now (room, inodes, what is in the way,
    /// what would be deleted), and push only if all that answer can; no content travels before
    #[arg(long, conflicts_with_all = ["plan", "verify"], help_heading = "Safety")]
    pub(crate) preflight: bool,
    /// How long to wait for a host that cannot be reached before saying so
    #[arg(short = 't', long, value_name = "REACH", default_value = "15s")]
    #[arg(value_parser = parse_duration)]
    pub(crate) reach: Duration,
    /// How long the push waits for hosts that are away
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_some_duration)]
    pub(crate) hold: Duration,
    /// Do not wait: print the push's id, as for `barid runs show ID`
    #[arg(long = "async")]
    pub(crate) detach: bool,
    /// No progress and no last line
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
    /// Push nothing: read SOURCE, and say to whom it would go, what would change for them, and the
    /// bytes on each link
    #[arg(long, help_heading = "Safety")]
    pub(crate) plan: bool,
    /// Let its content go over each link at this rate at most, in bits a second, as 500k or 2M
    #[arg(long, value_name = "RATE", value_parser = relay::parse_rate)]
    pub(crate) rate: Option<u64>,
    /// Push nothing if more than this would go over a link, as 500K, 20M or 1G
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Safety")]
    pub(crate) max_bytes_per_link: Option<u64>,
    /// In waves, as far as each of them reaches: numbers of hosts, percentages, or sets such as
    /// @canary; a wave opens when the gate of the one before has passed
    #[arg(long, value_name = "LIST", conflicts_with = "verify", help_heading = "Waves")]
    pub(crate) waves: Option<String>,
    /// What a wave must have come to, and for how long: ok>=98% errors<=1% missed<=5%
    /// site-errors<=2 soak=10m check="COMMAND" [default: errors<=1% missed<=10%]
    #[arg(long, value_name = "GATE", help_heading = "Waves")]
    #[arg(conflicts_with_all = ["verify", "all_at_once"])]
    pub(crate) gate: Option<String>,
    /// To everybody at once, however many they are
    #[arg(long, conflicts_with = "waves", help_heading = "Waves")]
    pub(crate) all_at_once: bool,
    /// Bring the content into the stores of relays and hosts, for --hold, and put nothing in place
    /// until --start; with --waves, --gate or --all-at-once start so once it is at every host
    #[arg(long, help_heading = "In two steps", conflicts_with_all = ["verify", "plan"])]
    pub(crate) stage: bool,
    /// Put in place what was staged, at its hosts or those of them that -w says
    #[arg(long, value_name = "ID", help_heading = "In two steps")]
    #[arg(conflicts_with_all = [
        "source", "dest", "exclude", "delete", "max_delete", "tree", "compare", "younger",
        "savetargets", "numeric_ids", "before", "after", "special", "verify", "plan", "rate",
        "preflight", "stage",
    ])]
    pub(crate) start: Option<String>,
    /// Begin at this time, as in 22:00, `2026-12-01 02:30 UTC` or `22:00 site` (the clocks of the
    /// hosts' sites); the controller holds it until then
    #[arg(long, value_name = "TIME", help_heading = "In two steps")]
    #[arg(conflicts_with_all = ["verify", "stage", "plan"])]
    pub(crate) start_at: Option<String>,
    #[command(flatten)]
    pub(crate) guard: GuardArgs,
}

/// The waves in which many get something if nothing else is said.
const USUAL: &str = controller::rollout::waves::USUAL;

/// Pushes, and tells how it goes.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    if let Some(id) = args.start.clone() {
        return start(args, &id, client, screen).await;
    }
    let then = After::of(&args)?;
    // Without `--start` there is one.
    let source = absolute(args.source.as_deref().unwrap_or(Path::new("")))?;
    let dest = destination(args.dest.as_deref().unwrap_or(&source))?;
    let mut push = NewPush {
        targets: args.targets.required(screen)?,
        source: text(&source)?,
        dest: text(&dest)?,
        exclude: args.exclude,
        delete: args.delete.unwrap_or_default(),
        max_delete: args.max_delete.unwrap_or_default(),
        tree: args.tree,
        content_only: args.compare,
        keep_newer: args.younger,
        save: args.savetargets.unwrap_or_default(),
        before: args.before.unwrap_or_default(),
        after: args.after.unwrap_or_default(),
        special: args.special,
        numeric_ids: args.numeric_ids,
        verify: args.verify,
        preflight: false,
        asked: None,
        rate: args.rate.unwrap_or(0),
        max_link_bytes: args.max_bytes_per_link,
        reach_ms: millis(args.reach),
        hold_ms: millis(args.hold),
        waves: waves(args.waves, args.gate),
        all_at_once: args.all_at_once,
        begins: args.start_at.clone().unwrap_or_default(),
        stage: args.stage,
    };
    if args.plan {
        return plan::show(client, screen, &PlanQuery::Push(Box::new(push))).await;
    }
    if !args.verify {
        push.targets = guard::confirmed(args.guard, client, screen, push.targets, "push").await?;
    }
    if args.preflight {
        match preflight::ask(client, screen, &push, args.quiet).await? {
            Asked::Clear { order } => push.asked = Some(order),
            Asked::Over(exit) => return Ok(exit),
        }
    }
    let usual = push.waves.is_none() && push.begins.is_empty();
    let how = Order { path: "/v1/pushes", quiet: args.quiet, detach: args.detach, usual };
    let (exit, id) = followed(client, screen, &how, &push).await?;
    match (then, id) {
        (Some(then), Some(id)) => then.start(exit, &id, (client, screen)).await,
        _ => Ok(exit),
    }
}

/// Puts in place what was staged, and tells how it goes.
async fn start(
    args: Args,
    id: &str,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let named = !args.targets.is_empty() || args.targets.narrows();
    let mut new = NewStart {
        targets: if named { Some(args.targets.required(screen)?) } else { None },
        reach_ms: millis(args.reach),
        hold_ms: millis(args.hold),
        waves: waves(args.waves, args.gate),
        all_at_once: args.all_at_once,
        begins: args.start_at.unwrap_or_default(),
        max_link_bytes: args.max_bytes_per_link,
    };
    // Whoever is not named was confirmed when it was staged.
    if let Some(targets) = new.targets.take() {
        let targets = guard::confirmed(args.guard, client, screen, targets, "push").await?;
        new.targets = Some(targets);
    }
    let path = format!("/v1/pushes/{}/start", segment(id)?);
    let usual = new.waves.is_none() && new.begins.is_empty();
    let how = Order { path: &path, quiet: args.quiet, detach: args.detach, usual };
    follow(client, screen, &how, &new).await
}

/// A gate alone is one for the usual waves.
pub(crate) fn waves(waves: Option<String>, gate: Option<String>) -> Option<Waves> {
    let is_wanted = waves.is_some() || gate.is_some();
    is_wanted.then(|| Waves {
        waves: waves.unwrap_or_else(|| USUAL.into()),
        gate: gate.unwrap_or_default(),
    })
}

/// How an order that is a push is asked for and watched.
pub(crate) struct Order<'a> {
    pub(crate) path: &'a str,
    pub(crate) quiet: bool,
    pub(crate) detach: bool,
    /// Whether nobody has asked for waves.
    pub(crate) usual: bool,
}

/// Gives an order that is a push, and watches it.
pub(crate) async fn follow(
    client: &Client,
    screen: &mut Screen,
    how: &Order<'_>,
    new: &impl serde::Serialize,
) -> Result<Exit, Failure> {
    Ok(followed(client, screen, how, new).await?.0)
}

/// The same, with the id of the order, if it is one order.
async fn followed(
    client: &Client,
    screen: &mut Screen,
    how: &Order<'_>,
    new: &impl serde::Serialize,
) -> Result<(Exit, Option<String>), Failure> {
    let before = sent_by_site(client).await?;
    let mut events = client.post_lines(how.path, new).await?;
    let order = ordered(&mut events, screen, how.quiet, how.detach).await?;
    drop(events);
    let order = match order {
        Given::Order(order) => *order,
        Given::Rollout(rollout) => {
            return Ok((rolled(client, screen, how, &rollout).await?, None));
        }
    };
    let id = Some(order.short.clone());
    if how.detach {
        return Ok((detached(screen, &order)?, id));
    }
    let view = View { gather: true, quiet: how.quiet, ..View::default() };
    let mut follow = Follow::new(client, screen, view, order)?;
    let ended = follow.watch().await?;
    if !follow.screen().json {
        let text = report(&follow.order, &follow.gathered);
        let sites = show_sites(&sent_since(client, &before, &follow.content_sent).await, None);
        follow.screen().print(&text)?;
        if !sites.is_empty() {
            follow.screen().print(&format!("  sent over links: {sites}\n"))?;
        }
    }
    Ok((follow.finish(ended)?, id))
}

/// What a push has become.
pub(crate) enum Given {
    Order(Box<OrderInfo>),
    Rollout(Box<RolloutInfo>),
}

/// A push goes out in waves.
async fn rolled(
    client: &Client,
    screen: &mut Screen,
    how: &Order<'_>,
    rollout: &RolloutInfo,
) -> Result<Exit, Failure> {
    if how.detach {
        match screen.json {
            true => screen.json(rollout)?,
            false => screen.print(&format!("{}\n", rollout.short))?,
        }
        return Ok(Exit::Ok);
    }
    if !how.quiet {
        let (short, waves) = (&rollout.short, rollout.waves.len());
        let hosts = show_count(rollout.hosts);
        screen.say(&format!("rollout {short}: {hosts} hosts in {waves} waves"))?;
        if how.usual {
            screen.help("that many get it in waves; --all-at-once means all of them at once")?;
        }
    }
    crate::rollout::watch(client, screen, rollout, how.quiet).await
}

/// What a push weighs and what became of its files.
pub(crate) fn report(order: &OrderInfo, gathered: &Gathered) -> String {
    if let Some(info) = &order.stage {
        return staged(order, info, gathered);
    }
    let info = order.push.clone().unwrap_or_default();
    if info.verify {
        return verified(order, &info, gathered);
    }
    let PushInfo { files, bytes, pack_bytes, dest, .. } = info;
    let (mut written, mut unchanged, mut deleted, mut hosts) = (0, 0, 0, 0);
    for group in gathered.groups() {
        let count = group.hosts.len() as u64;
        written += group.answer.written * count;
        unchanged += group.answer.unchanged * count;
        deleted += group.answer.deleted * count;
        hosts += if group.answer.state == "ok" { count } else { 0 };
    }
    let (files, hosts, total) = (show_count(files), show_count(hosts), show_count(order.count));
    let (bytes, pack) = (show_bytes(bytes), show_bytes(pack_bytes));
    let (written, unchanged) = (show_count(written), show_count(unchanged));
    let deleted = match deleted {
        0 => String::new(),
        n => format!(", {} deleted", show_count(n)),
    };
    format!(
        "{dest}: {files} files, {bytes}, pack {pack}\n  \
         in place at {hosts} of {total} hosts: {written} files and folders written, \
         {unchanged} unchanged{deleted}\n"
    )
}

/// Who has the content of what was staged.
fn staged(order: &OrderInfo, info: &PushInfo, gathered: &Gathered) -> String {
    let groups = gathered.groups();
    let ok = groups.iter().filter(|group| group.answer.state == "ok");
    let hosts = show_count(ok.map(|group| group.hosts.len() as u64).sum());
    let (dest, short, total) = (&info.dest, &order.short, show_count(order.count));
    let (files, pack) = (show_count(info.files), show_bytes(info.pack_bytes));
    let until = show_time(order.stays_until_ms);
    format!(
        "{dest}: {files} files, pack {pack}\n  \
         staged at {hosts} of {total} hosts until {until}: `barid push --start {short}` puts it \
         in place\n"
    )
}

/// How many hosts are as they should be.
fn verified(order: &OrderInfo, info: &PushInfo, gathered: &Gathered) -> String {
    let (mut same, mut other, mut entries) = (0, 0, 0);
    for group in gathered.groups().iter().filter(|group| group.answer.state == "ok") {
        let count = group.hosts.len() as u64;
        *(if group.answer.drift == 0 { &mut same } else { &mut other }) += count;
        entries += group.answer.drift * count;
    }
    let mut text = format!("{}: as it should be at {same} of {} hosts", info.dest, order.count);
    if other > 0 {
        text.push_str(&format!(
            "; at {other} there is another state of {entries} entries\n  \
             + missing  * other content  ~ otherwise described  ! in the way  - not in the source"
        ));
    }
    text.push('\n');
    text
}

/// Content bytes that have gone over the links of each site so far.
async fn sent_by_site(client: &Client) -> Result<BTreeMap<String, u64>, Failure> {
    let links: Vec<LinkInfo> = client.get("/v1/links").await?;
    let mut sent = BTreeMap::new();
    for link in links {
        *sent.entry(link.site).or_default() += link.content_sent;
    }
    Ok(sent)
}

/// What has gone over since `before`. Watching begins a moment after sending does, so `watched`
/// may be short of it; it has to do when the controller does not answer any more.
async fn sent_since(
    client: &Client,
    before: &BTreeMap<String, u64>,
    watched: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let Ok(mut sent) = sent_by_site(client).await else { return watched.clone() };
    for (site, bytes) in &mut sent {
        *bytes = bytes.saturating_sub(before.get(site).copied().unwrap_or_default());
    }
    sent
}

/// Waits until the order is on its way.
pub(crate) async fn ordered(
    events: &mut Lines<PushEvent>,
    screen: &mut Screen,
    quiet: bool,
    detach: bool,
) -> Result<Given, Failure> {
    let bar = (screen.is_watched() && !quiet).then(spinner);
    let show = |message: String| {
        if let Some(bar) = &bar {
            bar.set_message(message);
        }
    };
    let result = loop {
        let event = events.next().await?.ok_or_else(ended_early)?;
        if screen.json && !detach && !matches!(event, PushEvent::Failed { .. }) {
            screen.json(&event)?;
        }
        match event {
            PushEvent::Reading { files, bytes } => {
                let (files, bytes) = (show_count(files), show_bytes(bytes));
                show(format!("reading: {files} files, {bytes}"));
            }
            PushEvent::Packing => show("packing".into()),
            PushEvent::Ordered { order, skipped } => break Ok((Given::Order(order), skipped)),
            PushEvent::Rolling { rollout, skipped } => {
                break Ok((Given::Rollout(rollout), skipped));
            }
            PushEvent::Failed { error } => break Err(Failure::api(200, error)),
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let (order, skipped) = result?;
    if !screen.json {
        warn_skipped(screen, &skipped)?;
    }
    Ok(order)
}

/// Names what a push leaves out because it is of a kind that it does not carry.
pub(crate) fn warn_skipped(screen: &mut Screen, skipped: &[String]) -> Result<(), Failure> {
    for path in skipped.iter().take(SKIPPED_SHOWN) {
        screen.warn(&format!("left out: {path} is neither file, directory nor symlink"))?;
    }
    if let Some(more) = skipped.len().checked_sub(SKIPPED_SHOWN).filter(|more| *more > 0) {
        screen.warn(&format!("left out: {more} more of that kind"))?;
    }
    Ok(())
}

fn ended_early() -> Failure {
    let message = "the controller stopped answering before the push was ordered";
    Failure::new(Exit::Unreachable, "connection-lost", message)
        .with_help("`barid runs` shows whether it was; pushing again is harmless")
}

/// A pattern, and the line that is run for the files that it means.
fn special(text: &str) -> Result<Special, String> {
    match text.split_once('=') {
        Some((pattern, command)) if !pattern.is_empty() && !command.is_empty() => {
            Ok(Special { pattern: pattern.into(), command: command.into() })
        }
        _ => Err("write PATTERN=LINE, as in '*.conf=systemctl reload nginx'".into()),
    }
}

/// The source as the controller can find it.
fn absolute(source: &Path) -> Result<PathBuf, Failure> {
    let wrong = |error: std::io::Error| {
        Failure::usage(format!("{}: {error}", source.display()), "name a file or folder here")
    };
    // Only the file system knows where `..` leads.
    match source.components().any(|part| part == Component::ParentDir) {
        true => std::fs::canonicalize(source).map_err(wrong),
        false => std::path::absolute(source).map_err(wrong).map(|path| path.components().collect()),
    }
}

/// A path at the hosts.
pub(crate) fn destination(dest: &Path) -> Result<PathBuf, Failure> {
    let is_plain =
        dest.is_absolute() && !dest.components().any(|part| part == Component::ParentDir);
    match is_plain {
        true => Ok(dest.components().collect()),
        false => Err(Failure::usage(
            format!("{}: a destination must be an absolute path without `..`", dest.display()),
            "it is a path at the hosts, as in --dest /srv/www",
        )),
    }
}

/// A path as the API takes it.
pub(crate) fn text(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let shown = path.display();
        Failure::usage(format!("{shown}: the path is not UTF-8"), "rename it, or push its parent")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gathered::testing::answer;
    use controller::types::Answer;

    #[test]
    fn sources_become_absolute() {
        let here = std::env::current_dir().expect("there is one");
        assert_eq!(absolute(Path::new("a/./b/")), Ok(here.join("a/b")));
        assert_eq!(absolute(Path::new("/a//b/.")), Ok("/a/b".into()));
        assert_eq!(absolute(Path::new("/usr/..")), Ok("/".into()));
        assert_eq!(absolute(Path::new("/nonexistent/..")).expect_err("no").exit, Exit::Usage);
    }

    #[test]
    fn destinations_are_absolute() {
        assert_eq!(destination(Path::new("/srv/www/")), Ok("/srv/www".into()));
        assert!(destination(Path::new("srv")).is_err());
        assert!(destination(Path::new("/srv/../etc")).is_err());
    }

    #[test]
    fn the_report_counts_hosts() {
        let mut gathered = Gathered::default();
        gathered.add(Answer { written: 3, unchanged: 1, ..answer("n[1-2]", "ok", None, "") });
        gathered.add(answer("n3", "not-reached", None, ""));
        let mut order = crate::render::tests::order("n[1-3]");
        order.push = Some(PushInfo {
            files: 4,
            bytes: 2048,
            pack_bytes: 1024,
            manifest: String::new(),
            dest: "/srv".into(),
            tree: false,
            verify: false,
            rate: 0,
        });
        assert_eq!(
            report(&order, &gathered),
            "/srv: 4 files, 2.0 KiB, pack 1.0 KiB\n  \
             in place at 2 of 3 hosts: 6 files and folders written, 2 unchanged\n"
        );
        gathered.add(Answer { deleted: 5, ..answer("n3", "ok", None, "") });
        assert!(report(&order, &gathered).ends_with(" 2 unchanged, 5 deleted\n"));
        order.push = order.push.map(|push| PushInfo { verify: true, ..push });
        gathered.add(Answer { drift: 2, ..answer("n[2-3]", "ok", None, "+ x") });
        let text = report(&order, &gathered);
        let expected = "/srv: as it should be at 1 of 3 hosts; at 2 there is another state of 4 ";
        assert!(text.starts_with(expected), "{text}");
    }
}
