//! `postern`: the laptop's end.

fn main() -> std::process::ExitCode {
    postern_client::cli::main()
}
