//! Flows that are open now, as attempts of this moment. One that began before the time that is
//! looked at, and is open still, has no record in it.

use crate::attempt::Attempt;
use postern_proto::now::Wall;

/// The flows that began before some moment and are open, as the gateway says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// The oldest first.
    pub flows: Vec<LiveFlow>,
    /// There may be more than these.
    pub more: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveFlow {
    /// When it began, to the millisecond, rounded down.
    pub opened: Wall,
    /// Of this moment, by how the device stands now.
    pub attempt: Attempt,
}
