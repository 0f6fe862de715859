//! A fleet of real `barid` processes on loopback, for tests and benchmarks.
//!
//! Each node has its own state folder below one temporary folder, and enrols with a join token as
//! a real one does. Everything ends with the [`Fleet`]: the processes stop when the pipe that is
//! their standard input closes, even if the test is killed. Nothing here sleeps blindly: it waits
//! for a condition, with a limit.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub mod clock;
pub mod killing;
mod lines;

pub use self::lines::{Lines, connect};

/// How long anything that should happen may take, on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The binary under test, beside the test's own.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let dir = own.ancestors().find(|dir| dir.join("barid").is_file());
    let dir = dir.context("there is no barid binary beside the tests: cargo build --workspace")?;
    Ok(dir.join("barid"))
}

/// Waits until `what` says so; looks again every few milliseconds.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = ready()? {
            return Ok(found);
        }
        ensure!(Instant::now() < until, "waited {} s in vain for: {what}", limit.as_secs());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A line of shell that waits until this file is there. It ends with its folder, too: what a node
/// that was killed leaves behind must not outlive the test.
pub fn until(go: &Path) -> String {
    let dir = go.parent().unwrap_or(go).display();
    format!("while [ -d {dir} ] && ! [ -e {} ]; do sleep 0.05; done", go.display())
}

/// How nodes beat and redial in tests, where a lost link should be noticed soon.
pub const PACE: &str = "beat_interval_ms = 500\nredial_base_ms = 200\nredial_cap_ms = 2000\n";

/// What a node is to be.
#[derive(Clone, Debug)]
pub struct Spec {
    /// `relay` or `host`.
    pub role: &'static str,
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Names of its parents, in order.
    pub parents: Vec<String>,
    /// Lines for its `node.toml`.
    pub config: String,
}

impl Spec {
    /// A node of this role with one parent, of no site and with nothing in its `node.toml`.
    pub fn new(role: &'static str, name: &str, parent: &str) -> Spec {
        Spec {
            role,
            name: name.into(),
            site: String::new(),
            parents: vec![parent.into()],
            config: String::new(),
        }
    }

    /// The same at a site.
    pub fn at(self, site: &str) -> Spec {
        Spec { site: site.into(), ..self }
    }

    /// The same with these lines in its `node.toml`.
    pub fn with(self, config: &str) -> Spec {
        Spec { config: config.into(), ..self }
    }
}

/// Where a process of a fleet is, if not simply here.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Words before the program, as in `ip netns exec NAME`.
    pub before: Vec<String>,
    /// Where it listens; without it, at any port of 127.0.0.1.
    pub listen: Option<String>,
}

struct Process {
    child: Child,
    args: Vec<String>,
}

/// The fleet.
pub struct Fleet {
    dir: tempfile::TempDir,
    binary: PathBuf,
    pace: String,
    places: BTreeMap<String, Place>,
    routes: BTreeMap<String, String>,
    processes: BTreeMap<String, Process>,
    /// The controller that operators ask.
    root: String,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in self.processes.values_mut() {
            process.child.kill().ok();
            process.child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

impl Fleet {
    /// A controller, alone.
    pub fn new() -> Result<Fleet> {
        Fleet::with(binary()?, PACE)
    }

    /// A controller of this binary, alone. `pace` begins the `node.toml` of each node.
    pub fn with(binary: PathBuf, pace: &str) -> Result<Fleet> {
        Fleet::prepared(binary, pace, &[], |_| Ok(()))
    }

    /// A controller of this binary, alone, with the folder of the fleet below `dir`. What has a
    /// name in `places` will be there, the controller too.
    pub fn placed(
        binary: PathBuf,
        pace: &str,
        dir: &Path,
        places: BTreeMap<String, Place>,
    ) -> Result<Fleet> {
        Fleet::placed_with(binary, pace, dir, places, &[])
    }

    /// The same with these options of the controller besides.
    pub fn placed_with(
        binary: PathBuf,
        pace: &str,
        dir: &Path,
        places: BTreeMap<String, Place>,
        options: &[&str],
    ) -> Result<Fleet> {
        Fleet::begin((binary, pace), dir, places, options, |_| Ok(()))
    }

    /// A controller with these options besides, alone, whose state folder is prepared first.
    pub fn prepared(
        binary: PathBuf,
        pace: &str,
        options: &[&str],
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Fleet> {
        let dir = std::env::temp_dir();
        Fleet::begin((binary, pace), &dir, BTreeMap::new(), options, prepare)
    }

    fn begin(
        (binary, pace): (PathBuf, &str),
        dir: &Path,
        places: BTreeMap<String, Place>,
        options: &[&str],
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Fleet> {
        let dir = tempfile::Builder::new().prefix("barid-test-").tempdir_in(dir)?;
        let (routes, processes) = (BTreeMap::new(), BTreeMap::new());
        let (pace, root) = (pace.into(), "controller".to_owned());
        let mut fleet = Fleet { dir, binary, pace, places, routes, processes, root };
        let state = fleet.state("controller");
        fs::create_dir_all(&state)?;
        set_private(&state)?;
        prepare(&state)?;
        let listen = fleet.place("controller");
        let mut args = vec!["controller", "--state", text(&state)];
        args.extend_from_slice(options);
        args.extend(["--listen", &listen]);
        fleet.spawn("controller", args.into_iter().map(String::from).collect())?;
        fleet.wait_controller()?;
        // After a restart the children must find it at the same address.
        let listen = fleet.listen("controller")?;
        let process = fleet.processes.get_mut("controller").context("it runs")?;
        *process.args.last_mut().context("it has arguments")? = listen;
        Ok(fleet)
    }

    /// A controller, `sites` relays, and `hosts` hosts behind each: `site1-relay`, `site1-host1`.
    pub fn tree(sites: usize, hosts: usize) -> Result<Fleet> {
        let mut fleet = Fleet::new()?;
        fleet.grow(sites, hosts)?;
        Ok(fleet)
    }

    /// The same below a controller that is there, alone.
    pub fn grow(&mut self, sites: usize, hosts: usize) -> Result<()> {
        for site in 1..=sites {
            let (site, relay) = (format!("site{site}"), format!("site{site}-relay"));
            self.add(&Spec {
                role: "relay",
                name: relay.clone(),
                site: site.clone(),
                parents: vec!["controller".into()],
                config: String::new(),
            })?;
            for host in 1..=hosts {
                self.add(&Spec {
                    role: "host",
                    name: format!("{site}-host{host}"),
                    site: site.clone(),
                    parents: vec![relay.clone()],
                    config: String::new(),
                })?;
            }
        }
        self.wait_up((sites * (hosts + 1)) as u64)
    }

    /// Enrols and starts a node. A relay is waited for until it listens.
    pub fn add(&mut self, spec: &Spec) -> Result<()> {
        let token = self.token(&["--role", spec.role, "--site", &spec.site])?;
        let mut args = vec!["--name".into(), spec.name.clone(), "--join".into(), token];
        self.start_node(spec, &mut args)
    }

    /// Starts a node with these arguments on top of where its state and parents are.
    pub fn start_node(&mut self, spec: &Spec, more: &mut Vec<String>) -> Result<()> {
        let state = self.state(&spec.name);
        fs::create_dir_all(&state)?;
        set_private(&state)?;
        fs::write(state.join("node.toml"), format!("{}{}", self.pace, spec.config))?;
        let root = state.join("root");
        fs::create_dir_all(&root)?;
        let mut args: Vec<String> = ["node", "--state", text(&state)].map(String::from).to_vec();
        for parent in &spec.parents {
            let route = self.routes.get(parent).cloned();
            args.extend(["--parent".into(), route.map_or_else(|| self.listen(parent), Ok)?]);
        }
        args.append(more);
        args.extend(["--install-root".into(), text(&root).into()]);
        if spec.role == "relay" {
            args.extend(["--listen".into(), self.place(&spec.name)]);
        }
        self.spawn(&spec.name, args)?;
        if spec.role == "relay" {
            let name = spec.name.clone();
            let listen = wait_for("a relay to listen", LIMIT, || {
                self.check_alive(&name)?;
                Ok(self.listen(&name).ok())
            })?;
            let process = self.processes.get_mut(&name).context("it runs")?;
            *process.args.last_mut().context("it has arguments")? = listen;
        }
        Ok(())
    }

    fn spawn(&mut self, name: &str, args: Vec<String>) -> Result<()> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{name}.log")))?;
        let before = self.places.get(name).map_or(&[][..], |place| &place.before);
        let mut words = before.iter().map(Path::new).chain([self.binary.as_path()]);
        let child = Command::new(words.next().context("at least the binary")?)
            .args(words)
            .args(&args)
            .arg("--until-eof")
            .env("BARID_LOG", std::env::var("BARID_LOG").unwrap_or_else(|_| "info".into()))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        self.processes.insert(name.into(), Process { child, args });
        Ok(())
    }

    /// Where a process is to listen.
    fn place(&self, name: &str) -> String {
        let place = self.places.get(name).and_then(|place| place.listen.clone());
        place.unwrap_or_else(|| "127.0.0.1:0".into())
    }

    /// A process is there from its next start on.
    pub fn put(&mut self, name: &str, place: Place) {
        self.places.insert(name.into(), place);
    }

    /// Nodes that are added from now on dial this address when they mean that parent: a link that
    /// lies between.
    pub fn route(&mut self, parent: &str, address: String) {
        self.routes.insert(parent.into(), address);
    }

    fn check_alive(&mut self, name: &str) -> Result<()> {
        let process = self.processes.get_mut(name).context("no such process")?;
        if let Some(status) = process.child.try_wait()? {
            bail!("{name} has ended: {status}\n{}", self.log(name));
        }
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let process = self.processes.get_mut(name).context("no such process")?;
        process.child.kill()?;
        process.child.wait()?;
        Ok(())
    }

    /// Starts another controller, with the state folder of this name, and asks that one from now
    /// on.
    pub fn take_over(&mut self, name: &str, listen: &str) -> Result<()> {
        let state = text(&self.state(name)).to_owned();
        let args = ["controller", "--state", &state, "--listen", listen];
        self.spawn(name, args.map(String::from).to_vec())?;
        self.ask(name);
        wait_for("the controller to answer", LIMIT, || {
            self.check_alive(name)?;
            Ok(self.barid(&["hosts"])?.status.success().then_some(()))
        })
    }

    /// Asks the controller of this name from now on.
    pub fn ask(&mut self, name: &str) {
        self.root = name.into();
    }

    /// Starts a killed process again, with the same arguments and state.
    pub fn restart(&mut self, name: &str) -> Result<()> {
        let args = self.processes.get(name).context("no such process")?.args.clone();
        self.spawn(name, args)?;
        if name == "controller" { self.wait_controller() } else { Ok(()) }
    }

    /// Stops or continues a process with a signal.
    pub fn signal(&self, name: &str, signal: rustix::process::Signal) -> Result<()> {
        let id = self.pid(name)?.cast_signed();
        let pid = rustix::process::Pid::from_raw(id).context("a process id")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// The process id of a node.
    pub fn pid(&self, name: &str) -> Result<u32> {
        Ok(self.processes.get(name).context("no such process")?.child.id())
    }

    /// The state folder of a node.
    pub fn state(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where a destination lies at a host.
    pub fn at(&self, host: &str, dest: &str) -> PathBuf {
        self.state(host).join("root").join(dest.trim_start_matches('/'))
    }

    /// The temporary folder of this fleet, for sources.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where a node listens.
    pub fn listen(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.state(name).join("listen"))?.trim().to_string())
    }

    /// The names of all processes, the controller's too.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.processes.keys().map(String::as_str)
    }

    /// What a node has logged.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    fn logs(&self) -> String {
        let tail = |name: &String| {
            let log = self.log(name);
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(15)..].join("\n  ");
            format!("--- {name}\n  {last}\n")
        };
        self.processes.keys().map(tail).collect()
    }

    /// An operator's command, to be run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--socket").arg(self.state(&self.root).join("barid.sock")).args(args);
        command.stdin(Stdio::null());
        command
    }

    /// The same as a shell starts it: with signals that mean what they usually do, also if those
    /// who started the tests ignore some.
    pub fn attended(&self, args: &[&str]) -> Command {
        let plain = self.command(args);
        let mut command = Command::new("env");
        command.arg("--default-signal").arg(plain.get_program()).args(plain.get_args());
        command.stdin(Stdio::null());
        command
    }

    /// Runs an operator's command to its end.
    pub fn barid(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args).output()?)
    }

    /// Runs an operator's command that must succeed, and reads its JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let output = self.barid(args)?;
        let context = || format!("barid {args:?}: {}\n{}", output.status, show(&output.stderr));
        ensure!(output.status.success(), context());
        serde_json::from_slice(&output.stdout).with_context(context)
    }

    /// Waits for the first event of a subject.
    pub fn first_event(&self, subject: &str, limit: Duration) -> Result<Value> {
        wait_for(&format!("{subject} to be told"), limit, || {
            let output = self.barid(&["events", "--json", subject])?;
            let lines = show(&output.stdout);
            Ok(lines.lines().next().map(serde_json::from_str).transpose()?)
        })
    }

    /// Makes a join token.
    pub fn token(&self, args: &[&str]) -> Result<String> {
        let output = self.barid(&[&["token", "create"], args].concat())?;
        ensure!(output.status.success(), show(&output.stderr));
        Ok(show(&output.stdout).trim().to_string())
    }

    fn wait_controller(&mut self) -> Result<()> {
        wait_for("the controller to answer", LIMIT, || {
            self.check_alive("controller")?;
            Ok(self.barid(&["hosts"])?.status.success().then_some(()))
        })
    }

    /// Waits until exactly this many nodes are reachable.
    pub fn wait_up(&mut self, nodes: u64) -> Result<()> {
        wait_for(&format!("{nodes} nodes to be up"), LIMIT, || {
            let hosts = self.json(&["hosts", "--json"])?;
            let hosts = hosts.as_array().context("a list of hosts")?;
            let up = hosts.iter().filter(|host| host["up"] == true).count();
            Ok((up as u64 == nodes).then_some(()))
        })
    }

    /// The detail of an order, as JSON.
    pub fn order(&self, id: &str) -> Result<Value> {
        self.json(&["runs", "show", id, "--json"])
    }

    /// Waits until an order shows these counts by state, and no others.
    pub fn wait_states(&self, id: &str, states: &[(&str, u64)]) -> Result<Value> {
        let mut last = String::new();
        let found = wait_for(&format!("{id} to be {states:?}"), LIMIT, || {
            let detail = self.order(id)?;
            let now = detail["order"]["states"].as_object().context("states")?.clone();
            last = format!("{now:?}");
            let same = now.len() == states.len()
                && states.iter().all(|(word, n)| now.get(*word) == Some(&Value::from(*n)));
            Ok(same.then_some(detail))
        });
        found.with_context(|| format!("it is {last}"))
    }
}

/// Makes a folder private, as a node wants its state to be.
fn set_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o700))?)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// Bytes as text, for messages.
pub fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a small tree of many kinds: nested folders, an executable, links, an empty file, odd
/// names, and one file of `big` bytes that does not compress.
pub fn sample_tree(dir: &Path, big: usize) -> Result<()> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    fs::create_dir_all(dir.join("a/b/c"))?;
    fs::create_dir_all(dir.join("empty folder"))?;
    fs::write(dir.join("a/one.conf"), "one = 1\n".repeat(100))?;
    fs::write(dir.join("a/b/two.conf"), "two = 2\n".repeat(100))?;
    fs::write(dir.join("a/b/c/leaf"), "")?;
    fs::write(dir.join("odd \u{e4}\u{1f600} name"), "odd\n")?;
    fs::write(dir.join("run.sh"), "#!/bin/sh\necho it runs\n")?;
    fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o750))?;
    symlink("a/one.conf", dir.join("link"))?;
    symlink("/nowhere/at/all", dir.join("a/dangling"))?;
    let mut file = fs::File::create(dir.join("big.bin"))?;
    file.write_all(&noise(0, big))?;
    Ok(())
}

/// So many bytes that do not compress, other ones for each seed.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed + 1);
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// Everything about a tree that a push must keep: kind, mode, mtime and bytes, by path.
pub fn listing(dir: &Path) -> Result<BTreeMap<PathBuf, String>> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let own = fs::symlink_metadata(&folder)?;
        let key = folder.strip_prefix(dir)?.to_path_buf();
        found.insert(key, format!("d {:o} {}.{}", own.mode(), own.mtime(), own.mtime_nsec()));
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            let line = if meta.is_dir() {
                folders.push(path);
                continue;
            } else if meta.is_symlink() {
                format!("l {:?}", fs::read_link(&path)?)
            } else {
                let (mode, at) = (meta.mode(), (meta.mtime(), meta.mtime_nsec()));
                format!("f {mode:o} {}.{} {:?}", at.0, at.1, digest(&fs::read(&path)?))
            };
            found.insert(path.strip_prefix(dir)?.to_path_buf(), line);
        }
    }
    Ok(found)
}

/// Length and a 64-bit FNV-1a hash: enough to tell test files apart.
fn digest(bytes: &[u8]) -> (usize, u64) {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (bytes.len(), hash)
}
