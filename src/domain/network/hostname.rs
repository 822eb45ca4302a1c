//! Floor 0. Names of machines: host names by RFC 1123, with the underscores that many networks use, and IPv4 addresses.

use std::net::Ipv4Addr;

const NAME_CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;

/// What keeps a text from being a host name or an IPv4 address, as words that follow "it"; `None` if nothing does. A dot
/// at the end is allowed.
pub fn problem(name: &str) -> Option<&'static str> {
    if name.parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut labels = name.split('.');
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match () {
        () if name.is_empty() => Some("is empty"),
        () if name.contains(['<', '>', '{', '}', '$']) => {
            Some("is a placeholder: put the real name in its place")
        }
        () if !name.is_ascii() => {
            Some("has letters beyond a-z, which are written in their ASCII form (xn--...)")
        }
        () if name.len() > NAME_CHARS_MAX => Some("has more than 253 characters"),
        () if labels.clone().any(str::is_empty) => Some("has a dot too many"),
        () if labels.clone().any(|label| label.len() > LABEL_CHARS_MAX) => {
            Some("has more than 63 characters between two dots")
        }
        () if !labels.clone().all(|label| label.chars().all(is_letter)) => {
            Some("has a character other than letters, digits, - and _")
        }
        () if labels.clone().any(|label| label.starts_with('-') || label.ends_with('-')) => {
            Some("has a part that begins or ends with -")
        }
        // No name of the DNS ends like that, and resolvers read it as an address.
        () if labels.next_back().is_some_and(|label| label.chars().all(|c| c.is_ascii_digit())) => {
            Some("is no IPv4 address, which has four numbers from 0 to 255")
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_from_what_is_neither() {
        let longest = "a".repeat(63);
        for name in
            ["a", "h1", "hub.example.org", "HUB.", "my_box", "10.0.0.5", "xn--fiqs8s.example", &longest]
        {
            assert_eq!(problem(name), None, "{name}");
        }
        let (label, whole) = ("a".repeat(64), "ab.".repeat(90));
        for (name, expected) in [
            ("", "empty"),
            (".", "empty"),
            ("a..b", "dot too many"),
            (".a", "dot too many"),
            ("-a", "begins or ends with -"),
            ("b.a-", "begins or ends with -"),
            ("a b", "a character other"),
            ("a/b", "a character other"),
            ("h\u{3002}org", "ASCII form"),
            ("1.2.3.400", "no IPv4 address"),
            ("1.2.3", "no IPv4 address"),
            ("1.2.3.4.5", "no IPv4 address"),
            ("010.0.0.1", "no IPv4 address"),
            ("<cluster>.example.net", "placeholder"),
            ("${HOST}", "placeholder"),
            (&label, "63 characters"),
            (&whole, "253 characters"),
        ] {
            assert!(
                problem(name).is_some_and(|problem| problem.contains(expected)),
                "{name}: {:?}",
                problem(name)
            );
        }
    }
}
