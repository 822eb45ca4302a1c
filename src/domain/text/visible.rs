//! Floor 0. What of a text can be seen: the one rule for everything that has to say something to people, as the reason
//! of an emergency and the name of a node.

use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};

use super::folding::is_invisible;

const CATEGORIES: CodePointMapDataBorrowed<'static, GeneralCategory> =
    CodePointMapData::<GeneralCategory>::new();
/// Letters and digits; not the marks that belong to them, many of which Unicode calls alphabetic.
const LETTERS: GeneralCategoryGroup = GeneralCategoryGroup::Letter.union(GeneralCategoryGroup::Number);
/// Characters that fonts draw as a blank, although Unicode calls them symbols or letters: the braille cell without dots,
/// the null notehead, the blanks of Egyptian hieroglyphs.
const DRAWN_BLANK: [char; 4] = ['\u{2800}', '\u{1D159}', '\u{13441}', '\u{13442}'];

/// How much of a text can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Visible {
    /// Characters that can be seen. A mark counts on a character that can be seen, and a blank between two such, several
    /// as one.
    pub chars: usize,
    /// Letters and digits among them, without marks.
    pub letters: usize,
}

impl Visible {
    pub fn of(text: &str) -> Visible {
        let mut visible = Visible::default();
        let (mut has_base, mut has_blank) = (false, false);
        for c in text.chars() {
            match Look::of(c) {
                Look::Nothing => {}
                Look::Blank => (has_base, has_blank) = (false, true),
                Look::Mark => visible.chars += usize::from(has_base),
                Look::Sign { is_letter } => {
                    visible.chars += 1 + usize::from(has_blank && visible.chars > 0);
                    visible.letters += usize::from(is_letter);
                    (has_base, has_blank) = (true, false);
                }
            }
        }
        visible
    }
}

/// What a character looks like.
enum Look {
    /// Takes no place: joiners, marks of direction, fillers.
    Nothing,
    Blank,
    /// Seen on the character before it only.
    Mark,
    Sign {
        is_letter: bool,
    },
}

impl Look {
    fn of(c: char) -> Look {
        if c.is_whitespace() || DRAWN_BLANK.contains(&c) {
            return Look::Blank;
        }
        let category = CATEGORIES.get(c);
        let has_no_look = matches!(
            category,
            // Private and unassigned characters look like nothing in particular.
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::PrivateUse
                | GeneralCategory::Surrogate
                | GeneralCategory::Unassigned
        );
        if has_no_look || is_invisible(c) {
            return Look::Nothing;
        }
        match GeneralCategoryGroup::Mark.contains(category) {
            true => Look::Mark,
            false => Look::Sign { is_letter: LETTERS.contains(category) },
        }
    }
}

/// Whether a character begins a line or has others shown in another order than they are written: embeddings, overrides
/// and isolates.
pub fn turns_or_breaks(c: char) -> bool {
    matches!(c, '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Whether a text shows at least one character, and none that [`turns_or_breaks`] it.
pub fn is_shown_as_it_is(text: &str) -> bool {
    Visible::of(text).chars > 0 && !text.chars().any(turns_or_breaks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_is_counted() {
        for (text, chars, letters) in [
            ("", 0, 0),
            ("unconscious", 11, 11),
            ("chest  \u{A0} pain", 10, 9),
            ("  ..!  ", 3, 0),
            ("患者昏迷", 4, 4),
            // Vowel signs and accents are seen with their letter, and are none.
            ("रोगी", 4, 2),
            ("cafe\u{301}", 5, 4),
            ("می\u{200C}خواهد", 7, 7),
            ("١٢", 2, 2),
            // Marks without a letter, blank braille cells, fillers, tags, private use, unassigned.
            ("\u{345}\u{345}\u{345}", 0, 0),
            ("a \u{345}\u{345}", 1, 1),
            ("\u{2800}\u{2800}aaaaa\u{2800}", 5, 5),
            ("\u{3164}\u{FFA0}\u{115F}\u{E0041}\u{AD}\u{FFF9}\u{E000}\u{378}\u{13441}\u{1D159}", 0, 0),
            ("a\u{2800}b", 3, 2),
        ] {
            assert_eq!(Visible::of(text), Visible { chars, letters }, "{text:?}");
        }
    }

    #[test]
    fn names_that_show_nothing_or_turn_the_text_around_are_none() {
        for name in ["clinic", "Clínica 3", "北診所", "\u{200F}مستوصف"] {
            assert!(is_shown_as_it_is(name), "{name:?}");
        }
        for name in
            ["", " ", "\u{345}", "\u{2800}", "\u{200B}", "\u{3164}", "a\u{202E}b", "a\u{2028}b", "a\u{2066}b"]
        {
            assert!(!is_shown_as_it_is(name), "{name:?}");
        }
    }
}
