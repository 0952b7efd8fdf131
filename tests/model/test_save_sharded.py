"""A tensor that is sharded over processes is never saved as the part that one of them holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
import loadstone as ls

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
model = torch.nn.Linear(4, 4)
fully_shard(model, mesh=dist.init_device_mesh("cpu", (1,)))
options = {"layout": "folder"} if sys.argv[1].endswith("/") else {}
try:
    ls.save(model.state_dict(), sys.argv[1], **options)
except ls.SaveError as error:
    print(error.diagnostics[0].code, error.diagnostics[0].message)
sys.stdout.flush()
import os
os._exit(0)
"""


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model/"])
def test_a_sharded_tensor_is_refused(name: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/{name}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, path],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.stdout.startswith("unsaveable-value `weight` is sharded over several processes (DTensor)"), done.stderr
    assert list(tmp_path.iterdir()) == []
