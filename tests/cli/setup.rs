//! `setup`: what it writes, what it leaves alone, and the way from there to the first login.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use crate::cli_support::{Clinic, NOBODY_UID, Ran};

const SAMPLE: &str = include_str!("../../etc/config.toml");
const URI: &str = "mongodb://edge:s3cret-w0rd@127.0.0.1:9/?directConnection=true";

/// A clinic without any setting, and the arguments that name its configuration.
struct Site {
    clinic: Clinic,
    config: String,
}

impl Site {
    fn new() -> Site {
        let clinic = Clinic::new().without_settings();
        let config = clinic.path("config.toml").to_str().unwrap().to_owned();
        Site { clinic, config }
    }

    /// Writes a file for `--from`: what every test needs, and `more`.
    fn describe(&self, more: &str) -> String {
        let data = self.clinic.data();
        let text = format!(
            "data_dir = {data:?}\naccounts.bcrypt_cost = 4\ncentral.schedule = \"0 0 0 1 1 *\"\n\
             server.listen = \"127.0.0.1:0\"\nserver.tls = false\n{more}"
        );
        let path = self.clinic.path("site.toml");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn setup(&self, args: &[&str]) -> Ran {
        self.clinic.run(&[&["setup", "--config", &self.config], args].concat())
    }

    fn config(&self) -> String {
        fs::read_to_string(&self.config).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(Path::new(&self.config).parent().unwrap()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn link(ran: &Ran) -> String {
    let (_, rest) = ran.out.split_once("/link/").unwrap();
    format!("/link/{}", rest.lines().next().unwrap())
}

#[test]
fn an_unattended_setup_leads_to_the_first_login() {
    let site = Site::new();
    let from = site.describe(&format!("node.name = \"north\"\ncentral.uri = {URI:?}\n"));
    let unasked = site.setup(&["--from", &from]).ends(3);
    unasked.complains("was not written: nobody agreed");
    assert_eq!(site.names(), ["site.toml"], "nothing is written unasked");
    let ran = site.setup(&["--from", &from, "--yes"]).ends(0);
    ran.says("admin@local administers this node").says("start the node: thalamus-edge serve --config");
    assert!(!format!("{}{}", ran.out, ran.err).contains("s3cret"), "{}{}", ran.out, ran.err);
    let config = site.config();
    assert!(config.contains("\nname = \"north\"\n") && !config.contains("s3cret"));
    // Every explanation of the sample is there, and every key that was not set.
    let gone: Vec<&str> = SAMPLE.lines().filter(|line| !config.lines().any(|other| other == *line)).collect();
    assert_eq!(
        gone,
        [
            "#data_dir = \"/var/lib/thalamus-edge\"",
            "#name = \"\"",
            "#listen = \"0.0.0.0:8443\"",
            "#tls = true",
            "#bcrypt_cost = 12",
            "#uri_file = \"\"",
            "#schedule = \"0 */5 * * * *\"",
        ]
    );
    let secret = site.clinic.path("central.uri");
    assert_eq!(fs::read_to_string(&secret).unwrap(), format!("{URI}\n"));
    assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);
    site.clinic.run(&["check", "--config", &site.config]).ends(0);

    let node = site.clinic.serve(&["--config", &site.config]);
    let form = "password=a+first+password&again=a+first+password";
    assert_eq!(node.request("POST", &link(&ran), "", form).0, 200);
    assert_eq!(node.request("GET", "/users", "admin@local:a first password", "").0, 200);
}

#[test]
fn a_second_setup_changes_nothing() {
    let site = Site::new();
    let from = site.describe(&format!("central.uri = {URI:?}\n"));
    let first = site.setup(&["--from", &from, "--yes"]).ends(0);
    let (config, names) = (site.config(), site.names());
    let changed = fs::metadata(&site.config).unwrap().ino();
    for args in [&["--from", &from][..], &["--yes"], &["--from", &from, "--yes", "--operator", "other"]] {
        let again = site.setup(args).ends(0);
        again.says("was left as it is").says("admin@local administers this node already");
        assert!(!again.out.contains("/link/"), "{}", again.out);
    }
    assert_eq!((site.config(), site.names()), (config, names));
    assert_eq!(fs::metadata(&site.config).unwrap().ino(), changed, "the very file");
    // Neither has the link been used up.
    let node = site.clinic.serve(&["--config", &site.config]);
    assert_eq!(node.request("GET", &link(&first), "", "").0, 200);
    let while_running = site.setup(&["--yes"]).ends(0);
    assert!(!while_running.out.contains("restart"), "{}", while_running.out);
}

#[test]
fn a_configuration_that_is_there_changes_only_if_somebody_agrees() {
    let site = Site::new();
    let mine = format!("# mine\ndata_dir = {:?}\n[server]\ntls = true # really\n", site.clinic.data());
    fs::write(&site.config, &mine).unwrap();
    let from = site.describe("");
    let ran = site.setup(&["--from", &from]).ends(3);
    ran.complains("server.tls = false, was true").complains("server.listen = \"127.0.0.1:0\", was (default)");
    ran.complains("--yes");
    assert_eq!(site.config(), mine);
    assert_eq!(site.names(), ["config.toml", "site.toml"]);

    let (shown_code, shown) =
        site.clinic.at_terminal(&["setup", "--config", &site.config, "--from", &from], &["no"]);
    assert_eq!(shown_code, 3, "{shown}");
    assert_eq!(site.config(), mine);

    site.setup(&["--from", &from, "--yes"]).ends(0).says("what it was before is");
    assert!(site.config().contains("# mine") && site.config().contains("tls = false # really"));
    assert_eq!(fs::read_to_string(site.clinic.path("config.toml.before-setup")).unwrap(), mine);
}

#[test]
fn files_belong_to_those_who_need_them() {
    let site = Site::new();
    fs::create_dir(site.clinic.data()).unwrap();
    fs::write(&site.config, "").unwrap();
    let me = fs::metadata(&site.config).unwrap();
    let (mut service, mut group) = (me.uid(), me.gid());
    if service == 0 {
        // As packages leave it: the data are the service's, the configuration is root's and the service reads it.
        (service, group) = (NOBODY_UID, NOBODY_UID);
        chown(site.clinic.data(), Some(service), Some(group)).unwrap();
        chown(&site.config, Some(0), Some(group)).unwrap();
    }
    fs::set_permissions(&site.config, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let from = site.describe(&format!("central.uri = {URI:?}\n"));
    site.setup(&["--from", &from, "--yes"]).ends(0);
    let of = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o777)
    };
    assert_eq!(of(Path::new(&site.config)), (me.uid(), group, 0o640));
    assert_eq!(of(&site.clinic.path("config.toml.before-setup")), (me.uid(), group, 0o640));
    assert_eq!(of(&site.clinic.path("central.uri")), (service, group, 0o600));
    assert_eq!(of(&site.clinic.data().join("store.redb")), (service, group, 0o600));
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_written() {
    let site = Site::new();
    let refused = |from: &str, complaint: &str| {
        let before = fs::read(&site.config).ok();
        site.setup(&["--from", from, "--yes"]).ends(2).complains(complaint);
        assert_eq!(fs::read(&site.config).ok(), before);
        assert!(!site.clinic.path("central.uri").exists() && !site.clinic.data().exists());
        assert!(!site.names().iter().any(|name| name.ends_with(".new")), "{:?}", site.names());
    };
    refused(&site.describe("server.lisen = 1\n"), "site.toml line 6");
    refused(
        &site.describe("central.uri = \"hub.example.org\"\n"),
        "`central.uri`: is not a connection string",
    );
    refused("/absent.toml", "/absent.toml: cannot be read");
    // What only `check` finds, with a password that would have to be written first.
    let roles = format!("central.uri = {URI:?}\naccounts.roles_file = \"/absent.cfg\"\n");
    refused(&site.describe(&roles), "/absent.cfg: cannot be read");
    // It is the file of --from that somebody has to correct, not one that is not there.
    refused(
        &site.describe("accounts.roles_file = \"/absent.cfg\"\n"),
        "site.toml line 6: `accounts.roles_file`",
    );
    refused(&site.describe("backup.keep = 0\n"), "site.toml line 6: `backup.keep`");
    let text = fs::read_to_string(site.describe("")).unwrap();
    let unmakeable = site.clinic.path("proc.toml");
    fs::write(&unmakeable, text.replace(&format!("{:?}", site.clinic.data()), "\"/proc/x\"")).unwrap();
    refused(unmakeable.to_str().unwrap(), "proc.toml line 1: `data_dir`: nothing can be made in /proc");
    fs::remove_file(unmakeable).unwrap();
    site.setup(&[]).ends(2).complains("--from FILE");
    site.clinic
        .run(&["setup", "--config", "/proc/nowhere/config.toml", "--yes"])
        .ends(2)
        .complains("nothing can be made in /proc");
    site.setup(&["--yes", "--password-stdin"]).ends(2).complains("no password on standard input");
    // Nothing is built upon what is wrong already.
    fs::write(&site.config, "[server]\nlisten = \"here\"\n").unwrap();
    refused(&site.describe(""), "config.toml line 2: `server.listen`");
}

#[test]
fn an_administrator_may_come_with_a_password() {
    let site = Site::new();
    let from = site.describe("");
    let setup = [
        "setup",
        "--config",
        &site.config,
        "--from",
        &from,
        "--operator",
        "head",
        "--password-stdin",
        "--yes",
    ];
    site.clinic
        .run_with(&setup, "short\n")
        .ends(1)
        .complains("at least 8 characters")
        .complains("nothing was written");
    site.clinic
        .run_with(&[&setup[..6], &["head of it", "--password-stdin", "--yes"]].concat(), "a good password\n")
        .ends(1);
    assert!(!Path::new(&site.config).exists() && !site.clinic.data().exists(), "{:?}", site.names());
    let ran = site.clinic.run_with(&setup, "a good password\n").ends(0);
    ran.says("head@local administers this node\n");
    assert!(!ran.out.contains("/link/") && !ran.out.contains("a good password"), "{}", ran.out);
    // It is never changed by another run.
    site.clinic.run_with(&setup, "another password\n").ends(0).says("already");
    let node = site.clinic.serve(&["--config", &site.config]);
    assert_eq!(node.request("GET", "/users", "head@local:a good password", "").0, 200);
}

#[test]
fn an_account_with_other_roles_keeps_them() {
    let site = Site::new();
    let from = site.describe("");
    let with_data = site.clinic.with("DATA_DIR", site.clinic.data().to_str().unwrap());
    with_data.run(&["user", "add", "admin", "--local", "--role", "health_professional", "--link"]).ends(0);
    site.setup(&["--from", &from, "--yes"])
        .ends(3)
        .complains("admin@local is there already")
        .complains("--operator");
    site.setup(&["--from", &from, "--operator", "head", "--yes"])
        .ends(0)
        .says("head@local administers this node");
    let users = site.clinic.run(&["user", "list", "--json", "--config", &site.config]).ends(0).json();
    assert_eq!(users[0]["id"], "admin@local");
    assert_eq!(users[0]["roles"], serde_json::json!(["health_professional"]));
}

#[test]
fn a_node_that_runs_is_to_be_restarted() {
    let site = Site::new();
    site.setup(&["--from", &site.describe(""), "--yes"]).ends(0);
    let node = site.clinic.serve(&["--config", &site.config]);
    let changed = site.setup(&["--from", &site.describe("node.name = \"south\"\n"), "--yes"]).ends(0);
    changed.says("let the changes count: restart the node").says("admin@local administers this node already");
    node.stop();
}

#[test]
fn somebody_at_a_terminal_is_asked() {
    let site = Site::new();
    // No certificate is made by this, nor does anybody listen, but a port that another program has is refused.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let answers = ["north", "nowhere", &listen, "clinic.local, 10.0.0.7", "", "hub", URI, "", "head"];
    let setup = ["setup", "--config", &site.config];
    // The centre is not there, which is asked about before anything is written.
    let (code, shown) = site.clinic.at_terminal(&setup, &[&answers[..], &["no"]].concat());
    assert_eq!(code, 3, "{shown}");
    assert!(shown.contains("(name)") || shown.contains("(connection)"), "{shown}");
    assert!(!site.clinic.path("central.uri").exists(), "{shown}");
    let (code, shown) = site.clinic.at_terminal(&setup, &[&answers[..], &["yes"]].concat());
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("`server.listen`") && shown.contains("is not a connection string"), "{shown}");
    assert!(
        shown.contains(&format!("https://localhost:{port}/link/")) && shown.contains("head@local"),
        "{shown}"
    );
    assert!(shown.contains("thalamus-edge-data/tls/ca.pem, which the first start makes"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
    let config = site.config();
    let data = site.clinic.path("thalamus-edge-data");
    for line in [
        "name = \"north\"",
        &format!("listen = \"{listen}\""),
        "names = [\"clinic.local\", \"10.0.0.7\"]",
        &format!("data_dir = {data:?}"),
    ] {
        assert!(config.lines().any(|other| other == line), "{line}\n{config}");
    }
    assert_eq!(fs::read_to_string(site.clinic.path("central.uri")).unwrap(), format!("{URI}\n"));

    // All as it is, and then without the centre.
    let (code, shown) = site.clinic.at_terminal(&setup, &["", "", "", "", "", ""]);
    assert_eq!((code, site.config()), (0, config), "{shown}");
    let (code, shown) = site.clinic.at_terminal(&setup, &["", "", "", "", "none", "yes"]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("central.uri_file = (default), was"), "{shown}");
    assert!(!site.config().contains("central.uri"));
    let (code, shown) = site.clinic.at_terminal(&setup, &["", "x:1", "x:2", "x:3", "x:4", "x:5"]);
    assert_eq!(code, 2, "{shown}");
}
