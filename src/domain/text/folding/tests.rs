//! Floor 0. Names that fold alike, and those that do not.

use sha2::{Digest as _, Sha256};

use super::*;

#[test]
fn typography_is_no_part_of_a_name() {
    for spellings in [
        &[
            "O'Brien",
            "O’Brien",
            "O‘Brien",
            "OʼBrien",
            "Oʻbrien",
            "O´Brien",
            "O`Brien",
            "O′Brien",
            "O＇Brien",
            "O\u{A78C}Brien",
            "O Brien",
            "OBRIEN",
            "o'brien",
            "O\u{02B9}Brien",
        ][..],
        &["Weiß", "Weiss", "WEISS", "WEIẞ", "weiß"],
        &[
            "Pérez-Gómez",
            "Perez Gomez",
            "PÉREZ‐GÓMEZ",
            "Pérez\u{2011}Gómez",
            "Pérez–Gómez",
            "Pérez—Gómez",
            "Pérez−Gómez",
            "Pérez  Gómez",
            "Pérez\u{A0}Gómez",
            " Pérez\tGómez ",
            "Pérez\u{202F}Gómez",
            "Pe\u{301}rez-Go\u{301}mez",
            "Pérez\u{AD}-Gómez",
            "Pérez\u{3000}Gómez",
            "Pérez－Gómez",
            "\u{200E}Pérez-Gómez\u{200F}",
            "\u{202A}Pérez Gómez\u{202C}",
            "\u{FEFF}Pérez Gómez",
        ],
        &["Əliyev", "Eliyev", "ƏLİYEV", "ǝliyev"],
        &["Ɛsi Kɔfi", "Esi Kofi", "ƐSI KƆFI"],
        &["Ⱥŋɣa Ʋula", "Anga Vula"],
        &["جہاں", "جهان", "جھان"],
        &["نورے", "نوري", "نوری", "نورې"],
        &["ګل", "گل"],
        &["ڢاطمة ڧاسم", "فاطمه قاسم"],
        &["ײדל", "יידל"],
        &["علی‌رضا", "علی رضا", "علیرضا", "عليرضا", "علـیرضا", "على رضا"],
        &["كريم", "کریم", "کريم", "\u{2067}كَريم\u{2069}"],
        &["فاطمة", "فاطمه", "فاطِمَة", "فاطمہ", "ﻓﺎﻃﻤﺔ"],
        &["أحمد", "احمد", "أَحْمَد", "ﺃﺣﻤﺪ"],
        &["Γιώργος", "ΓΙΩΡΓΟΣ", "Γιωργος", "γιώργοσ", "Γιώργος"],
        // The iota below a vowel, small, with a capital, decomposed, beside it, and in capitals.
        &["ᾳ", "ᾼ", "αι", "ΑΙ", "Αι", "α\u{345}", "Α\u{345}", "ά\u{345}"],
        &["ᾍδης", "ᾅδης", "ΑΙΔΗΣ", "αίδης", "Αἵδης"],
        &["Τρῳάς", "ΤΡΩΙΑΣ", "τρωιας", "Τρω\u{345}άς"],
        &["ῌ", "ῃ", "ηι", "ΗΙ"],
        &["İpek", "Ipek", "ıpek", "IPEK", "ipek", "I\u{307}pek"],
        &["Łukasz", "Lukasz", "ŁUKASZ"],
        &["Þórður", "Thordur", "ÞÓRÐUR"],
        &["Đặng", "Dang", "ĐẶNG", "D\u{335}a\u{323}\u{306}ng", "Ðang"],
        &["Nguyễn", "Nguye\u{302}\u{303}n", "NGUYEN"],
        &["Søren Kjærgaard", "Soren Kjaergaard"],
        &["Œuvray", "OEUVRAY"],
        &["김민수", "\u{1100}\u{1175}\u{11B7}\u{1106}\u{1175}\u{11AB}\u{1109}\u{116E}"],
        &["王小明", "王\u{3000}小明", "王小明\u{FE00}"],
        &["Ｙａｍａｄａ", "Yamada"],
        &["ﾔﾏﾀﾞ", "ヤマダ", "ヤマタ\u{3099}"],
        &["Фёдор", "ФЕДОР", "Фе\u{308}дор"],
        &["Қуандық Өмірзақ", "Куандык Омірзак", "ҚУАНДЫҚ ӨМІРЗАҚ"],
        &["Нұрсұлтан Әбішұлы", "Нурсултан Абішулы"],
        &["Ґалаґан", "Галаган", "ҐАЛАҐАН"],
        &["Мар'яна", "Мар’яна", "Марʼяна"],
        &["Ana María", "Ana\u{200B}María", "Ana \u{200B} María", "Ana\u{2028}María"],
        &["שלום", "שָׁלוֹם", "שלומ"],
        &["Ni\u{F1}o", "Nin\u{303}o"],
        &["col·lecció", "col•lecció", "colŀeccio"],
        &["ﬁona", "fiona"],
        &["അനിൽ", "അനില്\u{200D}", "അനില്"],
        &["ർ", "ര്\u{200D}"],
        &["সৎ", "সত্\u{200D}", "সত্"],
        &["น้ำ", "น\u{0E4D}\u{0E49}\u{0E32}", "น\u{0E49}\u{0E4D}\u{0E32}"],
        &["ນ້ຳ", "ນ\u{0ECD}\u{0EC9}\u{0EB2}"],
        &["كريم", "ڪريم"],
    ] {
        for spelling in spellings {
            assert_eq!(fold_name(spelling), fold_name(spellings[0]), "{spelling:?}");
        }
    }
}

#[test]
fn other_names_stay_others() {
    for (a, b) in [
        ("Ana", "Anna"),
        ("Θράκη", "Θρᾴκη"),
        ("Müller", "Möller"),
        ("राम", "रमा"),
        ("रीमा", "रमा"),
        ("かねこ", "がねこ"),
        ("ハナ", "パナ"),
        ("ดำ", "ดา"),
        ("王小明", "王小名"),
        ("علي", "عالي"),
        ("김민수", "김민주"),
        ("Мария", "Марья"),
        ("Ana 1", "Ana 2"),
        ("ᨀᨗ", "ᨀᨘ"),
        ("မင်း", "မင့"),
    ] {
        assert_ne!(fold_name(a), fold_name(b), "{a} {b}");
    }
    assert_ne!(plain_text("1/12/1990"), plain_text("11/2/1990"));
    assert_eq!(plain_text(" Spring\u{A0} 1985 "), "spring 1985");
    assert_eq!(plain_text("۱۹۹۰-۰۲-۰۱"), "1990-02-01");
}

#[test]
fn words_end_at_whatever_is_no_letter_or_digit() {
    let joined = |text: &str| words(text).iter().map(Word::joined).collect::<Vec<_>>();
    let parts = |text: &str| words(text).into_iter().flat_map(|word| word.parts).collect::<Vec<_>>();
    assert_eq!(parts("O’Brien-Núñez, Ana (née_Betz)"), ["o", "brien", "nunez", "ana", "nee", "betz"]);
    assert_eq!(joined("O’Brien-Núñez, Ana"), ["obriennunez", "ana"]);
    assert_eq!(parts("علی‌رضا"), ["علي", "رضا"]);
    assert_eq!(parts(" -- "), [""; 0]);
    let found: Vec<String> = terms("Pérez-Gómez de la Cruz").into_iter().collect();
    assert_eq!(found, ["cruz", "de", "gomez", "la", "perez", "perezgomez", "perezgomezdelacruz"]);
}

#[test]
fn a_long_text_is_found_by_its_beginning_only() {
    let numbers = |from: usize, to: usize| (from..to).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
    let parts_of = |text: &str| words(text).into_iter().flat_map(|word| word.parts).collect::<Vec<_>>();
    let first = numbers(0, SEARCHED_PARTS_MAX);
    assert_eq!(words(&numbers(0, 100_000)), words(&first));
    assert_eq!(terms(&numbers(0, 100_000)), terms(&first));
    assert_eq!(words(&first).len(), SEARCHED_PARTS_MAX, "and by all of it");
    // Parts that joints make of one word count as much as words do.
    let joined = numbers(0, 100_000).replace(' ', "-");
    assert_eq!(parts_of(&joined), parts_of(&first));
    for text in
        [joined, numbers(0, 100_000), "a b-c".repeat(100_000), "x".repeat(1 << 20), "名".repeat(1 << 20)]
    {
        let terms = terms(&text);
        assert!(!terms.is_empty() && terms.len() <= TERMS_MAX, "{}", terms.len());
        assert!(terms.iter().all(|term| term.len() <= NAME_BYTES_MAX));
    }
}

#[test]
fn the_beginning_of_a_name_is_its_own_beginning() {
    for text in ["Ana", &" ".repeat(8 << 10), &" 名".repeat(4 << 10), &"x".repeat(8 << 10)] {
        let begins = beginning(text);
        assert_eq!(beginning(begins), begins);
        assert!(begins.len() <= NAME_BYTES_MAX);
    }
    assert_eq!(beginning(&(" ".repeat(8 << 10) + "Ana")), "Ana");
}

/// Folding is done once, and letter by letter, whatever the text; and it is the folding of this version.
#[test]
fn what_is_folded_stays_and_the_version_stands_for_it() {
    let mut sum = Sha256::new();
    // All but the large blocks of ideographs and Hangul syllables, where nothing happens that does not elsewhere.
    let scripts = (0..0x3400).chain(0xA000..0xAC10).chain(0xF900..0x2_0000);
    for c in scripts.filter_map(char::from_u32) {
        let folded = fold_name(&c.to_string());
        assert_eq!(fold_name(&folded), folded, "{c:?}");
        let text = format!("ß{c}م");
        assert_eq!(fold_name(&text), format!("ss{folded}م"), "{text:?}");
        if !folded.is_empty() {
            sum.update(format!("{c}{folded}\n"));
        }
    }
    // How much of a long text is looked at is a part of the folding too: in words, in parts of one, and in bytes.
    let many = (0..3 * SEARCHED_PARTS_MAX).map(|n| format!("Wort{n}")).collect::<Vec<_>>();
    let long = "é".repeat(NAME_BYTES_MAX);
    for text in [many.join(" "), many.join("-"), long.clone(), format!("{long} {}", many.join(" "))] {
        let words: Vec<String> = words(&text).iter().map(Word::joined).collect();
        sum.update(format!("{}\n{words:?}\n{:?}\n", beginning(&text), terms(&text)));
    }
    let sum = hex::encode(sum.finalize());
    assert_eq!(
        (FOLDING_VERSION, &sum[..16]),
        (8, "af786c9e0210a7a2"),
        "another folding needs another version"
    );
}
