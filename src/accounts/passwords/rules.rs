//! Floor 2. What a new password must be, and which hashes of passwords are verified.

use std::str::FromStr as _;

use zxcvbn::zxcvbn;

use super::spellings::canonical;

/// The cheapest hash that is verified or made; bcrypt knows no cheaper one.
pub const BCRYPT_COST_MIN: u32 = 4;
/// The dearest: four times the default. Each step doubles the time, and 31 would take more than a day.
pub const BCRYPT_COST_MAX: u32 = 14;
/// Longest new password in characters (Thalamus).
pub const PASSWORD_CHARS_MAX: usize = 64;
/// bcrypt ignores everything after this many bytes.
pub const PASSWORD_BYTES_MAX: usize = 72;
/// Shortest new password unless the configuration says otherwise.
pub const PASSWORD_CHARS_MIN_DEFAULT: usize = 8;
/// Passwords that are guessed in fewer attempts are refused. Guessing at one account is slowed down to one attempt in five
/// seconds, so that these would take two months.
const GUESSES_MIN: u64 = 1_000_000;
/// What somebody tries who knows what this machine is, beside the common words of English.
const LOCAL_WORDS: [&str; 8] =
    ["gnuhealth", "thalamus", "hospital", "clinica", "contraseña", "paciente", "enfermera", "salud"];
/// What Thalamus itself uses.
pub const BCRYPT_COST_DEFAULT: u32 = 12;
/// Hashes of passwords that stand in this program's documents, those of the demo's accounts: of a professional, a patient
/// (`gnusolidario` both) and an administrator (`freedom`).
pub const PUBLIC_PASSWORD_HASHES: [&str; 3] = [
    "$2b$12$Y9rX7PoTHRXhTO1H78Tan.8mVmyayGAUIveiYxu2Qeo0ZDRvJQ8/2",
    "$2b$12$cjrKVGYEKUwCmVDCtEnwcegcrmECTmeBz526AAD/ZqMGPWFpHJ4FW",
    "$2b$12$McKDNgArdHKbUssD1fj64ecpdbJGMIt29ns7DGvqzqIT26W0dtJzi",
];

/// Whether a clear password may become somebody's; if not, why, in words for the person. `min`: its fewest characters.
pub(crate) fn check_new(account: &str, password: &str, min: usize) -> Result<(), String> {
    let password = canonical(password);
    let password = password.as_str();
    let chars = password.chars().count();
    if password.contains('\0') {
        return Err("the password must not contain a NUL character".to_owned());
    }
    if chars < min {
        return Err(format!("the password must have at least {min} characters"));
    }
    if chars > PASSWORD_CHARS_MAX {
        return Err(format!("the password must have at most {PASSWORD_CHARS_MAX} characters"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(format!(
            "the password must fit {PASSWORD_BYTES_MAX} bytes; letters with accents and other \
             scripts take two to four each"
        ));
    }
    let known: Vec<&str> = LOCAL_WORDS.iter().copied().chain([account]).collect();
    if zxcvbn(password, &known).guesses() < GUESSES_MIN {
        return Err("the password is one of those that are tried first: it is too common, or too close to \
                    a word, a date, a row of keys or the account's name"
            .to_owned());
    }
    Ok(())
}

/// Whether a string is a hash that this node verifies: bcrypt as Thalamus writes it, well-formed, at a
/// bearable cost.
pub fn is_acceptable_hash(hash: &str) -> bool {
    let Some((prefix, rest)) = hash.split_at_checked(4) else {
        return false;
    };
    let Some((cost, _)) = rest.split_at_checked(2) else {
        return false;
    };
    let cost_fits = cost.bytes().all(|byte| byte.is_ascii_digit())
        && cost.parse().is_ok_and(|cost: u32| (BCRYPT_COST_MIN..=BCRYPT_COST_MAX).contains(&cost));
    // The parser knows length and alphabet, but also reads other versions and costs like "+4".
    ["$2a$", "$2b$", "$2y$"].contains(&prefix) && cost_fits && bcrypt::HashParts::from_str(hash).is_ok()
}

/// The cost of a hash that is verified.
pub(crate) fn cost_of(hash: &str) -> Option<u32> {
    hash.get(4..6).filter(|_| is_acceptable_hash(hash))?.parse().ok()
}

/// A well-formed hash of nothing in particular: a salt and a digest of zero bits.
pub(crate) fn dummy_hash(cost: u32) -> String {
    format!("$2b${cost:02}${}", ".".repeat(53))
}
