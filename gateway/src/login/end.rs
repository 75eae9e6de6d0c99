//! How a login ends: with a user, or with why there is none.

use super::address::Address;
use super::begin::Way;
use super::code::Attempt;
use super::pending::after;
use super::problem::{expired, login_refused, not_yet, wrong_code};
use super::provider::{BrowserFlow, DeviceFlow, Polled, Provider};
use super::{Inner, Logins, Proven, is_allowed, lock};
use crate::device_api::DeviceProblem;
use postern_proto::device_api::{ErrorCode, LoginFinish};
use postern_proto::now::Wall;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// What a request to end a login comes to before anybody else is asked.
enum Step {
    Email(Address),
    Browser(Arc<Provider>, BrowserFlow, String),
    Poll(Arc<Provider>, Arc<DeviceFlow>),
}

impl Logins {
    pub(super) async fn end(
        &self,
        device: &str,
        what: &LoginFinish,
        now: Wall,
    ) -> Result<Proven, DeviceProblem> {
        match self.0.step(device, what, now)? {
            Step::Email(address) => Ok(Proven {
                user: address.to_string(),
                issuer: "email".into(),
                subject: address.to_string(),
                method: "email",
                groups: Vec::new(),
                amr: Vec::new(),
                acr: None,
                at: now,
            }),
            Step::Browser(provider, flow, code) => {
                self.0.still_trusted(&provider)?;
                let iss = what.iss.as_deref();
                let proven = provider.finish_browser(flow, &code, iss, now).await;
                self.0.told(&provider, proven)
            }
            Step::Poll(provider, flow) => {
                self.0.still_trusted(&provider)?;
                let polled = provider.poll(&flow, now).await;
                match self.0.told(&provider, polled) {
                    Ok(Polled::NotYet { slow_down }) => {
                        if slow_down {
                            self.0.slow_down(device, &what.id, now);
                        }
                        Err(not_yet())
                    }
                    // Asked twice at the same time, it is answered once.
                    Ok(Polled::Proven(proven)) => match lock(&self.0.pending).remove(&what.id) {
                        Some(_) => Ok(*proven),
                        None => Err(expired()),
                    },
                    Err(problem) if problem.code == ErrorCode::Unavailable => Err(problem),
                    Err(problem) => {
                        lock(&self.0.pending).remove(&what.id);
                        Err(problem)
                    }
                }
            }
        }
    }
}

impl Inner {
    /// Everything that needs no provider, under the lock: an attempt counts before anybody knows
    /// what it came to.
    fn step(&self, device: &str, what: &LoginFinish, now: Wall) -> Result<Step, DeviceProblem> {
        let email = self.trusted().config.email.clone();
        let mut pending = lock(&self.pending);
        match pending.get(&what.id, device, now).ok_or_else(expired)? {
            Way::Email {
                address,
                code,
                allowed,
            } => {
                let given = what.code.as_deref().unwrap_or_default();
                // gateway.yaml may have changed since the mail was sent.
                let allowed = *allowed && email.is_some_and(|config| is_allowed(&config, address));
                let address = address.clone();
                match code.attempt(given) {
                    Attempt::Right if allowed => {
                        pending.remove(&what.id);
                        Ok(Step::Email(address))
                    }
                    Attempt::Right | Attempt::Wrong(0) => {
                        pending.remove(&what.id);
                        Err(wrong_code("ask for a new one"))
                    }
                    Attempt::Wrong(left) => {
                        let plural = if left == 1 { "" } else { "s" };
                        Err(wrong_code(&format!("{left} attempt{plural} left")))
                    }
                }
            }
            Way::Browser(provider, flow) => {
                let (provider, flow) = (provider.clone(), flow.clone());
                // Whatever comes of it, the code was shown and the login is over.
                pending.remove(&what.id);
                let state = what.state.as_deref().unwrap_or_default();
                let same = state.as_bytes().ct_eq(flow.state.secret().as_bytes());
                if !bool::from(same) {
                    let error = "the answer in the browser belongs to another login";
                    return Err(login_refused(error, "begin again"));
                }
                let code = what.code.clone().filter(|code| !code.is_empty());
                let Some(code) = code else {
                    let error = "the provider gave the browser no code";
                    return Err(login_refused(error, "begin again"));
                };
                Ok(Step::Browser(provider, flow, code))
            }
            Way::DeviceCode {
                provider,
                flow,
                interval,
                not_before,
            } => {
                if now < *not_before {
                    return Err(not_yet());
                }
                *not_before = after(now, Duration::from_secs(*interval));
                Ok(Step::Poll(provider.clone(), flow.clone()))
            }
        }
    }

    /// RFC 8628, section 3.5: five seconds more from now on.
    fn slow_down(&self, device: &str, id: &str, now: Wall) {
        let mut pending = lock(&self.pending);
        if let Some(Way::DeviceCode {
            interval,
            not_before,
            ..
        }) = pending.get(id, device, now)
        {
            *interval += 5;
            *not_before = after(now, Duration::from_secs(*interval));
        }
    }
}
