//! What stands between somebody and a rule, wherever the rule leads.

use super::{Failed, Policy, RuleId, Subject};
use postern_proto::now::Wall;

impl Policy {
    /// What a rule, or an entry of `grants:`, asks of `who` and does not find; nothing where it is
    /// for them now. Whether an earlier rule comes first, or a grant lives, is not in it.
    #[must_use]
    pub fn missing(&self, id: RuleId, who: &Subject, now: Wall) -> Vec<Failed> {
        let rule = self.rule(id).map(|rule| &rule.from);
        let Some(from) = rule.or_else(|| Some(&self.entry(id)?.from)) else {
            return Vec::new();
        };
        let failing = from.failing(&self.index(who), now);
        failing
            .iter()
            .map(|condition| self.unmet(condition, from, who, now))
            .collect()
    }
}
