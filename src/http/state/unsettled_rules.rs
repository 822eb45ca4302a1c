//! Floor 4. Access rules whose effect is not in the store yet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::access::Acl;

/// Access rules that came into force and whose end of what they do not allow is not in the store yet, the first in front.
/// Until it is, they count beside those in force: what one of them has ended does not come back with others.
#[derive(Default)]
pub struct UnsettledRules(Mutex<Vec<Unsettled>>);

#[derive(Clone)]
pub(crate) struct Unsettled {
    pub(crate) acl: Arc<Acl>,
    /// Whether they took the place of others, by which emergencies were opened.
    pub(crate) are_others: bool,
}

impl UnsettledRules {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Unsettled>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, acl: &Arc<Acl>, are_others: bool) {
        self.lock().push(Unsettled { acl: Arc::clone(acl), are_others });
    }

    /// Whether all of them allow it.
    pub(crate) fn all_allow(&self, allows: impl Fn(&Acl) -> bool) -> bool {
        self.lock().iter().all(|unsettled| allows(&unsettled.acl))
    }
}
