//! Floor 5. Takes the records of one file after the other, in batches, and tells what became of them.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bson::{Bson, Document};
use sha2::{Digest, Sha256};

use super::reader::{Format, rows_of};
use super::record::{Item, MissingBytes, Rules, read_item};
use super::report::Tally;
use super::sources::Source;
use super::writing::{Terms, Verdict, Written, hash_of, write_one};
use crate::cli::archive::ndjson::Place;
use crate::cli::terminal::show::plain;
use crate::config::Config;
use crate::domain::content::Content;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::{PERSON_ID_CHARS_MAX, PERSON_ID_CHARS_MIN, is_account};
use crate::files::open_regular;
use crate::store::{Store, StoreError};
/// Records written in one transaction.
const BATCH_RECORDS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 8 << 20;
pub(super) struct Importer {
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
    /// `owner`: the account that the operator says the records are of, folded.
    pub(super) fn new(
        store: Store,
        config: &Config,
        format: Format,
        owner: Option<String>,
        terms: Terms,
    ) -> Importer {
        Importer {
            store,
            format,
            owner,
            content_bytes_max: config.api.content_limit_bytes,
            central_roles: config.accounts.central_roles.clone(),
            roles_to_grant: BTreeSet::new(),
            people_to_grant: 0,
            others: BTreeSet::new(),
            terms: Arc::new(terms),
            met: Arc::default(),
            shows_progress: io::stderr().is_terminal(),
        }
    }

    pub(super) async fn file(&mut self, source: &Source) -> anyhow::Result<Tally> {
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
    pub(super) async fn content(&mut self, path: &Path, sha256: &str) -> anyhow::Result<bool> {
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

    pub(super) fn tell_notes(&self, tallies: &[(&Source, Tally)]) {
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

    pub(super) fn clear_progress(&self) {
        if self.shows_progress {
            eprint!("\r\x1b[K");
        }
    }
}
