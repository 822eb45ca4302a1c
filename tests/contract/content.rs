//! Attachments in GridFS: what stands under a name is added once, replaced only by who compares, and marked
//! if it is wrong.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use thalamus_edge::central::Central;
use thalamus_edge::central::content::{ContentFile, ContentMark, NewContentFile};

/// `fs.files` and `fs.chunks` seen by somebody else.
#[async_trait]
pub(crate) trait ContentBehind: Send + Sync {
    async fn file(&self, id: &str) -> Option<Document>;
    async fn set_file(&self, row: Document);
    /// The field `data` of a chunk.
    async fn chunk(&self, id: &str, number: u64) -> Option<Bson>;
    async fn set_chunk(&self, id: &str, number: u64, data: Bson);
}

fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
}

fn name(of: &str) -> String {
    of.repeat(32)
}

pub(crate) async fn chunks(central: &mut dyn Central, behind: &dyn ContentBehind) {
    let (a, b) = (name("a1"), name("b2"));
    assert_eq!(central.content_chunk_lengths(&a).await.expect("lengths"), BTreeMap::new());
    assert_eq!(central.content_chunks(&a, 0, 5).await.expect("chunks"), []);
    central.add_content_chunks(&a, &[]).await.expect("nothing to do");
    let full = vec![7; 65_536];
    let some = [(0, full.clone()), (1, b"one".to_vec()), (3, b"three".to_vec()), (4, Vec::new())];
    central.add_content_chunks(&a, &some).await.expect("added");
    central.add_content_chunks(&b, &[(0, b"other".to_vec())]).await.expect("added");
    // Again, with the missing one among those that are there: these stay as they are.
    let again = [(1, b"else".to_vec()), (2, b"two".to_vec()), (3, b"three".to_vec())];
    central.add_content_chunks(&a, &again).await.expect("a duplicate is no error");
    assert_eq!(behind.chunk(&a, 1).await, Some(binary(b"one")));
    assert_eq!(behind.chunk(&a, 2).await, Some(binary(b"two")));
    let lengths = [(0, Some(65_536)), (1, Some(3)), (2, Some(3)), (3, Some(5)), (4, Some(0))];
    assert_eq!(central.content_chunk_lengths(&a).await.expect("lengths"), BTreeMap::from(lengths));

    let got = async |central: &mut dyn Central, first, count| {
        central.content_chunks(&a, first, count).await.expect("chunks")
    };
    let (one, two, three) = ((1, b"one".to_vec()), (2, b"two".to_vec()), (3, b"three".to_vec()));
    assert_eq!(got(central, 1, 3).await, [one.clone(), two.clone(), three.clone()]);
    assert_eq!(got(central, 0, 1).await, [(0, full)]);
    assert_eq!(got(central, 4, 100).await, [(4, Vec::new())]);
    assert_eq!(got(central, 9, 1).await, []);
    assert_eq!(got(central, 1, 0).await, []);
    assert_eq!(got(central, u64::MAX, 1).await, []);

    // A chunk that holds no bytes is there, and is not a chunk.
    behind.set_chunk(&a, 2, Bson::Int32(5)).await;
    assert_eq!(got(central, 1, 3).await, [one, three]);
    assert_eq!(central.content_chunk_lengths(&a).await.expect("lengths").get(&2), Some(&None));
    let replaced = async |central: &mut dyn Central, number, from: Option<&[u8]>, to: &[u8]| {
        central.replace_content_chunk(&a, number, from, to).await.expect("an answer")
    };
    assert!(!replaced(central, 2, Some(b"two"), b"2").await);
    assert!(replaced(central, 2, None, b"two").await);
    assert!(!replaced(central, 2, None, b"two").await);
    assert!(!replaced(central, 1, Some(b"on"), b"1").await);
    assert!(!replaced(central, 1, Some(b"onex"), b"1").await);
    assert!(replaced(central, 1, Some(b"one"), b"uno").await);
    assert!(replaced(central, 4, Some(b""), b"four").await);
    assert!(!replaced(central, 9, None, b"nine").await, "what is not there is not replaced");
    assert!(!replaced(central, 9, Some(b""), b"nine").await);
    assert_eq!(behind.chunk(&a, 1).await, Some(binary(b"uno")));
    assert_eq!(behind.chunk(&a, 4).await, Some(binary(b"four")));
    assert_eq!(behind.chunk(&a, 9).await, None);
    assert_eq!(behind.chunk(&b, 0).await, Some(binary(b"other")));
}

pub(crate) async fn files(central: &mut dyn Central, behind: &dyn ContentBehind) {
    let (c, d, none) = (name("c3"), name("d4"), name("00"));
    let file = |sha256: &str, length: u64| NewContentFile {
        sha256: sha256.to_owned(),
        length,
        media_type: "image/png".to_owned(),
        uploaded_at_ms: 1_795_397_332_000,
    };
    assert_eq!(central.content_files(&[]).await.expect("nothing"), []);
    assert_eq!(central.content_files(std::slice::from_ref(&c)).await.expect("files"), []);
    central.add_content_file(&file(&c, 5_000_000_000)).await.expect("added");
    let again = NewContentFile { media_type: "image/jpeg".to_owned(), ..file(&c, 5_000_000_000) };
    central.add_content_file(&again).await.expect("a duplicate of the same length is no error");
    let row = behind.file(&c).await.expect("a row");
    let expected = doc! {
        "_id": &c,
        "length": 5_000_000_000_i64,
        "chunkSize": 65_536_i32,
        "uploadDate": bson::DateTime::from_millis(1_795_397_332_000),
        "filename": &c,
        "metadata": {"contentType": "image/png"},
    };
    assert_eq!(row, expected);
    // Others write such rows as they like.
    behind.set_file(doc! {"_id": &d, "length": 9_i32, "chunkSize": 261_120_i32}).await;
    let shown = |sha256: &String, length, chunk_bytes, is_marked| ContentFile {
        sha256: sha256.clone(),
        length,
        chunk_bytes,
        is_marked,
    };
    let mut found = central.content_files(&[none, d.clone(), c.clone()]).await.expect("files");
    found.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    let (of_c, of_d) =
        (shown(&c, Some(5_000_000_000), Some(65_536), false), shown(&d, Some(9), Some(261_120), false));
    assert_eq!(found, [of_c, of_d]);
    behind.set_file(doc! {"_id": &d, "length": "9", "chunkSize": 0_i32}).await;
    let found = central.content_files(std::slice::from_ref(&d)).await.expect("files");
    assert_eq!(found, [shown(&d, None, None, false)]);
}

pub(crate) async fn marks(central: &mut dyn Central, behind: &dyn ContentBehind) {
    let (e, f) = (name("e5"), name("f6"));
    let mark = |node: &str, seen: &[u8]| ContentMark { node: node.to_owned(), seen: seen.to_vec() };
    let (north, south) = (mark("north", b"12345678"), mark("south", b"12345678"));
    let marking = async |central: &mut dyn Central, from: Option<&ContentMark>, to: Option<&ContentMark>| {
        central.mark_content(&e, from, to, None).await.expect("an answer")
    };
    assert!(!marking(central, None, Some(&north)).await, "there is no such row");
    let row = doc! {"_id": &e, "length": 70_000_i64, "chunkSize": 65_536_i32, "metadata": {"x": 1}};
    behind.set_file(row.clone()).await;
    behind.set_file(doc! {"_id": &f, "length": 1_i64, "chunkSize": 65_536_i32}).await;
    assert_eq!(central.content_mark(&e).await.expect("an answer"), None);
    assert!(marking(central, None, Some(&north)).await);
    assert!(!marking(central, None, Some(&south)).await, "somebody was first");
    assert!(!marking(central, Some(&south), None).await);
    assert!(!marking(central, Some(&mark("north", b"1234")), None).await);
    assert_eq!(central.content_mark(&e).await.expect("an answer"), Some(north.clone()));
    assert_eq!(central.marked_contents(9).await.expect("names"), std::slice::from_ref(&e));
    assert!(central.content_files(std::slice::from_ref(&e)).await.expect("files")[0].is_marked);

    // A row without any metadata is marked as well.
    let marked = central.mark_content(&f, None, Some(&south), None).await.expect("an answer");
    assert!(marked);
    assert_eq!(central.marked_contents(1).await.expect("names").len(), 1);
    let mut all = central.marked_contents(9).await.expect("names");
    all.sort();
    assert_eq!(all, [e.clone(), f.clone()]);

    let less = mark("north", b"1234567x");
    assert!(marking(central, Some(&north), Some(&less)).await);
    assert!(!marking(central, Some(&north), None).await);
    assert!(marking(central, Some(&less), None).await);
    assert_eq!(behind.file(&e).await, Some(row));
    let empty = mark("south", b"");
    let relaid = central.mark_content(&f, Some(&south), Some(&empty), Some(99)).await.expect("an answer");
    assert!(relaid);
    let row = behind.file(&f).await.expect("a row");
    assert_eq!(row.get("length"), Some(&Bson::Int64(99)));
    assert_eq!(row.get("chunkSize"), Some(&Bson::Int32(65_536)));
    let gone = central.mark_content(&f, Some(&empty), None, None).await.expect("an answer");
    assert!(gone);
    assert_eq!(central.marked_contents(9).await.expect("names"), Vec::<String>::new());
}
