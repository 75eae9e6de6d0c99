//! Where the browser comes back to: one request to 127.0.0.1, which only this login's `state` may
//! end (RFC 8252, section 7.3).

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// A browser that connects and says nothing is sent away.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest request that is read, bytes.
const MAX_REQUEST: usize = 16 << 10;

/// What the browser brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Callback {
    pub(super) code: Option<String>,
    pub(super) state: Option<String>,
    pub(super) iss: Option<String>,
    pub(super) error: Option<String>,
    pub(super) error_description: Option<String>,
}

/// The listener, before the browser is sent away.
pub(super) struct Loopback(TcpListener);

impl Loopback {
    /// On any free port of 127.0.0.1.
    pub(super) fn bind() -> io::Result<Loopback> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(Loopback)
    }

    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.0.local_addr()?.port())
    }

    /// Waits for the browser with this `state`. `None`: it did not come in time. A request with
    /// another state is refused and ends nothing: anybody on this computer can make one.
    pub(super) fn wait(self, state: &str, patience: Duration) -> io::Result<Option<Callback>> {
        let callbacks = accept(self.0)?;
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match callbacks.recv_timeout(left) {
                Ok((callback, stream)) => {
                    let ours = callback.state.as_deref() == Some(state);
                    answer(&stream, ours);
                    if ours {
                        return Ok(Some(callback));
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}

/// A thread that ends with the program: a login is the last thing that it does.
fn accept(listener: TcpListener) -> io::Result<Receiver<(Callback, TcpStream)>> {
    let (sender, callbacks) = sync_channel(1);
    std::thread::Builder::new()
        .name("loopback".to_owned())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                match request(&stream) {
                    Some(callback) => {
                        if sender.send((callback, stream)).is_err() {
                            return;
                        }
                    }
                    None => refuse(&stream),
                }
            }
        })?;
    Ok(callbacks)
}

fn request(mut stream: &TcpStream) -> Option<Callback> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let end = Instant::now() + PATIENCE;
    let (mut read, mut part) = (Vec::new(), [0; 2048]);
    while !read.windows(4).any(|four| four == b"\r\n\r\n") {
        let len = stream.read(&mut part).ok()?;
        read.extend_from_slice(part.get(..len)?);
        if len == 0 || read.len() > MAX_REQUEST || Instant::now() > end {
            return None;
        }
    }
    let text = String::from_utf8(read).ok()?;
    parse(text.lines().next()?)
}

fn parse(line: &str) -> Option<Callback> {
    let target = line.strip_prefix("GET ")?.split(' ').next()?;
    let query = target.strip_prefix("/callback?")?;
    let mut callback = Callback::default();
    for (name, value) in fields(query) {
        let place = match name.as_str() {
            "code" => &mut callback.code,
            "state" => &mut callback.state,
            "iss" => &mut callback.iss,
            "error" => &mut callback.error,
            "error_description" => &mut callback.error_description,
            _ => continue,
        };
        // Twice is one too many: whose is it?
        if place.replace(value).is_some() {
            return None;
        }
    }
    Some(callback)
}

/// One field of the query of `url`.
pub(super) fn query_field(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let query = query.split('#').next()?;
    fields(query)
        .find(|(field, _)| field == name)
        .map(|(_, value)| value)
}

/// application/x-www-form-urlencoded.
fn fields(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter_map(|field| {
        let (name, value) = field.split_once('=')?;
        Some((decoded(name)?, decoded(value)?))
    })
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn answer(stream: &TcpStream, ours: bool) {
    if ours {
        page(
            stream,
            "200 OK",
            "The browser is done. How the login ended, your terminal says. You may close this window.",
        );
    } else {
        page(stream, "403 Forbidden", "This login was not begun here.");
    }
}

fn refuse(stream: &TcpStream) {
    page(stream, "404 Not Found", "There is nothing here.");
}

fn page(mut stream: &TcpStream, status: &str, words: &str) {
    let body = format!("<!doctype html><title>Postern</title><p>{words}</p>\n");
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A browser that is gone has what it needs.
    let _ = stream.write_all((head + &body).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_read_and_anything_else_is_not() {
        let of = |line: &str| parse(line);
        let callback = of("GET /callback?code=a%2Fb+c&state=s&iss=https%3A%2F%2Fidp HTTP/1.1");
        let callback = callback.expect("a callback");
        assert_eq!(callback.code.as_deref(), Some("a/b c"));
        assert_eq!(callback.iss.as_deref(), Some("https://idp"));
        for bad in [
            "POST /callback?code=a&state=s HTTP/1.1",
            "GET /favicon.ico HTTP/1.1",
            "GET /callback?code=a&code=b&state=s HTTP/1.1",
            "",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
        let url = "https://idp/auth?client_id=x&state=a%2Bb&nonce=n#f";
        assert_eq!(query_field(url, "state").as_deref(), Some("a+b"));
        assert_eq!(query_field(url, "none"), None);
    }

    #[test]
    fn only_the_browser_with_the_right_state_ends_the_wait() {
        let loopback = Loopback::bind().expect("a port");
        let port = loopback.port().expect("a port");
        let ask = move |path: &str| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("listening");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("answered");
            text
        };
        let browser = std::thread::spawn(move || {
            [
                "/",
                "/callback?code=evil&state=other",
                "/callback?code=good&state=mine",
            ]
            .map(ask)
        });
        let callback = loopback
            .wait("mine", Duration::from_secs(20))
            .expect("no error")
            .expect("it came");
        assert_eq!(callback.code.as_deref(), Some("good"));
        let [nothing, other, mine] = browser.join().expect("done");
        assert!(nothing.starts_with("HTTP/1.1 404"), "{nothing}");
        assert!(other.starts_with("HTTP/1.1 403"), "{other}");
        assert!(
            mine.starts_with("HTTP/1.1 200") && !mine.contains("good"),
            "{mine}"
        );
    }
}
