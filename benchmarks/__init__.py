"""Loadstone beside torch, safetensors and the bare read, measured in one run: `make bench`.

files.py     the model and the files that are measured
timing.py    interleaved rounds, medians, ratios
memory.py    peak anonymous memory, and wall time and peak memory of a whole process
cases.py     what is measured, each case with its budget
report.py    docs/benchmarks.md and docs/benchmarks.svg
pairs/       transfer between implementations, beside other tools: `make bench-pairs`
"""
