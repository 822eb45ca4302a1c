//! Floor 5. How far back the audit trail goes, how fast it grows, and whether there is room for what is kept.

use serde_json::Value;

use super::findings::Findings;
use crate::cli::control::Client;
use crate::config::Config;
use crate::domain::audit::Head;
use crate::store::free_bytes_at;

const ABOUT: &str = "audit trail";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The growth is told by the last so many entries.
const LATELY_ENTRIES: u64 = 10_000;
/// An entry with its indexes, roughly.
const ENTRY_BYTES: u64 = 300;
/// Where only the number of entries counts, they should last for so long.
const COVERED_DAYS_MIN: u64 = 90;
const WHO: &str = "thalamus-edge audit export shows who makes so many; close an account that should not \
                   (thalamus-edge user disable)";

/// What the configuration says to keep.
struct Kept {
    days: u64,
    rows: u64,
}

/// What the trail holds.
struct Extent {
    entries: u64,
    /// Whether older entries are gone.
    is_cut: bool,
    days: u64,
    per_day: u64,
}

pub(super) async fn look(
    found: &mut Findings,
    client: &Client,
    config: &Config,
    now_ms: i64,
) -> anyhow::Result<()> {
    match extent(client, now_ms).await? {
        Some(extent) => {
            let free_bytes = free_bytes_at(&config.data_dir)().ok();
            let kept = Kept { days: config.store.audit_keep_days.into(), rows: config.store.audit_keep_rows };
            judge(found, &extent, &kept, free_bytes);
        }
        None => found.ok(ABOUT, "empty"),
    }
    Ok(())
}

async fn extent(client: &Client, now_ms: i64) -> anyhow::Result<Option<Extent>> {
    let oldest = client.get("/audit?after=0&limit=1").await?.accepted()?;
    let newest = client.get("/audit?limit=1").await?.accepted()?;
    let (Some((first, first_ms)), Some((last, _))) = (entry(&oldest), entry(&newest)) else {
        return Ok(None);
    };
    let since = last.saturating_sub(LATELY_ENTRIES).max(first);
    let lately =
        client.get(&format!("/audit?after={}&limit=1", since.saturating_sub(1))).await?.accepted()?;
    let since_ms = entry(&lately).map_or(first_ms, |(_, at_ms)| at_ms);
    // Of a new node as if it were a day old.
    let passed_ms = u64::try_from(now_ms - since_ms).unwrap_or_default().max(DAY_MS.unsigned_abs());
    let per_day = (last - since + 1).saturating_mul(DAY_MS.unsigned_abs()) / passed_ms;
    let anchor = oldest["anchor"].as_str().and_then(|head| head.parse::<Head>().ok());
    let days = u64::try_from((now_ms - first_ms).div_euclid(DAY_MS)).unwrap_or_default();
    let is_cut = anchor.is_some_and(|anchor| anchor.seq > 0);
    Ok(Some(Extent { entries: last - first + 1, is_cut, days, per_day }))
}

/// Number and time of the first entry in an answer.
fn entry(answer: &Value) -> Option<(u64, i64)> {
    let entry = answer["entries"].get(0)?;
    Some((entry["seq"].as_u64()?, entry["at_ms"].as_i64()?))
}

fn judge(found: &mut Findings, extent: &Extent, kept: &Kept, free_bytes: Option<u64>) {
    let Extent { entries, is_cut, days, per_day } = *extent;
    let (keep_days, keep_rows) = (kept.days, kept.rows);
    let finding = format!("{entries} entries over {days} days, lately {per_day} a day");
    let room = per_day.saturating_mul(keep_days).saturating_mul(ENTRY_BYTES);
    let lasts_days = keep_rows.checked_div(per_day).unwrap_or(u64::MAX);
    if keep_days == 0 && lasts_days < COVERED_DAYS_MIN {
        let finding = format!("{finding}: at that rate an entry goes after {lasts_days} days");
        found.warning(
            ABOUT,
            finding,
            "[store] audit_keep_days keeps entries for a time, whatever their number",
        );
    } else if free_bytes.is_some_and(|free| room > free / 2) {
        let (room, free) = (room >> 20, free_bytes.unwrap_or_default() >> 20);
        let finding = format!(
            "{finding}: at that rate {keep_days} days ([store] audit_keep_days) take {room} MiB, and {free} MiB are free"
        );
        found.warning(ABOUT, finding, WHO);
    } else if is_cut && days < keep_days {
        let finding = format!("{finding}; older entries are gone, although {keep_days} days are to be kept");
        found.warning(
            ABOUT,
            finding,
            "nothing brings them back; from now on entries stay. What was exported is still there",
        );
    } else {
        let kept = match keep_days {
            0 => format!("the last {keep_rows} stay"),
            days => format!("each stays for {days} days at least"),
        };
        found.ok(ABOUT, format!("{finding}; {kept}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(extent: &Extent, days: u64, free_bytes: u64) -> String {
        let kept = Kept { days, rows: 1_000_000 };
        let mut found = Findings::default();
        judge(&mut found, extent, &kept, Some(free_bytes));
        found.lines()
    }

    #[test]
    fn a_trail_that_outgrows_the_disk_or_does_not_go_back_far_is_told() {
        let extent = |is_cut, days, per_day| Extent { entries: 50_000, is_cut, days, per_day };
        let calm = told(&extent(false, 100, 500), 400, 1 << 40);
        assert!(
            calm.starts_with("ok") && calm.contains("50000 entries over 100 days, lately 500 a day"),
            "{calm}"
        );
        assert!(calm.contains("400 days at least"), "{calm}");
        let fast = told(&extent(false, 1, 20_000_000), 400, 1 << 40);
        assert!(
            fast.contains("warning") && fast.contains("take 2288818 MiB, and 1048576 MiB are free"),
            "{fast}"
        );
        let cut = told(&extent(true, 30, 500), 400, 1 << 40);
        assert!(cut.contains("warning") && cut.contains("older entries are gone"), "{cut}");
        assert!(told(&extent(true, 500, 500), 400, 1 << 40).starts_with("ok"));
        let short = told(&extent(true, 3, 333_333), 0, 1 << 40);
        assert!(short.contains("warning") && short.contains("goes after 3 days"), "{short}");
        assert!(told(&extent(true, 3_000, 300), 0, 1 << 40).starts_with("ok"));
    }
}
