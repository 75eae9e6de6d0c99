//! One-time codes: eight digits, three attempts, and how many are given out. Pure: randomness and
//! time are arguments.

use super::Who;
use super::address::Address;
use hmac::{Hmac, Mac};
use postern_proto::now::Wall;
use sha2::Sha256;
use std::collections::VecDeque;
use std::time::Duration;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Wrong attempts after which a code is worth nothing.
const ATTEMPTS: u8 = 3;

/// The time that the limits below are about.
const WINDOW: Duration = Duration::from_secs(3600);
/// Codes that one device may ask for. With three attempts each, guessing one takes centuries.
const PER_DEVICE: usize = 5;
/// Mails to one address, whoever asks.
const PER_ADDRESS: usize = 5;
/// Codes that all devices together may ask for, and the memory that the limits take: about 100
/// bytes each.
const OVER_ALL: usize = 300;
/// Of these, what devices without a user may ask for: an open invitation in the wrong hands keeps
/// no user out.
const WITHOUT_USER: usize = OVER_ALL / 2;

/// A code that was given out. What is kept does not show it to who looks at the memory or at a
/// log; who has all the memory and time can try all digits.
pub(super) struct Code {
    key: [u8; 32],
    digest: [u8; 32],
    attempts_left: u8,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It is the code.
    Right,
    /// It is not; so many attempts are left.
    Wrong(u8),
}

/// Whether one more code may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Yes.
    Yes,
    /// The address has got enough mails. Nobody is told: it would show that somebody else asked.
    NoMail,
    /// The device has asked too often.
    NotThisDevice,
    /// All devices together have.
    NotNow,
}

/// Who has asked for codes in the last hour.
#[derive(Debug, Default)]
pub(super) struct Asked(VecDeque<Ask>);

#[derive(Debug)]
struct Ask {
    at: Wall,
    device: String,
    has_user: bool,
    to: Address,
}

impl Code {
    /// A new one, and its digits in two groups: `1234-5678`.
    pub(super) fn new(key: [u8; 32], random: u64) -> (Code, Zeroizing<String>) {
        let digits = Zeroizing::new(format!("{:08}", random % 100_000_000));
        let code = Code {
            digest: digest(&key, &digits),
            key,
            attempts_left: ATTEMPTS,
        };
        let shown = format!("{}-{}", &digits[..4], &digits[4..]);
        (code, Zeroizing::new(shown))
    }

    /// Compares. Spaces and dashes do not count, everything else does.
    pub(super) fn attempt(&mut self, given: &str) -> Attempt {
        if self.attempts_left == 0 {
            return Attempt::Wrong(0);
        }
        let digits: Zeroizing<String> = Zeroizing::new(
            given
                .chars()
                .filter(|c| !c.is_whitespace() && *c != '-')
                .take(16)
                .collect(),
        );
        if digest(&self.key, &digits).ct_eq(&self.digest).into() {
            self.attempts_left = 0;
            return Attempt::Right;
        }
        self.attempts_left -= 1;
        Attempt::Wrong(self.attempts_left)
    }
}

impl Asked {
    /// Counts one more, unless there were too many.
    pub(super) fn admit(&mut self, who: Who<'_>, address: &Address, now: Wall) -> Admitted {
        let window = u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX);
        self.0.retain(|ask| now.0.abs_diff(ask.at.0) < window);
        let of_device = self.0.iter().filter(|ask| ask.device == who.device);
        if of_device.count() >= PER_DEVICE {
            return Admitted::NotThisDevice;
        }
        let without = self.0.iter().filter(|ask| !ask.has_user).count();
        if self.0.len() >= OVER_ALL || who.user.is_none() && without >= WITHOUT_USER {
            return Admitted::NotNow;
        }
        let mails = self.0.iter().filter(|ask| ask.to == *address).count();
        self.0.push_back(Ask {
            at: now,
            device: who.device.to_owned(),
            has_user: who.user.is_some(),
            to: address.clone(),
        });
        if mails >= PER_ADDRESS {
            Admitted::NoMail
        } else {
            Admitted::Yes
        }
    }
}

fn digest(key: &[u8; 32], digits: &str) -> [u8; 32] {
    // A key of any length is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    mac.update(digits.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::super::pending::after;
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const START: Wall = Wall(1_795_323_643_000_000_000);

    fn address(text: &str) -> Address {
        Address::parse(text).expect("address")
    }

    #[test]
    fn the_code_as_the_mail_has_it_is_right_once() {
        let (mut code, shown) = Code::new(KEY, 42);
        assert_eq!(shown.as_str(), "0000-0042");
        assert_eq!(code.attempt(&shown), Attempt::Right);
        assert_eq!(code.attempt(&shown), Attempt::Wrong(0));
        for typed in ["00000042", " 0000 0042\n", "0000 - 0042"] {
            let (mut code, _) = Code::new(KEY, 42);
            assert_eq!(code.attempt(typed), Attempt::Right, "{typed}");
        }
    }

    #[test]
    fn after_three_wrong_ones_the_right_one_is_wrong() {
        let (mut code, shown) = Code::new(KEY, 12_345_678);
        for (typed, left) in [("", 2), ("1234567", 1), ("12345679", 0)] {
            assert_eq!(code.attempt(typed), Attempt::Wrong(left));
        }
        assert_eq!(code.attempt(&shown), Attempt::Wrong(0));
    }

    fn by(device: &str) -> Who<'_> {
        Who {
            device,
            user: Some("ana"),
            from: None,
        }
    }

    fn stranger(device: &str) -> Who<'_> {
        Who {
            user: None,
            ..by(device)
        }
    }

    #[test]
    fn a_device_an_address_and_all_together_have_limits() {
        let mut asked = Asked::default();
        let ana = address("ana@example.com");
        for _ in 0..PER_DEVICE {
            assert_eq!(asked.admit(by("laptop"), &ana, START), Admitted::Yes);
        }
        let bob = address("bob@example.com");
        assert_eq!(
            asked.admit(by("laptop"), &bob, START),
            Admitted::NotThisDevice
        );
        assert_eq!(asked.admit(by("other"), &ana, START), Admitted::NoMail);
        assert_eq!(asked.admit(by("other"), &bob, START), Admitted::Yes);
        let later = after(START, WINDOW);
        assert_eq!(asked.admit(by("laptop"), &ana, later), Admitted::Yes);

        let mut asked = Asked::default();
        for n in 0..OVER_ALL {
            let to = address(&format!("a{n}@example.com"));
            let admitted = asked.admit(by(&format!("device{n}")), &to, START);
            assert_eq!(admitted, Admitted::Yes);
        }
        assert_eq!(asked.admit(by("laptop"), &ana, START), Admitted::NotNow);
        assert_eq!(asked.0.len(), OVER_ALL);

        let mut asked = Asked::default();
        for n in 0..OVER_ALL / 2 {
            let to = address(&format!("a{n}@example.com"));
            let admitted = asked.admit(stranger(&format!("device{n}")), &to, START);
            assert_eq!(admitted, Admitted::Yes);
        }
        let of_stranger = asked.admit(stranger("stranger"), &bob, START);
        assert_eq!(of_stranger, Admitted::NotNow);
        assert_eq!(asked.admit(by("laptop"), &ana, START), Admitted::Yes);
    }
}
