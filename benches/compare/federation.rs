//! Records in the shape of the federation's: people, and five pages of life each. The same from the same number.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde_json::{Value, json};

/// Pages in each book.
pub(crate) const PAGES: usize = 5;
/// The account with which everything is measured, and its password.
pub(crate) const DOCTOR: &str = "BENCHDOCTOR";
pub(crate) const PASSWORD: &str = "swift as a river";

const NAMES: [&str; 12] =
    ["Ana", "José", "Łukasz", "Zoë", "Björn", "Amina", "Priya", "Ñusta", "Ahmed", "Müge", "Mei", "Kofi"];
const LASTNAMES: [&str; 10] =
    ["Betz", "Núñez", "Müller", "Okafor", "Åkesson", "Dvořák", "García", "Çelik", "Diallo", "Tanaka"];
const CONDITIONS: [(&str, &str); 5] = [
    ("O80", "Single spontaneous delivery"),
    ("I10", "Essential (primary) hypertension"),
    ("E11.9", "Type 2 diabetes mellitus without complications"),
    ("J45", "Asthma"),
    ("B54", "Unspecified malaria"),
];
const SENTENCES: [&str; 5] = [
    "Patient seen at the outpatient clinic. ",
    "Vital signs within normal limits. ",
    "Treatment was explained and a control visit was agreed upon. ",
    "No known allergies. ",
    "Laboratory results are attached to the local node. ",
];

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The account of one of them; the first is the doctor.
pub(crate) fn account(number: usize) -> String {
    if number == 0 { DOCTOR.to_owned() } else { format!("ESPGNU{number:07}ORG") }
}

fn page_id(person: usize, page: usize) -> String {
    let mut numbers = Numbers((person * PAGES + page) as u64);
    let mut part = || numbers.below(1 << 32) as u128;
    let bits = part() << 96 | part() << 64 | part() << 32 | part();
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
}

/// The phone number that somebody has after so many turns of changing everybody's.
pub(crate) fn phone_of(number: usize, turn: usize) -> String {
    format!("+34 {turn:03} {number:07}")
}

pub(crate) fn person(number: usize, turn: usize, hash: &str) -> Value {
    let mut numbers = Numbers(number as u64);
    let roles = if number == 0 { vec!["end_user", "health_professional"] } else { vec!["end_user"] };
    let (year, month, day) = (1930 + numbers.below(90), 1 + numbers.below(12), 1 + numbers.below(28));
    json!({
        "_id": account(number), "name": numbers.pick(&NAMES),
        "lastname": format!("{} {}", numbers.pick(&LASTNAMES), numbers.pick(&LASTNAMES)),
        "gender": numbers.pick(&["f", "m", "nb"]), "dob": format!("{year}-{month:02}-{day:02}"),
        "marital_status": numbers.pick(&["single", "married", "widow", "separated"]),
        "ethnicity": numbers.pick(&["latino", "african", "asian", "mixed"]),
        "education": numbers.pick(&["none", "primary", "secondary", "tertiary"]),
        "profession": numbers.pick(&["teacher", "nurse", "farmer", "driver", "student"]),
        "phone": phone_of(number, turn),
        "password": hash, "roles": roles, "active": true,
    })
}

pub(crate) fn page(owner: usize, number: usize) -> Value {
    let mut numbers = Numbers((owner * PAGES + number + 1_000_000_007) as u64);
    let (code, text) = numbers.pick(&CONDITIONS);
    let (year, month, day) = (2000 + numbers.below(26), 1 + numbers.below(12), 1 + numbers.below(28));
    let info: String = (0..1 + numbers.below(4)).map(|_| numbers.pick(&SENTENCES)).collect();
    json!({
        "_id": page_id(owner, number), "book": account(owner),
        "page_date": format!("{year}-{month:02}-{day:02}T10:{:02}:00Z", numbers.below(60)),
        "age": format!("{}y {}m {}d", numbers.below(90), numbers.below(12), numbers.below(30)),
        "page_type": "medical", "medical_context": numbers.pick(&["birth", "procedure", "encounter"]),
        "health_condition_text": text, "health_condition_code": code,
        "relevance": numbers.pick(&["important", "informational", "minor"]), "summary": text,
        "info": info, "node": numbers.pick(&["Milano General Hospital", "Hospital Lola Mora"]), "active": true,
    })
}

/// Writes `people.jsonl` and `pols.jsonl`, as `import` reads them.
pub(crate) fn write(directory: &Path, people: usize) {
    std::fs::create_dir_all(directory).unwrap();
    // The passwords of all, at the cost that nodes use.
    let hash = bcrypt::hash(PASSWORD, 12).unwrap();
    let create = |name: &str| BufWriter::new(File::create(directory.join(name)).unwrap());
    let (mut persons, mut pages) = (create("people.jsonl"), create("pols.jsonl"));
    for number in 0..people {
        writeln!(persons, "{}", person(number, 0, &hash)).unwrap();
        for at in 0..PAGES {
            writeln!(pages, "{}", page(number, at)).unwrap();
        }
    }
    persons.flush().unwrap();
    pages.flush().unwrap();
}
