//! What the operator can ask of a verb while it shows an order: by key, and by signal.
//!
//! | | on a terminal | without one |
//! |---|---|---|
//! | Enter, Ctrl-C | how far it is | Ctrl-C (SIGINT) cancels |
//! | Ctrl-C twice within a second | cancels; twice again leaves | the second SIGINT leaves |
//! | `d` and Enter | leaves | |
//! | SIGHUP | leaves | leaves |
//!
//! Whoever leaves changes nothing: the order is the controller's. A signal that was ignored when we
//! were started stays ignored, as `nohup` and background jobs of a script want it.

use std::io::{self, BufRead, IsTerminal};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Two interrupts within this span are one wish.
const TWICE: Duration = Duration::from_secs(1);
/// How often a background job looks whether the terminal is its own again.
const BACKGROUND_PAUSE: Duration = Duration::from_secs(1);

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To know how far the order is.
    Status,
    /// The order taken back, everywhere.
    Cancel,
    /// To leave the order to itself.
    Detach,
}

/// The operator's keys and signals.
pub(crate) struct Keys {
    interrupts: Option<Signal>,
    hangups: Option<Signal>,
    typed: mpsc::Receiver<Wish>,
    presses: Presses,
}

/// What one interrupt after the other means.
struct Presses {
    /// Whether somebody sees what we say.
    attended: bool,
    last: Option<Instant>,
    cancelled: bool,
}

impl Keys {
    /// Listens from now on.
    pub(crate) fn new() -> io::Result<Keys> {
        let ignored = ignored_signals();
        let listen = |kind: SignalKind| match ignored & (1 << (kind.as_raw_value() - 1)) {
            0 => signal(kind).map(Some),
            _ => Ok(None),
        };
        let attended = io::stderr().is_terminal();
        let (sender, typed) = mpsc::channel(1);
        if attended && io::stdin().is_terminal() {
            // It waits for keys until the process ends.
            std::thread::Builder::new().name("keys".into()).spawn(move || read_keys(&sender))?;
        }
        Ok(Keys {
            interrupts: listen(SignalKind::interrupt())?,
            hangups: listen(SignalKind::hangup())?,
            typed,
            presses: Presses { attended, last: None, cancelled: false },
        })
    }

    /// The next wish. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Wish {
        tokio::select! {
            () = heard(&mut self.interrupts) => self.presses.press(Instant::now()),
            () = heard(&mut self.hangups) => Wish::Detach,
            Some(wish) = self.typed.recv() => wish,
        }
    }

    /// Whether the next interrupts mean to cancel, and not to leave.
    pub(crate) fn may_cancel(&self) -> bool {
        !self.presses.cancelled
    }
}

impl Presses {
    fn press(&mut self, now: Instant) -> Wish {
        let twice = self.last.is_some_and(|last| now.duration_since(last) < TWICE);
        if self.attended && !twice {
            self.last = Some(now);
            return Wish::Status;
        }
        // A third press of an impatient hand begins anew.
        self.last = None;
        match std::mem::replace(&mut self.cancelled, true) {
            false => Wish::Cancel,
            true => Wish::Detach,
        }
    }
}

/// Waits for a signal, for ever if it is not listened to.
async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// The signals that this process was told to ignore, a bit for each, from the lowest. Nothing is
/// ignored where `/proc` is missing.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Reads lines from the terminal. A background job must not read, or it would be stopped.
fn read_keys(wishes: &mpsc::Sender<Wish>) {
    let stdin = io::stdin();
    loop {
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        if poll(&mut ready, None).is_err() {
            continue;
        }
        if tcgetpgrp(&stdin).ok() != Some(getpgrp()) {
            std::thread::park_timeout(BACKGROUND_PAUSE);
            continue;
        }
        let mut line = String::new();
        match stdin.lock().read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let wish = match line.trim() {
            "d" => Wish::Detach,
            _ => Wish::Status,
        };
        if wishes.blocking_send(wish).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Presses at these milliseconds, and what they mean.
    #[track_caller]
    fn check(attended: bool, presses: &[(u64, Wish)]) {
        let start = Instant::now();
        let mut state = Presses { attended, last: None, cancelled: false };
        for (at, wish) in presses {
            assert_eq!(state.press(start + Duration::from_millis(*at)), *wish, "at {at} ms");
        }
    }

    #[test]
    fn one_press_asks_and_two_cancel() {
        use Wish::{Cancel, Detach, Status};
        check(true, &[(0, Status), (999, Cancel)]);
        check(true, &[(0, Status), (1000, Status), (2500, Status), (2600, Cancel)]);
        check(true, &[(0, Status), (10, Cancel), (20, Status), (30, Detach)]);
        check(true, &[(0, Status), (10, Cancel), (20, Status), (5000, Status), (5001, Detach)]);
        check(false, &[(0, Cancel), (10, Detach)]);
    }
}
