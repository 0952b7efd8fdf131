"""`loadstone resume-test`: it passes what resumes exactly, and names the first thing that does not."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from loadstone.cli import main
from loadstone.errors import RecipeError
from loadstone.training.resume_compare import first_difference
from loadstone.training.resume_test import kill_steps, resume_test
from loadstone.training.witnessed import Life, Seen

# A script whose weights are a number and whose checkpoint is a file of JSON: it starts in a twentieth of the time that
# torch takes.  What it writes is what loadstone.training.witness writes, which has a test of its own below.
SCRIPT = """
import json, os, random, signal, sys, time
from pathlib import Path

broken = sys.argv[1] if len(sys.argv) > 1 else ""
folder = Path(os.environ["LOADSTONE_RESUME_TEST"])
number = 1 + len(list(folder.glob("witness-*")))
witness = open(folder / f"witness-{number:04}.jsonl", "w")
kill = int(os.environ["LOADSTONE_RESUME_TEST_KILL"] or 0)

def write(line):
    witness.write(json.dumps(line) + "\\n")
    witness.flush()

write({"run": "runs/net"})
path = folder / "last.json"
state = {"step": 0, "weights": 0, "counter": 0}
is_resumed = path.exists()
if is_resumed:
    if broken == "crash":
        print("on the way", flush=True)
        raise RuntimeError("cannot resume")
    state = json.loads(path.read_text())
    wrong = {"counter": {"counter": 0}, "skip": {"step": state["step"] + 3}, "weights": {"weights": 7}}
    state.update(wrong.get(broken, {}))
if broken == "hang":
    time.sleep(60)
for step in range(state["step"], 30):
    if broken == "short" and is_resumed and step == 20:
        break
    data = random.random() if broken == "shuffle" else step % 10
    if broken == "order" and is_resumed:
        data = (step + 5) % 10
    rate = 0.5 if broken == "rates" and is_resumed else 0.1
    write({"epoch": step // 10 + 1, "batch": step % 10 + 1, "step": step + 1, "data": str(data), "rates": [rate],
           "weights": str(state["weights"]), "optimizer": "", "random": {"random": str(random.getstate()[1][-1])}})
    if step + 1 == kill:
        os.kill(os.getpid(), signal.SIGKILL)
    state = {"step": step + 1, "weights": state["weights"] + state["counter"], "counter": state["counter"] + 1}
    if (step + 1) % 5 == 0 and broken != "unsaved":
        path.write_text(json.dumps(state))
write({"finished": {"model.w": str(state["weights"])}})
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(SCRIPT)
    return "train.py"


def test_a_script_that_resumes_exactly_passes(script):
    found = resume_test(script)
    assert found.verdict == "pass"
    assert (found.epochs, found.steps, found.values) == (3, 30, 1)
    assert len(found.kills) == 3
    assert all(kill.batch > 1 and kill.went_on_at <= kill.step for kill in found.kills)
    assert found.compared == 30 + sum(kill.step - kill.went_on_at + 1 for kill in found.kills)


def test_the_kills_are_those_of_the_seed(script):
    assert resume_test(script, seed=3).kills == resume_test(script, seed=3).kills != resume_test(script, seed=4).kills


@pytest.mark.parametrize(
    ("broken", "what", "code", "says"),
    [
        ("counter", "weights", "resume-not-exact", "a value of the script is not saved"),
        ("order", "batch", "resume-not-exact", "the loader gives another batch"),
        ("rates", "learning rates", "resume-not-exact", "the learning rates are others"),
        ("weights", "weights", "resume-not-exact", "the run did not come back with the weights it had"),
        ("skip", "steps", "resume-not-exact", "steps are left out"),
        ("short", "end", "resume-not-exact", "ends after step 20 instead of 30"),
        ("shuffle", "batch", "not-repeatable", "run twice without a kill, the script differs at step 1"),
    ],
)
def test_the_first_difference_is_named(script, broken, what, code, says):
    found = resume_test(script, [broken], kills=2)
    assert found.verdict == "differs"
    assert found.difference.what == what
    assert found.difference.diagnostic.code == code
    assert says in found.difference.diagnostic.message
    assert (found.difference.life == 0) == (code == "not-repeatable")


def test_the_step_of_the_first_difference_is_the_one_after_its_cause(script):
    found = resume_test(script, ["counter"], kills=1)
    assert found.difference.step == found.kills[0].went_on_at + 1


def test_a_run_that_was_never_resumed_proves_nothing(script, capsys):
    assert resume_test(script, ["unsaved"], kills=2).verdict == "not-resumed"
    assert main(["resume-test", script, "unsaved"]) == 1
    assert "NOT RESUMED   killed 3 times, and never after a checkpoint" in capsys.readouterr().out


def test_a_script_that_breaks_on_resuming_is_shown_with_what_it_printed(script):
    found = resume_test(script, ["crash"])
    assert found.verdict == "script-failed"
    assert found.failure.how == "ended with status 1"
    assert found.failure.life == 1
    assert found.failure.output[0] == "on the way"
    assert found.failure.output[-1] == "RuntimeError: cannot resume"


def test_a_script_that_hangs_is_ended(script):
    start = time.monotonic()
    found = resume_test(script, ["hang"], timeout=0.5)
    assert found.failure.how == "did not end within 0.5 seconds"
    assert time.monotonic() - start < 10


def test_what_a_killed_script_leaves_running_is_ended_too(script, tmp_path):
    leave = "import subprocess\nprint(subprocess.Popen(['sleep', '60']).pid, file=open('pids', 'a'))\n"
    Path(script).write_text(leave + SCRIPT)
    resume_test(script, kills=1)
    time.sleep(0.1)
    pids = [int(pid) for pid in Path("pids").read_text().split()]
    assert len(pids) == 3
    assert [pid for pid in pids if is_running(pid)] == []


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "zombie" not in status.read_text()


NO_BATCHES = SCRIPT.split("path =")[0]


@pytest.mark.parametrize(("text", "says"), [("", "makes no `loadstone.Run`"), (NO_BATCHES, "takes no batches")])
def test_a_script_without_a_run_is_told_so(script, text, says):
    Path(script).write_text(text)
    with pytest.raises(RecipeError, match=says) as caught:
        resume_test(script)
    assert caught.value.code == "no-run"


def test_nothing_stays_behind(script, monkeypatch, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    resume_test(script, kills=1)
    assert list(scratch.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"train.py", "scratch"}


def test_kills_fall_in_every_part_of_the_training_and_in_the_middle_of_epochs():
    seen = [Seen(step // 10 + 1, step % 10 + 1, step + 1, "", (), "", "", {}) for step in range(100)]
    for seed in range(20):
        steps = kill_steps(seen, 4, seed)
        assert [(step - 1) // 25 for step in steps] == [0, 1, 2, 3]
        assert all((step - 1) % 10 for step in steps)
    assert kill_steps(seen[:1], 5, 0) == [1]


def test_a_generator_that_is_never_drawn_from_may_be_in_any_state():
    line = Seen(1, 1, 1, "d", (0.1,), "w", "o", {"random": "a", "torch": "1"})
    whole = Life("r", (line, replace(line, batch=2, step=2, random={"random": "a", "torch": "2"})), {"model.w": "x"})
    other = Life(
        "r",
        (replace(line, random={"random": "b", "torch": "1"}),
         replace(line, batch=2, step=2, weights="v", random={"random": "b", "torch": "2"})),
        {"model.w": "x"},
    )  # fmt: skip
    found = first_difference([whole], [[replace(other, seen=other.seen[:1])], [other]])
    assert found.life == 1
    assert ("random numbers", "the same") in found.diagnostic.evidence


def test_weights_that_differ_only_at_the_end_are_named():
    line = Seen(1, 1, 1, "d", (0.1,), "w", "o", {})
    whole, other = (
        Life("r", (line,), {"model.w": "x", "model.b": "y"}),
        Life("r", (line,), {"model.w": "x", "model.b": "z"}),
    )
    found = first_difference([whole], [[other]])
    assert (found.what, found.diagnostic.keys) == ("weights", ("model.b",))
    assert first_difference([whole], [[whole]]) is None


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize(
    ("broken", "status", "head"),
    [((), 0, "train.py   PASS   "), (("counter",), 1, "train.py counter   DIFFERS   "), (("crash",), 2, "SCRIPT")],
)
def test_the_screen_fits(script, monkeypatch, capsys, width, broken, status, head):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["resume-test", "--kills", "1", script, *broken]) == status
    out = capsys.readouterr().out
    assert head in out.splitlines()[0]
    assert max(map(len, out.splitlines())) <= width


def test_json_has_the_same_verdict(script, capsys):
    assert main(["resume-test", "--json", script, "counter"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "differs"
    assert document["difference"]["diagnostic"]["code"] == "resume-not-exact"
    assert document["kills"][0]["step"] > 1


TRAINING = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import loadstone as ls

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(torch.rand(32, 4)), batch_size=4, shuffle=True)
run = ls.Run("../runs/net", model=model, optimizer=optimizer, data=loader, every="3 steps", wait=False)
run.resume()
for epoch in run.epochs(2):
    for (x,) in run.batches(loader):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
"""


def test_a_training_run_resumes_exactly(tmp_path, monkeypatch):
    """The real thing, with a run that nobody closes; the interpreter starts torch three times."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(TRAINING)
    found = resume_test("train.py", kills=1)
    assert found.difference is None
    assert found.verdict == "pass", found.failure
    assert (found.steps, found.values) == (16, 2 + 5 + 1)  # linear, batch norm, the optimizer
    assert not Path("../runs").exists()


def test_without_the_test_there_is_no_witness(monkeypatch, tmp_path):
    from torch import nn

    from loadstone.training import witness

    monkeypatch.delenv("LOADSTONE_RESUME_TEST", raising=False)
    assert witness.attend("runs/net", nn.Linear(1, 1)) is None
    assert witness.redirected("runs/net") == Path("runs/net")
    monkeypatch.setenv("LOADSTONE_RESUME_TEST", str(tmp_path))
    places = [witness.redirected(name) for name in ("runs/net", "../runs/net", "/runs/net", ".")]
    assert len(set(places)) == 4
    assert all(Path(os.path.normpath(place)).is_relative_to(tmp_path / "runs") for place in places)
    assert sys.modules["loadstone.training.witness"] is witness
