"""Makes expected.json and expected-fewshot.json: what lm-evaluation-harness says about a checkpoint on the documents in data/.

Only needed to make the file again; the tests read it. In a throw-away environment:

    pip install 'lm_eval[hf]==0.4.13' transformers torch
    python tests/harness/run_harness.py examples/nano -o tests/harness/expected.json
    python tests/harness/run_harness.py examples/nano --num-fewshot 3 --limit 10 -o tests/harness/expected-fewshot.json

The model runs through Hugging Face transformers in f32 on the CPU. Its native `nemotron_h` clamps the time step from
below by `time_step_min`; the published remote code goes by `time_step_limit`, and so does this script.
"""

import argparse
import json
import math
import pathlib

import lm_eval
import torch
import transformers
from lm_eval.models.huggingface import HFLM

HERE = pathlib.Path(__file__).resolve().parent
ACC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
ACC_NORM = {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True}
PERPLEXITY = {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}
CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{query}}",
    "doc_to_target": "{{label}}",
    "doc_to_choice": "choices",
    "metric_list": [ACC, ACC_NORM],
}
CONTEXTS = {
    "output_type": "multiple_choice",
    "doc_to_text": lambda doc: doc["label"],
    "doc_to_target": lambda doc: doc["continuation"],
    "doc_to_choice": lambda doc: doc["contexts"],
    "metric_list": [ACC],
}
LAST_WORD = {
    "output_type": "loglikelihood",
    "doc_to_text": "{{context}}",
    "doc_to_target": "{{continuation}}",
    "metric_list": [PERPLEXITY, ACC],
}
TASKS = {
    "arc_easy": ("arc_easy", CHOICES),
    "arc_challenge": ("arc_challenge", CHOICES),
    "hellaswag": ("hellaswag", CHOICES),
    "piqa": ("piqa", CHOICES),
    "winogrande": ("winogrande", CONTEXTS),
    "lambada_openai": ("lambada", LAST_WORD),
}


def load(checkpoint):
    # The field names of the 2025 releases, where the native implementation has others.
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    config.head_dim = getattr(config, "attention_head_dim", config.head_dim)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, config=config, dtype=torch.float32).eval()
    limit = model.config.time_step_limit
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = tuple(float(bound) for bound in limit)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    return model, HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)


def worst_reference_error(model, checkpoint):
    """How far the model as loaded is from the logits kept beside the checkpoint, if there are any."""
    path = checkpoint / "reference" / "logits.safetensors"
    if not path.exists():
        return None
    from safetensors.torch import load_file

    tensors = load_file(path)
    worst = 0.0
    for name, tokens in tensors.items():
        if name.startswith("tokens_"):
            with torch.no_grad():
                logits = model(tokens[None]).logits[0]
            expected = tensors[name.replace("tokens", "logits")]
            worst = max(worst, float(((logits - expected).norm(dim=-1) / expected.norm(dim=-1)).max()))
    return worst


def config(name):
    file, form = TASKS[name]
    # Examples come from a split of their own, as in the harness's tasks; here it has the same documents.
    path = str(HERE / "data" / f"{file}.jsonl")
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": path, "train": path}},
        "test_split": "test",
        "training_split": "train",
        **form,
    }


def sample(entry):
    scores = [response[0] for response in entry["resps"]]
    kept = {"id": entry["doc"]["id"], "loglikelihoods": [round(float(score[0]), 5) for score in scores]}
    kept["greedy"] = [bool(score[1]) for score in scores]
    for metric in ("acc", "acc_norm"):
        if metric in entry:
            kept[metric] = int(entry[metric])
    return kept


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("checkpoint", type=pathlib.Path)
    arguments.add_argument("-o", "--output", type=pathlib.Path, required=True)
    arguments.add_argument("--limit", type=int)
    arguments.add_argument("--num-fewshot", type=int, default=0)
    arguments = arguments.parse_args()
    model, wrapped = load(arguments.checkpoint)
    print("worst relative error against the reference logits:", worst_reference_error(model, arguments.checkpoint))
    results = lm_eval.simple_evaluate(
        model=wrapped,
        tasks=[config(name) for name in TASKS],
        num_fewshot=arguments.num_fewshot,
        limit=arguments.limit,
        log_samples=True,
        bootstrap_iters=100,
    )
    tasks = {}
    for name in TASKS:
        metrics = {
            key.removesuffix(",none"): value
            for key, value in results["results"][name].items()
            if isinstance(value, float) and not math.isnan(value)
        }
        entries = sorted(results["samples"][name], key=lambda entry: entry["doc_id"])
        tasks[name] = {**metrics, "samples": [sample(entry) for entry in entries]}
    made_with = {
        "lm_eval": lm_eval.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "dtype": "float32",
        "device": "cpu",
    }
    text = json.dumps({"made_with": made_with, "results": tasks}, indent=None, separators=(",", ":"))
    # One document a line: readable, and small in a diff.
    text = text.replace('{"id"', '\n{"id"').replace('"samples":[', '"samples":[')
    arguments.output.write_text(text + "\n")
    for name, task in tasks.items():
        print(name, {key: value for key, value in task.items() if key != "samples"})


main()
