//! Floor 0. What people are told apart by, compared by meaning: names without their typography, births by the day,
//! genders in the words and letters that are in use.

use std::collections::HashMap;
use std::sync::LazyLock;

use bson::{Bson, Document};
use chrono::{Datelike as _, NaiveDate, NaiveDateTime, Timelike as _};

use super::folding::{beginning, fold_name, plain_text, words};
use super::json::{WrittenDate, plain_date, stored_moment, written_date};

/// Genders as GNU Health (`f`), HL7 FHIR (`female`) and people who speak its languages write them, each behind the
/// one that stands for it; words with blanks between. Case, accents and other typography do not count.
const GENDERS: [(&str, &[&str]); 4] = [
    (
        "female",
        &[
            // Letters and English; 2 by ISO/IEC 5218.
            "2 f fem female woman girl lady niña menina fille fillette bambina ragazza mädchen",
            // Spanish, Portuguese, French, Italian, Romanian, Catalan.
            "femenino femenina feminino feminina mujer mulher hembra feminin féminin feminine féminine femme",
            "femminile femmina donna femeie femeiesc dona",
            // German, Dutch, Swedish, Norwegian, Danish, Finnish, Icelandic.
            "w weiblich frau vrouw vrouwelijk kvinna kvinne kvinde kvinnlig kvinnelig kvindelig nainen naispuolinen kona",
            // Polish, Czech, Slovak, Croatian, Hungarian, Turkish, Albanian, Lithuanian, Latvian, Estonian.
            "kobieta żeńska žena ženský ženski ženska ženské női kadın kadin femër moteris sieviete naine",
            // Russian, Ukrainian, Bulgarian, Serbian, Greek.
            "ж жен женский женщина жінка жіноча жена женски женско γυναίκα θήλυ θηλυκό",
            // Arabic, Persian, Urdu, Hebrew, Hindi, Bengali, Nepali, Tamil.
            "أنثى امرأة زن زنانه دختر بنت مؤنث خاتون عورت נ נקבה אישה महिला स्त्री औरत নারী মহিলা பெண்",
            // Chinese, Japanese, Korean, Thai, Lao, Vietnamese, Indonesian, Malay, Swahili, Tagalog.
            "女 女性 女子 여 여자 여성 หญิง เพศหญิง ຍິງ nữ nu perempuan wanita mwanamke babae",
        ],
    ),
    (
        "male",
        &[
            "1 m masc male man boy gentleman niño menino garçon bambino ragazzo",
            "masculino masculina hombre homem varón varon macho masculin masculine homme maschile maschio uomo",
            "bărbat barbat bărbătesc home masculí",
            "männlich maennlich mann man mannelijk manlig mannlig mandlig mand mies miespuolinen",
            "mężczyzna męska muž mužský muški férfi erkek mashkull vyras vīrietis mees",
            "м муж мужской мужчина чоловік чоловіча мъж мъжки мушки мушкарац άνδρας άντρας άρρεν αρσενικό",
            "ذكر رجل مرد مردانه پسر ولد مذكر آدمی ז זכר גבר पुरुष आदमी পুরুষ ஆண்",
            "男 男性 男子 남 남자 남성 ชาย เพศชาย ຊາຍ nam laki-laki lelaki pria mwanamume mwanaume lalaki",
        ],
    ),
    ("non-binary", &["nb x"]),
    ("other", &["o"]),
];
/// What says that nothing is known of somebody's gender.
const UNKNOWN_GENDERS: [&str; 47] = [
    // By ISO/IEC 5218.
    "0",
    "9",
    "u",
    "unk",
    "unknown",
    "nd",
    "undisclosed",
    "non disclosed",
    "not known",
    "n/a",
    "none",
    "null",
    "not available",
    "not applicable",
    "not specified",
    "unspecified",
    "not reported",
    "não informado",
    "não especificado",
    "no informado",
    "not stated",
    "desconocido",
    "desconocida",
    "sin especificar",
    "no especificado",
    "desconhecido",
    "inconnu",
    "non specifie",
    "sconosciuto",
    "unbekannt",
    "keine angabe",
    "onbekend",
    "okänd",
    "ukjent",
    "ukendt",
    "tuntematon",
    "nieznana",
    "neznámé",
    "ismeretlen",
    "bilinmiyor",
    "неизвестно",
    "невідомо",
    "άγνωστο",
    "غير معروف",
    "未知",
    "不明",
    "알 수 없음",
];

/// The words for genders, folded; `None` for those that say nothing.
static GENDER_WORDS: LazyLock<HashMap<String, Option<&str>>> = LazyLock::new(|| {
    let unknown = UNKNOWN_GENDERS.into_iter().map(|word| (fold_name(word), None));
    let known = GENDERS.into_iter().flat_map(|(name, lines)| {
        let words = lines.iter().flat_map(|line| line.split(' ')).chain([name]);
        words.map(move |word| (fold_name(word), Some(name)))
    });
    unknown.chain(known).collect()
});

/// Since this year the offsets of all zones are whole or half hours, or one of [`QUARTER_HOUR_MIDNIGHTS`] (Liberia was the
/// last to change).
const WHOLE_OFFSETS_YEAR_MIN: i32 = 1972;
/// Midnights by UTC in zones at an odd quarter of an hour: Nepal (UTC+5:45), Eucla in Australia (+8:45), the Chatham Islands
/// (+12:45, in summer +13:45).
const QUARTER_HOUR_MIDNIGHTS: [(u32, u32); 4] = [(18, 15), (15, 15), (11, 15), (10, 15)];
/// From this hour on by UTC the next day begins somewhere: UTC+14:00.
const NEXT_DAY_HOUR_MIN: u32 = 10;
/// Until this second of the day by UTC the day still begins somewhere: UTC-12:00.
const SAME_DAY_SECOND_MAX: u32 = 12 * 3600;

/// Codes for a gender of which nothing is known, and for one that was asked and not told: those are two answers.
const UNKNOWN_CODES: [&[&str]; 2] = [&["u", "unk", "unknown"], &["nd", "undisclosed", "non disclosed"]];

/// Whether two texts are one name: they differ in case, accents and other typography at most.
pub(super) fn same_name(a: &str, b: &str) -> bool {
    name_of(a) == name_of(b)
}

/// Whether two texts are one gender in the words and letters that are in use.
pub(super) fn same_gender(a: &str, b: &str) -> bool {
    match (gender_of(a), gender_of(b)) {
        (Some(a), Some(b)) => a == b,
        // Both say nothing of somebody, each for a reason of its own.
        (None, None) => {
            let (a, b) = (fold_name(a), fold_name(b));
            let are_of = |codes: &[&str]| {
                let is_code = |word: &String| codes.iter().any(|code| fold_name(code) == *word);
                is_code(&a) && is_code(&b)
            };
            (a == b && !a.is_empty()) || UNKNOWN_CODES.into_iter().any(are_of)
        }
        _ => false,
    }
}

/// Whether two values are a birth on the same day, in the latitude that days have which were stored as moments. What
/// cannot be read as a day is no birth.
pub(super) fn same_birth_day(a: &Bson, b: &Bson) -> bool {
    let read = |value: &Bson| match value {
        Bson::String(text) => birth_in(text),
        other => birth_of(other),
    };
    match (read(a), read(b)) {
        (Birth::Unread(_), _) | (_, Birth::Unread(_)) => false,
        (a, b) => a.agrees(&b),
    }
}

/// What is known of somebody in one of the fields of identity; `None` if nothing is.
pub(super) fn value_of(person: &Document, field: &str) -> Option<IdentityValue> {
    let value = person.get(field)?;
    let text = match value {
        Bson::String(text) if !text.trim().is_empty() => text,
        Bson::String(_) | Bson::Null | Bson::Undefined => return None,
        Bson::Array(values) if values.is_empty() => return None,
        Bson::Document(values) if values.is_empty() => return None,
        // In doubt people are kept apart: other types are compared as they are.
        other if field == "dob" => return Some(IdentityValue::Birth(birth_of(other), moment_of(other))),
        Bson::Int32(_) | Bson::Int64(_) if field == "gender" => {
            return gender_of(&value.to_string()).map(IdentityValue::Text);
        }
        other => return Some(IdentityValue::Text(other.to_string())),
    };
    // What is kept to tell people apart is no more of it.
    let text = beginning(text);
    match field {
        "dob" => Some(IdentityValue::Birth(birth_in(text), moment_of(value))),
        "gender" => gender_of(text).map(IdentityValue::Text),
        _ => Some(IdentityValue::Text(name_of(text))),
    }
}

/// A value by which people are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IdentityValue {
    Text(String),
    /// The day, and the moment that was written for it, by UTC.
    Birth(Birth, Option<NaiveDateTime>),
}

impl IdentityValue {
    /// Whether both can be said of one person.
    pub(super) fn agrees(&self, other: &IdentityValue) -> bool {
        match (self, other) {
            // A date that a program wrote as text without its zone is the same date.
            (IdentityValue::Birth(a, moment), IdentityValue::Birth(b, other)) => {
                a.agrees(b) || (moment.is_some() && moment == other)
            }
            (a, b) => a == b,
        }
    }

    /// The same text for whatever certainly means the same, on every node.
    pub(super) fn canonical(self) -> String {
        match self {
            IdentityValue::Text(text) | IdentityValue::Birth(Birth::Unread(text), _) => text,
            IdentityValue::Birth(Birth::Day(day), _) => day.to_string(),
            IdentityValue::Birth(Birth::DayOrNext(day), _) => format!("{day} or the next day"),
        }
    }
}

/// A name, folded; one without letters and digits as it is typed.
fn name_of(text: &str) -> String {
    Some(fold_name(text)).filter(|folded| !folded.is_empty()).unwrap_or_else(|| plain_text(text))
}

fn gender_of(text: &str) -> Option<String> {
    let folded = fold_name(text);
    // A dash or a question mark.
    if folded.is_empty() {
        return None;
    }
    match GENDER_WORDS.get(&folded) {
        Some(meaning) => meaning.map(str::to_owned),
        None => gender_said_twice(text, &folded).or(Some(folded)),
    }
}

/// `Female (F)`, `M - masculino`: several words that all mean one gender. A text with more words than are looked at is none.
fn gender_said_twice(text: &str, folded: &str) -> Option<String> {
    let words = words(text);
    if words.iter().map(|word| word.joined().len()).sum::<usize>() != folded.len() {
        return None;
    }
    let mut words = words.into_iter().flat_map(|word| word.parts);
    let meaning_of = |word: String| GENDER_WORDS.get(&word).copied().flatten();
    let first = meaning_of(words.next()?)?;
    words.all(|word| meaning_of(word) == Some(first)).then(|| first.to_owned())
}

/// When somebody was born, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Birth {
    /// On this day.
    Day(NaiveDate),
    /// On this day or the next one: a moment that is a midnight on both sides of the date line.
    DayOrNext(NaiveDate),
    /// In doubt people are kept apart: what cannot be read is compared as it is typed.
    Unread(String),
}

/// The moment that a value stands for, by UTC. Small numbers are none: they may be years, ages, days or seconds as well.
fn moment_of(value: &Bson) -> Option<NaiveDateTime> {
    match value {
        Bson::String(text) => written_date(text)?.utc(),
        other => stored_moment(other),
    }
}

/// A stored date.
fn birth_of(value: &Bson) -> Birth {
    moment_of(value).map_or_else(|| Birth::Unread(value.to_string()), born_at)
}

/// The day that is written by a clock of a zone other than UTC: such clocks show the day, whatever the hour. So does
/// 24:00, the end of a day, in every zone. `None` where UTC was written or meant.
pub(super) fn written_birth_day(date: WrittenDate) -> Option<NaiveDate> {
    (date.offset_seconds != 0 || date.is_end_of_day()).then(|| date.written_day())
}

/// Whether a birth at a moment of UTC may be one of that day.
pub(super) fn is_born_on(utc: NaiveDateTime, day: NaiveDate) -> bool {
    born_at(utc).agrees(&Birth::Day(day))
}

fn birth_in(text: &str) -> Birth {
    match written_date(text) {
        // Only what is written in UTC may be the midnight of another zone.
        Some(date) if date.has_zone && written_birth_day(date).is_none() => born_at(date.local),
        Some(date) => Birth::Day(date.written_day()),
        None => Birth::Unread(plain_text(&plain_date(text))),
    }
}

impl Birth {
    fn agrees(&self, other: &Birth) -> bool {
        match (self, other) {
            (Birth::DayOrNext(first), Birth::Day(day)) | (Birth::Day(day), Birth::DayOrNext(first)) => {
                first == day || first.succ_opt() == Some(*day)
            }
            (Birth::DayOrNext(a), Birth::DayOrNext(b)) => {
                a == b || a.succ_opt() == Some(*b) || b.succ_opt() == Some(*a)
            }
            (a, b) => a == b,
        }
    }
}

/// The day that a moment of UTC stands for. Programs store a day as its midnight in their own zone: in the east of
/// Greenwich, from UTC+1 to UTC+14, that is from 10:00 to 23:00 UTC of the day before, in the west, to UTC-12, until
/// 12:00 UTC of the same day. All other moments are times of their day by UTC.
fn born_at(utc: NaiveDateTime) -> Birth {
    let day = utc.date();
    let (Some(next), true) = (day.succ_opt(), utc.hour() >= NEXT_DAY_HOUR_MIN) else {
        return Birth::Day(day);
    };
    let is_west = utc.num_seconds_from_midnight() <= SAME_DAY_SECOND_MAX;
    match (is_midnight_somewhere(utc), is_west) {
        (true, false) => Birth::Day(next),
        (true, true) => Birth::DayOrNext(day),
        // Before, clocks had minutes and seconds of their own.
        (false, _) if utc.year() < WHOLE_OFFSETS_YEAR_MIN && utc.nanosecond() == 0 => Birth::DayOrNext(day),
        (false, _) => Birth::Day(day),
    }
}

/// Whether this is a midnight in a zone of today.
fn is_midnight_somewhere(utc: NaiveDateTime) -> bool {
    let is_half_hour = utc.minute().is_multiple_of(30);
    let is_quarter = QUARTER_HOUR_MIDNIGHTS.contains(&(utc.hour(), utc.minute()));
    (is_half_hour || is_quarter) && utc.second() == 0 && utc.nanosecond() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_said_twice_are_genders() {
        let gender = |value: Bson| match value_of(&bson::doc! {"gender": value}, "gender") {
            Some(IdentityValue::Text(text)) => text,
            other => format!("{other:?}"),
        };
        for (value, meaning) in [
            (Bson::Int32(1), "male"),
            (Bson::Int64(2), "female"),
            (Bson::Int32(9), "None"),
            (Bson::Int32(3), "3"),
            ("2".into(), "female"),
            ("0".into(), "None"),
            ("Female (F)".into(), "female"),
            ("M - masculino".into(), "male"),
            ("f/m".into(), "fm"),
            ("female kin".into(), "femalekin"),
            ("laki-laki".into(), "male"),
        ] {
            assert_eq!(gender(value.clone()), meaning, "{value}");
        }
        let (often, other) = ("f ".repeat(64), "f ".repeat(64) + "m");
        assert_eq!(gender(often.as_str().into()), "female");
        assert_eq!(gender(other.as_str().into()), other.replace(' ', ""), "no word of it is passed over");
    }

    #[test]
    fn no_word_means_two_genders() {
        let mut seen: HashMap<String, &str> = HashMap::new();
        let known = GENDERS.into_iter().flat_map(|(name, lines)| {
            lines.iter().flat_map(|line| line.split(' ')).map(move |word| (name, word))
        });
        for (name, word) in known.chain(UNKNOWN_GENDERS.map(|word| ("unknown", word))) {
            let folded = fold_name(word);
            assert!(!folded.is_empty(), "{word}");
            let other = seen.insert(folded, name);
            assert!(other.is_none_or(|other| other == name), "{word}: {name} {other:?}");
        }
    }
}
