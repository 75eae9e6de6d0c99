//! What time alone changes: a login ends, a report becomes stale, a login is too old for a rule.
//! The live flows of the device are judged again at that moment, not with their next packet.
//!
//! Such moments are of the wall clock. While one is to come, the two clocks are compared at least
//! every [`CLOCK_CHECK`], so that a step of it, or a sleep of the host, is noticed. A step back
//! makes a moment come again: who opens a flow after it is watched anew.

use super::Gateway;
use super::rejudge::{CUT_WORK, JUDGED_AT_ONCE};
use postern_proto::now::{Mono, Now, Wall};
use postern_proto::outbox::Outbox;
use postern_proto::peers::PeerId;
use std::time::Duration;

/// The longest pause between two looks at the wall clock.
const CLOCK_CHECK: Duration = Duration::from_millis(500);

impl Gateway {
    /// Notes when the flows of a device must be judged again: once for each policy and each
    /// change of the facts.
    pub(super) fn watch(&mut self, peer: PeerId, now: Now) {
        let window = self.next_window(now.wall);
        let Some(device) = self.devices.get_mut(peer) else {
            return;
        };
        if let Some((generation, at)) = device.watched_for
            && generation == self.policy_generation
            && at <= now.wall
        {
            return;
        }
        device.watched_for = Some((self.policy_generation, now.wall));
        let own = self.policy.next_own_change(&device.subject, now.wall);
        let due = own.into_iter().chain(window).min();
        let before = std::mem::replace(&mut device.due, due);
        if before != due {
            if let Some(before) = before {
                self.due.remove(&(before, peer));
            }
            self.due.extend(due.map(|due| (due, peer)));
            self.clocks = now;
        }
    }

    /// When a window of the policy opens or closes: found once for each policy and each such moment,
    /// not for each device.
    fn next_window(&mut self, now: Wall) -> Option<Wall> {
        let (generation, since, until) = self.window;
        if generation != self.policy_generation
            || now < since
            || until.is_some_and(|until| until <= now)
        {
            let until = self.policy.next_window(now);
            self.window = (self.policy_generation, now, until);
        }
        self.window.2
    }

    /// Judges again what is due; as much of it as one turn may take.
    pub(super) fn judge_due(&mut self, out: &mut impl Outbox, now: Now) {
        self.clocks = now;
        let mut judged = 0;
        while let Some(&(at, peer)) = self.due.first()
            && at <= now.wall
            && judged < JUDGED_AT_ONCE
        {
            self.due.pop_first();
            if let Some(device) = self.devices.get_mut(peer) {
                device.due = None;
                device.refresh(now.wall);
                judged += device.flows + 1;
            }
            let changed = Mono(now.mono.0.saturating_sub(now.wall.0 - at.0));
            let cut = self.judge_device(peer, changed, out, now);
            judged += CUT_WORK * usize::try_from(cut.flows).unwrap_or(JUDGED_AT_ONCE);
        }
    }

    /// When [`Gateway::judge_due`] has something to do.
    pub(super) fn next_due(&self) -> Mono {
        self.due.first().map_or(Mono::NEVER, |&(Wall(at), _)| {
            let wait = at.saturating_sub(self.clocks.wall.0);
            self.clocks.mono + Duration::from_nanos(wait).min(CLOCK_CHECK)
        })
    }
}
