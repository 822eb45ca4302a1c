//! Texts of the shell as examples: what each stands for, or what is wrong with it.

use super::*;

#[test]
fn every_type_of_the_shell_is_read() {
    for (text, value) in [
        (r#"ISODate("1985-10-04T13:05:00Z")"#, json!({"$date": {"$numberLong": "497279100000"}})),
        (r#"ISODate('1985-10-04T15:05:00+02:00')"#, json!({"$date": {"$numberLong": "497279100000"}})),
        (r#"new Date("1985-10-04")"#, json!({"$date": {"$numberLong": "497232000000"}})),
        ("new Date(-1)", json!({"$date": {"$numberLong": "-1"}})),
        ("Date( 497279100000 )", json!({"$date": {"$numberLong": "497279100000"}})),
        (r#"new ISODate(NumberLong("7"))"#, json!({"$date": {"$numberLong": "7"}})),
        (r#"ObjectId("0102030405060708090A0B0C")"#, json!({"$oid": "0102030405060708090a0b0c"})),
        (r#"NumberLong("9007199254740993")"#, json!({"$numberLong": "9007199254740993"})),
        ("NumberLong(5)", json!({"$numberLong": "5"})),
        ("Long.fromString('-5')", json!({"$numberLong": "-5"})),
        ("NumberInt(5)", json!({"$numberInt": "5"})),
        ("new Int32(-5)", json!({"$numberInt": "-5"})),
        (r#"NumberDecimal("1.10")"#, json!({"$numberDecimal": "1.10"})),
        (r#"Decimal128.fromString("1.10")"#, json!({"$numberDecimal": "1.10"})),
        ("Double(1.5)", json!({"$numberDouble": "1.5"})),
        (r#"BinData(0, "AQID")"#, json!({"$binary": {"base64": "AQID", "subType": "00"}})),
        (r#"HexData(128, "010203")"#, json!({"$binary": {"base64": "AQID", "subType": "80"}})),
        (r#"Binary.createFromBase64("AQID", 4)"#, json!({"$binary": {"base64": "AQID", "subType": "04"}})),
        (
            r#"Binary(Buffer.from("010203", "hex"), 0)"#,
            json!({"$binary": {"base64": "AQID", "subType": "00"}}),
        ),
        (
            r#"UUID("0102030405060708090a0b0c0d0e0f10")"#,
            json!({"$uuid": "01020304-0506-0708-090a-0b0c0d0e0f10"}),
        ),
        ("Timestamp(5, 1)", json!({"$timestamp": {"t": 5, "i": 1}})),
        ("Timestamp({ t: 5, i: 1 })", json!({"$timestamp": {"t": 5, "i": 1}})),
        (r"/^a\/[/]b/im", json!({"$regularExpression": {"pattern": r"^a\/[/]b", "options": "im"}})),
        (r#"RegExp("^a", "i")"#, json!({"$regularExpression": {"pattern": "^a", "options": "i"}})),
        (r#"DBRef("people", "ANA")"#, json!({"$ref": "people", "$id": "ANA"})),
        ("[MinKey, MaxKey(), undefined]", json!([{"$minKey": 1}, {"$maxKey": 1}, {"$undefined": true}])),
        ("[NaN, -Infinity]", json!([{"$numberDouble": "NaN"}, {"$numberDouble": "-Infinity"}])),
        ("[1, -2, 1.0, 1e3, .5, true, false, null,]", json!([1, -2, 1.0, 1000.0, 0.5, true, false, null])),
        (
            "/* 1 */ {_id: 'it\\'s \\x41\\u00e9\\ud83d\\ude00', \"b\": {}, // the last\n $c: \"'\",}",
            json!({"_id": "it's Aé😀", "b": {}, "$c": "'"}),
        ),
    ] {
        assert_eq!(parse_shell(text.as_bytes()), Ok(value), "{text}");
    }
}

#[test]
fn what_is_not_understood_is_said_with_its_place() {
    let deep = "[".repeat(1000);
    for (text, line, column, message) in [
        ("{a: 1,\n b: print(1)}", 2, 5, "`print(…)` is not understood"),
        ("{a: ISODate()}", 1, 5, "ISODate(…) needs a date"),
        ("{a: new Date(1985, 9, 4)}", 1, 5, "Date(…) needs a date"),
        ("{a: ISODate('soon')}", 1, 5, "ISODate(…) needs a date"),
        ("{a: NumberLong(1.5)}", 1, 5, "needs a whole number"),
        ("{a: NumberInt(5000000000)}", 1, 5, "needs a whole number"),
        ("{a: BinData(0, '%')}", 1, 5, "its bytes are not understood"),
        ("{a: UUID('00')}", 1, 5, "32 hexadecimal digits"),
        ("{a: 1, a: 2}", 1, 8, "a: the key stands twice"),
        ("{a: 99999999999999999999}", 1, 5, "an integer outside 64 bits"),
        ("{a: 010}", 1, 5, "not a number"),
        ("{a: 'b\nc'}", 1, 7, "a control character"),
        ("{a: 'b", 1, 7, "a text does not end"),
        ("{a: 1} x", 1, 8, "something follows"),
        ("{a: tru}", 1, 5, "`tru` is no value"),
        ("{a: /* 1}", 1, 5, "a comment does not end"),
        ("{a: '\\ud800'}", 1, 12, "no character"),
        ("{1: 2}", 1, 2, "expected the name"),
        ("", 1, 1, "ends too early"),
        (deep.as_str(), 1, 65, "nested deeper"),
    ] {
        let error = parse_shell(text.as_bytes()).unwrap_err();
        assert!(error.message.contains(message), "{text}: {error:?}");
        assert_eq!((error.line, error.column), (line, column), "{text}: {error:?}");
    }
    assert!(parse_shell(b"{a: '\xFF'}").unwrap_err().message.contains("UTF-8"));
    // Any beginning of a document ends in an error.
    let text = r#"{"a": [ISODate("1985-10-04"), /x/i, 'é'], b: BinData(0, "AQID") /* c */}"#;
    for end in 0..text.len() {
        assert!(parse_shell(&text.as_bytes()[..end]).is_err(), "{end}");
    }
}
