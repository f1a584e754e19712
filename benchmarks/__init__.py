"""Benchmarks: suites for pytest-benchmark, and peers/, which times nnlite beside other frameworks."""
