//! What reactions want of the controller: orders as an operator would give them, signed like any
//! other, and messages on the bus.
//!
//! The alert goes along in the environment of the command, as `BARID_ALERT`: it is data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alerts::{Act, Wanted, next_wanted};
use bytes::Bytes;
use relay::Running;
use tokio::sync::mpsc;

use crate::api::Api;
use crate::fleet::types::NewDist;
use crate::sets;
use crate::types::{NewRun, Pace, Targets};

/// How long an order of a reaction waits for hosts that cannot be reached.
const REACH: Duration = Duration::from_secs(30);
/// How much of the output of each host is kept.
const OUTPUT: u64 = 64 << 10;

/// Does what is wanted, one after the other, until nobody wants anything any more.
pub(crate) async fn react(api: Api, node: Arc<Running>, mut wanted: mpsc::Receiver<Wanted>) {
    let api = api.on_behalf_of("reaction");
    while let Some(Wanted { act, told, host, reply }) = next_wanted(&mut wanted).await {
        let done = match act {
            Act::Publish { subject } => relay::publish(node.bus(), &subject, told).await,
            Act::Distribute { frequency } => distribute(&api, &frequency).await,
            Act::Run { hosts, line, user, timeout } => match hosts.or(host) {
                Some(hosts) => run(&api, draft(hosts, line, user, timeout, &told)).await,
                None => Err("the alert is about no host".into()),
            },
        };
        reply.send(done).ok();
    }
}

/// What is wrong with an order that a reaction would give. Who is there, and which frequencies
/// there are, may be another matter when it gives it.
pub(crate) fn check(act: &Act) -> Result<(), String> {
    match act {
        Act::Run { hosts: Some(hosts), .. } => {
            sets::parse(hosts).map(drop).map_err(|wrong| format!("run.hosts: {wrong}"))
        }
        _ => Ok(()),
    }
}

async fn run(api: &Api, new: NewRun) -> Result<String, String> {
    let given = api.give(new).await.map_err(|failure| failure.error.message)?;
    Ok(format!("order {} at {}: {}", given.short, given.targets, given.what))
}

async fn distribute(api: &Api, frequency: &str) -> Result<String, String> {
    let told = api.rollouts.distribute(NewDist::of(frequency), Vec::new()).await;
    told.map_err(|failure| failure.error.message)?;
    Ok(format!("what is due {frequency} goes to whoever lacks it"))
}

fn draft(hosts: String, line: String, user: String, timeout: Duration, told: &Bytes) -> NewRun {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let told = String::from_utf8_lossy(told).into_owned();
    NewRun {
        targets: Targets { sets: vec![hosts], ..Targets::default() },
        argv: vec![line],
        shell: true,
        dir: String::new(),
        env: BTreeMap::from([("BARID_ALERT".into(), told)]),
        user,
        umask: None,
        stdin: Vec::new(),
        files: Vec::new(),
        pace: Pace::default(),
        reach_ms: ms(REACH),
        hold_ms: 0,
        timeout_ms: ms(timeout),
        output_limit: OUTPUT,
    }
}
