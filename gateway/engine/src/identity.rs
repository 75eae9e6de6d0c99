//! Who is behind a key, and which inner addresses are theirs.
//!
//! Identity comes before addresses: the key that decrypted a packet says which device it is, and
//! the device says which source it may use. Nothing is ever looked up by a claimed address.

use crate::policy::{Policy, Subject, SubjectIndex};
use crate::rate::Rate;
use crate::standing::Standing;
use hashbrown::HashMap;
use postern_proto::keys::PublicKey;
use postern_proto::now::{Mono, Wall};
use postern_proto::peers::PeerId;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// An enrolled device, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Unique name.
    pub name: String,
    /// The user that it is bound to; none for a machine.
    pub user: Option<String>,
    /// The user's groups.
    pub groups: Vec<String>,
    /// Its WireGuard key: its identity.
    pub key: PublicKey,
    /// The inner addresses that it owns, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// What may change while it is connected.
    pub standing: Standing,
}

/// The part of a record that says who.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Who {
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "unless it is a machine, or `privacy` drops it"))]
    pub user: Option<String>,
    /// The user's groups, sorted.
    pub groups: Vec<String>,
    /// The device's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "unless `privacy` drops it"))]
    pub device: Option<String>,
    /// The first 8 characters of its public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "unless `privacy` drops it"))]
    pub device_key: Option<String>,
    /// The issuer that vouched for the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when the login in force was with one"))]
    pub issuer: Option<Arc<str>>,
    /// Names the login in force: random, and the same in `session list`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when a login is in force"))]
    pub session: Option<Arc<str>>,
    /// Names how the device stood when it was judged: what `policy explain` and `policy plan` find
    /// it by. The store keeps it as long as the log keeps records.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "for devices that are enrolled"))]
    pub facts: Option<Arc<str>>,
    /// When that login was.
    #[serde(skip)]
    #[schemars(skip)]
    pub session_since: Option<Wall>,
}

/// What the engine keeps about a device.
#[derive(Debug)]
pub struct DeviceState {
    /// As the store knows it.
    pub device: Device,
    /// As records name it.
    pub who: Arc<Who>,
    /// As the policy sees it.
    pub subject: Subject,
    /// Live flows.
    pub flows: usize,
    /// TCP flows that no target has answered yet.
    pub half_open: usize,
    /// The version of a Postern client; none for a stock WireGuard peer, and before it said hello.
    pub client_version: Option<String>,
    pub(crate) answers: Rate,
    pub(crate) control: Rate,
    /// The inner MTU that its client uses, bytes, and until when that counts.
    pub(crate) path_mtu: Option<(u16, Mono)>,
    /// When time alone changes a fact about it, as [`Gateway`](crate::gateway::Gateway) watches
    /// it; and for which policy that was found out, and when.
    pub(crate) due: Option<Wall>,
    /// The key that will replace its own once it is used.
    pub(crate) next: Option<PeerId>,
    /// The key that its own replaced last.
    pub(crate) former: Option<PublicKey>,
    pub(crate) watched_for: Option<(u64, Wall)>,
    index: Option<Place>,
}

/// A device's place in a policy.
#[derive(Debug)]
struct Place {
    generation: u64,
    index: SubjectIndex,
}

impl DeviceState {
    fn new(device: Device, now: Wall) -> Self {
        let subject = subject(&device);
        DeviceState {
            who: Arc::new(who(&device, &subject.groups, now)),
            subject,
            device,
            flows: 0,
            half_open: 0,
            client_version: None,
            answers: Rate::default(),
            control: Rate::default(),
            path_mtu: None,
            due: None,
            next: None,
            former: None,
            watched_for: None,
            index: None,
        }
    }

    /// Takes over what may change: the user, the groups, how it stands. Where it is, the engine
    /// knows first.
    pub(crate) fn update(&mut self, device: Device, now: Wall) {
        let outer = self.device.standing.outer;
        self.device.user = device.user;
        self.device.groups = device.groups;
        self.device.standing = device.standing;
        self.device.standing.outer = outer;
        self.subject = subject(&self.device);
        self.refresh(now);
    }

    /// It was heard from another address. The policy in force must be asked anew if it `asks` for
    /// that.
    pub(crate) fn moved(&mut self, to: IpAddr, asks: bool) {
        self.device.standing.outer = Some(to);
        self.subject.standing.outer = Some(to);
        if asks {
            self.index = None;
            self.watched_for = None;
        }
    }

    /// What time alone has changed since.
    pub(crate) fn refresh(&mut self, now: Wall) {
        self.who = Arc::new(who(&self.device, &self.subject.groups, now));
        self.index = None;
        self.watched_for = None;
    }

    /// Exactly one of its addresses, never a range.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        self.device.addresses.contains(&address)
    }

    /// The device's place in `policy`, computed once for each policy (its `generation`) and each
    /// change of the facts.
    pub fn index(&mut self, policy: &Policy, generation: u64) -> &SubjectIndex {
        let holds = |place: &Place| place.generation == generation;
        if !self.index.as_ref().is_some_and(holds) {
            self.index = None;
        }
        let subject = &self.subject;
        let place = self.index.get_or_insert_with(|| Place {
            generation,
            index: policy.index(subject),
        });
        &place.index
    }
}

fn subject(device: &Device) -> Subject {
    let mut groups = device.groups.clone();
    groups.sort();
    groups.dedup();
    Subject {
        user: device.user.clone(),
        groups,
        device: device.name.clone(),
        standing: device.standing.clone(),
    }
}

fn who(device: &Device, groups: &[String], now: Wall) -> Who {
    let session = device.standing.session_at(now);
    Who {
        user: device.user.clone(),
        groups: groups.to_vec(),
        device: Some(device.name.clone()),
        device_key: Some(device.key.fingerprint()),
        issuer: session.and_then(|session| session.issuer.clone()),
        session: session.map(|session| session.id.clone()),
        facts: device.standing.facts.clone(),
        session_since: session.map(|session| session.since),
    }
}

/// All devices, by peer and by the address that they own.
#[derive(Debug)]
pub struct Devices {
    /// Boxed: in the tree's half-filled nodes a device would take twice its room.
    by_peer: BTreeMap<PeerId, Box<DeviceState>>,
    by_address: HashMap<IpAddr, PeerId, foldhash::quality::FixedState>,
}

impl Devices {
    /// None yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Devices {
            by_peer: BTreeMap::new(),
            by_address: HashMap::with_hasher(foldhash::quality::FixedState::with_seed(seed)),
        }
    }

    /// Takes a device in. An address that another device owns stays with that one.
    pub fn add(&mut self, peer: PeerId, device: Device, now: Wall) {
        for address in &device.addresses {
            self.by_address.entry(*address).or_insert(peer);
        }
        let state = Box::new(DeviceState::new(device, now));
        self.by_peer.insert(peer, state);
    }

    /// The device has another peer number from now on, one that no device has.
    pub(crate) fn give(&mut self, from: PeerId, to: PeerId) -> Option<&mut DeviceState> {
        let state = self.by_peer.remove(&from)?;
        for address in &state.device.addresses {
            if let Some(owner) = self.by_address.get_mut(address).filter(|it| **it == from) {
                *owner = to;
            }
        }
        Some(self.by_peer.entry(to).or_insert(state).as_mut())
    }

    /// Forgets a device.
    pub fn remove(&mut self, peer: PeerId) -> Option<DeviceState> {
        let state = self.by_peer.remove(&peer)?;
        self.by_address.retain(|_, owner| *owner != peer);
        Some(*state)
    }

    /// By peer.
    #[must_use]
    pub fn get(&self, peer: PeerId) -> Option<&DeviceState> {
        self.by_peer.get(&peer).map(Box::as_ref)
    }

    /// By peer.
    pub fn get_mut(&mut self, peer: PeerId) -> Option<&mut DeviceState> {
        self.by_peer.get_mut(&peer).map(Box::as_mut)
    }

    /// Who owns an inner address.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<PeerId> {
        self.by_address.get(&address).copied()
    }

    /// All of them, by peer.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &DeviceState)> {
        let all = self.by_peer.iter();
        all.map(|(peer, state)| (*peer, state.as_ref()))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_peer.len()
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_peer.is_empty()
    }
}
