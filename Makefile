# Two commands matter: `make demo` and `make test`. Both set the machine up first, see .ci/setup.

.DELETE_ON_ERROR:
.PHONY: all setup build demo test bless bench fuzz clean

NEMOC := target/release/nemoc
DEMO := build/demo
FUZZ_SECONDS ?= 60

all: build

## Installs what is missing (Debian 12), or says in one line what is needed.
setup:
	@bash .ci/setup

## target/release/nemoc
build: setup
	cargo build --release --locked

## Compiles the trained example model with 4- and 8-bit weights, shows the IR between passes, generates text.
demo: build
	$(NEMOC) compile examples/nano --phase 3 --calibration none --dump-ir $(DEMO)/ir --time-passes --kernels none -o $(DEMO)/nano.nemo
	$(NEMOC) inspect $(DEMO)/nano.nemo
	@echo; echo "The IR before the first and after each pass, in $(DEMO)/ir:"; ls $(DEMO)/ir; echo
	$(NEMOC) run $(DEMO)/nano.nemo --prompt "The river rises in the mountains and" --echo --max-tokens 80 \
		--temperature 0.7 --top-p 0.9 --repetition-penalty 1.15 --seed 1

## Everything that CI checks.
test: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked

## Accepts what the snapshots and generated docs would be; read `git diff` afterwards.
bless: setup
	INSTA_UPDATE=always cargo test --workspace --locked

bench: setup
	cargo bench --workspace --locked

## Each fuzz target for FUZZ_SECONDS, on the stable toolchain; see fuzz/README.md.
fuzz: setup
	@bash .ci/fuzz $(FUZZ_SECONDS)

clean:
	cargo clean
	rm -rf build
