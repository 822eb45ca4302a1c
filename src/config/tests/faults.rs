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
fn faults(text: &str, env: &[(&str, &str)]) -> Vec<Fault> {
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
        let is_known = fault.key.as_deref().is_some_and(|key| keys::find(key).is_some());
        assert_eq!(
            is_known,
            fault.allowed.is_some() && fault.example.is_some() && fault.value.is_some(),
            "{fault}"
        );
        assert!(!fault.to_string().contains("pa@ss"), "{fault}");
    }
    let text = |at: usize| found[at].to_string();
    assert_eq!(
        text(0),
        "site.toml line 2: `server.listen`: is a port without an address; 0.0.0.0 before it listens on all addresses of \
         IPv4; it is \"8443\"; allowed: an IP address and a port, an IPv6 address in brackets; for example \
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
        ("localhost:8443", "name where an IP address belongs"),
        ("clinic", "no address with a port"),
        ("::1:8443", "address without a port"),
        ("fe80::1:2:3:4:5:6:7:8443", "does not stand in brackets"),
        ("https://0.0.0.0:8443", "scheme"),
        ("", "is empty"),
    ] {
        let error = load(&format!("[server]\nlisten = {listen:?}")).unwrap_err();
        assert!(error.contains(problem) && error.contains("for example listen = "), "{listen}: {error}");
    }
    assert!(load("[server]\nlisten = 8443").unwrap_err().contains("for example listen = "));
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
fn files_and_directories_that_are_not_as_they_should_be_are_all_found() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("file"), "x").unwrap();
    let examined = |text: &str| {
        // The port of the default may be taken on this machine.
        let listen = if text.contains("server.listen") { "" } else { "\nserver.listen = \"127.0.0.1:0\"" };
        let text = format!("server.tls = true\n{text}{listen}");
        Loaded::of_text(Path::new("site.toml"), &text, std::iter::empty()).unwrap().examine()
    };
    let text = format!(
        "data_dir = {0:?}\nserver.listen = \"192.0.2.1:8443\"\nserver.certificate = {1:?}\nserver.key = {1:?}\n\
         accounts.roles_file = {1:?}\nstore.key_file = {1:?}\ncentral.uri_file = {1:?}\nbackup.directory = {1:?}\n",
        path("file").join("data"),
        path("absent"),
    );
    let found = examined(&text);
    let keys: Vec<_> = found.faults.iter().map(|fault| (fault.line, fault.key.as_deref().unwrap())).collect();
    let expected = [
        (Some(6), "accounts.roles_file"),
        (Some(8), "central.uri_file"),
        (Some(7), "store.key_file"),
        (Some(4), "server.certificate"),
        (Some(5), "server.key"),
        (Some(2), "data_dir"),
        (Some(3), "server.listen"),
        (Some(9), "backup.directory"),
    ];
    assert_eq!(keys, expected, "{found:?}");
    let stopping: Vec<_> = found.stopping().iter().map(|fault| fault.key.clone().unwrap()).collect();
    assert_eq!(stopping.len(), 7, "a node without a place for backups serves: {stopping:?}");
    for (text, problem) in [
        (format!("data_dir = {:?}", path("file")), "is no directory"),
        (format!("backup.directory = {:?}", path("file")), "is no directory"),
        ("central.uri = \"mongodb://h/?tls=true&tlsCAFile=/absent/ca.pem\"".to_owned(), "/absent/ca.pem"),
    ] {
        let found = examined(&text).faults;
        assert!(found.len() == 1 && found[0].problem.contains(problem), "{found:?}");
    }
    // One fault hides no other of the same key or of the key that it is about.
    let all = |text: &str| faults(text, &[]).iter().map(Fault::to_string).collect::<Vec<_>>().join("\n");
    let found = all("server.certificate = \"/absent.pem\"");
    assert!(found.contains("needs `server.key`") && found.contains("/absent.pem cannot be read"), "{found}");
    let found = all("central.uri = \"mongodb://h/\"\ncentral.uri_file = \"/absent.uri\"");
    assert!(found.contains("exclude each other") && found.contains("/absent.uri"), "{found}");
    fs::write(
        path("roles.cfg"),
        r#"[{"role": "a", "permissions": {"GET": 1, "global": 2}}, {"role": 3}, {"role": ""}]"#,
    )
    .unwrap();
    let found = examined(&format!("accounts.roles_file = {:?}", path("roles.cfg"))).faults;
    assert_eq!(found.len(), 4, "{found:?}");
    fs::write(path("key"), "no key").unwrap();
    fs::set_permissions(path("key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let found = examined(&format!("store.key_file = {:?}", path("key"))).faults;
    assert!(
        found[0].problem.contains("64 hexadecimal") && found[0].problem.contains("chmod o="),
        "{found:?}"
    );
    let new = format!("data_dir = {:?}\nbackup.directory = {:?}", path("new/data"), path("new/data/b"));
    assert_eq!(examined(&new).faults, [], "the node makes its own directories");
}

#[test]
fn a_file_that_is_no_utf8_says_in_which_line() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("c.toml");
    for (bytes, line, what) in
        [(&b"# ok\n# caf\xe9\n"[..], 2, "not UTF-8"), (b"\xff\xfe[\0s\0]\0", 1, "UTF-16")]
    {
        fs::write(&path, bytes).unwrap();
        let error =
            Config::load(Some(&path), std::iter::empty(), &Overrides::default()).unwrap_err().to_string();
        assert!(error.contains(&format!("line {line}: ")) && error.contains(what), "{error}");
    }
    fs::write(&path, b"\xef\xbb\xbf[server]\ntls = false\n").unwrap();
    assert!(!Config::load(Some(&path), std::iter::empty(), &Overrides::default()).unwrap().server.tls);
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

/// What a start would refuse is refused here: the store, the box's certificates, the socket, the port.
#[test]
fn what_lies_in_the_data_directory_is_looked_at_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let examined = |name: &str, listen: &str, prepare: &dyn Fn(&Path)| {
        let data = directory.path().join(name);
        fs::create_dir_all(&data).unwrap();
        prepare(&data);
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        let text = format!("data_dir = {data:?}\n[server]\nlisten = {listen:?}\n");
        let found = Loaded::of_text(Path::new("site.toml"), &text, std::iter::empty()).unwrap().examine();
        assert_eq!(names(), before, "{name}");
        found.faults
    };
    let any = "127.0.0.1:0";
    assert_eq!(examined("new", any, &|_| {}), []);
    let write = |name: &'static str, bytes: &'static [u8]| {
        move |data: &Path| {
            fs::create_dir_all(data.join(name).parent().unwrap()).unwrap();
            fs::write(data.join(name), bytes).unwrap();
        }
    };
    let sealed: &'static [u8] =
        Box::leak([&b"thalamus-sealed1"[..], &[7; 3 * 4096]].concat().into_boxed_slice());
    let long = "x".repeat(100);
    let nothing = |_: &Path| {};
    // Name, address, what is put there, key and words of the fault.
    type Case<'a> = (&'a str, &'a str, &'a dyn Fn(&Path), &'a str, &'a str);
    let cases: [Case<'_>; 10] = [
        ("garbage", any, &write("store.redb", &[7; 9000]), "data_dir", "store.redb: "),
        ("empty", any, &write("store.redb", b""), "data_dir", "the file is empty"),
        (
            "directory",
            any,
            &|data| fs::create_dir(data.join("store.redb")).unwrap(),
            "data_dir",
            "is a directory",
        ),
        (
            "dangling",
            any,
            &|data| std::os::unix::fs::symlink("/absent/x", data.join("store.redb")).unwrap(),
            "data_dir",
            "store.redb: ",
        ),
        ("sealed", any, &write("store.redb", sealed), "store.key_file", "store.redb: "),
        ("authority", any, &write("tls/ca.pem", b"garbage"), "data_dir", "ca.pem"),
        ("tls", any, &write("tls", b"x"), "data_dir", "is no directory"),
        (
            "socket",
            any,
            &|data| fs::create_dir(data.join("control.sock")).unwrap(),
            "data_dir",
            "control.sock is a directory",
        ),
        (&long, any, &nothing, "data_dir", "is too long"),
        ("port", &taken.to_string(), &nothing, "server.listen", "another program"),
    ];
    for (name, listen, prepare, key, problem) in cases {
        let found = examined(name, listen, prepare);
        assert!(
            found.len() == 1 && found[0].key.as_deref() == Some(key) && found[0].problem.contains(problem),
            "{name}: {found:?}"
        );
    }
    for (listen, data) in [("[fe80::1%1]:0", "/proc/x"), ("192.0.2.1:0", "/sys/x/y")] {
        let text = format!("data_dir = {data:?}\n[server]\nlisten = {listen:?}\n");
        let found =
            Loaded::of_text(Path::new("site.toml"), &text, std::iter::empty()).unwrap().examine().faults;
        let keys: Vec<_> = found.iter().map(|fault| fault.key.clone().unwrap()).collect();
        assert_eq!(keys, ["data_dir", "server.listen"], "{found:?}");
    }
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

/// What a start can do nothing with is found by `check`: years that are over, a reserve beyond the disk, a directory that
/// takes no backups. A node serves without them.
#[test]
fn what_can_never_work_is_found_and_does_not_stop_a_node() {
    let directory = TempDir::new().unwrap();
    let examined = |text: &str| {
        let text = format!(
            "{text}\ndata_dir = {:?}\nserver.listen = \"127.0.0.1:0\"",
            directory.path().join("data")
        );
        Loaded::of_text(Path::new("site.toml"), &text, std::iter::empty()).unwrap().examine()
    };
    for key in
        ["central.schedule", "central.schedule_without_feed", "central.verify_schedule", "backup.schedule"]
    {
        for (schedule, is_over) in [
            ("0 0 0 1 1 * 2020", true),
            ("0 0 3 * * * 1999-2001", true),
            ("* * * * * * 2020,2021", true),
            ("0 0 0 1 1 * 2020-2090", false),
            ("0 0 0 1 1 *", false),
        ] {
            let found = examined(&format!("{key} = {schedule:?}"));
            let keys: Vec<_> = found.faults.iter().map(|fault| fault.key.as_deref().unwrap()).collect();
            assert_eq!(keys, if is_over { vec![key] } else { vec![] }, "{schedule}");
            assert_eq!(found.stopping(), [], "{schedule}");
            if let Some(fault) = found.faults.first() {
                let text = fault.to_string();
                assert!(
                    text.contains("never comes again") && text.contains("a seventh may name years"),
                    "{text}"
                );
            }
        }
    }
    for (text, key, problem) in [
        ("store.reserve_bytes = \"1 TiB\"", "store.reserve_bytes", "is more than"),
        ("backup.directory = \"/proc\"", "backup.directory", "nothing can be made in it"),
        ("backup.directory = \"/sys\"", "backup.directory", "nothing can be made in it"),
    ] {
        let found = examined(text);
        assert_eq!(found.faults.len(), 1, "{found:?}");
        let fault = &found.faults[0];
        assert!(fault.key.as_deref() == Some(key) && fault.problem.contains(problem), "{fault}");
        assert_eq!(found.stopping(), [], "{text}");
    }
}

/// A device would be read without end, a pipe would wait for ever.
#[test]
fn files_that_are_none_are_refused_wherever_one_is_named() {
    let directory = TempDir::new().unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    for path in [Path::new("/dev/zero"), &fifo] {
        let named =
            |option: &str| format!("central.uri = \"mongodb://h/?tls=true&{option}={}\"", path.display());
        for text in [
            format!("central.uri_file = {path:?}"),
            format!("accounts.roles_file = {path:?}"),
            format!("store.key_file = {path:?}"),
            format!("server.certificate = {path:?}\nserver.key = {path:?}"),
            named("tlsCAFile"),
            named("tlsCertificateKeyFile"),
        ] {
            let text = format!(
                "{text}\ndata_dir = {:?}\nserver.listen = \"127.0.0.1:0\"",
                directory.path().join("d")
            );
            let found =
                Loaded::of_text(Path::new("site.toml"), &text, std::iter::empty()).unwrap().examine().faults;
            assert!(!found.is_empty(), "{text}");
            for fault in found {
                assert!(fault.problem.contains("where a regular file belongs"), "{fault}");
            }
        }
        let error =
            Config::load(Some(path), std::iter::empty(), &Overrides::default()).unwrap_err().to_string();
        assert!(error.contains("where a regular file belongs"), "{error}");
    }
}

#[test]
fn rules_that_give_nobody_anything_are_warned_about() {
    let directory = TempDir::new().unwrap();
    let roles = directory.path().join("roles.cfg");
    for (rules, expected) in [
        ("[]", "have no role at all"),
        (r#"[{"role": "nurse", "permissions": {}}]"#, "have no role \"end_user\""),
        (r#"[{"role": "end_user", "permissions": {}, "actions": 1}]"#, "nothing is called \"actions\""),
    ] {
        fs::write(&roles, rules).unwrap();
        let text = format!(
            "server.listen = \"127.0.0.1:0\"\ndata_dir = {:?}\naccounts.roles_file = {roles:?}",
            directory.path().join("d")
        );
        let found = Loaded::of_text(Path::new("site.toml"), &text, std::iter::empty()).unwrap().examine();
        assert_eq!(found.faults, [], "{rules}");
        assert!(found.warnings.iter().any(|warning| warning.contains(expected)), "{:?}", found.warnings);
    }
}
