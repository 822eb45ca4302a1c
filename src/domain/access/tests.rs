//! Floor 0. What the built-in rules and others permit, and how actors are written.

use super::*;

#[test]
fn the_built_in_rules_parse_without_warnings() {
    let (acl, warnings) = Acl::parse(BUILT_IN_ROLES).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    for role in [END_USER, "health_professional", ROOT] {
        assert!(acl.knows_role(role));
    }
}

#[test]
fn errors_name_the_place() {
    let place = |text: &str| Acl::parse(text).unwrap_err().to_string();
    assert!(place("[\n{]").starts_with("line 2: is no JSON"), "{}", place("[\n{]"));
    assert!(place(r#"[{"role": "a"}]"#).starts_with("line 1: [0]: has no \"permissions\""));
    for (text, words) in [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[{\"role\": ", "ends in the middle"),
        ("{}", "is no list of roles"),
        ("7", "is no list of roles"),
        ("[][]", "goes on"),
        ("[{'role': 1}]", "is no JSON"),
        ("[1]", "is no role"),
        ("[{\"role\": \"\", \"permissions\": {}}]", "must be a name"),
    ] {
        let found = place(text);
        assert!(found.contains(words) && !found.contains("EOF"), "{text}: {found}");
    }
    let global = r#"[{"role": "a", "permissions": {"global": "maybe"}}]"#;
    assert!(place(global).starts_with("line 1: [0].permissions.global: "));
    let names = r#"[{"role": "a", "permissions": {"GET": "people"}}]"#;
    assert!(place(names).starts_with("line 1: [0].permissions.GET: "));
}

#[test]
fn emergencies_are_for_roles_that_say_so() {
    let text = r#"[{"role": "nurse", "permissions": {"GET": ["person"], "PATCH": ["page"], "emergency": true}},
                   {"role": "guest", "permissions": {"GET": ["person", "page"], "emergency": "False"}},
                   {"role": "doctor", "permissions": {"GET": ["page", "sync"], "global": "True", "emergency": "True"}}]"#;
    let (acl, warnings) = Acl::parse(text).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("role \"doctor\": \"emergency\" does nothing"), "{warnings:?}");
    assert!(acl.knows_emergencies() && !Acl::built_in().knows_emergencies());
    let who = |roles: &[&str]| {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Principal::new(Actor::Person("ANA001".to_owned()), roles)
    };
    for (roles, name, may) in [
        (&["nurse"][..], "person", true),
        (&["guest", "nurse"], "person", true),
        // Named only where there is no emergency, or for other verbs.
        (&["guest", "nurse"], "page", false),
        (&["guest"], "person", false),
        (&["doctor"], "page", false),
        (&["unknown"], "person", false),
        (&[], "login", false),
    ] {
        assert_eq!(acl.may_open(&who(roles), name), may, "{roles:?} {name}");
    }
    let operator = Principal::new(Actor::Operator(0), Vec::new());
    assert!(!acl.may_open(&operator, "person"));
    let bad = r#"[{"role": "a", "permissions": {"emergency": 1}}]"#;
    let error = Acl::parse(bad).unwrap_err().to_string();
    assert!(error.starts_with("line 1: [0].permissions.emergency: must be true"), "{error}");
}

#[test]
fn an_actor_is_what_is_written() {
    let person = |id: &str| Actor::Person(id.to_owned());
    let local = |name: &str| Actor::Local(name.to_owned());
    let actors = [
        person("ANNA1"),
        person("boss@local"),
        person("local:boss"),
        person("person:ANNA1"),
        person("operator(uid 0)"),
        person("operator:0"),
        person("centre"),
        person("NODE"),
        person("nobody"),
        person("-"),
        person(""),
        local("boss"),
        local("ANNA1"),
        local("centre"),
        Actor::Operator(0),
        Actor::Centre,
        Actor::Node,
        Actor::Nobody,
    ];
    for (n, actor) in actors.iter().enumerate() {
        assert_eq!(Actor::read(&actor.to_string()).as_ref(), Some(actor));
        for other in &actors[..n] {
            assert!(!actor.is_same(other) && actor.to_string() != other.to_string(), "{actor} {other}");
        }
    }
    // As versions up to 0.1.0 wrote them.
    for (old, actor) in [
        ("ANNA1", Some(person("ANNA1"))),
        ("boss@local", Some(local("boss"))),
        ("operator(uid 1000)", Some(Actor::Operator(1000))),
        ("centre", Some(Actor::Centre)),
        ("-", Some(Actor::Nobody)),
        ("operator(uid 0", None),
        ("operator:x", None),
        ("Ñandú", None),
        ("", None),
    ] {
        assert_eq!(Actor::read(old), actor, "{old}");
    }
    assert!(person("anna1").is_same(&person("ANNA1")) && local("Boss").is_same(&local("boss")));
}

#[test]
fn unknown_names_warn() {
    let text = r#"[{"role": "a", "permissions": {"GET": ["peple", "sync"], "FETCH": []}}]"#;
    let (_, warnings) = Acl::parse(text).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn a_key_that_stands_twice_warns() {
    let text = r#"[{"role": "a", "permissions": {"GET": ["people"], "GET": ["sync"]}}]"#;
    let (_, warnings) = Acl::parse(text).unwrap();
    assert_eq!(warnings, ["0.permissions.GET: the key stands twice"]);
}
