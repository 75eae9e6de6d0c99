//! Grants: access for a while, asked for by one person and approved by another.

use serde::{Deserialize, Serialize};

/// What [`RequestGrant::id`] is made of: letters and digits that are not taken for each other, 5
/// bits each.
pub const ID_LETTERS: &[u8; 32] = b"23456789abcdefghijkmnpqrstuvwxyz";
/// How many of them.
pub const ID_LENGTH: usize = 12;
/// The fewest and the most characters of a reason.
pub const REASON_LENGTH: (usize, usize) = (3, 200);

/// `POST /v1/grants`: asks for access for a while. Answer: [`GrantView`]. Durable before it is
/// answered; the same request gets the grant that it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestGrant {
    /// Random: [`ID_LENGTH`] of [`ID_LETTERS`]. It names the grant from now on.
    pub id: String,
    /// The name of a target, or `192.0.2.10:22/tcp`.
    pub target: String,
    /// For how long.
    pub seconds: u32,
    /// Why: [`REASON_LENGTH`] characters, see [`reason`].
    pub reason: String,
    /// At once, without approval; every use alerts.
    #[serde(default)]
    pub break_glass: bool,
}

/// `POST /v1/grants/{id}/approve` and `/deny`, by somebody else. Answer: [`GrantView`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecideGrant {
    /// A word to who asked: see [`reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `GET /v1/grants`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Those of who asks, on all their devices: open ones first, newest first.
    pub own: Vec<GrantView>,
    /// Those of others that wait for who asks to decide, and live ones that they may end; oldest
    /// first.
    pub to_decide: Vec<GrantView>,
    /// Those to decide that are left out because there are so many.
    pub left_out: u32,
}

/// A request and what became of it. Times are seconds since 1970. `GET /v1/grants/{id}`, and the
/// answer to `DELETE` of it, which takes it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantView {
    /// Names it in records and commands.
    pub id: String,
    /// How it stands.
    pub state: GrantState,
    /// For which device.
    pub device: String,
    /// Whose it is; absent for a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What was asked for.
    pub target: String,
    /// For how long, in seconds.
    pub seconds: u64,
    /// Why, in the words of who asked.
    pub reason: String,
    /// Nobody approved it.
    pub break_glass: bool,
    /// The entry of the policy's `grants:` that it rests on.
    pub entry: String,
    /// When it was asked for.
    pub asked: u64,
    /// When it is over if nobody decides.
    pub decide_by: u64,
    /// When somebody decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<u64>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// What they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word: Option<String>,
    /// From when it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// When it was over, or taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// Who took it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
}

/// A grant that lives, in [`DeviceStatus`](super::DeviceStatus).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveGrant {
    /// Names it in records and commands.
    pub id: String,
    /// What it gives access to.
    pub target: String,
    /// Why, in the words of who asked.
    pub reason: String,
    /// Nobody approved it.
    pub break_glass: bool,
    /// Until when, seconds since 1970.
    pub until: u64,
}

/// How a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantState {
    /// Nobody has decided yet.
    Waits,
    /// It gives access.
    Live,
    /// Somebody said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// Taken back before it was decided.
    Withdrawn,
    /// Its time is over.
    Over,
    /// Taken back before its end.
    Revoked,
}

impl GrantState {
    /// As JSON has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            GrantState::Waits => "waits",
            GrantState::Live => "live",
            GrantState::Denied => "denied",
            GrantState::Expired => "expired",
            GrantState::Withdrawn => "withdrawn",
            GrantState::Over => "over",
            GrantState::Revoked => "revoked",
        }
    }
}

/// An id made of random bytes.
#[must_use]
pub fn id(random: [u8; ID_LENGTH]) -> String {
    let letters = random.map(|byte| ID_LETTERS[usize::from(byte & 31)]);
    letters.iter().map(|&letter| char::from(letter)).collect()
}

/// Whether a text has the form of an id.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| ID_LETTERS.contains(&byte))
}

/// What a reason must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reason is one line of 3 to 200 printable characters, such as `INC-42: disk full`")]
pub struct BadReason;

/// A reason without the white space around it.
///
/// # Errors
/// It is too short, too long, or has characters that do not show what is written: control
/// characters and those that turn or hide text.
pub fn reason(text: &str) -> Result<&str, BadReason> {
    let (fewest, most) = REASON_LENGTH;
    let trimmed = text.trim();
    let unseen = |c: char| {
        c.is_control()
            || matches!(c,
                '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}')
    };
    let good = trimmed.chars().count() >= fewest
        && text.chars().count() <= most
        && !trimmed.chars().any(unseen);
    good.then_some(trimmed).ok_or(BadReason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_twelve_letters_that_are_not_taken_for_each_other() {
        let mut random = [0; ID_LENGTH];
        random[3] = 255;
        assert_eq!(id(random), "222z22222222");
        assert!(is_id("222z22222222"));
        for bad in [
            "",
            "222z2222222",
            "222z222222222",
            "222l22222222",
            "222Z22222222",
        ] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_reason_shows_what_it_says() {
        assert_eq!(
            reason("  INC-42: Platte voll – ä "),
            Ok("INC-42: Platte voll – ä")
        );
        let (long, longer) = ("x".repeat(200), "x".repeat(201));
        assert!(reason(&long).is_ok());
        for bad in [
            "",
            "ab",
            "   a   ",
            &longer,
            "a\nb c",
            "tx\u{202e}evil",
            "a\u{200b}bcd",
        ] {
            assert_eq!(reason(bad), Err(BadReason), "{bad:?}");
        }
    }
}
