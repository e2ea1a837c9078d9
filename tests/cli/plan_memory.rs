//! `nemoc plan-memory`.

use crate::support::{phase, stdout};

fn plan(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&stdout(&[&["plan-memory", phase(1), "--json"], arguments].concat())).unwrap()
}

#[test]
fn says_what_fits_and_what_is_the_most_that_fits() {
    let text = stdout(&["plan-memory", phase(1), "--gpu", "rtx4090", "--context", "131072", "--batch", "4"]);
    for part in ["fits rtx4090", "to spare", "longest context", "largest batch"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn says_by_how_much_it_does_not_fit() {
    let text = stdout(&["plan-memory", phase(1), "--memory", "64M", "--reserved", "0", "--context", "1000000"]);
    assert!(text.contains("does not fit") && text.contains("too much"), "{text}");
    let plan = plan(&["--memory", "1M", "--reserved", "0"]);
    assert_eq!(plan["fits"], false);
    assert!(plan["longest_context"].is_null() && plan["largest_batch"].is_null(), "{plan}");
}

#[test]
fn the_most_that_fits_is_exact() {
    let common = ["--memory", "256M", "--reserved", "0"];
    let run = |context: u64, batch: u64| {
        plan(&[&common[..], &["--context", &context.to_string(), "--batch", &batch.to_string()]].concat())
    };
    let first = run(1000, 3);
    let (longest, largest) = (first["longest_context"].as_u64().unwrap(), first["largest_batch"].as_u64().unwrap());
    for (context, batch, fits) in
        [(longest, 3, true), (longest + 1, 3, false), (1000, largest, true), (1000, largest + 1, false)]
    {
        assert_eq!(run(context, batch)["fits"], fits, "{context} {batch}");
    }
    let needs = &first["needs"];
    let sum: u64 =
        ["weights", "expanded", "kv", "states", "buffers"].iter().map(|part| needs[part].as_u64().unwrap()).sum();
    assert_eq!(first["total_bytes"].as_u64(), Some(sum));
}
