//! A process that is stopped for longer than verification may take, at whatever point, makes the
//! same file and says the same words: limits count only the time in which the process runs.

#![cfg(unix)]
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::tool::tool;

const NETWORK: &str = "fixtures/networks/cifar_quick/torchscript_kept_static.onnx";

/// The limit of verification in seconds, of which a tenth is needed.
const LIMIT: u64 = 20;

/// Moments at which the process is stopped, in percent of the time that it takes undisturbed:
/// while it reads, proves, writes, runs.
const MOMENTS: [u32; 5] = [5, 15, 35, 55, 80];

fn begun(output: &Path) -> Child {
    let mut tool = tool();
    tool.args([NETWORK, output.to_str().unwrap(), "--verify-timeout", &LIMIT.to_string()]);
    let tool = tool.stdout(Stdio::piped()).stderr(Stdio::piped());
    tool.spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn words(output: Output) -> (Option<i32>, String) {
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    // The line with the place of the file and the time it took differs in each run.
    let alike = text.split_inclusive('\n').filter(|line| !line.starts_with("written: "));
    (output.status.code(), alike.collect())
}

#[test]
fn time_in_which_a_process_stands_still_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).join("out.onnx");
    let folder_for = |name: &str| {
        fs::create_dir(folder.path().join(name)).unwrap();
        path(name)
    };
    let started = Instant::now();
    let expected = words(begun(&folder_for("undisturbed")).wait_with_output().unwrap());
    let undisturbed = started.elapsed();
    assert_eq!(expected.0, Some(0), "{}", expected.1);
    assert!(expected.1.contains("agree"), "{}", expected.1);
    let stopped = MOMENTS.map(|moment| {
        let name = moment.to_string();
        let mut child = begun(&folder_for(&name));
        thread::sleep(undisturbed * moment / 100);
        let is_running = child.try_wait().unwrap().is_none();
        if is_running {
            signal(&child, "-STOP");
        }
        (name, child, is_running)
    });
    assert!(stopped.iter().filter(|(_, _, is_running)| *is_running).count() > 1);
    thread::sleep(Duration::from_secs(LIMIT + 2));
    for (name, child, is_running) in stopped {
        if is_running {
            signal(&child, "-CONT");
        }
        assert_eq!(words(child.wait_with_output().unwrap()), expected, "stopped at {name} %");
        assert!(fs::read(path(&name)).unwrap() == fs::read(path("undisturbed")).unwrap());
    }
}
