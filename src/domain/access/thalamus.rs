//! Floor 0. Access rules that were written for Thalamus: what they give at a node, and what they gave there.
//!
//! The facts about Thalamus were read off versions 0.9.4 and 0.9.18.

use std::collections::BTreeSet;

use super::acl::{OPERATOR_NAMES, Permissions};
use super::{Acl, BUILT_IN_ROLES, ROOT, Verb};
use crate::domain::record::Kind;
use crate::domain::record::schema::SCHEMAS;

/// The kinds whose paths Thalamus has and its own file does not name, so that nobody reads them with it. It only reads them.
const UNNAMED_KINDS: [Kind; 3] = [Kind::PersonalDocument, Kind::DomiciliaryUnit, Kind::Institution];

fn unnamed_names() -> BTreeSet<&'static str> {
    UNNAMED_KINDS.iter().flat_map(|kind| kind.schema().routes).map(|route| route.acl).collect()
}

impl Permissions {
    fn has(&self, verb: Verb, name: &str) -> bool {
        self.names.get(&verb).is_some_and(|names| names.contains(name))
    }

    fn names_any_of<'a>(&self, names: impl IntoIterator<Item = &'a &'a str>) -> bool {
        names.into_iter().any(|name| Verb::ALL.iter().any(|verb| self.has(*verb, name)))
    }
}

impl Acl {
    /// Gives `root` what a file of Thalamus does not name at all. Returns sentences about it.
    pub(super) fn complete_root(&mut self) -> Vec<String> {
        [self.give_functions_to_root(), self.give_unnamed_to_root()].into_iter().flatten().collect()
    }

    /// Gives documents, units and institutions to `root` for reading where the rules name none of them: otherwise nobody could
    /// read what a clinic brings from its Thalamus.
    fn give_unnamed_to_root(&mut self) -> Option<String> {
        let names = unnamed_names();
        if self.roles.values().any(|permissions| permissions.names_any_of(&names)) {
            return None;
        }
        let root = self.roles.get_mut(ROOT)?;
        root.names.entry(Verb::Get).or_default().extend(names.iter().map(|name| (*name).to_owned()));
        let listed = names.into_iter().collect::<Vec<_>>().join(", ");
        Some(format!(
            "no role names personal documents, domiciliary units or institutions ({listed}), as in a file of Thalamus: {ROOT:?} \
             may read them, nobody else. Name them for the roles that are meant to use them"
        ))
    }

    /// Gives the functions of the node (synchronization, accounts, ...) to `root` where the rules name none of them:
    /// Thalamus has none, and with its own file nobody could administer a node.
    fn give_functions_to_root(&mut self) -> Option<String> {
        if self.roles.is_empty() {
            return None;
        }
        if self.roles.values().any(|permissions| permissions.names_any_of(OPERATOR_NAMES)) {
            return self.functions_of_nobody();
        }
        let Some(root) = self.roles.get_mut(ROOT) else {
            return Some(format!(
                "no role may use a function of the node ({}), and there is no role {ROOT:?} to be given them",
                OPERATOR_NAMES.join(", ")
            ));
        };
        let (built_in, _) = Acl::parse(BUILT_IN_ROLES).ok()?;
        let own = built_in.roles.get(ROOT)?;
        for (verb, names) in &own.names {
            let functions = names.iter().filter(|name| OPERATOR_NAMES.contains(&name.as_str())).cloned();
            root.names.entry(*verb).or_default().extend(functions);
        }
        Some(format!(
            "no role names a function of the node ({}), as in a file of Thalamus: {ROOT:?} may use them as in the node's own \
             rules. Name them for the roles that are meant to use them",
            OPERATOR_NAMES.join(", ")
        ))
    }

    /// A sentence about the functions of the node that the rules give to no role: the author of a file that
    /// names some may take the others for given.
    fn functions_of_nobody(&self) -> Option<String> {
        self.roles.get(ROOT)?;
        let may_use = |permissions: &Permissions, name: &str| {
            permissions.global && Verb::ALL.iter().any(|verb| permissions.has(*verb, name))
        };
        let nobodys: Vec<&str> = OPERATOR_NAMES
            .iter()
            .copied()
            // Only the operator, who runs commands on the machine, has these in the node's own rules as well.
            .filter(|name| *name != "backups")
            .filter(|name| !self.roles.values().any(|permissions| may_use(permissions, name)))
            .collect();
        (!nobodys.is_empty()).then(|| {
            format!(
                "no role with \"global\" may use these functions of the node: {}. Because the file names at least one function, none is \
                 given to {ROOT:?} by itself; name them for the roles that are meant to use them",
                nobodys.join(", ")
            )
        })
    }

    /// What each role may do, what Thalamus let it do besides with the same rules, and what of it Thalamus did not; a few
    /// lines each.
    pub fn explained(&self) -> Vec<String> {
        let mut lines: Vec<_> =
            self.roles.iter().flat_map(|(role, permissions)| explained(role, permissions)).collect();
        // The versions with this name are those that ask for a login on every path.
        if !self.roles.is_empty()
            && !self.roles.values().any(|permissions| permissions.has(Verb::Get, "login"))
        {
            lines.push(
                "no role names \"login\", as in the file of Thalamus 0.9.4: it let everybody read all personal documents and \
                 domiciliary units without a login"
                    .to_owned(),
            );
        }
        lines
    }
}

fn explained(role: &str, permissions: &Permissions) -> Vec<String> {
    let reach = match permissions {
        Permissions { global: true, .. } => "everybody's records",
        Permissions { emergency: true, .. } => "own records, and others in an emergency",
        _ => "own records",
    };
    let given = Verb::ALL.iter().filter_map(|verb| {
        let names = permissions.names.get(verb).filter(|names| !names.is_empty())?;
        Some(format!("{} {}", verb.name(), listed(names)))
    });
    let given = given.collect::<Vec<_>>().join("; ");
    let mut lines =
        vec![format!("role {role:?} ({reach}): {}", if given.is_empty() { "nothing" } else { &given })];
    let unnamed: BTreeSet<String> = SCHEMAS
        .iter()
        .flat_map(|schema| schema.routes)
        .filter(|route| !Verb::ALL.iter().any(|verb| permissions.has(*verb, route.acl)))
        .map(|route| route.acl.to_owned())
        .collect();
    if !unnamed.is_empty() {
        lines.push(format!("  refused, as the file does not name them: {}", listed(&unnamed)));
    }
    let besides = besides(role, permissions);
    if !besides.is_empty() {
        lines.push(format!("  Thalamus let it besides: {}", besides.join("; ")));
    }
    let added = added(permissions);
    if !added.is_empty() {
        lines.push(format!("  Thalamus did not let it: {}", added.join("; ")));
    }
    lines
}

/// What a node lets a role do that Thalamus did not, with the same names and where Thalamus has the path.
fn added(permissions: &Permissions) -> Vec<String> {
    let mut added = Vec::new();
    if permissions.is_json_global {
        added.push(
            "use the records of others, because it takes \"global\": true for no, and only the text \"True\" for yes"
                .to_owned(),
        );
    }
    if permissions.has(Verb::Delete, "page") {
        added.push("delete pages (DELETE page)".to_owned());
    }
    let replaced: Vec<_> =
        ["person", "page"].into_iter().filter(|name| permissions.has(Verb::Put, name)).collect();
    if !replaced.is_empty() {
        added.push(format!("replace records (PUT {})", replaced.join(", ")));
    }
    added
}

/// What Thalamus let a role do that a node does not, with the same names.
fn besides(role: &str, permissions: &Permissions) -> Vec<&'static str> {
    let Permissions { global, is_json_global, .. } = permissions;
    // What Thalamus made of the file.
    let was_global = *global && !is_json_global;
    let can = |verb: Verb, name: &str| permissions.has(verb, name);
    let cases = [
        (!global && can(Verb::Get, "people"), "read the list of all people (GET people)"),
        (
            !global && (can(Verb::Get, "page") || can(Verb::Patch, "page")),
            "read and change a page of somebody else under its own path (GET and PATCH page)",
        ),
        (
            !(was_global || *global && role == ROOT) && can(Verb::Patch, "person"),
            "give itself other roles (PATCH person)",
        ),
        (
            was_global && role != ROOT && can(Verb::Patch, "person"),
            "change other people's passwords, roles and activity (PATCH person)",
        ),
        (
            was_global && role != ROOT && can(Verb::Post, "person"),
            "make people with other roles than \"end_user\" (POST person)",
        ),
        (
            was_global && role != ROOT && can(Verb::Post, "password"),
            "set other people's passwords in the form (POST password)",
        ),
    ];
    cases.into_iter().filter_map(|(is_so, words)| is_so.then_some(words)).collect()
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::{Actor, Principal, Scope};
    use super::*;

    /// The roles, names and reach of Thalamus 0.9.18.
    const OF_THALAMUS: &str = r#"[
        {"role": "end_user", "permissions": {"GET": ["login", "person", "book", "page", "password"],
            "PATCH": ["person", "page"], "POST": ["page", "password"], "DELETE": [], "global": "False"}},
        {"role": "health_professional", "permissions": {"GET": ["login", "people", "person", "book", "page"],
            "PATCH": ["person", "page"], "POST": ["person", "page"], "DELETE": [], "global": "True"}},
        {"role": "root", "permissions": {"GET": ["login", "people", "person", "book", "page", "password"],
            "PATCH": ["person", "page"], "POST": ["person", "page", "password"],
            "DELETE": ["person", "page"], "global": "True"}}]"#;

    fn who(role: &str) -> Principal {
        Principal::new(Actor::Person("ANA001".to_owned()), vec![role.to_owned()])
    }

    fn allowed(acl: &Acl, role: &str) -> Vec<(Verb, &'static str)> {
        let all = Verb::ALL.into_iter().flat_map(|verb| OPERATOR_NAMES.iter().map(move |name| (verb, *name)));
        all.filter(|(verb, name)| acl.authorize_node(&who(role), *verb, name) == Ok(Scope::Everyone))
            .collect()
    }

    #[test]
    fn with_the_rules_of_thalamus_root_administers_the_node() {
        let (acl, warnings) = Acl::parse(OF_THALAMUS).unwrap();
        assert_eq!(allowed(&acl, ROOT), allowed(&Acl::built_in(), ROOT));
        assert!(allowed(&acl, ROOT).contains(&(Verb::Post, "sync")));
        assert_eq!(allowed(&acl, "health_professional"), [], "others have what the file gives them");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("\"root\" may use them"), "{warnings:?}");
    }

    /// The names of documents, units and institutions that a role may use, for everybody's records.
    fn unnamed(acl: &Acl, role: &str) -> Vec<(Verb, &'static str)> {
        let all =
            Verb::ALL.into_iter().flat_map(|verb| unnamed_names().into_iter().map(move |name| (verb, name)));
        all.filter(|(verb, name)| acl.reach(&who(role), *verb, name).is_some()).collect()
    }

    #[test]
    fn with_the_rules_of_thalamus_root_reads_what_they_do_not_name() {
        let (acl, warnings) = Acl::parse(OF_THALAMUS).unwrap();
        let read: Vec<_> = unnamed_names().into_iter().map(|name| (Verb::Get, name)).collect();
        assert_eq!(read.len(), 7);
        assert_eq!(unnamed(&acl, ROOT), read, "Thalamus has no method that writes them");
        for role in ["end_user", "health_professional"] {
            assert_eq!(unnamed(&acl, role), [], "{role}");
        }
        assert!(
            warnings[1].contains("institutions") && warnings[1].contains("\"root\" may read them"),
            "{warnings:?}"
        );

        // One of the names, for any role, says that the file means the others as they are.
        let text =
            OF_THALAMUS.replacen("\"login\", \"people\"", "\"login\", \"institutions\", \"people\"", 1);
        let (acl, warnings) = Acl::parse(&text).unwrap();
        assert_eq!(unnamed(&acl, ROOT), []);
        assert_eq!(unnamed(&acl, "health_professional"), [(Verb::Get, "institutions")]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");

        let (acl, warnings) =
            Acl::parse(r#"[{"role": "admin", "permissions": {"GET": ["people"], "global": true}}]"#).unwrap();
        assert_eq!(unnamed(&acl, "admin"), [], "only root is given them");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn rules_that_name_one_function_are_meant_as_they_are() {
        let text = OF_THALAMUS.replace("\"book\"]", "\"book\", \"sync\"]").replacen(
            "\"people\", \"person\", \"book\", \"page\"]",
            "\"people\", \"person\", \"book\", \"page\", \"sync\"]",
            1,
        );
        let (acl, warnings) = Acl::parse(&text).unwrap();
        assert_eq!(allowed(&acl, ROOT), []);
        assert_eq!(allowed(&acl, "health_professional"), [(Verb::Get, "sync")]);
        // Nobody is left without a word: these functions are nobody's.
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        for name in OPERATOR_NAMES.iter().filter(|name| !["sync", "backups"].contains(name)) {
            assert!(warnings[0].contains(name), "{name}: {warnings:?}");
        }
        assert!(!warnings[0].contains("sync"), "{warnings:?}");
    }

    #[test]
    fn rules_without_root_give_their_functions_to_nobody() {
        let (acl, warnings) =
            Acl::parse(r#"[{"role": "admin", "permissions": {"GET": ["people"], "global": true}}]"#).unwrap();
        assert_eq!(allowed(&acl, "admin"), []);
        assert!(warnings[0].contains("there is no role \"root\""), "{warnings:?}");
    }

    /// Thalamus compares with the text: with JSON's `true` a role had its own records only.
    #[test]
    fn what_thalamus_did_not_allow_is_said() {
        let explained = |text: &str| Acl::parse(text).unwrap().0.explained();
        let of_role = |lines: &[String], role: &str| {
            let begin = lines.iter().position(|line| line.starts_with(&format!("role {role:?}"))).unwrap();
            let lines = lines.iter().skip(begin + 1);
            lines.take_while(|line| line.starts_with(' ')).cloned().collect::<Vec<_>>().join("\n")
        };
        let (asked, words) = ("did not let it", "takes \"global\": true for no");
        let as_text = explained(OF_THALAMUS);
        assert!(!of_role(&as_text, "end_user").contains(asked), "{as_text:?}");
        assert!(!of_role(&as_text, "health_professional").contains(asked), "{as_text:?}");
        let root = of_role(&as_text, ROOT);
        assert!(
            root.contains("did not let it: delete pages (DELETE page)") && !root.contains(words),
            "{root}"
        );
        let as_json = explained(&OF_THALAMUS.replace("\"True\"", "true").replace("\"False\"", "false"));
        for (role, is_said) in [("end_user", false), ("health_professional", true), (ROOT, true)] {
            let said = of_role(&as_json, role);
            assert_eq!(said.contains(words), is_said, "{role}: {said}");
        }
        let staff = of_role(&as_json, "health_professional");
        assert!(staff.contains("besides: give itself other roles (PATCH person)"), "{staff}");
        assert!(!staff.contains("passwords"), "{staff}");
        assert!(!of_role(&as_json, ROOT).contains("besides"), "{as_json:?}");
        let replacing =
            OF_THALAMUS.replace("\"DELETE\": [\"person\"", "\"PUT\": [\"page\"], \"DELETE\": [\"person\"");
        assert!(of_role(&explained(&replacing), ROOT).contains("replace records (PUT page)"));
    }

    #[test]
    fn each_role_is_explained() {
        let (acl, _) = Acl::parse(OF_THALAMUS).unwrap();
        let text = acl.explained().join("\n");
        for words in [
            "role \"end_user\" (own records): GET book, login, page, password, person; POST page, password; PATCH page, person",
            "role \"health_professional\" (everybody's records): ",
            "refused, as the file does not name them: domiciliaryunit, domiciliaryunits, ",
            "give itself other roles (PATCH person)",
            "change other people's passwords, roles and activity (PATCH person); make people",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        let root = text.split("role \"root\"").nth(1).unwrap();
        assert!(!root.contains("besides"), "{root}");
        assert!(!text.contains("without a login"), "{text}");
        let older = OF_THALAMUS.replace("\"login\", ", "");
        let older = Acl::parse(&older).unwrap().0.explained().join("\n");
        assert!(
            older.contains("everybody read all personal documents and domiciliary units without a login"),
            "{older}"
        );
        let built_in = Acl::built_in().explained().join("\n");
        assert!(!built_in.split("role \"root\"").nth(1).unwrap().contains("refused"), "{built_in}");
    }
}
