//! How a login begins.

use super::address::Address;
use super::code::{Admitted, Code};
use super::pending::{LIFETIME, after};
use super::problem::{bad_request, no_randomness, too_many};
use super::provider::{BrowserFlow, DeviceFlow, Provider};
use super::{Inner, Logins, Who, is_allowed, lock, mail, pending, token};
use crate::config::EmailConfig;
use crate::device_api::DeviceProblem;
use crate::key_file;
use postern_proto::device_api::LoginStarted;
use postern_proto::now::Wall;
use std::sync::Arc;
use std::time::Duration;

/// What is remembered of a login under way.
pub(super) enum Way {
    Browser(Arc<Provider>, BrowserFlow),
    DeviceCode {
        provider: Arc<Provider>,
        flow: Arc<DeviceFlow>,
        /// Seconds.
        interval: u64,
        not_before: Wall,
    },
    Email {
        address: Address,
        code: Code,
        /// Whether the address may log in. If not, no code is right.
        allowed: bool,
    },
}

impl Logins {
    pub(super) async fn browser(
        &self,
        who: Who<'_>,
        provider: Option<&str>,
        port: u16,
        now: Wall,
    ) -> Result<LoginStarted, DeviceProblem> {
        if port == 0 {
            let help = "say on which port of 127.0.0.1 the client listens";
            return Err(bad_request("0 is no port", help));
        }
        let provider = self.0.trusted().provider(provider)?;
        let flow = provider.browser(port, now).await;
        let (flow, url) = self.0.told(&provider, flow)?;
        let way = Way::Browser(provider, flow);
        let id = self.0.remember(who, way, LIFETIME, now)?;
        Ok(LoginStarted {
            id,
            url: Some(url),
            user_code: None,
            interval: None,
            expires_in: whole_seconds(LIFETIME),
        })
    }

    pub(super) async fn device_code(
        &self,
        who: Who<'_>,
        provider: Option<&str>,
        now: Wall,
    ) -> Result<LoginStarted, DeviceProblem> {
        let provider = self.0.trusted().provider(provider)?;
        let flow = provider.device_code(now).await;
        let flow = Arc::new(self.0.told(&provider, flow)?);
        let (interval, lifetime) = (flow.interval(), flow.lifetime().min(LIFETIME));
        let way = Way::DeviceCode {
            provider,
            flow: flow.clone(),
            interval,
            not_before: now,
        };
        let id = self.0.remember(who, way, lifetime, now)?;
        Ok(LoginStarted {
            id,
            url: Some(flow.url()),
            user_code: Some(flow.user_code()),
            interval: u32::try_from(interval).ok(),
            expires_in: whole_seconds(lifetime),
        })
    }

    /// Also what becomes of the mail, which only the log is told.
    pub(super) fn email(
        &self,
        who: Who<'_>,
        address: &str,
        now: Wall,
    ) -> (&'static str, Result<LoginStarted, DeviceProblem>) {
        let trusted = self.0.trusted();
        let Some(config) = trusted.config.email.clone() else {
            let error = "nobody can log in by e-mail here";
            let problem = bad_request(error, "see `postern login --help` for other ways");
            return ("not-configured", Err(problem));
        };
        let Some(address) = Address::parse(address) else {
            let problem = bad_request(
                "this is no e-mail address that can log in",
                "write it as ana@example.com",
            );
            return ("no-address", Err(problem));
        };
        let allowed = is_allowed(&config, &address);
        let admitted = lock(&self.0.asked).admit(who, &address, now);
        let mail = match (admitted, allowed) {
            (Admitted::Yes, true) => "sent",
            (Admitted::Yes, false) => "not-allowed",
            (Admitted::NoMail, _) => "limit-of-address",
            (Admitted::NotThisDevice, _) => {
                let problem = too_many("this device has asked for too many codes", "an hour");
                return ("limit-of-device", Err(problem));
            }
            (Admitted::NotNow, _) => {
                let problem = too_many("too many codes are being asked for", "an hour");
                return ("limit-over-all", Err(problem));
            }
        };
        let begun = self.0.begin_email(who, address, allowed, now);
        let started = begun.map(|(started, letter)| {
            if mail == "sent" {
                self.post(config, letter);
            }
            started
        });
        (mail, started)
    }

    /// In the background: how long a mail takes would tell that there was one. At most as many at
    /// a time as [`super::code::Asked`] admits in an hour.
    fn post(&self, config: EmailConfig, letter: mail::Mail) {
        let inner = self.0.clone();
        tokio::spawn(async move {
            let sent = mail::send(&config, &letter).await;
            inner.note("mail", sent.err());
        });
    }
}

impl Inner {
    fn remember(
        &self,
        who: Who<'_>,
        way: Way,
        lifetime: Duration,
        now: Wall,
    ) -> Result<String, DeviceProblem> {
        let id = token()?;
        let mut pending = lock(&self.pending);
        match pending.insert(id.clone(), who, way, lifetime, now) {
            Ok(()) => Ok(id),
            Err(pending::Full) => Err(too_many("too many logins are under way", "some minutes")),
        }
    }

    pub(super) fn begin_email(
        &self,
        who: Who<'_>,
        address: Address,
        allowed: bool,
        now: Wall,
    ) -> Result<(LoginStarted, mail::Mail), DeviceProblem> {
        let id = token()?;
        let key = key_file::random().map_err(|_| no_randomness())?;
        let digits = key_file::random().map_err(|_| no_randomness())?;
        let (code, shown) = Code::new(key, u64::from_ne_bytes(digits));
        let way = Way::Email {
            address: address.clone(),
            code,
            allowed,
        };
        let full = |pending::Full| too_many("too many logins are under way", "some minutes");
        lock(&self.pending)
            .insert(id.clone(), who, way, LIFETIME, now)
            .map_err(full)?;
        let letter = mail::Mail {
            to: address,
            code: shown,
            device: who.device.to_owned(),
            gateway: self.config.get().name.clone(),
            reference: token()?,
            until: after(now, LIFETIME),
        };
        let started = LoginStarted {
            id,
            url: None,
            user_code: None,
            interval: None,
            expires_in: whole_seconds(LIFETIME),
        };
        Ok((started, letter))
    }
}

fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
