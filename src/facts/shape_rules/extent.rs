//! How many elements lie along an axis, as far as that can be said: a number, or the size that
//! some axis of a tensor has, whatever it is, and a number more.
//!
//! With names for sizes that nobody knows, `x.view(x.shape[0], 64, -1)` of `[N, 64, 7, 7]` has
//! 49 places: both N are the same and cancel. And a tensor that is padded by 1 and read by a
//! kernel of 3 is as large as it was.
//!
//! Knows names of sizes; does not know where they come from.

use crate::onnx::ids::ValueId;

/// A size, or an integer that a list holds. Lists of them have `None` where nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// A known number.
    Number(i64),
    /// A named size: 1 or more, as tensors of networks have it.
    SizeOf(NamedSize),
}

/// The size of an axis of a tensor, and a number more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedSize {
    /// The tensor, by its number in its graph.
    pub tensor: ValueId,
    /// The axis, counted from the front; [`MAX_RANK`](super::MAX_RANK) of them fit.
    pub axis: u8,
    /// What is added to its size.
    pub more: i32,
}

/// Dimensions of a tensor, or integers that it holds, in its order.
pub type Extents = Vec<Option<Extent>>;

impl Extent {
    /// One element.
    pub const ONE: Extent = Extent::Number(1);

    /// Returns the number; `None` for a named size.
    pub fn number(self) -> Option<i64> {
        match self {
            Extent::Number(number) => Some(number),
            Extent::SizeOf(_) => None,
        }
    }

    /// Returns the extent and `more` elements; `None` if the result is beyond all reason.
    pub fn plus(self, more: i64) -> Option<Self> {
        Some(match self {
            Extent::Number(number) => Extent::Number(number.checked_add(more)?),
            Extent::SizeOf(size) => {
                let more = i64::from(size.more).checked_add(more)?;
                Extent::SizeOf(NamedSize { more: more.try_into().ok()?, ..size })
            }
        })
    }
}

impl From<i64> for Extent {
    fn from(number: i64) -> Self {
        Extent::Number(number)
    }
}

/// Returns the number; `None` if the extent is unknown or a named size.
pub fn number(extent: Option<Extent>) -> Option<i64> {
    extent.and_then(Extent::number)
}

/// Returns numbers as extents.
pub fn extents(numbers: Vec<Option<i64>>) -> Extents {
    numbers.into_iter().map(|number| number.map(Extent::Number)).collect()
}

/// Returns known integers as extents.
pub fn known(list: &[i64]) -> Extents {
    list.iter().map(|&number| Some(number.into())).collect()
}

/// Returns how many elements these sizes make: 0 if one of them is 0, whatever the others are.
pub fn element_count(sizes: &[Option<Extent>]) -> Option<Extent> {
    Product::of(sizes)?.extent()
}

/// Returns the extents with unknown in the place of names.
pub fn numbers(extents: Extents) -> Vec<Option<i64>> {
    extents.into_iter().map(number).collect()
}

/// A product of sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    number: i64,
    /// The factors that are only names, in any order.
    names: Vec<NamedSize>,
}

impl Product {
    /// Returns the product of these sizes: 0 if one of them is 0, whatever the others are.
    /// `None` if one is not known.
    pub fn of(sizes: &[Option<Extent>]) -> Option<Self> {
        let mut product = Product { number: 1, names: Vec::new() };
        if sizes.contains(&Some(Extent::Number(0))) {
            return Some(Product { number: 0, ..product });
        }
        for &size in sizes {
            match size? {
                Extent::Number(number) => product.number = product.number.checked_mul(number)?,
                Extent::SizeOf(size) => product.names.push(size),
            }
        }
        Some(product)
    }

    /// Returns the quotient by `divisor`; `None` if the division leaves a rest, or that is not
    /// known.
    pub fn over(mut self, divisor: Product) -> Option<Self> {
        if self.number.checked_rem(divisor.number)? != 0 {
            return None;
        }
        self.number = self.number.checked_div(divisor.number)?;
        for name in divisor.names {
            let place = self.names.iter().position(|own| *own == name);
            match place {
                Some(place) => drop(self.names.swap_remove(place)),
                None if self.number == 0 => {}
                None => return None,
            }
        }
        Some(self)
    }

    /// Returns the product as one extent, if it is one.
    pub fn extent(&self) -> Option<Extent> {
        match (self.number, self.names.as_slice()) {
            (number, []) => Some(Extent::Number(number)),
            (1, &[size]) => Some(Extent::SizeOf(size)),
            _ => None,
        }
    }
}
