//! `postern`: the laptop's end.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    postern_client::cli::main()
}
