//! Collections: whole or in pages, in either shape, people by name.

use bson::doc;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::http::CollectionShape;
use thalamus_edge::store::StoreError;

use crate::support::api::{Answer, NOTHING, TestNode};

/// As many institutions, `i00000` and so on, each with some text.
async fn with_institutions(count: usize, text_bytes: usize) -> TestNode {
    let node = TestNode::with_people().await;
    let fill = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
        use thalamus_edge::domain::access::Actor;
        use thalamus_edge::domain::record::RecordKey;
        for number in 0..count {
            let id = format!("i{number:05}");
            let document = doc! {"_id": &id, "text": "y".repeat(text_bytes)};
            tx.edit(&RecordKey::new(Kind::Institution, &id), Some(&document), &Actor::Centre)?;
        }
        Ok(())
    });
    fill.await.unwrap();
    node
}

/// The path in the Link header.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.headers.get("link")?.to_str().unwrap();
    let (path, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
    assert_eq!(rest, "; rel=\"next\"");
    Some(path.to_owned())
}

async fn all_pages(node: &TestNode, first: &str, size: usize) -> Vec<String> {
    let (mut path, mut ids) = (Some(first.to_owned()), Vec::new());
    while let Some(at) = path {
        let page = node.get(&at).by("DOC003").send().await.is(200, NOTHING);
        assert!(page.ids().len() == size || next(&page).is_none(), "{at}: {}", page.ids().len());
        assert!(!page.ids().is_empty() || ids.is_empty(), "{at}: an empty page");
        ids.extend(page.ids());
        path = next(&page);
    }
    ids
}

#[tokio::test]
async fn a_bare_get_returns_everything() {
    for (count, text_bytes) in
        [(0, 0), (1, 0), (499, 0), (500, 0), (501, 0), (1000, 0), (1234, 3), (30, 100_000)]
    {
        let node = with_institutions(count, text_bytes).await;
        let list = node.get("/institutions").by("DOC003").send().await.is(200, NOTHING);
        assert_eq!(list.header("content-type"), "application/json");
        list.lacks_header("link");
        let expected: Vec<String> = (0..count).map(|number| format!("i{number:05}")).collect();
        assert_eq!(list.ids(), expected);
    }
}

#[tokio::test]
async fn a_long_list_is_streamed() {
    let node = with_institutions(40, 100_000).await;
    let mut body = node.get("/institutions").by("DOC003").open().await.into_body();
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        pieces.push(frame.unwrap().into_data().unwrap().len());
    }
    assert!(pieces.len() >= 3, "{pieces:?}");
    assert!(pieces.iter().all(|bytes| *bytes < 1_500_000), "{pieces:?}");
}

#[tokio::test]
async fn pages_follow_each_other_to_the_end() {
    let node = with_institutions(1203, 0).await;
    let expected: Vec<String> = (0..1203).map(|number| format!("i{number:05}")).collect();
    for size in [200, 401, 500, 600, 601, 602, 1202, 1203, 5000] {
        assert_eq!(all_pages(&node, &format!("/institutions?limit={size}"), size).await, expected, "{size}");
    }
    let one = node.get("/institutions?limit=1").by("DOC003").send().await;
    assert_eq!(one.ids(), ["i00000"]);
    assert_eq!(next(&one).unwrap(), "/institutions?limit=1&after=i00000");
    let last = node.get("/institutions?limit=2&after=i01200").by("DOC003").send().await;
    assert_eq!((last.ids(), next(&last)), (vec!["i01201".to_owned(), "i01202".to_owned()], None));
    let beyond = node.get("/institutions?after=z").by("DOC003").send().await;
    assert_eq!((beyond.text(), next(&beyond)), ("[]".to_owned(), None));
    let rest = node.get("/institutions?after=i01200").by("DOC003").send().await;
    assert_eq!(rest.ids().len(), 2);
}

#[tokio::test]
async fn pages_of_large_records_are_whole() {
    let node = with_institutions(50, 100_000).await;
    assert_eq!(all_pages(&node, "/institutions?limit=30", 30).await.len(), 50);
}

#[tokio::test]
async fn a_limit_is_a_number_above_zero() {
    let node = with_institutions(3, 0).await;
    for bad in ["0", "-1", "abc", "", "1.5", "99999999999999999999", "%00"] {
        let answer = node.get(&format!("/institutions?limit={bad}")).by("DOC003").send().await;
        answer.is_invalid("limit");
    }
    // Who may not read learns nothing of parameters.
    node.get("/people?limit=x").by("ANA001").send().await.is(403, NOTHING);
    let after = node.get("/institutions?after=%ff%00&unknown=1&limit=1").by("DOC003").send().await;
    after.is(200, NOTHING);
}

#[tokio::test]
async fn cursors_may_hold_anything_that_an_id_may() {
    let node = TestNode::with_people().await;
    let ids = ["a b", "a&limit=9", "a>", "ä", "ä\"c"];
    for id in ids {
        node.from_centre(Kind::Institution, doc! {"_id": id}).await;
    }
    let mut expected = ids.to_vec();
    expected.sort_unstable();
    assert_eq!(all_pages(&node, "/institutions?limit=1", 1).await, expected);
}

#[tokio::test]
async fn rows_are_what_the_portal_reads() {
    let node = TestNode::start_with(|setup| setup.settings.collection_shape = CollectionShape::Rows);
    node.people().await;
    let rows = node.get("/people").by("DOC003").send().await.is(200, NOTHING).json();
    let ids: Vec<&Value> = rows.as_array().unwrap().iter().map(|row| &row[0]["id"]).collect();
    assert_eq!(ids, ["ANA001", "BOB002", "DOC003", "ROOT004"]);
    assert!(rows.as_array().unwrap().iter().all(|row| row.as_array().unwrap().len() == 1));
    let page = node.get("/people?limit=1").by("DOC003").send().await;
    assert_eq!(
        (page.json().as_array().unwrap().len(), next(&page).unwrap()),
        (1, "/people?limit=1&after=ANA001".into())
    );
    // Items are not collections.
    node.get("/people/ANA001").by("DOC003").send().await.has(json!({"id": "ANA001"}));
}

#[tokio::test]
async fn people_are_found_by_the_beginnings_of_their_names() {
    let node = TestNode::start();
    node.person("DOC003", &["health_professional"]).await;
    for (id, name, lastname) in [
        ("ESP001", "José María", "Núñez"),
        ("ITA002", "Łukasz", "Ñandú"),
        ("DEU003", "Björn", "Müller-Lüdenscheidt"),
        ("ARG004", "Jose", "Maria"),
    ] {
        node.record(Kind::Person, doc! {"_id": id, "name": name, "lastname": lastname}).await;
    }
    for (words, found) in [
        ("jose", &["ARG004", "ESP001"][..]),
        ("JOSÉ", &["ARG004", "ESP001"]),
        ("maria", &["ARG004", "ESP001"]),
        ("nunez jo", &["ESP001"]),
        ("jo nun", &["ESP001"]),
        ("lukasz", &["ITA002"]),
        ("nand", &["ITA002"]),
        ("bjorn muller", &["DEU003"]),
        ("deu", &["DEU003"]),
        ("arg004", &["ARG004"]),
        ("unez", &[]),
        ("jose bjorn", &[]),
        (".*", &[]),
    ] {
        let path = format!("/people?q={}", words.replace(' ', "+").replace('É', "%C3%89"));
        assert_eq!(node.get(&path).by("DOC003").send().await.is(200, NOTHING).ids(), found, "{words}");
    }
    for (id, name, lastname) in [
        ("IRL005", "Sean", "O’Brien"),
        ("USA006", "Liam", "OBRIEN"),
        ("AUT007", "Karl", "Weiß-Huber"),
        ("IRN008", "علی‌رضا", "کریمی"),
        ("GRC009", "Γιώργος", "Παπάς"),
        ("TUR010", "İpek", "Işık"),
        ("KOR011", "김민수", ""),
        ("JPN012", "ﾔﾏﾀﾞ", "Ｔａｒｏ"),
        ("IND013", "रीमा", ""),
        ("X-14.b", "Jean-Luc", "De La Cruz"),
    ] {
        node.record(Kind::Person, doc! {"_id": id, "name": name, "lastname": lastname}).await;
    }
    for (words, found) in [
        ("o'brien", &["IRL005", "USA006"][..]),
        ("O‘Bri", &["IRL005", "USA006"]),
        ("obrien", &["IRL005", "USA006"]),
        ("o brien sean", &["IRL005"]),
        ("brien", &["IRL005"]),
        ("weiss", &["AUT007"]),
        ("WEIẞ", &["AUT007"]),
        ("huber,karl", &["AUT007"]),
        ("weiß\u{2013}huber", &["AUT007"]),
        ("weiss\u{AD}huber", &["AUT007"]),
        ("علي رضا", &["IRN008"]),
        ("علیرضا", &["IRN008"]),
        ("\u{202B}كريمى\u{202C}", &["IRN008"]),
        ("رضا", &["IRN008"]),
        ("ΓΙΏΡΓΟΣ παπας", &["GRC009"]),
        ("γιωργοσ", &["GRC009"]),
        ("ipek ISIK", &["TUR010"]),
        ("ıpek ışık", &["TUR010"]),
        ("\u{1100}\u{1175}\u{11B7}민", &["KOR011"]),
        ("ヤマダ taro", &["JPN012"]),
        ("रमा", &[]),
        ("jean luc", &["X-14.b"]),
        ("JeanLuc", &["X-14.b"]),
        ("luc\u{A0}delacruz", &["X-14.b"]),
        ("de la cr", &["X-14.b"]),
        ("x-14", &["X-14.b"]),
        ("x14b", &["X-14.b"]),
        ("cruz; jean", &["X-14.b"]),
        ("- '", &[]),
    ] {
        let words = percent_encoding::utf8_percent_encode(words, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/people?q={words}");
        assert_eq!(node.get(&path).by("DOC003").send().await.is(200, NOTHING).ids(), found, "{words}");
    }
    let everybody = node.get("/people?q=+").by("DOC003").send().await;
    assert_eq!(everybody.ids().len(), 15);
    let page = node.get("/people?q=jose&limit=1").by("DOC003").send().await;
    assert_eq!(next(&page).unwrap(), "/people?limit=1&after=ARG004&q=jose");
    assert_eq!(all_pages(&node, "/people?q=jose&limit=1", 1).await, ["ARG004", "ESP001"]);
    node.get(&format!("/people?q={}", "a".repeat(101))).by("DOC003").send().await.is_invalid("q");
}

#[tokio::test]
async fn documents_of_a_person_and_of_a_page() {
    let node = TestNode::with_people().await;
    for (id, owner, page) in
        [("d1", "ANA001", "p1"), ("d2", "ANA001", "p2"), ("d3", "BOB002", "p1"), ("d4", "ANA001", "p1")]
    {
        let body = json!({"fedacct": owner, "pol": page});
        node.post(&format!("/personal-documents/{id}"), body).by("DOC003").send().await;
    }
    let ids = async |path: &str, who: &str| node.get(path).by(who).send().await.is(200, NOTHING).ids();
    assert_eq!(ids("/personal-documents", "DOC003").await, ["d1", "d2", "d3", "d4"]);
    assert_eq!(ids("/personal-documents", "ANA001").await, ["d1", "d2", "d4"]);
    assert_eq!(ids("/personal_docs/ana001", "ANA001").await, ["d1", "d2", "d4"]);
    assert_eq!(ids("/personal_docs/ANA001/p1", "ANA001").await, ["d1", "d4"]);
    assert_eq!(ids("/personal_docs/ANA001/p9", "ANA001").await, [""; 0]);
    let page = node.get("/personal_docs/ANA001/p1?limit=1").by("ANA001").send().await;
    assert_eq!(next(&page).unwrap(), "/personal_docs/ANA001/p1?limit=1&after=d1");
    node.get("/personal_docs/BOB002/p1").by("ANA001").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn the_list_of_accounts_is_whole_however_far_they_lie_apart() {
    for (count, every) in [(0, 1), (499, 1), (500, 7), (1700, 1), (1700, 1600)] {
        let node = TestNode::with_people().await;
        let fill = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
            use thalamus_edge::domain::access::Actor;
            use thalamus_edge::domain::record::RecordKey;
            for number in 0..count {
                let id = format!("ZZZ{number:05}");
                let mut document = doc! {"_id": &id, "name": "z".repeat(300)};
                if number % every == 0 {
                    document.insert("password", "no hash");
                }
                tx.edit(&RecordKey::new(Kind::Person, &id), Some(&document), &Actor::Centre)?;
            }
            Ok(())
        });
        fill.await.unwrap();
        let users = node.get("/users").by("ROOT004").send().await.is(200, NOTHING).json();
        let shown = users.as_array().unwrap().iter().filter_map(|user| user["id"].as_str());
        let listed: Vec<_> = shown.filter(|id| id.starts_with("ZZZ")).map(str::to_owned).collect();
        let expected: Vec<_> = (0..count).step_by(every).map(|number| format!("ZZZ{number:05}")).collect();
        assert_eq!(listed, expected);
    }
}
