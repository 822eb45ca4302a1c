//! Floor 5. The background pass over all rows: a part of the store every minute, so that all of it has been read in so
//! many days.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::store::Store;

const STEP: Duration = Duration::from_secs(60);
const STEPS_A_DAY: u64 = 24 * 60;
/// How far the pass has come is written after so many steps, because cards wear out.
const STEPS_KEPT: u32 = 60;
/// Never less than so much in a step.
const BYTES_MIN: u64 = 64 << 10;

pub(super) async fn scrub(store: Store, path: PathBuf, days: u32) {
    let mut pass = store.read().and_then(|snapshot| snapshot.scrubbed()).unwrap_or_default();
    let mut steps: u32 = 0;
    loop {
        tokio::time::sleep(STEP).await;
        steps = steps.wrapping_add(1);
        let bytes = fs::metadata(&path).map_or(0, |about| about.len());
        let is_kept = steps.is_multiple_of(STEPS_KEPT);
        if let Err(error) = store.scrub(share(bytes, days), is_kept, &mut pass).await {
            tracing::error!(%error, "the store could not be read through");
        }
    }
}

/// Bytes of a step in a store of so many.
fn share(bytes: u64, days: u32) -> u64 {
    bytes.div_ceil(u64::from(days.max(1)) * STEPS_A_DAY).max(BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    #[test]
    fn a_pass_takes_the_days_that_are_set_and_no_longer() {
        let minutes = |days: u64| days * 24 * 60;
        for bytes in [0, 1, 10_079, 5_000_000_000, 64_000_000_000, u64::MAX / 2] {
            for days in [1, 7, 365] {
                let read = share(bytes, days).saturating_mul(minutes(u64::from(days)));
                assert!(read >= bytes, "{bytes} bytes in {days} days: {read}");
            }
        }
        // A card is not read faster than it has to be: a store of 20 GB takes the whole week.
        let week = share(20_000_000_000, 7);
        assert!(week * minutes(7) < 20_100_000_000, "{week} bytes a minute");
        // A small one is through sooner, at a rate that nobody notices.
        assert_eq!(share(1_000_000, 7), 65_536);
    }

    /// It begins by itself, and goes on until all has been read.
    #[tokio::test(start_paused = true)]
    async fn the_pass_comes_to_its_end_by_itself() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("store.redb");
        let options =
            StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100, audit_keep_rows: 100, clock: || 1 };
        let store = Store::open(&path, options).expect("a store");
        let before = store.read().and_then(|snapshot| snapshot.scrubbed()).expect("a pass");
        assert_eq!(before.completed_ms, None);
        let pass = tokio::spawn(scrub(store.clone(), path, 7));
        for _ in 0..20_000 {
            tokio::time::sleep(STEP).await;
            // Its clock stands still meanwhile, and the store's writer goes on.
            std::thread::sleep(Duration::from_millis(2));
            let now = store.read().and_then(|snapshot| snapshot.scrubbed()).expect("a pass");
            if now.completed_ms.is_some() {
                pass.abort();
                return;
            }
        }
        panic!("two weeks, and no end of it");
    }
}
