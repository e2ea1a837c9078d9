//! `verify` and `bench`, on the CPU.

use crate::support::{nemoc, phase, refuses, stdout};

#[test]
fn verifies_one_thread_against_many() {
    let text = stdout(&["verify", phase(1), "--device", "cpu", "--batch", "1,2", "--prefill", "5", "--greedy", "4"]);
    for part in ["linear", "mixer", "pass", "4 of 4 are the same", "launches pass"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("FAIL"), "{text}");
}

#[test]
fn verifies_for_scripts() {
    let arguments =
        ["verify", phase(0), "--device", "cpu", "--batch", "1", "--prefill", "3", "--greedy", "0", "--json"];
    let report: serde_json::Value = serde_json::from_str(&stdout(&arguments)).unwrap();
    assert_eq!(report["passes"], true);
    assert_eq!(report["greedy"], serde_json::Value::Null);
    for launch in report["launches"].as_array().unwrap() {
        assert_eq!((launch["steps"].as_u64(), launch["relative"].as_f64()), (Some(3), Some(0.0)), "{launch}");
    }
}

#[test]
fn refuses_to_verify_a_gpu_that_is_not_there() {
    refuses(&["verify", phase(1), "--gpu", "77"], &["CUDA failed", "help: ", "--device cpu"]);
    refuses(&["bench", phase(1), "--gpu", "77"], &["CUDA failed", "help: "]);
}

#[test]
fn measures_decode_and_prefill() {
    let sizes = ["--decode", "1,2", "--prefill", "16,40", "--chunk", "32", "--repeats", "2", "--json"];
    let report: serde_json::Value =
        serde_json::from_str(&stdout(&[&["bench", phase(1), "--device", "cpu"], &sizes[..]].concat())).unwrap();
    for (rows, count) in [("decode", 2), ("prefill", 2)] {
        let rows = report[rows].as_array().unwrap();
        assert_eq!(rows.len(), count);
        assert!(rows.iter().all(|row| row["wall_us"].as_f64() > Some(0.0) && row["predicted_us"].as_f64() > Some(0.0)));
    }
    let table = report["kernels"][0]["rows"].as_array().unwrap();
    assert!(table.iter().all(|row| row["measured_us"].as_f64() > Some(0.0)), "{table:?}");
    assert!(report["memory"]["weights"].as_u64() > Some(1_000_000));
}

#[test]
fn predicts_for_a_gpu_that_is_not_there() {
    let text = stdout(&["bench", phase(1), "--target", "rtx4090"]);
    for part in ["rtx4090, predicted", "1.01 TB/s of the target", "8192", "mixer.in_proj"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    nemoc().args(["bench", phase(1), "--target", "abacus"]).assert().code(2);
}
