//! One line: a JSON object whose last three members chain it to the line before.
//!
//! `...,"n":41,"prev":"<64 hex>","crc":"<8 hex>"}`, in this order and spelling, without spaces.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt::{self, Display, Write as _};
use std::str::FromStr;

/// Longest line, its `\n` included.
pub const MAX_LINE: usize = 65_536;

/// Shortest line, its `\n` included: what sealing adds to an empty object.
pub const MIN_LINE: usize = 1 + "\"n\":1".len() + PREV_LEN + CRC_LEN + 1;

const N: &[u8] = b"\"n\":";
const PREV: &[u8] = b",\"prev\":\"";
const CRC: &[u8] = b",\"crc\":\"";
/// `,"prev":"` 64 digits `"`.
const PREV_LEN: usize = PREV.len() + 64 + 1;
/// `,"crc":"` 8 digits `"}`.
const CRC_LEN: usize = CRC.len() + 8 + 2;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// SHA-256 of a line without its `\n`. Reads and writes as 64 lower hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

/// A line by number and hash: who knows it knows all lines before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The line's number; 0 before the first one.
    pub n: u64,
    /// The line's hash; zeros before the first one.
    pub hash: Hash,
}

/// A whole line whose checksum was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number, from 1.
    pub n: u64,
    /// The hash of the line before; zeros for the first.
    pub prev: Hash,
    /// The line without its `\n`.
    pub bytes: &'a [u8],
}

/// Why some bytes are not a line of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// Begins like a line, without the end of one.
    #[error("a torn line: it does not end in \"n\", \"prev\" and \"crc\"")]
    Torn,
    /// Nothing like a line.
    #[error("not a line of a flow log")]
    NotALine,
    /// Complete, and its bytes are not those that were written.
    #[error("the checksum does not match: its bytes were changed")]
    Checksum,
}

impl Hash {
    /// What the first line has before it.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The hash of a line, given without its `\n`.
    #[must_use]
    pub fn of(line: &[u8]) -> Hash {
        Hash(Sha256::digest(line).into())
    }

    /// From 64 lower hex digits.
    fn from_hex(digits: &[u8]) -> Option<Hash> {
        let mut hash = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Hash(hash))
    }
}

impl<'a> Line<'a> {
    /// Reads a line, given without its `\n`, from its end, and checks its checksum. What the rest
    /// says is not looked at.
    ///
    /// # Errors
    /// It is not a line, or not the one that was written.
    pub fn parse(bytes: &'a [u8]) -> Result<Line<'a>, LineFault> {
        let line = Line::unchecked(bytes)?;
        if is_sound(bytes) {
            Ok(line)
        } else {
            Err(LineFault::Checksum)
        }
    }

    /// As [`Line::parse`], for bytes whose checksum is known to be right.
    pub(crate) fn unchecked(bytes: &'a [u8]) -> Result<Line<'a>, LineFault> {
        if bytes.first() != Some(&b'{') || bytes.len() >= MAX_LINE {
            return Err(LineFault::NotALine);
        }
        tail(bytes).ok_or(LineFault::Torn)
    }

    /// What the next line has as `prev`.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(self.bytes)
    }

    /// The line by number and hash.
    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            n: self.n,
            hash: self.hash(),
        }
    }
}

/// Writes `body`, an object `{...}` without `\n`, as line `n` after the line with the hash `prev`,
/// with its `\n`. Returns its hash.
pub fn seal(body: &[u8], n: u64, prev: Hash, into: &mut Vec<u8>) -> Hash {
    let begin = into.len();
    into.extend_from_slice(body.strip_suffix(b"}").unwrap_or(body));
    if into.len() > begin + 1 {
        into.push(b',');
    }
    into.extend_from_slice(N);
    write_number(n, into);
    into.extend_from_slice(PREV);
    into.extend(prev.0.iter().flat_map(hex));
    into.push(b'"');
    let mut crc = [0; 8];
    write_crc(crc32fast::hash(&into[begin..]), &mut crc);
    into.extend_from_slice(CRC);
    into.extend_from_slice(&crc);
    into.extend_from_slice(b"\"}");
    let hash = Hash::of(&into[begin..]);
    into.push(b'\n');
    hash
}

/// Whether a line, given without its `\n`, ends in the checksum of its bytes.
pub(crate) fn is_sound(bytes: &[u8]) -> bool {
    let split = bytes.len().checked_sub(CRC_LEN);
    let Some((sealed, crc)) = split.and_then(|at| bytes.split_at_checked(at)) else {
        return false;
    };
    let mut wanted = [0; 8];
    write_crc(crc32fast::hash(sealed), &mut wanted);
    crc.get(CRC.len()..CRC.len() + 8) == Some(&wanted)
}

/// Whether `body` is something that [`seal`] can make a line of.
pub(crate) fn is_body(body: &[u8]) -> bool {
    body.len() >= 2
        && body.starts_with(b"{")
        && body.ends_with(b"}")
        && memchr::memchr(b'\n', body).is_none()
}

/// How many bytes [`seal`] writes for a body of `body` bytes, at most.
pub(crate) fn sealed_len(body: usize) -> usize {
    body + 1 + N.len() + 20 + PREV_LEN + CRC_LEN
}

fn tail(bytes: &[u8]) -> Option<Line<'_>> {
    let (rest, crc) = bytes.split_at_checked(bytes.len().checked_sub(CRC_LEN)?)?;
    (crc.starts_with(CRC) && crc.ends_with(b"\"}")).then_some(())?;
    let (rest, prev) = rest.split_at_checked(rest.len().checked_sub(PREV_LEN)?)?;
    let prev = prev.strip_prefix(PREV)?.strip_suffix(b"\"")?;
    let digits = rest.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (rest, number) = rest.split_at(rest.len() - digits);
    let before = rest.strip_suffix(N)?.last()?;
    (matches!(before, b',' | b'{') && number.first() != Some(&b'0')).then_some(())?;
    Some(Line {
        n: std::str::from_utf8(number).ok()?.parse().ok()?,
        prev: Hash::from_hex(prev)?,
        bytes,
    })
}

fn write_number(mut n: u64, into: &mut Vec<u8>) {
    let begin = into.len();
    loop {
        into.push(b'0' + u8::try_from(n % 10).unwrap_or(0));
        n /= 10;
        if n == 0 {
            break;
        }
    }
    into[begin..].reverse();
}

fn write_crc(crc: u32, into: &mut [u8; 8]) {
    for (pair, byte) in into.chunks_exact_mut(2).zip(crc.to_be_bytes()) {
        pair.copy_from_slice(&hex(&byte));
    }
}

fn hex(byte: &u8) -> [u8; 2] {
    [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .flat_map(hex)
            .try_for_each(|digit| f.write_char(char::from(digit)))
    }
}

/// Not 64 lower hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash has 64 hex digits, in lower case")]
pub struct NotAHash;

impl FromStr for Hash {
    type Err = NotAHash;
    fn from_str(text: &str) -> Result<Hash, NotAHash> {
        Hash::from_hex(text.as_bytes()).ok_or(NotAHash)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Hash, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(body: &str, n: u64, prev: Hash) -> (Vec<u8>, Hash) {
        let mut line = Vec::new();
        let hash = seal(body.as_bytes(), n, prev, &mut line);
        assert_eq!(line.pop(), Some(b'\n'));
        (line, hash)
    }

    #[test]
    fn a_line_is_what_the_format_says() {
        let (line, _) = sealed(r#"{"kind":"log"}"#, 41, Hash::ZERO);
        let zeros = "0".repeat(64);
        let before = format!(r#"{{"kind":"log","n":41,"prev":"{zeros}""#);
        let crc = crc32fast::hash(before.as_bytes());
        assert_eq!(
            String::from_utf8(line).unwrap(),
            format!(r#"{before},"crc":"{crc:08x}"}}"#)
        );
        let (empty, _) = sealed("{}", 1, Hash::ZERO);
        assert_eq!(empty.len() + 1, MIN_LINE);
        assert_eq!(Line::parse(&empty).unwrap().n, 1);
    }

    #[test]
    fn faults_are_told_apart() {
        let (line, _) = sealed(r#"{"a":1}"#, 7, Hash::ZERO);
        for end in 1..line.len() {
            assert_eq!(Line::parse(&line[..end]), Err(LineFault::Torn), "{end}");
        }
        assert_eq!(Line::parse(b""), Err(LineFault::NotALine));
        assert_eq!(Line::parse(&[0; 4096]), Err(LineFault::NotALine));
        let mut changed = line.clone();
        changed[5] = b'2';
        assert_eq!(Line::parse(&changed), Err(LineFault::Checksum));
        let upper = String::from_utf8(line).unwrap().replace(":7,", ":07,");
        assert_eq!(Line::parse(upper.as_bytes()), Err(LineFault::Torn));
    }

    proptest! {
        #[test]
        fn what_is_sealed_reads_back(text in "[^\\n]{0,200}", n in 1_u64.., prev: [u8; 32]) {
            let body = serde_json::json!({ "text": text }).to_string();
            let (line, hash) = sealed(&body, n, Hash(prev));
            let read = Line::parse(&line).unwrap();
            prop_assert_eq!((read.n, read.prev, read.hash()), (n, Hash(prev), hash));
            prop_assert!(line.len() < sealed_len(body.len()) + 1);
            let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(json["text"].as_str(), Some(text.as_str()));
            prop_assert_eq!(json["prev"].as_str().unwrap().parse::<Hash>(), Ok(Hash(prev)));
        }

        #[test]
        fn any_flipped_bit_is_found(at: prop::sample::Index, bit in 0..8_u32) {
            let (mut line, _) = sealed(r#"{"user":"ana@example.com"}"#, 12, Hash([7; 32]));
            let at = at.index(line.len());
            line[at] ^= 1_u8 << bit;
            prop_assert!(Line::parse(&line).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_no_line(bytes: Vec<u8>) {
            prop_assert!(Line::parse(&bytes).is_err());
        }
    }
}
