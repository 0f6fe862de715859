//! Orders: the signed envelope, and what stands in it.
//!
//! What travels is the envelope, unchanged from the controller to the last host; the body inside
//! is read and never encoded again. [`OrderBody::check`] holds all limits, so whoever makes an
//! order can ask before signing what every reader will ask after.
//!
//! Not here: whether the signature is good, whether the order is meant for this host and mesh, and
//! whether now is between its times.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use mesh::{Digest, Gate, HostId, HostSet, Need, OrderId};
use prost::Message;

use crate::field::{
    array, at_most, at_most_bytes, ensure, given, millis, no_nul, not_empty, path, plain, within,
};
use crate::{FRAME_LIMIT, FieldError, Malformed, OUTPUT_LIMIT, Terms, gate, hosts, pb, shape};

/// The kind of envelope that holds an [`OrderBody`].
pub const ORDER_KIND: &str = "barid.v1.order";

/// The longest envelope: what a frame has room for.
pub const ENVELOPE_LIMIT: usize = FRAME_LIMIT - 64;

/// The longest body: what an envelope has room for.
pub const ORDER_LIMIT: usize = ENVELOPE_LIMIT - 256;

/// The longest time that an order can name, be it of validity, of waiting or of running.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The most bytes that a command can be given to read.
pub const STDIN_LIMIT: u64 = 64 << 20;

/// The most bytes of all files that a command is given.
pub const FILES_LIMIT: u64 = 256 << 20;

/// The most files that a command is given.
pub const FILES: usize = 16;

/// The most parents that an order can name.
pub const PARENTS: usize = 8;

const KIND_LIMIT: usize = 64;
const KEY_LIMIT: usize = 64;
const NAME_LIMIT: usize = 256;
const FILE_NAME_LIMIT: usize = 255;
const PATH_LIMIT: usize = 4096;
const ARGV_LIMIT: usize = 4096;
const ARGV_BYTES: usize = 128 << 10;
const ENV_LIMIT: usize = 1024;
const ENV_BYTES: usize = 128 << 10;
const CONTENT_LIMIT: usize = 4096;
const BUNDLE_LIMIT: usize = 1024;

/// Bytes that are not an order that anybody should carry out. Nothing has changed; whoever signed
/// it is at fault, or whoever carried it if it was not verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// An envelope or a body longer than any may be.
    #[error("the {what} has {found} bytes; the limit is {limit}")]
    TooLong {
        /// The order or the envelope.
        what: &'static str,
        /// How long it may be.
        limit: usize,
        /// How long it is.
        found: usize,
    },
    /// The order asks for nothing that this version knows.
    #[error("the order is for a kind of work that this version does not know")]
    Work,
    /// The bytes are no order.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A field holds what it must not.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Something signed: what it is, its bytes, and by which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What the body is; part of what is signed. At most 64 bytes.
    pub kind: String,
    /// The bytes that are signed.
    pub body: Bytes,
    /// The signature over kind and body.
    pub signature: [u8; 64],
    /// The id of the key that signed. At most 64 bytes.
    pub key: Bytes,
}

impl Envelope {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        let envelope = pb::Envelope {
            kind: self.kind.clone(),
            body: self.body.clone(),
            signature: Bytes::copy_from_slice(&self.signature),
            key: self.key.clone(),
        };
        envelope.encode_to_vec().into()
    }

    /// Reads an envelope. The body is a slice of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Envelope, OrderError> {
        at_most_long("envelope", bytes.len(), ENVELOPE_LIMIT)?;
        let pb::Envelope { kind, body, signature, key } = shape::decode(bytes)?;
        not_empty("envelope.kind", kind.len())?;
        plain("envelope.kind", &kind, KIND_LIMIT)?;
        not_empty("envelope.body", body.len())?;
        not_empty("envelope.key", key.len())?;
        at_most_bytes("envelope.key", key.len(), KEY_LIMIT)?;
        let signature = array("envelope.signature", &signature)?;
        Ok(Envelope { kind, body, signature, key })
    }
}

/// An order in full: to whom, when and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderBody {
    /// The mesh that it is for.
    pub mesh: [u8; 16],
    /// Its id.
    pub id: OrderId,
    /// Who shall carry it out. Never nobody.
    pub targets: HostSet,
    /// The first moment at which it may start, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// The last moment at which it may start, in milliseconds since 1970.
    pub not_after_ms: u64,
    /// How long to wait for a host that cannot be reached before saying so. Times travel in whole
    /// milliseconds, rounded up.
    pub reach: Duration,
    /// How long the order waits at the last parent for a host that is away; at least `reach`.
    pub hold: Duration,
    /// Who gave it, for people to read.
    pub issued_by: String,
    /// Which content whom needs before it can start; 4,096 pieces between them.
    pub needs: Vec<Need>,
    /// If given, hosts begin only a few at a time. Of a run only.
    pub gate: Option<Gate>,
    /// What to do.
    pub work: Work,
}

/// What an order asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Run a command.
    Run(Run),
    /// Put files in place.
    Push(Push),
    /// Take back another order that expires at the same moment: who has not begun it does not, and
    /// a command that runs is ended.
    Cancel(OrderId),
    /// Have another parent.
    Steer(Steer),
    /// Another order has lapsed: tell those who still wait for a release that none will come. What
    /// runs goes on.
    Lapse(OrderId),
}

/// Which parent a node is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steer {
    /// These, as `host:port`, before the configured ones; none: as configured. At most 8 of 256
    /// bytes.
    Parents(Vec<String>),
    /// Not this relay while there is another, or no longer so.
    Avoid {
        /// The relay.
        relay: HostId,
        /// Whether to stay away from it.
        on: bool,
    },
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments, 1 to 4,096 of them and 128 KiB together; the one line for
    /// the shell if `shell`.
    pub argv: Vec<Bytes>,
    /// Whether a shell reads the line.
    pub shell: bool,
    /// As whom. Empty: as whom the host's own process runs.
    pub user: String,
    /// Where, an absolute path. Empty: where the host sees fit.
    pub dir: Bytes,
    /// Variables on top of the host's own closed set; each name once, 1,024 of them and 128 KiB
    /// together.
    pub env: Vec<Variable>,
    /// How long it may run. Never zero.
    pub timeout: Duration,
    /// How many bytes are kept of each of stdout and stderr; at most [`OUTPUT_LIMIT`].
    pub output_limit: u32,
    /// What it reads from its standard input, put together: at most [`STDIN_LIMIT`] bytes. Without
    /// any it reads nothing.
    pub stdin: Vec<Part>,
    /// Files that it is given in a private folder, each name once: at most [`FILES`], and
    /// [`FILES_LIMIT`] bytes between them.
    pub files: Vec<File>,
    /// Which permissions its new files lack; at most 0o777. None: as the host's own process.
    pub umask: Option<u32>,
}

/// A file that a command is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, without a path; at most 255 bytes.
    pub name: String,
    /// Its bytes, put together.
    pub parts: Vec<Part>,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name: not empty, without `=` and NUL.
    pub name: Bytes,
    /// Its value, without NUL.
    pub value: Bytes,
}

/// Files to put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Where to: an absolute path of at most 4,096 bytes, without `.` and `..`.
    pub dest: Bytes,
    /// The root of the manifest: what is there afterwards.
    pub manifest: Digest,
    /// The manifest in full.
    pub full_manifest: Part,
    /// Ways to get there, each for some of the hosts; at most 1,024.
    pub bundles: Vec<Bundle>,
    /// Small parts that travel with the order.
    pub inline: Vec<Bytes>,
    /// How it is carried out.
    pub terms: Terms,
}

/// The parts that bring some hosts from what they have to what they shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The root of the manifest that the hosts have already, if any.
    pub base: Option<Digest>,
    /// For whom it is. Never nobody.
    pub hosts: HostSet,
    /// The manifest, perhaps as a change to that of the base.
    pub manifest: Part,
    /// The segments with the bytes of the files; with the deltas at most 4,096.
    pub segments: Vec<Part>,
    /// The segments that are made from the files of the base.
    pub deltas: Vec<Part>,
}

/// A piece of content: its name and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its hash.
    pub id: Digest,
    /// How many bytes it has.
    pub bytes: u32,
}

impl OrderBody {
    /// The bytes to sign. They decode if [`OrderBody::check`] finds no fault.
    pub fn encode(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    /// Reads a body within all limits.
    pub fn decode(bytes: &[u8]) -> Result<OrderBody, OrderError> {
        at_most_long("order", bytes.len(), ORDER_LIMIT)?;
        let body = read(shape::decode_slice(bytes)?)?;
        check(&body)?;
        Ok(body)
    }

    /// Whether the order is within all limits, so that its bytes decode everywhere.
    pub fn check(&self) -> Result<(), OrderError> {
        at_most_long("order", self.to_pb().encoded_len(), ORDER_LIMIT)?;
        at_most("order.targets", self.targets.ranges().len(), hosts::RANGES)?;
        Ok(check(self)?)
    }

    /// The order as the core knows it. `envelope` is what this body came in, `ttl` what is left of
    /// its validity. Only a run may not be started again.
    pub fn to_mesh(&self, envelope: Bytes, ttl: Duration) -> mesh::Order {
        mesh::Order {
            id: self.id,
            targets: self.targets.clone(),
            needs: self.needs.clone(),
            reach: self.reach,
            hold: self.hold,
            ttl,
            again: !matches!(self.work, Work::Run(_)),
            cancels: match self.work {
                Work::Cancel(older) | Work::Lapse(older) => Some(older),
                _ => None,
            },
            lapses: matches!(self.work, Work::Lapse(_)),
            gate: self.gate.clone(),
            body: envelope,
        }
    }

    fn to_pb(&self) -> pb::OrderBody {
        let needs = self.needs.iter().map(|need| pb::Need {
            hosts: hosts::encode(&need.hosts),
            content: need.content.iter().map(digest).collect(),
        });
        pb::OrderBody {
            mesh: Bytes::copy_from_slice(&self.mesh),
            id: Bytes::copy_from_slice(&self.id.0),
            targets: hosts::encode(&self.targets),
            not_before_ms: self.not_before_ms,
            not_after_ms: self.not_after_ms,
            reach_ms: millis(self.reach),
            hold_ms: millis(self.hold),
            issued_by: self.issued_by.clone(),
            needs: needs.collect(),
            work: Some(match &self.work {
                Work::Run(run) => pb::order_body::Work::Run(run.to_pb()),
                Work::Push(push) if push.terms.are_usual() => {
                    pb::order_body::Work::Push(push.to_pb())
                }
                Work::Push(push) => {
                    let (push, terms) = (Some(push.to_pb()), Some(push.terms.to_pb()));
                    pb::order_body::Work::PushOnTerms(pb::PushOnTerms { push, terms })
                }
                Work::Steer(steer) => pb::order_body::Work::Steer(steer.to_pb()),
                Work::Cancel(older) | Work::Lapse(older) => {
                    let order = Bytes::copy_from_slice(&older.0);
                    let lapse = matches!(self.work, Work::Lapse(_));
                    pb::order_body::Work::Cancel(pb::Cancel { order, lapse })
                }
            }),
            gate: self.gate.as_ref().map(gate::encode),
        }
    }
}

impl Run {
    fn to_pb(&self) -> pb::Run {
        let variable = |variable: &Variable| {
            let Variable { name, value } = variable.clone();
            pb::Variable { name, value }
        };
        let parts = |parts: &[Part]| parts.iter().map(part).collect();
        let file = |file: &File| pb::File { name: file.name.clone(), parts: parts(&file.parts) };
        pb::Run {
            argv: self.argv.clone(),
            shell: self.shell,
            user: self.user.clone(),
            dir: self.dir.clone(),
            env: self.env.iter().map(variable).collect(),
            timeout_ms: millis(self.timeout),
            output_limit: self.output_limit,
            stdin: parts(&self.stdin),
            files: self.files.iter().map(file).collect(),
            umask: self.umask,
        }
    }
}

impl Steer {
    fn to_pb(&self) -> pb::Steer {
        let what = match self {
            Steer::Parents(addresses) => {
                pb::steer::What::Parents(pb::Parents { addresses: addresses.clone() })
            }
            Steer::Avoid { relay, on } => {
                pb::steer::What::Avoid(pb::Avoid { relay: relay.0, on: *on })
            }
        };
        pb::Steer { what: Some(what) }
    }
}

impl Push {
    fn to_pb(&self) -> pb::Push {
        let bundle = |bundle: &Bundle| pb::Bundle {
            base: bundle.base.as_ref().map(digest),
            hosts: hosts::encode(&bundle.hosts),
            manifest: Some(part(&bundle.manifest)),
            segments: bundle.segments.iter().map(part).collect(),
            deltas: bundle.deltas.iter().map(part).collect(),
        };
        pb::Push {
            dest: self.dest.clone(),
            manifest: digest(&self.manifest),
            full_manifest: Some(part(&self.full_manifest)),
            bundles: self.bundles.iter().map(bundle).collect(),
            inline: self.inline.clone(),
        }
    }
}

fn part(part: &Part) -> pb::Part {
    pb::Part { id: digest(&part.id), bytes: part.bytes }
}

fn digest(digest: &Digest) -> Bytes {
    Bytes::copy_from_slice(&digest.0)
}

fn read(body: pb::OrderBody) -> Result<OrderBody, OrderError> {
    let need = |need: &pb::Need| -> Result<Need, FieldError> {
        let content = need.content.iter().map(|id| array("need.content", id).map(Digest));
        let hosts = hosts::decode("need.hosts", &need.hosts)?;
        Ok(Need { hosts, content: content.collect::<Result<_, _>>()? })
    };
    Ok(OrderBody {
        mesh: array("order.mesh", &body.mesh)?,
        id: OrderId(array("order.id", &body.id)?),
        targets: hosts::decode("order.targets", &body.targets)?,
        not_before_ms: body.not_before_ms,
        not_after_ms: body.not_after_ms,
        reach: Duration::from_millis(body.reach_ms),
        hold: Duration::from_millis(body.hold_ms),
        issued_by: body.issued_by,
        needs: body.needs.iter().map(need).collect::<Result<_, _>>()?,
        gate: body.gate.as_ref().map(gate::decode).transpose()?,
        work: match body.work.ok_or(OrderError::Work)? {
            pb::order_body::Work::Run(run) => Work::Run(read_run(run)?),
            pb::order_body::Work::Push(push) => Work::Push(read_push(push, Terms::default())?),
            pb::order_body::Work::PushOnTerms(pb::PushOnTerms { push, terms }) => {
                let terms = Terms::read(given("push_on_terms.terms", terms)?)?;
                Work::Push(read_push(given("push_on_terms.push", push)?, terms)?)
            }
            pb::order_body::Work::Steer(steer) => Work::Steer(read_steer(steer)?),
            pb::order_body::Work::Cancel(cancel) => {
                let older = OrderId(array("cancel.order", &cancel.order)?);
                if cancel.lapse { Work::Lapse(older) } else { Work::Cancel(older) }
            }
        },
    })
}

fn read_run(run: pb::Run) -> Result<Run, FieldError> {
    let variable = |pb::Variable { name, value }| Variable { name, value };
    let parts = |field, parts: &[pb::Part]| {
        parts.iter().map(|part| read_part(field, part)).collect::<Result<Vec<_>, _>>()
    };
    let file =
        |file: pb::File| Ok(File { parts: parts("run.files", &file.parts)?, name: file.name });
    Ok(Run {
        stdin: parts("run.stdin", &run.stdin)?,
        files: run.files.into_iter().map(file).collect::<Result<_, FieldError>>()?,
        umask: run.umask,
        argv: run.argv,
        shell: run.shell,
        user: run.user,
        dir: run.dir,
        env: run.env.into_iter().map(variable).collect(),
        timeout: Duration::from_millis(run.timeout_ms),
        output_limit: run.output_limit,
    })
}

fn read_steer(steer: pb::Steer) -> Result<Steer, OrderError> {
    Ok(match steer.what.ok_or(OrderError::Work)? {
        pb::steer::What::Parents(parents) => Steer::Parents(parents.addresses),
        pb::steer::What::Avoid(pb::Avoid { relay, on }) => {
            Steer::Avoid { relay: HostId(relay), on }
        }
    })
}

fn read_push(push: pb::Push, terms: Terms) -> Result<Push, FieldError> {
    let bundle = |bundle: &pb::Bundle| -> Result<Bundle, FieldError> {
        let base = bundle.base.as_ref().map(|id| array("bundle.base", id)).transpose()?;
        let segments = bundle.segments.iter().map(|part| read_part("bundle.segments", part));
        let deltas = bundle.deltas.iter().map(|part| read_part("bundle.deltas", part));
        Ok(Bundle {
            base: base.map(Digest),
            hosts: hosts::decode("bundle.hosts", &bundle.hosts)?,
            manifest: read_given_part("bundle.manifest", &bundle.manifest)?,
            segments: segments.collect::<Result<_, _>>()?,
            deltas: deltas.collect::<Result<_, _>>()?,
        })
    };
    Ok(Push {
        manifest: Digest(array("push.manifest", &push.manifest)?),
        full_manifest: read_given_part("push.full_manifest", &push.full_manifest)?,
        bundles: push.bundles.iter().map(bundle).collect::<Result<_, _>>()?,
        dest: push.dest,
        inline: push.inline,
        terms,
    })
}

fn read_given_part(field: &'static str, part: &Option<pb::Part>) -> Result<Part, FieldError> {
    read_part(field, given(field, part.as_ref())?)
}

fn read_part(field: &'static str, part: &pb::Part) -> Result<Part, FieldError> {
    Ok(Part { id: Digest(array(field, &part.id)?), bytes: part.bytes })
}

/// Everything but lengths of bytes and forms of sets, which the types hold already.
fn check(body: &OrderBody) -> Result<(), FieldError> {
    not_empty("order.targets", body.targets.ranges().len())?;
    let validity = (body.not_before_ms.saturating_add(1), {
        body.not_before_ms.saturating_add(millis(LONGEST))
    });
    within("order.not_after_ms", body.not_after_ms, validity)?;
    within("order.hold_ms", millis(body.hold), (0, millis(LONGEST)))?;
    // The hold is at least the reach, so this is the limit of the reach as well.
    within("order.reach_ms", millis(body.reach), (0, millis(body.hold)))?;
    not_empty("order.issued_by", body.issued_by.len())?;
    plain("order.issued_by", &body.issued_by, NAME_LIMIT)?;
    at_most("order.needs", body.needs.len(), CONTENT_LIMIT)?;
    for need in &body.needs {
        not_empty("need.hosts", need.hosts.ranges().len())?;
        at_most("need.hosts", need.hosts.ranges().len(), hosts::RANGES)?;
        not_empty("need.content", need.content.len())?;
    }
    let content = body.needs.iter().map(|need| need.content.len()).sum();
    at_most("need.content", content, CONTENT_LIMIT)?;
    if let Some(gate) = &body.gate {
        ensure(matches!(body.work, Work::Run(_)), "order.gate", "is of a run only")?;
        gate::check(gate)?;
    }
    match &body.work {
        Work::Run(run) => check_run(run),
        Work::Push(push) => check_push(push),
        Work::Steer(steer) => check_steer(steer),
        Work::Cancel(older) | Work::Lapse(older) => {
            ensure(*older != body.id, "cancel.order", "is the id of the order itself")
        }
    }
}

fn check_run(run: &Run) -> Result<(), FieldError> {
    not_empty("run.argv", run.argv.first().map_or(0, Bytes::len))?;
    at_most("run.argv", run.argv.len(), ARGV_LIMIT)?;
    at_most_bytes("run.argv", run.argv.iter().map(Bytes::len).sum(), ARGV_BYTES)?;
    run.argv.iter().try_for_each(|argument| no_nul("run.argv", argument))?;
    let line = !run.shell || run.argv.len() == 1;
    ensure(line, "run.argv", "has more than the one line that a shell reads")?;
    check_user(&run.user)?;
    if !run.dir.is_empty() {
        path("run.dir", &run.dir, PATH_LIMIT)?;
    }
    at_most("run.env", run.env.len(), ENV_LIMIT)?;
    let bytes = run.env.iter().map(|variable| variable.name.len() + variable.value.len()).sum();
    at_most_bytes("run.env", bytes, ENV_BYTES)?;
    for variable in &run.env {
        not_empty("variable.name", variable.name.len())?;
        no_nul("variable.name", &variable.name)?;
        ensure(!variable.name.contains(&b'='), "variable.name", "has a = in it")?;
        no_nul("variable.value", &variable.value)?;
    }
    let names: BTreeSet<_> = run.env.iter().map(|variable| &variable.name).collect();
    ensure(names.len() == run.env.len(), "run.env", "has a name twice")?;
    within("run.timeout_ms", millis(run.timeout), (1, millis(LONGEST)))?;
    within("run.output_limit", run.output_limit.into(), (0, OUTPUT_LIMIT.into()))?;
    within("run.umask", run.umask.unwrap_or_default().into(), (0, 0o777))?;
    let bytes = |parts: &[Part]| parts.iter().map(|part| u64::from(part.bytes)).sum::<u64>();
    let parts = run.stdin.len() + run.files.iter().map(|file| file.parts.len()).sum::<usize>();
    at_most("run.stdin and run.files", parts, CONTENT_LIMIT)?;
    within("run.stdin", bytes(&run.stdin), (0, STDIN_LIMIT))?;
    at_most("run.files", run.files.len(), FILES)?;
    let files = run.files.iter().map(|file| bytes(&file.parts)).sum();
    within("run.files", files, (0, FILES_LIMIT))?;
    run.files.iter().try_for_each(|file| check_file_name(&file.name))?;
    let names: BTreeSet<_> = run.files.iter().map(|file| &file.name).collect();
    ensure(names.len() == run.files.len(), "run.files", "has a name twice")
}

fn check_steer(steer: &Steer) -> Result<(), FieldError> {
    let Steer::Parents(addresses) = steer else { return Ok(()) };
    at_most("steer.parents", addresses.len(), PARENTS)?;
    for address in addresses {
        plain("steer.parents", address, NAME_LIMIT)?;
        let parts = address.rsplit_once(':');
        let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        let good = parts.is_some_and(|(host, p)| !host.is_empty() && port(p));
        ensure(good, "steer.parents", "has an address that is not host:port")?;
    }
    Ok(())
}

fn check_file_name(name: &str) -> Result<(), FieldError> {
    not_empty("file.name", name.len())?;
    plain("file.name", name, FILE_NAME_LIMIT)?;
    ensure(!name.contains('/') && name != "." && name != "..", "file.name", "is a path")
}

fn check_user(user: &str) -> Result<(), FieldError> {
    plain("run.user", user, NAME_LIMIT)?;
    let foreign = |c: char| c.is_whitespace() || c == ':' || c == '/';
    let name = !user.starts_with('-') && !user.contains(foreign);
    ensure(name, "run.user", "is not the name of a user")
}

fn check_push(push: &Push) -> Result<(), FieldError> {
    path("push.dest", &push.dest, PATH_LIMIT)?;
    push.terms.check()?;
    at_most("push.bundles", push.bundles.len(), BUNDLE_LIMIT)?;
    for bundle in &push.bundles {
        not_empty("bundle.hosts", bundle.hosts.ranges().len())?;
        at_most("bundle.hosts", bundle.hosts.ranges().len(), hosts::RANGES)?;
    }
    let segments = |bundle: &Bundle| bundle.segments.len().saturating_add(bundle.deltas.len());
    let segments = push.bundles.iter().map(segments).sum();
    at_most("bundle.segments", segments, CONTENT_LIMIT)?;
    at_most("push.inline", push.inline.len(), CONTENT_LIMIT)?;
    push.inline.iter().try_for_each(|part| not_empty("push.inline", part.len()))
}

fn at_most_long(what: &'static str, found: usize, limit: usize) -> Result<(), OrderError> {
    if found > limit { Err(OrderError::TooLong { what, limit, found }) } else { Ok(()) }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
