//! Floor 5. Values as messages show them: not those that may be secrets, which end up in the wrong line now and then.

use toml::Value;

use super::keys;

/// In place of a value that may be a secret.
pub(in super::super) const HIDDEN: &str = "(hidden)";
/// Longer values are cut in messages.
const SHOWN_CHARS_MAX: usize = 80;
/// As many characters without a blank may be a key or a hash.
const KEY_CHARS: usize = 40;
/// A key that there is not, with one of these in its name, may have been meant for a secret.
const NAMES_OF_SECRETS: [&str; 9] = ["pass", "pwd", "secret", "token", "key", "uri", "url", "cred", "auth"];

pub(super) fn shown(key: &str, value: &Value) -> String {
    // Below keys that there are not, anything may stand.
    match has_table(value) && !key.starts_with("central.collections") {
        true => HIDDEN.to_owned(),
        false => shown_text(key, value.to_string()),
    }
}

fn has_table(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_table),
        other => other.is_table(),
    }
}

pub(in super::super) fn shown_text(key: &str, text: String) -> String {
    let text = text.replace('\n', " ");
    if key == "central.uri" || may_be_secret(key, &text) {
        return HIDDEN.to_owned();
    }
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text;
    }
    format!("{}...", text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
}

/// A value that could not be read. It may begin or end a secret, so a key that could hold one is not shown.
pub(in super::super) fn shown_line(key: &str, value: &str) -> String {
    match value.trim().is_empty() || key.starts_with("central.") || sounds_secret(key) {
        true => HIDDEN.to_owned(),
        false => shown_text(key, value.trim().to_owned()),
    }
}

fn sounds_secret(key: &str) -> bool {
    let last = keys::last_part(key).to_ascii_lowercase();
    NAMES_OF_SECRETS.iter().any(|word| last.contains(word))
}

/// The value of a key that does not exist. A password is the likeliest one, unless the name is nearly that of a key which
/// holds none.
pub(super) fn shown_unknown(name: &str, value: Option<&Value>) -> String {
    let is_table = |item: &Value| item.is_table();
    match value {
        Some(Value::Table(_)) => return format!("[{name}]"),
        Some(Value::Array(items)) if !items.is_empty() && items.iter().all(is_table) => {
            return format!("[[{name}]]");
        }
        _ => {}
    }
    let is_harmless = |like: &str| {
        let is_text_of_others = like.starts_with("central.") || name.starts_with("central.");
        keys::find(like).is_some() && !is_text_of_others && !sounds_secret(name) && !sounds_secret(like)
    };
    let like = keys::like(name).filter(|like| is_harmless(like));
    match (like, value) {
        (Some(like), Some(value)) => shown(like, value),
        _ => HIDDEN.to_owned(),
    }
}

/// What is said about a value, without what of it may be a secret.
pub(super) fn without_secrets(key: &str, value: Option<&Value>, problem: String) -> String {
    let mut texts = Vec::new();
    collect_texts(value, &mut texts);
    texts.into_iter().filter(|text| may_be_secret(key, text)).fold(problem, |problem, text| {
        // A section's name is no secret, whatever stands in its place.
        match text.is_empty() || keys::is_section(text) {
            true => problem,
            false => problem.replace(&format!("{text:?}"), HIDDEN).replace(text, HIDDEN),
        }
    })
}

fn collect_texts<'a>(value: Option<&'a Value>, texts: &mut Vec<&'a str>) {
    match value {
        Some(Value::String(text)) => texts.push(text),
        Some(Value::Array(items)) => items.iter().for_each(|item| collect_texts(Some(item), texts)),
        Some(Value::Table(table)) => table.values().for_each(|item| collect_texts(Some(item), texts)),
        _ => {}
    }
}

/// Whether a text looks like a connection string, a key or a hash.
pub(in super::super) fn may_be_secret(key: &str, text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let is_key = |word: &str| word.len() >= KEY_CHARS && word.chars().all(|c| c.is_ascii_alphanumeric());
    text.contains("mongodb")
        || (text.contains("://") && text.contains('@'))
        || text.contains("age-secret-key")
        || text.contains("$2")
        || (key != "backup.recipients" && text.split(|c: char| !c.is_ascii_alphanumeric()).any(is_key))
        // Where a section belongs, anything may stand.
        || (keys::is_section(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_the_wrong_line_are_not_shown() {
        let secret_key = "0123456789abcdef".repeat(4);
        for (key, value) in [
            ("central.uri", "anything"),
            ("central.database", "mongodb://edge:s3cret@hub/"),
            ("node.name", "postgres://edge:s3cret@hub/"),
            ("backup.recipients", "AGE-SECRET-KEY-1QQQQ"),
            ("store.key_file", &secret_key),
            ("central", "s3cret"),
            ("api.date_format", "$2b$12$abcdefghijklmnopqrstuv"),
        ] {
            assert_eq!(shown(key, &Value::String(value.to_owned())), HIDDEN, "{key}");
        }
        let text = |text: &str| shown("node.name", &Value::String(text.to_owned()));
        assert_eq!(text("here"), "\"here\"");
        assert!(!text("a\nb").contains('\n'), "one line");
        assert!(text(&"a b ".repeat(100)).ends_with("..."));
    }

    #[test]
    fn the_value_of_an_unknown_key_is_shown_if_it_is_hardly_a_secret() {
        for (name, expected) in [
            ("server.lisen", "\"x\""),
            ("backup.kep", "\"x\""),
            ("server.password", HIDDEN),
            ("central.uri_pass", HIDDEN),
            ("central.databse", HIDDEN),
            ("store.key_fil", HIDDEN),
            ("zzz", HIDDEN),
        ] {
            assert_eq!(shown_unknown(name, Some(&Value::String("x".to_owned()))), expected, "{name}");
        }
        assert_eq!(shown_unknown("servr", Some(&Value::Table(toml::Table::new()))), "[servr]");
    }

    #[test]
    fn what_is_said_about_a_value_repeats_no_secret() {
        let uri = "mongodb://edge:s3cret@hub/";
        let list = Value::Array(vec![Value::String("ok.local".to_owned()), Value::String(uri.to_owned())]);
        let said = without_secrets("server.names", Some(&list), format!("holds {uri:?} and \"ok.local\""));
        assert_eq!(said, "holds (hidden) and \"ok.local\"");
        let path = Value::String(uri.to_owned());
        let said = without_secrets("central.uri_file", Some(&path), format!("{uri}: cannot be read"));
        assert_eq!(said, "(hidden): cannot be read");
    }
}
