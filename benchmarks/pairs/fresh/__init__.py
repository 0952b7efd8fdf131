"""Pairs of our own, of families that are not in the folder: the engine was not made with them at hand.

before, convolution, vision, vision_more, audio    networks that two libraries have
language, language_more, language_two              language models, one side written by hand
own_pairs                                          two sides written by hand
partly, never                                      parts of a network; networks that are not the same
late                                               what came when the rules were done
tables                                             names as text, read by the folder's oracle
written, decoders, networks, shapes, pixels        networks by hand, run under the names of a table
kit                                                builders for more libraries, inputs

The folder's pairs.py imports `pairs_heldout`, which imports this package (place.py).
"""

from benchmarks.pairs.fresh import before, convolution, late, never, partly  # the last two import the rest

__all__ = ["before", "convolution", "late", "never", "partly"]
