//! Replays what fuzzing has found and kept, and goes on with a few thousand further inputs,
//! mutated models among them: nothing panics, hangs, takes gigabytes or writes a wrong file.
//!
//! `fuzz/README.md` says how to go on for longer. The bodies of the fuzz targets are in
//! `fuzzing/`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod fuzzing;
#[path = "it/support/text/mod.rs"]
mod text;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use fuzzing::choices::Choices;
use prost::Message;
use twox_hash::XxHash3_128;

use fuzzing::{external_data, mutate, pipeline, reader, splice, stress, verified};

/// Limits of one input: far above what any of them needs, and below what a user would notice.
const TIME: Duration = Duration::from_secs(20);
const MEMORY: usize = 1 << 30;

/// Limits at which the test gives up, before the machine does.
const LAST_TIME: Duration = Duration::from_secs(60);
const LAST_MEMORY: usize = 6 << 30;

/// An allocator that counts what all threads allocate.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

impl Counting {
    fn took(size: usize) {
        let now = NOW.fetch_add(size, Relaxed).saturating_add(size);
        PEAK.fetch_max(now, Relaxed);
        if now > LAST_MEMORY {
            give_up("asks for more memory than there may be");
        }
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator; only sizes are noted.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::took(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Counting::took(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::took(size);
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The input that is being tried, and when that began.
static TRIED: Mutex<Option<(String, Instant)>> = Mutex::new(None);

/// Names the input, which [`Trial::of`] has left on disk, and ends the process.
fn give_up(why: &str) -> ! {
    let mut error = std::io::stderr();
    // The lock may be held by the thread that asked for the memory.
    let name = TRIED.try_lock().ok().and_then(|mut tried| tried.take());
    let name = name.as_ref().map_or("(unknown)", |(name, _)| name);
    for text in ["\nfuzz_replay: ", name, " ", why, "; it is in ", LEFT, "\n"] {
        let _ = error.write_all(text.as_bytes());
    }
    std::process::abort()
}

/// The folder in which inputs that fail are left.
const LEFT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/fuzz_replay");

/// Inputs are tried one after another, whatever the test harness does, so that the time and
/// memory that are measured are theirs.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A function that panics if the tool does what it must not do.
type Target = fn(&[u8]);

#[derive(Default)]
struct Trial {
    tried: usize,
    failures: Vec<String>,
}

impl Trial {
    fn of(&mut self, name: &str, input: &[u8], target: Target) {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        watch();
        fs::create_dir_all(LEFT).unwrap();
        // A crash or an overflowing stack takes the process along, but not this file.
        fs::write(Path::new(LEFT).join("current"), input).unwrap();
        let begin = Instant::now();
        *TRIED.lock().unwrap_or_else(PoisonError::into_inner) = Some((name.to_owned(), begin));
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
        let memory = PEAK.load(Relaxed).saturating_sub(before);
        *TRIED.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.tried += 1;
        let time = begin.elapsed();
        if std::env::var_os("ACB_FUZZ_VERBOSE").is_some() {
            println!("{name}: {time:?}, {} MB", memory >> 20);
        }
        let failure = match outcome {
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&t| t.to_owned()));
                format!("panics: {}", text.unwrap_or_default())
            }
            Ok(()) if memory > MEMORY => format!("takes {} MB", memory >> 20),
            Ok(()) if time > TIME => format!("takes {time:?}"),
            Ok(()) => return,
        };
        let left = Path::new(LEFT).join(name.replace(['/', ' '], "_"));
        fs::write(&left, input).unwrap();
        self.failures.push(format!("{name} {failure} ({})", left.display()));
    }

    fn assert_passed(&self) {
        // The number of inputs is not fixed: whoever fuzzes adds to the corpus.
        assert!(self.tried > 0, "nothing was tried");
        let Trial { tried, failures } = self;
        let failures: Vec<String> =
            failures.iter().map(|text| text.chars().take(600).collect()).collect();
        assert!(failures.is_empty(), "{} of {tried}:\n{}", failures.len(), failures.join("\n"));
    }
}

/// Ends the process if an input takes too long: a hang cannot be caught.
fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_millis(200));
                let since = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
                let late = since.as_ref().is_some_and(|(_, begin)| begin.elapsed() > LAST_TIME);
                drop(since);
                if late {
                    give_up("does not end");
                }
            }
        });
    });
}

/// Returns all files below `folder`, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

#[test]
fn the_corpus_is_replayed() {
    let targets: [(&str, Target); 4] = [
        ("reader", reader),
        ("pipeline", pipeline),
        ("external_data", external_data::external_data),
        ("splice", splice::splice),
    ];
    for (name, target) in targets {
        let mut trial = Trial::default();
        for file in files(&Path::new("fuzz/corpus").join(name)) {
            trial.of(&file.display().to_string(), &fs::read(&file).unwrap(), target);
        }
        trial.assert_passed();
    }
}

/// Random streams of decisions are given to the targets that make their inputs themselves.
#[test]
fn random_edits_and_places_are_tried() {
    let mut trial = Trial::default();
    for seed in seeds(1000) {
        let mut choices = Choices::Seed(seed);
        let bytes: Vec<u8> = (0..400).map(|_| choices.byte()).collect();
        trial.of(&format!("splice seed {seed}"), &bytes, splice::splice);
        trial.of(&format!("external_data seed {seed}"), &bytes, external_data::external_data);
    }
    trial.assert_passed();
}

/// Every model that was once a finding, and how many blocks are fused in it now.
const FINDINGS: &[(&str, usize)] = &[
    // tract took the channels of a constant vector from beyond its shape, and aborted.
    ("norm_of_a_vector", 1),
    // The node was removed with its first output, which was not the one that is needed.
    ("second_output_of_add", 0),
    // The engine read a convolution of four inputs as a quantized one.
    ("fourth_input_of_conv", 1),
    // With `auto_pad`, the engine used the explicit pads, which do not count then.
    ("pads_beside_auto_pad", 1),
    // A constant that is also added was an arbitrary tensor in the proof, even as a weight.
    ("weight_that_is_added_too", 1),
    // The tolerance followed from the type that the file declares, float64, which is not that of
    // its values; and the rounding of weights in nodes was not considered.
    ("declared_type_of_output_is_wrong", 1),
];

#[test]
fn findings_stay_mended() {
    let mut trial = Trial::default();
    for (name, blocks) in FINDINGS {
        let path = Path::new("fixtures/bad_input").join(name).with_extension("onnx");
        let model = fs::read(&path).unwrap();
        trial.of(name, &model, reader);
        trial.of(name, &model, pipeline);
        trial.of(name, &model, verified);
        let folder = fuzzing::scratch();
        let report = fuzzing::converted(&path, Some(&folder.path().join("out.onnx"))).unwrap();
        assert_eq!(report.blocks.len(), *blocks, "{name}");
    }
    trial.assert_passed();
}

/// Models that the engine, left to itself, does not survive, or cannot judge.
const TOO_MUCH_FOR_THE_ENGINE: &[&str] = &[
    // As in the findings, but in the model itself: the engine infers shapes in all of it.
    "norm_of_a_vector_at_run_time",
    // The model's own padding, in the run of the whole model.
    "pad_of_gigabytes",
    // -8834757317102779258 × 67108864 elements, in the run of the whole model; as a constant
    // it is not evaluated any more (corpus of `reader`).
    "negative_size_of_a_constant",
    // Both are nonsense, which is no failed proof: sizes that leave nothing of an output,
    // and an input of five dimensions for a kernel of four.
    "output_of_no_elements",
    "kernel_of_other_rank",
    // Pads of 2³³ along one axis of a tensor without elements.
    "pads_beyond_all_sizes",
];

#[test]
fn what_the_engine_does_not_survive_is_a_verdict() {
    let mut trial = Trial::default();
    for name in TOO_MUCH_FOR_THE_ENGINE {
        let path = Path::new("fixtures/bad_input").join(name).with_extension("onnx");
        trial.of(name, &fs::read(path).unwrap(), verified);
    }
    trial.assert_passed();
}

/// A size is a sum of sizes, doubled thirty times.
#[test]
fn sizes_that_double_are_not_asked_for() {
    let path = Path::new("fixtures/bad_input/symbolic_sizes_double.onnx");
    let mut trial = Trial::default();
    trial.of("symbolic sizes", &fs::read(path).unwrap(), verified);
    trial.assert_passed();
}

/// The run of the whole model once refused a right result: r − r is zero, and (c + r) − r is c
/// except for the rounding of an r that may be large.
#[test]
fn rounding_alone_is_no_mistake() {
    let path = Path::new("fixtures/bad_input/operand_cancels.onnx");
    let mut trial = Trial::default();
    trial.of("operand_cancels", &fs::read(path).unwrap(), verified);
    trial.assert_passed();
}

#[test]
fn the_nodes_of_the_file_are_reported() {
    let path = Path::new("fixtures/bad_input/block_of_calls_is_left_alone.onnx");
    let mut trial = Trial::default();
    trial.of("block_of_calls_is_left_alone", &fs::read(path).unwrap(), pipeline);
    trial.assert_passed();
}

/// Models that a second run used to change once more, with earlier planners: it found the better
/// of two ways to merge three convolutions; a kernel had lost its last other reader; a form that
/// was refused had been the only one tried.
#[test]
fn a_second_run_finds_nothing() {
    let files = fs::read_dir("fixtures/bad_input").unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("second_run_"))
    };
    let models: Vec<PathBuf> = files.filter(is_one).collect();
    assert_eq!(models.len(), 6);
    for model in models {
        let folder = fuzzing::scratch();
        let [once, twice] = ["once.onnx", "twice.onnx"].map(|name| folder.path().join(name));
        fuzzing::converted(&model, Some(&once)).unwrap();
        fuzzing::converted(&once, Some(&twice)).unwrap();
        let is_same = fs::read(&once).unwrap() == fs::read(&twice).unwrap();
        assert!(is_same, "{}", model.display());
    }
}

#[test]
fn an_output_does_not_replace_a_side_file() {
    let folder = fuzzing::scratch();
    let path = |name: &str| folder.path().join(name);
    external_data::write_model(&path("in.onnx"), &["weights.bin"]);
    fs::write(path("weights.bin"), [0; 4]).unwrap();
    fs::create_dir(path("out")).unwrap();
    for output in ["weights.bin", "out/weights.bin"] {
        let converted = fuzzing::converted(&path("in.onnx"), Some(&path(output)));
        assert!(converted.is_err(), "{output} is the model and its weights");
        assert_eq!(fs::read(path("weights.bin")).unwrap(), [0; 4], "{output}");
    }
}

#[test]
fn no_side_file_is_left_without_its_model() {
    let folder = fuzzing::scratch();
    let path = |name: &str| folder.path().join(name);
    external_data::write_model(&path("in.onnx"), &["a.bin", "missing.bin"]);
    fs::write(path("a.bin"), [0; 4]).unwrap();
    fs::create_dir(path("out")).unwrap();
    assert!(fuzzing::converted(&path("in.onnx"), Some(&path("out/out.onnx"))).is_err());
    assert_eq!(files(&path("out")), Vec::<PathBuf>::new(), "left behind");
}

#[test]
fn a_tensor_has_one_location() {
    let folder = fuzzing::scratch();
    let path = |name: &str| folder.path().join(name);
    external_data::write_model(&path("in.onnx"), &["a.bin|b.bin"]);
    fs::write(path("a.bin"), [0; 4]).unwrap();
    fs::write(path("b.bin"), [0; 4]).unwrap();
    fs::create_dir(path("out")).unwrap();
    assert!(fuzzing::converted(&path("in.onnx"), Some(&path("out/out.onnx"))).is_err());
}

#[test]
fn links_and_pipes_are_no_side_files() {
    let folder = fuzzing::scratch();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("model")).unwrap();
    fs::write(path("secret"), [0; 4]).unwrap();
    fs::hard_link(path("secret"), path("model/link")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(path("model/pipe")).status();
    assert!(pipe.is_ok_and(|status| status.success()));
    for place in ["link", "pipe"] {
        external_data::write_model(&path("model/in.onnx"), &[place]);
        let model = path("model/in.onnx");
        let mut trial = Trial::default();
        trial.of(place, model.to_str().unwrap().as_bytes(), |model| {
            let model = Path::new(std::str::from_utf8(model).unwrap());
            let output = model.with_file_name("../out.onnx");
            assert!(fuzzing::converted(model, Some(&output)).is_err());
        });
        trial.assert_passed();
    }
}

#[test]
fn what_a_model_asks_for_is_limited() {
    stressed(stress::MODELS);
}

#[test]
fn what_constants_ask_for_is_limited() {
    stressed(stress::OPEN);
}

fn stressed(models: &[stress::Row]) {
    let mut trial = Trial::default();
    let only = std::env::var("ACB_FUZZ_ONLY").unwrap_or_default();
    for (name, make) in models.iter().filter(|(name, _)| name.contains(&only)) {
        trial.of(name, &stress::bytes(*make), converted_once);
    }
    trial.assert_passed();
}

fn converted_once(model: &[u8]) {
    let folder = fuzzing::scratch();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    fs::write(&input, model).unwrap();
    let _ = fuzzing::converted(&input, Some(&output));
}

/// Returns the models that are small enough to be changed thousands of times, with their paths.
fn small_models() -> Vec<(PathBuf, Vec<u8>)> {
    const LARGEST: usize = 8 << 10;
    let below = |group: &str| files(&Path::new("fixtures").join(group));
    let model = |path: PathBuf| {
        let bytes = match path.extension()?.to_str()? {
            "onnx" => fs::read(&path).unwrap(),
            "onnxtxt" => text::model(&fs::read_to_string(&path).unwrap()).unwrap().encode_to_vec(),
            _ => return None,
        };
        (bytes.len() <= LARGEST).then_some((path, bytes))
    };
    ["blocks", "cases", "exporters", "relatives"]
        .into_iter()
        .flat_map(below)
        .filter_map(model)
        .collect()
}

/// Returns the model that a seed chooses for `role`: the one whose path hashes highest together
/// with both. A model that is added becomes the choice of a few seeds, and no other choice changes.
fn chosen<'m>(models: &'m [(PathBuf, Vec<u8>)], seed: u64, role: &str) -> &'m [u8] {
    let weight = |(path, _): &&(PathBuf, Vec<u8>)| {
        XxHash3_128::oneshot(format!("{} {role} {seed}", path.display()).as_bytes())
    };
    &models.iter().max_by_key(weight).unwrap().1
}

/// Returns as many seeds as `ACB_FUZZ_COUNT` says, or `count`, from `ACB_FUZZ_SEED` on.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("ACB_FUZZ_SEED").unwrap_or(0);
    first..first + number("ACB_FUZZ_COUNT").unwrap_or(count)
}

fn mutations(count: u64, targets: &[Target]) {
    let models = small_models();
    assert!(models.len() > 100, "{} small models", models.len());
    let mut trial = Trial::default();
    for seed in seeds(count) {
        let mut choices = Choices::Seed(seed);
        let [model, other] = ["changed", "other"].map(|role| chosen(&models, seed, role));
        let mutated = mutate::mutated(model, other, &mut choices).unwrap();
        if let Some(folder) = std::env::var_os("ACB_FUZZ_SAVE") {
            fs::write(Path::new(&folder).join(format!("{seed}.onnx")), &mutated).unwrap();
        }
        for target in targets {
            trial.of(&format!("mutation seed {seed}"), &mutated, *target);
        }
    }
    println!("{} inputs tried, {} failed", trial.tried, trial.failures.len());
    trial.assert_passed();
}

#[test]
fn mutated_models_are_read_and_converted() {
    mutations(600, &[reader, pipeline]);
}

/// What can be fused in a mutated model is fused correctly: the proof and the run agree.
#[test]
fn mutated_models_pass_verification() {
    mutations(200, &[verified]);
}
