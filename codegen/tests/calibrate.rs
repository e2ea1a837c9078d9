//! Calibration on the trained nano checkpoint, on a few tokens.

mod nano;

use codegen::calibrate::{
    CalibrateError, Machine, Models, Rounded, STEP_TOKENS, Settings, collect_covariances, collect_statistics,
    round_weights, sequences,
};
use codegen::plan::Compiled;
use codegen::weights::{Evaluator, dequantize};
use frontend::Checkpoint;
use ir::weights::{FloatType, RotationKind, Rounding, TensorSource};
use nano::{compiled, nano, tokens};
use passes::{Phase, PipelineOptions, pipeline, reference_pipeline};

fn options(phase: Phase, rotations: Option<RotationKind>) -> PipelineOptions {
    PipelineOptions { phase: Some(phase), rotations, rounding: Rounding::Gptq, ..PipelineOptions::default() }
}

fn rounded(options: &PipelineOptions, settings: Settings, threads: usize) -> (Compiled, Rounded) {
    let checkpoint = nano();
    let reference = compiled(&checkpoint, reference_pipeline(options));
    let quantized = compiled(&checkpoint, pipeline(options));
    let models = Models { reference: &reference, quantized: &quantized };
    let tokens = tokens();
    let sequences = sequences(&tokens, 4, 64, 0).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let rounded = pool
        .install(|| round_weights(Machine::Cpu, models, &checkpoint, &sequences, settings, &mut |_, _| ()).unwrap());
    (quantized, rounded)
}

#[test]
fn rounds_the_same_with_one_thread_and_with_three() {
    let options = options(Phase::Mixed, Some(RotationKind::Hadamard));
    let settings = Settings::default();
    let (one, three) = (rounded(&options, settings, 1).1, rounded(&options, settings, 3).1);
    assert!(one.packed == three.packed);
    assert_eq!(one.linears, three.linears);
}

#[test]
fn rounds_every_weight_of_a_linear_close_to_what_it_stands_for() {
    for phase in [Phase::Conservative, Phase::Aggressive] {
        // Refitting to as few tokens as here moves weights far: there are more inputs than tokens.
        let settings = Settings { refit: 0.0, ..Settings::default() };
        let (quantized, rounded) = rounded(&options(phase, None), settings, 2);
        let checkpoint = nano();
        let evaluator = Evaluator::new(&quantized.weights, &quantized.parameters, &checkpoint).unwrap();
        let by_gptq: Vec<_> = quantized.weights.iter().filter(|weight| weight.rounding == Rounding::Gptq).collect();
        assert_eq!(rounded.packed.len(), by_gptq.len());
        assert_eq!(by_gptq.len(), quantized.weights.len() - 1, "all but the embedding");
        for weight in by_gptq {
            let exact = evaluator.values(&weight.name, &weight.expr).unwrap();
            let packed = &rounded.packed[&weight.name];
            let [rows, cols] = codegen::weights::shape(&weight.name, &weight.expr).unwrap()[..] else { panic!() };
            let stored =
                dequantize(weight.format, rows, cols, &packed.weight, &packed.group_scale, &packed.scale).unwrap();
            let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
            let error = square(&mut exact.iter().zip(&stored).map(|(a, b)| a - b)) / square(&mut exact.iter().copied());
            assert!(error.sqrt() < 0.3, "{} is off by {}", weight.name, error.sqrt());
            assert!((error.sqrt() - packed.error.relative()).abs() < 1e-4, "{}", weight.name);
        }
    }
}

#[test]
fn says_of_every_linear_how_far_its_input_is_off() {
    let options = options(Phase::Aggressive, Some(RotationKind::Hadamard));
    let plain = rounded(&options, Settings { refit: 0.0, ..Settings::default() }, 2).1.linears;
    let refitted = rounded(&options, Settings::default(), 2).1.linears;
    let (first, last) = (&plain[0], plain.last().unwrap());
    assert!(first.name.starts_with("layers.0.") && last.name == "lm_head", "{} {}", first.name, last.name);
    assert!(plain.iter().all(|linear| linear.input_error > 0.0 && linear.input_error < 0.5), "{plain:?}");
    // The first input is that of the embedding, which is the same; what comes after is repaired by refitting.
    assert_eq!(first.input_error, refitted[0].input_error);
    assert!(refitted.last().unwrap().input_error < last.input_error);
}

#[test]
fn measures_the_input_of_every_linear_under_the_name_of_its_tensor() {
    let checkpoint = nano();
    let options = PipelineOptions { phase: Some(Phase::Reference), ..PipelineOptions::default() };
    let compiled = compiled(&checkpoint, pipeline(&options));
    let tokens = tokens();
    let windows = sequences(&tokens, 4, 64, 0).unwrap();
    let inputs =
        collect_statistics(Machine::Cpu, &compiled, &checkpoint, &windows, STEP_TOKENS, &mut |_, _| ()).unwrap();
    // The embedding comes first.
    for weight in &compiled.weights[1..] {
        let columns = codegen::weights::shape(&weight.name, &weight.expr).unwrap()[1];
        let input = &inputs[weight.expr.tensor_name()];
        assert_eq!((input.absmax.len(), input.mean_square.len()), (columns, columns), "{}", weight.name);
        let in_bounds = input.absmax.iter().zip(&input.mean_square).all(|(max, square)| *square <= max * max * 1.001);
        assert!(in_bounds, "{}", weight.name);
    }
}

#[test]
fn measures_a_covariance_for_every_rotation_that_can_follow_it() {
    let checkpoint = nano();
    let options = PipelineOptions { phase: Some(Phase::Reference), ..PipelineOptions::default() };
    let compiled = compiled(&checkpoint, pipeline(&options));
    let tokens = tokens();
    let windows = sequences(&tokens, 4, 64, 0).unwrap();
    let measure = |threads: usize, step_tokens: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            collect_covariances(Machine::Cpu, &compiled, &checkpoint, &windows, step_tokens, &mut |_, _| ()).unwrap()
        })
    };
    let found = measure(1, STEP_TOKENS);
    assert!(found == measure(3, STEP_TOKENS), "it depends on the number of threads");
    // Steps of 40 tokens cut every window of 64 in two; states go along.
    for (name, cut) in measure(2, 40) {
        let largest = found[&name].iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let same = cut.iter().zip(&found[&name]).all(|(cut, whole)| (cut - whole).abs() < 1e-5 * largest);
        assert!(same, "{name} depends on how the text is cut");
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), ["layers.3.v", "layers.8.v", "residual"]);
    let residual = &found["residual"];
    let n = compiled.plan.model.hidden_size;
    assert_eq!(residual.len(), n * n);
    let trace: f32 = (0..n).map(|i| residual[i * n + i]).sum();
    assert!(
        (trace / n as f32 - 1.0).abs() < 1e-4,
        "vectors of mean square 1 have the mean square {}",
        trace / n as f32
    );
}

#[test]
fn refuses_plans_of_different_models() {
    let checkpoint = nano();
    let reference = compiled(&checkpoint, pipeline(&PipelineOptions::default()));
    let mut quantized = compiled(&checkpoint, pipeline(&options(Phase::Conservative, None)));
    for launch in &mut quantized.plan.launches {
        if let runtime::plan::Kernel::Linear { segments, .. } = &mut launch.kernel {
            segments.iter_mut().for_each(|segment| segment.weight.insert(0, 'x'));
        }
    }
    quantized.weights.iter_mut().skip(1).for_each(|weight| weight.name.insert(0, 'x'));
    let tokens = tokens();
    let sequences = sequences(&tokens, 1, 32, 0).unwrap();
    let models = Models { reference: &reference, quantized: &quantized };
    let error =
        round_weights(Machine::Cpu, models, &checkpoint, &sequences, Settings::default(), &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, CalibrateError::UnknownTensor { .. }), "{error}");
}

#[test]
fn statistics_of_long_sequences_in_steps_are_those_of_one_whole_pass() {
    let checkpoint = nano();
    let options = PipelineOptions { phase: Some(Phase::Reference), ..PipelineOptions::default() };
    let compiled = compiled(&checkpoint, pipeline(&options));
    let tokens = tokens();
    let windows = sequences(&tokens, 2, 700, 0).unwrap();
    let collect =
        |step| collect_statistics(Machine::Cpu, &compiled, &checkpoint, &windows, step, &mut |_, _| ()).unwrap();
    let whole = collect(1400);
    // Several steps a sequence, the last one shorter; and a step of one sequence each.
    for step in [256, 699, 700] {
        let steps = collect(step);
        assert!(whole.keys().eq(steps.keys()));
        for (tensor, expected) in &whole {
            let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs());
            assert!(close(&steps[tensor].absmax, &expected.absmax), "absmax of {tensor}, {step} tokens a step");
            assert!(close(&steps[tensor].mean_square, &expected.mean_square), "mean_square of {tensor}, {step}");
        }
    }
}

/// nano, a norm weight of which is not a number.
struct Damaged {
    checkpoint: Checkpoint,
    norm: Vec<u8>,
}

const DAMAGED: &str = "backbone.layers.1.norm.weight";

impl TensorSource for Damaged {
    fn describe(&self, name: &str) -> Option<(Vec<usize>, FloatType)> {
        self.checkpoint.describe(name)
    }

    fn bytes(&self, name: &str) -> Result<&[u8], Box<dyn std::error::Error + Send + Sync>> {
        if name == DAMAGED { Ok(&self.norm) } else { self.checkpoint.bytes(name) }
    }
}

#[test]
fn refuses_activations_that_are_not_finite_by_the_name_of_the_first_such_input() {
    let checkpoint = nano();
    let mut norm = checkpoint.bytes(DAMAGED).unwrap().to_vec();
    norm[..2].copy_from_slice(&[0xff, 0x7f]);
    let options = options(Phase::Conservative, None);
    let [reference, quantized] = [reference_pipeline(&options), pipeline(&options)].map(|p| compiled(&checkpoint, p));
    let phase_0 = compiled(&checkpoint, pipeline(&PipelineOptions::default()));
    let source = Damaged { checkpoint, norm };
    let tokens = tokens();
    let sequences = sequences(&tokens, 2, 64, 0).unwrap();
    let measured =
        collect_statistics(Machine::Cpu, &phase_0, &source, &sequences, STEP_TOKENS, &mut |_, _| ()).unwrap_err();
    assert!(measured.to_string().contains("are not finite on the calibration text"), "{measured}");
    let models = Models { reference: &reference, quantized: &quantized };
    let rounded =
        round_weights(Machine::Cpu, models, &source, &sequences, Settings::default(), &mut |_, _| ()).unwrap_err();
    assert!(matches!(&rounded, CalibrateError::NotFinite { .. } | CalibrateError::Weight(_)), "{rounded}");
}
