//! The first bytes of either end, read from left to right: an answer other than
//! [`Told::Unsure`] stands, whatever comes after. So it does not matter how they were cut.

use super::tls;

/// What one end said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    /// Not enough yet.
    #[default]
    Unsure,
    /// Nothing that is known here.
    Other,
    /// An HTTP/1 request line.
    Http,
    /// Its SSH identification string.
    Ssh(Box<str>),
    /// A ClientHello, and the host that it asks for.
    Tls(Option<Box<str>>),
}

/// An identification string with its CR LF (RFC 4253, section 4.2).
const IDENTIFICATION: usize = 255;
const METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];

/// The first bytes of the device.
pub(super) fn client(heard: &[u8]) -> Told {
    match heard.first() {
        None => Told::Unsure,
        Some(&tls::HANDSHAKE) => tls::hello(heard),
        Some(b'S') => identification(heard),
        Some(_) => http(heard),
    }
}

/// The first bytes of the target. An SSH server may send lines of text before it says who it is.
pub(super) fn server(heard: &[u8]) -> Told {
    let mut rest = heard;
    loop {
        if begins(rest, b"SSH-") {
            return identification(rest);
        }
        let (line, after) = line(rest);
        if line
            .iter()
            .any(|byte| *byte < b' ' && !b"\t\r\x1b".contains(byte))
        {
            return Told::Other;
        }
        match after {
            Some(after) => rest = after,
            None => return Told::Unsure,
        }
    }
}

/// `SSH-protoversion-softwareversion SP comments CR LF`; some end it with LF alone.
fn identification(heard: &[u8]) -> Told {
    if !begins(heard, b"SSH-") {
        return Told::Other;
    }
    let (line, after) = line(super::clip(heard, IDENTIFICATION));
    if after.is_none() {
        return match heard.len() {
            0..IDENTIFICATION => Told::Unsure,
            _ => Told::Other,
        };
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parts = line.splitn(3, |byte| *byte == b'-').skip(1);
    let version = parts.next().unwrap_or_default();
    let numbers = version
        .iter()
        .all(|byte| byte.is_ascii_digit() || *byte == b'.');
    let software = parts.next().is_some_and(|rest| !rest.is_empty());
    // Where LF alone ends it, it is not longer either.
    let short = line.len() <= IDENTIFICATION - 2;
    if version.is_empty() || !numbers || !software || !short {
        return Told::Other;
    }
    let printable = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '?',
    };
    Told::Ssh(line.iter().map(printable).collect())
}

/// `METHOD SP target SP HTTP/1.x` (RFC 9112, section 3). Nothing of it is kept.
fn http(heard: &[u8]) -> Told {
    let (line, after) = line(heard);
    let line = match after {
        Some(_) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    };
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let known = match words.clone().next() {
        Some(_) => METHODS.contains(&method),
        None => METHODS.iter().any(|known| known.starts_with(method)),
    };
    if !known || line.iter().any(|byte| *byte < b' ' && *byte != b'\r') {
        return Told::Other;
    }
    if after.is_none() {
        return Told::Unsure;
    }
    match (words.next(), words.next(), words.next()) {
        (Some(target), Some(version), None)
            if !target.is_empty() && version.starts_with(b"HTTP/1.") =>
        {
            Told::Http
        }
        _ => Told::Other,
    }
}

/// The first line without its LF, and what follows it; nothing if it has not ended.
fn line(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], bytes.get(end + 1..)),
        None => (bytes, None),
    }
}

/// `bytes` begins with `start`, or may do so once there are more of them.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let both = bytes.len().min(start.len());
    bytes[..both] == start[..both]
}
