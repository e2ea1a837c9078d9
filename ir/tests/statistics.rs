//! Statistics survive their file, and wrong ones are refused by name.

use ir::statistics::{InputStatistics, Statistics, StatisticsError};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use tempfile::TempDir;

const UP: &str = "backbone.layers.1.mixer.up_proj.weight";

fn statistics() -> Statistics {
    let input = |scale: f32| InputStatistics {
        absmax: (0..5).map(|j| scale * j as f32).collect(),
        mean_square: (0..5).map(|j| scale * 0.1 * j as f32).collect(),
    };
    Statistics {
        model: "xxh3:0123456789abcdef".to_owned(),
        samples: 4,
        length: 512,
        seed: 7,
        text: "fedcba9876543210".to_owned(),
        inputs: BTreeMap::from([(UP.to_owned(), input(1.5)), ("lm_head.weight".to_owned(), input(0.25))]),
        covariances: BTreeMap::from([("residual".to_owned(), vec![2.0, -1.0, -1.0, 3.0])]),
    }
}

/// A file of a folder that lives as long as the test.
fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("statistics.safetensors");
    (folder, path)
}

/// What loading says about a file of these tensors and metadata, written by the plain safetensors crate.
fn loading(tensors: &[(&str, Dtype, &[u8])], metadata: &[(&str, &str)]) -> Result<Statistics, StatisticsError> {
    let views = tensors.iter().map(|(name, dtype, bytes)| {
        let shape = vec![bytes.len() * 8 / dtype.bitsize()];
        (name.to_string(), TensorView::new(*dtype, shape, bytes).unwrap())
    });
    let metadata: HashMap<_, _> = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let (_folder, path) = file();
    std::fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
    Statistics::load(&path)
}

const METADATA: [(&str, &str); 6] =
    [("nemoc.statistics", "1"), ("model", "xxh3:0"), ("samples", "1"), ("length", "512"), ("seed", "0"), ("text", "0")];

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn reads_back_what_it_writes() {
    let (_folder, path) = file();
    statistics().save(&path).unwrap();
    assert_eq!(Statistics::load(&path).unwrap(), statistics());
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "something was left beside the file");
}

#[test]
fn any_reader_of_safetensors_finds_the_vectors() {
    let (_folder, path) = file();
    statistics().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 5);
    let covariance = tensors.tensor("residual.covariance").unwrap();
    assert_eq!((covariance.shape(), covariance.data()), (&[2, 2][..], &floats(&[2.0, -1.0, -1.0, 3.0])[..]));
    let absmax = tensors.tensor(&format!("{UP}.absmax")).unwrap();
    assert_eq!((absmax.dtype(), absmax.shape()), (Dtype::F32, &[5][..]));
    assert_eq!(absmax.data(), floats(&[0.0, 1.5, 3.0, 4.5, 6.0]));
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["samples"], "4");
}

#[test]
fn reads_files_that_the_plain_safetensors_crate_wrote() {
    let (absmax, mean_square) = (floats(&[1.0, 2.0]), floats(&[0.5, 0.0]));
    let read = loading(&[("a.absmax", Dtype::F32, &absmax), ("a.mean_square", Dtype::F32, &mean_square)], &METADATA);
    let input = InputStatistics { absmax: vec![1.0, 2.0], mean_square: vec![0.5, 0.0] };
    assert_eq!(read.unwrap().inputs, BTreeMap::from([("a".to_owned(), input)]));
}

#[test]
fn the_bytes_are_a_function_of_the_statistics() {
    let (_folder, path) = file();
    let bytes = |statistics: &Statistics| {
        statistics.save(&path).unwrap();
        std::fs::read(&path).unwrap()
    };
    let first = bytes(&statistics());
    assert!((0..8).all(|_| bytes(&statistics()) == first));
    assert_ne!(bytes(&Statistics { seed: 8, ..statistics() }), first);
}

#[test]
fn refuses_values_that_no_measurement_gives() {
    for value in [f32::NAN, f32::INFINITY, -1.0] {
        let mut wrong = statistics();
        wrong.inputs.get_mut(UP).unwrap().mean_square[3] = value;
        let (_folder, path) = file();
        let error = wrong.save(&path).unwrap_err();
        assert!(matches!(&error, StatisticsError::Value { channel: 3, what: "mean_square", .. }), "{error}");
        assert!(error.to_string().contains(UP), "{error}");
        assert!(!path.exists());
        assert!(matches!(wrong.check(&wrong.model), Err(StatisticsError::Value { .. })));
        let bytes = floats(&[value]);
        let loaded = loading(&[("a.absmax", Dtype::F32, &bytes), ("a.mean_square", Dtype::F32, &bytes)], &METADATA);
        assert!(matches!(loaded, Err(StatisticsError::Value { what: "absmax", .. })));
    }
}

#[test]
fn refuses_files_that_lack_something_or_have_something_else() {
    let one = floats(&[1.0]);
    let refused = |tensors: &[(&str, Dtype, &[u8])], metadata: &[(&str, &str)], part: &str| {
        let error = loading(tensors, metadata).expect_err(part);
        assert!(error.to_string().contains(part), "{error}, expected {part}");
        assert!(!error.help().is_empty());
    };
    refused(&[("a.absmax", Dtype::F32, &one)], &METADATA, "a.mean_square: it is missing");
    refused(&[("a.mean_square", Dtype::F32, &one)], &METADATA, "a.absmax: it is missing");
    refused(&[("a.bias", Dtype::F32, &one)], &METADATA, "tensor a.bias");
    refused(&[("a.absmax", Dtype::F16, &one)], &METADATA, "F16, expected a vector of F32");
    let longer = floats(&[1.0, 2.0]);
    let different: [(&str, Dtype, &[u8]); 2] = [("a.absmax", Dtype::F32, &one), ("a.mean_square", Dtype::F32, &longer)];
    refused(&different, &METADATA, "1 values of absmax and 2 of mean_square");
    for missing in 0..METADATA.len() {
        let mut rest = METADATA.to_vec();
        let (key, _) = rest.remove(missing);
        refused(&[], &rest, &format!("{key} = nothing"));
    }
    let mut other = METADATA;
    other[2].1 = "many";
    refused(&[], &other, "samples = many, expected a whole number");
    other = METADATA;
    other[0].1 = "2";
    refused(&[], &other, "nemoc.statistics = 2");
}

#[test]
fn refuses_statistics_of_another_model_or_of_too_little_text() {
    let good = statistics();
    good.check("xxh3:0123456789abcdef").unwrap();
    let error = good.check("xxh3:1123456789abcdef").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the statistics are of the model xxh3:0123456789abcdef, expected xxh3:1123456789abcdef"
    );
    for (samples, length) in [(0, 512), (1, 127), (4, 0)] {
        let error = Statistics { samples, length, ..statistics() }.check(&good.model).unwrap_err();
        assert!(matches!(error, StatisticsError::TooFew { .. }), "{error}");
    }
}

#[test]
fn refuses_linears_that_were_not_measured_in_this_shape() {
    let statistics = statistics();
    assert_eq!(statistics.input(UP, 5).unwrap().absmax.len(), 5);
    let error = statistics.input(UP, 6).unwrap_err().to_string();
    assert_eq!(error, format!("the statistics of {UP} are for 5 channels, expected 6"));
    assert!(matches!(statistics.input("other", 5), Err(StatisticsError::Channels { found: 0, .. })));
}

#[test]
fn refuses_truncated_and_damaged_files_without_panicking() {
    let (_folder, path) = file();
    statistics().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(matches!(Statistics::load(&path), Err(StatisticsError::Format { .. })), "of {length} bytes");
    }
    let missing = Statistics::load(&path.with_extension("missing")).unwrap_err();
    assert!(matches!(missing, StatisticsError::Io { action: "read", .. }));
    let nowhere = statistics().save(&path.join("no/folder")).unwrap_err();
    assert!(matches!(nowhere, StatisticsError::Io { action: "write", .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_measurement_survives_its_file(
        inputs in prop::collection::btree_map(
            "[a-z.]{1,12}",
            prop::collection::vec((0_f32..1e30, 0_f32..1e30), 0..9),
            0..6,
        ),
        (samples, length, seed) in any::<(u64, u64, u64)>(),
        model in "\\PC{0,20}",
    ) {
        let input = |values: Vec<(f32, f32)>| {
            let (absmax, mean_square) = values.into_iter().unzip();
            InputStatistics { absmax, mean_square }
        };
        let inputs = inputs.into_iter().map(|(name, values)| (name, input(values))).collect();
        let statistics = Statistics { model, samples, length, seed, text: String::new(), inputs, covariances: BTreeMap::new() };
        let (_folder, path) = file();
        statistics.save(&path).unwrap();
        prop_assert_eq!(Statistics::load(&path).unwrap(), statistics);
    }
}

#[test]
fn refuses_matrices_that_are_no_covariance() {
    let refused = |matrix: &[f32]| {
        let covariances = BTreeMap::from([("residual".to_owned(), matrix.to_vec())]);
        let (_folder, path) = file();
        let error = Statistics { covariances, ..statistics() }.save(&path).unwrap_err();
        assert!(error.help().contains("calibrate again"));
        error.to_string()
    };
    assert_eq!(refused(&[1.0, 2.0]), "the covariance of residual has 2 values, expected a square");
    assert!(refused(&[]).contains("has 0 values"));
    assert!(refused(&[1.0, f32::NAN, 0.0, 1.0]).contains("NaN in row 0"));
    assert!(refused(&[1.0, 0.0, 0.0, -1.0]).contains("-1 on the diagonal of row 1"));
    assert!(refused(&[1.0, 0.5, 0.4, 1.0]).contains("not symmetric in row 0, column 1"));
}
