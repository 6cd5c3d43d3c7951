//! Files that are read and written: exporters', broken ones, and what must survive.

mod bad_input;
mod believed_sizes;
mod cases;
mod fixtures;
mod survives;
mod writing;
mod wrong_files;
