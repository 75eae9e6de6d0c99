//! `flows pseudonym`.

use super::{Failure, Where, output};
use crate::flow_log::privacy::PseudonymKey;
use clap::Args;

/// Say what records call somebody whose name they do not keep.
#[derive(Debug, Args)]
pub(in crate::cli) struct Pseudonym {
    /// A user, a device, the first characters of its key, or an address.
    name: String,
    #[command(flatten)]
    place: Where,
}

impl Pseudonym {
    pub(super) fn obey(self) -> Result<u8, Failure> {
        let config = self.place.load()?;
        let key = PseudonymKey::read(&config.data_dir).map_err(Failure::failed)?;
        output::say(format_args!("{}", key.pseudonym_of(&self.name)))?;
        Ok(0)
    }
}
