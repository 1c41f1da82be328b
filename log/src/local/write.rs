//! Writing an append with as few system calls as it takes, whole or not at all.

use std::{
    fs::File,
    io::{self, IoSlice},
};

use rustix::io::Errno;

/// Buffers handed to one system call; Linux takes 1024.
const MAX_SLICES: usize = 1024;

/// Room that tests leave to a log before its disk is "full"; nothing in a release build.
#[derive(Debug, Default)]
pub(super) struct Quota {
    #[cfg(test)]
    left: Option<u64>,
}

impl Quota {
    #[cfg(test)]
    pub(super) const fn of(left: Option<u64>) -> Quota {
        Quota { left }
    }
}

/// Writes all of `slices` at `position`. What a failed call leaves behind is the caller's to cut.
pub(super) fn write_all_at(
    file: &File,
    mut position: u64,
    mut slices: &mut [IoSlice<'_>],
    quota: &mut Quota,
) -> io::Result<()> {
    while !slices.is_empty() {
        let batch = slices.len().min(MAX_SLICES);
        let written = match pwritev(file, &slices[..batch], position, quota) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        position += written as u64;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

#[cfg(not(test))]
fn pwritev(file: &File, slices: &[IoSlice<'_>], position: u64, _quota: &mut Quota) -> Result<usize, Errno> {
    rustix::io::pwritev(file, slices, position)
}

/// Writes what the quota leaves room for, as a disk that fills does: the part that fits first, then nothing.
#[cfg(test)]
fn pwritev(file: &File, slices: &[IoSlice<'_>], position: u64, quota: &mut Quota) -> Result<usize, Errno> {
    let Some(left) = quota.left else { return rustix::io::pwritev(file, slices, position) };
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(left as usize).collect();
    if bytes.is_empty() {
        return Err(Errno::NOSPC);
    }
    let written = rustix::io::pwrite(file, &bytes, position)?;
    quota.left = Some(left - written as u64);
    Ok(written)
}

/// Whether `error` says that the disk or the quota on it is full.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
