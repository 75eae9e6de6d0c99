//! From an ID token to a user: what is believed, and of whom. Time is an argument.

use super::Proven;
use super::pending::after;
use crate::config::{ProviderConfig, UserClaim};
use openidconnect::core::{
    CoreGenderClaim, CoreJsonWebKey, CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
};
use openidconnect::{
    AdditionalClaims, ClaimsVerificationError, ClientId, IdToken, IdTokenClaims, IdTokenVerifier,
    IssuerUrl, Nonce, SignatureVerificationError,
};
use postern_proto::now::Wall;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::{Duration, UNIX_EPOCH};

/// Groups that one login brings, at most. A provider can be told to list fewer.
const MOST_GROUPS: usize = 256;
/// Bytes of a group's or user's name, at most; as for devices.
const LONGEST_NAME: usize = 254;
/// Entries of `amr`, at most.
const MOST_METHODS: usize = 16;

/// What a provider can sign with: public keys, all of them. `none` and HMAC are not among them,
/// so nobody can sign with what everybody knows.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Claims that OpenID Connect has no field for.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Rest {
    #[serde(flatten)]
    all: Map<String, Value>,
}

impl AdditionalClaims for Rest {}

pub(super) type Token =
    IdToken<Rest, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

/// Why nobody is proved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The keys at hand cannot tell: the provider may have new ones.
    #[error("the ID token is signed with a key that the provider does not publish")]
    UnknownKey,
    /// The token does not hold.
    #[error("the ID token does not hold: {0}")]
    Token(String),
    /// The token holds, and does not say who the user is.
    #[error("{0}")]
    Claims(String),
}

/// A token that holds: signed by the issuer, for this gateway, for this login, now.
pub(super) struct Verified {
    subject: String,
    amr: Vec<String>,
    acr: Option<String>,
    at: Wall,
    claims: Map<String, Value>,
}

impl Verified {
    /// Verifies. Without `nonce` it is not asked for: the device-code flow has none.
    pub(super) fn new(
        token: &Token,
        config: &ProviderConfig,
        keys: CoreJsonWebKeySet,
        nonce: Option<&Nonce>,
        now: Wall,
    ) -> Result<Verified, Refusal> {
        let issuer = IssuerUrl::new(config.issuer.clone())
            .map_err(|error| Refusal::Token(error.to_string()))?;
        let client = ClientId::new(config.client_id.clone());
        let skew = config.clock_skew;
        let latest = seconds(after(now, skew));
        let earliest = UNIX_EPOCH + Duration::from_nanos(now.0).saturating_sub(skew);
        let not_later = move |what: &'static str, at: i64| {
            if at <= latest {
                return Ok(());
            }
            Err(format!("{what} lies in the future"))
        };
        let verifier: IdTokenVerifier<'_, CoreJsonWebKey> =
            IdTokenVerifier::new_public_client(client, issuer, keys)
                .set_allowed_algs(ALGORITHMS)
                .set_time_fn(move || earliest.into())
                .set_issue_time_verifier_fn(move |at| not_later("iat", at.timestamp()))
                .set_auth_time_verifier_fn(move |at| {
                    at.map_or(Ok(()), |at| not_later("auth_time", at.timestamp()))
                });
        let same = |said: Option<&Nonce>| match (nonce, said) {
            (Some(nonce), said) => openidconnect::NonceVerifier::verify(nonce, said),
            (None, _) => Ok(()),
        };
        let claims = token.claims(&verifier, same).map_err(refusal)?;
        Verified::of(claims, config, now, latest)
    }

    /// What the library leaves to its user.
    fn of(
        claims: &IdTokenClaims<Rest, CoreGenderClaim>,
        config: &ProviderConfig,
        now: Wall,
        latest: i64,
    ) -> Result<Verified, Refusal> {
        let wrong = |problem: &str| Err(Refusal::Token(problem.to_owned()));
        if let Some(party) = claims.authorized_party()
            && party.as_str() != config.client_id
        {
            return wrong("azp is another client");
        }
        if let Some(from) = claims.additional_claims().all.get("nbf")
            && from.as_f64().is_none_or(|from| from > latest as f64)
        {
            return wrong("nbf lies in the future");
        }
        let subject = claims.subject().as_str();
        if subject.is_empty() || subject.len() > 255 || subject.chars().any(char::is_control) {
            return wrong("sub is empty, too long, or no text");
        }
        let mut amr: Vec<String> = claims
            .auth_method_refs()
            .map(|all| all.iter().map(|method| method.to_string()).collect())
            .unwrap_or_default();
        if amr.len() > MOST_METHODS || !amr.iter().all(|method| is_name(method)) {
            return wrong("amr is too long, or no list of words");
        }
        amr.sort();
        amr.dedup();
        let acr = claims.auth_context_ref().map(|acr| acr.to_string());
        if acr.as_ref().is_some_and(|acr| !is_name(acr)) {
            return wrong("acr is too long, or no word");
        }
        let at = claims.auth_time().map_or(now, |at| {
            let at = u64::try_from(at.timestamp()).unwrap_or(0);
            Wall(at.saturating_mul(1_000_000_000)).min(now)
        });
        let Ok(Value::Object(all)) = serde_json::to_value(claims) else {
            return wrong("it holds no claims");
        };
        Ok(Verified {
            subject: subject.to_owned(),
            amr,
            acr,
            at,
            claims: all,
        })
    }

    /// Whether the token says all that is needed; otherwise the userinfo endpoint may.
    pub(super) fn says_all(&self, config: &ProviderConfig) -> bool {
        let has = |claim: &str| self.claims.contains_key(claim);
        let user = match config.user_claim {
            UserClaim::Email => has("email") && has("email_verified"),
            UserClaim::PreferredUsername => has("preferred_username"),
            UserClaim::Sub => true,
        };
        user && config.groups_claim.as_deref().is_none_or(has)
    }

    /// Adds what the userinfo endpoint says of the same subject. What the token says stays; an
    /// address and whether it is verified come from one place.
    pub(super) fn add(&mut self, info: Map<String, Value>) -> Result<(), Refusal> {
        // OpenID Connect Core, section 5.3.2: or it may be somebody else's.
        if info.get("sub").and_then(Value::as_str) != Some(&self.subject) {
            let problem = "the userinfo endpoint speaks of another subject".to_owned();
            return Err(Refusal::Claims(problem));
        }
        let vouched = ["email", "email_verified"];
        if !vouched.iter().all(|claim| self.claims.contains_key(*claim)) {
            self.claims
                .retain(|claim, _| !vouched.contains(&claim.as_str()));
        }
        for (name, value) in info {
            self.claims.entry(name).or_insert(value);
        }
        Ok(())
    }

    /// Who it is.
    pub(super) fn proven(self, config: &ProviderConfig) -> Result<Proven, Refusal> {
        Ok(Proven {
            user: user(&self.claims, &self.subject, config.user_claim)?,
            groups: groups(&self.claims, config.groups_claim.as_deref())?,
            issuer: config.issuer.clone(),
            subject: self.subject,
            method: "oidc",
            amr: self.amr,
            acr: self.acr,
            at: self.at,
        })
    }
}

fn user(claims: &Map<String, Value>, subject: &str, claim: UserClaim) -> Result<String, Refusal> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let wrong = |problem: &str| Err(Refusal::Claims(problem.to_owned()));
    let name = match claim {
        UserClaim::Sub => subject,
        UserClaim::PreferredUsername => match text("preferred_username") {
            Some(name) => name,
            None => return wrong("the provider does not say preferred_username"),
        },
        UserClaim::Email => match (text("email"), claims.get("email_verified")) {
            (Some(email), Some(Value::Bool(true))) => email,
            (Some(_), Some(_)) => {
                return wrong("the provider says that the e-mail address is not verified");
            }
            (Some(_), None) => {
                return wrong("the provider does not say whether the e-mail address is verified");
            }
            (None, _) => return wrong("the provider does not say email"),
        },
    };
    let clean = is_name(name) && !name.chars().any(char::is_whitespace);
    if !clean {
        return wrong("the user's name is empty, too long, or has spaces");
    }
    Ok(name.to_lowercase())
}

/// All of them or none: where a group is left out, a rule that denies it would not.
fn groups(claims: &Map<String, Value>, claim: Option<&str>) -> Result<Vec<String>, Refusal> {
    let Some(claim) = claim else {
        return Ok(Vec::new());
    };
    let wrong = |problem: String| Err(Refusal::Claims(problem));
    // OpenID Connect Core, section 5.6.2: the list is somewhere else, because it is too long.
    let elsewhere = claims
        .get("_claim_names")
        .and_then(|names| names.get(claim));
    let mut all = match claims.get(claim) {
        None | Some(Value::Null) if elsewhere.is_some() => {
            return wrong(format!("the claim {claim} is too long for the provider"));
        }
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(list)) => {
            let texts = list.iter().map(|group| group.as_str().map(str::to_owned));
            match texts.collect::<Option<Vec<_>>>() {
                Some(texts) => texts,
                None => return wrong(format!("the claim {claim} is no list of names")),
            }
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            return wrong(format!("the claim {claim} is no list of names"));
        }
    };
    if all.len() > MOST_GROUPS {
        return wrong(format!(
            "the claim {claim} lists {} groups, more than {MOST_GROUPS}",
            all.len()
        ));
    }
    if !all.iter().all(|group| is_name(group)) {
        return wrong(format!("the claim {claim} holds a name that is none"));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
        && text.trim() == text
        && !text.chars().any(char::is_control)
}

fn refusal(error: ClaimsVerificationError) -> Refusal {
    let ClaimsVerificationError::SignatureVerification(signature) = error else {
        return Refusal::Token(error.to_string());
    };
    if signature == SignatureVerificationError::NoMatchingKey {
        return Refusal::UnknownKey;
    }
    Refusal::Token(signature.to_string())
}

fn seconds(at: Wall) -> i64 {
    i64::try_from(at.seconds()).unwrap_or(i64::MAX)
}
