//! Floor 3. The lease: proof that this node is the only one under its name.
//!
//! Every round counts the number in the node's row of `edge_nodes` up, together with a fresh nonce. What
//! the node proposed is in its store before it is sent, so a lost answer is recognized; anything else in
//! the row means that this store is a clone or an old image, which enrols as a new node.
//!
//! A node that has sent or taken anything takes one more lease at the end of its work: the seal. A centre that holds
//! the seal holds everything before it. One that holds an older lease was set back to a copy, whenever that was made.

use bson::{Document, doc};

use super::kept_rows::or_anew;
use super::round::RoundError;
use super::scan::Reason;
use super::{content_tidy, former, position, restore, step};
use crate::central::{Central, CentralError, Lease, LeaseAnswer};
use crate::domain::audit::Head;
use crate::flaw::{self, Flaw, planted};
use crate::store::{Delivered, Fields, Snapshot, Store, StoreError, Taken, Tx};

/// The number of the first lease of every node.
pub(crate) const FIRST_NUMBER: i64 = 1;

/// Field of an announcement with the head of the audit trail, `SEQ:HASH`, if the centre does not know it yet.
pub(crate) const ANNOUNCED_AUDIT: &str = "audit";
const META_LEASE: &str = "lease";
pub(crate) const META_REVOKED: &str = "revoked";

/// What the store knows about the node's lease.
#[derive(Debug, Clone)]
pub(super) struct Known {
    node: String,
    confirmed: Option<Lease>,
    /// Sent, or about to be; its acknowledgement has not arrived.
    proposed: Option<Lease>,
    /// A seal whose acknowledgement has not arrived.
    seal: Option<Lease>,
    /// The server process that gave the confirmed one.
    process: Option<String>,
    /// Rounds that took their lease.
    rounds: i64,
}

impl Known {
    fn fresh() -> Known {
        Known {
            node: flaw::fresh_id().to_string(),
            confirmed: None,
            proposed: None,
            seal: None,
            process: None,
            rounds: 0,
        }
    }

    /// The number after every one that the centre may hold.
    fn next_number(&self) -> i64 {
        let sealed = self.seal.as_ref().map_or(0, |seal| seal.number);
        self.confirmed_number().max(sealed) + 1
    }

    fn confirmed_number(&self) -> i64 {
        self.confirmed.as_ref().map_or(FIRST_NUMBER - 1, |lease| lease.number)
    }

    /// Whether a centre with this lease in the node's row remembers less of the node than it should.
    fn is_older(&self, found: Option<&Lease>) -> bool {
        found.map_or(self.confirmed.is_some(), |found| found.number < self.confirmed_number())
    }

    /// Nothing if the row cannot be read. The node enrols as one whose lease is lost then, as a copied one does: under a new
    /// id, with all that it holds.
    fn in_row(row: Option<Vec<u8>>) -> Result<Option<Known>, StoreError> {
        row.map_or(Ok(None), |row| or_anew(Known::decode(&row).map(Some), || None))
    }

    pub(super) fn decode(row: &[u8]) -> Result<Known, StoreError> {
        let row = Fields::of(row, "the lease")?;
        let lease = |field: &str| -> Result<Option<Lease>, StoreError> {
            let lease = row.row_if_any(field)?;
            let decode = |lease: Fields<'_>| {
                Ok(Lease { number: lease.int64("number")?, nonce: lease.text("nonce")?.to_owned() })
            };
            lease.map(decode).transpose()
        };
        let confirmed = lease("confirmed")?;
        // Rows of earlier versions, which had no seals, do not count.
        let rounds = row.int64_if_any("rounds")?.or(confirmed.as_ref().map(|lease| lease.number));
        Ok(Known {
            node: row.text("node")?.to_owned(),
            confirmed,
            proposed: lease("proposed")?,
            seal: lease("seal")?,
            process: row.text_if_any("process")?.map(str::to_owned),
            rounds: rounds.unwrap_or_default(),
        })
    }

    fn encode(&self) -> Document {
        let mut row = doc! {"node": &self.node, "rounds": self.rounds};
        let leases = [("confirmed", &self.confirmed), ("proposed", &self.proposed), ("seal", &self.seal)];
        for (field, lease) in leases {
            if let Some(lease) = lease {
                row.insert(field, doc! {"number": lease.number, "nonce": &lease.nonce});
            }
        }
        row.extend(self.process.clone().map(|process| ("process".to_owned(), process.into())));
        row
    }
}

/// The node's id at the centre, once it has one.
pub(crate) fn node_id(snapshot: &Snapshot) -> Result<Option<String>, StoreError> {
    Ok(Known::in_row(snapshot.meta_row(META_LEASE)?)?.map(|known| known.node))
}

/// How many rounds have taken their lease.
pub(crate) fn rounds(snapshot: &Snapshot) -> Result<i64, StoreError> {
    Ok(Known::in_row(snapshot.meta_row(META_LEASE)?)?.map_or(0, |known| known.rounds))
}

/// [`rounds`] in a write transaction.
pub(super) fn rounds_in(tx: &Tx<'_>) -> Result<i64, StoreError> {
    Ok(Known::in_row(tx.meta_row(META_LEASE)?)?.map_or(0, |known| known.rounds))
}

/// Ids that this store had at the centre before it was copied, or set back to an image, and those of its other images.
const META_FORMER: &str = "former_nodes";
/// Former ids that are remembered.
const FORMER_MAX: usize = 16;

/// Whether the node has had this id at the centre, see [`META_FORMER`].
pub(super) fn was_called(tx: &Tx<'_>, node: &str) -> Result<bool, StoreError> {
    Ok(former_in(tx)?.iter().any(|id| id == node))
}

pub(super) fn former_in(tx: &Tx<'_>) -> Result<Vec<String>, StoreError> {
    former_of(tx.meta_row(META_FORMER)?)
}

/// The ids that the node has had, as far as they are remembered.
pub(super) fn former(snapshot: &Snapshot) -> Result<Vec<String>, StoreError> {
    former_of(snapshot.meta_row(META_FORMER)?)
}

/// None if the row cannot be read: rows of former ids count as those of others then, and nothing is answered in them.
fn former_of(row: Option<Vec<u8>>) -> Result<Vec<String>, StoreError> {
    row.map_or(Ok(Vec::new()), |row| or_anew(decode_former(&row), Vec::new))
}

pub(super) fn decode_former(row: &[u8]) -> Result<Vec<String>, StoreError> {
    Fields::of(row, "the former ids of the node")?.texts("ids")
}

/// The node is about to get another id; it has had these, its last one at the end.
fn note_former(tx: &mut Tx<'_>, former: &[String]) -> Result<(), StoreError> {
    let mut ids = former_in(tx)?;
    ids.retain(|id| !former.contains(id));
    ids.extend(former.iter().cloned());
    let ids = ids.split_off(ids.len().saturating_sub(FORMER_MAX));
    tx.set_meta(META_FORMER, Some(&doc! {"ids": ids}))
}

/// [`node_id`] in a write transaction.
pub(crate) fn node_id_in(tx: &Tx<'_>) -> Result<Option<String>, StoreError> {
    Ok(Known::in_row(tx.meta_row(META_LEASE)?)?.map(|known| known.node))
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
        let mut expected: Vec<Lease> = known.confirmed.iter().chain(&known.seal).cloned().collect();
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
                confirm(store, known, &proposed, audit, central.process()).await?;
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
                return Err(CentralError::Failed(message.into()).into());
            }
            LeaseAnswer::Other(_) => {
                tracing::warn!(old = %known.node, "this store is a copy of another node's: enrolling as a new node");
                let of_store = store.read()?.store_id()?;
                let rows = central.node_rows(&known.node, of_store.as_deref()).await?;
                enrol_anew(store, rows).await?;
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
            let mut known = match Known::in_row(tx.meta_row(META_LEASE)?)? {
                Some(known) => known,
                // An image of this store that was made before finds its way to the same row.
                None => match tx.store_id()? {
                    Some(node) => Known { node, ..fresh.clone() },
                    None => fresh.clone(),
                },
            };
            if known.proposed.is_none() {
                known.proposed = Some(Lease { number: known.next_number(), nonce: nonce.clone() });
                tx.set_meta(META_LEASE, Some(&known.encode()))?;
            }
            // The centre that gives a lease still has what happened before.
            begin_seal(tx)?;
            Ok(known)
        })
        .await
}

/// What has happened with the centre until now is covered by what is about to be sent.
fn begin_seal(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    tx.begin_seal()?;
    position::begin_seal(tx)
}

/// Seals what was sent and taken under the lease `held`: once the centre has the seal, the writes that landed are
/// settled. `process` is the server process that gave the lease. Returns the lease from now on.
pub(crate) async fn seal(
    store: &Store,
    central: &mut dyn Central,
    held: &Lease,
    process: Option<&str>,
    announcement: &Document,
    is_echo_due: bool,
) -> Result<Lease, RoundError> {
    let nonce = flaw::fresh_id().simple().to_string();
    let (sealed, named) = (held.clone(), announcement.clone());
    let known = store
        .transact(move |tx| -> Result<Option<Known>, StoreError> {
            let known = Known::in_row(tx.meta_row(META_LEASE)?)?;
            let Some(mut known) = known.filter(|known| known.confirmed.as_ref() == Some(&sealed)) else {
                return Ok(None);
            };
            known.seal = Some(Lease { number: known.next_number(), nonce: nonce.clone() });
            tx.set_meta(META_LEASE, Some(&known.encode()))?;
            begin_seal(tx)?;
            tx.tell_boots(&named)?;
            Ok(Some(known))
        })
        .await?;
    step("seal.proposed");
    let Some((mut known, seal)) = known.and_then(|known| known.seal.clone().map(|seal| (known, seal))) else {
        return Err(RoundError::LeaseLost);
    };
    let answer = central.take_lease(&known.node, std::slice::from_ref(held), &seal, announcement).await?;
    step("seal.taken");
    // Another process may have forgotten what the first one acknowledged, and given the seal all the same.
    if answer != LeaseAnswer::Taken || central.process().as_deref() != process {
        return Err(RoundError::LeaseLost);
    }
    (known.confirmed, known.seal) = (Some(seal.clone()), None);
    let (row, number) = (known.encode(), held.number);
    // The next round would find the seal at the centre, and settle what is left.
    while store.transact(move |tx| tx.settle_sealed(number, is_echo_due)).await? {}
    store
        .transact(move |tx| -> Result<(), StoreError> {
            tx.set_meta(META_LEASE, Some(&row))?;
            tx.complete_seal(number, is_echo_due)?;
            tx.boots_told()?;
            position::complete_seal(tx)
        })
        .await?;
    step("seal.settled");
    Ok(seal)
}

/// This store goes on as a new node. It keeps its records, their bases and what was edited; of the centre's
/// history, and of what was sent under the old name, it knows nothing any more.
///
/// If it is an old image, edits that wait in it may have been delivered since it was made, under the old name or under
/// others that images of this store have had. The `rows` of these names in `edge_nodes` tell: such edits are not new. And
/// conflicts that were published under these names are this node's again, see [`mod@former`].
async fn enrol_anew(store: &Store, rows: Vec<Document>) -> Result<(), StoreError> {
    let row = Known::fresh().encode();
    let delivered: Vec<Delivered> = rows.iter().map(Delivered::of_row).collect();
    let named: Vec<String> =
        rows.iter().filter_map(|row| row.get_str("_id").ok()).map(str::to_owned).collect();
    store
        .transact(move |tx| -> Result<(), StoreError> {
            let former: Vec<String> = named.iter().cloned().chain(node_id_in(tx)?).collect();
            note_former(tx, &former)?;
            former::begin(tx, &former)?;
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
            tx.doubt_unsealed()?;
            if !planted(Flaw::DeliveredIgnored) {
                tx.settle_delivered(&delivered)?;
            }
            position::lose_history(tx, reason)
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
    process: Option<String>,
) -> Result<(), StoreError> {
    let before = known.confirmed_number();
    let is_known = process.is_some() && known.process.is_some();
    let is_same_process = is_known && process == known.process;
    (known.confirmed, known.proposed, known.seal) = (Some(proposed.clone()), None, None);
    (known.process, known.rounds) = (process, known.rounds + 1);
    let row = known.encode();
    store
        .transact(move |tx| -> Result<(), StoreError> {
            if tx.meta(META_REVOKED)?.is_some() {
                tx.set_meta(META_REVOKED, None)?;
            }
            tx.set_meta(META_LEASE, Some(&row))?;
            tx.forget_unsent_versions()?;
            if let Some(head) = &audit {
                tx.acknowledge_audit(head)?;
            }
            if let Some(restored) = restore::settle(tx)? {
                tx.doubt_unsealed()?;
                bring_together(tx, restored)?;
                position::lose_history(tx, Reason::Restored)
            } else if is_same_process
                || planted(Flaw::UnsealedTrusted)
                // Where processes are not told apart, only what is open counts.
                || (!is_known && !tx.is_seal_due()?)
            {
                // The row is to say that they are delivered.
                for key in tx.complete_seal(before, true)? {
                    tx.note_taken(&key)?;
                }
                position::complete_seal(tx)
            } else {
                doubt_unsealed(tx, before)
            }
        })
        .await
}

/// Another server process answers than the one that was told of and gave what is not sealed. It may have forgotten
/// that, or be a copy.
fn doubt_unsealed(tx: &mut Tx<'_>, lease: i64) -> Result<(), StoreError> {
    match tx.doubt_unsealed()? {
        Taken::All => {
            bring_together(tx, lease)?;
            position::lose_history(tx, Reason::Restored)
        }
        Taken::Records(records) => {
            if !records.is_empty() {
                content_tidy::look_again_soon(tx)?;
            }
            tx.resync(&records)?;
            position::return_to_seal(tx)
        }
    }
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
