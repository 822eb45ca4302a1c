//! Floor 0. Text without its typography: what names are compared and found by.
//!
//! Two texts fold alike if they differ only in how they were typed: case, accents, composed or decomposed letters,
//! width, invisible marks, the apostrophe, hyphen or blank of the day, an Arabic or a Persian keyboard. What tells
//! words apart in a script stays: the vowel signs of Indic and Thai scripts, the voicing marks of kana, tones written
//! as marks of their own.

use std::collections::BTreeSet;

use icu_casemap::{CaseMapper, CaseMapperBorrowed};
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{
    CodePointMapData, CodePointMapDataBorrowed, CodePointSetData, CodePointSetDataBorrowed,
};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::canonical_combining_class;

/// Version of the folding. Whatever changes what a text folds to, be it an updated crate, raises it: the index of
/// names is made anew by it, and nodes exchange answers about people only under the same one.
pub const FOLDING_VERSION: u32 = 8;

const CASES: CaseMapperBorrowed<'static> = CaseMapper::new();
const IGNORABLE: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<DefaultIgnorableCodePoint>();

/// Whether a character is shown as nothing: joiners, direction marks, variation selectors, fillers.
pub fn is_invisible(c: char) -> bool {
    IGNORABLE.contains(c)
}

const CATEGORIES: CodePointMapDataBorrowed<'static, GeneralCategory> =
    CodePointMapData::<GeneralCategory>::new();

/// Letters, digits, and the marks that are not accents.
const LETTERS: GeneralCategoryGroup =
    GeneralCategoryGroup::Letter.union(GeneralCategoryGroup::Number).union(GeneralCategoryGroup::Mark);

/// Tibetan, Myanmar, Khmer, Limbu, Buginese, Tai Tham and Kharoshthi, by the blocks of Unicode.
const BRAHMIC_BLOCKS: [std::ops::Range<u32>; 6] =
    [0x0F00..0x1000, 0x1000..0x10A0, 0x1780..0x1800, 0x1900..0x1950, 0x1A00..0x1AB0, 0x10A00..0x10A60];

/// Parts a word as a hyphen does, and shows nothing.
const ZERO_WIDTH_NON_JOINER: char = '\u{200C}';
/// Parts words as a blank does, and shows nothing.
const ZERO_WIDTH_SPACE: char = '\u{200B}';
/// The small iota below a Greek vowel. In capitals it is a letter, and the case folding of Unicode makes it one.
const YPOGEGRAMMENI: char = '\u{0345}';

/// The first digits of scripts whose digits are typed in names and ids beside those of ASCII.
const ZEROS: [u32; 16] = [
    0x0660, 0x06F0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66, 0x0E50, 0x0ED0,
    0x0F20, 0x1040, 0x17E0,
];

/// What a character of a text is for its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Letter(char),
    /// Stands between two parts of one word: an apostrophe, a hyphen, a dot.
    Joint,
    /// Stands between two words.
    Blank,
    /// Counts for nothing.
    Nothing,
}

/// Folds a name for comparing people: only letters and digits are left, so an apostrophe, a hyphen and a blank are
/// the same, and are the same as nothing.
pub fn fold_name(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for_each_piece(text, |piece| {
        if let Piece::Letter(letter) = piece {
            folded.push(letter);
        }
    });
    folded
}

/// People are found, and told apart, by so many bytes of a name. What is longer is kept as it is.
const NAME_BYTES_MAX: usize = 4 << 10;
/// They are found by so many parts of words in it. A name has some dozen; more would be rows of the index without number, each
/// written by the one writer.
const SEARCHED_PARTS_MAX: usize = 64;
/// More terms than these are made of no text: its parts, as many words, and the whole.
pub const TERMS_MAX: usize = 2 * SEARCHED_PARTS_MAX + 1;

/// A word of a text, folded. `parts` are what lies between its joints: `o` and `brien` of `O'Brien`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    pub parts: Vec<String>,
}

impl Word {
    /// The word as it is without its joints: `obrien`.
    pub fn joined(&self) -> String {
        self.parts.concat()
    }
}

/// The part of a name by which people are found and told apart: its first `NAME_BYTES_MAX` bytes. It is its own beginning.
pub fn beginning(name: &str) -> &str {
    let name = name.trim_start();
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or_default()]
}

/// The words of a text by which people are found, folded: those in its [`beginning`], up to `SEARCHED_PARTS_MAX` parts. An
/// index and what is looked for in it are cut alike.
pub fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let (mut word, mut part) = (Word::default(), String::new());
    let mut end = |word: &mut Word| {
        if !word.parts.is_empty() {
            words.push(std::mem::take(word));
        }
    };
    for_each_piece(beginning(text), |piece| match piece {
        Piece::Letter(letter) => part.push(letter),
        Piece::Nothing => {}
        Piece::Joint | Piece::Blank => {
            if !part.is_empty() {
                word.parts.push(std::mem::take(&mut part));
            }
            if piece == Piece::Blank {
                end(&mut word);
            }
        }
    });
    if !part.is_empty() {
        word.parts.push(part);
    }
    end(&mut word);
    let mut parts_left = SEARCHED_PARTS_MAX;
    words.retain_mut(|word| {
        word.parts.truncate(parts_left);
        parts_left -= word.parts.len();
        !word.parts.is_empty()
    });
    words
}

/// What a text is found by: its [`words`], the parts of each, and all of them without blanks, so that it does not
/// matter where somebody puts hyphen, apostrophe or blank. At most [`TERMS_MAX`].
pub fn terms(text: &str) -> BTreeSet<String> {
    let words = words(text);
    let whole: String = words.iter().map(Word::joined).collect();
    let joined: Vec<String> = words.iter().map(Word::joined).collect();
    let parts = words.into_iter().flat_map(|word| word.parts);
    parts.chain(joined).chain([whole]).filter(|term| !term.is_empty()).collect()
}

fn for_each_piece(text: &str, mut take: impl FnMut(Piece)) {
    if text.is_ascii() {
        for byte in text.bytes() {
            take(match byte {
                b if b.is_ascii_alphanumeric() => Piece::Letter(char::from(b.to_ascii_lowercase())),
                b if b.is_ascii_whitespace() || b == 0x0B => Piece::Blank,
                b if b.is_ascii_control() => Piece::Nothing,
                _ => Piece::Joint,
            });
        }
        return;
    }
    // An accent alone is what some keyboards have for an apostrophe; it would decompose to a blank and an accent.
    let typed = text.chars().map(|c| match CATEGORIES.get(c) {
        GeneralCategory::ModifierSymbol => '\'',
        _ => c,
    });
    let plain: String = typed.nfkd().filter(|c| !is_accent(*c)).collect();
    let folded = CASES.fold_string(&plain);
    let mut rest = folded.nfkd().filter(|c| !is_accent(*c)).peekable();
    while let Some(c) = rest.next() {
        // The sign of Thai and Lao am is typed before the tone or, as one letter with its vowel, behind it.
        if matches!(c, '\u{0E4D}' | '\u{0ECD}')
            && let Some(tone) = rest.next_if(|next| is_tone(*next))
        {
            take(Piece::Letter(tone));
        }
        match piece_of(c) {
            Piece::Letter(letter) => spell_out(letter, |letter| take(Piece::Letter(letter))),
            piece => take(piece),
        }
    }
}

/// A mark of tone of Thai or Lao.
fn is_tone(c: char) -> bool {
    matches!(c, '\u{0E48}'..='\u{0E4B}' | '\u{0EC8}'..='\u{0ECB}')
}

fn piece_of(c: char) -> Piece {
    match c {
        // Keshidas and their like stretch a word.
        '\u{0640}' | '\u{07FA}' => Piece::Nothing,
        ZERO_WIDTH_NON_JOINER => Piece::Joint,
        ZERO_WIDTH_SPACE => Piece::Blank,
        // Letters by their category, apostrophes, primes and hooks by their use.
        '\u{02B9}'..='\u{02C1}'
        | '\u{02C6}'..='\u{02D1}'
        | '\u{02EC}'
        | '\u{02EE}'
        | '\u{0374}'
        | '\u{0559}'
        | '\u{07F4}'
        | '\u{07F5}'
        | '\u{2E2F}'
        | '\u{A717}'..='\u{A71F}'
        | '\u{A788}'
        | '\u{A78B}'
        | '\u{A78C}' => Piece::Joint,
        c if c.is_whitespace() => Piece::Blank,
        c if IGNORABLE.contains(c) => Piece::Nothing,
        c if LETTERS.contains(CATEGORIES.get(c)) => Piece::Letter(c),
        c if c.is_control() => Piece::Nothing,
        _ => Piece::Joint,
    }
}

/// Whether a mark only adorns its letter. By the canonical combining class: accents above, below and through, the
/// points of Hebrew and the vowels of Arabic do. The marks of Indic scripts, of Thai, Lao and Tibetan (0, 7, 9,
/// 84 to 132) and of kana (8) do not; of some scripts of that family the class does not tell.
fn is_accent(c: char) -> bool {
    if BRAHMIC_BLOCKS.iter().any(|block| block.contains(&u32::from(c))) {
        return false;
    }
    if c == YPOGEGRAMMENI {
        return false;
    }
    match canonical_combining_class(c) {
        0 => CATEGORIES.get(c) == GeneralCategory::EnclosingMark,
        1 | 10..=36 | 200..=240 => true,
        _ => false,
    }
}

/// Letters that have no decomposition, as they are typed where a keyboard lacks them, and the forms that Arabic and
/// Persian keyboards have for one letter.
fn spell_out(letter: char, mut take: impl FnMut(char)) {
    let (first, second) = match letter {
        'ß' => ('s', Some('s')),
        'æ' => ('a', Some('e')),
        'œ' => ('o', Some('e')),
        'þ' => ('t', Some('h')),
        'ð' | 'đ' | 'ɖ' | 'ɗ' | 'ƌ' => ('d', None),
        'ø' | 'ɔ' | 'ɵ' => ('o', None),
        'ł' | 'ɫ' | 'ƚ' | 'ⱡ' => ('l', None),
        'ħ' => ('h', None),
        'ŧ' | 'ⱦ' => ('t', None),
        'ı' | 'ɨ' | 'ɩ' => ('i', None),
        'ȷ' | 'ɉ' => ('j', None),
        'ŋ' | 'ɲ' | 'ƞ' => ('n', None),
        'ĸ' => ('k', None),
        'ƀ' | 'ɓ' | 'ƃ' => ('b', None),
        'ƈ' | 'ȼ' => ('c', None),
        // The schwa of Azerbaijani, the turned e and the open e of West Africa.
        'ə' | 'ǝ' | 'ɛ' | 'ɇ' => ('e', None),
        'ⱥ' => ('a', None),
        'ƒ' => ('f', None),
        'ɠ' | 'ǥ' | 'ɣ' => ('g', None),
        'ƙ' | 'ⱪ' => ('k', None),
        'ƥ' => ('p', None),
        'ɍ' | 'ɽ' => ('r', None),
        'ʂ' | 'ȿ' => ('s', None),
        'ƭ' | 'ʈ' => ('t', None),
        'ʉ' | 'ʊ' => ('u', None),
        'ʋ' | 'ⱱ' => ('v', None),
        'ⱳ' => ('w', None),
        'ƴ' | 'ɏ' => ('y', None),
        'ƶ' | 'ʒ' | 'ɀ' => ('z', None),
        // Kazakh, Kyrgyz, Tatar, Tajik, Uzbek and Ukrainian on a Russian keyboard.
        'қ' | 'ҡ' | 'ҝ' | 'ҟ' => ('к', None),
        'ң' | 'ҥ' | 'ӈ' => ('н', None),
        'ғ' | 'ҕ' | 'ґ' => ('г', None),
        'ұ' | 'ү' => ('у', None),
        'ө' => ('о', None),
        'ә' => ('а', None),
        'җ' => ('ж', None),
        'ҳ' | 'һ' => ('х', None),
        'ҷ' | 'ҹ' => ('ч', None),
        'ҙ' => ('з', None),
        'ҫ' => ('с', None),
        // Arabic: alef wasla; yeh without dots, of Persian, of Urdu at the end of a word and of Pashto; keheh; heh goal, heh
        // with two eyes, ae and teh marbuta; noon without a dot; gaf with a ring; feh and qaf of the Maghrib.
        'ٱ' => ('ا', None),
        'ى' | 'ی' | 'ے' | 'ې' | 'ۍ' => ('ي', None),
        'ک' | 'ڪ' => ('ك', None),
        'ہ' | 'ھ' | 'ە' | 'ة' | 'ۃ' => ('ه', None),
        'ں' => ('ن', None),
        'ګ' => ('گ', None),
        'ڢ' => ('ف', None),
        'ڧ' => ('ق', None),
        // Two letters that Yiddish keyboards have as one.
        'װ' => ('ו', Some('ו')),
        'ױ' => ('ו', Some('י')),
        'ײ' => ('י', Some('י')),
        // The Bengali t without a vowel.
        'ৎ' => ('ত', Some('্')),
        // Malayalam consonants without a vowel, which have a letter each beside the spelling with a virama.
        'ൺ' => ('ണ', Some('്')),
        'ൻ' => ('ന', Some('്')),
        'ർ' => ('ര', Some('്')),
        'ൽ' => ('ല', Some('്')),
        'ൾ' => ('ള', Some('്')),
        'ൿ' => ('ക', Some('്')),
        // Hebrew letters at the end of a word.
        'ך' => ('כ', None),
        'ם' => ('מ', None),
        'ן' => ('נ', None),
        'ף' => ('פ', None),
        'ץ' => ('צ', None),
        other => (ascii_digit(other), None),
    };
    take(first);
    if let Some(second) = second {
        take(second);
    }
}

/// A digit of another script as that of ASCII; other characters as they are.
fn ascii_digit(c: char) -> char {
    let code = u32::from(c);
    let zero = ZEROS.into_iter().find(|zero| (*zero..zero + 10).contains(&code));
    zero.and_then(|zero| char::from_digit(code - zero, 10)).unwrap_or(c)
}

/// A text that may be more than a name, only as it is typed: width, case, digits and invisible marks do not count,
/// blanks are one, everything else stays.
pub fn plain_text(text: &str) -> String {
    let kept: String = text.nfkc().filter(|c| !IGNORABLE.contains(*c)).map(ascii_digit).collect();
    let folded = CASES.fold_string(&kept);
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
