//! Records of the group coordinator as its log may hand them to us.
//!
//! Input: flags (1: there is a value) │ length of the key, u8 │ key │ value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_broker::coordinator::records::CoordinatorRecord;
use varve_fuzz::record::try_record;

fuzz_target!(|bytes: &[u8]| try_record::<CoordinatorRecord>(bytes));
