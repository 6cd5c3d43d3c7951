//! Compares entries of two models without regard to where the data of their tensors lies.
//!
//! A few bytes may name the same gigabyte of a side file a thousand times: it is compared once.
//!
//! Knows the format and side files; knows nothing of what is expected.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::PathBuf;

use prost::bytes::Bytes;

use crate::onnx::data::TensorError;
use crate::onnx::map::MappedFile;
use crate::onnx::model::Invalid;
use crate::onnx::storage::{DataPlace, Storage, same_bytes};
use crate::verify::entries::HoldsTensors;

/// Compares entries of two models.
pub struct DataComparison<'s> {
    old: &'s Storage,
    new: &'s Storage,
    /// The ranges of old side files that were found in new ones.
    known: RefCell<HashMap<MovedFile, RangeSet>>,
}

/// An old side file, a new one, and by how much the same data lies further behind in the new one.
type MovedFile = (PathBuf, PathBuf, usize);

/// Where the data of a tensor lies.
enum TensorData {
    /// In its message; typed numbers are compared with the rest of the message.
    Within(Option<Bytes>),
    /// In this range of a side file.
    Aside(MappedFile, Range<usize>),
}

impl<'s> DataComparison<'s> {
    /// Starts the comparison of a model with its data in `old` and one with its data in `new`.
    pub fn of(old: &'s Storage, new: &'s Storage) -> Self {
        DataComparison { old, new, known: RefCell::default() }
    }

    /// Returns whether an entry of the old model and one of the new are the same and have the
    /// same data.
    ///
    /// # Errors
    /// Returns an error if the data of a tensor cannot be read.
    pub fn are_same<M: HoldsTensors + PartialEq>(
        &self,
        mut before: M,
        mut after: M,
    ) -> Result<bool, Invalid> {
        let of_before = without_data(&mut before, self.old)?;
        let of_after = without_data(&mut after, self.new)?;
        let mut pairs = of_before.iter().zip(&of_after);
        Ok(before == after
            && of_before.len() == of_after.len()
            && pairs.all(|(before, after)| self.is_same(before, after)))
    }

    fn is_same(&self, before: &TensorData, after: &TensorData) -> bool {
        if let (TensorData::Aside(old, before), TensorData::Aside(new, after)) = (before, after) {
            return self.is_moved((old, before), (new, after));
        }
        match (before.bytes(), after.bytes()) {
            (Some(before), Some(after)) => same_bytes((&before, self.old), (&after, self.new)),
            (before, after) => before == after,
        }
    }

    /// Returns whether a range of the old side file has the same bytes as a range of the new
    /// one; only what was not compared before is compared.
    fn is_moved(
        &self,
        (old, before): (&MappedFile, &Range<usize>),
        (new, after): (&MappedFile, &Range<usize>),
    ) -> bool {
        let shift = after.start.wrapping_sub(before.start);
        let moved = (old.path().to_owned(), new.path().to_owned(), shift);
        let mut known = self.known.borrow_mut();
        let gaps = known.entry(moved.clone()).or_default().fill(before.clone());
        let (of_old, of_new) = (old.bytes(), new.bytes());
        let is_same = |gap: &Range<usize>| {
            let there = gap.start.wrapping_add(shift)..gap.end.wrapping_add(shift);
            let both = of_old.get(gap.clone()).zip(of_new.get(there));
            both.is_some_and(|(old, new)| same_bytes((old, self.old), (new, self.new)))
        };
        let are_same = before.len() == after.len() && gaps.iter().all(is_same);
        if !are_same {
            known.remove(&moved);
        }
        are_same
    }
}

impl TensorData {
    fn bytes(&self) -> Option<Bytes> {
        match self {
            TensorData::Within(data) => data.clone(),
            TensorData::Aside(file, range) => Some(file.bytes().slice(range.clone())),
        }
    }
}

/// Takes the data out of the tensors that `entry` holds; returns it in their order.
fn without_data(
    entry: &mut impl HoldsTensors,
    storage: &Storage,
) -> Result<Vec<TensorData>, Invalid> {
    let mut all = Vec::new();
    entry.each_tensor(&mut |tensor| {
        let place = DataPlace::of(tensor).and_then(|place| match place {
            Some(place) => storage.located(&place).map(Some),
            None => Ok(None),
        });
        let name = || tensor.name().to_owned();
        let place = place.map_err(|why| TensorError { name: name(), problem: why.into() })?;
        all.push(match place {
            None => TensorData::Within(tensor.raw_data.take()),
            Some((file, range)) => {
                (tensor.raw_data, tensor.data_location) = (None, None);
                tensor.external_data.clear();
                TensorData::Aside(file, range)
            }
        });
        Ok(())
    })?;
    Ok(all)
}

/// The fewest ranges that hold all that were filled, as a map of starts to ends.
#[derive(Debug, Default)]
struct RangeSet(BTreeMap<usize, usize>);

impl RangeSet {
    /// Fills `range`; returns those parts of it that were not filled before.
    fn fill(&mut self, range: Range<usize>) -> Vec<Range<usize>> {
        let Range { mut start, mut end } = range;
        let before = self.0.range(..start).next_back().filter(|&(_, &end)| end >= start);
        let touched = before.into_iter().chain(self.0.range(start..=end));
        let touched: Vec<(usize, usize)> = touched.map(|(&start, &end)| (start, end)).collect();
        let (mut gaps, mut filled) = (Vec::new(), start);
        for (from, to) in touched {
            self.0.remove(&from);
            gaps.extend((filled < from).then_some(filled..from));
            (start, end, filled) = (start.min(from), end.max(to), filled.max(to));
        }
        gaps.extend((filled < range.end).then_some(filled..range.end));
        self.0.insert(start, end);
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A range, and starts and ends of what of it was not filled.
    type FilledRange<'g> = (Range<usize>, &'g [(usize, usize)]);

    #[test]
    fn each_byte_is_filled_once() {
        let mut set = RangeSet::default();
        let cases: [FilledRange; 8] = [
            (10..20, &[(10, 20)]),
            (10..20, &[]),
            (12..15, &[]),
            (30..40, &[(30, 40)]),
            (15..35, &[(20, 30)]),
            (5..45, &[(5, 10), (40, 45)]),
            (45..45, &[]),
            (0..5, &[(0, 5)]),
        ];
        for (range, expected) in cases {
            let gaps = set.fill(range.clone()).into_iter().map(|gap| (gap.start, gap.end));
            assert_eq!(gaps.collect::<Vec<_>>(), expected, "{range:?}");
        }
        assert_eq!(set.0, BTreeMap::from([(0, 45)]));
    }
}
