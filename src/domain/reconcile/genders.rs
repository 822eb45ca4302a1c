//! Floor 0. Genders in the words and letters that are in use.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::domain::text::folding::{fold_name, words};

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

/// Codes for a gender of which nothing is known, and for one that was asked and not told: those are two answers.
const UNKNOWN_CODES: [&[&str]; 2] = [&["u", "unk", "unknown"], &["nd", "undisclosed", "non disclosed"]];

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

/// The gender that a text means, or the text folded; `None` if it says nothing.
pub(super) fn gender_of(text: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use bson::Bson;

    use super::super::identity::{IdentityValue, value_of};
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
