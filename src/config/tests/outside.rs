//! What is said about files, directories and addresses that a configuration points to.

use super::faults::faults;
use super::*;

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
        found[0].problem.contains("64 hexadecimal") && found[1].problem.contains("chmod o="),
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

/// A disk that is not mounted, and a file in the place of a directory, are said to be that.
#[test]
fn a_data_directory_that_leads_nowhere_is_told() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let examined = |data: &Path| {
        let text = format!("data_dir = {data:?}\nserver.listen = \"127.0.0.1:0\"\n");
        Loaded::of_text(Path::new("site.toml"), &text, std::iter::empty()).unwrap().examine().faults
    };
    std::os::unix::fs::symlink(path("disk"), path("link")).unwrap();
    for data in [path("link"), path("link/data")] {
        let found = examined(&data);
        assert!(
            found[0].problem.contains("is a link to") && found[0].problem.contains("mounted"),
            "{found:?}"
        );
    }
    fs::create_dir(path("disk")).unwrap();
    assert_eq!(examined(&path("link")), []);
    fs::write(path("disk/tls"), "no directory").unwrap();
    let found = examined(&path("link"));
    assert_eq!(
        (found.len(), found[0].allowed.as_ref()),
        (1, "a directory whose files the node may read"),
        "{found:?}"
    );
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
    // Shorter ones are refused for their length, whatever the key.
    let sealed: &'static [u8] =
        Box::leak([&b"thalamus-sealed1"[..], &[7; 8 * 4096]].concat().into_boxed_slice());
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

/// A key that does nothing because of another one: somebody may rely on it.
#[test]
fn keys_without_effect_are_warned_about() {
    let directory = TempDir::new().unwrap();
    for (keys, expected) in [
        (
            "server.proxy_header = \"forwarded\"",
            Some("`server.proxy_header` does nothing without `server.trusted_proxies`"),
        ),
        ("server.proxy_header = \"forwarded\"\nserver.trusted_proxies = [\"127.0.0.1\"]", None),
        ("server.trusted_proxies = [\"127.0.0.1\"]", None),
        ("", None),
    ] {
        let text =
            format!("server.listen = \"127.0.0.1:0\"\ndata_dir = {:?}\n{keys}", directory.path().join("d"));
        let found = Loaded::of_text(Path::new("site.toml"), &text, std::iter::empty()).unwrap().examine();
        let said: Vec<_> = found.warnings.iter().filter(|warning| warning.contains("does nothing")).collect();
        assert_eq!(said.len(), usize::from(expected.is_some()), "{keys}: {said:?}");
        assert!(said.iter().all(|said| said.contains(expected.unwrap())), "{said:?}");
    }
}
