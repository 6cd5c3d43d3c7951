//! How many elements lie along an axis, as far as that can be said: a number, or the size that
//! some tensor has, whatever it is, and so many more.
//!
//! With a name for what nobody knows, `x.view(x.shape[0], 64, -1)` of `[N, 64, 7, 7]` has 49
//! places: both N are the same and cancel. And what is padded by 1 and read by a kernel of 3 is as
//! large as it was.
//!
//! Knows names of sizes; not where they come from.

use crate::onnx::ids::ValueId;

/// A size, or an integer that a list holds. One of which nothing is known is `None` where such
/// are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// This one.
    Number(i64),
    /// One that has a name: 1 or more, as tensors of networks have it.
    SizeOf(NamedSize),
}

/// The size of an axis of a tensor, and so many more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedSize {
    /// Which tensor of its graph.
    pub tensor: ValueId,
    /// Counted from the front; as many as [`MAX_RANK`](super::MAX_RANK) fit.
    pub axis: u8,
    /// What is added to its size.
    pub more: i32,
}

/// Dimensions of a tensor, or integers that it holds, in its order.
pub type Extents = Vec<Option<Extent>>;

impl Extent {
    /// One element.
    pub const ONE: Extent = Extent::Number(1);

    /// Its number, if it is one.
    pub fn number(self) -> Option<i64> {
        match self {
            Extent::Number(number) => Some(number),
            Extent::SizeOf(_) => None,
        }
    }

    /// So many more; `None` if they are beyond all reason.
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

/// The number, if it is one.
pub fn number(extent: Option<Extent>) -> Option<i64> {
    extent.and_then(Extent::number)
}

/// As extents.
pub fn extents(numbers: Vec<Option<i64>>) -> Extents {
    numbers.into_iter().map(|number| number.map(Extent::Number)).collect()
}

/// Integers that are known.
pub fn known(list: &[i64]) -> Extents {
    list.iter().map(|&number| Some(number.into())).collect()
}

/// How many elements these sizes make; nothing, where one of them is 0, whatever the others.
pub fn element_count(sizes: &[Option<Extent>]) -> Option<Extent> {
    Product::of(sizes)?.extent()
}

/// What of them is a number.
pub fn numbers(extents: Extents) -> Vec<Option<i64>> {
    extents.into_iter().map(number).collect()
}

/// Sizes, multiplied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    number: i64,
    /// Factors that have but a name, in any order.
    names: Vec<NamedSize>,
}

impl Product {
    /// Of these sizes; nothing, where one of them is 0, whatever the others. `None` if one is not
    /// known.
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

    /// How often `divisor` goes into it; `None` if it does not, or that is not known.
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

    /// As one size, if it is one.
    pub fn extent(&self) -> Option<Extent> {
        match (self.number, self.names.as_slice()) {
            (number, []) => Some(Extent::Number(number)),
            (1, &[size]) => Some(Extent::SizeOf(size)),
            _ => None,
        }
    }
}
