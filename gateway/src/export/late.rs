//! A sink that is made when it can be. A secret or a folder that cannot be read stops one exporter,
//! and not the gateway: at its next start as little as while it runs.

use super::batch::Lines;
use super::driver::{Failure, Sink, Taken};
use std::io;

/// Made with the first lines, and tried again with them until it succeeds.
pub(super) struct Late<F, S> {
    make: F,
    sink: Option<S>,
}

impl<S: Sink, F: FnMut() -> io::Result<S> + Send> Late<F, S> {
    pub(super) fn new(make: F) -> Self {
        Late { make, sink: None }
    }
}

impl<S: Sink, F: FnMut() -> io::Result<S> + Send> Sink for Late<F, S> {
    fn send(&mut self, lines: Lines<'_>) -> Result<Taken, Failure> {
        let sink = match &mut self.sink {
            Some(sink) => sink,
            none => {
                let made = (self.make)().map_err(|error| Failure::Retry {
                    after: None,
                    error: error.to_string(),
                })?;
                none.insert(made)
            }
        };
        sink.send(lines)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.sink.as_mut().map_or(Ok(()), Sink::settle)
    }
}
