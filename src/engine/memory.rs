//! How much memory this process may still take, where the system limits it (`ulimit -v`). A run
//! that needs more is not begun, because a failed allocation ends the process.
//!
//! Knows what Linux says of a process; elsewhere nothing is known, and nothing is refused.

use std::fs;

use crate::engine::limits::EngineError;

/// Bytes that a run takes beside its tensors: stacks and arenas of threads, and the engine's
/// own.
const BESIDE: usize = 256 << 20;

/// Checks whether tensors of `bytes` bytes can be allocated, together with what operators need
/// for themselves on the way: about a quarter more.
///
/// # Errors
/// Returns an error that says how much memory is left if that is too little.
pub fn check(bytes: usize) -> Result<(), EngineError> {
    // So few bytes are as likely to be granted as any other allocation here, and asking takes as
    // long as allocating them.
    if bytes <= BESIDE {
        return Ok(());
    }
    let needed = (bytes / 4).saturating_add(bytes);
    match left() {
        Some(left) if needed.saturating_add(BESIDE) > left => {
            Err(EngineError::NoMemory { bytes, left })
        }
        _ => Ok(()),
    }
}

/// Returns the bytes of address space that are left to the process, or `None` if that is not
/// limited.
fn left() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let limit: usize = field(&limits, "Max address space")?;
    let taken: usize = field(&fs::read_to_string("/proc/self/status").ok()?, "VmSize:")?;
    Some(limit.saturating_sub(taken.saturating_mul(1 << 10)))
}

/// Returns the number after `name` at the beginning of a line, or `None` if it is "unlimited".
fn field(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let limits = "Limit    Soft Limit  Hard Limit  Units\n\
                      Max address space         2684354560           unlimited            bytes\n";
        assert_eq!(field(limits, "Max address space"), Some(2_684_354_560));
        let unlimited = "Max address space         unlimited            unlimited      bytes\n";
        assert_eq!(field(unlimited, "Max address space"), None);
        assert_eq!(field("Name:\tx\nVmSize:\t   27560 kB\n", "VmSize:"), Some(27560));
    }
}
