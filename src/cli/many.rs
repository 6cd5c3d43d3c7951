//! Many models: a line for each, and a failure does not stop the others.
//!
//! Knows files, threads and exit codes; the library converts each model.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use acb_fuse::error::unknown_blocks;
use acb_fuse::report::html::Origin;
use acb_fuse::report::target::Target;
use acb_fuse::report::text::Tone;
use acb_fuse::report::{Report, json_line};
use acb_fuse::{
    Endpoint, Error, FileKey, Options, file_keys, inspect_file, is_same_file, side_file_names,
};

use super::arguments::Arguments;
use super::exit::{Exit, checked, converted};
use super::folders;
use super::lines::{ModelLine, Totals, line};
use super::pages::{Pages, folder_of_pages};
use super::places::unwritten;
use super::show::{self, Screen, printable};
use super::stage;

/// A model to convert or to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The path of the model.
    pub input: PathBuf,
    /// The path of the new model; `None` if the model is only looked at.
    pub output: Option<PathBuf>,
}

impl Job {
    /// Returns both paths, as the line about the model shows them.
    fn shown(&self) -> String {
        let input = self.input.display();
        match &self.output {
            Some(output) => format!("{input} → {}", output.display()),
            None => input.to_string(),
        }
    }
}

/// Returns a job for each model; `None` if there is only one model.
///
/// # Errors
/// Returns an error if the arguments do not fit each other, two files would have the same path,
/// or a folder or the manifest cannot be read or made.
pub fn jobs(arguments: &Arguments) -> Result<Option<Vec<Job>>, Exit> {
    let jobs = match (&arguments.out_dir, &arguments.manifest, arguments.files.as_slice()) {
        (Some(folder), ..) => into_folder(&arguments.files, folder)?,
        (_, Some(manifest), _) => of_manifest(manifest)?,
        (.., files) => {
            fits(arguments, files)?;
            match files {
                [one] if !one.is_dir() => return fits_one(arguments),
                _ if arguments.only_looks() => looks(files)?,
                _ => return fits_one(arguments),
            }
        }
    };
    check_places(&jobs, arguments).map_err(Exit::of_usage)?;
    if let Some(folder) = &arguments.out_dir {
        let outputs = jobs.iter().filter_map(|job| job.output.as_deref()?.parent());
        for folder in outputs.chain([folder.as_path()]) {
            let unmade = |source| Error::Write { file: folder.display().to_string(), source };
            fs::create_dir_all(folder).map_err(unmade)?;
        }
    }
    Ok(Some(jobs))
}

/// Checks that `files` and the other arguments fit each other.
fn fits(arguments: &Arguments, files: &[PathBuf]) -> Result<(), Exit> {
    let has_place = arguments.place().is_some();
    let why_not = match files {
        [_, _, ..] if arguments.output.is_some() => "--output takes exactly one model as IN",
        [_, _, _, ..] if !arguments.only_looks() => {
            "more than IN and OUT; for many models see --out-dir, --look and --check"
        }
        [one, others @ ..]
            if arguments.only_looks()
                && arguments.verbose
                && (one.is_dir() || !others.is_empty()) =>
        {
            "--verbose is for one model"
        }
        [one, ..] if one.is_dir() && !arguments.only_looks() => {
            "IN is a folder; --look and --check inspect the models in it, --out-dir converts them"
        }
        _ if arguments.no_clobber && !has_place => "--no-clobber without OUT has no effect",
        _ if arguments.force && !has_place => "--force without OUT has no effect",
        _ => return Ok(()),
    };
    Err(Exit::of_usage(why_not.to_owned()))
}

/// Checks that the arguments can be used with one model, for which there are no jobs.
fn fits_one(arguments: &Arguments) -> Result<Option<Vec<Job>>, Exit> {
    if arguments.jobs.is_none() {
        return Ok(None);
    }
    let why = "--jobs is for many models, with --out-dir, --manifest, --look or --check; for one \
               there is --threads";
    Err(Exit::of_usage(why.to_owned()))
}

/// Returns a look at each of `files`, and at each model in those that are folders.
fn looks(files: &[PathBuf]) -> Result<Vec<Job>, Exit> {
    let mut jobs = Vec::with_capacity(files.len());
    for file in files {
        let models = folders::models(file)?;
        jobs.extend(models.into_iter().map(|input| Job { input, output: None }));
    }
    Ok(jobs)
}

/// Does all `jobs`, prints a line about each, and writes a line of its report. The exit code is
/// that of the first job that failed.
///
/// # Errors
/// Returns an error if the reports cannot be written.
pub fn many(arguments: &Arguments, jobs: &[Job]) -> Result<ExitCode, Exit> {
    let mut options = arguments.options()?;
    // Several progress bars would overwrite each other.
    options.progress = stage::note;
    let skips = skips(jobs, &options)?;
    // A side file made for one model must not stand where the output of another goes.
    let taken = called_like_side_files(jobs);
    let options = |index: usize| {
        let mut options = options.clone();
        options.skip = skips.get(index).cloned().unwrap_or_default();
        let own = jobs.get(index).and_then(|job| job.output.as_ref());
        options.also_written.extend(taken.iter().filter(|&path| Some(path) != own).cloned());
        options
    };
    let convert = |index: usize, job: &Job| {
        let input = Endpoint::File(job.input.clone());
        let output = job.output.clone().map(Endpoint::File);
        let converted = converted(&input, output.as_ref(), &options(index));
        if arguments.check { checked(converted) } else { converted }
    };
    let at_a_time = arguments.jobs.unwrap_or(1);
    let started = Instant::now();
    let mut totals = Totals::default();
    let page = index_page(arguments);
    let pages = page.and_then(Target::path);
    let pages = pages.map(|path| Pages::begin(path, Origin::now(show::command())));
    let mut pages = pages.transpose()?;
    let stdout = Screen::stdout(arguments.no_color);
    let stderr = Screen::stderr(arguments.no_color);
    let mut say = |job: &Job, report: &Report, result: &Result<(), Exit>| {
        totals.add(report);
        let line = line(&job.shown(), report, result);
        let _ = match result {
            Err(_) => writeln!(io::stderr(), "{}", shown(&line, &stderr)),
            Ok(()) if arguments.quiet => Ok(()),
            Ok(()) => writeln!(io::stdout(), "{}", shown(&line, &stdout)),
        };
    };
    // A report that cannot be written makes the command fail; a failed model is a result of it.
    let mut with_reports = |out: &mut dyn Write| {
        let mut written = Ok(());
        let failure = work(jobs, at_a_time, &convert, |index, job, report, result| {
            say(job, report, result);
            if let Err(exit) = result
                && exit.spares_reports
            {
                written = Err(io::Error::new(io::ErrorKind::AlreadyExists, exit.message.clone()));
            }
            if written.is_ok() {
                let page = pages.as_mut().map_or(Ok(()), |pages| pages.add(index, report));
                written = page.and_then(|()| out.write_all(json_line(report).as_bytes()));
            }
        });
        written.map(|()| failure)
    };
    let lines = arguments.report.iter().find(|target| matches!(target, Target::Lines(_)));
    let failure = match (lines, page) {
        (Some(target), _) => {
            target.write_lines(with_reports).map_err(|source| unwritten(target, source))?
        }
        (None, Some(page)) => {
            with_reports(&mut io::sink()).map_err(|source| unwritten(page, source))?
        }
        (None, None) => work(jobs, at_a_time, &convert, |_, job, report, result| {
            say(job, report, result);
        }),
    };
    pages.map_or(Ok(()), Pages::finish)?;
    if !arguments.quiet && jobs.len() > 1 {
        let total = shown(&totals.line(started.elapsed()), &stdout);
        let _ = writeln!(io::stdout(), "{total}");
    }
    Ok(failure.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit.code)))
}

/// Returns the line about one model, or about all. A missing check is coloured over the whole
/// line, so that it is not overlooked.
fn shown(line: &ModelLine, screen: &Screen) -> String {
    let head = format!("{:<7}", line.word);
    let indent = head.len().saturating_add(1);
    let text = printable(&line.text, |_| false);
    match line.tone {
        Tone::NotRun | Tone::NotVerified => {
            let all = screen.headed(Tone::Plain, &head, &text, indent);
            screen.coloured(line.tone, &all)
        }
        tone => screen.headed(tone, &head, &text, indent),
    }
}

/// Returns the target of the index page, if it is asked for.
fn index_page(arguments: &Arguments) -> Option<&Target> {
    arguments.report.iter().find(|target| matches!(target, Target::Html(_)))
}

/// Returns the jobs that convert each of `files` into `folder`. A model of a folder keeps its
/// path below that folder; models in `folder` itself, which are results, are left out.
fn into_folder(files: &[PathBuf], folder: &Path) -> Result<Vec<Job>, Exit> {
    let mut jobs = Vec::with_capacity(files.len());
    // Paths are resolved before they are compared: `.` holds `./out`.
    let results = folder.canonicalize().ok();
    let is_result = |model: &Path| {
        let model = model.canonicalize().ok();
        model.zip(results.as_ref()).is_some_and(|(model, results)| model.starts_with(results))
    };
    for file in files {
        let nameless = || Exit::of_usage(format!("{}: it has no name", file.display()));
        let above =
            if file.is_dir() { Some(file.as_path()) } else { file.file_name().and(file.parent()) };
        let above = above.ok_or_else(nameless)?;
        let models = folders::models(file)?;
        let read = models.into_iter().filter(|model| model == file || !is_result(model));
        jobs.extend(read.map(|input| {
            let place = input.strip_prefix(above).unwrap_or(&input);
            Job { output: Some(folder.join(place)), input }
        }));
    }
    Ok(jobs)
}

/// Reads the jobs of a manifest, which has on each line a JSON object with `input` and `output`,
/// relative to the manifest's folder.
fn of_manifest(path: &Path) -> Result<Vec<Job>, Exit> {
    let beside = path.parent().unwrap_or(Path::new(""));
    let unread = |source| Error::Read { file: path.display().to_string(), source };
    let text = fs::read_to_string(path).map_err(unread)?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let job = |(number, line): (usize, &str)| {
        let wrong = |why: &str| Exit::of_usage(format!("{}, line {number}: {why}", path.display()));
        let pair: BTreeMap<String, String> =
            serde_json::from_str(line).map_err(|error| wrong(&error.to_string()))?;
        let place = |key| pair.get(key).map(|place| beside.join(place));
        let (Some(input), Some(output), 2) = (place("input"), place("output"), pair.len()) else {
            return Err(wrong("expected {\"input\": …, \"output\": …}"));
        };
        Ok(Job { input, output: Some(output) })
    };
    lines.map(job).collect()
}

/// Checks that no file that a job writes is written or read by another job, is a report, or is
/// the manifest.
fn check_places(jobs: &[Job], arguments: &Arguments) -> Result<(), String> {
    let mut outputs: HashMap<FileKey, usize> = HashMap::new();
    for (index, job) in jobs.iter().enumerate() {
        let Some(output) = &job.output else { continue };
        for key in file_keys(output) {
            if outputs.insert(key, index).is_some_and(|other| other != index) {
                return Err(format!("two models would go to {}", output.display()));
            }
        }
    }
    let writer = |path: &Path| {
        let index = file_keys(path).iter().find_map(|key| outputs.get(key).copied())?;
        Some((index, jobs.get(index)?.input.display()))
    };
    if let Some((manifest, (_, other))) =
        arguments.manifest.as_deref().and_then(|manifest| Some((manifest, writer(manifest)?)))
    {
        let manifest = manifest.display();
        return Err(format!("the new model of {other} would replace the manifest {manifest}"));
    }
    let reports: Vec<&Path> = arguments.report.iter().filter_map(Target::path).collect();
    let pages = index_page(arguments).and_then(Target::path).map(folder_of_pages);
    for (index, job) in jobs.iter().enumerate() {
        let input = job.input.display();
        if let Some((_, other)) = writer(&job.input).filter(|&(writer, _)| writer != index) {
            return Err(format!("the new model of {other} would replace {input}, which is read"));
        }
        for weights in weights(job) {
            let shown = weights.display();
            if let Some((_, other)) = writer(&weights) {
                return Err(format!(
                    "the new model of {other} would replace {shown}, which holds weights of {input}"
                ));
            }
            if reports.iter().any(|report| is_same_file(report, &weights)) {
                return Err(format!(
                    "a report would replace {shown}, which holds weights of {input}"
                ));
            }
        }
        let models = || std::iter::once(&job.input).chain(&job.output);
        if reports.iter().any(|report| models().any(|model| is_same_file(report, model))) {
            return Err("--report: the report would take the place of a model".to_owned());
        }
        let is_inside = |model: &PathBuf| {
            let folder = model.parent();
            pages.iter().any(|pages| folder.is_some_and(|folder| is_same_file(pages, folder)))
        };
        if let Some(model) = models().find(|model| is_inside(model)) {
            return Err(format!("{} would be among the pages of the report", model.display()));
        }
    }
    Ok(())
}

/// Returns the side files that a job reads, at their paths beside the model and beside the new
/// one.
fn weights(job: &Job) -> Vec<PathBuf> {
    let beside = |path: &Path, name: &str| path.with_file_name(name);
    let names = side_file_names(&job.input);
    let models = || std::iter::once(&job.input).chain(&job.output);
    names.iter().flat_map(|name| models().map(|model| beside(model, name))).collect()
}

/// Returns the outputs whose names end like that of a side file that is made for another model.
fn called_like_side_files(jobs: &[Job]) -> Vec<PathBuf> {
    let outputs = jobs.iter().filter_map(|job| job.output.clone());
    let ending = |path: &PathBuf| path.extension().map(|ending| ending.to_ascii_lowercase());
    outputs.filter(|output| ending(output).is_some_and(|ending| ending == "data")).collect()
}

/// Returns for each job the blocks that are left alone: those `--skip` names that its model has.
///
/// # Errors
/// Returns an error if one of these names is in no model.
fn skips(jobs: &[Job], options: &Options) -> Result<Vec<Vec<String>>, Exit> {
    let mut blocks: BTreeSet<String> = BTreeSet::new();
    let mut known: BTreeSet<&String> = BTreeSet::new();
    let mut skips = Vec::with_capacity(jobs.len());
    for job in jobs.iter().filter(|_| !options.skip.is_empty()) {
        let mut skip: Vec<&String> = options.skip.iter().collect();
        if let Err(failure) = inspect_file(&job.input, options)
            && let Error::NoSuchBlock { names, blocks: of_model, .. } = *failure.error
        {
            skip.retain(|name| !names.contains(name));
            blocks.extend(of_model);
        }
        known.extend(&skip);
        skips.push(skip.into_iter().cloned().collect());
    }
    let unknown: Vec<String> =
        options.skip.iter().filter(|name| !known.contains(name)).cloned().collect();
    if !unknown.is_empty() {
        let blocks: Vec<String> = blocks.into_iter().collect();
        return Err(Exit::of_usage(format!("--skip: {}", unknown_blocks(&unknown, &blocks))));
    }
    Ok(skips)
}

/// Does all `jobs`, `at_a_time` of them at once, and hands each result to `said` as it comes.
/// Returns the first failure in the order of the jobs, if there is one.
fn work(
    jobs: &[Job],
    at_a_time: usize,
    convert: &(impl Fn(usize, &Job) -> (Report, Result<(), Exit>) + Sync),
    mut said: impl FnMut(usize, &Job, &Report, &Result<(), Exit>),
) -> Option<Exit> {
    let waiting = Mutex::new(jobs.iter().enumerate());
    let next = || waiting.lock().ok()?.next();
    let (done, results) = channel();
    let mut failures = BTreeMap::new();
    thread::scope(|scope| {
        for _ in 0..at_a_time.min(jobs.len()) {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                while let Some((index, job)) = next() {
                    let (report, result) = convert(index, job);
                    if done.send((index, job, report, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        for (index, job, report, result) in results {
            said(index, job, &report, &result);
            failures.extend(result.err().map(|exit| (index, exit)));
        }
    });
    failures.into_values().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_read_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let path = folder.path().join("manifest");
        let manifest = |text: &str| {
            fs::write(&path, text).unwrap();
            of_manifest(&path)
        };
        let job =
            |input: &str, output: &str| Job { input: input.into(), output: Some(output.into()) };
        let files = |files: &[&str]| files.iter().map(PathBuf::from).collect::<Vec<_>>();

        let jobs = into_folder(&files(&["a/x.onnx", "y.onnx"]), &out).unwrap();
        let placed = |name: &str| out.join(name).to_str().unwrap().to_owned();
        assert_eq!(jobs, [job("a/x.onnx", &placed("x.onnx")), job("y.onnx", &placed("y.onnx"))]);
        assert!(into_folder(&files(&["no/such/.."]), &out).is_err());
        // This folder holds no models.
        assert!(into_folder(&[folder.path().to_owned()], &out).is_err());

        let two = "{\"input\": \"a\", \"output\": \"b\"}\n\n{\"output\":\"d\",\"input\":\"c\"}\n";
        let beside = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let jobs = ["a", "b", "c", "d"].map(beside);
        assert_eq!(manifest(two).unwrap(), [job(&jobs[0], &jobs[1]), job(&jobs[2], &jobs[3])]);
        let absolute = "{\"input\": \"/a\", \"output\": \"../b\"}";
        assert_eq!(manifest(absolute).unwrap(), [job("/a", &beside("../b"))]);
        for (wrong, said) in [
            ("{\"input\": \"a\"}", "line 1: expected"),
            ("\n{\"input\": \"a\", \"output\": 3}", "line 2"),
            ("a.onnx b.onnx", "line 1"),
            ("{\"input\": \"a\", \"output\": \"b\", \"threads\": \"1\"}", "expected"),
        ] {
            let error = manifest(wrong).unwrap_err();
            assert!(error.code == 2 && error.message.contains(said), "{wrong}: {error:?}");
        }
    }
}
