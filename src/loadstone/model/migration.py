from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from loadstone.matching.migration import Migrate
from loadstone.model.staging import Reader


def migration_for(model: nn.Module, metadata: Mapping[str, Mapping[str, object]], reader: Reader) -> Migrate | None:
    return None
