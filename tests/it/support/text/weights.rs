//! Values of weights, which follow from their names.

use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::proto::TensorProto;
use acb_fuse::onnx::tensor::from_floats;
use ndarray::ArrayD;

/// Numbers of a standard normal distribution, whose seed is a name.
struct Normal(u64);

impl Normal {
    /// Seeds the numbers with the FNV-1a hash of the name.
    fn named(name: &str) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Normal(name.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }

    /// Returns the next number in (0, 1), by SplitMix64.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON / 4.0
    }

    fn next(&mut self) -> f64 {
        let (radius, angle) = (self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

/// Returns numbers of a standard normal distribution that follow from a name.
pub fn normal(name: &str, shape: &[usize]) -> ArrayD<f64> {
    let mut normal = Normal::named(name);
    ArrayD::from_shape_simple_fn(shape, || normal.next())
}

/// Returns a weight: with the word `var` or `variance` in its name it is positive, and the filters
/// of a kernel have the norm 1 on average.
pub fn weight(name: &str, dims: &[i64], float: Float) -> TensorProto {
    let shape: Vec<usize> = dims.iter().map(|&dim| dim as usize).collect();
    let values = normal(name, &shape);
    let values = match shape.len() {
        _ if name.split(['_', '.', '/']).any(|word| ["var", "variance"].contains(&word)) => {
            values.mapv(|value| value.abs() + 0.01)
        }
        0..=2 => values,
        _ => values / (shape[1..].iter().product::<usize>() as f64).sqrt(),
    };
    from_floats(name, &values, float)
}
