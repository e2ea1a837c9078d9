//! Prompts, stop conditions, evaluation windows, and the errors a user can cause.

use runtime::cpu;
use runtime::device::{Device, Limits};
use runtime::eval::{self, Reference, Windows};
use runtime::generate::{Finish, GenerateError, Request, Sampling, generate, logits, write_logits};
use runtime::plan::{DType, Plan, WeightFormat};
use runtime::synthetic::{self, Layout, MemoryStore, Shape};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

const FLOAT: WeightFormat = WeightFormat::Float { dtype: DType::F32 };

fn model(format: WeightFormat) -> (Plan, MemoryStore) {
    synthetic::model(&Shape::tiny(), &Layout::of(format), 5)
}

fn device<'a>((plan, store): &'a (Plan, MemoryStore), limits: Limits) -> cpu::Device<'a> {
    cpu::Device::new(plan, store, &cpu::Options { threads: Some(2), limits }).unwrap()
}

fn request(prompt: &[u32]) -> Request<'_> {
    Request { prompt, max_tokens: 12, sampling: Sampling::default(), stop_tokens: &[], chunk: None, interrupted: None }
}

fn text(len: usize) -> Vec<u32> {
    (0..len).map(|i| (i * i * 3 + 7 * i + 1) as u32 % 101).collect()
}

#[test]
fn greedy_text_is_the_argmax_of_the_logits_recomputed_from_scratch() {
    let model = model(WeightFormat::W8);
    let mut device = device(&model, Limits::default());
    let prompt = text(9);
    let mut seen = Vec::new();
    let generation = generate(&mut device, &request(&prompt), &mut |token| {
        seen.push(token);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((generation.tokens.len(), generation.finish), (12, Finish::Length));
    assert_eq!(generation.tokens, seen);
    let whole = [&prompt[..], &seen].concat();
    let all = logits(&mut device, &whole, Some(4)).unwrap();
    for (index, token) in seen.iter().enumerate() {
        let row = &all[(prompt.len() - 1 + index) * 101..][..101];
        let best = (0..101).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        assert_eq!(*token, best as u32);
    }
}

#[test]
fn an_interrupt_ends_the_text_before_the_next_step_and_keeps_what_there_is() {
    let model = model(WeightFormat::W8);
    let mut device = device(&model, Limits { step_rows: 4, ..Limits::default() });
    let (prompt, flag) = (text(9), AtomicBool::new(false));
    let request = Request { interrupted: Some(&flag), ..request(&prompt) };
    let whole = generate(&mut device, &request, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(whole.finish, Finish::Length);
    let mut seen = 0;
    let cut = generate(&mut device, &request, &mut |_| {
        seen += 1;
        flag.store(seen == 3, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    let cut = cut.unwrap();
    assert_eq!((&cut.tokens[..], cut.finish), (&whole.tokens[..3], Finish::Interrupted));
    // It is still set: nothing of a prompt is computed.
    let none = generate(&mut device, &request, &mut |_| panic!("no token was expected")).unwrap();
    assert_eq!((none.tokens.len(), none.finish), (0, Finish::Interrupted));
}

#[test]
fn the_chunk_size_of_the_prompt_does_not_change_the_text() {
    let model = model(WeightFormat::W4TwoLevel { group_size: 32 });
    let prompt = text(50);
    let sampling = Sampling { temperature: 0.8, top_k: 20, top_p: 0.9, seed: 4, ..Sampling::default() };
    let tokens = |chunk, step_rows| {
        let mut device = device(&model, Limits { step_rows, ..Limits::default() });
        let request = Request { chunk, sampling, ..request(&prompt) };
        generate(&mut device, &request, &mut |_| ControlFlow::Continue(())).unwrap().tokens
    };
    let expected = tokens(None, 512);
    assert_eq!(tokens(Some(1), 512), expected);
    assert_eq!(tokens(Some(7), 512), expected);
    assert_eq!(tokens(None, 16), expected);
}

#[test]
fn a_stop_token_ends_the_text_and_is_not_part_of_it() {
    let model = model(FLOAT);
    let mut device = device(&model, Limits::default());
    let prompt = text(9);
    let free = generate(&mut device, &request(&prompt), &mut |_| ControlFlow::Continue(())).unwrap().tokens;
    let stop = free[3];
    let first = free.iter().position(|token| *token == stop).unwrap();
    let request = Request { stop_tokens: &[stop], ..request(&prompt) };
    let stopped = generate(&mut device, &request, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((&stopped.tokens[..], stopped.finish), (&free[..first], Finish::Stop(stop)));
}

#[test]
fn the_callback_can_interrupt_and_the_slot_is_freed() {
    let model = model(FLOAT);
    let mut device = device(&model, Limits::default());
    let generation = generate(&mut device, &request(&text(5)), &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((generation.tokens.len(), generation.finish), (1, Finish::Interrupted));
    assert_eq!(device.state_bytes(), 0);
}

#[test]
fn a_full_context_ends_the_text() {
    let model = model(FLOAT);
    let mut device = device(&model, Limits { context: Some(12), ..Limits::default() });
    let generation = generate(&mut device, &request(&text(9)), &mut |_| ControlFlow::Continue(())).unwrap();
    // Three more tokens fit; the last one chosen need not be stored.
    assert_eq!((generation.tokens.len(), generation.finish), (4, Finish::ContextFull));
}

#[test]
fn refuses_empty_prompts_unknown_tokens_and_prompts_beyond_the_context() {
    let model = model(FLOAT);
    let mut device = device(&model, Limits { context: Some(8), step_rows: 4, ..Limits::default() });
    let mut run = |prompt: &[u32]| generate(&mut device, &request(prompt), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(run(&[]), Err(GenerateError::EmptyPrompt)));
    let error = run(&[3, 101]).unwrap_err().to_string();
    assert!(error.contains("token id 101 at position 1 is out of range") && error.contains("0..101"), "{error}");
    let error = run(&text(9)).unwrap_err().to_string();
    assert!(
        error.contains("9 tokens, the limit is 8 (2304 bytes") && error.contains("help: raise --context"),
        "{error}"
    );
    let ids = logits(&mut device, &[], None);
    assert!(matches!(ids, Err(GenerateError::EmptyPrompt)));
    assert_eq!(device.state_bytes(), 0);
}

#[test]
fn written_logits_are_a_safetensors_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logits.safetensors");
    write_logits(&path, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("logits").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F32, &[2, 3][..]));
    assert_eq!(bytemuck::pod_read_unaligned::<f32>(&tensor.data()[8..12]), 3.0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let missing = folder.path().join("missing").join("logits.safetensors");
    let error = write_logits(&missing, &[1.0], 1).unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("help: "), "{error}");
}

#[test]
fn perplexity_is_that_of_windows_from_fresh_states() {
    let model = model(FLOAT);
    let mut device = device(&model, Limits { step_rows: 10, ..Limits::default() });
    let tokens = text(70);
    let mut expected = 0.0;
    for window in tokens.chunks_exact(16).take(3) {
        let all = logits(&mut device, window, None).unwrap();
        for (row, next) in all.chunks(101).zip(&window[1..]) {
            let total: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
            expected += total.ln() - f64::from(row[*next as usize]);
        }
    }
    expected /= 45.0;
    let mut calls = Vec::new();
    for batch in [1, 2, 5] {
        let windows = Windows { size: 16, count: Some(3), batch };
        let found = eval::perplexity(&mut device, &tokens, &windows, &mut |done, of| calls.push((done, of))).unwrap();
        assert_eq!((found.windows, found.tokens), (3, 45));
        assert!((found.mean_nll - expected).abs() < 1e-9, "{} {expected}", found.mean_nll);
    }
    assert_eq!(calls[..4], [(0, 3), (1, 3), (2, 3), (3, 3)]);
    let error = eval::perplexity(&mut device, &tokens, &Windows { size: 71, count: None, batch: 1 }, &mut |_, _| ());
    assert!(matches!(error, Err(GenerateError::TextTooShort { tokens: 70, window: 71 })));
}

#[test]
fn a_model_diverges_more_the_fewer_bits_it_has_and_never_from_itself() {
    let models = [FLOAT, WeightFormat::W8, WeightFormat::W4Group { group_size: 32 }].map(model);
    let tokens = text(200);
    let windows = Windows { size: 50, count: None, batch: 2 };
    let kl = models.each_ref().map(|quantized| {
        let (mut reference, mut other) = (device(&models[0], Limits::default()), device(quantized, Limits::default()));
        eval::compare(&mut Reference::new(&mut reference, 0), &mut other, &tokens, &windows, &mut |_, _| ()).unwrap()
    });
    assert_eq!((kl[0].mean_kl, kl[0].kl_p999, kl[0].top1_agreement, kl[0].positions), (0.0, 0.0, 1.0, 200));
    assert_eq!(kl[0].reference, kl[0].model);
    assert!(kl[1].mean_kl > 0.0 && kl[1].mean_kl < kl[2].mean_kl, "{kl:?}");
    assert!(kl.iter().all(|kl| kl.kl_p999 >= kl.mean_kl));
}

#[test]
fn refuses_to_compare_models_of_different_vocabularies() {
    let shape = Shape { vocab_size: 64, ..Shape::tiny() };
    let (small, large) = (synthetic::model(&shape, &Layout::of(FLOAT), 1), model(FLOAT));
    let (mut a, mut b) = (device(&small, Limits::default()), device(&large, Limits::default()));
    let error = eval::compare(&mut Reference::new(&mut a, 0), &mut b, &text(50), &Windows::default(), &mut |_, _| ())
        .unwrap_err();
    assert!(matches!(error, GenerateError::DifferentVocabularies { reference: 64, model: 101 }));
    assert_eq!(a.plan().model.vocab_size, 64);
}
