//! What valgrind's callgrind wrote down, as far as it is needed (Callgrind Format Specification):
//! instructions by function, and how often memory was asked for.

use std::collections::HashMap;

/// Functions of the cipher: ring's assembler, which picks its code by the processor.
const CIPHER: [&str; 3] = ["ring_core_", "chacha20", "poly1305"];

/// What a program asks memory with, in the end.
const ALLOCATORS: [&str; 5] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];

/// The cost of what was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Instructions outside the cipher.
    pub ours: u64,
    /// Instructions of the cipher.
    pub cipher: u64,
    /// Calls for heap memory.
    pub allocations: u64,
    /// Instructions by function, the cipher's included, the dearest first.
    pub functions: Vec<(String, u64)>,
}

impl Cost {
    /// Reads a profile; `None` if it is none.
    #[must_use]
    pub fn parse(profile: &str) -> Option<Cost> {
        let mut names: HashMap<&str, &str> = HashMap::new();
        let mut by_function: HashMap<&str, u64> = HashMap::new();
        let mut cost = Cost::default();
        let mut function = "";
        let mut called = "";
        let mut of_call = false;
        let mut is_profile = false;
        for line in profile.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = resolve(&mut names, name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                called = resolve(&mut names, name);
            } else if let Some(call) = line.strip_prefix("calls=") {
                let calls: u64 = call.split(' ').next()?.parse().ok()?;
                if ALLOCATORS.contains(&called) {
                    cost.allocations += calls;
                }
                // The next line is what the call cost, which the called function has already.
                of_call = true;
            } else if line
                .starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first))
            {
                let instructions: u64 = line.split(' ').nth(1)?.parse().ok()?;
                if !std::mem::take(&mut of_call) {
                    *by_function.entry(function).or_default() += instructions;
                }
            } else if line.starts_with("events: Ir") {
                is_profile = true;
            }
        }
        for (name, instructions) in by_function {
            if CIPHER.iter().any(|part| name.contains(part)) {
                cost.cipher += instructions;
            } else {
                cost.ours += instructions;
            }
            cost.functions.push((name.to_owned(), instructions));
        }
        cost.functions
            .sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        is_profile.then_some(cost)
    }
}

/// A name is written out once, with its number; afterwards the number stands for it.
fn resolve<'a>(names: &mut HashMap<&'a str, &'a str>, text: &'a str) -> &'a str {
    match text.split_once(' ') {
        Some((number, name)) if number.starts_with('(') => {
            // A function that calls itself is numbered: name'2.
            let name = name.split('\'').next().unwrap_or(name);
            names.insert(number, name);
            name
        }
        _ => names.get(text).copied().unwrap_or(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
# callgrind format
version: 1
events: Ir
fn=(1) postern::road
0 100
cfn=(2) malloc
calls=3 0
0 900
cfn=(3) ring_core_0_17_14__chacha20_poly1305_seal_avx2
calls=2 0
0 5000
0 7

fn=(2)
0 900

fn=(3)
+2 5000
";

    #[test]
    fn a_call_costs_only_the_called() {
        let cost = Cost::parse(PROFILE).unwrap();
        assert_eq!((cost.ours, cost.cipher, cost.allocations), (1007, 5000, 3));
        assert_eq!(cost.functions[1], ("malloc".to_owned(), 900));
    }

    #[test]
    fn another_file_is_no_profile() {
        assert_eq!(Cost::parse("hello\n"), None);
    }
}
