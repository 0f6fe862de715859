//! Tests of `ahead`: a push of several segments that come one by one.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use certs::{MeshId, OrderKey};
use content::{Bounds, Manifest, Patterns, ingest, pack};
use mesh::{HostId, HostSet, Need};
use protos::{Bundle, Part, Push, Terms};

use super::*;
use crate::journal::Journal;
use crate::verify::Verifier;

const HOST: HostId = HostId(1);
const ID: OrderId = OrderId([7; 16]);

/// A controller's store, and a host.
struct Host {
    dir: tempfile::TempDir,
    from: Store,
    to: Arc<Store>,
    journal: Journal,
    decoder: Decoder,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().expect("temp");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("root/srv")).expect("makes");
        let from = Store::open(at("from")).expect("opens");
        let to = Arc::new(Store::open(at("to")).expect("opens"));
        let journal = Journal::open(&at("node.redb"), 1 << 20).expect("opens");
        let verifier = Verifier::new(MeshId([1; 16]), OrderKey([3; 32]), HOST);
        let decoder = Decoder {
            host: HOST,
            root: at("root"),
            journal: journal.clone(),
            store: to.clone(),
            verifier: Arc::new(verifier),
        };
        Host { dir, from, to, journal, decoder }
    }

    /// Reads three files of 7 MiB, each like no other.
    fn tree(&self, version: u8) -> Manifest {
        let source = self.dir.path().join(format!("source-{version}"));
        fs::create_dir(&source).expect("makes");
        for name in [b'a', b'b', b'c'] {
            fs::write(source.join(char::from(name).to_string()), text(name, version))
                .expect("writes");
        }
        ingest(&source, &Patterns::default(), &self.from, &mut |_| ()).expect("reads").manifest
    }

    /// A push, and the order that brings it.
    fn push(&self, base: Option<&Manifest>, target: &Manifest) -> (Push, Arc<Order>) {
        let bundle = pack::encode(base, target, &self.from, 1).expect("encodes");
        let part = |part: &pack::Part| Part { id: Digest(part.id.0), bytes: part.bytes };
        let parts = |all: &[pack::Part]| all.iter().map(part).collect::<Vec<_>>();
        let bundle = Bundle {
            base: bundle.base.map(|base| Digest(base.0)),
            hosts: HostSet::one(HOST),
            manifest: part(&bundle.manifest),
            segments: parts(&bundle.segments),
            deltas: parts(&bundle.deltas),
        };
        let content = [&bundle.manifest].into_iter().chain(&bundle.segments).chain(&bundle.deltas);
        let content = content.map(|part| part.id).collect();
        let push = Push {
            dest: Bytes::from_static(b"/srv/new"),
            manifest: Digest(target.root().0),
            full_manifest: bundle.manifest,
            bundles: vec![bundle],
            inline: Vec::new(),
            terms: Terms::default(),
        };
        let order = Order {
            id: ID,
            targets: HostSet::one(HOST),
            needs: vec![Need { hosts: HostSet::one(HOST), content }],
            reach: Duration::ZERO,
            hold: Duration::ZERO,
            ttl: Duration::from_secs(60),
            again: true,
            cancels: None,
            lapses: false,
            supersedes: Vec::new(),
            gate: None,
            body: Bytes::new(),
        };
        (push, Arc::new(order))
    }

    /// A part comes.
    fn bring(&self, part: &Part) {
        let id = ContentId(part.id.0);
        let bytes = self.from.get(&id).expect("reads").expect("it was encoded");
        self.to.put(id, &bytes).expect("puts");
    }

    fn look(&self, ahead: &Ahead, push: &Push) {
        let look = ahead.look_at(ID).expect("it waits");
        self.decoder.push(&look, push);
    }

    /// How many objects there are beside the parts.
    fn chunks(&self, push: &Push) -> usize {
        let bundle = &push.bundles[0];
        let parts = [&bundle.manifest].into_iter().chain(&bundle.segments).chain(&bundle.deltas);
        let parts = parts.filter(|part| self.to.has(&ContentId(part.id.0)).expect("reads"));
        self.to.usage().expect("reads").objects as usize - parts.count()
    }

    fn has_all(&self, target: &Manifest, chunks: &BTreeSet<ContentId>) -> bool {
        let all = target.entries.iter().flat_map(|entry| entry.chunks());
        let all: BTreeSet<_> = all.map(|chunk| chunk.id).collect();
        !chunks.is_empty()
            && chunks.is_subset(&all)
            && chunks.iter().all(|id| self.to.get(id).expect("reads").is_some())
    }
}

/// Letters as good as drawn, but for some in the middle the same in all versions.
fn text(name: u8, version: u8) -> Vec<u8> {
    let draw = |seed: [u8; 2], len| {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed).finalize_xof().fill(&mut bytes);
        bytes.iter_mut().for_each(|byte| *byte = b'a' + *byte % 16);
        bytes
    };
    let mut text = draw([name, 0], 7 << 20);
    for part in text.chunks_mut(1 << 20) {
        part[..200].copy_from_slice(&draw([name, version], 200));
    }
    text
}

#[test]
fn segments_are_decoded_as_they_come() {
    let host = Host::new();
    let target = host.tree(1);
    let (push, order) = host.push(None, &target);
    let ahead = Ahead::new(host.to.clone(), []);
    ahead.note(&Record::Order(order));
    let bundle = &push.bundles[0];
    assert_eq!(bundle.segments.len(), 3);
    host.bring(&bundle.segments[1]);
    assert_eq!(ahead.next(), None, "nothing was said");
    ahead.arrived(bundle.segments[1].id);
    assert_eq!(ahead.next(), Some((ID, false)));
    host.look(&ahead, &push);
    assert_eq!(host.chunks(&push), 0, "the manifest is not here");

    host.bring(&bundle.manifest);
    host.look(&ahead, &push);
    let first = ahead.held();
    assert_eq!(host.chunks(&push), first.len());
    assert!(host.has_all(&target, &first));
    host.bring(&bundle.segments[0]);
    host.look(&ahead, &push);
    assert!(first.is_subset(&ahead.held()) && first.len() < ahead.held().len());
    assert_eq!(host.chunks(&push), ahead.held().len());

    ahead.note(&Record::Forget(ID));
    assert_eq!(ahead.next(), Some((ID, true)));
    ahead.drop_order(ID);
    assert_eq!((host.chunks(&push), ahead.next()), (0, None), "nothing is left behind");
}

#[test]
fn deltas_are_decoded_with_what_is_installed() {
    let host = Host::new();
    let (base, target) = (host.tree(1), host.tree(2));
    let (push, order) = host.push(Some(&base), &target);
    let bundle = &push.bundles[0];
    assert!(bundle.deltas.len() > 1, "{}", bundle.deltas.len());
    let place = host.dir.path().join("root/srv/new");
    fs::rename(host.dir.path().join("source-1"), &place).expect("installs");
    let root = base.root();
    host.to.put(root, &base.encode()).expect("puts");
    host.journal.set_installed(&push.dest, Digest(root.0), OrderId([1; 16])).expect("notes");
    [&bundle.manifest].into_iter().chain(&bundle.deltas).for_each(|part| host.bring(part));
    // What cannot be made of what is there is left to the order itself.
    fs::write(place.join("a"), "changed by hand").expect("writes");
    let some = Ahead::new(host.to.clone(), [order.clone()]);
    host.look(&some, &push);
    assert!(host.has_all(&target, &some.held()));
    fs::write(place.join("a"), text(b'a', 1)).expect("writes");
    let rest = Ahead::new(host.to.clone(), [order]);
    host.look(&rest, &push);
    assert!(host.has_all(&target, &rest.held()) && rest.held().is_disjoint(&some.held()));
    let fresh = content::plan(Some(&base), &target).len();
    assert_eq!(some.held().len() + rest.held().len(), fresh);
}

#[test]
fn nothing_is_decoded_ahead_that_would_be_for_nothing_or_in_the_way() {
    let host = Host::new();
    let target = host.tree(1);
    let (push, order) = host.push(None, &target);
    let bundle = &push.bundles[0];
    [&bundle.manifest, &bundle.segments[0]].into_iter().for_each(|part| host.bring(part));
    let tried = |push: &Push| {
        let ahead = Ahead::new(host.to.clone(), [order.clone()]);
        host.look(&ahead, push);
        assert_eq!(ahead.look_at(ID).is_some(), !ahead.held().is_empty());
        !ahead.held().is_empty()
    };
    let mut short = push.clone();
    short.bundles[0].segments.truncate(1);
    assert!(!tried(&short), "the only part begins the order");
    let terms = Terms { verify: true, ..Terms::default() };
    assert!(!tried(&Push { terms, ..push.clone() }));
    let place = host.dir.path().join("root/srv/new");
    fs::write(&place, "there may be all of it").expect("writes");
    assert!(!tried(&push));
    fs::remove_file(&place).expect("removes");
    let raw = target.bytes();
    host.to.bound(Bounds { max: 2 * raw, ..Bounds::default() });
    assert!(!tried(&push), "as much as it takes would not be free beside it");
    host.to.bound(Bounds { max: 4 * raw, ..Bounds::default() });
    assert!(tried(&push));
}

#[test]
fn what_was_decoded_ahead_gives_way() {
    let host = Host::new();
    let target = host.tree(1);
    let (push, order) = host.push(None, &target);
    let bundle = &push.bundles[0];
    [&bundle.manifest, &bundle.segments[0]].into_iter().for_each(|part| host.bring(part));
    let ahead = Ahead::new(host.to.clone(), [order]);
    host.look(&ahead, &push);
    let held = ahead.held();
    let used = held.first().copied().expect("some");
    let pinned = host.to.pin([used]);
    assert!(ahead.give_back() && !ahead.give_back());
    assert_eq!(host.chunks(&push), 1, "somebody works with it");
    assert!(host.to.has(&used).expect("reads"));
    drop(pinned);
    ahead.arrived(bundle.segments[0].id);
    assert_eq!(ahead.next(), None, "and is not decoded again");
}

#[tokio::test]
async fn an_order_begins_when_nothing_is_decoded_for_it_any_more() {
    let host = Host::new();
    let target = host.tree(1);
    let (push, order) = host.push(None, &target);
    let ahead = Ahead::new(host.to.clone(), [order]);
    let bundle = &push.bundles[0];
    [&bundle.manifest, &bundle.segments[0]].into_iter().for_each(|part| host.bring(part));
    let look = ahead.look_at(ID).expect("it waits");
    let mut begins = Box::pin(ahead.begin(ID));
    assert!(at_once(&mut begins).await.is_none(), "it is busy");
    host.decoder.push(&look, &push);
    drop(look);
    begins.await;
    assert_eq!(ahead.held().len(), 0, "it was over before");
    assert!(ahead.look_at(ID).is_none());
    ahead.begin(OrderId([9; 16])).await;
    ahead.end(ID);
    assert_eq!(ahead.next(), Some((ID, true)), "it is to be forgotten");
    ahead.drop_order(ID);
    ahead.end(ID);
    assert_eq!((ahead.next(), host.chunks(&push)), (None, 0));
}

/// What a future comes to at once.
async fn at_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    tokio::select! { biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}
