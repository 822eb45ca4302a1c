//! Floor 3. The lease: proof that this node is the only one under its name.
//!
//! Every round counts the number in the node's row of `edge_nodes` up, together with a fresh nonce. What
//! the node proposed is in its store before it is sent, so a lost answer is recognized; anything else in
//! the row means that this store is a clone or an old image, which enrols as a new node.

use bson::{Document, doc};

use super::round::RoundError;
use super::scan::Reason;
use super::{content_tidy, drain, restore, step};
use crate::central::{Central, CentralError, Lease, LeaseAnswer};
use crate::domain::audit::Head;
use crate::flaw::{self, Flaw, planted};
use crate::store::{Snapshot, Store, StoreError, Tx};

/// The number of the first lease of every node.
pub(crate) const FIRST_NUMBER: i64 = 1;

/// Field of an announcement with the head of the audit trail, `SEQ:HASH`, if the centre does not know it yet.
pub(crate) const ANNOUNCED_AUDIT: &str = "audit";
const META_LEASE: &str = "lease";
pub(crate) const META_REVOKED: &str = "revoked";

/// What the store knows about the node's lease.
#[derive(Debug, Clone)]
struct Known {
    node: String,
    confirmed: Option<Lease>,
    /// Sent, or about to be; its acknowledgement has not arrived.
    proposed: Option<Lease>,
}

impl Known {
    fn fresh() -> Known {
        Known { node: flaw::fresh_id().to_string(), confirmed: None, proposed: None }
    }

    fn confirmed_number(&self) -> i64 {
        self.confirmed.as_ref().map_or(FIRST_NUMBER - 1, |lease| lease.number)
    }

    /// Whether a centre with this lease in the node's row remembers less of the node than it should.
    fn is_older(&self, found: Option<&Lease>) -> bool {
        found.map_or(self.confirmed.is_some(), |found| found.number < self.confirmed_number())
    }

    fn decode(row: &Document) -> Option<Known> {
        let lease = |field: &str| {
            let lease = row.get_document(field).ok()?;
            Some(Lease {
                number: lease.get_i64("number").ok()?,
                nonce: lease.get_str("nonce").ok()?.to_owned(),
            })
        };
        let node = row.get_str("node").ok()?.to_owned();
        Some(Known { node, confirmed: lease("confirmed"), proposed: lease("proposed") })
    }

    fn encode(&self) -> Document {
        let mut row = doc! {"node": &self.node};
        for (field, lease) in [("confirmed", &self.confirmed), ("proposed", &self.proposed)] {
            if let Some(lease) = lease {
                row.insert(field, doc! {"number": lease.number, "nonce": &lease.nonce});
            }
        }
        row
    }
}

/// The node's id at the centre, once it has one.
pub(crate) fn node_id(snapshot: &Snapshot) -> Result<Option<String>, StoreError> {
    Ok(snapshot.meta(META_LEASE)?.as_ref().and_then(Known::decode).map(|known| known.node))
}

/// The number of the lease that the centre gave last.
pub(crate) fn number(snapshot: &Snapshot) -> Result<i64, StoreError> {
    let known = snapshot.meta(META_LEASE)?.as_ref().and_then(Known::decode);
    Ok(known.and_then(|known| known.confirmed).map_or(0, |lease| lease.number))
}

/// [`node_id`] in a write transaction.
pub(crate) fn node_id_in(tx: &Tx<'_>) -> Result<Option<String>, StoreError> {
    Ok(tx.meta(META_LEASE)?.as_ref().and_then(Known::decode).map(|known| known.node))
}

/// Takes the lease for this round and announces the node; returns its id and the lease.
pub(crate) async fn take(
    store: &Store,
    central: &mut dyn Central,
    announcement: &Document,
) -> Result<(String, Lease), RoundError> {
    // Once as the node that the store says it is, and once more as a new one if it turns out to be a clone.
    for _ in 0..2 {
        let known = propose(store).await?;
        step("lease.proposed");
        let Some(proposed) = known.proposed.clone() else {
            return Err(RoundError::Store(StoreError::Failed("no lease was proposed".into())));
        };
        let mut expected: Vec<Lease> = known.confirmed.iter().cloned().collect();
        // A first enrolment whose answer was lost left the proposal itself in the row.
        if !planted(Flaw::LostLeaseIsClone) {
            expected.push(proposed.clone());
        }
        let is_first = known.confirmed.is_none();
        let mut answer = central.take_lease(&known.node, &expected, &proposed, announcement).await?;
        if is_first && answer == LeaseAnswer::Other(None) {
            answer = central.take_lease(&known.node, &[], &proposed, announcement).await?;
        }
        if let LeaseAnswer::Other(Some(found)) = &answer
            && expected.contains(found)
        {
            // An earlier request, given up, has arrived between the two.
            answer = central.take_lease(&known.node, &expected, &proposed, announcement).await?;
        }
        if let LeaseAnswer::Other(found) = &answer
            && known.is_older(found.as_ref())
        {
            // Above both: the proposed number follows the confirmed one.
            restore::agreed_or_halt(store, known.confirmed_number(), found.as_ref()).await?;
            let found: Vec<Lease> = found.iter().cloned().collect();
            answer = central.take_lease(&known.node, &found, &proposed, announcement).await?;
        }
        step("lease.taken");
        match answer {
            LeaseAnswer::Taken => {
                let node = known.node.clone();
                let audit = announcement.get_str(ANNOUNCED_AUDIT).ok().and_then(|head| head.parse().ok());
                confirm(store, known, &proposed, audit).await?;
                return Ok((node, proposed));
            }
            LeaseAnswer::Revoked => {
                keep_revoked(store, known).await?;
                return Err(RoundError::Halted(
                    "The federation's administrator has revoked this node. It no longer exchanges records."
                        .into(),
                ));
            }
            LeaseAnswer::Other(found) if known.is_older(found.as_ref()) => {
                let message = "its row for this node changes from moment to moment".to_owned();
                return Err(CentralError::Failed(message).into());
            }
            LeaseAnswer::Other(_) => {
                tracing::warn!(old = %known.node, "this store is a copy of another node's: enrolling as a new node");
                enrol_anew(store).await?;
            }
        }
    }
    Err(RoundError::Halted("The centre gave the lease of a new node to somebody else.".into()))
}

/// Durably notes the lease that is about to be asked for; one that was never acknowledged is asked for again.
async fn propose(store: &Store) -> Result<Known, StoreError> {
    let nonce = flaw::fresh_id().simple().to_string();
    let fresh = Known::fresh();
    store
        .transact(move |tx| -> Result<Known, StoreError> {
            let row = tx.meta(META_LEASE)?;
            let mut known = row.as_ref().and_then(Known::decode).unwrap_or_else(|| fresh.clone());
            if known.proposed.is_none() {
                let number = known.confirmed_number() + 1;
                known.proposed = Some(Lease { number, nonce: nonce.clone() });
                tx.set_meta(META_LEASE, Some(&known.encode()))?;
            }
            Ok(known)
        })
        .await
}

/// This store goes on as a new node. It keeps its records, their bases and what was edited; of the centre's
/// history, and of what was sent under the old name, it knows nothing any more.
async fn enrol_anew(store: &Store) -> Result<(), StoreError> {
    let row = Known::fresh().encode();
    store
        .transact(move |tx| -> Result<(), StoreError> {
            tx.set_meta(META_LEASE, Some(&row))?;
            // A copy of this node was quicker to go on from what a restored centre holds; what this one knows is
            // worth the same.
            let reason = match restore::settle_copied(tx)? {
                Some(restored) => {
                    bring_together(tx, restored)?;
                    Reason::Restored
                }
                None => Reason::Lost,
            };
            tx.forget_sent()?;
            drain::lose_history(tx, reason)
        })
        .await
}

/// The centre holds the proposed lease now, and the head of the audit trail that was announced with it. If it was
/// restored, both sides have to be brought together.
async fn confirm(
    store: &Store,
    mut known: Known,
    proposed: &Lease,
    audit: Option<Head>,
) -> Result<(), StoreError> {
    (known.confirmed, known.proposed) = (Some(proposed.clone()), None);
    let row = known.encode();
    store
        .transact(move |tx| -> Result<(), StoreError> {
            if tx.meta(META_REVOKED)?.is_some() {
                tx.set_meta(META_REVOKED, None)?;
            }
            tx.set_meta(META_LEASE, Some(&row))?;
            if let Some(head) = &audit {
                tx.acknowledge_audit(head)?;
            }
            if let Some(restored) = restore::settle(tx)? {
                bring_together(tx, restored)?;
                drain::lose_history(tx, Reason::Restored)?;
            }
            Ok(())
        })
        .await
}

fn bring_together(tx: &mut Tx<'_>, restored: i64) -> Result<(), StoreError> {
    tx.begin_restore(restored)?;
    content_tidy::look_again_soon(tx)
}

async fn keep_revoked(store: &Store, known: Known) -> Result<(), StoreError> {
    let row = known.encode();
    store
        .transact(move |tx| -> Result<(), StoreError> {
            tx.set_meta(META_REVOKED, Some(&doc! {"revoked": true}))?;
            tx.set_meta(META_LEASE, Some(&row))
        })
        .await
}
