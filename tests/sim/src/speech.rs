//! What the ends of a connection say first, as programs do, and what that shows to whoever
//! listens. Chosen by the connection's first sequence number, so both ends and the oracle agree.

use postern_engine::record::{App, Hints};
use std::sync::LazyLock;

/// The first words of one end.
#[derive(Debug, Default)]
pub struct Speech {
    /// As they are said.
    pub bytes: Vec<u8>,
    /// After so many bytes they have shown all that they show.
    pub shown_after: usize,
    /// What they show.
    pub shows: Option<Hints>,
}

/// What a TLS connection shows at the least, after so many bytes: record, version, ClientHello.
pub const TLS_SHOWN: usize = 6;

static CLIENTS: LazyLock<Vec<Speech>> = LazyLock::new(|| {
    vec![
        Speech::default(),
        ssh(b"", "SSH-2.0-OpenSSH_9.2p1 Debian-2", true),
        ssh(b"", "SSH-2.0-x", true),
        tls(Some("Kube.Example.com"), 200),
        tls(Some("a-post-quantum-hello.example"), 1400),
        tls(None, 60),
        http("GET /secret HTTP/1.1\r\nHost: kube\r\n\r\n"),
        other(b"EHLO laptop\r\n"),
    ]
});
static SERVERS: LazyLock<Vec<Speech>> = LazyLock::new(|| {
    vec![
        Speech::default(),
        ssh(b"", "SSH-2.0-dropbear_2022.83", false),
        ssh(
            b"Authorised use only.\r\nOf what?\r\n",
            "SSH-2.0-OpenSSH_9.6 Ubuntu",
            false,
        ),
        other(b"220 mail.example ESMTP\r\n"),
        other(b"\x16\x03\x03\x00\x7a\x02"),
    ]
});

/// The first words of a device whose first byte has this sequence number.
#[must_use]
pub fn client(first: u32) -> &'static Speech {
    pick(&CLIENTS, first)
}

/// The first words of a target.
#[must_use]
pub fn server(first: u32) -> &'static Speech {
    pick(&SERVERS, first)
}

/// What whoever speaks at once says next, after `said` bytes of its speech; `first` says how it
/// is cut.
#[must_use]
pub fn piece(speech: &[u8], said: usize, first: u32) -> Option<&[u8]> {
    let rest = speech.get(said..).filter(|rest| !rest.is_empty())?;
    let len = 25 + usize::try_from(first % 700).unwrap_or(0);
    (first & 32 != 0).then(|| &rest[..rest.len().min(len)])
}

fn pick(speeches: &'static [Speech], first: u32) -> &'static Speech {
    let count = u32::try_from(speeches.len()).unwrap_or(1);
    &speeches[usize::try_from((first >> 9) % count).unwrap_or(0)]
}

fn ssh(before: &[u8], name: &str, client: bool) -> Speech {
    let bytes = [before, name.as_bytes(), b"\r\n"].concat();
    let name: Option<Box<str>> = Some(name.into());
    let (ssh_client, ssh_server) = if client { (name, None) } else { (None, name) };
    Speech {
        shown_after: bytes.len(),
        bytes,
        shows: Some(Hints {
            app: App::Ssh,
            ssh_client,
            ssh_server,
            tls_sni: None,
        }),
    }
}

fn http(request: &str) -> Speech {
    Speech {
        bytes: request.into(),
        shown_after: request.find('\n').map_or(0, |end| end + 1),
        shows: Some(shown(App::Http, None)),
    }
}

/// A ClientHello that names a host behind `before` bytes of padding.
fn tls(host: Option<&str>, before: usize) -> Speech {
    let mut extensions = vec![0, 21];
    extensions.extend(sized(&vec![0; before]));
    if let Some(host) = host {
        let name = [&[0][..], &sized(host.as_bytes())].concat();
        extensions.extend([0, 0]);
        extensions.extend(sized(&sized(&name)));
    }
    let named = extensions.len();
    extensions.extend([0, 43, 0, 3, 2, 3, 4]);
    let start = [&[3, 3][..], &[0x5a; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    let body = [start.as_slice(), &sized(&extensions)].concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    let bytes = [&[22, 3, 1][..], &sized(&message)].concat();
    Speech {
        shown_after: bytes.len() - (extensions.len() - named),
        bytes,
        shows: Some(shown(App::Tls, host)),
    }
}

fn other(bytes: &[u8]) -> Speech {
    Speech {
        bytes: bytes.to_vec(),
        shown_after: bytes.len(),
        shows: None,
    }
}

/// What such a protocol shows, or such a protocol and host.
#[must_use]
pub fn shown(app: App, host: Option<&str>) -> Hints {
    Hints {
        app,
        ssh_client: None,
        ssh_server: None,
        tls_sni: host.map(|host| host.to_ascii_lowercase().into()),
    }
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes()[..], bytes].concat()
}
