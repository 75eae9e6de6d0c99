//! `postern login`: in a browser on this computer, with a code on any other, or with a code by
//! e-mail. The gateway talks to the identity provider; this end only carries codes.

use crate::api::{self, Call, CallError};
use crate::door::Door;
use crate::userspace::Tunnel;
use loopback::Loopback;
use postern_proto::device_api::{
    DeviceStatus, ErrorCode, LoginFinish, LoginMethod, LoginStart, LoginStarted,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io;
use std::time::{Duration, Instant};

mod loopback;

/// The least pause between two asks with a device code (RFC 8628, section 3.2).
const LEAST_INTERVAL: u32 = 5;
/// The gateway takes so many codes from an e-mail; after that it has to send another.
const CODE_TRIES: usize = 3;

/// What the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Which identity provider.
    pub provider: Option<String>,
    /// On another computer.
    pub device_code: bool,
    /// By e-mail, to this address.
    pub email: Option<String>,
}

/// The person at the terminal.
pub trait Person {
    /// Tells something.
    fn say(&mut self, words: &str);
    /// Opens a browser, if there is one.
    fn open(&mut self, url: &str);
    /// Asks for a line of text. `None`: nobody is there.
    fn ask(&mut self, prompt: &str) -> Option<String>;
}

/// Who makes the calls.
pub trait Gateway {
    /// Makes one.
    ///
    /// # Errors
    /// [`CallError`].
    fn call(&self, call: Call) -> Result<Value, CallError>;
}

/// Why a login failed, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The gateway has no way to log in.
    #[error("this gateway has no logins")]
    None,
    /// Which one?
    #[error("several ways to log in: choose one of {0}")]
    Several(String),
    /// Not one of them.
    #[error("no `{0}` here: choose one of {1}")]
    Unknown(String, String),
    /// Not with a device code.
    #[error("`{0}` has no device code; leave --device-code out")]
    NoDeviceCode(String),
    /// The browser said so.
    #[error("the identity provider refused: {0}")]
    Provider(String),
    /// Nobody finished it.
    #[error("the login was not finished in time; begin again with `postern login`")]
    Late,
    /// Nobody is at the terminal.
    #[error("the code from the e-mail has to be typed: run it in a terminal")]
    NoTerminal,
    /// The gateway's answer has no address to go to.
    #[error("the gateway gave no address for the browser; is it older than this program?")]
    NoUrl,
    /// No port on 127.0.0.1.
    #[error("cannot listen on 127.0.0.1: {0}; try --device-code")]
    Loopback(#[from] io::Error),
    /// What the gateway said.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl LoginError {
    /// Exit code 2: the user has to write something else.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            LoginError::Several(_) | LoginError::Unknown(..) | LoginError::NoDeviceCode(_)
        )
    }
}

impl Gateway for Door {
    fn call(&self, call: Call) -> Result<Value, CallError> {
        self.ask(call)
    }
}

impl Gateway for Tunnel {
    fn call(&self, call: Call) -> Result<Value, CallError> {
        self.ask(call)
    }
}

/// Logs in.
///
/// # Errors
/// [`LoginError`].
pub fn log_in(
    gateway: &impl Gateway,
    wish: &Wish,
    person: &mut impl Person,
) -> Result<DeviceStatus, LoginError> {
    let methods: Vec<LoginMethod> = ask(gateway, Call::LoginMethods)?;
    match choose(&methods, wish)? {
        Plan::Browser(provider) => browser(gateway, provider, person),
        Plan::DeviceCode(provider) => device_code(gateway, provider, person),
        Plan::Email(address) => email(gateway, address, person),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Browser(String),
    DeviceCode(String),
    Email(String),
}

fn choose(methods: &[LoginMethod], wish: &Wish) -> Result<Plan, LoginError> {
    let words = |method: &LoginMethod| match method.kind.as_str() {
        "email" => "--email ADDRESS".to_owned(),
        _ => format!("--provider {}", method.name),
    };
    let all = || methods.iter().map(words).collect::<Vec<_>>().join(", ");
    if methods.is_empty() {
        return Err(LoginError::None);
    }
    if let Some(address) = &wish.email {
        return if methods.iter().any(|method| method.kind == "email") {
            Ok(Plan::Email(address.clone()))
        } else {
            Err(LoginError::Unknown("--email".to_owned(), all()))
        };
    }
    let mut providers = methods.iter().filter(|method| method.kind != "email");
    let provider = match &wish.provider {
        Some(name) => providers
            .find(|method| method.name == *name)
            .ok_or_else(|| LoginError::Unknown(name.clone(), all()))?,
        None => match (providers.next(), methods) {
            (Some(only), [_]) => only,
            _ => return Err(LoginError::Several(all())),
        },
    };
    match (wish.device_code, provider.device_code) {
        (false, _) => Ok(Plan::Browser(provider.name.clone())),
        (true, true) => Ok(Plan::DeviceCode(provider.name.clone())),
        (true, false) => Err(LoginError::NoDeviceCode(provider.name.clone())),
    }
}

fn browser(
    gateway: &impl Gateway,
    provider: String,
    person: &mut impl Person,
) -> Result<DeviceStatus, LoginError> {
    let loopback = Loopback::bind()?;
    let start = LoginStart::Browser {
        provider: Some(provider),
        port: loopback.port()?,
    };
    let started: LoginStarted = ask(gateway, Call::LogIn(start))?;
    let url = started
        .url
        .filter(|url| is_web(url))
        .ok_or(LoginError::NoUrl)?;
    let state = loopback::query_field(&url, "state").ok_or(LoginError::NoUrl)?;
    person.say(&format!(
        "Log in in a browser on this computer:\n\n  {url}\n"
    ));
    person.open(&url);
    let patience = Duration::from_secs(started.expires_in.into());
    let callback = loopback.wait(&state, patience)?.ok_or(LoginError::Late)?;
    if let Some(error) = callback.error {
        let more = callback
            .error_description
            .map_or_else(String::new, |more| format!(" ({more})"));
        return Err(LoginError::Provider(plain(&format!("{error}{more}"))));
    }
    let finish = LoginFinish {
        id: started.id,
        code: callback.code,
        state: callback.state,
        iss: callback.iss,
    };
    Ok(ask(gateway, Call::FinishLogin(finish))?)
}

fn device_code(
    gateway: &impl Gateway,
    provider: String,
    person: &mut impl Person,
) -> Result<DeviceStatus, LoginError> {
    let start = LoginStart::DeviceCode {
        provider: Some(provider),
    };
    let started: LoginStarted = ask(gateway, Call::LogIn(start))?;
    let url = started
        .url
        .filter(|url| is_web(url))
        .ok_or(LoginError::NoUrl)?;
    let code = started.user_code.unwrap_or_default();
    person.say(&format!(
        "Open this on any computer and enter the code:\n\n  {url}\n  {}\n",
        plain(&code)
    ));
    let end = Instant::now() + Duration::from_secs(started.expires_in.into());
    let pause = Duration::from_secs(started.interval.unwrap_or(0).max(LEAST_INTERVAL).into());
    while Instant::now() < end {
        std::thread::sleep(pause);
        let finish = LoginFinish {
            id: started.id.clone(),
            code: None,
            state: None,
            iss: None,
        };
        match ask(gateway, Call::FinishLogin(finish)) {
            Err(error) if is(&error, ErrorCode::LoginPending) => {}
            // One answer may get lost; the next ask has it.
            Err(CallError::Silent(_)) => {}
            done => return Ok(done?),
        }
    }
    Err(LoginError::Late)
}

fn email(
    gateway: &impl Gateway,
    address: String,
    person: &mut impl Person,
) -> Result<DeviceStatus, LoginError> {
    let start = LoginStart::Email { address };
    let started: LoginStarted = ask(gateway, Call::LogIn(start))?;
    person.say("If that address may log in here, a code is on its way to it.");
    let mut tries = 0;
    loop {
        let code = person
            .ask("Code from the e-mail: ")
            .ok_or(LoginError::NoTerminal)?;
        tries += 1;
        let finish = LoginFinish {
            id: started.id.clone(),
            code: Some(code.trim().to_owned()),
            state: None,
            iss: None,
        };
        match ask(gateway, Call::FinishLogin(finish)) {
            Err(error) if is(&error, ErrorCode::WrongCode) && tries < CODE_TRIES => {
                person.say("That is not the code.");
            }
            done => return Ok(done?),
        }
    }
}

fn ask<T: DeserializeOwned>(gateway: &impl Gateway, call: Call) -> Result<T, CallError> {
    api::read(gateway.call(call)?)
}

fn is(error: &CallError, code: ErrorCode) -> bool {
    matches!(error, CallError::Refused(refusal) if refusal.code == code)
}

/// An address for a browser and nothing that a terminal or a shell would obey.
fn is_web(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://"))
        && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Text from elsewhere, without anything that a terminal would obey.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests;
