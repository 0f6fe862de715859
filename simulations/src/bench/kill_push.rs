//! Not a measurement but a trial: a push in the middle of which a relay, a host, both or the
//! controller are killed again and again, and how many bytes cross each link a second time for it.
//!
//! Every host must have the right file in the end. The table says how many bytes; the story of
//! the same name also holds them to a bound.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use simulations::wan::Profile;
use tests::killing::{Death, Played, Trial, Victim};

use crate::table;

/// How long one push may take.
const LIMIT: Duration = Duration::from_secs(45 * 60);
/// What the push that nobody dies in takes along at most.
const CALM: usize = 128 << 20;
const MIB: f64 = 1024.0 * 1024.0;

/// What to play.
pub(crate) struct Plan {
    pub(crate) mib: usize,
    pub(crate) kills: usize,
    pub(crate) seed: u64,
    /// All, if there is none.
    pub(crate) who: Vec<Victim>,
    /// The name of what the relay's link is like.
    pub(crate) profile: String,
}

/// Plays a push for each victim, each in a fleet of its own.
pub(crate) fn trial(barid: &Path, work: &Path, plan: &Plan) -> Result<()> {
    let (wide, lan) = (Profile::named(&plan.profile)?, Profile::named("lan")?);
    let (bytes, mut rows) = (plan.mib << 20, Vec::new());
    let who = if plan.who.is_empty() { Victim::ALL.to_vec() } else { plan.who.clone() };
    for victim in who {
        let mut trial = Trial::start((barid.into(), work), bytes, [&wide, &lan], plan.seed)?;
        trial.calibrate(bytes.min(CALM), LIMIT)?;
        let played = trial.play(victim, plan.kills, LIMIT);
        let played = played.with_context(|| format!("{victim:?} killed, seed {}", plan.seed))?;
        ensure!(!played.deaths.is_empty(), "the push was over before anybody was killed");
        rows.extend(tell(victim, &played));
    }
    table::heading("kill -9 during a push");
    println!(
        "{} MiB to two hosts of a relay, seed {}; the relay's link is {}, those of hosts are lan. \
         Every host had the right file in the end.\n",
        plan.mib, plan.seed, plan.profile
    );
    let head = ["killed", "times", "link", "MiB again p50", "p90", "most", "all", "took"];
    table::print(&head, &rows);
    Ok(())
}

/// A row for the link of the relay, and one for the links of the hosts together.
fn tell(victim: Victim, played: &Played) -> [Vec<String>; 2] {
    let late = played.deaths.iter().filter(|death| !death.was_early()).count();
    let of = |link: &str, vain: &dyn Fn(&Death) -> u64| {
        // Once all is there nothing is on the links.
        let coming = played.deaths.iter().filter(|death| death.was_early());
        let mut again: Vec<f64> = coming.map(|death| vain(death) as f64 / MIB).collect();
        again.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * again.len() as f64).ceil() as usize;
            again.get(rank.max(1) - 1).map_or("-".into(), |mib| format!("{mib:.2}"))
        };
        let all = played.deaths.iter().map(|death| vain(death) as f64 / MIB).sum::<f64>();
        vec![
            format!("{victim:?}").to_lowercase(),
            format!("{} and {late} late", played.deaths.len() - late),
            link.to_owned(),
            rank(0.5),
            rank(0.9),
            rank(1.0),
            format!("{all:.2}"),
            table::time(played.took),
        ]
    };
    [
        of("relay", &|death| death.vain[0]),
        of("worse host", &|death| death.vain[1].max(death.vain[2])),
    ]
}
