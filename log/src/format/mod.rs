//! Record batches as bytes. Pure: no IO, no clock.

pub mod compression;
