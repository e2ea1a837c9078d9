//! Any bytes as a safetensors file: an error or tensors that lie within the file.
#![no_main]

use frontend::header::Header;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // As a file, and as the JSON of one: the fuzzer rarely guesses an 8-byte length.
    let mut file = (bytes.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(bytes);
    for bytes in [bytes, &file] {
        if let Ok(header) = Header::parse(bytes, "model.safetensors") {
            for entry in header.tensors.values() {
                assert!(bytes.get(entry.range.clone()).is_some());
            }
        }
    }
});
