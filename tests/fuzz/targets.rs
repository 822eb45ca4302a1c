//! What no bytes may do to the program, by the reader or the rules that they reach: each target takes any bytes
//! and panics where a property is broken.
//!
//! `tests/fuzz/run` feeds the targets with what libFuzzer finds, `tests/fuzz_targets.rs` with the seeds in
//! `corpus/` and mutations of them.

#[path = "../support/laws.rs"]
mod laws;

use std::collections::BTreeSet;
use std::io::BufReader;
use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use serde_json::Value;
use thalamus_edge::cli::ndjson::{Documents, Place, Text, Wrong, read_document};
use thalamus_edge::domain::access::{Acl, Actor, BUILT_IN_ROLES, END_USER, Principal, Scope, Target, Verb};
use thalamus_edge::domain::content::{Content, names_within};
use thalamus_edge::domain::depth::{CENTRE_DEPTH_MAX, is_deeper_than};
use thalamus_edge::domain::diff::{Diff, changed_paths, diff};
use thalamus_edge::domain::edit::{Editor, Invalid, create, patch, replace};
use thalamus_edge::domain::exported::layout::{escapes_of, layout_of, may_be_copied};
use thalamus_edge::domain::exported::{Cell, copy, csv, take_row};
use thalamus_edge::domain::folding::fold_name;
use thalamus_edge::domain::json::{DOCUMENT_DEPTH_MAX, DateFormat, Shown, parse_object, show_value};
use thalamus_edge::domain::merge::{identity_differences, is_other_person, merge};
use thalamus_edge::domain::rebuild::{OwnWrite, rebuilt_base};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::domain::schema::{NODE_ACL_NAMES, Owner, SCHEMAS, Schema};
use thalamus_edge::domain::value::{identical, same_option};
use thalamus_edge::http::basic_credentials;

/// Takes any bytes and panics where a promise is broken.
pub(crate) type Harness = fn(&[u8]);

pub(crate) const TARGETS: [(&str, Harness); 5] = [
    ("authorization", authorization),
    ("central", central),
    ("import", import),
    ("json", json),
    ("roles", roles),
];

/// Stands between the texts of an input, as in JSON text sequences (RFC 7464).
const SEPARATOR: u8 = 0x1e;
/// An id that every kind of record takes, and a person that a path may name.
const ID: &str = "ESPGNU777ORG";
const PERSON: &str = "ITAPYT999HON";

/// Kinds whose rows of the schema table differ in more than the owner's field; the others are like pages.
const UNLIKE: [Kind; 3] = [Kind::Person, Kind::Page, Kind::PersonalDocument];

static ACL: LazyLock<Acl> = LazyLock::new(Acl::built_in);

fn editor(is_root: bool) -> Editor<'static> {
    Editor { acl: &ACL, is_root }
}

fn same_bytes(a: &Document, b: &Document) -> bool {
    identical(&Bson::Document(a.clone()), &Bson::Document(b.clone()))
}

/// What is accepted can be stored, and is read as what it was.
fn survives_storage(document: &Document) {
    let bytes = document.to_vec().expect("an accepted document is BSON");
    let read = Document::from_reader(&bytes[..]).expect("what was written can be read");
    assert!(same_bytes(&read, document), "{document:?} {read:?}");
}

/// Reading a record and writing it back changes no byte of it, and needs no right to change anything.
fn writing_back_changes_nothing(schema: &Schema, stored: &Document) {
    let raw = RawDocumentBuf::try_from(stored).expect("a stored document is BSON");
    for dates in [DateFormat::Http, DateFormat::Rfc3339] {
        let shown = Shown { document: &raw, dates, hidden: schema.secret_fields };
        let shown = serde_json::to_vec(&shown).expect("a record can be shown");
        let body = parse_object(&shown).expect("what is shown can be sent");
        for secret in schema.secret_fields {
            assert!(!body.contains_key(*secret), "{secret} is shown");
        }
        let written = replace(schema, stored, &Document::new(), &body, editor(false))
            .expect("what is shown is accepted");
        assert!(same_bytes(&written, stored), "{stored:?} {written:?}");
    }
}

/// What has no second half is taken twice.
fn two_texts(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == SEPARATOR) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, input),
    }
}

// --------------------------------------------------------------------------------------------------- json

/// A stored record as `mongoexport` writes it, and a body that a client sends.
fn json(input: &[u8]) {
    let (record, sent) = two_texts(input);
    let Ok(body) = parse_object(sent) else {
        return;
    };
    let again = serde_json::to_vec(&body).expect("JSON can be written");
    assert_eq!(parse_object(&again), Ok(body.clone()), "what was read is written as something else");
    let record = Text { place: Place { line: 1, column: 1 }, bytes: record.to_vec() };
    for schema in &SCHEMAS {
        for is_root in [false, true] {
            for path_owner in [None, Some(PERSON)] {
                if let Ok(made) = create(schema, ID, path_owner, &body, editor(is_root)) {
                    check_created(schema, &made, path_owner, is_root);
                }
            }
            let Ok(stored) = read_document(schema.kind, &record) else {
                continue;
            };
            writing_back_changes_nothing(schema, &stored);
            let patched = patch(schema, &stored, &Document::new(), &body, editor(is_root));
            // An element of an array takes its type from where it stands or from its like, so which one it is
            // may change with the first request.
            if let (Ok(once), false) = (&patched, sent.contains(&b'[')) {
                let twice = patch(schema, once, &Document::new(), &body, editor(is_root))
                    .expect("a request may be repeated");
                assert!(same_bytes(once, &twice), "{once:?} {twice:?}");
            }
            check_edited(schema, &stored, patched, is_root);
            check_edited(
                schema,
                &stored,
                replace(schema, &stored, &Document::new(), &body, editor(is_root)),
                is_root,
            );
        }
    }
}

fn check_created(schema: &Schema, made: &Document, path_owner: Option<&str>, is_root: bool) {
    survives_storage(made);
    writing_back_changes_nothing(schema, made);
    assert_eq!(made.get_str("_id").ok(), Some(ID));
    assert_eq!(Content::of(schema.kind, made), None, "bytes are claimed that nobody uploaded");
    if let (Owner::Field(_), Some(person)) = (schema.owner, path_owner) {
        assert_eq!(schema.owner_of(made).as_deref(), Some(person));
    }
    if schema.kind == Kind::Person && !is_root {
        assert_eq!(made.get("roles"), Some(&Bson::from(vec![END_USER])), "a role that root did not give");
    }
}

fn check_edited(schema: &Schema, stored: &Document, edited: Result<Document, Invalid>, is_root: bool) {
    let Ok(edited) = edited else {
        return;
    };
    survives_storage(&edited);
    writing_back_changes_nothing(schema, &edited);
    assert!(same_option(edited.get("_id"), stored.get("_id")));
    assert_eq!(schema.owner_of(&edited), schema.owner_of(stored), "a record changed hands");
    assert_eq!(Content::of(schema.kind, &edited), Content::of(schema.kind, stored), "bytes are claimed");
    if schema.kind == Kind::Person && !is_root {
        for field in ["roles", "active"] {
            assert!(same_option(edited.get(field), stored.get(field)), "{field} is root's");
        }
    }
}

// -------------------------------------------------------------------------------------------------- roles

/// `roles.cfg`: nobody gets what does not stand there, but for `root` in a file of Thalamus.
fn roles(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok((acl, _)) = Acl::parse(text) else {
        return;
    };
    let rows: Vec<Value> = serde_json::from_str(text).expect("the rules are JSON");
    let mut names: Vec<&str> = rows.iter().filter_map(|row| row["role"].as_str()).collect();
    assert_eq!(names.len(), rows.len());
    assert!(names.iter().all(|name| acl.knows_role(name)));
    let given = given_to_root(&rows);
    let reach_of = |row: &Value, verb: Verb, name: &str| {
        let is_given = row["role"] == "root" && given.contains(&(verb, name.to_owned()));
        written_reach(row, verb, name).or_else(|| is_given.then(|| reach(row)))
    };
    let unknown = "x".repeat(input.len() + 1);
    assert!(!acl.knows_role(&unknown));
    names.push(&unknown);
    for role in &names {
        let row = rows.iter().find(|row| row["role"] == *role);
        check_reach(&acl, &[role], |verb, name| row.and_then(|row| reach_of(row, verb, name)));
    }
    check_reach(&acl, &[], |_, _| None);
    check_reach(&acl, &names, |verb, name| {
        let reaches = rows.iter().filter_map(|row| reach_of(row, verb, name));
        reaches.max_by_key(|scope| *scope == Scope::Everyone)
    });
}

/// How far a row of the file reaches, read as it stands.
fn written_reach(row: &Value, verb: Verb, name: &str) -> Option<Scope> {
    let is_named = row["permissions"][verb.name()].as_array()?.iter().any(|named| named == name);
    is_named.then(|| reach(row))
}

fn reach(row: &Value) -> Scope {
    let global = &row["permissions"]["global"];
    if *global == true || *global == "True" { Scope::Everyone } else { Scope::Own }
}

/// What `root` is given because no row names any of the group, as in a file of Thalamus: the functions of the node as the
/// node's own rules have them, and documents, units and institutions to read.
fn given_to_root(rows: &[Value]) -> BTreeSet<(Verb, String)> {
    const FUNCTIONS: [&str; 8] =
        ["sync", "conflicts", "changes", "audit", "metrics", "users", "backups", "trash"];
    const READ: [&str; 7] = [
        "personaldocs",
        "personaldoc",
        "poldocs",
        "domiciliaryunits",
        "domiciliaryunit",
        "institutions",
        "institution",
    ];
    let names = |row: &Value, group: &[&str]| {
        Verb::ALL.iter().any(|verb| group.iter().any(|name| written_reach(row, *verb, name).is_some()))
    };
    let own: Vec<Value> = serde_json::from_str(BUILT_IN_ROLES).expect("the node's own rules");
    let own = own.iter().find(|row| row["role"] == "root").expect("root in the node's own rules");
    let mut given = BTreeSet::new();
    if !rows.iter().any(|row| names(row, &FUNCTIONS)) {
        for verb in Verb::ALL {
            let functions = FUNCTIONS.iter().filter(|name| written_reach(own, verb, name).is_some());
            given.extend(functions.map(|name| (verb, (*name).to_owned())));
        }
    }
    if !rows.iter().any(|row| names(row, &READ)) {
        given.extend(READ.iter().map(|name| (Verb::Get, (*name).to_owned())));
    }
    given
}

fn check_reach(acl: &Acl, roles: &[&str], written: impl Fn(Verb, &str) -> Option<Scope>) {
    let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
    let who = Principal::new(Actor::Person(ID.to_owned()), roles);
    let operator = Principal::new(Actor::Operator(0), who.roles.clone());
    let routes = || SCHEMAS.iter().flat_map(|schema| schema.routes.iter().map(move |r| (schema.kind, r.acl)));
    for verb in Verb::ALL {
        for name in NODE_ACL_NAMES.iter().copied().chain(["nothing"]) {
            let expected =
                if (name, verb) == ("login", Verb::Get) { Some(Scope::Own) } else { written(verb, name) };
            assert_eq!(acl.authorize_node(&who, verb, name).ok(), expected, "{verb:?} {name}");
            let is_global = expected == Some(Scope::Everyone);
            assert_eq!(acl.authorize_global(&who, verb, name).is_ok(), is_global, "{verb:?} {name}");
        }
        for (kind, name) in routes() {
            let reach = written(verb, name);
            let (is_anything, is_global) = (reach.is_some(), reach == Some(Scope::Everyone));
            let is_free = kind.schema().owner == Owner::Nobody && verb == Verb::Get && is_anything;
            let cases = [
                (Target::PathPerson("espgnu777org"), is_anything),
                (Target::PathPerson(PERSON), is_global),
                (Target::Record { owner: Some(ID) }, is_anything),
                (Target::Record { owner: Some(PERSON) }, is_global || is_free),
                (Target::Record { owner: None }, is_global || is_free),
            ];
            for (target, expected) in cases {
                let granted = acl.authorize(&who, verb, name, kind, target);
                assert_eq!(granted.is_ok(), expected, "{verb:?} {name} {target:?}");
                assert!(acl.authorize(&operator, verb, name, kind, target).is_err(), "{verb:?} {name}");
            }
        }
    }
    for (kind, name) in routes() {
        let listed = acl.authorize_list(&who, kind, name);
        assert_eq!(listed.is_ok(), written(Verb::Get, name).is_some(), "{name}");
        let is_free = kind.schema().owner == Owner::Nobody;
        let is_global = written(Verb::Get, name) == Some(Scope::Everyone);
        assert!(listed != Ok(Scope::Everyone) || is_global || is_free, "{name}");
        let item = written(Verb::Get, kind.schema().item_acl());
        let may_read = item == Some(Scope::Everyone) || (item.is_some() && is_free);
        assert_eq!(acl.may_read(&who, kind, Some(PERSON)), may_read, "{kind:?}");
    }
}

// ------------------------------------------------------------------------------------------ authorization

/// Code points of the bytes from 0x80 to 0x9F in windows-1252; every other byte is its own.
const WINDOWS_1252: [u32; 32] = [
    0x20AC, 0x81, 0x201A, 0x192, 0x201E, 0x2026, 0x2020, 0x2021, 0x2C6, 0x2030, 0x160, 0x2039, 0x152, 0x8D,
    0x17D, 0x8F, 0x90, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x2DC, 0x2122, 0x161, 0x203A,
    0x153, 0x9D, 0x17E, 0x178,
];

fn character(byte: u8) -> char {
    let code = match byte {
        0x80..=0x9F => WINDOWS_1252[usize::from(byte - 0x80)],
        _ => u32::from(byte),
    };
    char::from_u32(code).expect("a character")
}

/// `Authorization` headers, one a line: what is taken is what was sent, and only one is.
fn authorization(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(header::AUTHORIZATION, value);
        }
    }
    if let Some((user, password)) = basic_credentials(&headers) {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let sent = values.next().and_then(|value| value.to_str().ok()).expect("a header was read");
        assert!(values.next().is_none(), "of several headers one was chosen");
        let (scheme, encoded) = sent.split_once(' ').expect("a scheme and its parameter");
        assert_eq!(scheme.to_ascii_lowercase(), "basic");
        assert!(!user.contains(':'));
        let byte = |c: char| (0..=u8::MAX).find(|byte| character(*byte) == c);
        let of_windows: Vec<u8> = user.chars().filter_map(byte).collect();
        let pair = |user: &[u8]| BASE64.encode([user, b":", &password].concat());
        assert!([pair(user.as_bytes()), pair(&of_windows)].iter().any(|pair| pair == encoded.trim()));
    }
    // The other way round: whoever sends a name and a password is understood.
    let value = HeaderValue::from_str(&format!("Basic {}", BASE64.encode(input))).expect("text of letters");
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
    let colon = input.iter().position(|byte| *byte == b':');
    let expected = colon.map(|at| {
        let user = std::str::from_utf8(&input[..at]).map(str::to_owned);
        let of_windows = || input[..at].iter().map(|byte| character(*byte)).collect();
        (user.unwrap_or_else(|_| of_windows()), input[at + 1..].to_vec())
    });
    assert_eq!(basic_credentials(&headers), expected);
}

// ------------------------------------------------------------------------------------------------- import

/// A file that `import` is given.
fn import(input: &[u8]) {
    import_rows(input);
    let read = |capacity| -> Vec<Result<Text, Wrong>> {
        let found = Documents::new(BufReader::with_capacity(capacity, input));
        // One more than there can be: a reader that stands still is cut off and noticed.
        found.take(input.len() + 2).map(|found| found.expect("bytes can be read")).collect()
    };
    let found = read(1 << 16);
    assert_eq!(read(3), found, "how the file arrives in pieces decides what is in it");
    assert!(found.len() <= input.len() + 1, "it does not end");
    let place = |found: &Result<Text, Wrong>| match found {
        Ok(text) => (text.place.line, text.place.column),
        Err(wrong) => (wrong.place.line, wrong.place.column),
    };
    assert!(found.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])), "{found:?}");
    for text in found.into_iter().flatten() {
        for kind in Kind::ALL {
            match read_document(kind, &text) {
                Ok(document) => check_imported(kind, &document),
                Err(wrong) => assert!(wrong.place.line >= text.place.line && !wrong.message.is_empty()),
            }
        }
    }
}

/// The same file as rows of a table, in every format, told and untold: what is taken has an owner and nobody else's.
fn import_rows(input: &[u8]) {
    for is_sql in [false, true] {
        layout_of(input, is_sql);
    }
    for line in input.split(|byte| *byte == b'\n') {
        escapes_of(line);
        may_be_copied(line);
        let read = [copy::cells(line), copy::unaligned_cells(line, b'|'), csv::cells(line, b',')];
        for cells in read.into_iter().flatten() {
            for schema in &SCHEMAS {
                for owner in [None, Some(PERSON)] {
                    let Ok(taken) = take_row(schema.kind, None, cells.clone(), owner) else {
                        continue;
                    };
                    let Owner::Field(field) = schema.owner else {
                        continue;
                    };
                    let said = taken.fields.get(field).and_then(Value::as_str).expect("an owner");
                    assert!(owner.is_none_or(|owner| owner.eq_ignore_ascii_case(said)), "{said}");
                    // A key that stands beside the document is what the document says.
                    let keys =
                        cells.iter().filter(|cell| matches!(cell, Cell::Text(key) if key == said)).count();
                    let has_data =
                        cells.iter().any(|cell| matches!(cell, Cell::Text(data) if data.contains(said)));
                    assert!(keys > 0 || has_data || owner.is_some() || line.contains(&b'\\'), "{said}");
                }
            }
        }
    }
}

fn check_imported(kind: Kind, document: &Document) {
    survives_storage(document);
    writing_back_changes_nothing(kind.schema(), document);
    let exported = Bson::Document(document.clone()).into_canonical_extjson().to_string();
    let text = Text { place: Place { line: 1, column: 1 }, bytes: exported.into_bytes() };
    let again = read_document(kind, &text).expect("what is exported can be imported");
    assert!(same_bytes(&again, document), "{document:?} {again:?}");
}

// ------------------------------------------------------------------------------------------------ central

/// Up to three versions of a document as the centre may hold them.
fn central(input: &[u8]) {
    let found = versions(input);
    let Some(first) = found.first() else {
        return;
    };
    let version = |at: usize| found.get(at).unwrap_or(first);
    let (base, local, remote) = (version(0), version(1), version(2));
    laws::sameness_is_an_equivalence(base, local, remote);
    for (a, b) in [(base, local), (local, remote), (remote, base)] {
        laws::a_document_does_not_differ_from_itself(a);
        laws::applying_a_difference_leads_there(a, b);
        laws::changes_are_disjoint_addressable_and_true(a, b);
        assert_eq!(changed_paths(Some(a), Some(b)).is_empty(), diff(a, b) == Diff::Same);
        check_identity(a, b);
    }
    for kind in UNLIKE {
        check_merge(kind.schema(), base, local, remote);
        check_rebuilt(kind, base, local, remote);
    }
    for document in [base, local, remote] {
        check_known(document);
    }
}

/// BSON, one document behind the other; or extended JSON with separators, which is easier to mutate.
fn versions(input: &[u8]) -> Vec<Document> {
    if input.starts_with(b"{") && input.contains(&SEPARATOR) {
        let texts = input.split(|byte| *byte == SEPARATOR).take(3);
        let read = |text| match Bson::try_from(serde_json::from_slice::<Value>(text).ok()?).ok()? {
            Bson::Document(document) => Some(document).filter(|document| document.to_vec().is_ok()),
            _ => None,
        };
        return texts.map_while(read).collect();
    }
    let (mut rest, mut found) = (input, Vec::new());
    while found.len() < 3 {
        let length = rest.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        let Some((bytes, behind)) = rest.split_at_checked(length as usize) else {
            break;
        };
        let Ok(raw) = RawDocument::from_bytes(bytes) else {
            break;
        };
        if is_deeper_than(CENTRE_DEPTH_MAX, raw) {
            break;
        }
        // Also what is damaged further inside: it must not be shown by halves.
        let shown = serde_json::to_vec(&Shown { document: raw, dates: DateFormat::Http, hidden: &[] });
        let Ok(document) = Document::try_from(raw) else {
            break;
        };
        assert!(shown.is_ok(), "a document that can be read cannot be shown");
        found.push(document);
        rest = behind;
    }
    found
}

fn check_identity(a: &Document, b: &Document) {
    assert_eq!(identity_differences(a, b), identity_differences(b, a));
    assert_eq!(identity_differences(a, a), 0);
    assert!(!is_other_person(None, a, a) && !is_other_person(Some(b), a, a));
}

fn check_merge(schema: &Schema, base: &Document, local: &Document, remote: &Document) {
    laws::what_only_one_side_changed_stands(schema, base, local);
    laws::what_both_sides_changed_alike_is_agreed(schema, base, local);
    laws::a_second_merge_finds_nothing_new(schema, base, local, remote);
    laws::what_is_pushed_is_a_true_difference(schema, base, local, remote);
    laws::no_edit_is_lost(schema, base, local, remote);
    laws::nothing_comes_from_nowhere(schema, base, local, remote);
    laws::clashes_are_real_and_their_winner_stands(schema, base, local, remote);
    laws::an_edit_beats_a_delete(schema, base, remote);
    laws::records_made_on_both_sides_unite(schema, local, remote);
    laws::conflicts_without_a_base_show_what_both_have(schema, local, remote);
    for (base, delivered) in [(None, local), (Some(base), local), (Some(base), remote)] {
        laws::delivered_edits_are_kept_or_asked_about(schema, (base, delivered), local, remote);
    }
}

/// At a centre that was set back, whatever the node remembers of its writes.
fn check_rebuilt(kind: Kind, agreed: &Document, local: &Document, remote: &Document) {
    laws::a_restored_centre_takes_nothing(kind.schema(), agreed, local, remote);
    let written = match diff(remote, agreed) {
        Diff::Fields(changes) => OwnWrite::Updated(changes),
        Diff::Same | Diff::Whole => OwnWrite::Replaced,
    };
    let deleted = OwnWrite::Deleted(Some(remote.clone()));
    let courses = [
        vec![],
        vec![OwnWrite::Inserted],
        vec![written.clone()],
        vec![OwnWrite::Inserted, written.clone(), OwnWrite::Replaced, written.clone()],
        vec![deleted, OwnWrite::Inserted, written],
        vec![OwnWrite::Deleted(None)],
    ];
    for own in &courses {
        let base = rebuilt_base(kind, Some(agreed), Some(local), Some(remote), own);
        let merged = merge(kind.schema(), base.as_ref(), Some(local), Some(remote));
        assert!(merged.document.is_some(), "a record that both have is gone");
        laws::no_edit_is_lost(kind.schema(), &base.unwrap_or_default(), local, remote);
        assert_eq!(rebuilt_base(kind, Some(agreed), Some(local), None, own), None);
        rebuilt_base(kind, Some(agreed), None, Some(remote), own);
        rebuilt_base(kind, None, Some(local), Some(remote), own);
    }
}

fn check_known(document: &Document) {
    survives_storage(document);
    let bytes = document.to_vec().expect("it was just written");
    for schema in &SCHEMAS {
        if let Some(owner) = schema.owner_of(document) {
            let person = Principal::new(Actor::Person(owner.clone()), Vec::new());
            assert!(person.is(&owner), "{owner} is not its own");
        }
        if let Some(content) = Content::of(schema.kind, document) {
            assert!(names_within(&bytes).any(|name| name == content.sha256), "its bytes would be let go");
        }
        assert!(
            schema.secret_fields.iter().all(|field| !schema.without_secrets(document).contains_key(field))
        );
    }
    let depth = shown_depth(&Bson::Document(document.clone()));
    if document.get_str("_id").is_ok() && depth <= DOCUMENT_DEPTH_MAX {
        for kind in UNLIKE {
            writing_back_changes_nothing(kind.schema(), document);
        }
    }
    for (_, value) in document {
        if *value != Bson::Null {
            assert_ne!(show_value(value, DateFormat::Rfc3339), Value::Null, "{value:?}");
        }
        if let Bson::String(text) = value {
            // Who types the beginning of a name finds it.
            let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
            let (begin, end) = text.split_at(middle);
            assert_eq!(fold_name(begin) + &fold_name(end), fold_name(text), "{text:?}");
        }
    }
}

/// How deep the JSON may be that is shown for a value; types that JSON has not are objects of up to three levels.
fn shown_depth(value: &Bson) -> usize {
    match value {
        Bson::Document(document) => 1 + document.values().map(shown_depth).max().unwrap_or(0),
        Bson::Array(array) => 1 + array.iter().map(shown_depth).max().unwrap_or(0),
        Bson::JavaScriptCodeWithScope(code) => 1 + shown_depth(&Bson::Document(code.scope.clone())),
        _ => 3,
    }
}
