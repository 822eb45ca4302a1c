//! Floor 5. What a subcommand was meant to be, where clap has no suggestion: it knows none for short words whose letters
//! are only transposed.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};

/// So many letters may be wrong, missing, too many or transposed.
const SLIPS_MAX: usize = 2;

/// Parses arguments, the first of which is the program.
pub(crate) fn parse<T: clap::Parser>(arguments: &[std::ffi::OsString]) -> Result<T, Error> {
    T::try_parse_from(arguments).map_err(|error| with_suggestion(error, &T::command(), arguments))
}

fn with_suggestion(mut error: Error, program: &Command, arguments: &[std::ffi::OsString]) -> Error {
    if error.kind() != ErrorKind::InvalidSubcommand || error.get(ContextKind::SuggestedSubcommand).is_some() {
        return error;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand).cloned() else {
        return error;
    };
    // The command below which it was looked for.
    let known = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    let parent = known.fold(program, |parent, word| parent.find_subcommand(word).unwrap_or(parent));
    let names: Vec<&str> = parent.get_subcommands().map(Command::get_name).collect();
    match nearest(&given, &names) {
        Some(meant) => {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![meant.to_owned()]));
        }
        None => {
            let text = StyledStr::from(format!("there are {}", names.join(", ")));
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![text]));
        }
    }
    error
}

/// The name that has as few slips as can be, and fewer than letters that are right.
fn nearest<'a>(given: &str, names: &[&'a str]) -> Option<&'a str> {
    let slips = |name: &&str| strsim::damerau_levenshtein(&given.to_lowercase(), name);
    let best = names.iter().copied().min_by_key(slips)?;
    let (count, letters) = (slips(&best), best.chars().count());
    (count <= SLIPS_MAX && count * 2 < letters).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    #[test]
    fn a_subcommand_that_is_nearly_right_is_recognised_at_every_level() {
        for (words, said) in [
            (&["chekc"][..], "'check'"),
            (&["sync", "nwo"], "'now'"),
            (&["sync", "NOW"], "'now'"),
            (&["--config", "x", "sync", "nwo"], "'now'"),
            (&["backup", "cretae"], "'create'"),
            (&["user", "ad"], "'add'"),
            (&["conflicts", "shwo"], "'show'"),
            (&["sync", "zzz"], "there are now, status, waiting, pause, resume"),
            (&["audit", "zzz"], "there are "),
            (&["zzzzzz"], "there are serve, check, doctor"),
        ] {
            let arguments: Vec<_> = ["thalamus-edge"].iter().chain(words).map(Into::into).collect();
            let error = parse::<Cli>(&arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let error = error.to_string();
            assert!(error.contains("tip: ") && error.contains(said), "{words:?}: {error}");
        }
    }
}
