//! Reading what was written: which records, in which order, and sums over them.
//!
//! It needs nothing but the folder: no running gateway, no configuration. Lines are found by
//! their bytes first and read as JSON only when they can matter, because a folder may hold tens of
//! millions of them.

mod fields;
mod filter;
mod needles;
mod prune;
mod rows;
mod scan;
mod time;
mod top;
mod words;

pub use fields::Fields;
pub use filter::{Filter, To};
pub use rows::{MAX_LIVE, Row, Rows, live, rows};
pub use scan::{Found, Report, Segments, Unreadable};
pub use time::{BadTime, moment};
pub use top::{MAX_KEYS, Sums, Top, TopRow, top};
pub use words::{BadWord, By, Kind, Of, State, Verdict};

#[cfg(test)]
mod tests;
