//! Floor 5. How a command ends: what it prints, or why it failed, and its exit code.

// Exit codes that scripts may rely on; 0 is success.
/// The command failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// What the command was told makes no sense: arguments or configuration. Also clap's own code.
pub(crate) const EXIT_USAGE: u8 = 2;
/// A person must decide first: the round is halted, or what was decided on has changed.
pub(crate) const EXIT_REFUSED: u8 = 3;
/// The centre cannot be reached.
pub(crate) const EXIT_OFFLINE: u8 = 4;

/// What a command that came to its end has to say.
pub(crate) struct Done {
    /// For standard output.
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl Done {
    pub(crate) fn text(text: impl Into<String>) -> Done {
        Done { text: text.into(), code: 0 }
    }

    pub(crate) fn json(value: &serde_json::Value) -> Done {
        Done::text(format!("{value:#}"))
    }

    pub(crate) fn with_code(self, code: u8) -> Done {
        Done { code, ..self }
    }

    /// A list that lacks rows which are damaged says so, and is a failure. What programs read stays as it is.
    pub(crate) fn lacking(mut self, damaged: Vec<String>, is_json: bool) -> Done {
        let said = match damaged.len() {
            0 => return self,
            1 => "One row is damaged and not listed: `thalamus-edge doctor` says what to do".to_owned(),
            count => {
                format!("{count} rows are damaged and not listed: `thalamus-edge doctor` says what to do")
            }
        };
        let said = format!("{said}\n  {}", damaged.join("\n  "));
        if is_json {
            eprintln!("thalamus-edge: {said}");
        } else {
            self.text += &format!("\n\n{said}");
        }
        self.with_code(EXIT_FAILED)
    }
}

/// An error with an exit code of its own; others exit with 1.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { code: EXIT_USAGE, message: message.into() }
    }
}
