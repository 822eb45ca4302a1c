//! Where something is wrong, and that no secret is said.

use super::*;

#[test]
fn an_unknown_section_or_key_comes_with_an_example() {
    for (text, example) in [
        ("[servr]\nlisten = \"x\"", "for example [server] "),
        ("[backups]\nkeep = 1", "for example [backup] "),
        ("[zzz]\nq = 1", "for example [server] listen = "),
        ("[store]\nqqq = 1", "for example "),
        ("qqq = 1", "for example data_dir = "),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(error.contains(example), "{text}: {error}");
    }
}

#[test]
fn errors_in_the_file_name_line_and_key() {
    let cases = [
        ("lisen = 1", "site.toml line 1: `lisen`: unknown field"),
        ("[servr]\n", "site.toml line 1: `servr`: unknown field"),
        ("\n[server]\nport = 1", "site.toml line 3: `server.port`: unknown field"),
        ("[server]\n\ntls = \"yes\"", "site.toml line 3: `server.tls`: invalid type"),
        ("[server]\nlisten = \"localhost\"", "site.toml line 2: `server.listen`: is no address with a port"),
        ("[server]\nnames = [\n\"a\",\n7]", "site.toml line 4: `server.names`: invalid type"),
        ("[server]\ntls = true\ntls = true", "site.toml line 3: "),
        ("[server\n", "site.toml line 1: "),
        ("[store]\nreserve_byte = 1", "site.toml line 2: `store.reserve_byte`: unknown field"),
        ("[backups]\nkeep = 1", "site.toml line 1: `backups`: unknown field"),
        ("[backup]\nkeep = 0", "site.toml line 2: `backup.keep`: must lie between 1 and 1000"),
        ("[backup]\nschedule = \"0 3 * * *\"", "site.toml line 2: `backup.schedule`: is not a schedule"),
        ("[backup]\nrecipients = [\"age1x\"]", "site.toml line 2: `backup.recipients`: holds \"age1x\""),
        ("[api]\ndate_format = \"iso\"", "site.toml line 2: `api.date_format`: is none of the values"),
        (
            "[server]\ncertificate = \"/etc/passwd\"",
            "site.toml line 2: `server.certificate`: needs `server.key`",
        ),
        ("[server]\nkey = \"/etc/passwd\"", "site.toml line 2: `server.key`: needs `server.certificate`"),
        ("[server]\nnames = [\"two words\"]", "site.toml line 2: `server.names`: holds"),
        ("[server]\ntrusted_proxies = [\"localhost\"]", "site.toml line 2: `server.trusted_proxies`: holds"),
        ("[server]\ntrusted_proxies = [\"0.0.0.0/0\"]", "site.toml line 2: `server.trusted_proxies`: holds"),
        (
            "[accounts]\nbcrypt_cost = 3",
            "site.toml line 2: `accounts.bcrypt_cost`: must lie between 4 and 14",
        ),
        ("[accounts]\nbcrypt_cost = 15", "site.toml line 2: `accounts.bcrypt_cost`: must lie"),
        ("[accounts]\nbcrypt_cost = -1", "site.toml line 2: `accounts.bcrypt_cost`: "),
        ("[accounts]\npassword_min_chars = 65", "site.toml line 2: `accounts.password_min_chars`: must"),
        (
            "[accounts]\noffline_login_days = 3651",
            "site.toml line 2: `accounts.offline_login_days`: must lie between 0 and 3650",
        ),
        ("[accounts]\ncentral_roles = [\"root\"]", "site.toml line 2: `accounts.central_roles`: must not"),
        ("[api]\nbody_limit_bytes = 0", "site.toml line 2: `api.body_limit_bytes`: must lie"),
        ("[api]\nrecord_limit_bytes = \"16 MiB\"", "site.toml line 2: `api.record_limit_bytes`: must lie"),
        ("[api]\ncors_allowed_origins = [\"portal\"]", "site.toml line 2: `api.cors_allowed_origins`: holds"),
        ("[api]\ncors_allowed_origins = [\"https://a/\"]", "site.toml line 2: `api.cors_allowed_origins`"),
        ("[store]\njournal_keep_rows = 0", "site.toml line 2: `store.journal_keep_rows`: must lie"),
        ("[store]\naudit_keep_rows = 9", "site.toml line 2: `store.audit_keep_rows`: must lie"),
        ("[store]\nreserve_bytes = 2000000000000", "site.toml line 2: `store.reserve_bytes`: must lie"),
        ("[central]\nschedule = \"often\"", "site.toml line 2: `central.schedule`: is not a schedule"),
        ("[central]\nschedule = \"*/5 * * * *\"", "site.toml line 2: `central.schedule`: is not"),
        ("[central]\nschedule = \"\"", "site.toml line 2: `central.schedule`: is not a schedule"),
        (
            "[central]\nschedule_without_feed = \"often\"",
            "site.toml line 2: `central.schedule_without_feed`: is not a s",
        ),
        ("[central]\nverify_schedule = \"Sun\"", "site.toml line 2: `central.verify_schedule`: is not a s"),
        ("[central]\ncontinuous = 1", "site.toml line 2: `central.continuous`: invalid type"),
        (
            "[central]\nattachment_bytes_per_round = 131071",
            "site.toml line 2: `central.attachment_bytes_per_round`: must be 0, which sets no limit, or at least 128 KiB",
        ),
        ("[central]\nscan_bytes_per_round = 1", "site.toml line 2: `central.scan_bytes_per_round`: must be"),
        ("[central]\nbudget_bytes_per_day = 5", "site.toml line 2: `central.budget_bytes_per_day`: must be"),
        ("[central]\nbudget_bytes_per_day = -1", "site.toml line 2: `central.budget_bytes_per_day`: is neg"),
        (
            "[central]\nquiet_hours = [\"8-18\"]",
            "site.toml line 2: `central.quiet_hours`: holds \"8-18\", which is not of the form \"HH:MM-HH:MM\"",
        ),
        ("[central]\nquiet_hours = \"08:00-18:00\"", "site.toml line 2: `central.quiet_hours`: invalid type"),
        (
            "[central]\nquiet_hours = [\"00:00-24:00\"]",
            "site.toml line 2: `central.quiet_hours`: leaves no time of day",
        ),
        ("[central]\nround_timeout_s = 0", "site.toml line 2: `central.round_timeout_s`: must lie"),
        ("[central]\ndatabase = \"a.b\"", "site.toml line 2: `central.database`: is not the name"),
        (
            "[central]\nuri = \"mongodb://h/one\"\ndatabase = \"two\"",
            "site.toml line 2: `central.uri`: names the database \"one\", and `central.database` \"two\"",
        ),
        ("central.collections.peple = \"a\"", "site.toml line 1: `central.collections"),
        ("[central.collections]\npols = \"people\"", "site.toml line 2: `central.collections`: gives"),
        (
            "[central]\ncollections = { pols = \"a$b\" }",
            "site.toml line 2: `central.collections.pols`: names",
        ),
        (
            "[central]\ncollections = { pols = \"edge_nodes\" }",
            "site.toml line 2: `central.collections.pols`: n",
        ),
        (
            "[central]\ncollections = { pols = \"a\", page = \"b\" }",
            "site.toml line 2: `central.collections`",
        ),
        ("data_dir = \"\"", "site.toml line 1: `data_dir`: must name"),
        ("[node]\nname = \"a\\nb\"", "site.toml line 2: `node.name`: must be at most"),
    ];
    for (text, expected) in cases {
        let error = load(text).expect_err(text);
        assert!(error.starts_with(expected), "{text:?} gave {error:?}");
        // Another program on this machine may have the port of the default.
        let is_own = |line: &&str| !line.starts_with("configuration: `server.listen`");
        assert_eq!(error.lines().filter(is_own).count(), 1, "{error:?}");
    }
}

#[test]
fn errors_elsewhere_name_the_variable_or_flag() {
    let cases = [
        ("THALAMUS_EDGE__SERVER__PORT", "1", "`server.port`: unknown field"),
        ("THALAMUS_EDGE__SERVR__PORT", "1", "`servr.port`: unknown field"),
        ("THALAMUS_EDGE__SERVER", "1", "`server`: is a section"),
        ("THALAMUS_EDGE__SERVER__TLS", "yes", "`server.tls`: invalid type"),
        ("THALAMUS_EDGE__ACCOUNTS__BCRYPT_COST", "31", "`accounts.bcrypt_cost`: must lie"),
        ("THALAMUS_EDGE__CENTRAL__SCHEDULE", "x", "`central.schedule`: is not"),
        ("THALAMUS_EDGE__CENTRAL__QUIET_HOURS", "[\"8\"]", "`central.quiet_hours`: holds"),
        (
            "THALAMUS_EDGE__CENTRAL__BUDGET_BYTES_PER_DAY",
            "5 M B",
            "`central.budget_bytes_per_day`: cannot be read",
        ),
        ("THALAMUS_EDGE__NODE__NAME", "a\u{fffd}", "`node.name`: the value is not UTF-8"),
        ("THALAMUS_EDGE__", "a", "``: unknown field"),
        ("THALAMUS_EDGE__STORE__CACHE_BYTES", "1\ndata_dir = \"/x\"", "`store.cache_bytes`: cannot be read"),
    ];
    for (name, value, expected) in cases {
        let error = load_env("", &[(name, value)]).expect_err(name);
        assert!(error.starts_with(&format!("variable {name}: {expected}")), "{error:?}");
    }
    let flag = Overrides { listen: Some("8443".to_owned()), demo: false };
    let error = load_all("", &[], &flag).unwrap_err();
    assert!(error.starts_with("--listen: `server.listen`: is a port without"), "{error:?}");

    let file = "[central]\ncollections = { person = \"a\" }";
    let error = load_env(file, &[("THALAMUS_EDGE__CENTRAL__COLLECTIONS__PEOPLE", "b")]).unwrap_err();
    assert!(error.contains("twice"), "{error:?}");
}

#[test]
fn the_connection_string_is_never_shown() {
    let misplaced = [
        format!("[central]\nuri = {URI}"),
        format!("[central]\nuri = \"{URI}"),
        format!("[central]\nuri = \"{URI}\"\nuri_file = \"/x\""),
        format!("[central]\nuri = \"x{URI}\""),
        format!("[central]\nuri = [\"{URI}\"]"),
        format!("[central]\njitter_s = \"{URI}\""),
        format!("[central]\nschedule = \"{URI}\""),
        format!("[central]\ndatabase = \"{URI}\""),
        format!("[api]\ndate_format = \"{URI}\""),
        format!("[server]\nlisten = \"{URI}\""),
        format!("central = \"{URI}\""),
    ];
    for text in misplaced {
        let error = load(&text).expect_err(&text);
        assert!(!error.contains("s3cret"), "{error}");
    }
    for key in ["URI_FILE__X", "JITTER_S", "SCHEDULE"] {
        let name = format!("THALAMUS_EDGE__CENTRAL__{key}");
        let error = load_env("", &[(&name, URI)]).unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
    let config = load(&format!("[central]\nuri = \"{URI}\"")).unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    assert_eq!(config.centre().unwrap().unwrap().uri, URI);
}
