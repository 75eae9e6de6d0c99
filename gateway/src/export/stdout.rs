//! Standard output: whoever started the gateway carries the lines on.

use super::batch::Lines;
use super::driver::{Failure, Sink, Taken};
use std::io::Write;

/// A slow reader holds up its own thread only.
#[derive(Default)]
pub(super) struct Stdout {
    /// Bytes of the next lines that are out already: after a failure, none goes out twice.
    done: usize,
}

impl Sink for Stdout {
    fn send(&mut self, lines: Lines<'_>) -> Result<Taken, Failure> {
        let bytes = lines.bytes();
        let mut out = std::io::stdout().lock();
        let mut write = || {
            while self.done < bytes.len() {
                match out.write(&bytes[self.done..])? {
                    0 => return Err(std::io::ErrorKind::WriteZero.into()),
                    written => self.done += written,
                }
            }
            out.flush()
        };
        match write() {
            Ok(()) => {
                self.done = 0;
                Ok(Taken::default())
            }
            Err(error) => Err(Failure::Retry {
                after: None,
                error: format!("standard output: {error}"),
            }),
        }
    }
}
