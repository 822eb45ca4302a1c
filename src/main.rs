//! The program: arguments to a command.

fn main() -> std::process::ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    thalamus_edge::cli::run()
}
