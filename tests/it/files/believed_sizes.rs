//! Models of which a wrong file was written, or none, because a size or a rank was believed
//! that does not follow. The new file must compute what ONNX Runtime computes of the original,
//! verified or not, at two sizes where sizes are open.
use std::path::{Path, PathBuf};

use acb_fuse::verify::compare::relative_error;

use crate::support::counts::operators;
use crate::support::engine::run;
use crate::support::fixtures::data;
use crate::support::tool::{converted, options};

/// The case, the number of blocks that are fused, the number of sizes at which it is run, and
/// how often operators occur in the new file.
type Row = (&'static str, usize, usize, &'static [(&'static str, usize)]);

const CASES: [Row; 5] = [
    // The name of a size is no size: where the windows of "SAME" fall is not known.
    ("name_that_reads_as_a_size", 0, 2, &[("Conv", 2)]),
    // A Shape from the third axis on gives a tensor of two axes, and `s` has four.
    ("shape_with_start", 0, 2, &[("MatMul", 1), ("Mul", 1)]),
    // A vector times a tensor of [3, 4, 5] has two axes; the three of `s` make it three.
    ("matmul_by_a_vector", 0, 1, &[("MatMul", 2), ("Mul", 1)]),
    ("flatten_of_tensorflow", 2, 2, &[("Mul", 0)]),
    ("flatten_of_unknown_batch", 2, 2, &[("Mul", 0)]),
];

fn model(case: &str) -> PathBuf {
    Path::new("fixtures/wrong_files").join(case).join("model.onnx")
}

#[test]
fn the_new_file_computes_what_the_old_one_did() {
    for (case, blocks, sizes, counts) in CASES {
        for verify in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let output = folder.path().join("out.onnx");
            let options = options(|options| options.verify = verify);
            let report = converted(&model(case), &output, &options);
            assert_eq!(report.blocks.len(), blocks, "{case}: {report}");
            let found = operators(&output);
            for &(operator, count) in counts {
                assert_eq!(found.get(operator).copied().unwrap_or(0), count, "{case}: {operator}");
            }
            let sets = [model(case), model(case).with_file_name("second").join("model.onnx")];
            let mut compared = 0;
            for set in sets.iter().filter(|set| !data(set, "input").is_empty()) {
                let (inputs, expected) = (data(set, "input"), data(set, "output"));
                let found = run(&output, folder.path(), &inputs);
                let found = found.unwrap_or_else(|error| panic!("{case}: {error}"));
                let errors = expected.iter().zip(&found);
                let error =
                    errors.map(|(one, other)| relative_error(one, other)).fold(0.0, f64::max);
                assert!(error <= 1e-6, "{case}: {error:e}");
                compared += 1;
            }
            assert_eq!(compared, sizes, "{case}");
        }
    }
}
