//! Floor 5. What `doctor` says of people who have a password and whose records do not say `active: true`.

use serde_json::Value;

use super::findings::Findings;
use crate::cli::terminal::show::cell;

const ABOUT: &str = "inactive accounts";
const EXAMPLES_MAX: usize = 5;

/// The first few of `texts`.
fn some_of(texts: Vec<String>) -> String {
    let more = texts.len().saturating_sub(EXAMPLES_MAX);
    let shown = texts.into_iter().take(EXAMPLES_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// The ids of the first few.
pub(super) fn some_ids(users: &[&Value]) -> String {
    some_of(users.iter().map(|user| cell(&user["id"])).collect())
}

/// `users` as `GET /users` lists them, with `became_inactive` and `came_from` of those who are asked about there.
pub(super) fn look(found: &mut Findings, users: &[Value]) {
    came_inactive(found, users);
    for (is_open, is_closed_here, words) in [
        (false, false, ", and counts as false"),
        (false, true, "; they were closed here"),
        (true, false, ", and is not looked at, as `active_from_centre` says: they log in"),
    ] {
        odd_values(found, users, (is_open, is_closed_here), words);
    }
}

/// By where it comes from that they are inactive.
fn came_inactive(found: &mut Findings, users: &[Value]) {
    let came = |user: &&Value| user["closed_here"] == false && user["is_account"].is_null();
    let came: Vec<_> = users.iter().filter(came).collect();
    let (ignored, shut): (Vec<_>, Vec<_>) = came.into_iter().partition(|user| user["active"] == true);
    let (elsewhere, shut): (Vec<_>, Vec<_>) =
        shut.into_iter().partition(|user| user["became_inactive"] == true);
    if !elsewhere.is_empty() {
        let (count, ids) = (elsewhere.len(), some_ids(&elsewhere));
        found.ok(ABOUT, format!("{count} came open and were closed elsewhere since: {ids}"));
    }
    let here = users.iter().filter(|user| user["closed_here"] == true).count();
    let opened: Vec<_> = users.iter().filter(|user| user["opened_elsewhere"] == true).collect();
    if !opened.is_empty() {
        let (count, ids) = (opened.len(), some_ids(&opened));
        let said = "were closed here and opened elsewhere since, and stay closed on this node";
        found.ok(
            ABOUT,
            format!("{count} {said}: {ids} (`thalamus-edge user enable ACCOUNT` opens one here too)"),
        );
    }
    if !shut.is_empty() {
        found.warning(
            ABOUT,
            format!(
                "{} people have a password and cannot log in, because their records came inactive: {}",
                shut.len(),
                origins(&shut)
            ),
            "thalamus-edge user enable --all-inactive --dry-run; where a hub makes them so: [accounts] active_from_centre",
        );
    } else if !ignored.is_empty() {
        let count = ignored.len();
        found.ok(
            ABOUT,
            format!("{count} that came so log in, as `active_from_centre` says; {here} were closed here"),
        );
    } else if here > 0 {
        found.ok(ABOUT, format!("{here} were closed here"));
    }
}

/// Counts and ids of those who came inactive, by where they came from.
fn origins(shut: &[&Value]) -> String {
    let kinds = [
        (Some("centre"), "from the centre"),
        (Some("import"), "by an import"),
        (None, "of whom the journal no longer tells, so somebody may have closed them elsewhere"),
    ];
    let told = kinds.into_iter().filter_map(|(from, words)| {
        let of_kind: Vec<_> =
            shut.iter().copied().filter(|user| user["came_from"].as_str() == from).collect();
        (!of_kind.is_empty()).then(|| format!("{} {words} ({})", of_kind.len(), some_ids(&of_kind)))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Values of `active` that are no booleans, with the people that have them.
fn odd_values(found: &mut Findings, users: &[Value], (is_open, is_closed_here): (bool, bool), words: &str) {
    let is_of_kind = |user: &&Value| {
        user["active_stored"].is_string()
            && (user["active"] == true) == is_open
            && (user["closed_here"] == true) == is_closed_here
    };
    let named = |user: &Value| format!("{} (as {})", cell(&user["id"]), cell(&user["active_stored"]));
    let odd: Vec<_> = users.iter().filter(is_of_kind).map(named).collect();
    if !odd.is_empty() {
        found.warning(
            ABOUT,
            format!("`active` is neither true nor false{words}: {}", some_of(odd)),
            "thalamus-edge user enable ACCOUNT, or user disable ACCOUNT",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_came_inactive_is_told_by_origin() {
        let user = |id: &str, from: Option<&str>, is_later: Option<bool>| json!({"id": id, "active": false, "closed_here": false, "came_from": from, "became_inactive": is_later});
        let users = [
            user("CAME01", Some("centre"), Some(false)),
            user("CAME02", Some("centre"), Some(false)),
            user("FILE01", Some("import"), Some(false)),
            user("PAST01", None, None),
            user("ELSE01", Some("centre"), Some(true)),
        ];
        let mut found = Findings::default();
        look(&mut found, &users);
        let said: Vec<_> = found.0.iter().map(|finding| finding.finding.as_str()).collect();
        assert_eq!(
            said,
            [
                "1 came open and were closed elsewhere since: ELSE01",
                "4 people have a password and cannot log in, because their records came inactive: 2 from the centre (CAME01, \
                 CAME02), 1 by an import (FILE01), 1 of whom the journal no longer tells, so somebody may have closed them \
                 elsewhere (PAST01)",
            ]
        );
    }
}
