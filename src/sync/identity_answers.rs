//! Floor 3. Answers about identities: that two people under one account are one is decided at one node and holds at
//! all others that ask the same.
//!
//! A hold is a node's own, so its conflict has an id of its own. The *question* is the same everywhere: the account, and
//! the identities of the two people, folded, in whatever order, and the version of the folding. The answer "same" is a row
//! of `edge_conflicts` under the id of the question. A node asks for it together with the decisions about its open
//! conflicts, and takes it only if the identities in the row are those of its own two people. That two people are two is
//! never taken from a row.

use bson::{Bson, Document, doc};

use super::conflict_rows::{from_centre, in_row};
use super::doubt::first_question;
use super::identity::settle_same;
use super::round::Tally;
use crate::domain::access::Actor;
use crate::domain::audit::{Event, What};
use crate::domain::folding::FOLDING_VERSION;
use crate::domain::merge::{IDENTITY_FIELDS, identity_of, is_unknown};
use crate::domain::record::Kind;
use crate::domain::record::fold_account;
use crate::domain::schema::Schema;
use crate::store::{Conflict, Hold, Snapshot, StoreError, Tx, unless_damaged};

/// Resolution of an identity conflict whose two people are one.
pub(super) const SAME: &str = "same";
/// Longest name of a decider that is taken from a row.
const NAME_CHARS_MAX: usize = 200;

/// A question that a node waits to be answered.
pub(super) struct Question {
    /// `_id` of the row with the answer.
    pub(super) id: String,
    pub(super) account: String,
}

/// The questions of all holds.
pub(super) fn open_questions(snapshot: &Snapshot) -> Result<Vec<Question>, StoreError> {
    if snapshot.holds_count()? == 0 {
        return Ok(Vec::new());
    }
    let mut questions = Vec::new();
    for hold in snapshot.holds()? {
        // Where a row is damaged nobody can say who they are, and nothing is asked.
        let local = unless_damaged(
            snapshot.visit_record(&hold.local_key(), |record| record.map(Document::try_from).transpose()),
        )?;
        let local = local.transpose().map_err(|e| StoreError::Damaged(e.to_string()))?.flatten();
        let is_there = unless_damaged(snapshot.held(&hold.remote_key()))?.flatten().is_some();
        let central = unless_damaged(snapshot.other_person(&hold))?.flatten().filter(|_| is_there);
        if let (Some(local), Some(central)) = (local, central)
            && !is_unknown(&local)
            && !is_unknown(&central)
        {
            let id = question_id(&hold.account, &identity_of(&local), &identity_of(&central))?;
            questions.extend(id.map(|id| Question { id, account: hold.account }));
        }
    }
    Ok(questions)
}

/// Names the question whether two people under an account are one; `None` if nothing is known of one of them, because
/// then the question would be about anybody.
fn question_id(account: &str, a: &Document, b: &Document) -> Result<Option<String>, StoreError> {
    if a.is_empty() || b.is_empty() {
        return Ok(None);
    }
    let [a, b] = in_order(a, b);
    // Nodes that fold otherwise do not understand each other's answers, and ask their own people.
    let folding = i64::from(FOLDING_VERSION);
    let named = doc! {"type": "question", "folding": folding, "account": account, "identities": [a, b]};
    Conflict::named(&named).map(Some)
}

/// Two identities, in an order that does not depend on who is local.
fn in_order<'a>(a: &'a Document, b: &'a Document) -> [&'a Document; 2] {
    let key =
        |person: &Document| IDENTITY_FIELDS.map(|field| person.get_str(field).unwrap_or_default().to_owned());
    if key(a) <= key(b) { [a, b] } else { [b, a] }
}

/// The two people of an identity conflict.
fn people(conflict: &Conflict) -> Option<[&Document; 2]> {
    let people = [conflict.local.as_ref()?.as_document()?, conflict.central.as_ref()?.as_document()?];
    // An answer about somebody of whom nothing is known would be about anybody.
    (!people.into_iter().any(is_unknown)).then_some(people)
}

/// The id of the question that an identity conflict asks.
pub(super) fn question_of(conflict: &Conflict) -> Result<Option<String>, StoreError> {
    match people(conflict) {
        Some([local, central]) if conflict.is_identity() => {
            question_id(&fold_account(&conflict.key.id), &identity_of(local), &identity_of(central))
        }
        _ => Ok(None),
    }
}

/// The row that tells other nodes that the two people of this conflict are one; `None` if that was not decided.
pub(super) fn answer_row(conflict: &Conflict, node: &str) -> Result<Option<Document>, StoreError> {
    if conflict.resolution.as_deref() != Some(SAME) {
        return Ok(None);
    }
    let (Some(question), Some(people)) = (question_of(conflict)?, people(conflict)) else {
        return Ok(None);
    };
    let schema: &Schema = Kind::Person.schema();
    let shown = |person: &Document| -> Document {
        let fields = IDENTITY_FIELDS.into_iter();
        fields.filter_map(|field| person.get(field).map(|value| (field.to_owned(), value.clone()))).collect()
    };
    Ok(Some(doc! {
        "_id": &question,
        "type": "identity_answer",
        "collection": schema.collection,
        "id": fold_account(&conflict.key.id),
        "identities": people.map(shown).to_vec(),
        "status": conflict.status.name(),
        "resolution": SAME,
        "resolved_by": in_row(conflict.resolved_by.as_deref().unwrap_or_default()),
        "applied_by": node,
        "node": node,
        "conflict": &conflict.id,
    }))
}

/// Unites the two people of a hold if the row is an answer to its question. Everything in the row may be forged, so
/// nothing is taken from it but that these two identities are one, and who said so.
pub(super) fn take_answer(tx: &mut Tx<'_>, question: &Question, row: &Document) -> Result<(), StoreError> {
    let text = |field: &str| row.get_str(field).unwrap_or_default();
    let is_answer =
        text("resolution") == SAME && text("status") == "resolved" && row.contains_key("applied_by");
    let Some(hold) = tx.hold(&question.account)?.filter(|_| is_answer) else {
        return Ok(());
    };
    // If another question comes first by now, the row is no answer to that.
    let hold = first_question(tx, hold, &mut Tally::default())?;
    if tx.damage(&hold.local_key())?.is_some() || tx.held(&hold.remote_key())?.is_none() {
        return Ok(());
    }
    let (Some(local), Some(central)) = (tx.document(&hold.local_key())?, tx.other_person(&hold)?) else {
        return Ok(());
    };
    if is_unknown(&local) || is_unknown(&central) || !names_both(row, &hold, &local, &central)? {
        return Ok(());
    }
    let Some(mut conflict) = tx.conflict(&hold.conflict)? else {
        return Ok(());
    };
    let by: String = text("resolved_by").chars().take(NAME_CHARS_MAX).collect();
    let by = from_centre(&by);
    settle_same(tx, &mut conflict, &hold, &local, &central, &Actor::Centre, &by)?;
    let collection = Kind::Person.schema().collection;
    let event = Event::new(What::Decision, &Actor::Centre).at(tx.asked_from());
    let event = event.about(collection, &conflict.key.id, Some(&hold.account));
    tx.audit(event.saying(&format!("{SAME}, decided by {by} on node {}", text("applied_by"))))
}

/// Whether the row is about this account and names the identities of both people, and no others.
fn names_both(row: &Document, hold: &Hold, local: &Document, central: &Document) -> Result<bool, StoreError> {
    let Ok([Bson::Document(a), Bson::Document(b)]) = row.get_array("identities").map(Vec::as_slice) else {
        return Ok(false);
    };
    let named = question_id(&hold.account, &identity_of(a), &identity_of(b))?;
    let own = question_id(&hold.account, &identity_of(local), &identity_of(central))?;
    let id = row.get_str("_id").ok();
    Ok(named.is_some() && named == own && own.as_deref() == id)
}
