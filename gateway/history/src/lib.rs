//! The past, judged again. The evaluator is a pure function and every record names its inputs, so
//! an answer about the past is exact: the same policy gives the same verdict.
//!
//! | module | what it knows |
//! |---|---|
//! | `facts` | how a device stood, as text that names itself by its hash |
//! | `attempt` | a line of the flow log as what was asked, by whom, and what came of it |
//! | `past` | how whoever made an attempt stood then |
//! | `live` | flows that are open now, as attempts |
//! | `plan` | attempts judged again under another policy: what would have been different |
//! | `suggest` | the tightest policy that keeps what was used |
//! | `diff` | what another policy says otherwise |
//! | `inputs` | what a rule asks for, and what there was |
//! | `reach` | who can reach a place, and which places somebody can reach |
//!
//! No file and no clock: whoever calls reads the log and the store.

pub mod attempt;
pub mod diff;
pub mod facts;
pub mod inputs;
pub mod live;
pub mod past;
pub mod plan;
pub mod reach;
pub mod suggest;

pub use attempt::Attempt;
pub use facts::{BadFacts, FactsText};
pub use live::{Live, LiveFlow};
pub use past::NoFacts;
