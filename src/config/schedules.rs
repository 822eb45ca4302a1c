//! Floor 5. When something is done by itself: what a schedule may be, and whether it still comes.

use super::verdict::Verdict;
use crate::backup::{next_ms, parse_schedule};

/// The largest value of each field of a schedule: second, minute, hour, day of month, month, day of week.
const SCHEDULE_MAX: [u32; 6] = [59, 59, 23, 31, 12, 7];

/// By the reading of those who keep it.
pub(super) fn verdict(text: &str) -> Verdict {
    const FIELDS: usize = 6;
    schedule_fields(text)?;
    // The rounds' scheduler and the backups' read by themselves.
    let read = parse_schedule(text).filter(|_| tokio_cron_scheduler::Job::new(text, |_, _| {}).is_ok());
    match read {
        // From any time on it comes or it does not: calendars repeat.
        Some(read) if next_ms(&read, 0, 0).is_some() => Ok(()),
        Some(_) => Err("never comes: there is no such day".to_owned()),
        None if text.split_whitespace().count() + 1 == FIELDS => {
            Err("is not a schedule: it has five fields, and the seconds come first: put a 0 before it"
                .to_owned())
        }
        None => Err("is not a schedule".to_owned()),
    }
}

/// What the readers let pass: an item of a list that is empty, a step beyond all values of its field.
fn schedule_fields(text: &str) -> Verdict {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() < SCHEDULE_MAX.len() {
        return Ok(());
    }
    for (field, max) in fields.into_iter().zip(SCHEDULE_MAX) {
        if field.split(',').any(str::is_empty) {
            return Err(format!("has a list with an empty place: {field:?}"));
        }
        let mut steps = field.split(',').filter_map(|item| item.split_once('/')).map(|(_, step)| step);
        let is_wrong = |step: &str| step.parse::<u32>().is_ok_and(|step| step > max);
        if let Some(step) = steps.find(|step| is_wrong(step)) {
            return Err(format!("has a step of {step} in {field:?}, where {max} is the largest value"));
        }
    }
    Ok(())
}

pub(super) fn verdict_unless_empty(text: &str) -> Verdict {
    if text.is_empty() { Ok(()) } else { verdict(text) }
}

/// Whether a schedule that is right has a time after this one, in milliseconds since 1970. One whose years have passed
/// has none.
pub(super) fn still_comes(text: &str, now_ms: i64) -> bool {
    // An empty one is switched off, a wrong one is a fault of its own.
    parse_schedule(text).is_none_or(|read| next_ms(&read, now_ms, 0).is_some())
}
