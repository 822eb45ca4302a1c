//! The program: arguments to a command.

/// A request makes some hundred small allocations on one thread and frees them on another, which the C library's
/// allocator is slow at: see docs/BENCHMARKS.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // Named places where tests end the process: `FAILPOINTS=push.sent=return`.
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    thalamus_edge::cli::run()
}
