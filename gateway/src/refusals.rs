//! Refused tries in the log: a few a minute have a line of their own, the others are counted, so
//! that nobody fills it.

use postern_proto::now::Mono;
use std::collections::HashMap;
use std::time::Duration;

/// Refused tries of one asker that have a line of their own, within [`WINDOW`].
const TOLD: u64 = 5;

/// The others are counted, and told at its end.
const WINDOW: Duration = Duration::from_secs(60);

/// Refused tries of the invitations or devices that the gateway knows; bounded by their number.
#[derive(Debug, Default)]
pub(crate) struct Refusals(HashMap<String, Window>);

#[derive(Debug)]
struct Window {
    since: Mono,
    tries: u64,
}

impl Refusals {
    /// Counts a refused try; whether it has a line of its own.
    pub(crate) fn try_by(&mut self, asker: &str, now: Mono) -> bool {
        let window = self.0.entry(asker.to_owned()).or_insert(Window {
            since: now,
            tries: 0,
        });
        window.tries += 1;
        window.tries <= TOLD
    }

    /// Windows that are over, with what was not told of them.
    pub(crate) fn counted(&mut self, now: Mono) -> Vec<(String, u64)> {
        let mut counted = Vec::new();
        self.0.retain(|asker, window| {
            if now.since(window.since) < WINDOW {
                return true;
            }
            if window.tries > TOLD {
                counted.push((asker.clone(), window.tries - TOLD));
            }
            false
        });
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refused_tries_is_a_few_lines_and_a_number() {
        let mut refusals = Refusals::default();
        let start = Mono(5);
        let told = (0..1000).filter(|_| refusals.try_by("a", start)).count();
        assert_eq!(told as u64, TOLD);
        assert!(refusals.try_by("b", start), "another one is not to blame");
        assert_eq!(refusals.counted(start), []);
        let later = start + WINDOW;
        assert_eq!(refusals.counted(later), [("a".to_owned(), 995)]);
        assert!(refusals.0.is_empty(), "nothing is left of it");
        assert!(refusals.try_by("a", later));
    }
}
