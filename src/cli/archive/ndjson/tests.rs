//! Files of documents as examples: where each document begins, and what is wrong with it.

use super::*;
use bson::doc;

/// What a file holds: texts, and faults with their places.
fn documents(file: &str) -> Vec<String> {
    // A tiny buffer, so that everything lies across its edge once.
    let input = io::BufReader::with_capacity(3, file.as_bytes());
    let shown = |found: Result<Text, Wrong>| match found {
        Ok(text) => {
            format!("{}:{} {}", text.place.line, text.place.column, String::from_utf8(text.bytes).unwrap())
        }
        Err(wrong) => format!("{}:{} ! {}", wrong.place.line, wrong.place.column, wrong.message),
    };
    Documents::new(input).map(|found| shown(found.unwrap())).collect()
}

fn document(kind: Kind, text: &str) -> Result<Document, String> {
    let text = Text { place: Place { line: 7, column: 3 }, bytes: text.as_bytes().to_vec() };
    read_document(kind, &text).map_err(|wrong| format!("{}: {}", wrong.place, wrong.message))
}

#[test]
fn lines_stand_for_themselves() {
    assert_eq!(documents("{\"a\":1}\r\n\n  {\"b\":2}"), ["1:1 {\"a\":1}\r", "3:3 {\"b\":2}"]);
    assert_eq!(documents("{]\n{}\n"), ["1:1 {]", "2:1 {}"], "a bad line does not swallow the next");
    assert!(documents("").is_empty() && documents(" \n\n").is_empty());
}

#[test]
fn documents_may_take_several_lines() {
    let pretty = "{\n\t\"_id\": \"a\",\n\t\"in\": [\n\t\t{\n\t\t\t\"b\": \"}{\"\n\t\t}\n\t]\n}\n{\n\t\"_id\": \"c\"\n}\n";
    let found = documents(pretty);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("1:1 {") && found[1].starts_with("9:1 {"), "{found:?}");
    assert_eq!(document(Kind::Page, &found[1][4..]).unwrap(), doc! {"_id": "c"});
    // What was cut off takes nothing else along.
    let found = documents("{\"a\": {\n{\"b\": 1}\n{\"c\": \"x\n{\"d\": 1}\n{\"e\": 1}{\n{}\n");
    let begins: Vec<_> = found.iter().map(|text| text.split_whitespace().next().unwrap()).collect();
    assert_eq!(begins, ["1:1", "2:1", "3:1", "4:1", "5:1", "5:9", "6:1"], "{found:?}");
    assert_eq!(documents("{\n \"a\": 1\n"), ["1:1 ! the file ends within this document"]);
}

#[test]
fn numbers_of_a_type_may_be_numbers() {
    let text = r#"{"_id": "p", "l": {"$numberLong": 5}, "i": {"$numberInt": -5}, "d": {"$numberDouble": 1.5},
        "c": {"$numberDecimal": 1.25}, "in": [{"$numberLong": 5000000000}], "when": {"$date": {"$numberLong": 7}}}"#;
    let found = document(Kind::Page, text).unwrap();
    assert_eq!(found.get("l"), Some(&Bson::Int64(5)));
    assert_eq!(found.get("i"), Some(&Bson::Int32(-5)));
    assert_eq!(found.get("d"), Some(&Bson::Double(1.5)));
    assert_eq!(found.get("c").unwrap().to_string(), "1.25");
    assert_eq!(found.get_array("in").unwrap(), &[Bson::Int64(5_000_000_000)]);
    assert_eq!(found.get_datetime("when").unwrap().timestamp_millis(), 7);
    for wrong in
        [r#"{"_id": "p", "n": {"$numberLong": 1.5}}"#, r#"{"_id": "p", "n": {"$numberInt": 5000000000}}"#]
    {
        assert!(document(Kind::Page, wrong).is_err(), "{wrong}");
    }
}

#[test]
fn arrays_are_taken_apart() {
    let file = "[{\"a\":\"]},\\\"\"},\n {\"b\":[{}]}\n]\n";
    assert_eq!(documents(file), ["1:2 {\"a\":\"]},\\\"\"}", "2:2 {\"b\":[{}]}"]);
    assert!(documents("[]").is_empty() && documents("[]\n[ ][]").is_empty());
    assert_eq!(documents("[{},]"), ["1:2 {}"]);
    assert_eq!(documents("[[{}],[{}]]"), ["1:2 [{}]", "1:7 [{}]"]);
    assert_eq!(documents("[{}]\n[{\"a\":1}]\n{}"), ["1:2 {}", "2:2 {\"a\":1}", "3:1 {}"]);
    for (file, fault) in [
        ("[{} {}]", "1:5 ! expected `,`"),
        ("[1]", "1:2 ! expected a document"),
        ("[{}", "1:4 ! expected `,`"),
        ("[{\"a\":1", "1:2 ! the file ends"),
        ("[{}] x", "1:6 ! something follows"),
    ] {
        let found = documents(file);
        assert!(found.last().unwrap().starts_with(fault), "{file}: {found:?}");
    }
}

#[test]
fn a_comment_ends_as_it_began() {
    for text in ["{// a */ }\n\"b\": 1}", "{/* // */\"b\": 1}", "{/* } */\"b\": 1}"] {
        assert_eq!(documents(text), [format!("1:1 {text}")]);
    }
}

#[test]
fn a_byte_order_mark_is_nothing() {
    let found: Vec<_> = Documents::new("\u{feff}{}".as_bytes()).collect();
    assert_eq!(found[0].as_ref().unwrap().as_ref().unwrap().bytes, b"{}");
}

#[test]
fn types_and_order_survive() {
    let text = r#"{"z":{"$numberLong":"5"},"_id":"p1","n":5,"m":5000000000,"x":1.0,"id":"q",
        "d":{"$date":"1985-10-04T13:05:00Z"},"e":{"$date":{"$numberLong":"-1"}},"o":{"$oid":"0102030405060708090a0b0c"},
        "c":{"$numberDecimal":"1.10"},"b":{"$binary":{"base64":"AQI=","subType":"00"}}}"#;
    let found = document(Kind::Page, text).unwrap();
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>().join(""), "z_idnmxiddeocb");
    assert_eq!(found.get("z"), Some(&Bson::Int64(5)));
    assert_eq!(found.get("n"), Some(&Bson::Int32(5)));
    assert_eq!(found.get("m"), Some(&Bson::Int64(5_000_000_000)));
    assert_eq!(found.get("x"), Some(&Bson::Double(1.0)));
    assert_eq!(found.get_datetime("d").unwrap().timestamp_millis(), 497_279_100_000);
    assert_eq!(found.get_datetime("e").unwrap().timestamp_millis(), -1);
    assert_eq!(found.get("c").unwrap().to_string(), "1.10");
}

#[test]
fn an_id_is_an_id_by_either_name() {
    let found = document(Kind::Person, r#"{"name": "Ana", "id": "ANA", "active": true}"#).unwrap();
    assert_eq!(found, doc! {"name": "Ana", "_id": "ANA", "active": true});
    assert_eq!(found.keys().nth(1).map(String::as_str), Some("_id"), "it keeps its place");
}

/// What mongoexport wrote before MongoDB 4.2.
#[test]
fn old_exports_are_read() {
    let text = r#"{"_id": "p", "b": {"$binary": "AQID", "$type": "00"}, "c": {"$binary": "AQID", "$type": 4},
        "in": [{"at": {"$date": "1985-10-04T13:05:00.000+0000"}}], "r": {"$regex": "^a", "$options": "i"},
        "d": {"$date": "1985-10-04T15:05:00.000+0200"}, "n": {"$date": 497279100000},
        "t": {"$timestamp": {"t": 5, "i": 1}}, "l": {"$numberLong": "7"}, "u": {"$undefined": true}}"#;
    let found = document(Kind::Page, text).unwrap();
    let date = bson::DateTime::from_millis(497_279_100_000);
    let binary = |subtype| bson::Binary { subtype, bytes: vec![1, 2, 3] };
    let regex = bson::Regex { pattern: "^a".try_into().unwrap(), options: "i".try_into().unwrap() };
    assert_eq!(
        found,
        doc! {"_id": "p", "b": binary(bson::spec::BinarySubtype::Generic),
        "c": binary(bson::spec::BinarySubtype::Uuid), "in": [{"at": date}], "r": regex, "d": date, "n": date,
        "t": bson::Timestamp { time: 5, increment: 1 }, "l": 7_i64, "u": Bson::Undefined}
    );
    assert!(document(Kind::Page, r#"{"_id": "p", "b": {"$binary": "AQID", "$type": "zz"}}"#).is_err());
}

#[test]
fn a_mark_of_byte_order_is_skipped_and_utf_16_is_named() {
    assert_eq!(documents("\u{FEFF}{\"a\":1}"), ["1:1 {\"a\":1}"]);
    for text in ["{\"_id\":\"a\"}", "\u{FEFF}[]"] {
        let units = text.encode_utf16();
        let (little, big): (Vec<[u8; 2]>, Vec<[u8; 2]>) =
            units.map(|unit| (unit.to_le_bytes(), unit.to_be_bytes())).unzip();
        for bytes in [little.concat(), big.concat()] {
            let found: Vec<_> = Documents::new(bytes.as_slice()).map(Result::unwrap).collect();
            let [Err(wrong)] = found.as_slice() else { panic!("{found:?}") };
            assert!(wrong.message.contains("UTF-16"), "{}", wrong.message);
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let clear = r#"{"_id": "A", "password": "gnusolidario"}"#;
    for (text, message) in [
        ("{\"_id\": \"A\",\n  \"n\": tru}", "line 8 column 11: not JSON"),
        ("{\"_id\" \"A\"}", "line 7 column 10: not JSON"),
        (r#"{"_id": "A", "a": {"b": 1, "b": 2}}"#, "line 7 column 3: a.b: the key stands twice"),
        (r#"{"_id": "A", "n": 99999999999999999999}"#, "n: an integer outside 64 bits"),
        (r#"{"_id": "A", "dob": {"$date": "yesterday"}}"#, "dob: not MongoDB extended JSON"),
        (r#"{"_id": {"$oid": "0102030405060708090a0b0c"}}"#, "_id: must be text"),
        (r#"{"_id": 5}"#, "_id: must be text"),
        (r#"{"_id": ""}"#, "_id: must not be empty"),
        (r#"{"name": "A"}"#, "_id: missing"),
        (r#"{"_id": "A", "a\u0000b": 1}"#, "NUL"),
        ("[]", "a record must be a JSON object"),
        (clear, "password: not a bcrypt hash"),
    ] {
        let error = document(Kind::Person, text).unwrap_err();
        assert!(error.contains(message), "{text}: {error}");
        assert!(!error.contains("yesterday") && !error.contains("gnusolidario"), "{error}");
    }
    assert!(document(Kind::Page, clear).is_ok(), "only people log in");
    assert!(document(Kind::Person, r#"{"_id": "A", "password": null}"#).is_ok());
}

/// What MongoDB's shell, people and APIs write between documents and in them.
#[test]
fn comments_quotes_and_expressions_hide_brackets() {
    assert_eq!(documents("/* 1 */\n{a: 1}\n\n// {\n/* 2 {[ */ {b: 2}"), ["2:1 {a: 1}", "5:12 {b: 2}"]);
    assert_eq!(
        documents("{a: '}\"', b: /[}\\/]}/i, // }\n  c: /* } */ 1}"),
        ["1:1 {a: '}\"', b: /[}\\/]}/i, // }\n  c: /* } */ 1}"]
    );
    assert_eq!(documents("{a: 1},\n{b: 2},"), ["1:1 {a: 1},", "2:1 {b: 2},"]);
    assert_eq!(documents("{}\n/* {}\n{}"), ["1:1 {}", "2:1 ! a comment does not end; the rest was not read"]);
    assert_eq!(documents("{}\n/{}"), ["1:1 {}", "2:2 {}"]);
    let read = |text| document(Kind::Page, text);
    let found = read(
        "{_id: 'p', at: ISODate('1985-10-04T13:05:00Z'), n: NumberLong(5), o: new ObjectId('0102030405060708090a0b0c'),},",
    );
    let date = bson::DateTime::from_millis(497_279_100_000);
    let oid = bson::oid::ObjectId::parse_str("0102030405060708090a0b0c").unwrap();
    assert_eq!(found.unwrap(), doc! {"_id": "p", "at": date, "n": 5_i64, "o": oid});
    let error = read("{_id: 'p', at: print(1)}").unwrap_err();
    assert!(error.contains("line 7 column 18: not understood: `print(…)`"), "{error}");
}

#[test]
fn rows_may_be_a_member() {
    let read = |text: &str, before, depth| -> Vec<String> {
        let place = Place { line: 1, column: 1 };
        let found = Documents::of_member(text.as_bytes(), place, before, depth).unwrap();
        found
            .map(|found| match found.unwrap() {
                Ok(text) => String::from_utf8(text.bytes).unwrap(),
                Err(wrong) => wrong.message,
            })
            .collect()
    };
    assert_eq!(read(r#"{"rows": [{"a": 1}, {}]}"#, 9, 1), [r#"{"a": 1}"#, "{}"]);
    assert_eq!(read(r#"{"rows": [{}], "total": 1, "meta": {"page": "1"}}"#, 9, 1), ["{}"]);
    assert_eq!(read("{\"a\": {\"rows\": [{}], \"n\": 1},\n \"total\": 1}", 15, 2), ["{}"]);
    assert_eq!(read(r#"{"rows": [{}], "errors": []}"#, 9, 1), ["{}"]);
    // Answers one after the other.
    assert_eq!(
        read(r#"{"rows": [{}]}{"rows": []} {"rows": [{}]}"#, 9, 1),
        ["{}", r#"{"rows": []} "#, r#"{"rows": [{}]}"#]
    );
    assert_eq!(read("{\"rows\": [{}]},\n{\"rows\": [{}]}", 9, 1), ["{}", r#"{"rows": [{}]}"#]);
    for beside in
        [r#""more": [{}]"#, r#""_id": "x""#, r#""a": {"#, r#""a": {"id": "x"}"#, r#""a": {"b": [5]}"#]
    {
        let found = read(&format!("{{\"rows\": [{{}}], {beside}}}"), 9, 1);
        assert_eq!(found, ["{}", "what stands beside the rows was not read"], "{beside}");
        let found = read(&format!("{{\"a\": {{\"rows\": [{{}}]}}, {beside}}}"), 15, 2);
        assert_eq!(found, ["{}", "what stands beside the rows was not read"], "{beside}");
    }
}
