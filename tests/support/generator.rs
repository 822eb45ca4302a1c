//! People and pages in the shape of GNU Health's demo records, and documents of every BSON type: the same
//! from the same seed.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, Regex, Timestamp, bson, doc};

const NAMES: [&str; 12] = [
    "Ana",
    "José María",
    "Łukasz",
    "Zoë",
    "Björn",
    "Ngọc",
    "Chloé",
    "Ñusta",
    "Ahmed",
    "Müge",
    "Françoise",
    "İpek",
];
const LASTNAMES: [&str; 10] = [
    "Betz",
    "Núñez",
    "Müller-Lüdenscheidt",
    "O'Brien",
    "Åkesson",
    "Dvořák",
    "García Márquez",
    "Çelik",
    "Øverland",
    "李",
];
const COUNTRIES: [&str; 6] = ["ESP", "ITA", "ARG", "DEU", "LAO", "GMB"];
const CONTEXTS: [&str; 5] = ["birth", "medical_consultation", "lab", "social_gathering", "self_monitoring"];
const BCRYPT_ALPHABET: &[u8; 64] = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A small generator of numbers (SplitMix64) that gives the same ones on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.below(from.len() as u64);
        &from[usize::try_from(index).expect("an index")]
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Federation accounts like `ESPGNU777ORG`, all different.
pub(crate) fn account(number: usize, numbers: &mut Numbers) -> String {
    let mut letters = || {
        let letter = |n: u64| char::from(b'A' + u8::try_from(n % 26).expect("a letter"));
        (0..3).map(|_| letter(numbers.next())).collect::<String>()
    };
    let (middle, end) = (letters(), letters());
    format!("{}{middle}{number:04}{end}", COUNTRIES[number % COUNTRIES.len()])
}

pub(crate) fn people(count: usize, seed: u64) -> Vec<Document> {
    let mut numbers = Numbers::new(seed);
    (0..count)
        .map(|number| {
            let numbers = &mut numbers;
            let year = 1930 + numbers.below(90);
            let born = format!("{year}-{:02}-{:02}", 1 + numbers.below(12), 1 + numbers.below(28));
            let hash: String = (0..53).map(|_| char::from(*numbers.pick(BCRYPT_ALPHABET))).collect();
            let mut person = doc! {
                "_id": account(number, numbers),
                "name": *numbers.pick(&NAMES),
                "lastname": *numbers.pick(&LASTNAMES),
                "gender": *numbers.pick(&["f", "m", "nb"]),
                "dob": born,
                "phone": format!("+34 {:09}", numbers.below(1_000_000_000)),
                "address": *numbers.pick(&["Calle Mayor 1", "ถนนพระราม 4", "Straße des 17. Juni 135"]),
                "marital_status": *numbers.pick(&["single", "married", "widowed"]),
                "education": *numbers.pick(&["none", "primary", "tertiary"]),
                "profession": *numbers.pick(&["teacher", "sage-femme", "Ärztin"]),
                "roles": ["end_user"],
                "password": format!("$2b$12${hash}"),
                "active": true,
            };
            if number % 17 == 0 {
                person.insert("roles", vec!["end_user", "health_professional"]);
            }
            person
        })
        .collect()
}

pub(crate) fn pages(count: usize, people: &[Document], seed: u64) -> Vec<Document> {
    let mut numbers = Numbers::new(seed);
    (0..count)
        .map(|number| {
            let numbers = &mut numbers;
            let (high, low) = (numbers.next(), numbers.next());
            let id = uuid::Uuid::from_u64_pair(high, low).to_string();
            let book = people[number % people.len()].get_str("_id").expect("an account");
            let (year, month, day) = (2000 + numbers.below(26), 1 + numbers.below(12), 1 + numbers.below(28));
            let mut page = doc! {
                "_id": id,
                "book": book,
                "page_date": format!("{year}-{month:02}-{day:02}T10:{:02}:00Z", numbers.below(60)),
                "age": format!("{}y {}m\u{200b}", numbers.below(90), numbers.below(12)),
                "page_type": *numbers.pick(&["medical", "biographical", "social"]),
                "medical_context": *numbers.pick(&CONTEXTS),
                "relevance": *numbers.pick(&["important", "informational", "normal"]),
                "summary": "Revisión — contrôle",
                "info": "lorem ipsum ".repeat(usize::try_from(1 + numbers.below(20)).expect("a length")),
                "node": *numbers.pick(&["Milano General Hospital", "Clínica 7"]),
                "author": "Cameron Cordara",
            };
            if number % 9 == 0 {
                let (systolic, weight) = (110 + numbers.below(40), 50.5 + numbers.below(40) as f64);
                page.insert(
                    "measurements",
                    bson!([{"bp": {"systolic": systolic as i64, "diastolic": 80}, "wt": weight}]),
                );
            }
            page
        })
        .collect()
}

/// Documents with every type that BSON has, by collection. The people among them come with pages.
pub(crate) fn every_type() -> Vec<(&'static str, Document)> {
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().expect("a decimal"));
    let binary = |subtype, bytes: &[u8]| Bson::Binary(Binary { subtype, bytes: bytes.to_vec() });
    let regex = Bson::RegularExpression(Regex {
        pattern: "^a.*ñ$".try_into().expect("a pattern"),
        options: "i".try_into().expect("options"),
    });
    let all = doc! {
        "date": DateTime::from_millis(465_814_800_123), "old_date": DateTime::from_millis(-2_208_988_800_000),
        "int": 7, "long": 7_i64, "longest": i64::MAX, "double": 7.0, "tiny": 5e-324, "minus_zero": -0.0,
        "nan": f64::NAN, "infinite": f64::INFINITY, "decimal": decimal("7.00"), "large": decimal("9.99E+6000"),
        "bytes": binary(BinarySubtype::Generic, &[0, 1, 254, 255]),
        "uuid": binary(BinarySubtype::Uuid, &[7; 16]), "oid": ObjectId::from_bytes([9; 12]),
        "nested": {"deep": {"deeper": {"null": null, "empty": {}, "list": []}}, "z": 1, "a": 2},
        "list": [1, 1_i64, 1.0, "1", null, [[]], {"b": 1, "a": {"c": [true, false]}}],
        "null": null, "true": true, "text": "a\u{0}b — ☂ \u{200b}", "empty": "", "regex": regex,
        "timestamp": Bson::Timestamp(Timestamp { time: 1_700_000_000, increment: 3 }),
        "code": Bson::JavaScriptCode("return 1".into()), "min": Bson::MinKey, "max": Bson::MaxKey,
        "dotted": {"a.b": 1, "$c": 2, "0": 3},
    };
    let with = |id: &str, more: Document| {
        let mut document = doc! {"_id": id};
        document.extend(more);
        document.extend(all.clone());
        document
    };
    let legacy_id = doc! {"name": "Old", "id": "kept as it is", "active": false};
    vec![
        ("people", with("ZZZALL0001TYP", doc! {"name": "Éva", "active": true})),
        ("people", with("ZZZALL0002TYP", legacy_id)),
        ("people", with("zzzall0003typ", doc! {"name": "written in lower case"})),
        ("pols", with("every-type", doc! {"book": "ZZZALL0001TYP"})),
        ("personal_document", with("doc-1", doc! {"fedacct": "ZZZALL0001TYP"})),
        ("domiciliary_unit", with("du-1", Document::new())),
        ("institution", with("inst-1", Document::new())),
        ("encounter", with("enc-1", doc! {"person": "ZZZALL0001TYP"})),
        ("event", with("ev-1", doc! {"person": "ZZZALL0001TYP"})),
        ("measurements", with("me-1", doc! {"person": "ZZZALL0001TYP"})),
        ("hospitalization", with("ho-1", doc! {"person": "ZZZALL0001TYP"})),
    ]
}
