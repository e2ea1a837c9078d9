//! The architecture table, on the published shapes and on the nano example.

use frontend::analyze::{Component, Phase, size, stored_bytes, thousands};
use frontend::{Analysis, Checkpoint};
use ir::weights::{FloatType, StorageFormat};
use std::path::{Path, PathBuf};

const GIB: f64 = (1u64 << 30) as f64;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

fn analysis(name: &str) -> Analysis {
    Analysis::new(&Checkpoint::open(&example(name)).unwrap())
}

#[test]
fn counts_the_parameters_of_every_published_shape() {
    for (name, layers, parameters) in [
        ("nemotron-h-4b-base-8k", (24, 24, 4), 4_489_223_040),
        ("nemotron-h-8b-base-8k", (24, 24, 4), 8_100_852_736u64),
        ("nemotron-h-47b-base-8k", (45, 48, 5), 46_791_554_816),
        ("nemotron-h-56b-base-8k", (54, 54, 10), 56_324_350_464),
        ("nvidia-nemotron-nano-9b-v2", (27, 25, 4), 8_888_227_328),
        ("nvidia-nemotron-nano-12b-v2", (28, 28, 6), 12_310_001_152),
    ] {
        let analysis = analysis(&format!("configs/{name}"));
        let counts = analysis.layers;
        assert_eq!((counts.mamba, counts.mlp, counts.attention), layers, "{name}");
        assert_eq!(analysis.totals.parameters, parameters, "{name}");
        assert_eq!(analysis.config.name, name);
        assert!(!analysis.has_weights);
    }
}

#[test]
fn puts_the_attention_layers_of_the_8b_model_where_they_are() {
    let pattern = analysis("configs/nemotron-h-8b-base-8k").pattern;
    let attention: Vec<usize> = pattern.match_indices('*').map(|(layer, _)| layer).collect();
    assert_eq!(attention, [7, 18, 29, 40]);
}

#[test]
fn meets_the_size_goals_of_the_8b_model() {
    let totals = analysis("configs/nemotron-h-8b-base-8k").totals;
    let gib = |bytes: u64| bytes as f64 / GIB;
    assert_eq!(totals.bytes, 2 * 8_100_852_736);
    assert!(gib(totals.phases[0]) <= 7.7, "phase 1: {}", gib(totals.phases[0]));
    assert!(gib(totals.phases[1]) <= 4.4, "phase 2: {}", gib(totals.phases[1]));
    assert!(gib(totals.phases[2]) <= 6.4, "phase 3: {}", gib(totals.phases[2]));
    let narrow = gib(totals.phase_2_with_4_bit_vocabulary);
    assert!(narrow <= 3.9, "phase 2 with embedding and head in 4 bits: {narrow}");
    assert!(gib(totals.phases[1]) - narrow > 0.4, "8 bits of embedding and head cost nothing?");
}

#[test]
fn splits_the_8b_model_into_components() {
    let analysis = analysis("configs/nemotron-h-8b-base-8k");
    let row = |component| analysis.rows.iter().find(|row| row.component == component).unwrap();
    let ssm = row(Component::SsmProjections);
    assert_eq!((ssm.count, ssm.parameters), (24, 24 * (18560 * 4096 + 4096 * 8192)));
    assert_eq!(row(Component::SsmScan).parameters, 24 * 3 * 128);
    assert_eq!(row(Component::Mlp).parameters, 24 * 2 * 4096 * 21504);
    assert_eq!(row(Component::Attention).count, 4);
    assert_eq!((row(Component::Embedding).count, row(Component::LmHead).count), (1, 1));
    assert_eq!(row(Component::Norms).count, 52 + 24 + 1);
    assert_eq!(analysis.rows.iter().map(|row| row.parameters).sum::<u64>(), 8_100_852_736);
    let shares: f64 = analysis.rows.iter().map(|row| row.share).sum();
    assert!((shares - 1.0).abs() < 1e-12, "{shares}");
}

#[test]
fn keeps_the_dt_rows_of_in_proj_at_8_bits() {
    let analysis = analysis("configs/nemotron-h-8b-base-8k");
    let ssm = &analysis.rows[0];
    let w4 = |n: u64, k: u64| n * (k / 2 + k / 128 + 4);
    let expected = 24 * (w4(18560 - 128, 4096) + 128 * (4096 + 4) + w4(4096, 8192));
    assert_eq!(ssm.phases[1].bytes, expected);
    assert_eq!(ssm.phases[2].bytes, expected);
}

#[test]
fn stores_padded_rows_and_their_scales() {
    let w4 = StorageFormat::W4TwoLevel { group_size: 128 };
    assert_eq!(stored_bytes(3, 32, StorageFormat::W8), 3 * (32 + 4));
    assert_eq!(stored_bytes(3, 33, StorageFormat::W8), 3 * (64 + 4));
    assert_eq!(stored_bytes(3, 33, w4), 3 * (32 + 1 + 4));
    assert_eq!(stored_bytes(3, 129, w4), 3 * (80 + 2 + 4));
    assert_eq!(stored_bytes(3, 129, StorageFormat::W4Group { group_size: 128 }), 3 * (80 + 4));
    let bf16 = StorageFormat::Float { dtype: FloatType::Bf16 };
    assert_eq!(stored_bytes(3, 33, bf16), 3 * 66);
}

#[test]
fn reads_bytes_from_the_headers_of_nano() {
    let analysis = analysis("nano");
    assert!(analysis.has_weights);
    assert_eq!(analysis.totals.parameters, 7_775_096);
    let scan = analysis.rows.iter().find(|row| row.component == Component::SsmScan).unwrap();
    assert_eq!(scan.bytes, scan.parameters * 4, "A_log, D and dt_bias are f32 in the file");
    assert_eq!(analysis.totals.bytes, (7_775_096 - scan.parameters) * 2 + scan.bytes);
}

#[test]
fn writes_one_csv_record_a_component_and_a_total() {
    let analysis = analysis("nano");
    let records = analysis.csv_rows();
    assert_eq!(records.len(), analysis.rows.len() + 1);
    assert!(records.iter().all(|record| record.len() == Analysis::CSV_COLUMNS.len()));
    let last = records.last().unwrap();
    assert_eq!((last[0].as_str(), last[2].as_str()), ("total", "7775096"));
}

#[test]
fn serializes_every_number_to_json() {
    let analysis = analysis("nano");
    let json = serde_json::to_value(&analysis).unwrap();
    assert_eq!(json["totals"]["parameters"], 7_775_096);
    assert_eq!(json["pattern"], "M-M*-M-M*-M-");
    assert_eq!(json["rows"][0]["component"], "ssm_projections");
    assert_eq!(json["rows"][0]["phases"][1]["phase"], 2);
    assert_eq!(json["config"]["mamba"]["dt_max"], serde_json::Value::Null);
}

#[test]
fn numbers_phases_as_the_user_does() {
    assert_eq!(Phase::ALL.map(Phase::number), [1, 2, 3]);
}

#[test]
fn draws_the_whole_analysis_of_the_8b_model() {
    insta::assert_snapshot!(analysis("configs/nemotron-h-8b-base-8k").to_text());
}

#[test]
fn formats_numbers_for_people() {
    assert_eq!([0, 999, 1000, 8_100_852_736].map(thousands), ["0", "999", "1,000", "8,100,852,736"]);
    assert_eq!([0, 1023, 1024, 5 << 20].map(size), ["0 B", "1023 B", "1.00 KiB", "5.00 MiB"]);
    assert_eq!([3 << 30, (1 << 40) - 1, 1 << 40].map(size), ["3.00 GiB", "1024.00 GiB", "1.00 TiB"]);
}
