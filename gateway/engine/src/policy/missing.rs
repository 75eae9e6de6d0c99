//! What stands between somebody and a rule, wherever the rule leads.

use super::{Failed, Policy, RuleId, Subject};
use postern_proto::now::Wall;

impl Policy {
    /// What a rule asks of `who` and does not find; nothing where it is for them now. Whether an
    /// earlier rule comes first is not in it.
    #[must_use]
    pub fn missing(&self, id: RuleId, who: &Subject, now: Wall) -> Vec<Failed> {
        let Some(rule) = self.rule(id) else {
            return Vec::new();
        };
        let failing = rule.from.failing(&self.index(who), now);
        failing
            .iter()
            .map(|condition| self.unmet(condition, &rule.from, who, now))
            .collect()
    }
}
