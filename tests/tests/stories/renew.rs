//! Certificates that end soon: nodes renew them by themselves, and go on past the end of the first.

use std::time::{Duration, Instant};

use anyhow::Result;
use tests::{Fleet, LIMIT, PACE, Spec, binary, wait_for};

use crate::order;

#[test]
fn nodes_outlive_their_first_certificates() -> Result<()> {
    let mut fleet = Fleet::prepared(binary()?, PACE, &["--certificate", "12s"], |_| Ok(()))?;
    fleet.add(&Spec::new("relay", "relay", "controller").at("lyon"))?;
    fleet.add(&Spec::new("host", "host", "relay").at("lyon"))?;
    let enrolled = Instant::now();
    fleet.wait_up(2)?;
    wait_for("the first certificates to end", LIMIT, || {
        Ok((enrolled.elapsed() > Duration::from_secs(13)).then_some(()))
    })?;
    for name in ["relay", "host"] {
        let log = fleet.log(name);
        assert!(log.contains("the certificate is renewed"), "{log}");
    }

    // New links of processes that live, dialled and accepted: the relay and the host must have
    // taken up what they got.
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    fleet.wait_up(2)?;
    fleet.kill("relay")?;
    fleet.restart("relay")?;
    fleet.wait_up(2)?;
    fleet.kill("host")?;
    fleet.restart("host")?;
    fleet.wait_up(2)?;
    let id = order(&fleet, &["run", "-a", "--async", "--json", "--", "true"])?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    // A newcomer joins by way of the relay, whose certificate it sees first.
    fleet.add(&Spec::new("host", "late", "relay").at("lyon"))?;
    fleet.wait_up(3)?;
    Ok(())
}
