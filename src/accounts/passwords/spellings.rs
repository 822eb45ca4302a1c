//! Floor 2. One password in the bytes that keyboards and clients have for it.
//!
//! A letter with an accent is one character or two, depending on the system; MyGNUHealth and other clients in Python send
//! Latin-1, others windows-1252; a Mac types a blank of its own together with the option key. New passwords are hashed in one form (RFC 8265,
//! 4.2: NFC, all blanks plain). Hashes that were made elsewhere are of whatever was typed there, so a login tries the
//! forms that it can have.

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use super::rules::PASSWORD_BYTES_MAX;
use crate::domain::encoding::decoded;

/// The form in which a new password is hashed.
pub fn canonical(password: &str) -> Zeroizing<String> {
    let is_other_blank = |c: char| !c.is_ascii() && c.is_whitespace();
    Zeroizing::new(password.chars().map(|c| if is_other_blank(c) { ' ' } else { c }).nfc().collect())
}

/// What may have been hashed of a password that was sent as these bytes, the likeliest first: one form of ASCII, at most
/// four of others. Depends on nothing but the bytes. Of each form the first 72 bytes: what is longer was hashed by other
/// software, whose bcrypt cut it there, in the middle of a letter too. None of a password with a NUL, which no bcrypt
/// hashes as a whole.
pub(crate) fn spellings(sent: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut found: Vec<Zeroizing<Vec<u8>>> = Vec::new();
    let mut add = |bytes: &[u8]| {
        let hashed = bytes.get(..PASSWORD_BYTES_MAX).unwrap_or(bytes);
        if !bytes.contains(&0) && !found.iter().any(|known| known.as_slice() == hashed) {
            found.push(Zeroizing::new(hashed.to_vec()));
        }
    };
    if !sent.is_ascii() {
        let text = Zeroizing::new(decoded(sent).into_owned());
        add(canonical(&text).as_bytes());
        add(Zeroizing::new(text.nfc().collect::<String>()).as_bytes());
        add(Zeroizing::new(text.nfd().collect::<String>()).as_bytes());
    }
    add(sent);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_same_in_every_form() {
        let all = |sent: &[u8]| spellings(sent).iter().map(|form| form.to_vec()).collect::<Vec<_>>();
        assert_eq!(all(b"a cradle in Milano"), [b"a cradle in Milano".to_vec()]);
        let (composed, apart, latin) = ("contraseña", "contrasen\u{303}a", b"contrase\xF1a");
        for sent in [composed.as_bytes(), apart.as_bytes(), latin] {
            let forms = all(sent);
            assert_eq!(forms[0], composed.as_bytes(), "{sent:?}");
            assert!(forms.contains(&apart.as_bytes().to_vec()) && forms.contains(&sent.to_vec()), "{sent:?}");
        }
        // The bytes of windows-1252 that Latin-1 has no characters for; no more forms than before.
        for (sent, typed) in [
            (&b"20 \x80 in Milano"[..], "20 € in Milano"),
            (b"\x8Cuvre", "Œuvre"),
            (b"mu\x9E \x8Eena", "muž Žena"),
            (b"\x93cradle\x94 \x91x\x92", "“cradle” ‘x’"),
        ] {
            let forms = all(sent);
            assert_eq!(forms[0], canonical(typed).as_bytes(), "{typed}");
            assert!(forms.contains(&sent.to_vec()) && forms.len() <= 4, "{typed}");
        }
        assert_eq!(canonical(apart).as_str(), composed);
        assert_eq!(canonical("cuna\u{A0}en\u{3000}Milán").as_str(), "cuna en Milán");
        assert_eq!(all("cuna\u{A0}x".as_bytes())[0], b"cuna x");
        // What bcrypt reads of each form, if it is longer.
        assert_eq!(all(&[b'x'; 200]), [[b'x'; 72]]);
        let long = "é".repeat(40);
        let apart: String = long.nfd().collect();
        assert_eq!(all(long.as_bytes()), [long.as_bytes()[..72].to_vec(), apart.as_bytes()[..72].to_vec()]);
        // In the middle of a letter: 71 bytes, and the first of two.
        let odd = format!("x{}", "é".repeat(40));
        assert_eq!(all(odd.as_bytes())[0], odd.as_bytes()[..72]);
        assert_eq!(all(&[&[b'x'; 80][..], b"\0"].concat()), [[0u8; 0]; 0]);
        assert_eq!(all(b"nul\0"), [[0u8; 0]; 0]);
        // Hangul, and letters whose accents come in another order.
        assert_eq!(canonical("\u{1100}\u{1161}\u{11A8}").as_str(), "각");
        assert_eq!(canonical("e\u{323}\u{302}"), canonical("e\u{302}\u{323}"));
    }
}
