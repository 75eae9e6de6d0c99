//! `postern-gateway`: one binary for the host that replaces the bastion.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    postern_gateway::cli::main()
}
