//! Any bytes to a QMP session: the rules of `crates/qmp/tests/support/stream.rs` must hold.
//!
//! `mkdir -p fuzz/corpus/qmp_session && RUSTC_BOOTSTRAP=1 cargo fuzz run qmp_session fuzz/corpus/qmp_session crates/qmp/tests/seeds`

#![no_main]

#[path = "../../crates/qmp/tests/support/stream.rs"]
mod stream;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (cuts, bytes) = data.split_first().map_or((0, data), |(first, rest)| (u64::from(*first), rest));
    stream::check(bytes, cuts);
});
