//! Floor 5. `import`: records from files into a store that no node holds.
//!
//! A person who is not the one that has the account here is not taken, and neither are the records of theirs; no record
//! changes hands. What is stored already is never overwritten unless `--replace` says so, and one bad document does not
//! keep the others out: it is named, and the exit code says that there was something that was not taken.
//!
//! `sources` finds the files, `reader` takes them apart, `wrapping` finds lists in answers, `record` makes records of their rows, `writing` writes
//! them, `reasons` says why some are not, `report` what became of all.

mod reader;
mod reasons;
mod record;
mod report;
mod sources;
mod wrapping;
mod writing;

use std::collections::{BTreeSet, HashMap};
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bson::{Bson, Document};
use clap::Args;
use sha2::{Digest, Sha256};

use super::closed_accounts;
use super::control::{ControlError, Missing, open};
use super::ndjson::Place;
use super::show::plain;
use super::{Done, EXIT_FAILED, Failure};
use crate::app::{App, AppError, store_file, store_options};
use crate::config::Config;
use crate::domain::access::Actor;
use crate::domain::content::Content;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::{Owner, PERSON_ID_CHARS_MAX, PERSON_ID_CHARS_MIN, is_account};
use crate::files::open_regular;
use crate::store::{Store, StoreError, Trial};
use reader::{Format, rows_of};
use record::{Item, MissingBytes, Rules, read_item};
use report::{Tally, as_json, as_table, summary};
use sources::{OfDumps, Source, Sources};
use writing::{Terms, Verdict, Written, hash_of, write_one};

pub(super) use record::read_exported;

/// Records written in one transaction.
const BATCH_RECORDS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Where an export keeps uploaded bytes, each under its SHA-256.
pub(super) const CONTENT_DIRECTORY: &str = "content";

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Files that are called after their collection or table, or directories of such files.
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Overwrite records that differ from those in the files.
    #[arg(long)]
    replace: bool,
    /// Make records again that were deleted here, with what the files have.
    #[arg(long)]
    restore_deleted: bool,
    /// Say what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// What the files hold, whatever they are called.
    #[arg(long, value_name = "COLLECTION")]
    collection: Option<String>,
    /// The person whose records the files hold, where they do not say it themselves.
    #[arg(long, value_name = "ACCOUNT")]
    owner: Option<String>,
    /// The database of a dump whose tables are taken, where several have such tables.
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// The schema of a dump whose tables are taken, where several have such tables.
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    /// The format of the files, where it cannot be told from them.
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: Config, args: ImportArgs) -> anyhow::Result<Done> {
    if let Some(owner) = args.owner.as_deref().filter(|owner| !is_account(owner)) {
        return Err(Failure::usage(format!("--owner {owner}: not a federation account")).into());
    }
    let sources = {
        let of_dumps = OfDumps { database: args.database.as_deref(), schema: args.schema.as_deref() };
        Sources::find(&config, &args.paths, args.collection.as_deref(), of_dumps)?
    };
    let ownerless = |source: &&Source| !matches!(source.kind.schema().owner, Owner::Field(_));
    if let (Some(_), Some(source)) = (&args.owner, sources.files.iter().find(ownerless)) {
        let path = source.path.display();
        return Err(Failure::usage(format!("{path}: --owner is for records that belong to a person")).into());
    }
    let mut closed = BTreeSet::new();
    for path in &sources.closed {
        closed.append(&mut closed_accounts::read(path)?);
    }
    let target = Target::open(&config, args.dry_run)?;
    let mut importer = Importer {
        store: target.store().clone(),
        format: args.format,
        owner: args.owner.map(|owner| fold_account(&owner)),
        content_bytes_max: config.api.content_limit_bytes,
        central_roles: config.accounts.central_roles.clone(),
        roles_to_grant: BTreeSet::new(),
        people_to_grant: 0,
        others: BTreeSet::new(),
        terms: Arc::new(Terms {
            is_replacing: args.replace,
            is_restoring: args.restore_deleted,
            closed,
            former: target.store().read()?.former_holders()?,
            actor: Actor::Operator(rustix::process::getuid().as_raw()),
        }),
        met: Arc::default(),
        shows_progress: io::stderr().is_terminal(),
    };
    let mut refused_contents = 0;
    for (path, sha256) in &sources.contents {
        refused_contents += u64::from(!importer.content(path, sha256).await?);
    }
    let mut tallies = Vec::new();
    for source in &sources.files {
        let tally = importer.file(source).await.with_context(|| source.path.display().to_string())?;
        tallies.push((source, tally));
    }
    importer.clear_progress();
    importer.tell_notes(&tallies);
    sources.tell_skipped();
    let left = summary(&tallies, refused_contents, &sources);
    if let Some(left) = &left {
        eprintln!("{left}");
    }
    let mut done = if args.json {
        Done::json(&as_json(&tallies, &sources, args.dry_run))
    } else {
        Done::text(as_table(&tallies))
    };
    if args.dry_run && !args.json {
        done.text += "\n\ndry run: this is what would happen; nothing was changed";
    }
    Ok(done.with_code(if left.is_none() { 0 } else { EXIT_FAILED }))
}

/// Where the records go.
enum Target {
    Node(Box<App>),
    /// A copy that is forgotten.
    Copy(Box<Trial>),
}

impl Target {
    fn open(config: &Config, is_dry_run: bool) -> anyhow::Result<Target> {
        if !is_dry_run {
            return Ok(Target::Node(Box::new(open(config, Missing::Create)?)));
        }
        let path = store_file(&config.data_dir);
        let (key, reserve_bytes) = (config.store_key()?, config.store.reserve_bytes);
        let trial = Trial::of(&path, key.as_ref(), store_options(config), reserve_bytes);
        let trial = trial.map_err(|cause| {
            let is_no_room = matches!(cause, StoreError::Short(_) | StoreError::DiskFull);
            let error = anyhow::Error::from(match cause {
                StoreError::Held => ControlError::Held(config.data_dir.clone()),
                cause => ControlError::App(AppError::Store { path, cause }),
            });
            let message = "a dry run works on a copy of the store, and there is no room for the copy";
            if is_no_room { error.context(message) } else { error }
        })?;
        trial.store.set_active_from_centre(config.accounts.active_from_centre);
        Ok(Target::Copy(Box::new(trial)))
    }

    fn store(&self) -> &Store {
        match self {
            Target::Node(app) => app.node.store.unguarded(),
            Target::Copy(trial) => &trial.store,
        }
    }
}

struct Importer {
    store: Store,
    format: Format,
    /// The account that the operator says the records are of, folded.
    owner: Option<String>,
    /// Most bytes of a document.
    content_bytes_max: u64,
    central_roles: Vec<String>,
    /// Roles that imported people have and that count only where they are granted.
    roles_to_grant: BTreeSet<String>,
    people_to_grant: u64,
    /// Accounts, folded, that are somebody else's here than in the files.
    others: BTreeSet<String>,
    terms: Arc<Terms>,
    /// The rows that were met of records that stand in the store: hashes of the key, and of what the first one has.
    met: Arc<HashMap<u64, u64>>,
    shows_progress: bool,
}

impl Importer {
    async fn file(&mut self, source: &Source) -> anyhow::Result<Tally> {
        let Source { path, kind, table, .. } = source;
        let mut tally = Tally::default();
        let owner = self.owner.clone();
        let rules = Rules { kind: *kind, owner: owner.as_deref(), content_bytes_max: self.content_bytes_max };
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        let rows = match rows_of(path, *kind, table.as_ref(), self.format) {
            Ok(rows) => rows,
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        for found in rows {
            let read = match found {
                Ok(found) => found.and_then(|raw| read_item(raw, rules)),
                // A packed file that was cut off, or a disk that cannot be read: what came before it is taken.
                Err(error) => {
                    tally.refused += 1;
                    self.clear_progress();
                    let path = plain(&path.display().to_string());
                    eprintln!("{path}: the rest cannot be read: {}", plain(&error.to_string()));
                    break;
                }
            };
            match read {
                Ok(item) => {
                    batch_bytes += item.document.to_vec().map_or(0, |bytes| bytes.len());
                    batch_bytes += item.content.as_ref().map_or(0, |(_, bytes)| bytes.len());
                    batch.push(item);
                }
                Err(wrong) => {
                    tally.refused += 1;
                    self.tell(path, wrong.place, &wrong.message);
                }
            }
            if batch.len() >= BATCH_RECORDS_MAX || batch_bytes >= BATCH_BYTES_MAX {
                self.write(source, std::mem::take(&mut batch), &mut tally).await?;
                batch_bytes = 0;
            }
        }
        self.write(source, batch, &mut tally).await?;
        // An export has a file for each collection.
        if tally == Tally::default() && !source.of_export {
            self.clear_progress();
            eprintln!("note: {}: holds no records", plain(&path.display().to_string()));
        }
        Ok(tally)
    }

    async fn write(&mut self, source: &Source, batch: Vec<Item>, tally: &mut Tally) -> anyhow::Result<()> {
        let Source { path, kind, of_export, .. } = source;
        let (kind, of_export) = (*kind, *of_export);
        let bytes_of = |item: &Item| {
            let content = item.content.as_ref().map_or(0, |(_, bytes)| bytes.len());
            item.document.to_vec().map_or(0, |bytes| bytes.len()) + content
        };
        let claim = self.store.claim(batch.iter().map(bytes_of).sum::<usize>() as u64)?;
        let items = Arc::new(batch);
        let (job, terms) = (Arc::clone(&items), Arc::clone(&self.terms));
        let (others, before) = (self.others.clone(), Arc::clone(&self.met));
        let written: Vec<Written> = self
            .store
            .transact(move |tx| -> Result<_, StoreError> {
                let mut within = HashMap::new();
                job.iter()
                    .map(|item| {
                        let owner = kind.schema().owner_of(&item.document);
                        if kind != Kind::Person && owner.is_some_and(|owner| others.contains(&owner)) {
                            let key = RecordKey::new(kind, item.id.as_str());
                            return Ok(Written::new(Verdict::OwnerRefused, key));
                        }
                        let first = |key: &RecordKey| {
                            let hash = hash_of(key);
                            before.get(&hash).or_else(|| within.get(&hash)).copied()
                        };
                        let written = write_one(tx, kind, item, &first, &terms)?;
                        if written.verdict.is_of_record() {
                            within.entry(hash_of(&written.key)).or_insert(written.row);
                        }
                        Ok(written)
                    })
                    .collect()
            })
            .await?;
        drop(claim);
        for (item, written) in items.iter().zip(written) {
            let Written { verdict, key, row, is_of_unknown, kept_open, why, content } = written;
            let is_taken = verdict.is_taken();
            self.count((path, item.place), verdict, (&key, &why), tally);
            if verdict.is_of_record() {
                Arc::make_mut(&mut self.met).entry(hash_of(&key)).or_insert(row);
            }
            if item.missing == Some(MissingBytes::OtherThanHash) && is_taken {
                // Clients sum up what they like: Thalamus's own demo has such a document.
                let message = format!(
                    "{}: its bytes are not those that `hash` is of; they are taken as they are",
                    key.id
                );
                self.tell(path, item.place, &message);
            }
            if let Some(why) = self.missing_bytes(item, content.as_ref(), of_export)?.filter(|_| is_taken) {
                tally.without_content += 1;
                self.tell(path, item.place, &format!("{}: incomplete: {why}", key.id));
            }
            if let Some(kept) = kept_open {
                tally.active_kept += 1;
                self.tell(path, item.place, &kept.say(&key.id));
            }
            if key.kind == Kind::Person && key.id != item.id && verdict.is_of_record() {
                tally.respelled += 1;
                let message =
                    format!("{:?}: the account is spelled {:?} here, and stays so", item.id, key.id);
                self.tell(path, item.place, &message);
            }
            if matches!(verdict, Verdict::Added | Verdict::Replaced | Verdict::Restored) {
                tally.of_unknown += u64::from(is_of_unknown);
                if key.kind == Kind::Person && !is_account(&key.id) {
                    tally.no_account += 1;
                    let message = format!(
                        "{:?}: taken, but nobody can log in with this id: an account has {PERSON_ID_CHARS_MIN} to \
                         {PERSON_ID_CHARS_MAX} letters and digits",
                        key.id
                    );
                    self.tell(path, item.place, &message);
                }
                self.note_roles(&key, &item.document)?;
            }
        }
        self.show_progress(path, tally);
        Ok(())
    }

    /// Counts what became of a row, and tells of it if it was not taken.
    fn count(
        &mut self,
        (path, place): (&Path, Place),
        verdict: Verdict,
        (key, why): (&RecordKey, &str),
        tally: &mut Tally,
    ) {
        let (id, collection) = (&key.id, key.kind.schema().collection);
        let message = match verdict {
            Verdict::Added => return tally.added += 1,
            Verdict::Replaced => return tally.replaced += 1,
            Verdict::Equal => return tally.equal += 1,
            Verdict::Different => {
                tally.different += 1;
                return self.tell(
                    path,
                    place,
                    &format!("{id} is stored with other content and was left as it is"),
                );
            }
            Verdict::Restored => {
                tally.added += 1;
                tally.restored += 1;
                return self.tell(path, place, &format!("{collection}/{id} {why}: it is here again"));
            }
            Verdict::Deleted => {
                tally.deleted += 1;
                return self.tell(path, place, &format!("{collection}/{id} {why}"));
            }
            Verdict::OwnerDeleted => {
                tally.deleted += 1;
                return self.tell(path, place, &format!("{collection}/{id} is {why}"));
            }
            Verdict::RestoreRefused => format!("{collection}/{id} {why}"),
            Verdict::AccountOfOtherPerson => {
                self.others.insert(fold_account(id));
                why.to_owned()
            }
            Verdict::OwnerRefused => format!("{id} is of a person who was not taken"),
            Verdict::OwnerDiffers => why.to_owned(),
            Verdict::OwnerInDoubt => format!("{collection}/{id} is {why}"),
            Verdict::Twice => format!("{id} stands in the files before, with other content"),
        };
        tally.refused += 1;
        self.tell(path, place, &message);
    }

    /// Why a document's bytes are not here; `None` if they are, or if there are none.
    fn missing_bytes(
        &self,
        item: &Item,
        content: Option<&Content>,
        of_export: bool,
    ) -> Result<Option<&'static str>, StoreError> {
        if let Some(content) = content {
            let is_here = self.store.read()?.has_content(&content.sha256)?;
            return Ok((!is_here).then_some("its bytes are not on this node"));
        }
        Ok(item.missing.filter(|_| !of_export).and_then(|missing| match missing {
            MissingBytes::OtherThanHash => None,
            MissingBytes::FlatText => {
                Some("`document` is text that does not begin with `\\x` and was kept as text")
            }
            MissingBytes::Unsaid => Some("the file says nothing of its bytes"),
        }))
    }

    /// A file makes nobody an administrator: roles other than the federation's are granted by hand.
    fn note_roles(&mut self, key: &RecordKey, document: &Document) -> Result<(), StoreError> {
        let Some(Bson::Array(roles)) = document.get("roles").filter(|_| key.kind == Kind::Person) else {
            return Ok(());
        };
        let roles = roles.iter().filter_map(Bson::as_str);
        let mut special: Vec<&str> =
            roles.filter(|role| !self.central_roles.iter().any(|known| known == role)).collect();
        if !special.is_empty() {
            let granted =
                self.store.read()?.grants(&key.id, document.get_str("password").unwrap_or_default())?;
            special.retain(|role| !granted.has(role));
        }
        self.people_to_grant += u64::from(!special.is_empty());
        self.roles_to_grant.extend(special.into_iter().map(str::to_owned));
        Ok(())
    }

    /// Takes uploaded bytes; false if they are not what their name says.
    async fn content(&mut self, path: &Path, sha256: &str) -> anyhow::Result<bool> {
        let shown = || path.display().to_string();
        let mut file = open_regular(path).with_context(shown)?;
        let length = file.metadata().with_context(shown)?.len();
        if length > self.content_bytes_max {
            eprintln!("{}: larger than api.content_limit_bytes allows", plain(&shown()));
            return Ok(false);
        }
        let mut bytes = Vec::new();
        file.by_ref().take(self.content_bytes_max).read_to_end(&mut bytes).with_context(shown)?;
        if hex::encode(Sha256::digest(&bytes)) != sha256 {
            eprintln!("{}: the bytes are damaged: their SHA-256 is another one", plain(&shown()));
            return Ok(false);
        }
        let sha256 = sha256.to_owned();
        let _claim = self.store.claim(length)?;
        self.store.transact(move |tx| -> Result<(), StoreError> { tx.put_content(&sha256, &bytes) }).await?;
        Ok(true)
    }

    fn tell(&self, path: &Path, place: Place, message: &str) {
        self.clear_progress();
        eprintln!("{} {place}: {}", plain(&path.display().to_string()), plain(message));
    }

    fn tell_notes(&self, tallies: &[(&Source, Tally)]) {
        let sum = |count: fn(&Tally) -> u64| tallies.iter().map(|(_, tally)| count(tally)).sum::<u64>();
        let (respelled, different) = (sum(|tally| tally.respelled), sum(|tally| tally.different));
        let (without_content, of_unknown) =
            (sum(|tally| tally.without_content), sum(|tally| tally.of_unknown));
        if respelled > 0 {
            eprintln!(
                "note: {respelled} people have another spelling of their account here than in the files. Where spellings are \
                 different people, as in Thalamus, put the spelling of the files into an `export` before it goes there"
            );
        }
        if different > 0 {
            eprintln!("note: {different} records were left as they are; `--replace` overwrites them");
        }
        if without_content > 0 {
            eprintln!(
                "note: {without_content} personal documents are incomplete: their bytes are not on this node"
            );
        }
        if of_unknown > 0 {
            eprintln!(
                "note: {of_unknown} records are of people who are not on this node: import their people too"
            );
        }
        let no_account = sum(|tally| tally.no_account);
        if no_account > 0 {
            eprintln!("note: {no_account} people have ids with which nobody can log in");
        }
        if self.people_to_grant > 0 {
            let roles: Vec<_> = self.roles_to_grant.iter().map(|role| plain(role)).collect();
            eprintln!(
                "note: {} people have roles that count only where they are granted ({}): \
                 `thalamus-edge user add ID --role ROLE` grants them on this node",
                self.people_to_grant,
                roles.join(", ")
            );
        }
    }

    fn show_progress(&self, path: &Path, tally: &Tally) {
        if self.shows_progress {
            let Tally { added, replaced, equal, different, refused, .. } = tally;
            let read = added + replaced + equal + different + refused;
            eprint!("\r{}: {read} records", plain(&path.display().to_string()));
        }
    }

    fn clear_progress(&self) {
        if self.shows_progress {
            eprint!("\r\x1b[K");
        }
    }
}
