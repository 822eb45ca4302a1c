//! Floor 0. Moments in the history of the centre.

/// A moment in the history of the centre, as the centre counts; later ones are greater. Nodes' clocks have no
/// part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);
