//! Floor 0. The text of `roles.cfg`: entry by entry, and what is wrong with it in which line.

use serde_json::{Map, Value};

use super::acl::AclFault;
use crate::domain::json::lines::{Step, line_of};

const ALLOWED: &str = "a JSON list of roles, each with \"role\" and \"permissions\"";
const EXAMPLE: &str = r#"[{"role": "end_user", "permissions": {"GET": ["person", "page"]}}]"#;

/// A text that is no list. What stands in it may be of any other file, so it is not repeated.
pub(super) fn no_list(text: &str, error: &serde_json::Error) -> AclFault {
    let message = match () {
        () if text.trim().is_empty() => "is empty",
        () if error.is_eof() => "ends in the middle: a bracket or a quotation mark that closes is missing",
        () if error.is_data() => "is no list of roles",
        () if error.to_string().starts_with("trailing characters") => "goes on after the end of its list",
        () if error.to_string().starts_with("trailing comma") => {
            "is no JSON: a comma stands after the last item"
        }
        () => {
            "is no JSON (text stands in double quotes, between items stands one comma, and there are no comments)"
        }
    };
    AclFault {
        line: error.line().max(1),
        key: None,
        value: None,
        message: message.to_owned(),
        allowed: ALLOWED,
        example: EXAMPLE,
    }
}

/// As Thalamus writes what is true, or as JSON does.
pub(super) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text == "True" => Some(true),
        Value::String(text) if text == "False" => Some(false),
        _ => None,
    }
}

/// What would be right in one place of the rules.
struct Right {
    allowed: &'static str,
    example: &'static str,
}

const ROW: Right = Right {
    allowed: "an object with \"role\" and \"permissions\"",
    example: r#"{"role": "end_user", "permissions": {"GET": ["person", "page"]}}"#,
};
const NAME: Right = Right { allowed: "a name in double quotes, each role once", example: r#""nurse""# };
const PERMISSIONS: Right = Right {
    allowed: "an object with GET, POST, PATCH, PUT, DELETE, each a list of names, \"global\" and \"emergency\"",
    example: r#"{"GET": ["person", "page"]}"#,
};
const FLAG: Right = Right { allowed: "true, false, \"True\" or \"False\"", example: "true" };
const NAMES: Right = Right { allowed: "a list of names in double quotes", example: r#"["person", "page"]"# };

/// An entry of the list.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    /// From 0.
    pub(super) index: usize,
}

impl Reader<'_> {
    /// The name of a role, and what it may do.
    pub(super) fn row<'r>(
        &self,
        row: &'r Value,
        warnings: &mut Vec<String>,
    ) -> Result<(&'r str, &'r Map<String, Value>), AclFault> {
        let Value::Object(fields) = row else {
            return Err(self.fault(&[], row, "is no role, which stands between { and }", &ROW));
        };
        let role: &str = match fields.get("role") {
            Some(Value::String(role)) if !role.is_empty() => role,
            Some(other) => {
                return Err(self.fault(&["role"], other, "must be a name in double quotes", &NAME));
            }
            None => return Err(self.fault(&[], row, "has no \"role\"", &ROW)),
        };
        for key in fields.keys().filter(|key| !["role", "permissions"].contains(&key.as_str())) {
            warnings.push(format!(
                "role {role:?}: nothing is called {key:?} beside \"role\" and \"permissions\""
            ));
        }
        match fields.get("permissions") {
            Some(Value::Object(permissions)) => Ok((role, permissions)),
            Some(other) => {
                Err(self.fault(&["permissions"], other, "must stand between { and }", &PERMISSIONS))
            }
            None => Err(self.fault(&[], row, "has no \"permissions\"", &ROW)),
        }
    }

    pub(super) fn twice(&self, role: &str) -> AclFault {
        let message = format!("the role {role:?} stands twice");
        self.fault(&["role"], &Value::String(role.to_owned()), &message, &NAME)
    }

    pub(super) fn no_flag(&self, key: &str, value: &Value) -> AclFault {
        let message = format!("must be {}", FLAG.allowed);
        self.fault(&["permissions", key], value, &message, &FLAG)
    }

    pub(super) fn no_names(&self, key: &str, value: &Value) -> AclFault {
        let message = format!("must be {}", NAMES.allowed);
        self.fault(&["permissions", key], value, &message, &NAMES)
    }

    fn fault(&self, keys: &[&str], value: &Value, message: &str, right: &Right) -> AclFault {
        let path: Vec<Step<'_>> =
            std::iter::once(Step::Item(self.index)).chain(keys.iter().map(|key| Step::Key(key))).collect();
        let names = keys.iter().map(|key| format!(".{key}"));
        AclFault {
            line: line_of(self.text, &path),
            key: Some(format!("[{}]{}", self.index, names.collect::<String>())),
            value: Some(value.to_string()),
            message: message.to_owned(),
            allowed: right.allowed,
            example: right.example,
        }
    }
}
