use super::*;
use proptest::prelude::*;

// What real programs sent to a listener on loopback.
const OPENSSL: &[u8] = include_bytes!("heard/openssl-3.0.hello");
const OPENSSL_TLS12: &[u8] = include_bytes!("heard/openssl-tls12.hello");
const WITHOUT_NAME: &[u8] = include_bytes!("heard/openssl-nosni.hello");
const CURL: &[u8] = include_bytes!("heard/curl.hello");
const PYTHON: &[u8] = include_bytes!("heard/python.hello");
/// With a post-quantum key share.
const KUBECTL: &[u8] = include_bytes!("heard/kubectl.hello");
const KUBECTL_TO_ADDRESS: &[u8] = include_bytes!("heard/kubectl-ip.hello");
const OPENSSH: &[u8] = include_bytes!("heard/openssh.client");
const SERVER: &[u8] = b"Authorised use only.\r\n\r\nSSH-2.0-OpenSSH_9.6 Ubuntu\r\n\x00\x00\x04\x1c";

/// Sequence numbers wrap between the first bytes.
const OUT: u32 = u32::MAX - 20;
const BACK: u32 = u32::MAX - 3;

fn segment(sequence: u32, flags: u8) -> Tcp {
    Tcp {
        source_port: 40_000,
        destination_port: 22,
        sequence,
        acknowledgment: 1,
        flags: TcpFlags(flags),
        payload: 0,
    }
}

/// A flow whose handshake is complete.
fn open(watches: &mut Watches) -> Hint {
    let syn = segment(OUT, 2);
    let mut hint = Hint::opened_by(&syn);
    watches.device_sent(&mut hint, &syn, &[]);
    watches.target_sent(&mut hint, &segment(BACK, 18), &[]);
    watches.device_sent(&mut hint, &segment(OUT.wrapping_add(1), 16), &[]);
    hint
}

/// The bytes of one end from `from` to `to`.
#[derive(Clone, Copy, Debug)]
struct Piece(End, usize, usize);

fn say(watches: &mut Watches, hint: &mut Hint, said: (&[u8], &[u8]), piece: Piece) {
    let Piece(end, from, to) = piece;
    let start = u32::try_from(from).expect("short");
    let payload = |bytes: &[u8]| bytes[from..to].to_vec();
    match end {
        End::Device => {
            let tcp = segment(OUT.wrapping_add(1).wrapping_add(start), 24);
            watches.device_sent(hint, &tcp, &payload(said.0));
        }
        End::Target => {
            let tcp = segment(BACK.wrapping_add(1).wrapping_add(start), 24);
            watches.target_sent(hint, &tcp, &payload(said.1));
        }
    }
}

fn heard(client: &[u8], server: &[u8], pieces: &[Piece]) -> Option<Hints> {
    let mut watches = Watches::default();
    let mut hint = open(&mut watches);
    for piece in pieces {
        say(&mut watches, &mut hint, (client, server), *piece);
    }
    let hints = watches.take(&mut hint);
    assert!(watches.is_empty(), "a watch outlives its flow");
    hints.map(|hints| *hints)
}

fn whole(client: &[u8], server: &[u8]) -> Option<Hints> {
    let pieces = [
        Piece(End::Target, 0, server.len()),
        Piece(End::Device, 0, client.len()),
    ];
    heard(client, server, &pieces)
}

fn tls(name: Option<&str>) -> Option<Hints> {
    Some(Hints {
        app: App::Tls,
        ssh_client: None,
        ssh_server: None,
        tls_sni: name.map(Into::into),
    })
}

fn of_ssh(client: Option<&str>, server: Option<&str>) -> Option<Hints> {
    Some(Hints {
        app: App::Ssh,
        ssh_client: client.map(Into::into),
        ssh_server: server.map(Into::into),
        tls_sni: None,
    })
}

#[test]
fn real_clients_name_their_hosts() {
    for (hello, name) in [
        (OPENSSL, Some("api.cluster.example")),
        (OPENSSL_TLS12, Some("old.example.org")),
        (CURL, Some("kube.example.com")),
        (PYTHON, Some("registry.example.net")),
        (KUBECTL, Some("localhost")),
        (KUBECTL_TO_ADDRESS, None),
        (WITHOUT_NAME, None),
    ] {
        assert_eq!(whole(hello, b"\x16\x03\x03\x00\x7a"), tls(name));
    }
    let mut watches = Watches::default();
    let mut hint = open(&mut watches);
    let at = segment(OUT.wrapping_add(1), 24);
    watches.device_sent(&mut hint, &at, CURL);
    assert!(!hint.is_open(), "nobody looks at it any more");
    assert!(watches.ring.is_empty(), "it needed no place");
}

#[test]
fn a_host_name_is_known_before_the_whole_hello_is_there() {
    let at = KUBECTL
        .windows(9)
        .position(|window| window == b"localhost")
        .expect("its name");
    let cut = |len| heard(KUBECTL, b"", &[Piece(End::Device, 0, len)]);
    assert_eq!(cut(at + 9), tls(Some("localhost")));
    assert_eq!(cut(at + 8), tls(None), "it began as a ClientHello");
    assert_eq!(cut(6), tls(None));
    assert_eq!(cut(5), None);
}

#[test]
fn both_ends_of_ssh_say_who_they_are() {
    let ours = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10";
    let theirs = "SSH-2.0-OpenSSH_9.6 Ubuntu";
    assert_eq!(whole(OPENSSH, SERVER), of_ssh(Some(ours), Some(theirs)));
    assert_eq!(whole(OPENSSH, b""), of_ssh(Some(ours), None));
    assert_eq!(whole(b"", SERVER), of_ssh(None, Some(theirs)));
    assert_eq!(
        whole(b"ls\n", SERVER),
        of_ssh(None, Some(theirs)),
        "a stranger at its port"
    );
    assert_eq!(
        whole(b"SSH-2.0-a\xff\x07b-c \"\\\n", b""),
        of_ssh(Some("SSH-2.0-a??b-c \"\\"), None)
    );
    assert_eq!(
        whole(b"SSH-1.99-x\r\n", b""),
        of_ssh(Some("SSH-1.99-x"), None)
    );
}

#[test]
fn an_identification_string_has_at_most_255_bytes() {
    let of = |len: usize| {
        let mut line = b"SSH-2.0-".to_vec();
        line.resize(len - 2, b'x');
        line.extend(b"\r\n");
        line
    };
    let longest = of(255);
    let text = String::from_utf8(longest[..253].to_vec()).expect("ASCII");
    assert_eq!(whole(&longest, b""), of_ssh(Some(&text), None));
    assert_eq!(whole(&of(256), b""), None);
    let with_lf_alone = [text.as_bytes(), b"x\n"].concat();
    assert_eq!(whole(&with_lf_alone, b""), None);
    let mut late = b"hello\r\n".repeat(60);
    late.extend(longest);
    assert_eq!(whole(b"", &late), None, "beyond what is looked at");
}

#[test]
fn http_is_a_word_and_never_a_path() {
    for line in ["GET /secret?token=1 HTTP/1.1\r\n", "POST / HTTP/1.0\n"] {
        let hints = whole(line.as_bytes(), b"HTTP/1.1 200 OK\r\n").expect("known");
        assert_eq!(
            serde_json::to_string(&hints).expect("JSON"),
            r#"{"app":"http"}"#
        );
    }
    for line in [
        "GET / HTTP/2\r\n",
        "PRI * HTTP/2.0\r\n",
        "GET  HTTP/1.1\r\n",
        "GET / HTTP/1.1 x\r\n",
        "BREW / HTTP/1.1\r\n",
        "GET /\r\n",
        "GET / HTTP/1.1",
    ] {
        assert_eq!(whole(line.as_bytes(), b""), None, "{line}");
    }
}

#[test]
fn what_is_wrong_gives_no_hint() {
    let change = |at: usize, to: u8| {
        let mut hello = CURL.to_vec();
        hello[at] = to;
        hello
    };
    for (at, to, what) in [
        (1, 2, "an SSL 2 record"),
        (5, 2, "another handshake message"),
        (6, 200, "a longer message than there is"),
        (9, 4, "an unknown major version"),
        (43, 33, "a session id that is too long"),
        (0x4d, 3, "half a cipher suite"),
    ] {
        assert_eq!(whole(&change(at, to), b""), None, "{what}");
    }
    for noise in [
        &b"\x00\x01"[..],
        b"\x16\x03\x01\x00\x00\x01",
        b"SSH-2.0\r\n",
    ] {
        assert_eq!(whole(noise, b"\x0a\x00\x00"), None);
    }
    for (name, good) in [
        ("kube.example.com", true),
        ("_kube-1.a", true),
        ("192.0.2.10", false),
        ("kube..com", false),
        ("kube.", false),
        ("-kube", false),
        ("ku be", false),
        ("k\u{e9}be", false),
        ("kube\0.com", false),
        ("\"}", false),
        ("", false),
    ] {
        let expected = good.then_some(name);
        assert_eq!(whole(&hello(name, 0), b""), tls(expected), "{name}");
    }
    let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63)].join(".");
    let longest = format!("{long}.{}", "d".repeat(61));
    assert_eq!(whole(&hello(&longest, 0), b""), tls(Some(&longest)));
    assert_eq!(whole(&hello(&format!("{longest}e"), 0), b""), tls(None));
    assert_eq!(whole(&hello(&"a".repeat(64), 0), b""), tls(None));
}

/// A ClientHello for `name`, after a padding extension.
fn hello(name: &str, padding: usize) -> Vec<u8> {
    let sized = |bytes: Vec<u8>| {
        let len = u16::try_from(bytes.len()).expect("short");
        [len.to_be_bytes().to_vec(), bytes].concat()
    };
    let names = sized([vec![0], sized(name.as_bytes().to_vec())].concat());
    let padding = sized(vec![0; padding]);
    let extensions = sized([vec![0, 21], padding, vec![0, 0], sized(names)].concat());
    let start = [vec![3, 3], vec![7; 32], vec![0, 0, 2, 0x13, 1, 1, 0]].concat();
    let message = sized([start, extensions].concat());
    let record = sized([vec![1, 0], message].concat());
    [vec![22, 3, 1], record].concat()
}

#[test]
fn a_hello_in_several_records_is_one() {
    let mut cut = Vec::new();
    for part in KUBECTL[5..].chunks(40) {
        let len = u16::try_from(part.len()).expect("short");
        cut.extend([22, 3, 1]);
        cut.extend(len.to_be_bytes());
        cut.extend(part);
    }
    assert_eq!(whole(&cut, b""), tls(Some("localhost")));
    cut[45] = 23;
    assert_eq!(whole(&cut, b""), None, "something else in between");
}

#[test]
fn a_hello_longer_than_what_is_looked_at_is_tls_without_a_name() {
    let room = FROM_DEVICE - hello("kube.example", 0).len();
    assert_eq!(
        whole(&hello("kube.example", room), b""),
        tls(Some("kube.example"))
    );
    assert_eq!(whole(&hello("kube.example", room + 100), b""), tls(None));
}

#[test]
fn gaps_repeats_and_keep_alives_confuse_nothing() {
    let mut watches = Watches::default();
    let mut hint = open(&mut watches);
    let said = (KUBECTL, SERVER);
    say(&mut watches, &mut hint, said, Piece(End::Device, 0, 100));
    // RFC 9293, section 3.8.4: one byte before what is expected next, with anything in it.
    let before = segment(OUT.wrapping_add(100), 16);
    watches.device_sent(&mut hint, &before, b"\xff");
    watches.device_sent(&mut hint, &segment(OUT, 16), b"\xff");
    watches.device_sent(&mut hint, &segment(OUT.wrapping_sub(5000), 16), KUBECTL);
    let beyond = segment(OUT.wrapping_add(9000), 16);
    watches.device_sent(&mut hint, &beyond, b"far ahead");
    say(&mut watches, &mut hint, said, Piece(End::Device, 700, 1489));
    say(&mut watches, &mut hint, said, Piece(End::Device, 600, 800));
    assert!(hint.is_open());
    say(&mut watches, &mut hint, said, Piece(End::Device, 50, 650));
    assert!(!hint.is_open());
    let hints = watches.take(&mut hint).map(|hints| *hints);
    assert_eq!(hints, tls(Some("localhost")));
}

#[test]
fn a_syn_sent_again_may_begin_elsewhere_and_one_may_carry_data() {
    let mut watches = Watches::default();
    let mut hint = Hint::opened_by(&segment(77, 2));
    watches.device_sent(&mut hint, &segment(OUT, 2), &[]);
    watches.target_sent(&mut hint, &segment(BACK, 18), &[]);
    watches.device_sent(&mut hint, &segment(77, 2), &[]);
    say(
        &mut watches,
        &mut hint,
        (CURL, b""),
        Piece(End::Device, 0, 517),
    );
    assert_eq!(
        watches.take(&mut hint).map(|hints| *hints),
        tls(Some("kube.example.com"))
    );
    let mut hint = Hint::opened_by(&segment(OUT, 2));
    watches.device_sent(&mut hint, &segment(OUT, 2), &OPENSSH[..20]);
    watches.target_sent(&mut hint, &segment(BACK, 18), &[]);
    say(
        &mut watches,
        &mut hint,
        (OPENSSH, SERVER),
        Piece(End::Device, 0, 41),
    );
    let all = Piece(End::Target, 0, SERVER.len());
    say(&mut watches, &mut hint, (OPENSSH, SERVER), all);
    assert!(!hint.is_open());
    let hints = watches.take(&mut hint).expect("known");
    assert!(hints.ssh_client.is_some() && hints.ssh_server.is_some());
}

#[test]
fn watches_are_bounded_and_the_oldest_makes_room() {
    let mut watches = Watches::default();
    let mut flows: Vec<Hint> = (0..WATCHES + 3).map(|_| open(&mut watches)).collect();
    for hint in &mut flows {
        say(
            &mut watches,
            hint,
            (OPENSSH, SERVER),
            Piece(End::Device, 0, 41),
        );
    }
    assert_eq!((watches.len(), watches.displaced()), (WATCHES, 3));
    assert_eq!(watches.ring.len(), WATCHES);
    let all = Piece(End::Target, 0, SERVER.len());
    for hint in &mut flows {
        say(&mut watches, hint, (OPENSSH, SERVER), all);
        assert!(!hint.is_open());
    }
    assert!(watches.is_empty());
    let known = flows.iter_mut().map(|hint| watches.take(hint).is_some());
    assert_eq!(
        known.collect::<Vec<_>>(),
        [vec![false; 3], vec![true; WATCHES]].concat()
    );
}

#[test]
fn nothing_is_watched_for_ever_or_held_without_bound() {
    let mut watches = Watches::default();
    let mut hint = open(&mut watches);
    let mut sent = 0;
    while hint.is_open() {
        let ahead = segment(OUT.wrapping_add(2 + 100 * sent), 24);
        watches.device_sent(&mut hint, &ahead, &[b'x'; 5000]);
        sent += 1;
        let held: usize = watches
            .ring
            .iter()
            .flatten()
            .map(|watch| watch.out.held())
            .sum();
        assert!(held <= 2 * FROM_DEVICE);
    }
    assert_eq!(sent, u32::from(SEGMENTS));
    assert!(matches!(hint, Hint::Nothing));
    assert!(std::mem::size_of::<Hint>() <= 16, "every flow has one");
}

/// Both speeches cut at random places, each piece once, then some again, in any order.
fn pieces(client: usize, server: usize) -> impl Strategy<Value = Vec<Piece>> {
    let cuts = |end: End, len: usize| {
        prop::collection::vec(0..=len, 0..4).prop_map(move |mut cuts| {
            cuts.extend([0, len]);
            cuts.sort_unstable();
            let pair = |pair: &[usize]| Piece(end, pair[0], pair[1]);
            cuts.windows(2).map(pair).collect::<Vec<_>>()
        })
    };
    let again = prop::collection::vec((any::<bool>(), 0..=client, 0..=client), 0..4);
    (cuts(End::Device, client), cuts(End::Target, server), again)
        .prop_map(move |(mut all, back, again)| {
            all.extend(back);
            all.extend(again.into_iter().map(|(device, from, to)| {
                let (end, len) = match device {
                    true => (End::Device, client),
                    false => (End::Target, server),
                };
                Piece(end, from.min(to).min(len), from.max(to).min(len))
            }));
            all
        })
        .prop_shuffle()
}

proptest! {
    #[test]
    fn any_segmentation_gives_the_same_hint(
        (client, server, pieces) in prop::sample::select(vec![
            (KUBECTL, &b"\x16\x03\x03"[..]), (CURL, b""), (OPENSSH, SERVER), (b"EHLO me\r\n", SERVER),
            (b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n", b"HTTP/1.1 200 OK\r\n"), (b"EHLO me\r\n", b"220 mail\r\n"),
        ]).prop_flat_map(|(client, server)| {
            (Just(client), Just(server), pieces(client.len(), server.len()))
        })
    ) {
        prop_assert_eq!(heard(client, server, &pieces), whole(client, server));
    }

    #[test]
    fn any_bytes_give_a_short_printable_hint_or_none(
        start in prop::sample::select(vec![&b""[..], b"SSH-2.0-", &KUBECTL[..90], &CURL[..90], b"GET "]),
        rest in prop::collection::vec(any::<u8>(), 0..6000),
        cut in any::<prop::sample::Index>(),
    ) {
        let said = [start, &rest].concat();
        let cut = cut.index(said.len() + 1);
        let both = [Piece(End::Device, cut, said.len()), Piece(End::Device, 0, cut)];
        let hints = heard(&said, b"", &both);
        prop_assert_eq!(&hints, &whole(&said, b""));
        let hints = hints.into_iter().flat_map(|hints| [hints.ssh_client, hints.tls_sni]);
        for text in hints.flatten() {
            prop_assert!(text.len() <= 253 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }
}
