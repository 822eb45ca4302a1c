//! Floor 2. How fast passwords may be guessed.
//!
//! Hides what is remembered of attempts to log in, and how many seconds the next one has to wait.
//!
//! - `attempts`: the throttle: attempts per account, client and site, and how long the next one waits
//! - `guess`: an attempt, and its rank
//! - `failures`: wrong passwords of the last ten minutes
//! - `turns`: turns among those who share a wait
//! - `repeats`: turns among credentials that come back
//! - `recent`: what was seen lately, with a bound
//! - `logins`: from where people logged in before the node started

mod attempts;
mod failures;
mod guess;
mod logins;
mod recent;
mod repeats;
mod turns;

pub(super) use attempts::{Counted, Throttle};
pub(super) use guess::{Code, Guess, Rank};
pub use logins::ENTRIES_AT_START;
