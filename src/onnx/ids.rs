//! Dense numbers of tensors and nodes, and collections that are keyed by them.
//!
//! [`Table`] is for properties of most tensors or nodes, [`IdMap`] and [`IdSet`] are for those
//! of a few.
//!
//! Knows numbers only. The number of a tensor of an enclosing graph has a type of its own.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;

/// The number of a tensor of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub(super) u32);

/// The number of a tensor in the graph that encloses a body; it means nothing in the body itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterId(ValueId);

impl OuterId {
    /// Wraps the number `id` of a tensor of the enclosing graph.
    pub(super) fn of(id: ValueId) -> Self {
        OuterId(id)
    }

    /// Returns the number to look the tensor up with in the enclosing graph.
    pub fn in_outer_graph(self) -> ValueId {
        self.0
    }
}

/// The number of a node of the graph: its position in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

/// A dense number.
pub trait Id: Copy {
    /// Returns the number as an index.
    fn index(self) -> usize;
}

impl Id for ValueId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

impl Id for NodeId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// A map from ids to values of type `V`, stored densely.
#[derive(Debug, Clone)]
pub struct Table<I, V> {
    slots: Vec<Option<V>>,
    ids: PhantomData<I>,
}

impl<I, V> Default for Table<I, V> {
    fn default() -> Self {
        Table { slots: Vec::new(), ids: PhantomData }
    }
}

impl<I: Id, V> Table<I, V> {
    /// Creates an empty table with capacity for the first `count` ids.
    pub fn of(count: usize) -> Self {
        Table { slots: Vec::with_capacity(count), ids: PhantomData }
    }

    /// Returns the value of `id`.
    pub fn get(&self, id: I) -> Option<&V> {
        self.slots.get(id.index())?.as_ref()
    }

    /// Whether `id` has a value.
    pub fn contains(&self, id: I) -> bool {
        self.get(id).is_some()
    }

    /// Sets the value of `id`; returns the previous one.
    pub fn insert(&mut self, id: I, value: V) -> Option<V> {
        self.slot(id).replace(value)
    }

    /// Removes the value of `id`.
    pub fn remove(&mut self, id: I) {
        if let Some(slot) = self.slots.get_mut(id.index()) {
            *slot = None;
        }
    }

    /// Returns the value of `id`, after setting it to the default if there was none.
    pub fn or_default(&mut self, id: I) -> &mut V
    where
        V: Default,
    {
        self.slot(id).get_or_insert_default()
    }

    #[expect(clippy::indexing_slicing, reason = "there are as many slots as it takes")]
    fn slot(&mut self, id: I) -> &mut Option<V> {
        let index = id.index();
        if self.slots.len() <= index {
            self.slots.resize_with(index.saturating_add(1), || None);
        }
        &mut self.slots[index]
    }
}

impl<I: Id> Table<I, ()> {
    /// Marks all `ids`.
    pub fn extend(&mut self, ids: impl IntoIterator<Item = I>) {
        ids.into_iter().for_each(|id| *self.slot(id) = Some(()));
    }
}

impl<I: Id> FromIterator<I> for Table<I, ()> {
    fn from_iter<T: IntoIterator<Item = I>>(ids: T) -> Self {
        let mut marked = Table::default();
        marked.extend(ids);
        marked
    }
}

/// A map for a few ids, or tuples of them.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// A set of a few ids, or tuples of them.
pub type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// A multiplicative hasher for ids. We assign them consecutively, so unlike names, which are
/// chosen by whoever made the file, they need no protection against chosen collisions.
#[derive(Debug, Default, Clone)]
pub struct IdHasher(u64);

/// 2⁶⁴ divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0.rotate_left(32) ^ u64::from(id)).wrapping_mul(SPREAD);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_knows_what_it_was_told() {
        let mut table = Table::default();
        assert_eq!(table.insert(ValueId(3), "a"), None);
        assert_eq!(table.insert(ValueId(3), "b"), Some("a"));
        assert_eq!((table.get(ValueId(3)), table.get(ValueId(2))), (Some(&"b"), None));
        assert!(!table.contains(ValueId(4)));
        assert_eq!(table.or_default(ValueId(9)), &mut "");
        table.remove(ValueId(3));
        assert!(!table.contains(ValueId(3)) && table.contains(ValueId(9)));
    }

    #[test]
    fn neighbours_fall_apart() {
        let hash = |pair: (NodeId, ValueId)| {
            use std::hash::BuildHasher;
            BuildHasherDefault::<IdHasher>::default().hash_one(pair)
        };
        let pairs = (0..64).flat_map(|a| (0..64).map(move |b| (NodeId(a), ValueId(b))));
        // Hash tables use the lower bits as the position.
        let places: HashSet<u64> = pairs.map(|pair| hash(pair) % 8192).collect();
        assert!(places.len() > 2000, "{}", places.len());
    }
}
