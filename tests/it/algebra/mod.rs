//! What regions of linear operators become.

mod random_regions;
