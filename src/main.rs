//! The program: arguments to a command.

fn main() -> std::process::ExitCode {
    thalamus_edge::cli::run()
}
