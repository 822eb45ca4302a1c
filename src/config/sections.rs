//! Floor 5. The sections of a configuration: their keys, with types and defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::networks::ProxyHeader;
use super::{check, units};
use crate::accounts::{BCRYPT_COST_DEFAULT, PASSWORD_CHARS_MIN_DEFAULT};
use crate::domain::access::END_USER;
use crate::domain::active::ActiveFromCentre;
use crate::domain::json::DateFormat;
use crate::domain::record::Kind;
use crate::http::CollectionShape;
use crate::sync::budget::{ATTACHMENT_BYTES_PER_ROUND_DEFAULT, SCAN_BYTES_PER_ROUND_DEFAULT};

/// When to reconcile unless somebody says otherwise; and where every round reads everything.
const SCHEDULE_DEFAULT: &str = "0 */5 * * * *";
const SCHEDULE_WITHOUT_FEED_DEFAULT: &str = "0 0 * * * *";

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Never empty once loaded: the host name stands in.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    #[serde(deserialize_with = "check::socket_address")]
    pub listen: SocketAddr,
    pub tls: bool,
    #[serde(deserialize_with = "path_unless_empty")]
    pub certificate: Option<PathBuf>,
    #[serde(deserialize_with = "path_unless_empty")]
    pub key: Option<PathBuf>,
    pub names: Vec<String>,
    /// Each an address or a network: read them through [`Config::trusted_proxies`](crate::config::Config::trusted_proxies).
    pub(super) trusted_proxies: Vec<String>,
    pub proxy_header: ProxyHeader,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    pub date_format: DateFormat,
    pub collection_shape: CollectionShape,
    pub expose_password_hashes: bool,
    pub cors_allowed_origins: Vec<String>,
    #[serde(deserialize_with = "units::bytes")]
    pub body_limit_bytes: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub content_limit_bytes: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub record_limit_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountRules {
    #[serde(deserialize_with = "path_unless_empty")]
    pub roles_file: Option<PathBuf>,
    pub password_min_chars: usize,
    pub bcrypt_cost: u32,
    /// Roles that count wherever they came from.
    pub central_roles: Vec<String>,
    pub active_from_centre: ActiveFromCentre,
    pub emergency_access: bool,
    pub browser_sessions: bool,
    /// Days after the last complete round in which people may log in; 0: for ever.
    #[serde(deserialize_with = "units::days")]
    pub offline_login_days: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    #[serde(deserialize_with = "units::bytes")]
    pub cache_bytes: u64,
    pub journal_keep_rows: u64,
    pub audit_keep_rows: u64,
    /// How long entries of the audit trail stay at least, however many there are; 0: only their number counts.
    #[serde(deserialize_with = "units::days")]
    pub audit_keep_days: u32,
    /// In how many days every row is read through once, to see whether it is what was written; 0: never.
    #[serde(deserialize_with = "units::days")]
    pub scrub_days: u32,
    /// Read through [`Config::store_key`](crate::config::Config::store_key).
    #[serde(deserialize_with = "path_unless_empty")]
    pub key_file: Option<PathBuf>,
    /// Free bytes of the disk that clients' writes leave alone; 0: none.
    #[serde(deserialize_with = "units::bytes")]
    pub reserve_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Central {
    /// May hold a password: read it through [`Config::centre`](crate::config::Config::centre).
    pub(super) uri: SecretText,
    #[serde(deserialize_with = "path_unless_empty")]
    pub(super) uri_file: Option<PathBuf>,
    /// Read it through [`Config::centre`](crate::config::Config::centre): the connection string may name one.
    #[serde(deserialize_with = "text_unless_empty")]
    pub(super) database: Option<String>,
    /// Six fields of cron, seconds first, in UTC.
    pub schedule: String,
    /// The same, for a centre without a change feed: read it through [`Central::schedule_without_feed`].
    pub(super) schedule_without_feed: String,
    /// The same, for looking through everything at the centre; empty: never.
    pub verify_schedule: String,
    #[serde(deserialize_with = "units::seconds")]
    pub(super) jitter_s: u64,
    #[serde(deserialize_with = "units::seconds")]
    pub(super) round_timeout_s: u64,
    pub(super) continuous: bool,
    #[serde(deserialize_with = "units::bytes")]
    pub(super) attachment_bytes_per_round: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub(super) scan_bytes_per_round: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub(super) budget_bytes_per_day: u64,
    /// Each as `HH:MM-HH:MM`: read them through [`Config::sync_settings`](crate::config::Config::sync_settings).
    pub(super) quiet_hours: Vec<String>,
    #[serde(deserialize_with = "check::collections")]
    pub(super) collections: BTreeMap<Kind, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backup {
    /// Six fields of cron, seconds first, in the machine's local time; empty: never.
    pub schedule: String,
    pub keep: usize,
    /// Read it through [`Config::backup_settings`](crate::config::Config::backup_settings).
    #[serde(deserialize_with = "path_unless_empty")]
    pub(super) directory: Option<PathBuf>,
    pub(super) recipients: Vec<String>,
}

/// Text that must not be shown, not even by accident.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct SecretText(pub(super) String);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(hidden)" })
    }
}

impl Default for Server {
    fn default() -> Server {
        Server {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            tls: true,
            certificate: None,
            key: None,
            names: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::Either,
        }
    }
}

impl Default for Api {
    fn default() -> Api {
        Api {
            date_format: DateFormat::default(),
            collection_shape: CollectionShape::default(),
            expose_password_hashes: false,
            cors_allowed_origins: Vec::new(),
            body_limit_bytes: 1 << 20,
            content_limit_bytes: 32 << 20,
            record_limit_bytes: 1 << 20,
        }
    }
}

impl Default for AccountRules {
    fn default() -> AccountRules {
        AccountRules {
            roles_file: None,
            password_min_chars: PASSWORD_CHARS_MIN_DEFAULT,
            bcrypt_cost: BCRYPT_COST_DEFAULT,
            central_roles: vec![END_USER.to_owned(), "health_professional".to_owned()],
            active_from_centre: ActiveFromCentre::Honour,
            emergency_access: false,
            browser_sessions: true,
            offline_login_days: 0,
        }
    }
}

impl Default for Store {
    fn default() -> Store {
        Store {
            cache_bytes: 32 << 20,
            journal_keep_rows: 1_000_000,
            audit_keep_rows: 1_000_000,
            audit_keep_days: 400,
            scrub_days: 7,
            reserve_bytes: 64 << 20,
            key_file: None,
        }
    }
}

impl Default for Central {
    fn default() -> Central {
        Central {
            uri: SecretText::default(),
            uri_file: None,
            database: None,
            schedule: SCHEDULE_DEFAULT.to_owned(),
            schedule_without_feed: String::new(),
            verify_schedule: "0 30 2 * * Sun".to_owned(),
            jitter_s: 60,
            round_timeout_s: 600,
            continuous: false,
            attachment_bytes_per_round: ATTACHMENT_BYTES_PER_ROUND_DEFAULT,
            scan_bytes_per_round: SCAN_BYTES_PER_ROUND_DEFAULT,
            budget_bytes_per_day: 0,
            quiet_hours: Vec::new(),
            collections: BTreeMap::new(),
        }
    }
}

impl Default for Backup {
    fn default() -> Backup {
        Backup { schedule: "0 0 3 * * *".to_owned(), keep: 7, directory: None, recipients: Vec::new() }
    }
}

impl Central {
    /// When to reconcile with a centre where every round reads everything: what was set for it, or for all centres, and
    /// once an hour if neither was.
    pub fn schedule_without_feed(&self) -> &str {
        match (self.schedule_without_feed.as_str(), self.schedule.as_str()) {
            ("", SCHEDULE_DEFAULT) => SCHEDULE_WITHOUT_FEED_DEFAULT,
            ("", schedule) => schedule,
            (set, _) => set,
        }
    }

    /// Rounds start up to this much later than scheduled, so that boxes do not arrive all at once.
    pub fn jitter(&self) -> Duration {
        Duration::from_secs(self.jitter_s)
    }

    /// A round that takes longer is given up and continued by the next.
    pub fn round_timeout(&self) -> Duration {
        Duration::from_secs(self.round_timeout_s)
    }
}

fn text_unless_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    Ok((!text.is_empty()).then_some(text))
}

fn path_unless_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    Ok((!path.as_os_str().is_empty()).then_some(path))
}
