//! Sizes for a run of the whole model where the file leaves them open: which to try, and in
//! which order.
//!
//! A file that declares `[N, 3, H, W]` rarely takes every size: a text recognizer squeezes a
//! height that has become 1, a spectrogram needs a window of samples. Which sizes it takes is
//! found by trying, likely and cheap ones first; this module makes the list. Knows what a file
//! declares; knows neither the engine nor what is run.

use std::collections::BTreeMap;

use crate::onnx::info::AxisSize;
use crate::verify::along::{Along, FedInput, along, is_open};
use crate::verify::inputs::elements_at_most;

/// Upper bound on the number of assignments that are tried: a model that takes none of them is
/// not run.
pub const MOST_CANDIDATES: usize = 24;

/// The shape of every input, in the order of the inputs.
pub type Assignment = Vec<Vec<usize>>;

/// Returns the assignments to try, the likely and cheap ones first: a batch of one, and 64 along
/// other axes (16 along the spatial axes of inputs with five axes); then what `declared`, the
/// axes of declared outputs and of tensors on the way in the order of the file, suggests; then
/// usual sizes of pictures and sequences. Returns a single assignment if nothing is open.
pub fn first_candidates(inputs: &[FedInput], declared: &[Vec<AxisSize>]) -> Vec<Assignment> {
    let unknowns = Unknowns::new(inputs);
    let mut rounds = vec![Round::default()];
    rounds.extend(suggested(inputs, declared));
    let usual = PICTURES.iter().zip(LENGTHS.iter().zip(CHANNELS.iter().cycle()));
    rounds.extend(usual.map(|(&(height, width), (&length, &channels))| Round {
        channels,
        height,
        width,
        length,
        ..Round::default()
    }));
    distinct(rounds.iter().map(|round| unknowns.assignment(inputs, round)), MOST_CANDIDATES)
}

/// Returns the likely assignment with a batch of two: some files are exported with two and wrong
/// for one.
pub fn batch_of_two(inputs: &[FedInput]) -> Assignment {
    Unknowns::new(inputs).assignment(inputs, &Round { batch: 2, ..Round::default() })
}

/// Returns the assignments to try once the model has run at `first`: those with a batch of two,
/// in case the model takes one, then those with a batch of one, the smallest first within each.
/// Pictures are not square, and some sizes are odd. None is larger than `first`; there are none
/// if nothing is open.
pub fn second_candidates(inputs: &[FedInput], first: &Assignment) -> Vec<Assignment> {
    let unknowns = Unknowns::new(inputs);
    let channels = unknowns.channels(inputs, first).unwrap_or(Round::default().channels);
    let of_batch = |batch: usize| {
        let rounds = SMALL.iter().map(move |&(depth, height, width, length)| Round {
            batch,
            channels,
            depth,
            height,
            width,
            length,
        });
        let most = elements_at_most(first);
        let mut smaller: Vec<Assignment> = rounds
            .map(|round| unknowns.assignment(inputs, &round))
            .filter(|assignment| assignment != first && elements_at_most(assignment) <= most)
            .collect();
        smaller.sort_by_key(|assignment| elements_at_most(assignment));
        distinct(smaller.into_iter(), MOST_CANDIDATES / 2)
    };
    distinct(of_batch(2).into_iter().chain(of_batch(1)), MOST_CANDIDATES)
}

/// Heights and widths of what public models were trained on: lines of text, patches, pictures.
/// Each is tried together with the entry of [`LENGTHS`] at the same place.
const PICTURES: [(usize, usize); 20] = [
    (32, 100),
    (48, 320),
    (96, 96),
    (32, 32),
    (112, 112),
    (128, 128),
    (32, 320),
    (224, 224),
    (256, 256),
    (28, 28),
    (48, 192),
    (320, 320),
    (160, 160),
    (299, 299),
    (384, 384),
    (416, 416),
    (480, 640),
    (512, 512),
    (640, 640),
    (1024, 1024),
];

/// Numbers of steps, of samples at 8 and 16 kHz, and of samples in their windows.
const LENGTHS: [usize; 20] = [
    256, 512, 100, 16, 128, 320, 1, 8000, 1024, 2, 400, 1000, 16000, 576, 80, 640, 2048, 4000,
    4096, 48000,
];

/// Numbers of channels where even that is open: colours, or 64 as along any other axis in between.
const CHANNELS: [usize; 3] = [3, 1, 64];

/// Depths, heights, widths and lengths of a second run. Networks shrink pictures by factors of
/// up to 32, so no height or width is smaller than that, and some are multiples of 32 (and lines
/// of text are 32 or 48 high). Of smaller pictures nothing may be left on the way, and tract
/// computes addresses beyond a tensor without elements, at which a debug build aborts.
const SMALL: [(usize, usize, usize, usize); 20] = [
    (9, 32, 33, 5),
    (10, 33, 32, 7),
    (11, 32, 40, 15),
    (12, 33, 48, 10),
    (13, 32, 48, 33),
    (14, 48, 33, 50),
    (15, 32, 64, 77),
    (9, 64, 32, 101),
    (10, 32, 96, 120),
    (11, 48, 100, 193),
    (12, 48, 65, 225),
    (13, 48, 160, 257),
    (14, 64, 96, 321),
    (15, 96, 64, 401),
    (12, 96, 160, 513),
    (12, 160, 96, 577),
    (16, 128, 192, 1001),
    (13, 224, 320, 4001),
    (16, 320, 224, 8001),
    (15, 320, 480, 16001),
];

/// One size for everything that an open axis can run along.
#[derive(Debug, Clone)]
struct Round {
    batch: usize,
    channels: usize,
    depth: usize,
    height: usize,
    width: usize,
    length: usize,
}

impl Default for Round {
    /// Sizes with enough space for a network's strides, and little else.
    fn default() -> Self {
        Round { batch: 1, channels: 64, depth: 16, height: 64, width: 64, length: 64 }
    }
}

impl Round {
    fn size(&self, along: Along) -> usize {
        match along {
            Along::Batch => self.batch,
            Along::Channels => self.channels,
            Along::Depth => self.depth,
            Along::Height => self.height,
            Along::Width => self.width,
            Along::Length => self.length,
        }
    }
}

/// What the open axes of all inputs have in common.
struct Unknowns<'i> {
    /// What the axes of each name run along: the first axis of a name decides for all.
    named: BTreeMap<&'i str, Along>,
    /// Sizes that the caller gave, by names of axes.
    given: BTreeMap<&'i str, usize>,
}

impl<'i> Unknowns<'i> {
    fn new(inputs: &'i [FedInput]) -> Self {
        let (mut named, mut given) = (BTreeMap::new(), BTreeMap::new());
        for (which, input) in inputs.iter().enumerate() {
            for (axis, size) in input.axes.iter().enumerate() {
                let AxisSize::Named(name) = size else { continue };
                named.entry(name.as_str()).or_insert_with(|| along(inputs, which, axis));
                if let Some(&size) = input.given.as_ref().and_then(|given| given.get(axis)) {
                    given.entry(name.as_str()).or_insert(size);
                }
            }
        }
        Unknowns { named, given }
    }

    fn assignment(&self, inputs: &[FedInput], round: &Round) -> Assignment {
        let shape = |(which, input): (usize, &FedInput)| match &input.given {
            Some(given) => given.clone(),
            None => {
                let axes = input.axes.iter().enumerate();
                axes.map(|(axis, size)| self.size(size, round, || along(inputs, which, axis)))
                    .collect()
            }
        };
        inputs.iter().enumerate().map(shape).collect()
    }

    fn size(&self, size: &AxisSize, round: &Round, here: impl Fn() -> Along) -> usize {
        match size {
            AxisSize::Fixed(size) => match usize::try_from(*size) {
                Ok(size) => size,
                Err(_) => round.size(here()),
            },
            AxisSize::Open => round.size(here()),
            AxisSize::Named(name) => match self.given.get(name.as_str()) {
                Some(&size) => size,
                None => round.size(self.named.get(name.as_str()).copied().unwrap_or_else(here)),
            },
        }
    }

    /// Returns the number of channels in `assignment`, where that is open.
    fn channels(&self, inputs: &[FedInput], assignment: &Assignment) -> Option<usize> {
        let sizes = inputs.iter().zip(assignment).enumerate();
        let mut open = sizes.flat_map(|(which, (input, shape))| {
            let axes = input.axes.iter().zip(shape).enumerate();
            axes.map(move |(axis, (size, &chosen))| (which, axis, size, chosen))
        });
        let found = open.find(|&(which, axis, size, _)| {
            is_open(size) && along(inputs, which, axis) == Along::Channels
        });
        found.map(|(.., chosen)| chosen)
    }
}

/// Returns the sizes that the numbers in `declared` suggest: an exporter that was shown one
/// picture may have left its sizes, halved by a first stride, or the number of steps that a line
/// of text became.
fn suggested(inputs: &[FedInput], declared: &[Vec<AxisSize>]) -> Vec<Round> {
    /// Upper bound on the number of suggestions of one kind.
    const MOST: usize = 3;
    let number = |size: &AxisSize| match size {
        AxisSize::Fixed(size) => usize::try_from(*size).ok().filter(|&size| size > 1),
        _ => None,
    };
    let is_picture = inputs.iter().any(|input| {
        let open = input.axes.iter().skip(1).filter(|size| is_open(size)).count();
        input.given.is_none() && input.axes.len() == 4 && open > 0
    });
    let (mut pictures, mut lines, mut lengths, mut batches) = (vec![], vec![], vec![], vec![]);
    for axes in declared {
        match (axes.as_slice(), is_picture) {
            ([_, _, height, width], true) => {
                let (height, width) = (number(height), number(width));
                if let (Some(height), Some(width)) = (height.or(width), width.or(height)) {
                    for times in [1, 2] {
                        let (height, width) =
                            (height.saturating_mul(times), width.saturating_mul(times));
                        pictures.push(Round { height, width, ..Round::default() });
                    }
                }
            }
            ([_, steps, _], true) => {
                let of_steps = number(steps).into_iter().flat_map(|steps| {
                    [(32, 4), (48, 8)].map(|(height, times)| (height, steps.saturating_mul(times)))
                });
                lines.extend(of_steps.map(|(height, width)| Round {
                    height,
                    width,
                    ..Round::default()
                }));
            }
            ([_, steps @ ..], false) if steps.len() < 3 => {
                let steps = steps.iter().filter_map(number);
                lengths.extend(steps.map(|length| Round { length, ..Round::default() }));
            }
            _ => {}
        }
        let batch = axes.first().and_then(number);
        batches.extend(batch.map(|batch| Round { batch, ..Round::default() }));
    }
    [lines, pictures, lengths, batches.into_iter().take(1).collect()]
        .into_iter()
        .flat_map(|rounds| rounds.into_iter().take(MOST))
        .collect()
}

fn distinct(assignments: impl Iterator<Item = Assignment>, most: usize) -> Vec<Assignment> {
    let mut kept = Vec::new();
    for assignment in assignments {
        if kept.len() < most && !kept.contains(&assignment) {
            kept.push(assignment);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `N,3,?,64` as axes: a number, `?`, or a name.
    fn axes(text: &str) -> Vec<AxisSize> {
        let axis = |word: &str| match (word, word.parse()) {
            ("?", _) => AxisSize::Open,
            (_, Ok(size)) => AxisSize::Fixed(size),
            (name, _) => AxisSize::Named(name.to_owned()),
        };
        text.split(',').filter(|word| !word.is_empty()).map(axis).collect()
    }

    /// Inputs between spaces; `N,3=2,3` is one whose shape is given.
    fn inputs(text: &str) -> Vec<FedInput> {
        let input = |word: &str| {
            let (declared, given) = match word.split_once('=') {
                Some((declared, given)) => (declared, Some(shape(given))),
                None => (word, None),
            };
            FedInput { axes: axes(declared), given }
        };
        text.split(' ').map(input).collect()
    }

    fn shape(text: &str) -> Vec<usize> {
        let sizes = text.split(',').filter(|word| !word.is_empty() && *word != "-");
        sizes.map(|size| size.parse().unwrap()).collect()
    }

    fn shapes(text: &str) -> Assignment {
        text.split(' ').map(shape).collect()
    }

    /// Inputs, what else is declared, the first candidate, and one that must be among those
    /// that follow.
    const FIRST: &[(&str, &str, &str, &str)] = &[
        // Nothing is open.
        ("1,3,8,8", "", "1,3,8,8", ""),
        // Pictures, channels first and last, of one colour, with a negative size.
        ("N,3,H,W", "", "1,3,64,64", "1,3,224,224"),
        ("N,3,H,W", "", "1,3,64,64", "1,3,640,640"),
        ("?,?,?,3", "", "1,64,64,3", "1,32,100,3"),
        ("-1,1,-1,-1", "", "1,1,64,64", "1,1,96,96"),
        ("?,?,?,?", "", "1,64,64,64", "1,3,32,100"),
        ("3,H,W", "", "3,64,64", "3,256,256"),
        // A line of text: its height is squeezed, the width became 25 steps.
        ("-1,3,?,?", "-1,25,6625", "1,3,64,64", "1,3,32,100"),
        ("N,3,?,?", "N,40,97", "1,3,64,64", "1,3,32,160"),
        ("N,3,48,W", "N,T,6625", "1,3,48,64", "1,3,48,320"),
        ("N,1,96,W", "", "1,1,96,64", "1,1,96,100"),
        // What a trace left.
        ("N,3,?,?", "1,16,176,352 1,32,88,176", "1,3,64,64", "1,3,352,704"),
        ("N,3,?,?", "8,16,?,?", "1,3,64,64", "8,3,64,64"),
        // Sounds, with the state of a recurrent network.
        ("batch,sequence 2,batch,128 ", "", "1,64 2,1,128 -", "1,256 2,1,128 -"),
        ("?,? 2,?,128 ", "", "1,64 2,1,128 -", "1,512 2,1,128 -"),
        ("batch,time", "batch,501", "1,64", "1,501"),
        ("N,1,samples", "", "1,1,64", "1,1,16000"),
        // A name is one size, wherever it stands; a batch is one, whatever it is called.
        ("1,N,16 1,N", "", "1,64,16 1,64", "1,256,16 1,256"),
        ("a,60,60,3 b,60,60,3", "", "1,60,60,3 1,60,60,3", ""),
        ("n,m m,n", "", "1,64 64,1", "1,512 512,1"),
        ("n,3,H,W=2,3,9,9 n,H", "", "2,3,9,9 2,9", ""),
        ("n,3,D,H,W", "", "1,3,16,16,16", ""),
    ];

    #[test]
    fn likely_sizes_are_tried_first() {
        for (declared_inputs, others, first, later) in FIRST {
            let others: Vec<_> = others.split(' ').map(axes).collect();
            let found = first_candidates(&inputs(declared_inputs), &others);
            assert_eq!(found.first(), Some(&shapes(first)), "{declared_inputs}");
            assert!(found.len() <= MOST_CANDIDATES, "{declared_inputs}");
            let expected = later.is_empty() || found.contains(&shapes(later));
            assert!(expected, "{declared_inputs}: {later} is not in {found:?}");
            assert_eq!(later.is_empty(), found.len() == 1, "{declared_inputs}: {found:?}");
        }
    }

    /// Inputs, the first assignment, the first candidate for the second, and one that must be
    /// among those that follow.
    const SECOND: &[(&str, &str, &str, &str)] = &[
        ("1,3,8,8", "1,3,8,8", "", ""),
        ("N,3,H,W", "1,3,64,64", "2,3,32,33", "2,3,32,64"),
        ("N,3,H,W", "1,3,64,64", "2,3,32,33", "1,3,48,65"),
        ("N,H,W,3", "1,64,64,3", "2,32,33,3", "2,33,32,3"),
        ("N,3,48,W", "1,3,48,64", "2,3,48,32", "1,3,48,33"),
        // The height is a guess: 32 and 48 are among what is tried.
        ("N,3,?,?", "1,3,32,100", "2,3,32,33", "2,3,32,48"),
        ("N,C,H,W", "1,3,32,100", "2,3,32,33", "2,3,33,32"),
        // A batch of two, of nothing else, is twice as large.
        ("N,3,224,224", "1,3,224,224", "", ""),
        ("?,? 2,?,128", "1,512 2,1,128", "2,5 2,2,128", "1,193 2,1,128"),
        ("1,N,16 1,N", "1,64,16 1,64", "1,5,16 1,5", "1,15,16 1,15"),
        ("1,N", "1,1", "", ""),
        ("n,3,D,H,W", "1,3,16,16,16", "2,3,9,9,9", "2,3,11,11,11"),
        ("n,3,H,W=2,3,9,9 n,T", "2,3,9,9 2,64", "2,3,9,9 2,5", "2,3,9,9 2,50"),
    ];

    #[test]
    fn a_second_run_is_small_and_of_other_sizes() {
        for (declared_inputs, first, second, later) in SECOND {
            let first = shapes(first);
            let found = second_candidates(&inputs(declared_inputs), &first);
            assert!(found.len() <= MOST_CANDIDATES, "{declared_inputs}");
            for assignment in &found {
                assert!(
                    elements_at_most(assignment) <= elements_at_most(&first),
                    "{declared_inputs}: {assignment:?}"
                );
                assert_ne!(assignment, &first, "{declared_inputs}");
            }
            let expected = Some(shapes(second)).filter(|_| !second.is_empty());
            assert_eq!(found.first(), expected.as_ref(), "{declared_inputs}");
            let expected = later.is_empty() || found.contains(&shapes(later));
            assert!(expected, "{declared_inputs}: {later} is not in {found:?}");
        }
    }
}
