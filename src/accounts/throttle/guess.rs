//! Floor 2. An attempt to log in, as what slows attempts down sees it.

/// Stands for a pair of account name and client, a client, or an account name.
pub(crate) type Code = [u8; 32];

/// Who tries to log in, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guess {
    pub(crate) pair: Code,
    pub(crate) client: Code,
    /// Its site, if that has more clients than this one.
    pub(crate) site: Option<Code>,
    pub(crate) account: Code,
    /// The pair and what it tries there.
    pub(crate) credential: Code,
}

/// Whose password is computed first where many wait. Goes by what is known of the client, and of its pair with the account
/// where that pair has logged in: a name tells nobody by it whether it is an account's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Has logged in to this account from there.
    Known,
    /// Somebody has logged in from there, and it has hardly failed of late.
    Neighbour,
    /// Has not failed of late.
    Fresh,
    Slipped,
    Failing,
}

impl Rank {
    pub(crate) const COUNT: usize = 5;
}
