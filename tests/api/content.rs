//! The bytes of personal documents.

use std::io::Write as _;

use bson::doc;
use serde_json::json;
use sha2::{Digest, Sha256};
use thalamus_edge::domain::record::Kind;

use crate::support::api::{Call, NOTHING, TestNode};

const PATH: &str = "/personal-documents/d1/content";
const CHANGED: &[&str] = &["update personal_document/d1"];

async fn with_document() -> TestNode {
    let node = TestNode::with_people().await;
    node.post("/personal-documents/d1", json!({"fedacct": "ANA001", "type": "picture"}))
        .by("DOC003")
        .send()
        .await;
    node
}

fn upload<'a>(node: &'a TestNode, bytes: &[u8]) -> Call<'a> {
    node.request("PUT", PATH).by("DOC003").bytes(bytes.to_vec())
}

/// Different bytes everywhere, over several chunks.
fn picture(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

#[tokio::test]
async fn bytes_keep_their_type_and_hash() {
    let node = with_document().await;
    node.get(PATH).by("ANA001").send().await.is(404, NOTHING);
    for (length, status) in [(200_000, 201), (0, 200), (1, 200), (65_536, 200), (131_073, 200)] {
        let bytes = picture(length);
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let sent = upload(&node, &bytes).header("content-type", "image/png; x=1").send().await;
        sent.is(status, CHANGED).says(json!({"sha256": sha256, "length": length, "type": "image/png; x=1"}));
        let got = node.get(PATH).by("ANA001").send().await.is(200, NOTHING);
        assert_eq!(got.body, bytes);
        assert_eq!(got.header("content-type"), "image/png; x=1");
        assert_eq!(got.header("content-length"), length.to_string());
        assert_eq!(got.header("etag"), format!("\"{sha256}\""));
        assert_eq!(got.header("accept-ranges"), "bytes");
        let document = node.get("/personal-documents/d1").by("ANA001").send().await;
        document.has(json!({
            "type": "picture", "content": {"sha256": sha256, "length": length, "type": "image/png; x=1"}}));
    }
    let head = node.request("HEAD", PATH).by("ANA001").send().await.is(200, NOTHING);
    assert_eq!((head.body.len(), head.header("content-length")), (0, "131073"));
}

/// Whatever the uploader called them, in every way in which they are sent; the record keeps the type.
#[tokio::test]
async fn uploaded_pages_run_nowhere() {
    let node = with_document().await;
    let name = json!({"title": "Röntgen \"Knie\".html"});
    node.patch("/personal-documents/d1", name).by("DOC003").send().await.is(200, CHANGED);
    let file = "filename=\"R_ntgen _Knie_.html\"; filename*=UTF-8''R%C3%B6ntgen%20_Knie_.html";
    for (given, sent, way) in [
        ("text/html", "application/octet-stream", "attachment"),
        ("Image/SVG+xml", "application/octet-stream", "attachment"),
        ("application/xhtml+xml; charset=utf-8", "application/octet-stream", "attachment"),
        ("text/javascript", "application/octet-stream", "attachment"),
        ("image/png; x=1, text/html", "image/png", "inline"),
        ("text/plain", "text/plain", "attachment"),
        ("image/jpeg", "image/jpeg", "inline"),
        ("application/pdf", "application/pdf", "inline"),
    ] {
        upload(&node, b"<script>alert(1)</script>").header("content-type", given).send().await;
        let document = node.get("/personal-documents/d1").by("ANA001").send().await;
        assert_eq!(document.json()["content"]["type"], given);
        for (method, range, status) in [("GET", "", 200), ("GET", "bytes=0-3", 206), ("HEAD", "", 200)] {
            let call = node.request(method, PATH).by("ANA001");
            let call = if range.is_empty() { call } else { call.header("range", range) };
            let got = call.send().await.is(status, NOTHING);
            assert_eq!(got.header("content-type"), sent, "{given}");
            assert_eq!(got.header("content-disposition"), format!("{way}; {file}"), "{given}");
            assert_eq!(got.header("content-security-policy"), "sandbox; default-src 'none'");
            assert_eq!(got.header("x-content-type-options"), "nosniff");
        }
    }
    // What came from the centre may be called anything.
    for odd in ["multipart/x-mixed-replace;boundary=x", "message/rfc822", "text/html\r\nx: y", "\u{e4}", ""] {
        let mut document = node.stored(Kind::PersonalDocument, "d1").unwrap();
        document.get_document_mut("content").unwrap().insert("type", odd);
        node.from_centre(Kind::PersonalDocument, document).await;
        let got = node.get(PATH).by("ANA001").send().await.is(200, NOTHING);
        assert_eq!(got.header("content-type"), "application/octet-stream", "{odd:?}");
        assert!(got.header("content-disposition").starts_with("attachment;"), "{odd:?}");
    }
}

#[tokio::test]
async fn a_known_version_is_not_sent_again() {
    let node = with_document().await;
    upload(&node, b"bytes").send().await.is(201, CHANGED);
    let tag = node.get(PATH).by("ANA001").send().await.header("etag").to_owned();
    for known in [tag.clone(), "*".into(), format!("\"x\", W/{tag}")] {
        let same = node.get(PATH).by("ANA001").header("if-none-match", &known).send().await.is(304, NOTHING);
        assert_eq!(same.header("etag"), tag);
    }
    upload(&node, b"bytes").send().await.is(200, NOTHING);
    let document = node.get("/personal-documents/d1").by("DOC003").send().await.header("etag").to_owned();
    upload(&node, b"other").header("if-match", "\"x\"").send().await.is(412, NOTHING);
    upload(&node, b"other").header("if-match", &document).send().await.is(200, CHANGED);
}

#[tokio::test]
async fn parts_can_be_asked_for() {
    let node = with_document().await;
    let bytes = picture(150_000);
    upload(&node, &bytes).send().await;
    let get = |range: &str| node.get(PATH).by("ANA001").header("range", range);
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=65535-65536", 65_535, 65_536),
        ("bytes=100000-", 100_000, 149_999),
        ("bytes=-1", 149_999, 149_999),
        ("bytes=-999999", 0, 149_999),
        ("bytes=149999-200000", 149_999, 149_999),
        ("bytes=0-149999", 0, 149_999),
    ] {
        let part = get(range).send().await.is(206, NOTHING);
        assert_eq!(part.body, &bytes[first..=last], "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {first}-{last}/150000"));
        assert_eq!(part.header("content-length"), (last - first + 1).to_string());
    }
    for beyond in ["bytes=150000-", "bytes=150000-150001", "bytes=-0"] {
        let answer = get(beyond).send().await.is(416, NOTHING);
        assert_eq!(answer.header("content-range"), "bytes */150000", "{beyond}");
    }
    for ignored in ["bytes=5-2", "bytes=0-0,2-3", "lines=0-1", "bytes", "bytes=", "bytes=a-b", "bytes=--1"] {
        let whole = get(ignored).send().await.is(200, NOTHING);
        assert_eq!(whole.body.len(), 150_000, "{ignored}");
        whole.lacks_header("content-range");
    }
    // A part of another version is of no use.
    get("bytes=0-0").header("if-range", "\"x\"").send().await.is(200, NOTHING);
    let tag = node.get(PATH).by("ANA001").send().await.header("etag").to_owned();
    get("bytes=0-0").header("if-range", &tag).send().await.is(206, NOTHING);
    let huge = "bytes=99999999999999999999-";
    assert!([200, 416].contains(&get(huge).send().await.status));
}

#[tokio::test]
async fn the_limit_of_contents_is_their_own() {
    let node = TestNode::start_with(|setup| {
        setup.settings.body_limit_bytes = 1000;
        setup.settings.content_limit_bytes = 5000;
    });
    node.people().await;
    node.post("/personal-documents/d1", json!({"fedacct": "ANA001"})).by("DOC003").send().await;
    upload(&node, &[1; 5001]).send().await.is(413, NOTHING).has(json!({"code": "too_large"}));
    upload(&node, &[1; 5000]).send().await.is(201, CHANGED);
    let long = json!({"x": "y".repeat(1000)});
    node.patch("/personal-documents/d1", long).by("DOC003").send().await.is(413, NOTHING);
    let small = TestNode::start_with(|setup| setup.settings.content_limit_bytes = 0);
    small.people().await;
    small.post("/personal-documents/d1", json!({"fedacct": "ANA001"})).by("DOC003").send().await;
    upload(&small, &[1]).send().await.is(413, NOTHING);
}

#[tokio::test]
async fn thirty_two_megabytes_pass_and_not_one_byte_more() {
    let node = with_document().await;
    let bytes = picture(32 << 20);
    upload(&node, &bytes).send().await.is(201, CHANGED);
    assert!(node.get(PATH).by("ANA001").send().await.is(200, NOTHING).body == bytes);
    upload(&node, &[bytes, vec![0]].concat()).send().await.is(413, NOTHING);
}

#[tokio::test]
async fn a_type_that_is_none_is_refused() {
    let node = with_document().await;
    for bad in
        ["", "image", "/", "image/", "/png", "a b/c", "image/png/x", &"x/".repeat(100), "text/html\u{e9}"]
    {
        let answer = upload(&node, b"x").raw_header("content-type", bad.as_bytes()).send().await;
        answer.is(415, NOTHING).has(json!({"code": "unsupported_media_type"}));
    }
    let untold = upload(&node, b"x").send().await.is(201, CHANGED);
    untold.has(json!({"type": "application/octet-stream"}));
}

#[tokio::test]
async fn only_an_upload_changes_what_is_said_about_the_bytes() {
    let node = with_document().await;
    upload(&node, b"mine").send().await;
    let theirs = hex::encode(Sha256::digest(b"theirs"));
    let claim = json!({"sha256": theirs, "length": 6, "type": "text/plain"});
    for claim in [claim.clone(), json!(null), json!({}), json!("x")] {
        node.patch("/personal-documents/d1", json!({"content": claim}))
            .by("ROOT004")
            .send()
            .await
            .is_invalid("content");
        let put = json!({"fedacct": "ANA001", "content": claim});
        node.put_json("/personal-documents/d1", put).by("ROOT004").send().await.is_invalid("content");
    }
    let new = json!({"fedacct": "ANA001", "content": claim});
    node.post("/personal-documents/d2", new.clone()).by("DOC003").send().await.is_invalid("content");
    node.put_json("/personal-documents/d2", new).by("ROOT004").send().await.is_invalid("content");
    // What was read may be written back, and PUT keeps what it leaves out.
    let shown = node.get("/personal-documents/d1").by("ROOT004").send().await.json();
    node.put_json("/personal-documents/d1", shown).by("ROOT004").send().await.is(200, NOTHING);
    node.put_json("/personal-documents/d1", json!({"n": 1})).by("ROOT004").send().await.is(200, CHANGED);
    assert_eq!(node.get(PATH).by("ANA001").send().await.text(), "mine");
}

#[tokio::test]
async fn bytes_that_have_not_come_yet_are_said_to_be_pending() {
    let node = TestNode::with_people().await;
    let content = doc! {"sha256": "00".repeat(32), "length": 70_000_i64, "type": "image/png"};
    node.from_centre(Kind::PersonalDocument, doc! {"_id": "d1", "fedacct": "ANA001", "content": content})
        .await;
    let answer = node.get(PATH).by("ANA001").send().await.is(404, NOTHING);
    let answer = answer.has(json!({"code": "content_pending", "status": 404}));
    assert!(answer.json()["error"].as_str().unwrap().contains("70000 bytes has not arrived"));
    let status = node.get("/sync/status").by("ROOT004").send().await.is(200, NOTHING);
    status.has(json!({"content_pending": 1, "content_owed": 0}));
    // Not even the parts of it that are here are served.
    let kept = node.node.store.unguarded().transact(|tx| tx.keep_chunks(&"00".repeat(32), 0, &[0; 65_536]));
    assert!(kept.await.unwrap());
    node.get(PATH).by("ANA001").send().await.is(404, NOTHING).has(json!({"code": "content_pending"}));
    node.get(PATH).by("ANA001").header("range", "bytes=0-9").send().await.is(404, NOTHING);
    // Somebody here has the bytes of the document: its want ends.
    upload(&node, b"bytes").send().await.is(200, CHANGED);
    node.get(PATH).by("ANA001").send().await.is(200, NOTHING);
    let status = node.get("/sync/status").by("ROOT004").send().await.is(200, NOTHING);
    status.has(json!({"content_pending": 0, "content_owed": 1}));
}

#[tokio::test]
async fn whoever_may_not_upload_is_told_before_the_bytes_are_read() {
    let node = with_document().await;
    upload(&node, b"x").send().await;
    let unread = |who: &str, path: &str| {
        let body = axum::body::Body::from_stream(futures_util::stream::once(async {
            panic!("the body was read");
            #[allow(unreachable_code)]
            Ok::<_, std::io::Error>(Vec::<u8>::new())
        }));
        node.request("PUT", path).by(who).bytes(body).send()
    };
    unread("ANA001", PATH).await.is(403, NOTHING);
    unread("DOC003", "/personal-documents/absent/content").await.is(404, NOTHING);
    node.get(PATH).by("BOB002").send().await.is(404, NOTHING).has(json!({"error": "Document not found"}));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    coder.write_all(bytes).unwrap();
    coder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[tokio::test]
async fn a_content_coding_is_taken_off_before_anything_is_stored() {
    let node = with_document().await;
    let bytes = picture(300_000);
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let two_members = [gzip(&bytes[..1000]), gzip(&bytes[1000..])].concat();
    for (coding, coded) in [
        ("gzip", gzip(&bytes)),
        ("x-gzip", gzip(&bytes)),
        ("GZIP", two_members),
        ("zstd", zstd(&bytes)),
        ("identity", bytes.clone()),
        ("gzip, identity", gzip(&bytes)),
    ] {
        upload(&node, b"another one").send().await;
        let call =
            upload(&node, &coded).header("content-encoding", coding).header("content-type", "image/png");
        call.send()
            .await
            .is(200, CHANGED)
            .says(json!({"sha256": sha256, "length": bytes.len(), "type": "image/png"}));
        assert_eq!(node.get(PATH).by("ANA001").send().await.body, bytes, "{coding}");
    }
    let kept = node.stored(Kind::PersonalDocument, "d1");
    for coding in ["br", "deflate", "compress", "gzip, gzip", "gzip, br", "aws-chunked", "\u{FF}"] {
        let answer = upload(&node, &bytes).header("content-encoding", coding).send().await.is(415, NOTHING);
        assert_eq!(answer.header("accept-encoding"), "gzip, zstd", "{coding}");
        assert!(answer.text().contains("gzip and zstd"), "{}", answer.text());
    }
    // Cut off, or something else than it says.
    let (short_gzip, short_zstd) = (gzip(&bytes), zstd(&bytes));
    for (coding, coded) in [
        ("gzip", bytes.clone()),
        ("zstd", bytes.clone()),
        ("gzip", zstd(&bytes)),
        ("gzip", short_gzip[..short_gzip.len() - 9].to_vec()),
        ("zstd", short_zstd[..short_zstd.len() - 9].to_vec()),
    ] {
        let answer = upload(&node, &coded).header("content-encoding", coding).send().await.is(400, NOTHING);
        assert!(answer.text().contains(coding), "{}", answer.text());
    }
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(27).unwrap();
    std::io::Write::write_all(&mut encoder, &vec![7; 20 << 20]).unwrap();
    let wide = encoder.finish().unwrap();
    let answer = upload(&node, &wide).header("content-encoding", "zstd").send().await.is(400, NOTHING);
    assert!(answer.text().contains("window larger than 8 MiB"), "{}", answer.text());
    assert_eq!(node.stored(Kind::PersonalDocument, "d1"), kept);
    // Records, too.
    let body = json!({"description": "coded"}).to_string();
    let patch =
        node.request("PATCH", "/personal-documents/d1").by("DOC003").header("content-encoding", "gzip");
    patch.bytes(gzip(body.as_bytes())).send().await.is(200, CHANGED);
}

#[tokio::test]
async fn what_is_decoded_keeps_to_the_limit() {
    let node = TestNode::start_with(|setup| setup.settings.content_limit_bytes = 100_000);
    node.people().await;
    let new = json!({"fedacct": "ANA001", "type": "picture"});
    node.post("/personal-documents/d1", new).by("DOC003").send().await;
    for (coding, code) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let send =
            |length: usize| upload(&node, &code(&vec![7; length])).header("content-encoding", coding).send();
        upload(&node, b"another one").send().await;
        assert_eq!(send(100_000).await.is(200, CHANGED).json()["length"], 100_000);
        send(100_001).await.is(413, NOTHING);
        send(50_000_000).await.is(413, NOTHING);
    }
    let body = format!("{{\"x\": \"{}\"}}", "a".repeat(3 << 20));
    let patch =
        node.request("PATCH", "/personal-documents/d1").by("DOC003").header("content-encoding", "zstd");
    patch.bytes(zstd(body.as_bytes())).send().await.is(413, NOTHING);
}

#[tokio::test]
async fn a_form_with_files_is_told_what_to_send_instead() {
    let node = with_document().await;
    let form = b"--x\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\nbytes\r\n--x--\r\n";
    for media_type in
        ["multipart/form-data; boundary=x", "Multipart/Form-Data", "multipart/mixed; boundary=x"]
    {
        let answer = upload(&node, form).header("content-type", media_type).send().await.is(415, NOTHING);
        assert!(answer.text().contains("curl -T"), "{}", answer.text());
        let record = node.request("POST", "/institutions/i9").by("DOC003").header("content-type", media_type);
        record.bytes(form.to_vec()).send().await.is(415, NOTHING);
    }
    node.get(PATH).by("ANA001").send().await.is(404, NOTHING);
}

#[tokio::test]
async fn a_part_of_a_file_does_not_take_the_place_of_the_whole() {
    let node = with_document().await;
    upload(&node, b"the whole").send().await.is(201, CHANGED);
    let part = upload(&node, b"the w").header("content-range", "bytes 0-4/9").send().await.is(400, NOTHING);
    assert!(part.text().contains("Content-Range"), "{}", part.text());
    assert_eq!(node.get(PATH).by("ANA001").send().await.is(200, NOTHING).text(), "the whole");
}
