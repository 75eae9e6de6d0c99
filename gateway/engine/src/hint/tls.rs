//! The host name of a TLS ClientHello (RFC 8446, section 4.1.2; RFC 6066, section 3).
//!
//! Read as far as the name and no further. With Encrypted Client Hello it is the outer name.

use super::read::Told;
use std::borrow::Cow;
use std::str;

/// The type of a record with handshake messages: the first byte of a connection.
pub(super) const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Of a plaintext record (RFC 8446, section 5.1).
const MOST_IN_RECORD: usize = 1 << 14;

/// A connection that begins with `heard`.
pub(super) fn hello(heard: &[u8]) -> Told {
    let (message, broken) = messages(heard);
    match host_name(&message) {
        Ok(name) => Told::Tls(name),
        Err(Stop::Short) if !broken => Told::Unsure,
        Err(Stop::Short | Stop::Broken) => Told::Other,
    }
}

/// These are the first bytes of a ClientHello, however it goes on.
pub(super) fn begins(heard: &[u8]) -> bool {
    matches!(heard, [HANDSHAKE, 3, 0..=4, _, _, CLIENT_HELLO, ..])
}

/// The handshake messages in the records of `heard`, and whether something else follows them.
fn messages(heard: &[u8]) -> (Cow<'_, [u8]>, bool) {
    let (mut messages, mut rest) = (Cow::Borrowed(&[][..]), heard);
    while let Some((header, body)) = rest.split_at_checked(5) {
        let len = usize::from(header[3]) << 8 | usize::from(header[4]);
        let good = matches!(header, [HANDSHAKE, 3, 0..=4, ..]);
        if !good || !(1..=MOST_IN_RECORD).contains(&len) {
            return (messages, true);
        }
        let body = super::clip(body, len);
        if messages.is_empty() {
            messages = Cow::Borrowed(body);
        } else {
            messages.to_mut().extend_from_slice(body);
        }
        rest = rest.get(5 + len..).unwrap_or_default();
    }
    // A header of which a part is here.
    let bad = rest.first().is_some_and(|kind| *kind != HANDSHAKE)
        || rest.get(1).is_some_and(|major| *major != 3)
        || rest.get(2).is_some_and(|minor| *minor > 4);
    (messages, bad)
}

enum Stop {
    /// More bytes are needed.
    Short,
    /// It is no ClientHello.
    Broken,
}

fn host_name(message: &[u8]) -> Result<Option<Box<str>>, Stop> {
    let mut message = Cursor {
        here: message,
        left: usize::MAX,
    };
    if message.number(1)? != usize::from(CLIENT_HELLO) {
        return Err(Stop::Broken);
    }
    let mut hello = message.part(3)?;
    if hello.number(1)? != 3 {
        return Err(Stop::Broken);
    }
    hello.skip(1 + 32)?;
    let session = hello.part(1)?;
    let suites = hello.part(2)?;
    let compression = hello.part(1)?;
    if session.left > 32 || suites.left < 2 || suites.left % 2 != 0 || compression.left == 0 {
        return Err(Stop::Broken);
    }
    if hello.left == 0 {
        return Ok(None);
    }
    let mut extensions = hello.part(2)?;
    if hello.left != 0 {
        return Err(Stop::Broken);
    }
    while extensions.left > 0 {
        let kind = extensions.number(2)?;
        let mut extension = extensions.part(2)?;
        if kind != usize::from(SERVER_NAME) {
            continue;
        }
        let mut names = extension.part(2)?;
        while names.left > 0 {
            let kind = names.number(1)?;
            let name = names.part(2)?;
            if kind == usize::from(HOST_NAME) {
                return name.whole().map(dns_name);
            }
        }
        return Ok(None);
    }
    Ok(None)
}

/// `name` in lower case if it is one of the DNS (RFC 1123, section 2.1; with the underscores that
/// are in use). An address is none, and is no server name either.
fn dns_name(name: &[u8]) -> Option<Box<str>> {
    let name = str::from_utf8(name).ok().filter(|name| name.len() <= 253)?;
    let label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=63).contains(&label.len())
            && label.bytes().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit());
    (name.split('.').all(label) && !number).then(|| name.to_ascii_lowercase().into())
}

/// Fields of a structure that says how long it is, of which the beginning is here.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    here: &'a [u8],
    /// Bytes to its end, here or not.
    left: usize,
}

impl<'a> Cursor<'a> {
    /// A number of `bytes` bytes.
    fn number(&mut self, bytes: usize) -> Result<usize, Stop> {
        let part = Cursor {
            here: super::clip(self.here, bytes),
            left: bytes,
        };
        self.skip(bytes)?;
        Ok(part
            .whole()?
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// A part that begins with its own length, a number of `bytes` bytes.
    fn part(&mut self, bytes: usize) -> Result<Cursor<'a>, Stop> {
        let len = self.number(bytes)?;
        let part = Cursor {
            here: super::clip(self.here, len),
            left: len,
        };
        self.skip(len)?;
        Ok(part)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Stop> {
        self.left = self.left.checked_sub(bytes).ok_or(Stop::Broken)?;
        self.here = self.here.get(bytes..).unwrap_or_default();
        Ok(())
    }

    fn whole(self) -> Result<&'a [u8], Stop> {
        if self.here.len() < self.left {
            return Err(Stop::Short);
        }
        Ok(self.here)
    }
}
