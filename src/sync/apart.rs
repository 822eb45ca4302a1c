//! Floor 3. Writes that fail together are sent apart, and one that fails alone again and again is refused: no record
//! holds up another one for ever.

use bson::{Document, doc};

use crate::central::{Central, CentralError, Result, Write, Written};
use crate::domain::record::RecordKey;
use crate::store::{NOT_ARCHIVED_CODE, StoreError, Tx};

/// How often the centre may answer one record with the same error before it is refused, whatever the error, each time in
/// another round.
const FAULTS_MAX: i64 = 3;
/// So many single writes that fail one after the other say that it is not the records.
const ALONE_FAILED_MAX: usize = 3;
/// Code of a failure that is no answer to one statement.
const CALL_CODE: i32 = 0;
const META_FAULTS: &str = "faults";
/// Records whose faults are counted; more at a time are not the records' fault.
const FAULTS_COUNTED_MAX: usize = 1_000;

/// Sends writes together. If that fails in a way that may be due to one of them, or to their number, halves are sent, and
/// halves of what fails again, so that one of them alone is left with the failure. If all of them fail alone, it is the
/// centre's failure.
pub(super) async fn write(central: &mut dyn Central, writes: &[Write]) -> Result<Vec<Written>> {
    let failure = match central.write(writes).await {
        Err(failure @ CentralError::Failed(_)) if writes.len() > 1 => failure,
        // Of one alone nobody knows whether it is the record or the centre.
        answer => return answer,
    };
    tracing::warn!(%failure, writes = writes.len(), "writes failed together and are sent apart");
    let mut answers = vec![Written::Unknown; writes.len()];
    let middle = writes.len() / 2;
    let (mut left, mut failed_alone, mut is_any_answered) = (vec![middle..writes.len(), 0..middle], 0, false);
    while let Some(part) = left.pop() {
        let Some(sent) = writes.get(part.clone()) else {
            continue;
        };
        match central.write(sent).await {
            Ok(written) => {
                is_any_answered = true;
                for (answer, written) in answers.iter_mut().skip(part.start).zip(written) {
                    // It may have missed because it landed the first time: what the centre holds decides later.
                    *answer = if written == Written::Miss { Written::Unknown } else { written };
                }
            }
            Err(CentralError::Failed(_)) if sent.len() > 1 => {
                let middle = part.start + sent.len() / 2;
                left.extend([middle..part.end, part.start..middle]);
            }
            Err(CentralError::Failed(_)) => {
                failed_alone += 1;
                if failed_alone >= ALONE_FAILED_MAX && !is_any_answered {
                    return Err(failure);
                }
                if let Some(answer) = answers.get_mut(part.start) {
                    *answer = Written::Faulty { code: CALL_CODE };
                }
            }
            Err(error) => return Err(error),
        }
    }
    if is_any_answered { Ok(answers) } else { Err(failure) }
}

/// The answer to a write with what is remembered of earlier ones: the same fault once too often is a refusal.
pub(super) fn patient(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    written: &Written,
) -> std::result::Result<Written, StoreError> {
    let mut faults = tx.meta(META_FAULTS)?.unwrap_or_default();
    let name = format!("{}:{}", key.kind.schema().collection, key.id);
    let Written::Faulty { code } = written else {
        // Anything but silence says that it was no lasting fault.
        if *written != Written::Unknown && faults.remove(&name).is_some() {
            tx.set_meta(META_FAULTS, (!faults.is_empty()).then_some(&faults))?;
        }
        return Ok(written.clone());
    };
    let times = 1 + counted(&faults, &name, *code);
    if times < FAULTS_MAX {
        if faults.len() < FAULTS_COUNTED_MAX || faults.contains_key(&name) {
            faults.insert(name, doc! {"code": *code, "times": times});
            tx.set_meta(META_FAULTS, Some(&faults))?;
        }
        return Ok(written.clone());
    }
    faults.remove(&name);
    tx.set_meta(META_FAULTS, (!faults.is_empty()).then_some(&faults))?;
    let message = match *code {
        CALL_CODE => format!("the centre failed {FAULTS_MAX} times at this record and took others"),
        NOT_ARCHIVED_CODE => {
            "the centre does not take its body into the trash, so it was not deleted there".to_owned()
        }
        code => format!("the centre answered {FAULTS_MAX} times with error {code}"),
    };
    Ok(Written::Refused { code: *code, message })
}

/// How often in a row this record was answered with this code.
fn counted(faults: &Document, name: &str, code: i32) -> i64 {
    let known = faults.get_document(name).ok();
    let known = known.filter(|known| known.get_i32("code").is_ok_and(|known| known == code));
    known.and_then(|known| known.get_i64("times").ok()).unwrap_or_default()
}
