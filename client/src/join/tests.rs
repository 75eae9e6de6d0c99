//! Against a gateway that has one peer or two, the same stack, and answers as it is told: real
//! UDP on loopback, real handshakes.

use super::*;
use postern_proto::device_api::{ApiError, ClientConfig, ErrorCode, PORT};
use postern_proto::ecn::Ecn;
use postern_proto::facts::Watched;
use postern_proto::invitation::InvitationSecret;
use postern_proto::kem;
use postern_proto::keys::PublicKey;
use postern_proto::mtu::PACKET_ROOM;
use postern_proto::outbox::{Endpoint, Outbox};
use postern_proto::peers::{Inbound, Peers};
use postern_proto::profile::ProfileGateway;
use postern_proto::tunnel::Settings;
use postern_stack::driver::{Net, Stream};
use postern_stack::{Limits, Stack};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

const SECRET: InvitationSecret = InvitationSecret([5; 32]);

/// What the gateway does with one request.
enum Reply {
    /// Status and body.
    Say(u16, String),
    /// The connection breaks.
    Nothing,
}

type Answer = dyn FnMut(PublicKey, &str, &str) -> Reply + Send;

/// Runs until it is dropped.
struct Fake {
    at: SocketAddr,
    add: mpsc::UnboundedSender<(PublicKey, Settings)>,
    _stop: oneshot::Sender<()>,
}

fn gateway_key() -> PrivateKey {
    PrivateKey::from_random([1; 32])
}

impl Fake {
    /// One that knows the throw-away keys of these places.
    fn start(places: &[u16], answer: Box<Answer>) -> Fake {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("a socket");
        let at = socket.local_addr().expect("bound");
        let (add, added) = mpsc::unbounded_channel();
        for place in places {
            let key = SECRET.key(*place).public();
            add.send((key, Settings::default())).expect("a channel");
        }
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = serve(socket, added, Arc::new(Mutex::new(answer))) => {}
                    _ = stopped => {}
                }
            });
        });
        Fake {
            at,
            add,
            _stop: stop,
        }
    }

    fn invitation(&self, keys: u16) -> Zeroizing<String> {
        let invitation = Invitation {
            endpoints: vec![self.at.to_string().parse().expect("an endpoint")],
            gateway: gateway_key().public(),
            keys,
            secret: SECRET,
        };
        Zeroizing::new(invitation.to_string())
    }
}

async fn serve(
    socket: std::net::UdpSocket,
    mut added: mpsc::UnboundedReceiver<(PublicKey, Settings)>,
    answer: Arc<Mutex<Box<Answer>>>,
) {
    let socket = tokio::net::UdpSocket::from_std(socket).expect("a socket");
    let mut peers = Peers::new(gateway_key(), 0, 0, 7);
    let stack = Stack::new(postern_stack::Config {
        addresses: vec![GATEWAY.into(), [100, 96, 0, 1].into()],
        mtu: 1280,
        seed: 3,
        limits: Limits::SERVER,
    });
    let (sender, mut packets) = mpsc::unbounded_channel();
    let net = Net::new(stack, move |key, packet| {
        let _ = sender.send((*key, packet.to_vec()));
    });
    let mut listener = net.listen(PORT);
    let driven = net.clone();
    tokio::spawn(async move { driven.run().await });
    let mut out = Out::default();
    let mut room = vec![0; 2048];
    loop {
        for (to, datagram) in out.datagrams.drain(..) {
            let _ = socket.send_to(&datagram, to).await;
        }
        let now = Clock::now();
        let wait = peers.next_deadline().since(now.mono);
        tokio::select! {
            Some((key, settings)) = added.recv() => {
                let _ = peers.add(key, &settings, None);
            }
            Ok((len, from)) = socket.recv_from(&mut room) => {
                let inbound = peers.receive(from.into(), Ecn::NotEct, &room[..len], &mut out, now);
                if let Inbound::Packet { peer, len, .. } = inbound {
                    let key = *peers.peer(peer).expect("it sent this").key();
                    net.receive(key, Some(from), &out.packet[..len]);
                }
            }
            Some((key, packet)) = packets.recv() => {
                if let Some(peer) = peers.find(&key) {
                    let _ = peers.send(peer, &packet, &mut out, now);
                }
            }
            (stream, remote) = listener.accept() => {
                tokio::spawn(reply(stream, remote.tag, Arc::clone(&answer)));
            }
            () = tokio::time::sleep(wait.min(Duration::from_secs(60))) => {
                peers.timeout(&mut out, now);
            }
        }
    }
}

/// As much of HTTP/1.1 as one request needs.
async fn reply(mut stream: Stream, key: PublicKey, answer: Arc<Mutex<Box<Answer>>>) {
    let (mut text, mut part) = (String::new(), [0; 4096]);
    let body = loop {
        let len = stream.read(&mut part).await.unwrap_or(0);
        if len == 0 {
            return;
        }
        text.push_str(std::str::from_utf8(&part[..len]).expect("text"));
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a number"));
        if body.len() >= length {
            break body.to_owned();
        }
    };
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let reply = (answer.lock().expect("no panic"))(key, &path, &body);
    if let Reply::Say(status, body) = reply {
        let length = body.len();
        let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).await.expect("written");
        let _ = stream.shutdown().await;
    }
}

#[derive(Default)]
struct Out {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    to: Option<SocketAddr>,
    slot: Vec<u8>,
    packet: Vec<u8>,
}

impl Outbox for Out {
    fn datagram(&mut self, to: Endpoint, room: usize) -> &mut [u8] {
        self.to = Some(to.remote);
        self.slot.resize(room, 0);
        &mut self.slot
    }
    fn commit_datagram(&mut self, len: usize, _: Ecn) {
        let to = self.to.take().expect("a slot was handed out");
        self.datagrams.push((to, self.slot[..len].to_vec()));
    }
    fn packet(&mut self) -> &mut [u8] {
        self.packet.resize(PACKET_ROOM, 0);
        &mut self.packet
    }
    fn commit_packet(&mut self, _: usize) {}
}

/// The answer to a good request, and the pre-shared key in it.
fn joined(at: &str, body: &str, state: State) -> (JoinRequest, PresharedKey, String) {
    let request: JoinRequest = serde_json::from_str(body).expect("a join request");
    let (ciphertext, preshared) =
        kem::seal(request.kem_key.as_deref().expect("on by default"), [9; 32]).expect("a KEM key");
    let endpoint = at.parse().expect("an endpoint");
    let answer = JoinAnswer {
        name: "ana-laptop".to_owned(),
        addresses: vec![[100, 96, 0, 2].into()],
        gateway: ProfileGateway {
            public_key: gateway_key().public(),
            endpoints: vec![endpoint],
            tunnel_addresses: vec![[100, 96, 0, 1].into()],
        },
        config: ClientConfig {
            version: "1".to_owned(),
            mtu: 1420,
            include: vec!["192.0.2.10/32".parse().expect("a prefix")],
            endpoints: vec![at.parse().expect("an endpoint")],
            keepalive: None,
            report_every: 60,
            watched: Watched::default(),
            rotate_after: None,
            warn_before: 600,
        },
        state,
        kem_ciphertext: Some(ciphertext),
    };
    let text = serde_json::to_string(&answer).expect("serialises");
    (request, preshared, text)
}

fn refusal(code: ErrorCode) -> String {
    let error = ApiError {
        code,
        error: "no".to_owned(),
        help: "ask for another".to_owned(),
    };
    serde_json::to_string(&error).expect("serialises")
}

/// An empty folder, and the options that put the profile into it.
fn options(name: &str, text: Zeroizing<String>) -> (PathBuf, JoinOptions) {
    let folder = std::env::temp_dir().join(format!("postern-join-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let profile = Some(folder.join("ana.yaml"));
    let options = JoinOptions {
        text,
        name: None,
        profile,
    };
    (folder, options)
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("there")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_key_and_the_profile_is_private() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (asked, mut lost) = (Arc::clone(&seen), false);
    let answer = move |key: PublicKey, path: &str, body: &str| {
        let (request, preshared, text) = joined("127.0.0.1:1", body, State::Active);
        asked
            .lock()
            .expect("no panic")
            .push((key, path.to_owned(), request, preshared));
        if std::mem::replace(&mut lost, true) {
            Reply::Say(200, text)
        } else {
            Reply::Nothing
        }
    };
    let fake = Fake::start(&[0], Box::new(answer));
    let (folder, options) = options("lost", fake.invitation(1));
    let done = join(&options, &mut |_| {}).expect("joined");

    let seen = seen.lock().expect("no panic");
    assert_eq!(seen.len(), 2);
    let (guest, path, request, preshared) = &seen[1];
    assert_eq!(*guest, SECRET.key(0).public());
    assert_eq!(path, "/v1/join");
    assert_eq!(request, &seen[0].2, "the same key, the same everything");
    let saved = profile::load(&done.path).expect("a profile");
    let private = saved.private_key.expect("a key");
    assert_eq!(private.public(), request.public_key);
    assert_ne!(private.public(), *guest);
    assert_eq!(saved.preshared_key.map(|key| key.0), Some(preshared.0));
    let mode = done.path.metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(files(&folder), ["ana.yaml"], "nothing is pending any more");
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_join_that_failed_comes_back_with_its_key_and_a_used_invitation_is_the_end() {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&keys);
    let answer = move |_: PublicKey, _: &str, body: &str| {
        let (request, ..) = joined("127.0.0.1:1", body, State::Active);
        let mut keys = asked.lock().expect("no panic");
        keys.push(request.public_key);
        match keys.len() {
            1 => Reply::Say(503, refusal(ErrorCode::Unavailable)),
            _ => Reply::Say(409, refusal(ErrorCode::InvitationUsed)),
        }
    };
    let fake = Fake::start(&[0], Box::new(answer));
    let (folder, options) = options("again", fake.invitation(1));
    let error = join(&options, &mut |_| {}).expect_err("unavailable");
    assert!(error.to_string().contains("ask for another"), "{error}");
    let [pending] = files(&folder).try_into().expect("one file");
    assert!(pending.starts_with("pending-"), "{pending}");
    let error = join(&options, &mut |_| {}).expect_err("used");
    assert!(matches!(error, JoinError::Used), "{error}");
    let keys = keys.lock().expect("no panic");
    assert_eq!(keys[0], keys[1], "the same key again");
    assert_eq!(files(&folder), [""; 0], "it will never do");
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn an_open_invitation_goes_on_to_the_next_place() {
    let mut used = None;
    let answer = move |key: PublicKey, _: &str, body: &str| {
        let (.., text) = joined("127.0.0.1:1", body, State::Active);
        match used {
            Some(other) if other != key => Reply::Say(200, text),
            Some(_) | None => {
                used = Some(key);
                Reply::Say(409, refusal(ErrorCode::InvitationUsed))
            }
        }
    };
    let fake = Fake::start(&[0, 1, 2], Box::new(answer));
    let (folder, options) = options("open", fake.invitation(3));
    join(&options, &mut |_| {}).expect("the second place is free");
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_walk_over_taken_places_ends_says_how_far_it_came_and_is_gone_on_with() {
    let taken =
        |_: PublicKey, _: &str, _: &str| Reply::Say(409, refusal(ErrorCode::InvitationUsed));
    let fake = Fake::start(&[0, 1, 2], Box::new(taken));
    let (folder, options) = options("walk", fake.invitation(3));
    let invitation: Invitation = options.text.parse().expect("an invitation");
    let mut pending = Pending::begin(&folder, &invitation).expect("begun");
    pending.try_place(1).expect("kept");
    let private = pending.private_key().expect("a key");
    let mut walk = |time| {
        redeem(
            &invitation,
            &options,
            &mut pending,
            &private,
            time,
            &mut |_| {},
        )
        .expect_err("taken")
    };
    let error = walk(Duration::ZERO);
    assert!(
        error.to_string().starts_with("1 of the 3 places"),
        "{error}"
    );
    assert!(!error.is_final(), "the next walk begins there");
    assert!(matches!(walk(WALK), JoinError::Full));
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn it_waits_for_approval_with_its_own_key_and_says_so() {
    let own = Arc::new(Mutex::new(None));
    let (key, at) = (Arc::clone(&own), Arc::new(Mutex::new(String::new())));
    let (here, mut asks) = (Arc::clone(&at), 0);
    let answer = move |asker: PublicKey, path: &str, body: &str| {
        if path == "/v1/join" {
            let at = here.lock().expect("no panic").clone();
            let (request, preshared, text) = joined(&at, body, State::WaitsForApproval);
            *key.lock().expect("no panic") = Some((request.public_key, preshared));
            return Reply::Say(200, text);
        }
        assert_eq!(path, "/v1/device");
        let own = key.lock().expect("no panic").as_ref().map(|own| own.0);
        assert_eq!(Some(asker), own, "not the throw-away key");
        asks += 1;
        let status = DeviceStatus {
            name: "ana-laptop".to_owned(),
            user: None,
            groups: Vec::new(),
            state: if asks == 1 {
                State::WaitsForApproval
            } else {
                State::Active
            },
            session: None,
            posture: Vec::new(),
            preshared_key: true,
            key_since: 0,
            grants: Vec::new(),
        };
        Reply::Say(200, serde_json::to_string(&status).expect("serialises"))
    };
    let fake = Fake::start(&[0], Box::new(answer));
    *at.lock().expect("no panic") = fake.at.to_string();
    let (folder, options) = options("wait", fake.invitation(1));
    let done = join(&options, &mut |_| {}).expect("joined");
    let (public, preshared) = own.lock().expect("no panic").take().expect("it joined");
    own.lock()
        .expect("no panic")
        .replace((public, preshared.clone()));
    let settings = Settings {
        psk: Some(preshared),
        ..Settings::default()
    };
    fake.add.send((public, settings)).expect("it runs");
    let mut said = Vec::new();
    let (_tunnel, status) = wait(&done, &mut |words| said.push(words.to_owned())).expect("active");
    assert_eq!(status.state, State::Active);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("approval") && said[0].contains("Ctrl-C"),
        "{said:?}"
    );
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn what_is_there_already_is_not_overwritten() {
    let fake = Fake::start(&[0], Box::new(|_, _, _| Reply::Nothing));
    let (folder, options) = options("there", fake.invitation(1));
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join("ana.yaml"), "another device").expect("written");
    let error = join(&options, &mut |_| {}).expect_err("taken");
    assert!(
        matches!(error, JoinError::Exists(_)) && error.is_usage(),
        "{error}"
    );
    let bent = Zeroizing::new(options.text.replace("postern1-", "postern1-A"));
    let error = join(
        &JoinOptions {
            text: bent,
            ..options
        },
        &mut |_| {},
    )
    .expect_err("bent");
    assert!(
        matches!(error, JoinError::Invitation(_)) && error.is_usage(),
        "{error}"
    );
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn every_place_is_tried_once_from_a_random_one_on() {
    let of = |start, keys| places(start, keys).collect::<Vec<_>>();
    assert_eq!(of(0, 1), [0]);
    assert_eq!(of(65_535, 1), [0]);
    assert_eq!(of(6, 4), [2, 3, 0, 1]);
    assert_eq!(of(300, 256).len(), 256);
}

#[test]
fn each_refusal_has_its_own_words_and_says_what_to_do() {
    let refused = |code| {
        let error = ApiError {
            code,
            error: "device `ana` exists".to_owned(),
            help: "choose another name".to_owned(),
        };
        JoinError::from(CallError::Refused(error))
    };
    let words = [
        (ErrorCode::InvitationUsed, "used already", 1),
        (ErrorCode::InvitationExpired, "has expired", 1),
        (ErrorCode::InvitationRevoked, "was revoked", 1),
        (ErrorCode::Taken, "--name", 2),
        (ErrorCode::TooMany, "choose another name", 1),
    ];
    for (code, part, exit) in words {
        let error = refused(code);
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(1 + i32::from(error.is_usage()), exit, "{error}");
    }
}

#[test]
fn debug_shows_no_invitation() {
    let (_, options) = options("debug", Zeroizing::new("postern1-secret".to_owned()));
    let shown = format!("{options:?}");
    assert!(
        shown.contains("ana.yaml") && !shown.contains("postern1-secret"),
        "{shown}"
    );
}

#[test]
fn a_name_from_the_gateway_stays_in_the_folder() {
    let owner = Owner {
        uid: 0,
        gid: 0,
        folder: Some(PathBuf::from("/c/postern")),
    };
    let options = |profile| JoinOptions {
        text: Zeroizing::new(String::new()),
        name: None,
        profile,
    };
    let of = |name| path(&owner, &options(None), Some(name));
    assert_eq!(of("ana"), Some(PathBuf::from("/c/postern/ana.yaml")));
    assert_eq!(of("../../etc/cron.d/x"), None);
    assert_eq!(of(".ssh"), None);
    let given = options(Some(PathBuf::from("x.yaml")));
    assert_eq!(path(&owner, &given, Some("../a")), given.profile);
    assert_eq!(folder(&owner, &given).expect("here"), Path::new("."));
}
