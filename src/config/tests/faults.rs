//! What is said about values that are wrong, and that all of them are found.

use super::*;

/// Every key has an explanation and an example that is right.
#[test]
fn every_key_is_explained() {
    let sample: toml::Table = toml::from_str(&uncommented()).unwrap();
    let mut names: Vec<String> = Vec::new();
    for (name, value) in &sample {
        match value.as_table() {
            Some(section) => names.extend(section.keys().map(|key| format!("{name}.{key}"))),
            None => names.push(name.clone()),
        }
    }
    let mut explained: Vec<String> = keys::KEYS.iter().map(|key| key.name.to_owned()).collect();
    names.sort();
    explained.sort();
    assert_eq!(explained, names);
    for key in keys::KEYS {
        // The two halves of a pair go together.
        let pair = match key.name {
            "server.certificate" => "server.key = \"/k\"\n",
            "server.key" => "server.certificate = \"/c\"\n",
            _ => "",
        };
        load(&format!("{pair}{} = {}", key.name, key.example)).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The lines at which something is wrong, with the key.
pub(super) fn faults(text: &str, env: &[(&str, &str)]) -> Vec<Fault> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    match Loaded::of_text(Path::new("site.toml"), text, env) {
        // The defaults are looked at as well, and the machine may not have what they need.
        Err(ConfigError::Faults(faults)) => {
            faults.into_iter().filter(|fault| fault.place != "configuration").collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_faults_are_found_at_once_in_the_order_of_the_file() {
    let text = "[server]\nlisten = \"8443\"\nnames = [\n  \"clinic.local.\",\n  \"ok.local\"]\nprot = 1\n\
                tls = \"yes\"\nthis is no TOML\n[store]\ncache_bytes = \"32 parsecs\"\n\
                [central]\nuri = \"mongodb://user:pa@ss@h/\"\nschedule = \"0 0 0 30 2 *\"\n\
                verify_schedule = \"0 3 * * *\"\n[backup]\nkeep = 0\n";
    let found = faults(text, &[("THALAMUS_EDGE__CENTRAL__JITTER_S", "2 hours")]);
    let places: Vec<_> = found.iter().map(|fault| (fault.line, fault.key.as_deref().unwrap_or(""))).collect();
    assert_eq!(
        places,
        [
            (Some(2), "server.listen"),
            (Some(3), "server.names"),
            (Some(6), "server.prot"),
            (Some(7), "server.tls"),
            (Some(8), ""),
            (Some(10), "store.cache_bytes"),
            (Some(12), "central.uri"),
            (Some(13), "central.schedule"),
            (Some(14), "central.verify_schedule"),
            (Some(16), "backup.keep"),
            (None, "central.jitter_s"),
        ]
    );
    for fault in &found {
        assert!(!fault.allowed.is_empty() && !fault.example.is_empty() && !fault.value.is_empty(), "{fault}");
        assert!(!fault.to_string().contains("pa@ss"), "{fault}");
    }
    let text = |at: usize| found[at].to_string();
    assert_eq!(
        text(0),
        "site.toml line 2: `server.listen`: is a port without an address; 0.0.0.0 before it listens on all addresses of \
         IPv4; it is \"8443\"; allowed: an IP address (IPv6 in brackets) or localhost, and a port; for example \
         listen = \"0.0.0.0:8443\""
    );
    assert!(text(1).contains("\"clinic.local.\"") && text(1).contains("without the dot"), "{}", text(1));
    assert!(text(6).contains("written %40") && text(6).contains("(hidden)"), "{}", text(6));
    assert!(text(7).contains("never comes"), "{}", text(7));
    assert!(text(8).contains("put a 0 before it"), "{}", text(8));
    assert_eq!(found[10].place, "variable THALAMUS_EDGE__CENTRAL__JITTER_S");
}

#[test]
fn a_key_that_is_nearly_right_is_recognised() {
    for (text, like) in [
        ("[server]\nlisen = 1", "`server.listen`"),
        ("[servr]\ntls = true", "`server`"),
        ("data_dri = \"/x\"", "`data_dir`"),
        ("listen = \"0.0.0.0:1\"", "`server.listen`"),
        ("[backup]\nreserve_bytes = 1", "`store.reserve_bytes`"),
        ("[server]\nlistn = 1", "`server.listen`"),
    ] {
        let found = faults(text, &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].problem.contains(&format!("did you mean {like}?")), "{}", found[0]);
    }
    let found = &faults("zzz = 1", &[])[0];
    assert!(!found.problem.contains("did you mean"));
    assert!(found.to_string().contains("allowed: data_dir and the sections [node], [server]"), "{found}");
    let found = &faults("[server]\nfoo = 1", &[])[0];
    assert!(!found.problem.contains("did you mean"), "{found}");
    assert!(found.to_string().contains("allowed: in [server] the keys listen, tls, certificate"), "{found}");
    let found = &faults("[server]\nlisen = 1", &[])[0];
    assert!(found.to_string().ends_with("for example listen = \"0.0.0.0:8443\""), "{found}");
}

/// What a configuration points to is looked at also if something else in it cannot be read.
#[test]
fn faults_of_both_kinds_come_together() {
    let found = faults(
        "[server]\nlisten = \"8443\"\n[accounts]\nroles_file = \"/absent.cfg\"\n[backup]\nkeep = 0\n",
        &[],
    );
    assert_eq!(found.iter().map(|fault| fault.line.unwrap()).collect::<Vec<_>>(), [2, 4, 6], "{found:?}");
}

/// What is not TOML in one line does not hide what is wrong in others.
#[test]
fn a_line_that_is_no_toml_is_one_fault() {
    let lines = |text: &str| faults(text, &[]).iter().map(|fault| fault.line.unwrap()).collect::<Vec<_>>();
    assert_eq!(lines("[server]\ntls = \nlisten = 8443\n[backup]\nkeep = -1\n"), [2, 3, 5]);
    assert_eq!(lines("[server\ntls = 1\n[backup]\nkeep = 0\n"), [1, 4], "nobody knows whose key tls is");
    assert_eq!(lines("[server]\ntls = true\ntls = false\nlisten = \"x\""), [3, 4]);
    assert_eq!(lines("[[server]]\ntls = true\n[backup]\nkeep = 0\n"), [1, 4]);
    assert_eq!(lines("server = 1\nkeep = \n"), [1, 2]);
    assert_eq!(lines("[server]\nnames = [\"a\",\n").len(), 1);
    assert_eq!(lines("[central.collections]\npeple = \"a\"\npols = 7\n"), [2, 3]);
    assert_eq!(lines("central = { collections = { peple = \"a\" }, jitter_s = \"soon\" }\n"), [1, 1]);
}

#[test]
fn sizes_and_times_may_have_units() {
    let config = load(
        "[store]\ncache_bytes = \"32MB\"\nreserve_bytes = \"1 GiB\"\n[api]\nbody_limit_bytes = \"2 MiB\"\n\
         [accounts]\noffline_login_days = \"2 weeks\"\n[central]\njitter_s = \"1m 30s\"\nround_timeout_s = \"1 hour\"\n\
         budget_bytes_per_day = \"20 MB\"\nattachment_bytes_per_round = \"1 MiB\"\nscan_bytes_per_round = \"0\"\n",
    )
    .unwrap();
    assert_eq!((config.store.cache_bytes, config.store.reserve_bytes), (32_000_000, 1 << 30));
    assert_eq!((config.api.body_limit_bytes, config.accounts.offline_login_days), (2 << 20, 14));
    assert_eq!((config.central.jitter_s, config.central.round_timeout_s), (90, 3600));
    let central = config.central;
    assert_eq!((central.budget_bytes_per_day, central.attachment_bytes_per_round), (20_000_000, 1 << 20));
    assert_eq!(central.scan_bytes_per_round, 0);
    let env = [("THALAMUS_EDGE__STORE__CACHE_BYTES", "64 MiB"), ("THALAMUS_EDGE__CENTRAL__JITTER_S", "30")];
    let config = load_env("", &env).unwrap();
    assert_eq!((config.store.cache_bytes, config.central.jitter_s), (64 << 20, 30));
    for wrong in
        ["jitter_s = \"500ms\"", "jitter_s = 1.5", "scan_bytes_per_round = \"-1 MB\"", "jitter_s = true"]
    {
        assert!(load(&format!("[central]\n{wrong}")).unwrap_err().contains("allowed: "), "{wrong}");
    }
}

#[test]
fn addresses_to_listen_on_say_what_is_wrong_with_them() {
    for (listen, problem) in [
        ("8443", "port without an address"),
        (":8443", "no address before the port"),
        ("*:8443", "no address before the port"),
        ("0.0.0.0", "address without a port"),
        ("0.0.0.0:https", "no number from 0 to 65535"),
        ("0.0.0.0:", "no number from 0 to 65535"),
        ("0.0.0.0:65536", "no number from 0 to 65535"),
        ("clinic.local:8443", "of names only localhost will do"),
        ("localhost.local:8443", "name where an IP address belongs"),
        ("localhost", "no address with a port"),
        ("localhost:", "no number from 0 to 65535"),
        ("clinic", "no address with a port"),
        ("::1:8443", "address without a port"),
        ("fe80::1:2:3:4:5:6:7:8443", "does not stand in brackets"),
        ("https://0.0.0.0:8443", "scheme"),
        ("", "is empty"),
    ] {
        let error = load(&format!("[server]\nlisten = {listen:?}")).unwrap_err();
        assert!(error.contains(problem) && error.contains("for example listen = "), "{listen}: {error}");
    }
    for number in ["8443", "70000", "-1"] {
        let error = load(&format!("[server]\nlisten = {number}")).unwrap_err();
        let words = if number == "8443" { "is a port without an address" } else { "no address with a port" };
        assert!(error.contains(words) && error.contains("for example listen = "), "{error}");
    }
    let error = load("[server]\nlisten = true").unwrap_err();
    assert!(error.contains("invalid type: boolean") && error.contains("for example listen = "), "{error}");
    for (listen, address) in [
        ("localhost:8443", "127.0.0.1:8443"),
        (" LocalHost:0 ", "127.0.0.1:0"),
        ("[::1]:8443", "[::1]:8443"),
        ("[::]:8443", "[::]:8443"),
    ] {
        let config = load(&format!("[server]\nlisten = {listen:?}")).unwrap();
        assert_eq!(config.server.listen.to_string(), address, "{listen}");
    }
}

/// What passes here, a certificate can hold; a start fails otherwise.
#[test]
fn names_that_no_certificate_can_hold_are_refused() {
    for name in ["clinic.local", "CLINIC", "my_box", "10.0.0.5", "2001:db8::1", "xn--fiqs8s.example", "a-b.c"]
    {
        load(&format!("[server]\nnames = [{name:?}]")).unwrap_or_else(|error| panic!("{error}"));
    }
    for (name, hint) in [
        ("clinic.local.", "without the dot"),
        ("localhost.", "without the dot"),
        ("https://clinic.local", "without \"https://\""),
        ("clinic.local:8443", "without a port"),
        ("10.0.0.5:8443", "without a port"),
        ("10.0.0.0/8", "without a mask"),
        ("*.clinic.local", "wildcards"),
        ("[::1]", "without brackets"),
        ("clínica.local", "ASCII form"),
        ("two words", "neither a host name"),
        ("", "neither a host name"),
        ("-clinic", "neither a host name"),
        ("a..b", "neither a host name"),
    ] {
        let error = load(&format!("[server]\nnames = [\"ok.local\", {name:?}]")).unwrap_err();
        assert!(error.contains(hint), "{name}: {error}");
    }
}

#[test]
fn the_demo_is_for_this_machine_unless_somebody_says_otherwise() {
    let demo = Overrides { demo: true, ..Overrides::default() };
    let listen = |text: &str, env: &[(&str, &str)], overrides: &Overrides| {
        load_all(text, env, overrides).unwrap().server.listen.to_string()
    };
    assert_eq!(listen("", &[], &demo), "127.0.0.1:8443");
    assert_eq!(listen("", &[], &Overrides::default()), "0.0.0.0:8443");
    assert_eq!(listen("server.listen = \"0.0.0.0:1\"", &[], &demo), "0.0.0.0:1");
    assert_eq!(listen("", &[("THALAMUS_EDGE__SERVER__LISTEN", "[::]:2")], &demo), "[::]:2");
    let told = Overrides { listen: Some("0.0.0.0:3".to_owned()), demo: true };
    assert_eq!(listen("", &[], &told), "0.0.0.0:3");
}

#[test]
fn values_that_would_do_nothing_are_refused() {
    for (key, value, problem) in [
        ("central.collections", "{pols = \"fs.files\"}", "used for something else"),
        ("central.collections", "{pols = \"fs.chunks\"}", "used for something else"),
        ("central.database", "\"admin\"", "server's own"),
        ("central.database", "\"Local\"", "server's own"),
        ("central.schedule", "\"0 */90 * * * *\"", "a step of 90"),
        ("central.schedule", "\"0 0 */24 * * *\"", "a step of 24"),
        ("central.schedule", "\"0 1,,2 * * * *\"", "an empty place"),
        ("central.verify_schedule", "\"0 0 0 1, * *\"", "an empty place"),
        ("backup.schedule", "\"0 0 0 * * ,1\"", "an empty place"),
        ("api.cors_allowed_origins", "[\"http://x:99999\"]", "no number from 1 to 65535"),
        ("api.cors_allowed_origins", "[\"https://x:0\"]", "no number from 1 to 65535"),
        ("api.cors_allowed_origins", "[\"https://x:\"]", "no number from 1 to 65535"),
        ("api.cors_allowed_origins", "[\"https://x:443\"]", "443 is left out"),
        ("api.cors_allowed_origins", "[\"http://x:80\"]", "80 is left out"),
        ("api.cors_allowed_origins", "[\"https://a..b\"]", "not of the form"),
        ("api.cors_allowed_origins", "[\"https://[::1\"]", "not of the form"),
        ("api.cors_allowed_origins", "[\"https://x/\"]", "not of the form"),
        ("api.cors_allowed_origins", "[\"htps://x\"]", "not of the form"),
        ("api.cors_allowed_origins", "[\"Capacitor://localhost\"]", "not of the form"),
        ("api.cors_allowed_origins", "[\"capacitor://\"]", "not of the form"),
        ("api.cors_allowed_origins", "[\"capacitor://localhost/\"]", "not of the form"),
        ("api.cors_allowed_origins", "[\"null\"]", "not of the form"),
        ("api.cors_allowed_origins", "[\"file://x\"]", "name no origin"),
        ("store.scrub_days", "\"36 hours\"", "whole days"),
        ("api.cors_allowed_origins", "[\"http://192.168.1.300\"]", "not of the form"),
        ("api.cors_allowed_origins", "[\"https://-x.org\"]", "not of the form"),
        ("server.names", "[\"1.2.3.400\"]", "neither a host name"),
        ("node.name", "\"\\u200b\"", "show nothing"),
        ("node.name", "\"a\\u202eb\"", "turn the text"),
        ("server.trusted_proxies", "[\"0.0.0.0/0\"]", "everybody"),
        ("data_dir", "\"~/node\"", "begins with ~"),
        ("store.key_file", "\"~tech/key\"", "begins with ~"),
        ("server.proxy_header", "\"x-real-ip\"", "proxy_header"),
        ("server.trusted_proxies", "[\"0.0.0.0/1\", \"128.0.0.0/1\"]", "together are everybody"),
        ("server.trusted_proxies", "[\"::/1\", \"8000::/1\"]", "IPv4"),
        ("server.trusted_proxies", "[\"::ffff:0:0/96\"]", "everybody"),
        (
            "server.trusted_proxies",
            "[\"::ffff:0.0.0.0/97\", \"::ffff:128.0.0.0/97\"]",
            "together are everybody",
        ),
        ("server.trusted_proxies", "[\"::ffff:0:0/90\"]", "all addresses of IPv4"),
        ("central.schedule", "\"0 0 0 1,, 1 * 2090\"", "an empty place"),
    ] {
        let error = load(&format!("{key} = {value}")).unwrap_err();
        assert!(error.contains(problem), "{key} = {value}: {error}");
    }
    for right in [
        "central.schedule = \"0 */45 */23 1,15 * Mon-Fri\"",
        "api.cors_allowed_origins = [\"https://x:8443\", \"http://[::1]:8080\", \"https://a-b.c\"]",
        "api.cors_allowed_origins = [\"*\"]",
        "api.cors_allowed_origins = [\"*\", \"https://a\"]",
        "api.cors_allowed_origins = [\"capacitor://localhost\", \"ionic://localhost\", \"tauri://localhost:80\"]",
        "central.collections = {pols = \"fs\"}",
    ] {
        load(right).unwrap_or_else(|error| panic!("{error}"));
    }
    let proxies = load("server.trusted_proxies = [\"::ffff:10.0.0.0/104\", \"::ffff:127.0.0.1\"]").unwrap();
    let proxies: Vec<String> = proxies.trusted_proxies().iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "127.0.0.1/32"], "IPv4 in either form");
    // Every key in days takes units.
    for key in keys::KEYS.iter().filter(|key| key.name.ends_with("_days")) {
        load(&format!("{} = \"7 days\"", key.name)).unwrap_or_else(|error| panic!("{error}"));
        load(&format!("{} = \"1 week\"", key.name)).unwrap_or_else(|error| panic!("{error}"));
        load(&format!("{} = 7", key.name)).unwrap_or_else(|error| panic!("{error}"));
    }
    let found =
        load_env("", &[("THALAMUS_EDGE_LOG", "lots"), ("THALAMUS_EDGE_SERVER_LISTEN", "x")]).unwrap_err();
    assert!(
        found.contains("variable THALAMUS_EDGE_LOG: ") && found.contains("THALAMUS_EDGE__SERVER__LISTEN"),
        "{found}"
    );
}

#[test]
fn a_certificate_holds_so_many_names() {
    let text = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("\"h{n}.example.org\"")).collect();
        format!("[server]\nnames = [{}]\n", names.join(", "))
    };
    assert!(load(&text(300)).is_ok());
    let error = load(&text(301)).unwrap_err().to_string();
    assert!(
        error.contains("server.names") && error.contains("301 names") && error.contains("300"),
        "{error}"
    );
}
