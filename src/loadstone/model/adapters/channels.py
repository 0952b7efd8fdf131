"""Other input channels for the weights of a convolution, so that the sum over channels stays what it was.

Fewer: channel c is added onto channel c mod n.  A grey image g then gives, through the one channel, what the image
(g, g, g) gave through three.  More: channel j gets the values of channel j mod n, divided by how often that one is
used, so that an input that repeats its channels in the same way gives the same output.

timm's `adapt_input_conv` does the same for 1, 6, 9 … channels; for 4 it scales all of them by 3/4, which changes the
sum wherever the three channels differ.
"""

from __future__ import annotations

import torch

from loadstone.matching.steps import Channels


def with_channels(weight: torch.Tensor, step: Channels) -> torch.Tensor:
    """Weights (out, have, ...) as (out, want, ...), computed in float64 and rounded once, to their own dtype."""
    have, want = step.have, step.want
    exact = weight.to(torch.float64)
    if want < have:
        parts = [exact[:, first::want].sum(dim=1) for first in range(want)]
        return torch.stack(parts, dim=1).to(weight.dtype)
    sources = [channel % have for channel in range(want)]
    shares = exact.new_tensor([sources.count(source) for source in sources]).reshape(want, *[1] * (weight.dim() - 2))
    return (exact[:, sources] / shares).to(weight.dtype)
