"""Screens: pure functions from values to text, so that `print(plan)`, the command line and the golden files agree.

They are drawn here rather than by rich: `loadstone inspect` has 250 ms for the whole process, and rich's console and
table cost 40 ms of it (measured, see docs/explanation/dependencies.md); what is needed of them is four short files.

    text          text from a file made harmless, its width in cells, cuts
    quantities    numbers, sizes and shapes as people read them
    lines         spans with a style become plain text or ANSI colour
    table         columns that line up, one of which gives way
    folding       thousands of keys as a small tree of groups
"""
