//! Tests of files that are read and written: exporters' files, broken files, and what must survive
//! a conversion.

mod bad_input;
mod believed_sizes;
mod cases;
mod fixtures;
mod keep_identity;
mod places;
mod side_file;
mod survives;
mod training_info;
mod unproved;
mod unsorted;
mod writing;
mod wrong_files;
