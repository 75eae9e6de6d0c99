//! What an admin calls devices: `env=prod`. A key has one value.

use super::devices::Device;
use super::{Store, StoreError, list_text, refused};

/// The most labels of one device.
pub const MAX_LABELS: usize = 32;

/// The longest key and the longest value, bytes.
const MAX_PART: usize = 63;

impl Store {
    /// Takes labels away by their keys, then sets others. A key that it had gets the new value.
    ///
    /// # Errors
    /// The words are odd, there is no such device that may connect, it has no label of such a key,
    /// it would have more than [`MAX_LABELS`], or the database failed. Nothing was changed then.
    pub async fn change_labels(
        &self,
        device: &str,
        set: &[String],
        unset: &[String],
    ) -> Result<Device, StoreError> {
        let set = labels(set)?;
        let mut tx = self.begin().await?;
        let row = sqlx::query("SELECT labels, revoked FROM devices WHERE name = $1")
            .bind(device)
            .fetch_optional(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        let row = row.ok_or_else(|| super::devices::no_device(device))?;
        if self.time(&row, "revoked")?.is_some() {
            return Err(refused(
                format!("'{device}' is revoked"),
                "a revoked device never comes back; invite it again".into(),
            ));
        }
        let mut all = self.list(&row, "labels")?;
        for given in unset {
            let before = all.len();
            // `env` whatever its value, `env=prod` only that.
            all.retain(|had| had != given && key(had) != given);
            if all.len() == before {
                return Err(StoreError::Absent {
                    what: "label",
                    name: given.clone(),
                });
            }
        }
        all.retain(|had| !set.iter().any(|new| key(new) == key(had)));
        all.extend(set);
        let all = labels(&all)?;
        sqlx::query("UPDATE devices SET labels = $2 WHERE name = $1")
            .bind(device)
            .bind(list_text(&all)?)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        self.commit(tx).await?;
        self.device(device).await
    }
}

/// Proves labels, and sorts them.
pub(super) fn labels(given: &[String]) -> Result<Vec<String>, StoreError> {
    let mut labels = given.to_vec();
    labels.sort();
    labels.dedup();
    for label in &labels {
        let good = label
            .split_once('=')
            .is_some_and(|(key, value)| part(key) && part(value));
        if !good {
            return Err(refused(
                format!("'{}' is no label", label.escape_debug()),
                format!(
                    "write KEY=VALUE, such as env=prod; each 1 to {MAX_PART} of \
                     A-Z a-z 0-9 . _ - / @"
                ),
            ));
        }
    }
    if let Some(pair) = labels
        .windows(2)
        .find(|pair| key(&pair[0]) == key(&pair[1]))
    {
        return Err(refused(
            format!("'{}' and '{}' have the same key", pair[0], pair[1]),
            "a key has one value".into(),
        ));
    }
    if labels.len() > MAX_LABELS {
        return Err(refused(
            format!("{} labels are too many for a device", labels.len()),
            format!("a device has at most {MAX_LABELS}; unset those that are not needed"),
        ));
    }
    Ok(labels)
}

fn part(text: &str) -> bool {
    (1..=MAX_PART).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/@".contains(&b))
}

fn key(label: &str) -> &str {
    label.split_once('=').map_or(label, |(key, _)| key)
}
