#!/bin/sh
# Builds the instrumented targets with a stable compiler and runs one: run.sh TARGET SECONDS
set -eu
cd "$(dirname "$0")"
target=$1
seconds=$2
host=$(rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz passes, without the sanitizers, which need a nightly compiler.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTFLAGS
# A target triple keeps the flags away from build scripts.
cargo build --release --target "$host" --bin "$target"
mkdir -p "corpus/$target" "artifacts/$target"
exec "target/$host/release/$target" "corpus/$target" "seeds/$target" \
    -max_total_time="$seconds" -max_len=16384 -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
    -artifact_prefix="artifacts/$target/"
