//! Layers, places of faults, and what the installed sample says.

mod errors;
mod faults;
mod kinds;
mod outside;

use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::domain::json::DateFormat;
use crate::http::CollectionShape;

const SAMPLE: &str = include_str!("../../etc/config.toml");
const URI: &str = "mongodb://edge:s3cret-w0rd@hub.example.org:27017/";

/// Loads `text` as the file `site.toml`, under variables and flags.
fn load_all(text: &str, env: &[(&str, &str)], overrides: &Overrides) -> Result<Config, String> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("site.toml");
    fs::write(&path, text).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let place = format!("{}/", directory.path().display());
    Config::load(Some(&path), env, overrides).map_err(|error| error.to_string().replace(&place, ""))
}

fn load(text: &str) -> Result<Config, String> {
    load_all(text, &[], &Overrides::default())
}

fn load_env(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    load_all(text, env, &Overrides::default())
}

/// The sample with the "#" before its keys removed.
fn uncommented() -> String {
    let key = |line: &&str| {
        let word = line[1..].split(' ').next().unwrap_or_default();
        !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_') && line.contains(" = ")
    };
    let lines = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(bare) if key(&line) => bare,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_installed_file_says_the_defaults() {
    assert_eq!(load(SAMPLE).unwrap(), load("").unwrap());
    let uncommented = uncommented();
    assert_eq!(load(&uncommented).unwrap(), load("").unwrap(), "{uncommented}");
}

#[test]
fn a_centre_without_a_change_feed_is_asked_less_often_unless_somebody_said_when() {
    for (text, expected) in [
        ("", "0 0 * * * *"),
        ("[central]\nschedule = \"0 0 3 * * *\"", "0 0 3 * * *"),
        ("[central]\nschedule_without_feed = \"0 0 */6 * * *\"", "0 0 */6 * * *"),
        ("[central]\nschedule = \"0 0 3 * * *\"\nschedule_without_feed = \"0 0 4 * * *\"", "0 0 4 * * *"),
    ] {
        assert_eq!(load(text).unwrap().central.schedule_without_feed(), expected, "{text}");
    }
}

#[test]
fn the_installed_file_names_every_key_with_an_explanation() {
    let sample: toml::Table = toml::from_str(&uncommented()).unwrap();
    // The refusal of an unknown key lists the known ones.
    let known = |section: &str| -> Vec<String> {
        let error = load(&format!("{section}\nno_such_key = 1")).unwrap_err();
        let expected = error.split_once("expected ").unwrap().1.split(';').next().unwrap().to_owned();
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut sections: Vec<String> = known("");
    sections.retain(|key| key != "data_dir");
    assert!(sample.contains_key("data_dir"));
    let mut keys = 1;
    for section in &sections {
        let table = sample[section.as_str()].as_table().unwrap();
        for key in known(&format!("[{section}]")) {
            assert!(table.contains_key(&key), "{section}.{key}");
            keys += 1;
        }
    }
    assert_eq!(keys, 49, "the test has found the keys");
    let lines: Vec<&str> = SAMPLE.lines().collect();
    for pair in lines.windows(2) {
        if pair[1].starts_with('#') && !pair[1].starts_with("# ") {
            assert!(pair[0].starts_with("# "), "no explanation before {}", pair[1]);
        }
    }
}

#[test]
fn every_value_can_be_set() {
    let config = load(
        r#"
        data_dir = "/srv/edge"
        [node]
        name = "Posta 7"
        [server]
        listen = "[::1]:9000"
        tls = true
        certificate = "/c.pem"
        key = "/k.pem"
        names = ["clinic.local", "10.0.0.1"]
        trusted_proxies = ["127.0.0.1", "10.8.0.0/24"]
        [api]
        date_format = "rfc3339"
        collection_shape = "rows"
        expose_password_hashes = true
        cors_allowed_origins = ["https://portal.example.org:8080"]
        body_limit_bytes = 2048
        content_limit_bytes = 0
        record_limit_bytes = "2 MiB"
        [accounts]
        roles_file = "/r.cfg"
        password_min_chars = 10
        bcrypt_cost = 13
        central_roles = ["end_user", "laboratory"]
        offline_login_days = 45
        [store]
        cache_bytes = 1048576
        journal_keep_rows = 5000
        audit_keep_rows = 60000
        audit_keep_days = 90
        scrub_days = 30
        key_file = "/etc/key"
        reserve_bytes = 7000
        [central]
        uri = "mongodb://hub"
        database = "gh"
        schedule = "30 0 3 * * Sun"
        verify_schedule = ""
        jitter_s = 0
        round_timeout_s = 60
        continuous = true
        attachment_bytes_per_round = 0
        scan_bytes_per_round = 65536
        budget_bytes_per_day = 20000000
        quiet_hours = ["08:00-18:30", "22:00-06:00"]
        collections = { pols = "pages", person = "personas" }
        "#,
    )
    .unwrap();
    assert_eq!(config.data_dir, Path::new("/srv/edge"));
    assert_eq!(config.node.name, "Posta 7");
    assert_eq!(config.server.listen.to_string(), "[::1]:9000");
    let tls = config.tls_settings().unwrap();
    assert_eq!(tls.directory, Path::new("/srv/edge/tls"));
    assert_eq!(tls.own.unwrap().key, Path::new("/k.pem"));
    assert_eq!(tls.names, ["clinic.local", "10.0.0.1"]);
    let proxies = config.trusted_proxies();
    assert_eq!(proxies, ["127.0.0.1/32".parse::<IpNet>().unwrap(), "10.8.0.0/24".parse().unwrap()]);
    let api = Api {
        date_format: DateFormat::Rfc3339,
        collection_shape: CollectionShape::Rows,
        expose_password_hashes: true,
        cors_allowed_origins: vec!["https://portal.example.org:8080".to_owned()],
        body_limit_bytes: 2048,
        content_limit_bytes: 0,
        record_limit_bytes: 2 << 20,
    };
    assert_eq!(config.api, api);
    assert_eq!(config.accounts.roles_file.as_deref(), Some(Path::new("/r.cfg")));
    assert_eq!(config.accounts.central_roles, ["end_user", "laboratory"]);
    assert_eq!(config.sync_settings().offline_login_days, 45);
    let accounts = config.accounts_settings();
    assert_eq!((accounts.bcrypt_cost, accounts.password_min_chars), (13, 10));
    assert_eq!(
        config.store,
        Store {
            cache_bytes: 1_048_576,
            journal_keep_rows: 5_000,
            audit_keep_rows: 60_000,
            audit_keep_days: 90,
            scrub_days: 30,
            reserve_bytes: 7_000,
            key_file: Some("/etc/key".into())
        }
    );
    assert_eq!(config.central.jitter(), Duration::ZERO);
    assert_eq!(config.central.verify_schedule, "");
    let sync = config.sync_settings();
    assert_eq!((sync.node_name.as_str(), sync.round_timeout), ("Posta 7", Duration::from_secs(60)));
    assert!(sync.continuous);
    assert_eq!((sync.attachment_bytes_per_round, sync.scan_bytes_per_round), (0, 65_536));
    assert_eq!(sync.budget_bytes_per_day, 20_000_000);
    let quiet = ["08:00-18:30", "22:00-06:00"].map(|hours| QuietHours::parse(hours).unwrap());
    assert_eq!(sync.quiet_hours, quiet);
    let centre = config.centre().unwrap().unwrap();
    assert_eq!((centre.uri.as_str(), centre.database.as_str()), ("mongodb://hub", "gh"));
    assert_eq!(centre.collection(Kind::Page), "pages");
    assert_eq!(centre.collection(Kind::Person), "personas");
    assert_eq!(centre.collection(Kind::Event), "event");
    assert_eq!(centre.app_name, "thalamus-edge/Posta 7");
}

#[test]
fn the_connection_string_may_name_the_database() {
    let cases = [
        ("mongodb://h", None, "federation"),
        ("mongodb://h/", None, "federation"),
        ("mongodb://h/feddiff", None, "feddiff"),
        ("mongodb://u:p%40w@a,b:27018/feddiff?replicaSet=rs0&authSource=admin", None, "feddiff"),
        ("mongodb+srv://u:p@hub.example.org/feddiff?retryWrites=true", None, "feddiff"),
        ("mongodb://h/fed%2Ddiff", None, "fed-diff"),
        ("mongodb://h/feddiff", Some("feddiff"), "feddiff"),
        ("mongodb://h", Some("gh"), "gh"),
        // Where the server keeps the password.
        ("mongodb://u:p@h/admin", None, "federation"),
        ("mongodb://u:p@h/admin?tls=true", Some("gh"), "gh"),
    ];
    let file = tempfile::NamedTempFile::new().unwrap();
    for (uri, named, expected) in cases {
        let named = named.map(|named| format!("central.database = {named:?}\n")).unwrap_or_default();
        let inline = load(&format!("central.uri = {uri:?}\n{named}")).unwrap();
        assert_eq!(inline.centre().unwrap().unwrap().database, expected, "{uri}");
        std::fs::write(file.path(), uri).unwrap();
        let filed = load(&format!("central.uri_file = {:?}\n{named}", file.path())).unwrap();
        assert_eq!(filed.centre().unwrap().unwrap().database, expected, "{uri}");
    }
    std::fs::write(file.path(), "mongodb://u:secret@h/one").unwrap();
    let two = load(&format!("central.uri_file = {:?}\ncentral.database = \"two\"", file.path())).unwrap();
    let error = two.centre().unwrap_err().to_string();
    assert!(error.contains("names the database \"one\", and `central.database` \"two\""), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn without_a_file_everything_has_a_default() {
    let config = Loaded::of_layers(None, std::iter::empty(), &Overrides::default()).unwrap().config;
    assert_eq!(config.data_dir, Path::new(TRIAL_DATA_DIR));
    assert!(!config.node.name.is_empty());
    assert!(config.server.tls);
    assert!(config.centre().unwrap().is_none());
}

#[test]
fn the_demo_moves_only_the_default_data_directory() {
    let demo = Overrides { demo: true, ..Overrides::default() };
    assert_eq!(load("").unwrap().data_dir, Path::new(DEFAULT_DATA_DIR));
    assert_eq!(load_all("", &[], &demo).unwrap().data_dir, Path::new(TRIAL_DATA_DIR));
    let named = "data_dir = \"/srv/edge\"";
    assert_eq!(load_all(named, &[], &demo).unwrap().data_dir, Path::new("/srv/edge"));
}

#[test]
fn a_named_file_must_be_there() {
    let path = Path::new("/nonexistent/site.toml");
    let error = Config::load(Some(path), std::iter::empty(), &Overrides::default()).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/site.toml: cannot be read"), "{error}");
}

#[test]
fn variables_win_over_the_file_and_flags_over_both() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\ntls = true\nnames = [\"a\"]";
    let env = [
        ("THALAMUS_EDGE__DATA_DIR", "/srv/other"),
        ("THALAMUS_EDGE__NODE__NAME", "12"),
        ("THALAMUS_EDGE__SERVER__LISTEN", "127.0.0.1:2"),
        ("THALAMUS_EDGE__SERVER__TLS", "false"),
        ("THALAMUS_EDGE__SERVER__NAMES", "[\"b\", \"c\"]"),
        ("THALAMUS_EDGE__ACCOUNTS__BCRYPT_COST", "10"),
        ("THALAMUS_EDGE__CENTRAL__URI", URI),
        ("THALAMUS_EDGE__CENTRAL__COLLECTIONS__PERSONAL_DOCUMENT", "docs"),
        ("THALAMUS_EDGE__central__collections__pols", "2024"),
        ("THALAMUS_EDGE_CONFIG", "not a key"),
        ("UNRELATED", "x"),
    ];
    let config = load_env(file, &env).unwrap();
    assert_eq!(config.data_dir, Path::new("/srv/other"));
    assert_eq!(config.node.name, "12", "a number where text belongs is text");
    assert_eq!(config.server.listen.port(), 2);
    assert!(config.tls_settings().is_none());
    assert_eq!(config.server.names, ["b", "c"]);
    assert_eq!(config.accounts.bcrypt_cost, 10);
    let centre = config.centre().unwrap().unwrap();
    assert_eq!(centre.uri, URI);
    assert_eq!(centre.collection(Kind::PersonalDocument), "docs");
    assert_eq!(centre.collection(Kind::Page), "2024");

    let flag = Overrides { listen: Some("127.0.0.1:3".to_owned()), demo: false };
    assert_eq!(load_all(file, &env, &flag).unwrap().server.listen.port(), 3);
}

#[test]
fn the_connection_string_may_stand_in_a_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("uri");
    let config = load(&format!("[central]\nuri_file = {path:?}")).unwrap();
    let missing = config.centre().unwrap_err().to_string();
    assert!(missing.contains("uri: cannot be read"), "{missing}");
    fs::write(&path, format!("{URI}\n")).unwrap();
    assert_eq!(config.centre().unwrap().unwrap().uri, URI);
    fs::write(&path, format!("\u{FEFF}{URI}\r\n")).unwrap();
    assert_eq!(config.centre().unwrap().unwrap().uri, URI, "without its mark of byte order");
    fs::write(&path, URI.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    let error = config.centre().unwrap_err().to_string();
    assert!(error.contains("UTF-16") && !error.contains("s3cret"), "{error}");
    for wrong in [String::new(), "\n".to_owned(), format!("{URI}\n{URI}"), format!("x{URI}")] {
        fs::write(&path, &wrong).unwrap();
        let error = config.centre().unwrap_err().to_string();
        assert!(error.contains("is not a connection string") && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn the_access_rules_come_from_the_named_file_the_default_one_or_the_program() {
    let directory = TempDir::new().unwrap();
    let (absent, present) = (directory.path().join("absent"), directory.path().join("roles.cfg"));
    fs::write(&present, r#"[{"role": "visitor", "permissions": {"GET": ["peple", "sync"]}}]"#).unwrap();
    let unnamed = load("").unwrap();
    let named = |path: &Path| load(&format!("[accounts]\nroles_file = {path:?}")).unwrap();

    assert!(unnamed.acl_or(&absent).unwrap().0.knows_role("root"));
    assert!(unnamed.acl_or(&present).unwrap().0.knows_role("visitor"));
    let (acl, warnings) = named(&present).acl_or(&absent).unwrap();
    assert!(acl.knows_role("visitor") && !acl.knows_role("root"));
    assert_eq!(warnings.len(), 1);
    assert!(named(&absent).acl_or(&present).is_err(), "named and absent");

    fs::write(&present, "\u{FEFF}[{\"role\": \"visitor\", \"permissions\": {}}]").unwrap();
    assert!(
        named(&present).acl_or(&absent).unwrap().0.knows_role("visitor"),
        "without its mark of byte order"
    );

    // As some editors save it.
    let text = "[{\"role\": \"visitor\", \"permissions\": {}}]";
    for mark in ["", "\u{FEFF}"] {
        let marked = format!("{mark}{text}");
        for bytes in [
            marked.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(),
            marked.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        ] {
            fs::write(&present, bytes).unwrap();
            let error = named(&present).acl_or(&absent).unwrap_err().to_string();
            assert!(error.contains("roles.cfg") && error.contains("UTF-16"), "{error}");
        }
    }

    fs::write(&present, "[\n{]").unwrap();
    let error = named(&present).acl_or(&absent).unwrap_err().to_string();
    assert!(error.contains("roles.cfg line 2: is no JSON"), "{error}");
}

#[test]
fn half_of_emergency_access_is_warned_about() {
    let directory = TempDir::new().unwrap();
    let roles = directory.path().join("roles.cfg");
    let warnings = |emergency: &str, is_on: bool| {
        let text = format!(r#"[{{"role": "nurse", "permissions": {{"GET": ["page", "sync"]{emergency}}}}}]"#);
        fs::write(&roles, text).unwrap();
        let config = format!("[accounts]\nroles_file = {roles:?}\nemergency_access = {is_on}");
        load(&config).unwrap().acl().unwrap().1
    };
    for emergency in ["", r#", "emergency": false"#, r#", "emergency": "False", "global": true"#] {
        assert_eq!(warnings(emergency, false), [""; 0], "{emergency}");
        let missing = warnings(emergency, true);
        assert!(missing.len() == 1 && missing[0].starts_with("no role has"), "{missing:?}");
    }
    let off = warnings(r#", "emergency": true"#, false);
    assert!(off.len() == 1 && off[0].contains("`emergency_access = true` in [accounts]"), "{off:?}");
    assert_eq!(warnings(r#", "emergency": "True""#, true), [""; 0]);
    let both = warnings(r#", "emergency": true, "global": true"#, false);
    assert!(both.len() == 1 && both[0].starts_with("role \"nurse\": \"emergency\" does nothing"), "{both:?}");
    let built_in = load("[accounts]\nemergency_access = true").unwrap();
    assert!(!built_in.acl().unwrap().1.is_empty(), "the installed rules have no such role");
}

#[test]
fn only_variables_of_this_program_are_taken_from_the_environment() {
    // The test runner's own environment has many others, PATH among them.
    assert!(environment().all(|(name, _)| name.starts_with(VARIABLE_PREFIX)));
}

#[test]
fn a_centre_is_local_only_if_all_of_it_is_this_machine() {
    let is_local = |uri: &str| {
        load(&format!("[central]\nuri = {uri:?}")).is_ok_and(|config| config.is_centre_local().unwrap())
    };
    for uri in [
        "mongodb://localhost",
        "mongodb://LOCALHOST:27017/?directConnection=true",
        "mongodb://127.0.0.1:27017",
        "mongodb://127.9.9.9,[::1]:27018/federation",
        "mongodb://edge:s3cret@localhost:1/?appName=@hub",
    ] {
        assert!(is_local(uri), "{uri}");
    }
    for uri in [
        URI,
        "mongodb://hub",
        "mongodb://localhost,hub",
        "mongodb://localhost.example.org",
        "mongodb://127.0.0.1.example.org",
        "mongodb://localhost/@hub",
        "mongodb://localhost@hub",
        "mongodb://[2001:db8::1]:27017",
        "mongodb+srv://localhost",
    ] {
        assert!(!is_local(uri), "{uri}");
    }
    assert!(load("").unwrap().is_centre_local().unwrap(), "no centre at all");
}

#[test]
fn collections_are_known_by_the_name_in_force_and_by_default() {
    let config = load("[central]\ncollections = { people = \"pols\", pols = \"pages\" }").unwrap();
    assert_eq!(config.kind_of_collection("pols"), Some(Kind::Person), "the name in force comes first");
    assert_eq!(config.kind_of_collection("pages"), Some(Kind::Page));
    assert_eq!(config.kind_of_collection("people"), Some(Kind::Person));
    assert_eq!(config.kind_of_collection("person"), None);
    assert_eq!(config.collection_of(Kind::Event), "event");
}
