//! Floor 4. Who may know of what waits for a decision: conflicts and questions about people.
//!
//! One rule for every path: an account knows of it, and decides it, only if it may read each record that it is about.
//!
//! | what | it is for |
//! |---|---|
//! | a conflict between two values of a record | accounts that may read the record, and everybody's whose versions or values are in it |
//! | a question about two people, or two records under one id | accounts that may read everybody's records of that kind |
//! | all of these | the operator of the machine, who decides where nobody else can |
//!
//! Refused and waiting records are listed without a body, for those who look after the node (`sync` with `global`).
//!
//! Everybody else gets the answer for what does not exist, with the same status, headers and text. Whose a conflict is
//! stands in short notes beside it ([`crate::store::NotedOwner`]), which are asked before the conflict is read. So what is
//! hidden costs no more work than what does not exist.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::domain::access::{Acl, Principal, Scope};
use crate::domain::record::{Kind, fold_account};
use crate::domain::schema::Owner;
use crate::http::access::caller::Caller;
use crate::http::access::kept_values::{is_operator, may_read_all, may_read_kept};
use crate::http::error::{ApiError, PeopleQuestion};
use crate::http::state::app_state::AppState;
use crate::http::sync::conflict_view::{self, ConflictView};
use crate::http::workload;
use crate::store::{ConflictStatus, DamagedRow, Snapshot, StoreError, Subject};

const ABSENT: &str = "There is no such conflict";

/// The answer for a conflict that does not exist.
pub(crate) fn absent() -> ApiError {
    ApiError::NotFound(ABSENT.into())
}

/// The same answer, noted in the audit trail as a refusal.
pub(crate) fn hidden() -> ApiError {
    ApiError::Hidden(ABSENT.into())
}

/// Whether the caller may know of a question about people, or of records of this kind.
fn may_know_of_all(node: &AppState, caller: &Caller, kind: Kind) -> bool {
    may_read_all(&node.acl(), &caller.principal, kind)
}

/// An account and what it may know, over one view of the store.
pub(crate) struct ConflictReader<'a> {
    node: &'a AppState,
    acl: Arc<Acl>,
    who: &'a Principal,
    view: &'a Snapshot,
}

impl<'a> ConflictReader<'a> {
    pub(crate) fn new(node: &'a AppState, caller: &'a Caller, view: &'a Snapshot) -> ConflictReader<'a> {
        ConflictReader { node, acl: node.acl(), who: &caller.principal, view }
    }

    /// Whether the account may know of questions about two people, and of accounts that two records have.
    pub(crate) fn may_know_people(&self) -> bool {
        may_read_all(&self.acl, self.who, Kind::Person)
    }

    fn may_read(&self, kind: Kind, owner: Option<&str>) -> bool {
        self.acl.may_read(self.who, kind, owner)
    }

    /// Whether the notes of a conflict leave it possible that the account may know of it. Reads nothing of the conflict.
    /// True for one that does not exist.
    pub(crate) fn may_know_noted(&self, id: &str) -> Result<bool, StoreError> {
        if is_operator(self.who) {
            return Ok(true);
        }
        let Some(about) = self.view.conflict_about(id)? else {
            return Ok(true);
        };
        let (kind, record) = (about.key.kind, about.key.id.as_str());
        if self.may_read(kind, None) {
            return Ok(true);
        }
        if about.subject != Subject::Value {
            return Ok(false);
        }
        let now = match kind.schema().owner {
            Owner::Itself => Some(fold_account(record)),
            Owner::Nobody => return Ok(false),
            Owner::Field(_) => match self.view.noted_owner(kind, record)? {
                Some(noted) => match noted.account() {
                    Some(account) => Some(account.to_owned()),
                    // The record names nobody, so it is only for those who may read everybody's.
                    None => return Ok(false),
                },
                None => None,
            },
        };
        let owners: Vec<&str> = [now.as_deref(), about.owner.account()].into_iter().flatten().collect();
        Ok(!owners.is_empty() && owners.into_iter().all(|owner| self.may_read(kind, Some(owner))))
    }

    /// Whether the account may know of a conflict.
    pub(crate) fn may_know(&self, conflict: &ConflictView<'_>) -> Result<bool, StoreError> {
        let (head, owner) = (conflict.head, conflict.owner());
        let (owner, kind) = (owner.as_deref(), head.key.kind);
        if is_operator(self.who) || self.may_read(kind, None) {
            return Ok(true);
        }
        // Two records show two people.
        if head.subject != Subject::Value || !self.may_read(kind, owner) {
            return Ok(false);
        }
        // So may the versions of one: an id may have come to be another one's record.
        if conflict.owners().iter().any(|owner| !self.may_read(kind, Some(owner))) {
            return Ok(false);
        }
        // Values that clashed belong to the owner of that time, who may be another one than who has the account now.
        let before = head.owner.as_deref().filter(|_| kind.schema().owner != Owner::Nobody);
        let Some(before) = before else {
            return Ok(kind.schema().owner == Owner::Nobody);
        };
        let is_readable = before.is_empty() || owner == Some(before) || self.may_read(kind, Some(before));
        Ok(is_readable && may_read_kept(self.view, &self.acl, self.who, kind, head.whose(before).as_ref())?)
    }

    /// [`hidden`] for a conflict that the account may not know of, [`absent`] for one that does not exist. Decodes none of
    /// its values.
    pub(crate) fn check(&self, id: &str) -> Result<(), ApiError> {
        if !self.may_know_noted(id)? {
            return Err(hidden());
        }
        match conflict_view::visit(self.node, self.view, id, None, |conflict| self.may_know(conflict))? {
            None => Err(absent()),
            Some(may_know) => may_know?.then_some(()).ok_or_else(hidden),
        }
    }

    /// Ids of the conflicts with this status, oldest first, that the notes let the account know of; after the place `after`.
    pub(crate) fn ids(
        &self,
        status: Option<ConflictStatus>,
        after: Option<(i64, &str)>,
    ) -> Result<Vec<String>, StoreError> {
        self.view.conflict_ids_where(status, after, |id| self.may_know_noted(id))
    }

    /// How many open conflicts the account may know of: as many as its list has.
    fn open_count(&self) -> Result<u64, ApiError> {
        let mut count = if self.may_know_people() { self.view.standing_questions_count()? } else { 0 };
        for id in self.ids(Some(ConflictStatus::Open), None)? {
            let known =
                conflict_view::visit(self.node, self.view, &id, Some(0), |conflict| self.may_know(conflict))?;
            count += u64::from(known.transpose()?.unwrap_or(false));
        }
        Ok(count)
    }

    /// Those of the damaged rows that a list may count for the account.
    pub(crate) fn damaged(&self, rows: Vec<DamagedRow>) -> Result<Vec<DamagedRow>, StoreError> {
        let mut known = Vec::new();
        for row in rows {
            let is_noted = row.table == "conflict" && self.view.conflict_about(&row.id)?.is_some();
            let may_know = match row.kind {
                _ if is_noted => self.may_know_noted(&row.id)?,
                Some(kind) => may_read_all(&self.acl, self.who, kind),
                // Nobody knows what it is about.
                None => self.may_know_people(),
            };
            if may_know {
                known.push(row);
            }
        }
        Ok(known)
    }
}

/// Fields of the status, and of the report of a round, that tell nothing of what waits for a decision.
const STATUS_OF_NODE: [&str; 9] = [
    "node",
    "state",
    "outcome",
    "change_feed",
    "last_complete_at",
    "next_round_at",
    "storage_full",
    "logins_until",
    "emergencies_unreviewed",
];

/// What an account sees of the status of the synchronization, or of the report of a round. Without a role that uses `sync` for
/// everybody it sees how the node stands, and of what waits only how many conflicts it may know of. What it does itself must not
/// show what others do, so there is no count over all people.
pub(crate) async fn status_for(
    node: &Arc<AppState>,
    caller: &Caller,
    scope: Scope,
    mut status: Value,
) -> Result<Value, ApiError> {
    if scope == Scope::Everyone {
        return Ok(status);
    }
    if let Value::Object(fields) = &mut status {
        fields.retain(|name, _| STATUS_OF_NODE.contains(&name.as_str()));
    }
    // It takes as long as the list.
    let work = workload::take_for_rows(node, caller).await?;
    let (node, caller) = (Arc::clone(node), caller.clone());
    let counted = tokio::task::spawn_blocking(move || {
        let view = node.store.read()?;
        ConflictReader::new(&node, &caller, &view).open_count()
    });
    status["conflicts_open"] = json!(counted.await.map_err(|_| ApiError::Internal)??);
    drop(work);
    Ok(status)
}

/// The answer as this account may see it. That another person has an account is for those who may read everybody: others learn
/// that the change is not possible now.
pub(crate) fn without_questions(node: &AppState, caller: &Caller, response: Response) -> Response {
    let names_question = response.extensions().get::<PeopleQuestion>().is_some();
    if !names_question || may_know_of_all(node, caller, Kind::Person) {
        return response;
    }
    let message = "This cannot be changed now. Ask those who run this node";
    ApiError::Conflict { message: message.into(), current: Value::Null }.into_response()
}
