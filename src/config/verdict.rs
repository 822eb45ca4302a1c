//! Floor 5. What is wrong with a value, as the checks of values say it.

/// What is wrong with a value, as words that follow its key.
pub(super) type Verdict = Result<(), String>;

/// All that is wrong with the values of a list.
pub(super) fn each(values: &[String], check: fn(&str) -> Verdict) -> Verdict {
    let problems: Vec<String> = values.iter().filter_map(|value| check(value).err()).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}
