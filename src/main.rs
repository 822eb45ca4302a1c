//! The program: arguments to a command.

fn main() -> std::process::ExitCode {
    thalamus_edge::memory::start_with_settings();
    // Named places where tests end the process: `FAILPOINTS=push.sent=return`.
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    thalamus_edge::cli::run()
}
