//! Records on disk: segments of JSON lines, a hash chain through all of them, and what reads them.
//!
//! ```text
//! stage -> commit -> sync      one writer, the only one that knows the head
//!            |         |
//!         segments   exporters read up to here, each with its own cursor
//! ```
//!
//! A spool is a folder of `NNNNNNNNNNNNNNNNNNNN.jsonl` files. Each line ends in its number, the
//! SHA-256 of the line before it and a checksum, so whoever has a copy can check it: with
//! [`verify`], or with thirty lines of any language.
#![forbid(unsafe_code)]

pub mod cursor;
pub mod index;
pub mod line;
pub mod proof;
pub mod query;
pub mod reader;
pub mod segment;
pub mod spool;
pub mod storage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod verify;

mod blocks;
#[cfg(test)]
mod scratch;

pub use cursor::{Cursor, CursorError, Standing};
pub use index::Index;
pub use line::{Hash, Head, Line, LineFault, MAX_LINE};
pub use reader::{Lines, ReadError, Reader};
pub use segment::{SegmentFile, segments};
pub use spool::{Recovered, Removed, Settings, Size, Spool, SpoolError, Unfit, Why};
pub use storage::{Disk, ReadAt, Storage, StorageFile};
