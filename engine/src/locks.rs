//! Locks, and the map of everything by its key: shards with a lock each. In all builds but one
//! the map is DashMap and the locks are the standard ones; that one schedules its threads by
//! chance from a seed (`--cfg shuttle`), and needs locks that its scheduler knows.

#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};

#[cfg(not(shuttle))]
pub(crate) use self::dashed::{Held, Seen, Shards};
#[cfg(shuttle)]
pub(crate) use self::shuffled::{Held, Seen, Shards};

#[cfg(not(shuttle))]
mod dashed {
    use std::hash::Hash;

    use dashmap::DashMap;
    use dashmap::mapref::one::{Ref, RefMut};

    use crate::id::FixedHash;

    /// An entry to look at.
    pub(crate) type Seen<'a, K, V> = Ref<'a, K, V>;

    /// An entry under its lock.
    pub(crate) type Held<'a, K, V> = RefMut<'a, K, V>;

    /// See the module's head.
    pub(crate) struct Shards<K, V>(DashMap<K, V, FixedHash>);

    impl<K: Eq + Hash + Copy, V: Default> Shards<K, V> {
        /// Empty, with a power of two of locks and room for so many entries.
        pub(crate) fn new(shards: usize, entries: usize) -> Self {
            let map = DashMap::with_capacity_and_hasher_and_shard_amount;
            Shards(map(entries, FixedHash, shards))
        }

        /// The entry, made if it is not there, under its lock.
        pub(crate) fn entry(&self, key: K) -> Held<'_, K, V> {
            self.0.entry(key).or_default()
        }

        /// Puts an entry in.
        pub(crate) fn insert(&self, key: K, value: V) {
            self.0.insert(key, value);
        }

        /// The entry to look at, if it is there.
        pub(crate) fn get(&self, key: &K) -> Option<Seen<'_, K, V>> {
            self.0.get(key)
        }

        /// The entry under its lock, if it is there.
        pub(crate) fn get_mut(&self, key: &K) -> Option<Held<'_, K, V>> {
            self.0.get_mut(key)
        }

        /// Looks at every entry, one lock after another.
        pub(crate) fn each(&self, mut look: impl FnMut(&K, &V)) {
            self.0.iter().for_each(|entry| look(entry.key(), entry.value()));
        }

        /// Changes every entry, one lock after another.
        pub(crate) fn each_mut(&self, mut change: impl FnMut(&K, &mut V)) {
            self.0.iter_mut().for_each(|mut entry| {
                let (key, value) = entry.pair_mut();
                change(key, value);
            });
        }

        /// Takes an entry out.
        pub(crate) fn remove(&self, key: &K) -> Option<V> {
            self.0.remove(key).map(|(_, value)| value)
        }

        /// Keeps what is to be kept.
        pub(crate) fn retain(&self, keep: impl FnMut(&K, &mut V) -> bool) {
            self.0.retain(keep);
        }

        /// How many entries there are.
        pub(crate) fn len(&self) -> usize {
            self.0.len()
        }
    }
}

#[cfg(shuttle)]
mod shuffled {
    use std::collections::BTreeMap;
    use std::hash::{BuildHasher, Hash};
    use std::ops::{Deref, DerefMut};

    use shuttle::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

    use crate::id::FixedHash;

    type Shard<K, V> = BTreeMap<K, V>;

    /// See the module's head.
    pub(crate) struct Shards<K, V>(Vec<RwLock<Shard<K, V>>>);

    /// An entry to look at.
    pub(crate) struct Seen<'a, K, V>(RwLockReadGuard<'a, Shard<K, V>>, K);

    /// An entry under its lock.
    pub(crate) struct Held<'a, K, V>(RwLockWriteGuard<'a, Shard<K, V>>, K);

    impl<K: Ord, V> Deref for Seen<'_, K, V> {
        type Target = V;

        fn deref(&self) -> &V {
            &self.0[&self.1]
        }
    }

    impl<K: Ord, V> Deref for Held<'_, K, V> {
        type Target = V;

        fn deref(&self) -> &V {
            &self.0[&self.1]
        }
    }

    impl<K: Ord, V> DerefMut for Held<'_, K, V> {
        fn deref_mut(&mut self) -> &mut V {
            self.0.get_mut(&self.1).expect("the shard is locked since the entry was there")
        }
    }

    impl<K: Eq + Hash + Copy + Ord, V: Default> Shards<K, V> {
        pub(crate) fn new(shards: usize, _entries: usize) -> Self {
            Shards((0..shards).map(|_| RwLock::new(BTreeMap::new())).collect())
        }

        fn shard(&self, key: &K) -> &RwLock<Shard<K, V>> {
            &self.0[FixedHash.hash_one(key) as usize % self.0.len()]
        }

        pub(crate) fn entry(&self, key: K) -> Held<'_, K, V> {
            let mut shard = self.shard(&key).write().unwrap_or_else(|it| it.into_inner());
            shard.entry(key).or_default();
            Held(shard, key)
        }

        pub(crate) fn insert(&self, key: K, value: V) {
            let mut shard = self.shard(&key).write().unwrap_or_else(|it| it.into_inner());
            shard.insert(key, value);
        }

        pub(crate) fn get(&self, key: &K) -> Option<Seen<'_, K, V>> {
            let shard = self.shard(key).read().unwrap_or_else(|it| it.into_inner());
            shard.contains_key(key).then(|| Seen(shard, *key))
        }

        pub(crate) fn get_mut(&self, key: &K) -> Option<Held<'_, K, V>> {
            let shard = self.shard(key).write().unwrap_or_else(|it| it.into_inner());
            shard.contains_key(key).then(|| Held(shard, *key))
        }

        pub(crate) fn each(&self, mut look: impl FnMut(&K, &V)) {
            for shard in &self.0 {
                let shard = shard.read().unwrap_or_else(|it| it.into_inner());
                shard.iter().for_each(|(key, value)| look(key, value));
            }
        }

        pub(crate) fn each_mut(&self, mut change: impl FnMut(&K, &mut V)) {
            for shard in &self.0 {
                let mut shard = shard.write().unwrap_or_else(|it| it.into_inner());
                shard.iter_mut().for_each(|(key, value)| change(key, value));
            }
        }

        pub(crate) fn remove(&self, key: &K) -> Option<V> {
            self.shard(key).write().unwrap_or_else(|it| it.into_inner()).remove(key)
        }

        pub(crate) fn retain(&self, mut keep: impl FnMut(&K, &mut V) -> bool) {
            for shard in &self.0 {
                shard.write().unwrap_or_else(|it| it.into_inner()).retain(&mut keep);
            }
        }

        pub(crate) fn len(&self) -> usize {
            let count = |shard: &RwLock<Shard<K, V>>| {
                shard.read().unwrap_or_else(|it| it.into_inner()).len()
            };
            self.0.iter().map(count).sum()
        }
    }
}
