//! Floor 2. The options of a connection string: which count, which a node decides itself, which it cannot honour.

use std::collections::BTreeSet;

use mongodb::options::ConnectionString;

/// What becomes of an option that MongoDB documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// The driver takes it.
    Counts,
    /// A node sets its own value, because reconciliation depends on it.
    Decided,
    /// The driver has nothing like it, and nothing is lost without it.
    Unused,
    /// To leave it out would make the connection another one than was asked for.
    Unsupported(&'static str),
}

/// The options of MongoDB's manual ("Connection String Options"), its drivers' common specification, and older
/// manuals, in lower case: names are compared like that.
const OPTIONS: [(&str, Use); 64] = [
    ("appname", Use::Decided),
    ("authmechanism", Use::Counts),
    ("authmechanismproperties", Use::Counts),
    ("authsource", Use::Counts),
    ("compressors", Use::Decided),
    ("connecttimeoutms", Use::Counts),
    ("directconnection", Use::Counts),
    ("enableoverloadretargeting", Use::Counts),
    ("enableutf8validation", Use::Unused),
    ("fsync", Use::Decided),
    ("gssapicanonicalizehostname", Use::Unsupported(KERBEROS)),
    ("gssapiservicename", Use::Unsupported(KERBEROS)),
    ("heartbeatfrequencyms", Use::Decided),
    ("j", Use::Decided),
    ("journal", Use::Decided),
    ("loadbalanced", Use::Counts),
    ("localthresholdms", Use::Counts),
    ("maxadaptiveretries", Use::Counts),
    ("maxconnecting", Use::Counts),
    ("maxidletimems", Use::Counts),
    ("maxlifetimems", Use::Unused),
    ("maxpoolsize", Use::Decided),
    ("maxstalenessseconds", Use::Decided),
    ("minheartbeatfrequencyms", Use::Decided),
    ("minpoolsize", Use::Decided),
    ("proxyhost", Use::Unsupported(PROXY)),
    ("proxypassword", Use::Unsupported(PROXY)),
    ("proxyport", Use::Unsupported(PROXY)),
    ("proxyusername", Use::Unsupported(PROXY)),
    ("readconcernlevel", Use::Decided),
    ("readpreference", Use::Decided),
    ("readpreferencetags", Use::Decided),
    ("replicaset", Use::Counts),
    ("retryreads", Use::Counts),
    ("retrywrites", Use::Decided),
    ("safe", Use::Decided),
    ("servermonitoringmode", Use::Decided),
    ("serverselectiontimeoutms", Use::Counts),
    ("serverselectiontryonce", Use::Unused),
    ("slaveok", Use::Decided),
    ("sockettimeoutms", Use::Decided),
    ("srvmaxhosts", Use::Counts),
    ("srvservicename", Use::Counts),
    ("ssl", Use::Counts),
    ("sslinvalidhostnameallowed", Use::Unused),
    ("timeoutms", Use::Decided),
    ("tls", Use::Counts),
    ("tlsallowinvalidcertificates", Use::Counts),
    ("tlsallowinvalidhostnames", Use::Unused),
    ("tlscafile", Use::Counts),
    ("tlscertificatekeyfile", Use::Counts),
    (
        "tlscertificatekeyfilepassword",
        Use::Unsupported("store the key without a password, readable by the node alone"),
    ),
    ("tlscrlfile", Use::Unsupported("certificates that were revoked cannot be told here")),
    ("tlsdisablecertificaterevocationcheck", Use::Unused),
    ("tlsdisableocspendpointcheck", Use::Unused),
    ("tlsinsecure", Use::Counts),
    ("uuidrepresentation", Use::Unused),
    ("w", Use::Decided),
    ("waitqueuemultiple", Use::Unused),
    ("waitqueuesize", Use::Unused),
    ("waitqueuetimeoutms", Use::Decided),
    ("wtimeout", Use::Decided),
    ("wtimeoutms", Use::Decided),
    ("zlibcompressionlevel", Use::Decided),
];
const PROXY: &str = "a node reaches the centre without a proxy, or through a VPN";
const KERBEROS: &str = "a node logs in with a password or a certificate";
/// More alike, and a name is taken for a slip of another.
const ALIKE_MIN: f64 = 0.84;

/// A connection string with the options that count.
pub(super) struct Sorted {
    pub(super) uri: String,
    pub(super) warnings: Vec<String>,
    pub(super) problems: Vec<String>,
}

/// Whether the options name a login that takes the user from a certificate, or asks somebody else.
pub(super) fn needs_no_password(options: &str) -> bool {
    let mechanism = values(options, "authmechanism").next().unwrap_or_default();
    !mechanism.is_empty() && !has_password(mechanism)
}

/// The mechanisms by which a user shows a password.
fn has_password(mechanism: &str) -> bool {
    ["SCRAM-SHA-1", "SCRAM-SHA-256", "MONGODB-CR", "PLAIN"].contains(&mechanism.to_ascii_uppercase().as_str())
}

/// The values of an option, whose name is given in lower case.
fn values<'a>(options: &'a str, name: &'static str) -> impl Iterator<Item = &'a str> {
    let pairs = options.split('&').filter_map(|option| option.split_once('='));
    pairs.filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// What is wrong with options that count and are right one by one.
fn combination_problems(before: &str, kept: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    let names: Vec<String> =
        kept.iter().map(|option| option.split('=').next().unwrap_or_default().to_ascii_lowercase()).collect();
    let options = kept.join("&");
    for name in names.iter().collect::<BTreeSet<_>>() {
        if names.iter().filter(|other| *other == name).count() > 1 {
            problems.push(format!("has the option {name:?} more than once: leave it once"));
        }
    }
    let is = |name: &'static str, value: &str| {
        values(&options, name).any(|found| found.eq_ignore_ascii_case(value))
    };
    let has = |name: &str| names.iter().any(|found| found == name);
    let is_srv = before.starts_with("mongodb+srv://");
    let has_user = before.contains('@');
    let hosts = before.rsplit_once('@').map_or(before, |(_, hosts)| hosts);
    let is_tls = |value: &str| is("tls", value) || is("ssl", value);
    let mechanism = values(&options, "authmechanism").next().unwrap_or_default();
    let tls_options = names.iter().find(|name| name.starts_with("tls") && *name != "tls");
    let several_hosts = hosts.contains(',');
    let wrong: [(bool, &str); 12] = [
        (
            has("tls") && has("ssl"),
            "has the options \"tls\" and \"ssl\", which mean the same: leave one of them",
        ),
        (
            !has_user && has_password(mechanism),
            "has the option \"authMechanism\" for a login with a password, and no user name and password before the server",
        ),
        (
            is_tls("false") && tls_options.is_some(),
            "has options of TLS beside \"tls=false\", which do not go together: leave out the one or the others",
        ),
        (
            has("tlsinsecure") && has("tlsallowinvalidcertificates"),
            "has the options \"tlsInsecure\" and \"tlsAllowInvalidCertificates\", which do not go together: leave both out",
        ),
        (
            is("directconnection", "true") && several_hosts,
            "has the option \"directConnection\" with several servers, which do not go together: leave it out",
        ),
        (
            is("directconnection", "true") && is_srv,
            "has the option \"directConnection\" with mongodb+srv://, which do not go together: leave it out",
        ),
        (
            is("loadbalanced", "true") && several_hosts,
            "has the option \"loadBalanced\" with several servers, which do not go together: name the balancer alone",
        ),
        (
            is("loadbalanced", "true") && has("replicaset"),
            "has the options \"loadBalanced\" and \"replicaSet\", which do not go together: leave one of them out",
        ),
        (
            is("loadbalanced", "true") && is("directconnection", "true"),
            "has the options \"loadBalanced\" and \"directConnection\", which do not go together: leave one of them out",
        ),
        (
            !is_srv && (has("srvmaxhosts") || has("srvservicename")),
            "has an option that counts with mongodb+srv:// alone (\"srvMaxHosts\", \"srvServiceName\"), so they do not go together",
        ),
        (
            has("replicaset") && values(&options, "srvmaxhosts").any(|hosts| hosts != "0"),
            "has the options \"replicaSet\" and \"srvMaxHosts\", which do not go together: leave one of them out",
        ),
        (
            is("maxconnecting", "0"),
            "has the option \"maxConnecting\" with 0, by which nothing connects: leave it out",
        ),
    ];
    problems
        .extend(wrong.into_iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, problem)| problem.to_owned()));
    problems
}

pub(super) fn sort(uri: &str) -> Sorted {
    let Some((before, options)) = uri.split_once('?') else {
        return Sorted { uri: uri.to_owned(), warnings: Vec::new(), problems: Vec::new() };
    };
    let (mut kept, mut warnings, mut problems): (Vec<&str>, Vec<String>, Vec<String>) = Default::default();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let name = option.split('=').next().unwrap_or_default();
        let known = OPTIONS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        match known.map(|(_, of)| *of) {
            None => problems.push(format!("has an option {name:?}, which does not exist{}", meant(name))),
            Some(Use::Unsupported(why)) => {
                problems.push(format!("has the option {name:?}, which is not supported: {why}"));
            }
            Some(Use::Counts | Use::Decided) if is_wrong(option) => problems
                .push(format!("is not a connection string: the value of its option {name:?} cannot be used")),
            Some(Use::Counts) => kept.push(option),
            Some(Use::Decided) => {
                warnings.push(format!("the option {name:?} has no effect: a node sets this itself"));
            }
            Some(Use::Unused) => warnings.push(format!("the option {name:?} has no effect here")),
        }
    }
    problems.extend(combination_problems(before, &kept));
    let uri = if kept.is_empty() { before.to_owned() } else { format!("{before}?{}", kept.join("&")) };
    Sorted { uri, warnings, problems }
}

/// Whether the driver, which knows the option, takes no such value.
fn is_wrong(option: &str) -> bool {
    // Some stand only beside others.
    let beside = ["", "readPreference=nearest&", "tls=true&", "authMechanism=SCRAM-SHA-256&"];
    let is_taken = |scheme: &str, beside: &str| {
        // Certificates stand in the place of passwords, so some values are refused beside one.
        let is_taken_of = |user: &str| {
            ConnectionString::parse(format!("{scheme}{user}host.example.org/?{beside}{option}")).is_ok()
        };
        is_taken_of("u:p@") || is_taken_of("u@")
    };
    let name = option.split('=').next().unwrap_or_default().to_ascii_lowercase();
    let (_, value) = option.split_once('=').unwrap_or((option, ""));
    if UNKNOWN_TO_DRIVER.contains(&name.as_str()) {
        return value.is_empty();
    }
    if name == "compressors" {
        let names = ["zstd", "zlib", "snappy", "noop", ""];
        return !value.split(',').all(|one| names.contains(&one));
    }
    // No server is found in no time.
    if name == "serverselectiontimeoutms" && value.parse() == Ok(0) {
        return true;
    }
    !beside.iter().any(|beside| is_taken("mongodb://", beside) || is_taken("mongodb+srv://", beside))
}

/// Documented, decided by a node, and none of the driver's options.
const UNKNOWN_TO_DRIVER: [&str; 8] = [
    "fsync",
    "j",
    "minheartbeatfrequencyms",
    "safe",
    "slaveok",
    "timeoutms",
    "wtimeout",
    "zlibcompressionlevel",
];

fn meant(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let alike = |(known, _): &(&'static str, Use)| (strsim::jaro_winkler(&name, known), *known);
    match OPTIONS.iter().map(alike).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, known)) if score >= ALIKE_MIN => format!("; did you mean {known:?}?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    /// Every documented option is taken with or without a warning, or refused with a reason.
    #[test]
    fn every_documented_option_counts_has_no_effect_or_is_refused() {
        for (name, of) in OPTIONS {
            let value = match name {
                "authmechanism" => "SCRAM-SHA-256",
                "authmechanismproperties" => "SERVICE_NAME:mongodb",
                "compressors" => "snappy,zlib",
                "readpreference" => "nearest",
                "readpreferencetags" => "dc:ny",
                "servermonitoringmode" => "poll",
                "maxstalenessseconds" => "120",
                "w" => "majority",
                name if name.ends_with("ms") => "20000",
                name if ["size", "conc", "lvl"].iter().any(|end| name.ends_with(end)) => "7",
                "maxadaptiveretries" | "maxconnecting" | "srvmaxhosts" | "zlibcompressionlevel" => "2",
                "enableoverloadretargeting"
                | "directconnection"
                | "journal"
                | "tls"
                | "ssl"
                | "retryreads"
                | "retrywrites"
                | "loadbalanced"
                | "tlsinsecure"
                | "tlsallowinvalidcertificates" => "true",
                _ => "x",
            };
            let scheme = if name.starts_with("srv") { "mongodb+srv" } else { "mongodb" };
            let sorted = sort(&format!("{scheme}://u:p@h.example.org/?{name}={value}"));
            let Sorted { uri, warnings, problems } = sorted;
            let kept = uri.contains(name);
            let found = (kept, warnings.len(), problems.len());
            let expected = match of {
                Use::Counts => (true, 0, 0),
                Use::Decided | Use::Unused => (false, 1, 0),
                Use::Unsupported(_) => (false, 0, 1),
            };
            assert_eq!(found, expected, "{name}: {uri} {warnings:?} {problems:?}");
        }
    }

    #[test]
    fn what_a_round_could_not_use_is_refused_at_once() {
        for (options, problem) in [
            ("proxyHost=x", "\"proxyHost\", which is not supported"),
            ("gssapiServiceName=x", "not supported"),
            ("fooBar=1", "\"fooBar\", which does not exist"),
            ("replicaSett=rs", "did you mean \"replicaset\"?"),
            ("serverSelectionTimeoutMS=0", "\"serverSelectionTimeoutMS\" cannot be used"),
            ("maxPoolSize=many", "\"maxPoolSize\" cannot be used"),
            ("compressors=gzip", "\"compressors\" cannot be used"),
            ("maxConnecting=0", "by which nothing connects"),
            ("loadBalanced=true&replicaSet=rs", "do not go together"),
            ("loadBalanced=true&directConnection=true", "do not go together"),
            ("tls=false&tlsInsecure=true", "do not go together"),
        ] {
            let Err(found) = read(&format!("mongodb://h/?{options}")) else { panic!("{options} passes") };
            assert!(found.iter().any(|found| found.contains(problem)), "{options}: {found:?}");
        }
        let Err(found) = read("mongodb://h1,h2/?directConnection=true&proxyHost=x&fooBar=1") else {
            panic!()
        };
        assert_eq!(found.len(), 3, "all at once: {found:?}");
        for (uri, problem) in [
            ("mongodb://%2Ftmp%2Fmongodb-27017.sock/", "names a socket file"),
            ("mongodb://h/?srvMaxHosts=2", "do not go together"),
            ("mongodb+srv://hub.example.org/?directConnection=true", "do not go together"),
        ] {
            let Err(found) = read(uri) else { panic!("{uri} passes") };
            assert!(found.join("; ").contains(problem), "{uri}: {found:?}");
        }
        for options in [
            "socketTimeoutMS=20000",
            "heartbeatFrequencyMS=1",
            "minPoolSize=10&maxPoolSize=2",
            "W=2&w=majority",
        ] {
            let address = read(&format!("mongodb://h/?{options}")).unwrap();
            assert!(!address.warnings.is_empty(), "{options}");
        }
    }
}
