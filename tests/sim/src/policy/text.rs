//! The text that the engine reads.

use super::{Place, Rule, Rules};
use crate::state::CHECKS;
use std::fmt::Write as _;

impl Rules {
    pub(super) fn text(&self) -> String {
        let mut text = String::from("version: 1\ntargets:\n");
        let places = self.rules.iter().flat_map(|rule| &rule.to);
        for (n, place) in places.enumerate() {
            target(&mut text, &format!("target{n}"), place);
        }
        for (name, place) in self.grants.iter().flat_map(|entry| entry.places()) {
            target(&mut text, name, place);
        }
        if text.ends_with("targets:\n") {
            text.truncate("version: 1\n".len());
        }
        text.push_str("posture:\n");
        for (name, check) in CHECKS {
            let _ = writeln!(text, "  {name}: {check}");
        }
        text.push_str("rules:\n");
        let mut n = 0;
        for rule in &self.rules {
            let action = if rule.allow { "allow" } else { "deny" };
            let _ = writeln!(text, "  - name: {}\n    action: {action}", rule.name);
            if rule.shadow {
                text.push_str("    mode: shadow\n");
            }
            if let Some((hours, _, _)) = rule.hours {
                let _ = writeln!(text, "    when: {{ hours: \"{hours}\" }}");
            }
            let to: Vec<String> = rule
                .to
                .iter()
                .map(|_| (format!("target{n}"), n += 1).0)
                .collect();
            let to = if to.is_empty() {
                "anything".into()
            } else {
                format!("[{}]", to.join(", "))
            };
            let _ = writeln!(text, "    from: {}\n    to: {to}", rule.from());
        }
        if !self.grants.is_empty() {
            text.push_str("grants:\n");
        }
        for entry in &self.grants {
            let (name, from, to) = (&entry.rule.name, entry.rule.from(), entry.names.join(", "));
            let (max, break_glass) = (entry.max, entry.break_glass);
            let _ = writeln!(
                text,
                "  - {{ name: {name}, from: {from}, to: [{to}], max: {max}s, break_glass: {break_glass} }}"
            );
        }
        text
    }
}

impl Rule {
    fn from(&self) -> String {
        let mut from = Vec::new();
        let mut field = |name: &str, items: &[&str]| {
            if !items.is_empty() {
                from.push(format!("{name}: [{}]", items.join(", ")));
            }
        };
        field("users", &self.users);
        field("groups", &self.groups);
        let devices: Vec<&str> = self.devices.iter().map(String::as_str).collect();
        field("devices", &devices);
        field("posture", &self.posture);
        field("outer", &self.outer);
        from.extend(self.session_age.map(|age| format!("session_age: {age}s")));
        if from.is_empty() {
            "anyone".into()
        } else {
            format!("{{ {} }}", from.join(", "))
        }
    }
}

fn target(text: &mut String, name: &str, place: &Place) {
    let (prefixes, ports) = (place.prefixes.join("\", \""), place.ports.join(", "));
    let _ = writeln!(
        text,
        "  {name}: {{ addresses: [\"{prefixes}\"], ports: [{ports}] }}"
    );
}
