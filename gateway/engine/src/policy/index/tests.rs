use super::*;
use proptest::prelude::*;

fn tree(ports: &[(u16, u16)]) -> Vec<Node> {
    let mut tree = Vec::new();
    for (id, (low, high)) in (0u32..).zip(ports) {
        let (low, high) = (*low.min(high), *low.max(high));
        let hit = (id / 2, DestinationId(id));
        tree.push(Node::new(Entry { low, high, hit }, RestId(id)));
    }
    build::sort_tree(&mut tree);
    tree
}

proptest! {
    #[test]
    fn a_tree_knows_the_first_that_applies(
        ports in proptest::collection::vec((0u16..40, 0u16..40), 0..90),
        fails in proptest::collection::vec(any::<bool>(), 90),
        best in proptest::option::of(0u32..90),
    ) {
        let tree = tree(&ports);
        let best = best.map(|id| (id / 2, DestinationId(id)));
        let applies = |RestId(id)| !fails[id as usize];
        for port in 0..41 {
            let holds = |node: &&Node| (node.entry.low..=node.entry.high).contains(&port);
            let hits = tree.iter().filter(holds).map(|node| node.entry.hit);
            let first = hits.filter(|hit| applies(RestId(hit.1.0))).chain(best).min();
            prop_assert_eq!(first_in(&tree, port, best, &applies), first);
        }
    }
}

/// How many of `size` rules a look-up asks.
fn asked(ports: impl Fn(u16) -> (u16, u16), size: u16, port: u16, applies: bool) -> usize {
    let ports: Vec<_> = (0..size).map(ports).collect();
    let asked = std::cell::Cell::new(0);
    first_in(&tree(&ports), port, None, &|_| {
        asked.set(asked.get() + 1);
        applies
    });
    asked.get()
}

#[test]
fn rules_that_cannot_win_are_not_asked() {
    assert_eq!(asked(|n| (n, n), 10_000, 5000, true), 1, "own ports");
    assert_eq!(asked(|n| (n, n), 10_000, 10_000, true), 0);
    assert_eq!(asked(|_| (22, 22), 10_000, 22, true), 1, "one port");
}
