//! Many devices in a few seconds: over the admin socket, on one connection.

use crate::device::{MAX_DEVICES, key};
use crate::report::{self, Failure, Output};
use clap::Args;
use postern_proto::keys::PublicKey;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// The gateway answers within its own patience, which is shorter.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const MAX_ANSWER: u64 = 1 << 20;

/// Which devices.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// So many.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_DEVICES as i64))]
    count: u32,
    /// All keys come from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Names are this and the number.
    #[arg(long, default_value = "load")]
    prefix: String,
}

#[derive(Debug, Args)]
pub(crate) struct Enrol {
    #[command(flatten)]
    keys: Keys,
    /// The gateway's admin socket.
    #[arg(long, value_name = "FILE")]
    socket: PathBuf,
    /// Who uses them.
    #[arg(long, default_value = "load@example.com")]
    user: String,
    /// What policy sees. May be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Seeded {
    name: String,
    public_key: PublicKey,
}

impl Keys {
    fn devices(&self) -> impl Iterator<Item = Seeded> + '_ {
        (0..self.count).map(|number| Seeded {
            name: format!("{}-{number}", self.prefix),
            public_key: key(self.seed, number).public(),
        })
    }

    pub(crate) fn run(&self, output: Output) -> Result<(), Failure> {
        report::print(&self.devices().collect::<Vec<_>>(), output)
    }
}

impl Enrol {
    /// Prints one object a line: name, public key, addresses.
    pub(crate) fn run(&self, output: Output) -> Result<(), Failure> {
        let mut admin = Admin::connect(&self.socket)?;
        let mut added = Vec::new();
        for device in self.keys.devices() {
            let body = json!({
                "name": device.name,
                "user": self.user,
                "groups": self.groups,
                "public_key": device.public_key,
            });
            let answer = admin.post("/v1/devices", &body)?;
            added.push(json!({
                "name": device.name,
                "public_key": device.public_key,
                "addresses": answer["device"]["addresses"],
            }));
        }
        report::print(&added, output)
    }
}

/// One connection to the admin socket.
struct Admin {
    stream: BufReader<UnixStream>,
}

impl Admin {
    fn connect(socket: &PathBuf) -> Result<Admin, Failure> {
        let stream = UnixStream::connect(socket)
            .and_then(|stream| stream.set_read_timeout(Some(PATIENCE)).map(|()| stream))
            .map_err(Failure::io("connecting to the admin socket"))?;
        Ok(Admin {
            stream: BufReader::new(stream),
        })
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<Value, Failure> {
        let (status, answer) = self
            .exchange(path, &body.to_string())
            .map_err(Failure::io("talking to the gateway"))?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| {
            Failure::Other(format!("the gateway's answer does not read: {error}"))
        })?;
        if status == 200 {
            Ok(answer)
        } else {
            Err(Failure::Other(format!("the gateway refuses: {answer}")))
        }
    }

    /// As much of HTTP/1.1 as the admin API speaks: a length in front of every body.
    fn exchange(&mut self, path: &str, body: &str) -> std::io::Result<(u16, Vec<u8>)> {
        write!(
            self.stream.get_mut(),
            "POST {path} HTTP/1.1\r\nhost: postern-gateway\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest
                    .get(..3)
                    .and_then(|code| code.parse().ok())
                    .unwrap_or(0);
            } else if let Some(rest) = line.strip_prefix("content-length:") {
                length = rest.trim().parse().unwrap_or(0);
            } else if line.is_empty() {
                break;
            }
        }
        let mut answer = Vec::new();
        let stream = self.stream.by_ref();
        stream
            .take(length.min(MAX_ANSWER))
            .read_to_end(&mut answer)?;
        Ok((status, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_api_is_spoken_on_one_connection() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let gateway = std::thread::spawn(move || {
            let mut stream = BufReader::new(theirs);
            for answer in [r#"{"ok":1}"#, r#"{"error":"taken"}"#] {
                let (mut line, mut length) = (String::new(), 0);
                while line != "\r\n" {
                    line.clear();
                    stream.read_line(&mut line).expect("a line");
                    if let Some(text) = line.strip_prefix("content-length: ") {
                        length = text.trim().parse().expect("a number");
                    }
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).expect("the body");
                assert_eq!(body, br#"{"name":"a"}"#);
                let code = if answer.contains("ok") {
                    "200 OK"
                } else {
                    "409 Conflict"
                };
                let text = format!(
                    "HTTP/1.1 {code}\r\nContent-Length: {}\r\n\r\n{answer}",
                    answer.len()
                );
                stream
                    .get_mut()
                    .write_all(text.as_bytes())
                    .expect("written");
            }
        });
        let mut admin = Admin {
            stream: BufReader::new(ours),
        };
        let body = json!({"name": "a"});
        assert_eq!(
            admin.post("/v1/devices", &body).expect("good"),
            json!({"ok": 1})
        );
        let error = admin.post("/v1/devices", &body).expect_err("refused");
        assert!(error.to_string().contains("taken"), "{error}");
        gateway.join().expect("no assertion failed");
    }
}
