"""Generated networks under two engineers' names: `python -m benchmarks.pairs.styles [count] [first seed]`.

Pairs of real implementations are few, and an engine that was made with them may know them by heart.  Here a seed draws
a network (depths, widths, biases, norms, shortcuts) and two styles that engineers write it in; both are made of the
same parts, so that the truth is known without values, and no torch is needed.  A tensor that is filled with anything
but its own part is WRONG, at whatever grade, also in its rows and with what is asked answered rightly.

parts      what networks and styles are made of; a state dict of both, with the truth
attention, sequences, residuals, convolutions
           the kinds of networks, with their names as tables
kinds      the table of kinds, and pairs: whole, partial, another network
judge      what a match fills wrongly
"""
