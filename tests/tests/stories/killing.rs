//! A push in the middle of which a relay, a host, both, or the controller are killed: every host
//! has the right file in the end, and no death costs more than what was on its way. `barid bench
//! kill-push` is the same with 1 GiB and a hundred deaths of each.

use anyhow::{Context, Result, ensure};
use simulations::wan::Profile;
use tests::LIMIT;
use tests::killing::{Trial, Victim};

const BYTES: usize = 32 << 20;
const KILLS: usize = 8;
/// So many deaths are meant to come before the last byte; the other while hosts install. Between a
/// look and a kill the rest may come, but not each time.
const MEANT: usize = 7;
const EARLY: usize = 4;
/// What may cross a link in vain for one death. The relay's link holds 1.25 MB on its wire and in
/// its queue; a process that gets no processor may have as much in its memory.
const AGAIN: u64 = 3 << 20;

#[test]
fn whoever_is_killed_during_a_push_costs_what_was_on_its_way_and_no_file_twice() -> Result<()> {
    let (wide, lan) = (Profile::named("mid50")?, Profile::named("lan")?);
    let dir = std::env::temp_dir();
    let mut trial = Trial::start((tests::binary()?, &dir), BYTES, [&wide, &lan], 7)?;
    let factor = trial.calibrate(BYTES, LIMIT)?;
    ensure!(factor.iter().all(|factor| (1.0..1.2).contains(factor)), "{factor:?}");
    for victim in Victim::ALL {
        let played = trial.play(victim, KILLS, 3 * LIMIT).with_context(|| format!("{victim:?}"))?;
        println!("killing: {victim:?}: {played:?}");
        let deaths = &played.deaths;
        let early = deaths.iter().filter(|death| death.was_early()).count();
        let enough = deaths.len() >= MEANT && early >= EARLY;
        ensure!(enough, "{victim:?}: the push was over: {deaths:?}");
        for death in deaths {
            ensure!(death.vain.iter().all(|vain| *vain < AGAIN), "{victim:?}: {death:?}");
        }
    }
    Ok(())
}
