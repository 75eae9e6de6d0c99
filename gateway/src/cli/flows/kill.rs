//! `flows kill`.

use super::{Failure, Where, output};
use crate::api::{CutView, Destination, FlowFilter};
use clap::{ArgGroup, Args};

/// Live flows that match all of it.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true)
    .args(["ids", "device", "user", "to"]))]
pub(in crate::cli) struct Kill {
    /// Numbers from `flows list`.
    ids: Vec<u64>,
    /// Of this device.
    #[arg(long)]
    device: Option<String>,
    /// Of this user.
    #[arg(long)]
    user: Option<String>,
    /// To this destination: ADDRESS, RANGE or ADDRESS:PORT[/PROTOCOL].
    #[arg(long, value_name = "DESTINATION")]
    to: Option<Destination>,
    #[command(flatten)]
    place: Where,
}

impl Kill {
    /// Exit code 1 when nothing matched.
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let (_, client) = self.place.client()?;
        let mut flows = 0;
        for filter in self.filters() {
            let cut: CutView = client.post("/v1/flows/kill", &filter).await?;
            flows += cut.flows;
        }
        output::say(format_args!("{flows} flows were cut"))?;
        Ok(u8::from(flows == 0))
    }

    fn filters(&self) -> Vec<FlowFilter> {
        let filter = |id| FlowFilter {
            id,
            device: self.device.clone(),
            user: self.user.clone(),
            to: self.to,
            opened_before: None,
        };
        if self.ids.is_empty() {
            vec![filter(None)]
        } else {
            self.ids.iter().map(|id| filter(Some(*id))).collect()
        }
    }
}
