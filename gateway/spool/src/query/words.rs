//! Closed lists of words, as they stand in lines and on the command line.

use std::fmt;
use std::str::FromStr;

/// A word that is not on a closed list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no {what}; write one of: {known}")]
pub struct BadWord {
    what: &'static str,
    text: String,
    known: String,
}

/// Declares a closed list of words as they stand in a line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal: $($(#[$of:meta])* $word:ident = $text:literal),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $word),+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$word),+];

            /// As in the line.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$word => $text),+ }
            }
        }

        impl FromStr for $name {
            type Err = BadWord;

            fn from_str(text: &str) -> Result<Self, BadWord> {
                let found = Self::ALL.iter().find(|word| word.as_str() == text);
                found.copied().ok_or_else(|| BadWord {
                    what: $what,
                    text: text.to_owned(),
                    known: Self::ALL.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
words! {
    /// What a line is about.
    Kind, "kind":
    /// An attempt to reach a target.
    Flow = "flow",
    /// The log itself.
    Log = "log",
    /// What an operator did.
    Audit = "audit"
}

words! {
    /// Allowed or refused.
    Verdict, "verdict":
    /// A rule permits it.
    Allow = "allow",
    /// A rule forbids it, or none permits it.
    Deny = "deny"
}

words! {
    /// Which moment of an attempt.
    State, "state":
    /// Allowed, and its first packet forwarded.
    Open = "open",
    /// Over.
    Closed = "closed",
    /// Refused.
    Denied = "denied"
}

words! {
    /// What counts.
    By, "measure":
    /// Bytes both ways, of closed flows.
    Bytes = "bytes",
    /// Packets both ways, of closed flows.
    Packets = "packets",
    /// Attempts: flows opened and refusals.
    Flows = "flows",
    /// Refusals.
    Denials = "denials"
}

words! {
    /// Whose share.
    Of, "key":
    /// Each user.
    User = "user",
    /// Each device.
    Device = "device",
    /// Each name that the policy has for a destination.
    Target = "target",
    /// Each address, port and protocol.
    Destination = "destination",
    /// Each rule.
    Rule = "rule"
}
