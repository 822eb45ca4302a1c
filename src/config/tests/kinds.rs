//! Every kind of fault has a place, the value, what is allowed, and an example that is right there.

use std::os::unix::fs::PermissionsExt as _;

use super::faults::faults;
use super::*;
use crate::domain::access::Acl;

const SECRET: &str = "s3cret";
/// Configuration files, each with a fault; the program is started with each of them in `tests/cli`.
const WRONG: &str = include_str!("wrong.txt");

/// The example as the message writes it.
fn written(fault: &Fault) -> String {
    fault.to_string().rsplit_once("; for example ").unwrap().1.to_owned()
}

fn holds_all(fault: &Fault) {
    let said = fault.to_string();
    for part in [&fault.place, &fault.value, &fault.problem, &*fault.allowed, &*fault.example] {
        assert!(!part.trim().is_empty(), "{fault:?}");
        assert!(!part.contains(SECRET), "{fault:?}");
    }
    assert!(said.contains("; allowed: ") && !said.contains(SECRET) && !said.contains('\n'), "{said}");
    let json = serde_json::to_value(fault).unwrap();
    for name in ["place", "value", "problem", "allowed", "example", "stops_the_node"] {
        assert!(!json[name].is_null(), "{json}");
    }
    assert_eq!(fault.file.is_some(), fault.line.is_some(), "{fault:?}");
    assert!(fault.line != Some(0));
}

/// The halves of a pair go together.
fn partner(key: &str) -> &'static str {
    match key {
        "server.certificate" => "server.key = \"/k\"\n",
        "server.key" => "server.certificate = \"/c\"\n",
        _ => "",
    }
}

/// What the example says is taken where the fault is.
fn is_mended(fault: &Fault) {
    let right = |text: &str, env: &[(&str, &str)]| {
        load_env(text, env).unwrap_or_else(|error| panic!("{fault:?}\n{text}\n{env:?}\n{error}"));
    };
    let key = fault.key.as_deref();
    if fault.place.starts_with("variable ") {
        let written = written(fault);
        let (name, value) = written.split_once('=').unwrap();
        let partner = key.map_or("", partner);
        right(partner, &[(name, value.trim_matches('\''))]);
        if key.is_some_and(|key| keys::find(key).is_some()) {
            right(partner, &[(fault.place.strip_prefix("variable ").unwrap(), &*fault.example)]);
        }
        return;
    }
    match key {
        Some(key) if keys::find(key).is_some() => {
            right(&format!("{}{key} = {}", partner(key), fault.example), &[]);
            assert_eq!(written(fault).split_once(" = ").unwrap().1, fault.example);
        }
        Some(key) => {
            let section = match key.split_once('.') {
                _ if fault.example.starts_with('[') => String::new(),
                Some(_) if key.starts_with("central.collections.") => "[central.collections]\n".to_owned(),
                Some((section, _)) => format!("[{section}]\n"),
                None => String::new(),
            };
            right(&format!("{section}{}", fault.example), &[]);
        }
        // A line that is no TOML.
        None => {
            let name = fault.example.split(" = ").next().unwrap();
            let known = keys::KEYS.iter().filter(|key| keys::last_part(key.name) == name);
            let sections = known.map(|key| keys::section_of(key.name));
            let mends = |section: Option<&str>| {
                let header = section.map(|section| format!("[{section}]\n")).unwrap_or_default();
                load(&format!("{header}{}", fault.example)).is_ok()
            };
            assert!(sections.into_iter().any(mends), "{fault:?}");
        }
    }
}

#[test]
fn every_fault_in_the_configuration_says_what_would_be_right() {
    let uri = format!("mongodb://edge:{SECRET}@hub/");
    let in_lists =
        ["server.names", "server.trusted_proxies", "api.cors_allowed_origins", "central.quiet_hours"];
    let mut cases: Vec<String> = in_lists.iter().map(|key| format!("{key} = [\"{uri}\"]")).collect();
    // What has a type of its own in TOML, and what only can be read wrongly.
    for key in keys::KEYS {
        cases.push(format!("{} = {{ zzz = \"{SECRET}\" }}", key.name));
        cases.push(format!("{} = [[\"{uri}\"]]", key.name));
        cases.push(format!("{} = \"{uri}\"", key.name));
        cases.push(format!("{} = -1", key.name));
    }
    cases.extend(WRONG.trim_end().split("\n---\n").map(str::to_owned));
    let mut seen = std::collections::BTreeSet::new();
    for text in &cases {
        // Text keys take some of the values; there is a fault of the key in another form then.
        if load(text).is_ok() {
            continue;
        }
        for fault in faults(text, &[]) {
            holds_all(&fault);
            assert!(fault.line.is_some() && fault.file.is_some(), "{text}: {fault:?}");
            is_mended(&fault);
            seen.insert(fault.key.unwrap_or_default());
        }
    }
    for key in keys::KEYS {
        assert!(seen.contains(key.name), "no fault of {}", key.name);
    }
    let shown = |text: &str| faults(text, &[])[0].value.clone();
    assert_eq!(shown("[server]\nlisten = 0.0.0.0:8443"), "listen = 0.0.0.0:8443");
    assert_eq!(shown("[server]\nlisen = \"x\""), "\"x\"");
    assert_eq!(shown("[sever]\nx = 1"), "[sever]");
    assert_eq!(shown("[[server]]\ntls = true"), "[[server]]");
    assert_eq!(shown("[backup]\nkeep = 0"), "0");
}

#[test]
fn an_example_is_another_than_what_is_wrong() {
    for key in keys::KEYS {
        let value: toml::Value = key.example.parse().unwrap();
        let example = key.example_beside(Some(&value));
        let is_of_machine =
            ["data_dir", "listen", "certificate", "file", "directory", "server.key", "reserve"];
        if is_of_machine.iter().any(|word| key.name.ends_with(word) || key.name.contains("reserve")) {
            assert_ne!(example, key.example, "{}", key.name);
        }
        load(&format!("{}{} = {example}", partner(key.name), key.name)).unwrap();
    }
    let taken = toml::Value::String("127.0.0.1:8443".to_owned());
    let listen = keys::find("server.listen").unwrap();
    assert_ne!(listen.example_beside(Some(&taken)), listen.example, "the port is taken");
}

#[test]
fn every_fault_of_a_variable_or_a_flag_says_what_would_be_right() {
    let mut cases: Vec<(String, String)> = keys::KEYS
        .iter()
        .map(|key| (key.variable(), format!("[[\"mongodb://edge:{SECRET}@hub/\"]]")))
        .collect();
    let others = [
        ("THALAMUS_EDGE__NOSUCH__X", "s3cret"),
        ("THALAMUS_EDGE__", "s3cret"),
        ("THALAMUS_EDGE__ZZZ", "s3cret"),
        ("THALAMUS_EDGE__SERVER__LISEN", "x"),
        ("THALAMUS_EDGE__SERVER", "s3cret"),
        ("THALAMUS_EDGE__STORE__ZZZ", "s3cret"),
        ("THALAMUS_EDGE__NODE__NAME", "a\u{fffd}"),
        ("THALAMUS_EDGE__SERVER__NAMES", "[\"a b\"]"),
        ("THALAMUS_EDGE__CENTRAL__COLLECTIONS__POLS", "a$b"),
        ("THALAMUS_EDGE__CENTRAL__COLLECTIONS", "{ pols = \"people\" }"),
        ("THALAMUS_EDGE__CENTRAL__URI", "mongodb://user:s3cret@ss@h/"),
        ("THALAMUS_EDGE_SERVER_TLS", "s3cret"),
        ("THALAMUS_EDGE_CENTRAL_URI", "mongodb://user:s3cret@h/"),
        ("THALAMUS_EDGE_LOG", "lots"),
        ("THALAMUS_EDGE_LOG", "mongodb://user:s3cret@h/"),
        ("THALAMUS_EDGE_LOG_FORMAT", "xml"),
    ];
    cases.extend(others.map(|(name, value)| (name.to_owned(), value.to_owned())));
    for (name, value) in &cases {
        if load_env("", &[(name, value)]).is_ok() {
            continue;
        }
        for fault in faults("", &[(name, value)]) {
            holds_all(&fault);
            assert_eq!(fault.place, format!("variable {name}"));
            is_mended(&fault);
        }
    }
    for (name, example) in [
        ("THALAMUS_EDGE__NOSUCH__X", "THALAMUS_EDGE__SERVER__LISTEN=0.0.0.0:8443"),
        ("THALAMUS_EDGE__SERVER__LISEN", "THALAMUS_EDGE__SERVER__LISTEN=0.0.0.0:8443"),
        ("THALAMUS_EDGE_SERVER_TLS", "THALAMUS_EDGE__SERVER__TLS=true"),
        ("THALAMUS_EDGE__SERVER__NAMES", "THALAMUS_EDGE__SERVER__NAMES='[\"clinic.local\", \"10.0.0.5\"]'"),
        ("THALAMUS_EDGE_LOG", "THALAMUS_EDGE_LOG=info"),
    ] {
        assert_eq!(written(&faults("", &[(name, "[7]")])[0]), example);
    }

    let listen = |listen: &str| Overrides { listen: Some(listen.to_owned()), demo: false };
    let Err(ConfigError::Faults(found)) = Loaded::of_layers(None, std::iter::empty(), &listen("8443")) else {
        panic!("a port without an address");
    };
    let fault = found.iter().find(|fault| fault.place == "--listen").unwrap();
    holds_all(fault);
    assert_eq!((fault.value.as_str(), written(fault).as_str()), ("\"8443\"", "--listen 0.0.0.0:8443"));
    assert!(Loaded::of_layers(None, std::iter::empty(), &listen(&fault.example)).is_ok());
}

#[test]
fn every_fault_of_access_rules_says_what_would_be_right() {
    const FITTING: &str = r#"[{"role": "a", "permissions": {"GET": ["page"], "global": true}}]"#;
    let directory = TempDir::new().unwrap();
    let roles = directory.path().join("roles.cfg");
    let found = |rules: &str| {
        fs::write(&roles, rules).unwrap();
        let text = format!("accounts.roles_file = {roles:?}");
        let Err(ConfigError::Faults(faults)) = load(&text).unwrap().acl() else { panic!("{rules}") };
        faults
    };
    let many = found(
        "[\n {\"role\": \"a\",\n  \"permissions\": {\"GET\": \"page\",\n \"global\": 2}},\n {\"role\": 1},\n \
         {\"role\": \"a\", \"permissions\": {}}]",
    );
    let places: Vec<_> = many
        .iter()
        .map(|fault| (fault.line.unwrap(), fault.key.as_deref().unwrap(), fault.value.as_str()))
        .collect();
    let expected = [
        (3, "[0].permissions.GET", "\"page\""),
        (4, "[0].permissions.global", "2"),
        (5, "[1].role", "1"),
        (6, "[2].role", "\"a\""),
    ];
    assert_eq!(places, expected);
    for (rules, pointer) in [
        ("", ""),
        ("[{\"role\": s3cret}]", ""),
        ("{\"role\": \"s3cret\"}", ""),
        ("[[1],]", ""),
        ("[1]", "/0"),
        ("[{}]", "/0"),
        (r#"[{"role": "a"}]"#, "/0"),
        (r#"[{"role": "", "permissions": {}}]"#, "/0/role"),
        (r#"[{"role": "a", "permissions": []}]"#, "/0/permissions"),
        (r#"[{"role": "a", "permissions": {"GET": 1}}]"#, "/0/permissions/GET"),
        (r#"[{"role": "a", "permissions": {"GET": [1]}}]"#, "/0/permissions/GET"),
        (r#"[{"role": "a", "permissions": {"global": "yes"}}]"#, "/0/permissions/global"),
        (r#"[{"role": "a", "permissions": {}}, {"role": "a", "permissions": {}}]"#, "/1/role"),
    ] {
        let faults = found(rules);
        let [fault] = &faults[..] else { panic!("{rules}: {faults:?}") };
        holds_all(fault);
        assert!(fault.line == Some(1) && fault.file.as_ref() == Some(&roles), "{fault:?}");
        let read: serde_json::Value = serde_json::from_str(rules).unwrap_or_default();
        let mut mended = if pointer.is_empty() { serde_json::from_str(FITTING).unwrap() } else { read };
        *mended.pointer_mut(pointer).unwrap() = serde_json::from_str(&fault.example).unwrap();
        let (_, warnings) =
            Acl::parse(&mended.to_string()).unwrap_or_else(|error| panic!("{rules}: {error}"));
        // Nobody administers a node with so short a file, which is no fault of the place that was mended.
        let others = warnings.iter().filter(|warning| !warning.starts_with("no role may use a function"));
        assert_eq!(others.count(), 0, "{rules}: {warnings:?}");
    }
}

#[test]
fn every_fault_of_a_file_says_what_would_be_right() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let of = |error: ConfigError| {
        let said = error.to_string();
        let found = error.into_faults();
        found.iter().for_each(holds_all);
        assert_eq!(said.lines().count(), found.len());
        found
    };
    fs::write(path("uri"), format!("mongodb://edge:{SECRET}@ss@hub/\n")).unwrap();
    let config = load(&format!("central.uri_file = {:?}", path("uri"))).unwrap();
    let fault = of(config.centre().unwrap_err()).remove(0);
    assert_eq!((fault.file.as_deref(), fault.line), (Some(path("uri").as_path()), Some(1)));
    fs::write(path("uri"), &*fault.example).unwrap();
    config.centre().unwrap();

    fs::write(path("key"), SECRET).unwrap();
    fs::set_permissions(path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let found = of(read_key(&path("key")).unwrap_err());
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].line, found[1].value.as_str()), (Some(1), "mode 0644"));
    assert_eq!(found[1].example, "chmod o= FILE");
    fs::set_permissions(path("key"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(of(read_key(&path("key")).unwrap_err()).len(), 1);

    let absent = of(read_key(&path("absent")).unwrap_err());
    assert_eq!(absent[0].place, path("absent").display().to_string());
    let misplaced = format!("mongodb://edge:{SECRET}@hub/");
    of(read_key(Path::new(&misplaced)).unwrap_err());
    let load_file = |name: &str| Config::load(Some(&path(name)), std::iter::empty(), &Overrides::default());
    of(load_file("absent").unwrap_err());
    fs::write(path("latin"), b"# ok\n# caf\xe9\n").unwrap();
    assert_eq!(of(load_file("latin").unwrap_err())[0].line, Some(2));
}

/// What is not set has a place and an example too.
#[test]
fn a_fault_of_a_default_says_what_would_be_right() {
    let found = layers::Origins::default().fault("server.listen", "is taken");
    holds_all(&found);
    assert_eq!((found.value.as_str(), found.example.as_ref()), ("(not set)", "\"0.0.0.0:8444\""));
    assert!(found.to_string().ends_with("for example [server] listen = \"0.0.0.0:8444\""), "{found}");
}
