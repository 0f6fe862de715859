//! `barid demo`: a real fleet on this machine's loopback, and the main job done with it.
//!
//! Every node is a process of its own with its own state folder, key and certificate, enrolled
//! with a join token as a real one is. The demo then types what an operator would type and shows
//! what comes of it. Without `--keep` it ends with no process and no file left, also if it is
//! interrupted. If it is killed the nodes stop all the same, because the pipe on their standard
//! input closes, and the folder stays; so it does if the demo fails, for its logs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use controller::types::{LinkInfo, NewToken, Status, TokenInfo};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use wan::UdpLink;

use crate::client::Client;
use crate::emulated;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::units;

/// How many nodes may be starting at once.
const STARTING: usize = 24;
/// How long the whole fleet may take to come up without any progress.
const PATIENCE: Duration = Duration::from_secs(60);
/// How the names of the demo's folders begin.
const PREFIX: &str = "barid-demo-";
/// Where the demo's pushes go, below each node's own root.
const DEST: &str = "/srv/demo";
/// What is left out of the project's own tree.
const LEAVE_OUT: [&str; 2] = ["target", ".git"];

/// Start a fleet on this machine and watch it do the main job.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// The folder to push; by default the project's own source tree.
    #[arg(long, value_name = "DIR")]
    pub(crate) push: Option<PathBuf>,
    /// How many sites, each behind a relay of its own.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) sites: u32,
    /// How many hosts at each site.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) hosts_per_site: u32,
    /// How many relays lie between the controller and a host.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) depth: u32,
    /// Let each site hang on an emulated line of this kind: lan, weak (10 Mbit/s, 100 ms, 1 % loss),
    /// veryweak (2 Mbit/s, 300 ms, 3 %), geo, breaky, ...
    #[arg(long, value_name = "PROFILE", value_parser = emulated::profile, conflicts_with = "keep")]
    pub(crate) wan: Option<String>,
    /// Leave the fleet up, to go on by hand.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Stop a fleet that was left up, and remove its folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) stop: Option<PathBuf>,
}

/// Runs the demo.
pub(crate) async fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    if let Some(dir) = &args.stop {
        return stop(dir);
    }
    let mut fleet = Fleet::new(args.keep)?;
    let interrupted = async {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .expect("signals can be listened to");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = term.recv() => {}
        }
    };
    let done = tokio::select! {
        done = story(args, &mut fleet) => done,
        () = interrupted => Ok(Exit::Cancelled),
    };
    if args.keep && matches!(done, Ok(Exit::Ok)) {
        fleet.leave_up()?;
    } else {
        // A demo that failed leaves its logs to be read.
        let has_logs = !fleet.nodes.is_empty();
        fleet.end(done.is_err() && has_logs).await;
    }
    done
}

async fn story(args: &DemoArgs, fleet: &mut Fleet) -> Result<Exit, Failure> {
    let source = fleet.copy_source(args.push.as_deref())?;
    let began = Instant::now();
    fleet.start(args).await?;
    let nodes = fleet.nodes.len();
    say(&format!("the fleet is up: {nodes} processes in {:.1} s", began.elapsed().as_secs_f32()));
    say("");

    fleet.operator(&["tree"]).await?;
    let before = fleet.links().await?;
    let push = ["push", "source", "-a", "--dest", DEST];
    let mut code = fleet.operator(&push).await?;
    let after = fleet.links().await?;
    show_links(&before, &after, &source);

    code = code.max(fleet.operator(&["run", "-a", "-b", "--", "uname", "-sr"]).await?);
    let line = "case $BARID_NODE in *2|*4) echo the disk is full >&2; exit 7;; esac; echo fine";
    let failing = fleet.operator(&["run", "-a", "-B", line]).await?;

    let changed = change_one(&fleet.source())?;
    say(&format!("changed one file of the source: {}", changed.display()));
    let before = fleet.links().await?;
    code = code.max(fleet.operator(&push).await?);
    let after = fleet.links().await?;
    show_links(&before, &after, &source);

    let host = format!("site1-host{}", args.hosts_per_site);
    let there = fleet.dir.join(&host).join("root").join(DEST.trim_start_matches('/'));
    emulated::traffic(&fleet.lines).iter().for_each(|line| say(line));
    say("the files are there, each host with a root of its own, for example:");
    say(&format!("  {}", there.display()));
    say("");
    let same = same_file(&fleet.source().join(&changed), &there.join(&changed));
    if code != 0 || (args.hosts_per_site > 1 && failing != 1) || !same {
        let failure = Failure::new(Exit::Failed, "demo", "the demo did not go as it should");
        return Err(failure.with_help(format!("the logs are in {}", fleet.dir.display())));
    }
    Ok(Exit::Ok)
}

/// The running fleet.
struct Fleet {
    dir: PathBuf,
    temp: Option<tempfile::TempDir>,
    binary: PathBuf,
    client: Client,
    nodes: Vec<Child>,
    /// The emulated lines of the sites, in their order; none: they are on this machine.
    lines: Vec<UdpLink>,
    keep: bool,
}

impl Fleet {
    fn new(keep: bool) -> Result<Fleet, Failure> {
        let temp = tempfile::Builder::new().prefix(PREFIX).tempdir();
        let temp = temp.map_err(|error| Failure::local(&error))?;
        let dir = std::fs::canonicalize(temp.path()).map_err(|error| Failure::local(&error))?;
        let client = Client::new(Some(dir.join("controller").join("barid.sock")));
        let binary = std::env::current_exe().map_err(|error| Failure::local(&error))?;
        Ok(Fleet {
            dir,
            temp: Some(temp),
            binary,
            client,
            nodes: Vec::new(),
            lines: Vec::new(),
            keep,
        })
    }

    fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    /// Copies what is to be pushed, so that the demo can change a file of it.
    fn copy_source(&self, push: Option<&Path>) -> Result<Size, Failure> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|dir| dir.is_dir());
        let (from, leave_out): (PathBuf, &[&str]) = match (push, own) {
            (Some(dir), _) => (dir.to_path_buf(), &[]),
            (None, Some(own)) => (own.to_path_buf(), &LEAVE_OUT),
            (None, None) => {
                let failure = Failure::usage("there is nothing to push", "name it: --push DIR");
                return Err(failure);
            }
        };
        if !from.is_dir() {
            let message = format!("{} is not a folder", from.display());
            return Err(Failure::usage(message, "--push names the folder to push"));
        }
        let mut size = Size::default();
        copy_tree(&from, &self.source(), leave_out, &mut size).map_err(|error| {
            let message = format!("{}: cannot be copied: {error}", from.display());
            Failure::new(Exit::Failed, "copy", message)
        })?;
        let bytes = units::show_bytes(size.bytes);
        say(&format!("pushing a copy of {}: {} files, {bytes}", from.display(), size.files));
        Ok(size)
    }

    async fn start(&mut self, args: &DemoArgs) -> Result<(), Failure> {
        let state = self.state("controller")?;
        self.spawn(
            "controller",
            &["controller", "--state", &state, "--listen", "127.0.0.1:0"],
            "",
        )?;
        let root = self.wait_listen("controller").await?;
        self.wait_ready().await?;
        let total = args.sites * (args.depth + args.hosts_per_site);
        say(&format!("a controller, and {total} nodes that enrol with a join token each ..."));
        let mut parents = Vec::new();
        if let Some(name) = &args.wan {
            self.lines = emulated::start(name, args.sites, &root)?;
            let what = emulated::described(name);
            say(&format!("each site hangs on an emulated line, {name}: {what}"));
        }
        for site in 1..=args.sites {
            let line = self.lines.get(site as usize - 1);
            let mut parent = line.map_or_else(|| root.clone(), |line| line.address().to_string());
            for tier in 1..=args.depth {
                let suffix = if tier == 1 { String::new() } else { tier.to_string() };
                let name = format!("site{site}-relay{suffix}");
                self.enrol(&name, "relay", &format!("site{site}"), &parent).await?;
                parent = self.wait_listen(&name).await?;
            }
            parents.push(parent);
        }
        for n in 1..=args.hosts_per_site {
            for site in 1..=args.sites {
                let parent = parents[site as usize - 1].clone();
                let (name, site) = (format!("site{site}-host{n}"), format!("site{site}"));
                self.enrol(&name, "host", &site, &parent).await?;
                self.wait_up(STARTING).await?;
            }
        }
        self.wait_up(0).await
    }

    async fn enrol(
        &mut self,
        name: &str,
        role: &str,
        site: &str,
        parent: &str,
    ) -> Result<(), Failure> {
        let token =
            NewToken { role: role.into(), site: site.into(), name: name.into(), ttl_s: 3_600 };
        let token: TokenInfo = self.client.post("/v1/tokens", &token).await?;
        let token = token.token.unwrap_or_default();
        let state = self.state(name)?;
        let root = format!("{state}/root");
        std::fs::create_dir_all(&root).map_err(|error| Failure::local(&error))?;
        let mut args = vec!["node", "--state", &state, "--parent", parent, "--name", name];
        args.extend(["--install-root", &root]);
        if role == "relay" {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        self.spawn(name, &args, &token)
    }

    /// Starts a process; its token goes by its environment, never by its arguments.
    fn spawn(&mut self, name: &str, args: &[&str], token: &str) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::local(&error);
        let log = std::fs::File::create(self.dir.join(format!("{name}.log"))).map_err(failed)?;
        let mut command = Command::new(&self.binary);
        command.args(args).stdout(Stdio::null()).stderr(log).process_group(0);
        if !token.is_empty() {
            command.env("BARID_TOKEN", token);
        }
        if self.keep {
            command.stdin(Stdio::null());
        } else {
            command.arg("--until-eof").stdin(Stdio::piped()).kill_on_drop(true);
        }
        self.nodes.push(command.spawn().map_err(failed)?);
        Ok(())
    }

    fn state(&self, name: &str) -> Result<String, Failure> {
        let path = self.dir.join(name);
        let private = std::fs::create_dir_all(&path)
            .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)));
        private.map_err(|error| Failure::local(&error))?;
        Ok(path.display().to_string())
    }

    async fn wait_listen(&mut self, name: &str) -> Result<String, Failure> {
        let path = self.dir.join(name).join("listen");
        let until = Instant::now() + PATIENCE;
        loop {
            match std::fs::read_to_string(&path) {
                Ok(text) if text.ends_with('\n') => return Ok(text.trim().into()),
                _ => self.pause(until, name).await?,
            }
        }
    }

    async fn wait_ready(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        while self.client.get::<Status>("/v1/status").await.is_err() {
            self.pause(until, "controller").await?;
        }
        Ok(())
    }

    /// Waits until at most so many of the nodes that were started are not up yet.
    async fn wait_up(&mut self, starting: usize) -> Result<(), Failure> {
        let (mut best, mut until) = (0, Instant::now() + PATIENCE);
        loop {
            let status: Status = self.client.get("/v1/status").await?;
            let up = usize::try_from(status.up).unwrap_or(usize::MAX);
            if up + 1 + starting >= self.nodes.len() {
                return Ok(());
            }
            if up > best {
                (best, until) = (up, Instant::now() + PATIENCE);
            }
            self.pause(until, "a node").await?;
        }
    }

    /// Waits a moment; fails if a node has died, or if it has been too long.
    async fn pause(&mut self, until: Instant, what: &str) -> Result<(), Failure> {
        for node in &mut self.nodes {
            if let Ok(Some(status)) = node.try_wait() {
                return Err(self.trouble(&format!("a process has ended early: {status}")));
            }
        }
        if Instant::now() > until {
            return Err(self.trouble(&format!("{what} is not up in time")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    /// A failure with the last words of every process that complained.
    fn trouble(&self, message: &str) -> Failure {
        let logs = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let logs = logs.filter(|entry| entry.path().extension() == Some(OsStr::new("log")));
        let complaints = logs.filter_map(|entry| {
            let text = std::fs::read_to_string(entry.path()).ok()?;
            let last = text.lines().rfind(|l| l.contains("ERROR") || l.starts_with("barid:"))?;
            Some(format!("{}: {last}", entry.file_name().display()))
        });
        let complaints: Vec<_> = complaints.take(3).collect();
        Failure::new(Exit::Failed, "demo", message).with_help(complaints.join("\n        "))
    }

    async fn links(&self) -> Result<BTreeMap<String, LinkInfo>, Failure> {
        let links: Vec<LinkInfo> = self.client.get("/v1/links").await?;
        Ok(links.into_iter().map(|link| (link.name.clone(), link)).collect())
    }

    /// Shows and runs an operator's command; its output goes where the demo's does.
    async fn operator(&self, args: &[&str]) -> Result<i32, Failure> {
        say(&format!("$ barid {}", shown(args)));
        let status = Command::new(&self.binary)
            .args(args)
            .current_dir(&self.dir)
            .env("BARID_SOCKET", self.dir.join("controller").join("barid.sock"))
            // How many hosts there are was said when the demo was started.
            .env("BARID_CONFIRM_OVER", u64::MAX.to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await
            .map_err(|error| Failure::local(&error))?;
        say("");
        Ok(status.code().unwrap_or(1))
    }

    /// Leaves everything as it is and says how to go on.
    fn leave_up(&mut self) -> Result<(), Failure> {
        let pids: Vec<_> = self.nodes.iter().filter_map(|node| node.id()).collect();
        let pids: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        std::fs::write(self.dir.join("pids"), pids).map_err(|error| Failure::local(&error))?;
        if let Some(temp) = self.temp.take() {
            let _ = temp.keep();
        }
        let (barid, dir) = (self.binary.display(), self.dir.display());
        say("the fleet stays up. Go on by hand:");
        say(&format!("  export BARID_SOCKET={dir}/controller/barid.sock"));
        say(&format!("  {barid} hosts"));
        say(&format!("  {barid} run -a -b uptime"));
        say(&format!("  {barid} push SOMETHING -w site1-host1 --dest /srv/something"));
        say("and stop it with:");
        say(&format!("  {barid} demo --stop {dir}"));
        Ok(())
    }

    /// Ends every process, hosts first, and removes the folder, or says where it is.
    async fn end(mut self, keep_files: bool) {
        for node in self.nodes.iter_mut().rev() {
            drop(node.stdin.take());
            if let Some(pid) = node.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
                kill_process(pid, Signal::TERM).ok();
            }
        }
        let patience = Instant::now() + Duration::from_secs(10);
        for node in &mut self.nodes {
            let left = patience.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, node.wait()).await.is_err() {
                node.kill().await.ok();
            }
        }
        if keep_files {
            self.temp.take().map(tempfile::TempDir::keep);
            say(&format!(
                "the processes are stopped; logs and files stay in {}",
                self.dir.display()
            ));
        } else if let Some(Err(error)) = self.temp.take().map(tempfile::TempDir::close) {
            say(&format!("{}: cannot be removed: {error}", self.dir.display()));
        }
    }
}

/// Ends a fleet that was left up. Only processes that are this fleet's own are touched.
fn stop(dir: &Path) -> Result<Exit, Failure> {
    // The processes know the folder by its whole path; and nothing else is to be removed.
    let dir = &std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let is_demo = |name: &OsStr| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
    if !dir.file_name().is_some_and(is_demo) {
        let message = format!("{}: the folder of a demo is named {PREFIX}...", dir.display());
        return Err(Failure::usage(message, "give the folder that `barid demo --keep` named"));
    }
    let pids = std::fs::read_to_string(dir.join("pids")).map_err(|error| {
        let message = format!("{} holds no demo: {error}", dir.display());
        Failure::usage(message, "give the folder that `barid demo --keep` named")
    })?;
    let state = dir.display().to_string();
    let mut ours = Vec::new();
    // A process that has ended, reaped or not, has no command line.
    let is_ours = |id: i32| {
        let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&state)
    };
    for id in pids.lines().filter_map(|line| line.parse::<i32>().ok()) {
        if is_ours(id)
            && let Some(pid) = Pid::from_raw(id)
        {
            kill_process(pid, Signal::TERM).ok();
            ours.push(id);
        }
    }
    let patience = Instant::now() + Duration::from_secs(10);
    while ours.iter().any(|id| is_ours(*id)) {
        if Instant::now() > patience {
            let message = "some processes do not stop";
            return Err(Failure::new(Exit::Failed, "demo", message));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::remove_dir_all(dir).map_err(|error| Failure::local(&error))?;
    say(&format!("stopped {} processes, removed {}", ours.len(), dir.display()));
    Ok(Exit::Ok)
}

/// Files and bytes of a tree.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    files: u64,
    bytes: u64,
}

fn copy_tree(
    from: &Path,
    to: &Path,
    leave_out: &[&str],
    size: &mut Size,
) -> Result<(), std::io::Error> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let target = to.join(&name);
        if leave_out.iter().any(|out| *out == name) {
            continue;
        } else if kind.is_dir() {
            copy_tree(&entry.path(), &target, &[], size)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, target)?;
        } else if kind.is_file() {
            size.bytes += std::fs::copy(entry.path(), target)?;
            size.files += 1;
        }
    }
    Ok(())
}

/// Adds a line to one file of the tree. Returns its path within the tree.
fn change_one(tree: &Path) -> Result<PathBuf, Failure> {
    let mut folders = vec![tree.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    let file = files.first().cloned().ok_or_else(|| {
        Failure::usage("the folder to push holds no file", "choose another: --push DIR")
    })?;
    let append = std::fs::OpenOptions::new().append(true).open(&file);
    let append = append.and_then(|mut open| open.write_all(b"\nchanged by the demo\n"));
    append.map_err(|error| Failure::local(&error))?;
    Ok(file.strip_prefix(tree).unwrap_or(&file).to_path_buf())
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((std::fs::read(a), std::fs::read(b)), (Ok(a), Ok(b)) if a == b)
}

fn show_links(
    before: &BTreeMap<String, LinkInfo>,
    after: &BTreeMap<String, LinkInfo>,
    source: &Size,
) {
    let tree = units::show_bytes(source.bytes);
    say(&format!("over each site's link, for a tree of {tree} and all hosts behind it:"));
    for (name, link) in after {
        let old = before.get(name);
        let content = link.content_sent - old.map_or(0, |old| old.content_sent);
        let wire = link.wire_sent - old.map_or(0, |old| old.wire_sent);
        let share = content as f64 * 100.0 / source.bytes.max(1) as f64;
        let hosts = link.nodes.saturating_sub(1);
        let (content, wire) = (units::show_bytes(content), units::show_bytes(wire));
        say(&format!(
            "  {name}: {content} of content ({share:.1} % of the tree) for {hosts} nodes behind \
             it; {wire} on the wire with everything"
        ));
    }
    say("");
}

/// A command line as one would type it.
fn shown(args: &[&str]) -> String {
    let quote = |arg: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@".contains(c);
        if arg.chars().all(plain) { arg.to_string() } else { format!("'{arg}'") }
    };
    args.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// A line of the demo's own: told at once, so that it stands before what it announces.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reading is no reason to stop: the fleet is ended as it should be.
    writeln!(out, "{line}").ok();
    out.flush().ok();
}
