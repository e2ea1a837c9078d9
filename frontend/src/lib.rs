//! Reads Nemotron-H checkpoints: config.json and safetensors into the phase-0 nemo IR.
