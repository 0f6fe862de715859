//! What orders bring into the store of a relay: what must stay for them, what is worth keeping
//! afterwards, and whether there is room for all of it, before its first byte.
//!
//! As long as an order waits for answers its content is needed; once its parent has them all it is
//! only likely to be asked for again, but for what was staged, which stays with its order. That
//! goes for pushes; what a command was given, which may be a secret, goes with its order. A push
//! that needs more room than can be made is refused at its first piece: it would come to nothing,
//! and would push out what others can use.
//!
//! Orders that bring nothing are not here. The number of the others is limited by the core.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use content::{ContentId, Store, StoreError};
use mesh::{Digest, OrderId, Record};
use protos::{OrderBody, Push, Work};
use tracing::warn;

/// How long no room is taken to mean no room.
const PAUSE: Duration = Duration::from_secs(1);

/// The claims of all orders; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<BTreeMap<OrderId, Claim>>>);

/// What one order brings.
struct Claim {
    named: BTreeSet<ContentId>,
    /// What belongs together: who needs a part of it needs all of it.
    bundles: Vec<Bundle>,
    settled: bool,
    /// Whether it is needed for as long as its order is valid, whoever has answered: it was staged.
    stays: bool,
}

impl Claim {
    fn is_open(&self) -> bool {
        !self.settled || self.stays
    }
}

struct Bundle {
    parts: BTreeMap<ContentId, u32>,
    verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nobody has asked for it here.
    Open,
    Fits,
    Refused(Instant),
}

impl Claims {
    /// What a node knew before.
    pub(crate) fn of(orders: impl IntoIterator<Item = (OrderBody, bool)>) -> Claims {
        let claims = Claims::default();
        for (body, settled) in orders {
            claims.enter(&body, settled);
        }
        claims
    }

    /// Something is about to be kept.
    pub(crate) fn note(&self, record: &Record) {
        match record {
            Record::Order(order) if !order.needs.is_empty() => {
                if let Ok(body) = OrderBody::of_envelope(order.body.clone()) {
                    self.enter(&body, false);
                }
            }
            Record::Settled(id) => self.settle(*id, true),
            Record::Answers(report) => self.settle(report.order, false),
            Record::Forget(id) => drop(self.lock().remove(id)),
            _ => {}
        }
    }

    fn enter(&self, body: &OrderBody, settled: bool) {
        let named = body.needs.iter().flat_map(|need| &need.content);
        let named: BTreeSet<_> = named.map(|digest| ContentId(digest.0)).collect();
        if named.is_empty() {
            return;
        }
        let bundles = match &body.work {
            Work::Push(push) | Work::Stage(push) => bundles(push),
            Work::Dist(dist) => dist.items.iter().flat_map(|item| bundles(&item.push)).collect(),
            _ => Vec::new(),
        };
        let stays = matches!(body.work, Work::Stage(_));
        self.lock().insert(body.id, Claim { named, bundles, settled, stays });
    }

    fn settle(&self, id: OrderId, settled: bool) {
        if let Some(claim) = self.lock().get_mut(&id) {
            claim.settled = settled;
        }
    }

    /// What orders need that somebody has not answered yet.
    pub(crate) fn needed(&self) -> BTreeSet<ContentId> {
        let claims = self.lock();
        let open = claims.values().filter(|claim| claim.is_open());
        open.flat_map(|claim| claim.named.iter().copied()).collect()
    }

    /// Whether a push brings it.
    pub(crate) fn pushes(&self, id: &ContentId) -> bool {
        let claims = self.lock();
        claims.values().any(|claim| claim.bundles.iter().any(|b| b.parts.contains_key(id)))
    }

    /// Makes room for all that is needed together with this. `false`: there is none, and the log
    /// says so. Of several pushes that share it each is judged by itself, the oldest first. Blocks.
    pub(crate) fn make_room(&self, store: &Store, content: Digest) -> Result<bool, StoreError> {
        let id = ContentId(content.0);
        for (order, at) in self.asked(&id) {
            let Some(wanted) = self.beside(order, at) else { continue };
            let verdict = match store.make_room_for(&wanted) {
                Ok(()) => Verdict::Fits,
                Err(error) if error.is_full() => {
                    warn!(%order, error = %crate::chain(&error), "a push is not taken in");
                    Verdict::Refused(Instant::now())
                }
                Err(error) => return Err(error),
            };
            let mut claims = self.lock();
            let bundles = claims.get_mut(&order).map(|claim| &mut claim.bundles);
            if let Some(bundle) = bundles.and_then(|bundles| bundles.get_mut(at)) {
                bundle.verdict = verdict;
            }
        }
        Ok(!self.refused(&id))
    }

    /// The bundles with this of which it is not known whether they fit: order and place.
    fn asked(&self, id: &ContentId) -> Vec<(OrderId, usize)> {
        let claims = self.lock();
        let open = claims.iter().filter(|(_, claim)| claim.is_open());
        let bundles = open.flat_map(|(order, claim)| {
            claim.bundles.iter().enumerate().map(|(at, bundle)| (*order, at, bundle))
        });
        let asked = bundles.filter(|(.., b)| b.parts.contains_key(id) && !b.verdict.stands());
        asked.map(|(order, at, _)| (order, at)).collect()
    }

    /// What a bundle brings, and what fitted before and is on its way: it takes its room as well.
    fn beside(&self, order: OrderId, at: usize) -> Option<Vec<(ContentId, u32)>> {
        let claims = self.lock();
        let own = claims.get(&order)?.bundles.get(at)?;
        let open = claims.values().filter(|claim| claim.is_open());
        let fits = open.flat_map(|c| &c.bundles).filter(|b| b.verdict == Verdict::Fits);
        let parts = fits.chain([own]).flat_map(|bundle| &bundle.parts);
        let wanted: BTreeMap<_, _> = parts.map(|(id, len)| (*id, *len)).collect();
        Some(wanted.into_iter().collect())
    }

    /// Whether every push that waits for this was refused a moment ago.
    fn refused(&self, id: &ContentId) -> bool {
        let claims = self.lock();
        let open = claims.values().filter(|claim| claim.is_open());
        let bundles = open.flat_map(|c| &c.bundles).filter(|b| b.parts.contains_key(id));
        let mut verdicts = bundles.map(|bundle| bundle.verdict).peekable();
        verdicts.peek().is_some() && verdicts.all(|v| matches!(v, Verdict::Refused(_)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OrderId, Claim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verdict {
    fn stands(self) -> bool {
        match self {
            Verdict::Open => false,
            Verdict::Fits => true,
            Verdict::Refused(since) => since.elapsed() < PAUSE,
        }
    }
}

fn bundles(push: &Push) -> Vec<Bundle> {
    let parts = |bundle: &protos::Bundle| {
        let parts = bundle.segments.iter().chain(&bundle.deltas).chain([&bundle.manifest]);
        parts.map(|part| (ContentId(part.id.0), part.bytes)).collect()
    };
    let bundle = |parts| Bundle { parts, verdict: Verdict::Open };
    push.bundles.iter().map(parts).map(bundle).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use content::Bounds;
    use mesh::{HostId, HostSet, Need};
    use protos::{Part, Terms};

    use super::*;

    fn object(n: u8, len: usize) -> (ContentId, Vec<u8>) {
        let bytes = vec![n; len];
        (ContentId::of(&bytes), bytes)
    }

    fn part(object: &(ContentId, Vec<u8>)) -> Part {
        let bytes = u32::try_from(object.1.len()).expect("short");
        Part { id: Digest(object.0.0), bytes }
    }

    /// An order that pushes these.
    fn order(n: u8, parts: &[&(ContentId, Vec<u8>)]) -> OrderBody {
        let (manifest, segments) = parts.split_first().expect("at least one");
        let hosts = HostSet::one(HostId(1));
        let bundle = protos::Bundle {
            base: None,
            hosts: hosts.clone(),
            manifest: part(manifest),
            segments: segments.iter().map(|object| part(object)).collect(),
            deltas: Vec::new(),
        };
        let push = Push {
            dest: Bytes::from_static(b"/srv"),
            manifest: Digest([n; 32]),
            bundles: vec![bundle],
            full_manifest: part(manifest),
            inline: Vec::new(),
            terms: Terms::default(),
        };
        let content = parts.iter().map(|object| Digest(object.0.0)).collect();
        OrderBody {
            needs: vec![Need { hosts: hosts.clone(), content }],
            ..OrderBody::new([1; 16], OrderId([n; 16]), hosts, 0..=1, Work::Push(push))
        }
    }

    #[test]
    fn content_is_needed_until_its_order_is_settled_and_known_until_it_is_forgotten() {
        let (a, b) = (object(1, 10), object(2, 10));
        let claims = Claims::of([(order(1, &[&a]), false), (order(2, &[&a, &b]), true)]);
        assert_eq!(claims.needed(), BTreeSet::from([a.0]));
        claims.note(&Record::Settled(OrderId([1; 16])));
        assert!(claims.needed().is_empty());
        assert!(claims.pushes(&a.0) && claims.pushes(&b.0));
        claims.note(&Record::Forget(OrderId([2; 16])));
        assert!(claims.pushes(&a.0) && !claims.pushes(&b.0));
    }

    #[test]
    fn what_was_staged_is_needed_as_long_as_its_order_is_known() {
        let (a, id) = (object(1, 10), OrderId([1; 16]));
        let OrderBody { work: Work::Push(push), .. } = order(1, &[&a]) else { unreachable!() };
        let stage = OrderBody { work: Work::Stage(push), ..order(1, &[&a]) };
        for claims in [Claims::of([(stage.clone(), true)]), Claims::of([(stage, false)])] {
            claims.note(&Record::Settled(id));
            assert_eq!(claims.needed(), BTreeSet::from([a.0]));
            claims.note(&Record::Forget(id));
            assert!(claims.needed().is_empty());
        }
    }

    #[test]
    fn what_does_not_fit_fails_nobody_who_shares_a_piece_of_it() {
        let dir = tempfile::tempdir().expect("temp");
        let store = Store::open(dir.path()).expect("opens");
        store.bound(Bounds { max: 100_000, ..Bounds::default() });
        let (a, b, c) = (object(1, 10_000), object(2, 95_000), object(3, 20_000));
        for small_first in [true, false] {
            let (small, large) = if small_first { (1, 2) } else { (2, 1) };
            let orders = [(order(large, &[&a, &b]), false), (order(small, &[&a, &c]), false)];
            let claims = Claims::of(orders);
            let ask = |object: &(ContentId, Vec<u8>)| {
                claims.make_room(&store, Digest(object.0.0)).expect("the store answers")
            };
            assert!(ask(&a), "one of the two can be");
            assert!(ask(&c));
            assert!(!ask(&b), "the other cannot");
            claims.note(&Record::Forget(OrderId([small; 16])));
            assert!(!ask(&a), "nobody else asks for it");
        }
    }

    #[test]
    fn a_push_for_which_there_is_no_room_is_refused_at_its_first_piece() {
        let dir = tempfile::tempdir().expect("temp");
        let store = Store::open(dir.path()).expect("opens");
        store.bound(Bounds { max: 100_000, ..Bounds::default() });
        let (a, b, c) = (object(1, 70_000), object(2, 60_000), object(3, 40_000));
        let claims = Claims::of([(order(1, &[&a, &b]), false), (order(2, &[&b]), false)]);
        let ask = |object: &(ContentId, Vec<u8>)| {
            claims.make_room(&store, Digest(object.0.0)).expect("the store answers")
        };
        assert!(!ask(&a), "together they are too much");
        assert!(!ask(&a), "still");
        // What fits takes its room from whatever comes after.
        claims.note(&Record::Forget(OrderId([1; 16])));
        claims.enter(&order(2, &[&b]), false);
        assert!(ask(&b));
        claims.enter(&order(3, &[&c, &object(4, 1_000)]), false);
        assert!(!ask(&c));
        claims.note(&Record::Settled(OrderId([2; 16])));
        claims.enter(&order(3, &[&c, &object(4, 1_000)]), false);
        assert!(ask(&c), "nobody waits for the other any more");
        // Of what no push names nothing is known.
        assert!(ask(&object(9, 10)), "it is for the store to say");
    }
}
