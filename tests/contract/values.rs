//! The cases of single values: what MongoDB takes for equal, and what the type beside it tells apart.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Regex, Timestamp, bson, doc};

use super::cases::Answer::{Hit, Miss};
use super::cases::{Attempt, Case, case, change, set_f};

fn decimal(text: &str) -> Decimal128 {
    text.parse().expect("a decimal")
}

fn binary(subtype: BinarySubtype, bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype, bytes: bytes.to_vec() })
}

/// Absent, null, and the types of numbers: MongoDB's `$eq` compares numbers by value and finds null in a
/// missing field; `$type` tells them apart. (The deprecated types undefined, symbol and pointer are not
/// among the cases: SecantusDB stores null and text for them.)
pub(super) fn scalars() -> Vec<Case> {
    let null = || set_f(Bson::Null);
    let absent = || Attempt::Update(vec![change("f", None, Some("new".into()))]);
    let date = |ms| Bson::DateTime(DateTime::from_millis(ms));
    vec![
        case("absent, absent", doc! {"x": 1}, absent(), Hit),
        case("absent, null stored", doc! {"f": null}, absent(), Miss),
        case("absent, value stored", doc! {"f": 1}, absent(), Miss),
        case("null, null", doc! {"f": null}, null(), Hit),
        case("null, absent stored", doc! {"x": 1}, null(), Miss),
        case("null, [null] stored", doc! {"f": [null]}, null(), Miss),
        case("1, 1", doc! {"f": 1}, set_f(1), Hit),
        case("1, 1.0 stored", doc! {"f": 1.0}, set_f(1), Miss),
        case("1, 64-bit 1 stored", doc! {"f": 1_i64}, set_f(1), Miss),
        case("64-bit 1, 1 stored", doc! {"f": 1}, set_f(1_i64), Miss),
        case("64-bit 1, 64-bit 1", doc! {"f": 1_i64}, set_f(1_i64), Hit),
        case("1.0, decimal 1.0 stored", doc! {"f": decimal("1.0")}, set_f(1.0), Miss),
        case("decimal, decimal", doc! {"f": decimal("1.50")}, set_f(decimal("1.50")), Hit),
        // Equal numbers of one type are equal to MongoDB, however they are written.
        case("decimal 1.5, 1.50 stored", doc! {"f": decimal("1.50")}, set_f(decimal("1.5")), Hit),
        case("-0.0, 0.0 stored", doc! {"f": 0.0}, set_f(-0.0), Hit),
        case("NaN, NaN", doc! {"f": f64::NAN}, set_f(f64::NAN), Hit),
        case("NaN, 0.0 stored", doc! {"f": 0.0}, set_f(f64::NAN), Miss),
        case("infinity", doc! {"f": f64::INFINITY}, set_f(f64::INFINITY), Hit),
        case("true, 1 stored", doc! {"f": 1}, set_f(true), Miss),
        case("text by bytes", doc! {"f": "A"}, set_f("a"), Miss),
        case("text that looks like a path", doc! {"f": "$x"}, set_f("$x"), Hit),
        case("empty text, absent stored", doc! {"x": 1}, set_f(""), Miss),
        case("date, date", doc! {"f": date(5)}, set_f(date(5)), Hit),
        case("date before 1970", doc! {"f": date(-5)}, set_f(date(-5)), Hit),
        case("date, other date stored", doc! {"f": date(6)}, set_f(date(5)), Miss),
        case("date, number stored", doc! {"f": 5_i64}, set_f(date(5)), Miss),
    ]
}

/// Types that few fields have.
pub(super) fn rare_types() -> Vec<Case> {
    let regex = |pattern: &str| {
        let pattern = pattern.try_into().expect("no zero byte");
        let options = "i".try_into().expect("no zero byte");
        Bson::RegularExpression(Regex { pattern, options })
    };
    let time = |time| Bson::Timestamp(Timestamp { time, increment: 1 });
    let generic = BinarySubtype::Generic;
    vec![
        case("bytes", doc! {"f": binary(generic, b"ab")}, set_f(binary(generic, b"ab")), Hit),
        case(
            "bytes of another subtype",
            doc! {"f": binary(BinarySubtype::Md5, b"ab")},
            set_f(binary(generic, b"ab")),
            Miss,
        ),
        case("expression", doc! {"f": regex("^a")}, set_f(regex("^a")), Hit),
        case("expression, text it matches", doc! {"f": "abc"}, set_f(regex("^a")), Miss),
        case("timestamp", doc! {"f": time(7)}, set_f(time(7)), Hit),
        case("timestamp, other stored", doc! {"f": time(8)}, set_f(time(7)), Miss),
        case("lowest key", doc! {"f": Bson::MinKey}, set_f(Bson::MinKey), Hit),
        case("highest key", doc! {"f": Bson::MaxKey}, set_f(Bson::MaxKey), Hit),
        case("highest key, lowest stored", doc! {"f": Bson::MinKey}, set_f(Bson::MaxKey), Miss),
    ]
}

/// MongoDB's `{f: v}` also matches an array that has v as an element.
pub(super) fn arrays() -> Vec<Case> {
    vec![
        case("x, [x] stored", doc! {"f": ["x"]}, set_f("x"), Miss),
        case("[x], x stored", doc! {"f": "x"}, set_f(bson!(["x"])), Miss),
        case("[x], [x]", doc! {"f": ["x"]}, set_f(bson!(["x"])), Hit),
        case("[x], [[x]] stored", doc! {"f": [["x"]]}, set_f(bson!(["x"])), Miss),
        case("[[x]], [[x]]", doc! {"f": [["x"]]}, set_f(bson!([["x"]])), Hit),
        case("[[x]], [[[x]]] stored", doc! {"f": [[["x"]]]}, set_f(bson!([["x"]])), Miss),
        case("[x], [x, [x]] stored", doc! {"f": ["x", ["x"]]}, set_f(bson!(["x"])), Miss),
        case("[], []", doc! {"f": []}, set_f(bson!([])), Hit),
        case("[], [[]] stored", doc! {"f": [[]]}, set_f(bson!([])), Miss),
        case("[], absent stored", doc! {"x": 1}, set_f(bson!([])), Miss),
        case("[x, y], [y, x] stored", doc! {"f": ["y", "x"]}, set_f(bson!(["x", "y"])), Miss),
        case("[x], [x, y] stored", doc! {"f": ["x", "y"]}, set_f(bson!(["x"])), Miss),
        // Inside an array MongoDB compares numbers by value: the types there are not looked at.
        case("[1], [1.0] stored", doc! {"f": [1.0]}, set_f(bson!([1])), Hit),
        case("documents in an array", doc! {"f": [{"a": 1, "b": 2}]}, set_f(bson!([{"a": 1, "b": 2}])), Hit),
        case(
            "documents in an array, other order of keys stored",
            doc! {"f": [{"b": 2, "a": 1}]},
            set_f(bson!([{"a": 1, "b": 2}])),
            Miss,
        ),
    ]
}
