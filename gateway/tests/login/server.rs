//! A server in another program, which says and is told lines.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Ends with the test, by its process id or because its stdin ends.
pub(crate) struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: Option<BufReader<ChildStdout>>,
    /// What it said first: where it is.
    pub(crate) at: String,
}

impl Server {
    pub(crate) fn start(
        program: impl AsRef<OsStr>,
        script: &str,
        arguments: &[&OsStr],
        variables: &[(&str, String)],
    ) -> Server {
        let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/login");
        let mut child = Command::new(program.as_ref())
            .arg(tests.join(script))
            .args(arguments)
            .envs(variables.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.as_ref().display()));
        let mut server = Server {
            stdin: child.stdin.take().expect("piped"),
            stdout: child.stdout.take().map(BufReader::new),
            child,
            at: String::new(),
        };
        let (stdout, line) = read(server.stdout.take().expect("there"));
        server.stdout = Some(stdout);
        server.at = line;
        server
    }

    /// Waits for a line, while everything else goes on.
    pub(crate) async fn line(&mut self) -> String {
        let stdout = self.stdout.take().expect("nobody else waits");
        let read = tokio::task::spawn_blocking(move || read(stdout));
        let (stdout, line) = read.await.expect("read");
        self.stdout = Some(stdout);
        line
    }

    /// Says a line and waits for the answer.
    pub(crate) async fn ask(&mut self, question: &serde_json::Value) -> serde_json::Value {
        writeln!(self.stdin, "{question}").expect("it listens");
        let answer = self.line().await;
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        assert!(answer.get("error").is_none(), "{answer:#}");
        answer
    }

    /// Ends it now.
    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read(mut stdout: BufReader<ChildStdout>) -> (BufReader<ChildStdout>, String) {
    let mut line = String::new();
    stdout.read_line(&mut line).expect("text");
    assert!(line.ends_with('\n'), "the server has ended");
    line.truncate(line.trim_end().len());
    (stdout, line)
}

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use `scripts/test login`"))
}
