//! Takes persons out of records before they are written: nothing behind this, neither the log nor
//! an exporter nor `flows tail`, ever sees what was taken out.
//!
//! A pseudonym is `h:` and 16 hexadecimal digits of HMAC-SHA-256 (RFC 2104) under a key of this
//! gateway: the same name gives the same pseudonym, so records still join, and without the key
//! nobody can find the name by trying all of them.

mod audit;

use crate::audit::AuditLine;
use crate::config::{Hints, Privacy, Treatment};
use crate::key_file;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use postern_engine::identity::Who;
use postern_engine::record::{Detail, Outer, Record};
use postern_engine::words::{Name, Words};
use serde_json::{Map, Value};
use sha2::Sha256;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What every pseudonym begins with.
const PSEUDONYM: &str = "h:";

/// Where the key is, in the data folder.
pub const KEY_FILE: &str = "privacy.key";

/// Devices whose names are remembered as they are written: at under 2 KiB each, 8 MiB.
const KNOWN: usize = 4096;

/// What a sentence says in place of a name that is not kept.
const NOT_KEPT: &str = "(not kept)";

/// Why there is no key for pseudonyms.
#[derive(Debug, thiserror::Error)]
pub enum PrivacyError {
    /// It was never needed.
    #[error("{}: not there; help: it is made when the gateway starts with `hash` in flow_log.privacy", .0.display())]
    NoKey(PathBuf),
    /// It cannot be read or made.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: io::Error,
    },
    /// Others can read or write it.
    #[error("{}: mode {mode:04o} lets others in; help: chmod 600 {}", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not what the gateway wrote.
    #[error("{}: holds no key; help: restore it from a backup, or remove it: then everybody gets a new pseudonym", .0.display())]
    Damaged(PathBuf),
}

/// Does what `flow_log.privacy` says to every record.
#[derive(Debug)]
pub struct Redactor {
    config: Privacy,
    key: Option<PseudonymKey>,
    /// By the address of the first, which stays taken as long as that is here. Never iterated.
    known: HashMap<usize, (Arc<Who>, Arc<Who>)>,
}

/// Gives names their pseudonyms.
#[derive(Clone)]
pub struct PseudonymKey(Hmac<Sha256>);

impl Redactor {
    /// Ready for `config`. Makes the key in `data_dir` if it is needed and not there.
    ///
    /// # Errors
    /// See [`PrivacyError`].
    pub fn open(config: Privacy, data_dir: &Path) -> Result<Redactor, PrivacyError> {
        let hashes = [config.user, config.device, config.outer_address].contains(&Treatment::Hash);
        let key = if hashes {
            Some(PseudonymKey::read_or_make(data_dir)?)
        } else {
            None
        };
        Ok(Redactor {
            config,
            key,
            known: HashMap::new(),
        })
    }

    /// Takes out of `record` what is not to be kept.
    pub fn apply(&mut self, record: &mut Record) {
        if self.config == Privacy::default() {
            return;
        }
        record.who = self.who(&record.who);
        // The words of a user, who may name anybody in them.
        if self.config.user != Treatment::Keep
            && let Some(grant) = &mut record.grant
        {
            Arc::make_mut(grant).reason = None;
        }
        record.client_outer = record
            .client_outer
            .take()
            .and_then(|outer| self.outer(outer));
        match &mut record.detail {
            Detail::Open(_) => {}
            Detail::Closed(closed) => {
                self.words(&mut closed.failed_condition);
                if self.config.hints == Hints::Drop {
                    closed.hints = None;
                }
            }
            Detail::Denied(denied) => self.words(&mut denied.failed_condition),
        }
    }

    /// The same for a record that was written before, under what the configuration said then. What
    /// is a pseudonym already stays one. Takes and returns one JSON object.
    pub fn apply_again(&self, record: Vec<u8>) -> Vec<u8> {
        if self.config == Privacy::default() {
            return record;
        }
        let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(&record) else {
            return record;
        };
        for (field, how) in [
            ("user", self.config.user),
            ("device", self.config.device),
            ("device_key", self.config.device),
            ("client_outer", self.config.outer_address),
        ] {
            let Some(name) = fields.get(field).and_then(Value::as_str) else {
                continue;
            };
            if how == Treatment::Hash && name.starts_with(PSEUDONYM) {
                continue;
            }
            let name = match name.parse() {
                Ok(at) if how == Treatment::Hash => address_text(SocketAddr::ip(&at)),
                _ => name.to_owned(),
            };
            match self.treated(how, &name) {
                Some(treated) => fields.insert(field.to_owned(), treated.into_owned().into()),
                None => fields.remove(field),
            };
        }
        if self.config.user != Treatment::Keep {
            fields.remove("grant_reason");
        }
        serde_json::to_vec(&fields).unwrap_or(record)
    }

    /// Takes out of an audit line what is not to be kept: of who did it, of what it was done to,
    /// and wherever the words or the states before and after name somebody.
    pub fn apply_to_audit(&self, line: &mut AuditLine) {
        audit::apply(self, line);
    }

    fn who(&mut self, who: &Arc<Who>) -> Arc<Who> {
        let place = Arc::as_ptr(who).addr();
        if let Some((_, written)) = self.known.get(&place) {
            return written.clone();
        }
        let treated = |how, name: &Option<String>| {
            name.as_deref()
                .and_then(|name| self.treated(how, name))
                .map(Cow::into_owned)
        };
        let written = Arc::new(Who {
            user: treated(self.config.user, &who.user),
            device: treated(self.config.device, &who.device),
            device_key: treated(self.config.device, &who.device_key),
            ..Who::clone(who)
        });
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(place, (who.clone(), written.clone()));
        written
    }

    fn outer(&self, outer: Outer) -> Option<Outer> {
        match (self.config.outer_address, &outer) {
            (Treatment::Drop, _) => None,
            (Treatment::Hash, Outer::Address(at)) => {
                let address = address_text(at.ip());
                let pseudonym = self.treated(Treatment::Hash, &address)?;
                Some(Outer::Pseudonym(pseudonym.into_owned()))
            }
            (Treatment::Keep, _) | (Treatment::Hash, Outer::Pseudonym(_)) => Some(outer),
        }
    }

    fn words(&self, words: &mut Option<Words>) {
        if let Some(words) = words {
            *words = words.with_names(|of, name| {
                let how = match of {
                    Name::User => self.config.user,
                    Name::Device => self.config.device,
                };
                self.treated(how, name).unwrap_or(NOT_KEPT.into())
            });
        }
    }

    fn treated<'a>(&self, how: Treatment, name: &'a str) -> Option<Cow<'a, str>> {
        match how {
            Treatment::Keep => Some(name.into()),
            Treatment::Drop => None,
            // There is a key whenever something is hashed; without one the name is not told.
            Treatment::Hash => Some(self.key.as_ref()?.pseudonym(name).into()),
        }
    }
}

impl PseudonymKey {
    /// The key of the gateway whose data is in `data_dir`.
    ///
    /// # Errors
    /// See [`PrivacyError`].
    pub fn read(data_dir: &Path) -> Result<PseudonymKey, PrivacyError> {
        let path = data_dir.join(KEY_FILE);
        let failed = |reason: io::Error| {
            let path = path.clone();
            if reason.kind() == io::ErrorKind::NotFound {
                PrivacyError::NoKey(path)
            } else {
                PrivacyError::Io { path, reason }
            }
        };
        let file = File::open(&path).map_err(failed)?;
        if let Some(mode) = key_file::lets_others_in(&file).map_err(failed)? {
            return Err(PrivacyError::Open { path, mode });
        }
        let mut text = String::new();
        let read = file.take(128).read_to_string(&mut text);
        read.map_err(failed)?;
        match BASE64_STANDARD.decode(text.trim()) {
            Ok(bytes) if bytes.len() == 32 => Ok(PseudonymKey::new(&bytes)),
            _ => Err(PrivacyError::Damaged(path)),
        }
    }

    /// The same, and makes one if there is none.
    fn read_or_make(data_dir: &Path) -> Result<PseudonymKey, PrivacyError> {
        match PseudonymKey::read(data_dir) {
            Err(PrivacyError::NoKey(path)) => {
                make(data_dir, &path).map_err(|reason| PrivacyError::Io { path, reason })?;
                PseudonymKey::read(data_dir)
            }
            read => read,
        }
    }

    fn new(key: &[u8]) -> PseudonymKey {
        PseudonymKey(Hmac::new_from_slice(key).expect("HMAC takes keys of every length"))
    }

    /// What stands for `name`: of a user, a device, the fingerprint of its key, or an address
    /// without a port.
    #[must_use]
    pub fn pseudonym(&self, name: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(name.as_bytes());
        let tag = mac.finalize().into_bytes();
        let digits = tag.iter().take(8).map(|byte| format!("{byte:02x}"));
        format!("{PSEUDONYM}{}", digits.collect::<String>())
    }

    /// [`PseudonymKey::pseudonym`] of what a person typed: an address may have a port, and any
    /// spelling.
    #[must_use]
    pub fn pseudonym_of(&self, typed: &str) -> String {
        let address = typed
            .parse()
            .map(|at: SocketAddr| at.ip())
            .or_else(|_| typed.parse::<IpAddr>());
        match address {
            Ok(address) => self.pseudonym(&address_text(address)),
            Err(_) => self.pseudonym(typed),
        }
    }
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PseudonymKey(..)")
    }
}

/// An IPv4 address is the same in both families.
fn address_text(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

/// Whole or not at all, also after a power cut; and never in place of another.
fn make(data_dir: &Path, path: &Path) -> io::Result<()> {
    let text = BASE64_STANDARD.encode(key_file::random::<32>()?) + "\n";
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => key_file::create(&new, &text)?,
    }
    fs::hard_link(&new, path)?;
    fs::remove_file(&new)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests;
