//! Records of those who keep the state of share partitions, as their log may hand them to us.
//!
//! Input: flags (1: there is a value) │ length of the key, u8 │ key │ value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_broker::coordinator::share_state::ShareRecord;
use varve_fuzz::record::try_record;

fuzz_target!(|bytes: &[u8]| try_record::<ShareRecord>(bytes));
