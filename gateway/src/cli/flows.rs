//! `flows list|tail|top|explain|verify|export|pseudonym|kill`: what was recorded, and what is live.

mod explain;
mod export;
mod kill;
mod list;
mod pseudonym;
mod select;
mod sentence;
mod tail;
mod top;
mod verify;

use super::output::{self, Output};
use super::{Failure, Where};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List live flows; with a time, a verdict, a state, --limit or --all: recorded attempts.
    List(list::List),
    /// Follow records as they are written, until interrupted.
    Tail(tail::Tail),
    /// Say who did most of it.
    Top(top::Top),
    /// Say why an attempt was allowed or refused, by what its record rests on.
    Explain(explain::Explain),
    /// Check that no record is missing or changed.
    Verify(verify::Verify),
    /// Copy the records of a time, with what proves that they are all.
    Export(export::Export),
    /// Say what records call somebody whose name they do not keep.
    Pseudonym(pseudonym::Pseudonym),
    /// Cut live flows on both sides.
    Kill(kill::Kill),
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        match self {
            Verb::List(verb) => verb.obey().await,
            Verb::Tail(verb) => verb.obey().await,
            Verb::Top(verb) => verb.obey(),
            Verb::Explain(verb) => verb.obey().await,
            Verb::Verify(verb) => verb.obey(),
            Verb::Export(verb) => verb.obey(),
            Verb::Pseudonym(verb) => verb.obey(),
            Verb::Kill(verb) => verb.obey().await,
        }
    }
}
