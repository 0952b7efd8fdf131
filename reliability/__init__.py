"""What is left after a crash, a full disk or a damaged medium: harnesses that try it, on Loadstone and on others.

Each harness takes a *contender* (contenders.py), a way to save and to load again, breaks something under it on
purpose, and counts what the contender lost.  `python -m reliability` runs all of them and writes docs/reliability.md.
"""
