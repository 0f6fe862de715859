//! Orders and envelopes go round, and whatever else comes is an error.

use mesh::HostId;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::testing::{
    bytes, digest as any_digest, mangle, name, signature, some_bytes, some_hosts, words,
};
use crate::{Bundle, Cap, Delete, File, MaxDelete, OUTPUT_LIMIT, PARENTS, Part, Special, Variable};

fn time() -> impl Strategy<Value = Duration> {
    (0..=millis(LONGEST)).prop_map(Duration::from_millis)
}

fn run() -> impl Strategy<Value = Run> {
    let argv = (words(1..12), vec(words(0..12), 0..4), any::<bool>());
    let env = btree_map(words(1..8), words(0..8), 0..4);
    let dir = prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(b"/var/tmp"))];
    let user = prop_oneof![Just(String::new()), name()];
    let part = || (any_digest(), 0..1u32 << 20).prop_map(|(id, bytes)| Part { id, bytes });
    let files = btree_map(name(), vec(part(), 0..3), 0..3).prop_map(|files| {
        files.into_iter().map(|(name, parts)| File { name, parts }).collect::<Vec<_>>()
    });
    let given = (vec(part(), 0..3), files, proptest::option::of(0..=0o777u32));
    (argv, env, dir, user, 1..=millis(LONGEST), 0..=OUTPUT_LIMIT, given).prop_map(
        |((line, more, shell), env, dir, user, timeout, output_limit, given)| Run {
            argv: std::iter::once(line).chain(more.into_iter().filter(|_| !shell)).collect(),
            shell,
            user,
            dir,
            env: env.into_iter().map(|(name, value)| Variable { name, value }).collect(),
            timeout: Duration::from_millis(timeout),
            output_limit,
            stdin: given.0,
            files: given.1,
            umask: given.2,
        },
    )
}

fn gate() -> impl Strategy<Value = Gate> {
    let count = || 1..=1u64 << 32;
    let maybe = || proptest::option::of(count());
    let batch = proptest::option::of((count(), time()));
    let some_time = || (1..=millis(LONGEST)).prop_map(Duration::from_millis);
    let most = proptest::option::of(any::<u64>());
    (
        count(),
        maybe(),
        vec(some_hosts(), 0..3),
        batch,
        (most.clone(), most),
        some_time(),
        some_time(),
    )
        .prop_map(
            |(window, per_child, lots, batch, (max_errors, max_missed), begin, longest)| Gate {
                window,
                per_child: per_child.map(share),
                lots,
                per_lot: share(window),
                batch: batch.map(|(size, wait)| mesh::Batch { size, wait }),
                max_errors,
                max_missed,
                begin,
                longest,
            },
        )
}

fn share(number: u64) -> mesh::Share {
    match number % 3 {
        0 => mesh::Share::Percent(number as u32 % 100 + 1),
        _ => mesh::Share::Hosts(number),
    }
}

fn terms() -> impl Strategy<Value = Terms> {
    let max = prop_oneof![
        Just(MaxDelete::Usual),
        any::<u64>().prop_map(MaxDelete::Entries),
        (0..=100_u32).prop_map(MaxDelete::Percent),
    ];
    let delete = prop_oneof![Just(Delete::Nothing), Just(Delete::Installed), Just(Delete::All)];
    let special =
        ("[a-z]{1,9}", "[a-z ]{1,9}").prop_map(|(pattern, command)| Special { pattern, command });
    let commands = ("[a-z ]{0,9}", "[a-z ]{0,9}", vec(special, 0..3));
    let others = (words(0..9), words(0..9), commands);
    (vec("[a-z*/]{1,9}", 0..3), delete, max, any::<[bool; 6]>(), others).prop_map(
        |(exclude, delete, max_delete, flags, (save, source, (before, after, special)))| {
            let [verify, preflight, tree, rollback, content_only, keep_newer] = flags;
            let limited = delete != Delete::Nothing;
            Terms {
                exclude,
                delete,
                max_delete: if limited { max_delete } else { MaxDelete::Usual },
                verify,
                preflight: preflight && verify,
                tree: tree && !limited,
                rollback,
                content_only,
                keep_newer,
                save: save.iter().map(|byte| if *byte == b'/' { b'_' } else { *byte }).collect(),
                before,
                after,
                special,
                source,
            }
        },
    )
}

fn push() -> impl Strategy<Value = Push> {
    let part = || (any_digest(), any::<u32>()).prop_map(|(id, bytes)| Part { id, bytes });
    let base = proptest::option::of(any_digest());
    let bundle = (base, some_hosts(), part(), vec(part(), 0..3), vec(part(), 0..3)).prop_map(
        |(base, hosts, manifest, segments, deltas)| Bundle {
            base,
            hosts,
            manifest,
            segments,
            deltas,
        },
    );
    let dest = name().prop_map(|name| Bytes::from(format!("/srv/{name}")));
    (dest, any_digest(), part(), vec(bundle, 0..3), vec(some_bytes(20), 0..3), terms()).prop_map(
        |(dest, manifest, full_manifest, bundles, inline, terms)| Push {
            dest,
            manifest,
            full_manifest,
            bundles,
            inline,
            terms,
        },
    )
}

fn rate() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), crate::LEAST_RATE..=u64::MAX]
}

fn cap() -> impl Strategy<Value = Cap> {
    let set = (rate(), any::<u64>());
    let set = set.prop_map(|(rate, until_ms)| Cap::Set { rate, until_ms });
    prop_oneof![Just(Cap::Ask), Just(Cap::Clear), set]
}

fn order() -> impl Strategy<Value = OrderBody> {
    let ids = any::<([u8; 16], [u8; 16])>();
    let validity = (any::<u64>(), 1..=millis(LONGEST)).prop_map(|(start, length)| {
        let start = start.min(u64::MAX - length);
        (start, start + length)
    });
    let waits = (time(), time());
    let need = (some_hosts(), vec(any_digest(), 1..4))
        .prop_map(|(hosts, content)| Need { hosts, content });
    let cancel = (any::<[u8; 16]>(), 0..3).prop_map(|(id, how)| match how {
        0 => Work::Lapse(OrderId(id)),
        1 => Work::Recall(OrderId(id)),
        _ => Work::Cancel(OrderId(id)),
    });
    let item = (push(), name(), "[a-z]{0,3}").prop_map(|(push, command, frequency)| {
        crate::dist::DistItem { push, command: command.into(), frequency }
    });
    let dist = (vec(item, 1..3), "[a-z]{0,5}", any::<u64>(), any::<bool>()).prop_map(
        |(mut items, frequency, begin_by_ms, verify)| {
            for item in &mut items {
                (item.push.terms.verify, item.push.terms.preflight) = (verify, false);
                if verify {
                    item.command = bytes::Bytes::new();
                }
            }
            Work::Dist(Dist { items, frequency, begin_by_ms })
        },
    );
    let parents = vec(name().prop_map(|name| format!("{name}:7400")), 0..=PARENTS);
    let steer = prop_oneof![
        parents.prop_map(Steer::Parents),
        any::<(u32, bool)>().prop_map(|(id, on)| Steer::Avoid { relay: HostId(id), on }),
        cap().prop_map(Steer::Cap),
        Just(Steer::Survey),
    ]
    .prop_map(Work::Steer);
    let stage = push().prop_map(|push| Work::Stage(Push { terms: Terms::default(), ..push }));
    let push = push().prop_map(Work::Push);
    let work = prop_oneof![run().prop_map(Work::Run), push, dist, cancel, steer, stage];
    let gate = proptest::option::of(gate());
    let need = (vec(need, 0..3), rate(), vec(any::<[u8; 16]>(), 0..3), any::<u64>());
    (ids, some_hosts(), validity, waits, name(), need, work, gate).prop_map(
        |((mesh, id), targets, validity, (a, b), issued_by, needs, work, gate)| OrderBody {
            rate: needs.1,
            epoch: needs.3,
            supersedes: match work {
                Work::Push(_) | Work::Dist(_) => {
                    needs.2.iter().map(|older| (OrderId(*older), targets.clone())).collect()
                }
                _ => Vec::new(),
            },
            gate: gate.filter(|_| matches!(work, Work::Run(_))),
            mesh,
            id: OrderId(id),
            targets,
            not_before_ms: validity.0,
            not_after_ms: validity.1,
            reach: a.min(b),
            hold: a.max(b),
            issued_by,
            needs: needs.0,
            work,
        },
    )
}

fn envelope() -> impl Strategy<Value = Envelope> {
    (name(), some_bytes(60), signature(), some_bytes(64))
        .prop_map(|(kind, body, signature, key)| Envelope { kind, body, signature, key })
}

proptest! {
    #[test]
    fn round_trip(order in order(), envelope in envelope()) {
        prop_assert_eq!(order.check(), Ok(()));
        prop_assert_eq!(OrderBody::decode(&order.encode()), Ok(order));
        prop_assert_eq!(Envelope::decode(envelope.encode()), Ok(envelope));
    }

    #[test]
    fn mangled_bytes_are_an_order_or_an_error(bytes in mangle(order(), OrderBody::encode)) {
        if let Ok(order) = OrderBody::decode(&bytes) {
            prop_assert_eq!(order.check(), Ok(()));
            prop_assert_eq!(OrderBody::decode(&order.encode()), Ok(order));
        }
    }

    #[test]
    fn mangled_bytes_are_an_envelope_or_an_error(bytes in mangle(envelope(), Envelope::encode)) {
        if let Ok(envelope) = Envelope::decode(bytes) {
            prop_assert_eq!(Envelope::decode(envelope.encode()), Ok(envelope));
        }
    }

    #[test]
    fn noise_is_no_order(noise in bytes(40)) {
        prop_assert!(OrderBody::decode(&noise).is_err());
    }
}
