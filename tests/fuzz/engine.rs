//! The fuzz targets under libFuzzer. `THALAMUS_EDGE_FUZZ_TARGET` names the one to run; see `tests/fuzz/run`.

#![no_main]

use std::sync::LazyLock;

mod targets;

static TARGET: LazyLock<targets::Feed> = LazyLock::new(|| {
    let wanted = std::env::var("THALAMUS_EDGE_FUZZ_TARGET").unwrap_or_default();
    let names = targets::TARGETS.map(|(name, _)| name).join(", ");
    let found = targets::TARGETS.into_iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("THALAMUS_EDGE_FUZZ_TARGET must be one of {names}")).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
