"""Benchmarks: `make bench-<name>` prints a table and writes build/bench/<name>.json. docs/benchmarks.md explains them."""
