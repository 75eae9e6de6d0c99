//! What was looked up lately, within a bound of memory, in two generations: what is used again moves
//! to the young one; when that is half of the bound, the old one goes and the young one is old.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::hash::Hash;
use std::mem;

#[derive(Debug)]
pub(super) struct Cache<K, V> {
    /// Of the weights of both.
    bound: usize,
    young: HashMap<K, (V, usize), FixedState>,
    /// Of all that is in the young one.
    weight: usize,
    old: HashMap<K, (V, usize), FixedState>,
}

impl<K: Eq + Hash, V> Cache<K, V> {
    pub(super) fn new(bound: usize) -> Cache<K, V> {
        Cache {
            bound,
            young: HashMap::default(),
            weight: 0,
            old: HashMap::default(),
        }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        if let Some((key, (value, weight))) = self.old.remove_entry(key) {
            self.put(key, value, weight);
        }
        self.young.get(key).map(|(value, _)| value)
    }

    /// In place of what it had. What is heavier than half of the bound is not kept.
    pub(super) fn put(&mut self, key: K, value: V, weight: usize) {
        if let Some((_, before)) = self.young.remove(&key) {
            self.weight -= before;
        }
        self.old.remove(&key);
        let half = self.bound / 2;
        if weight > half {
            return;
        }
        if self.weight + weight > half {
            self.old = mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += weight;
        self.young.insert(key, (value, weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_bound_holds() {
        let mut cache = Cache::new(8);
        for key in 0..100 {
            cache.put(key, key, 1);
            assert_eq!(cache.get(&0), Some(&0), "in use all the while, at {key}");
            let (young, old) = (cache.young.values(), cache.old.values());
            let weight: usize = young.chain(old).map(|(_, weight)| weight).sum();
            assert!(weight <= 8, "{weight} at {key}");
        }
        assert_eq!(cache.get(&50), None, "long not used");
        assert_eq!(cache.get(&99), Some(&99));
    }

    #[test]
    fn the_last_value_counts_and_what_is_too_heavy_is_not_kept() {
        let mut cache = Cache::new(8);
        cache.put(1, "a", 3);
        cache.put(2, "b", 3);
        cache.put(1, "c", 3);
        assert_eq!(cache.get(&1), Some(&"c"));
        cache.put(1, "d", 5);
        assert_eq!(cache.get(&1), None);
    }
}
