//! What the fuzz targets and the maker of their seeds share: inputs of several parts, checksums made to hold, users and
//! certificates that nobody has, and an allocator that sees what balloons.
//!
//! A checksum keeps a fuzzer out: it would take it years to guess one. Inputs therefore say in a flag whether their
//! checksums are to be made right first; code behind a checksum must bear a forged one.

pub mod certificate;
pub mod input;
pub mod login;
pub mod memory;
pub mod record;
pub mod seal;
