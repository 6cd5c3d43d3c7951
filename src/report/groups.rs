//! Groups of places that are left alone for the same reason, each for one line of a report.
//!
//! Knows the places and what their reasons have in common; does not know what a line looks like.

use std::collections::HashMap;

use crate::refusal::Subject;
use crate::report::{LeftAlone, words};

/// Places that are left alone for the same reason.
#[derive(Debug)]
pub struct Group<'r> {
    /// The places.
    pub places: Vec<&'r LeftAlone>,
}

/// Groups the places by reason; the groups stand in the order of their first places.
pub fn groups(near_misses: &[LeftAlone]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut by_reason: HashMap<&str, usize> = HashMap::new();
    for place in near_misses {
        let new = groups.len();
        let index = *by_reason.entry(&place.in_common).or_insert(new);
        match groups.get_mut(index) {
            // A node of which several operands are in the way is one place.
            Some(group) if group.places.last().is_some_and(|last| last.node == place.node) => {}
            Some(group) => group.places.push(place),
            None => groups.push(Group { places: vec![place] }),
        }
    }
    groups
}

impl Group<'_> {
    /// Returns the reason: in full if it is the same for all places, else what the reasons have
    /// in common.
    pub fn reason(&self) -> &str {
        let Some((first, others)) = self.places.split_first() else { return "" };
        let is_same = others.iter().all(|place| place.reason == first.reason);
        if is_same { &first.reason } else { &first.in_common }
    }

    /// Returns the number of places of each kind, in the order in which the kinds appear:
    /// `2 norms`, `1 sum, 2 norms and 1 scale`.
    pub fn counted(&self) -> String {
        let counts = self.counts().into_iter();
        let counts = counts.map(|(what, count)| words::counted(count, &what.to_string()));
        words::in_a_row(&counts.collect::<Vec<String>>())
    }

    fn counts(&self) -> Vec<(Subject, usize)> {
        let mut counts: Vec<(Subject, usize)> = Vec::new();
        for place in &self.places {
            match counts.iter_mut().find(|(subject, _)| *subject == place.subject) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => counts.push((place.subject, 1)),
            }
        }
        counts
    }
}
