"""Transfer between independent implementations, measured: `make bench-pairs`, or `python -m benchmarks.pairs`.

place    finds the folder of pairs and makes a copy that may be written to
methods  our ways to match, registered with the folder's own runner
notes    what a score does not say: questions asked, answers given, tensors filled wrongly
fresh    pairs of families that are not in the folder, certified by equal output
draw     which of these the makers of the engine see
report   docs/matching.md and docs/matching.svg
record   keys, shapes and certified places for tests/matching/test_pairs_totals.py, without values
"""
