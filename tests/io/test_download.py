"""Files from the web: whole, the right ones, or not there; over real sockets, from real servers (conftest.py)."""

from __future__ import annotations

import hashlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import loadstone as ls
from loadstone.io.download import download
from loadstone.io.http import Patience

QUICK = Patience(timeout_seconds=0.4, attempts=2, pause_seconds=0.01)
ONCE = Patience(timeout_seconds=5, attempts=1)
OPEN = "import sys, loadstone; print(loadstone.open(sys.argv[1]).files[0])"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "torch" / "hub" / "checkpoints"


def serve(web, name: str = "model.pth", seed: int = 0) -> bytes:
    """Put a checkpoint of 400 kB on the server; returns its bytes."""
    weight = torch.randn(100, 1000, generator=torch.Generator().manual_seed(seed))
    torch.save({"fc.weight": weight}, web.folder / name)
    return (web.folder / name).read_bytes()


def serve_hashed(web) -> tuple[str, bytes]:
    """The same under a name that carries the start of its hash."""
    data = serve(web)
    name = f"model-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    os.rename(web.folder / "model.pth", web.folder / name)
    return name, data


def fetch(url: str, patience: Patience = QUICK) -> bytes:
    return download(url, accept=lambda path, address: None, patience=patience).read_bytes()


def names(folder: Path) -> list[str]:
    """What lies in the cache, but for notes of where files are from."""
    return sorted(name for name in os.listdir(folder) if not name.startswith(".")) if folder.exists() else []


def test_an_address_opens_as_the_file_it_names(web, cache):
    name, data = serve_hashed(web)
    with ls.open(web.url(f"files/{name}")) as checkpoint:
        assert checkpoint.files == (str(cache / name),)
        assert torch.equal(checkpoint.weights["fc.weight"].read(), torch.load(web.folder / name)["fc.weight"])
    assert (cache / name).read_bytes() == data
    assert names(cache) == [name]


def test_a_model_is_loaded_from_an_address(web):
    serve(web)
    model = torch.nn.ModuleDict({"fc": torch.nn.Linear(1000, 100, bias=False)})
    assert ls.plan(model, web.url("files/model.pth")).ok
    ls.load(model, web.url("files/model.pth"))
    assert torch.equal(model["fc"].weight, torch.load(web.folder / "model.pth")["fc.weight"])


def test_a_file_in_the_cache_is_used_without_the_server(web):
    serve(web)
    ls.open(web.url("files/model.pth")).close()
    ls.open(web.url("files/model.pth")).close()
    assert len(web.asked) == 1


def test_torch_finds_what_loadstone_downloaded(web):
    name, _ = serve_hashed(web)
    ls.open(web.url(f"files/{name}")).close()
    loaded = torch.hub.load_state_dict_from_url(web.url(f"files/{name}"), check_hash=True)
    assert list(loaded) == ["fc.weight"]
    assert len(web.asked) == 1


def test_loadstone_finds_what_torch_downloaded(web):
    serve(web)
    torch.hub.load_state_dict_from_url(web.url("files/model.pth"), progress=False)
    ls.open(web.url("files/model.pth")).close()
    assert len(web.asked) == 1


def test_a_cut_connection_is_gone_on_from(web, cache):
    name, data = serve_hashed(web)
    web.cuts = [100_000, 150_000]
    assert fetch(web.url(f"files/{name}"), Patience(attempts=3, pause_seconds=0.01)) == data
    first, second, third = web.ranges()
    assert first is None
    assert 99_000 < int(second[6:-1]) < 100_000
    assert 248_000 < int(third[6:-1]) < 250_000
    assert "If-Range: " in web.asked[2]
    assert names(cache) == [name]


def test_a_later_call_goes_on_from_what_an_earlier_one_got(web):
    data = serve(web)
    web.cuts = [100_000]
    with pytest.raises(ls.IntegrityError, match=r"download-failed.*closed after 99,\d\d\d of 40\d,\d\d\d bytes"):
        fetch(web.url("files/model.pth"), ONCE)
    assert fetch(web.url("files/model.pth")) == data
    assert web.ranges()[1] is not None


def test_a_whole_partial_file_needs_only_its_name(web, cache):
    data = serve(web)
    web.cuts = [len(data)]  # all but the last bytes, as many as the head has
    with pytest.raises(ls.IntegrityError):
        fetch(web.url("files/model.pth"), ONCE)
    partial = cache / "model.pth.partial"
    partial.write_bytes(data)  # a process that ended just before the renaming
    assert fetch(web.url("files/model.pth"), ONCE) == data
    assert web.ranges()[1] == f"bytes={len(data)}-"
    assert names(cache) == ["model.pth"]


def test_a_file_that_changed_is_downloaded_anew(web):
    serve(web)
    web.cuts = [100_000]
    with pytest.raises(ls.IntegrityError):
        fetch(web.url("files/model.pth"), ONCE)
    data = serve(web, seed=1)
    os.utime(web.folder / "model.pth", (10**9, 10**9))  # nginx tells versions apart by seconds
    assert fetch(web.url("files/model.pth"), ONCE) == data
    assert web.ranges()[1] is not None


def test_a_partial_file_of_another_address_is_not_gone_on_from(web):
    serve(web)
    web.cuts = [100_000]
    with pytest.raises(ls.IntegrityError):
        fetch(web.url("files/model.pth"), ONCE)
    assert fetch(web.url("noranges/model.pth"), ONCE) == (web.folder / "model.pth").read_bytes()
    assert web.ranges() == [None, None]


def test_a_server_without_ranges_sends_all_again(web):
    data = serve(web)
    web.cuts = [100_000]
    assert fetch(web.url("noranges/model.pth")) == data
    assert len(web.asked) == 2


def test_a_wrong_part_is_thrown_away(web):
    data = serve(web)
    web.cuts = [100_000]
    with pytest.raises(ls.IntegrityError):
        fetch(web.url("files/model.pth"), ONCE)
    web.canned = [b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-6/400000\r\nContent-Length: 2\r\n\r\nxx"]
    assert fetch(web.url("files/model.pth")) == data


def test_a_wrong_hash_keeps_nothing(web, cache):
    serve(web, "model-deadbeef.pth")
    with pytest.raises(ls.IntegrityError, match="hash-mismatch") as raised:
        ls.open(web.url("files/model-deadbeef.pth"))
    assert ("named", "deadbeef") in raised.value.diagnostics[0].evidence
    assert names(cache) == []


@pytest.mark.parametrize(("path", "status"), [("files/none.pth", 404), ("forbidden/x.pth", 403), ("private/x", 401)])
def test_a_refusal_says_its_status_at_once(web, cache, path, status):
    with pytest.raises(ls.IntegrityError, match=rf"download-failed.*{status}"):
        ls.open(web.url(path))
    assert len(web.asked) == 1
    assert names(cache) == []


def test_a_busy_server_is_asked_again(web):
    data = serve(web)
    web.canned = [b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"]
    assert fetch(web.url("files/model.pth")) == data


def test_a_server_that_stays_busy_is_given_up(web):
    web.canned = [b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"] * 9
    with pytest.raises(ls.IntegrityError, match=r"503.*2 times in a row"):
        fetch(web.url("files/model.pth"))
    assert len(web.asked) == 2


def test_a_redirect_is_followed_and_the_name_is_the_first(web, cache):
    data = serve(web)
    assert fetch(web.url("redirect/first.pth?to=/files/model.pth")) == data
    assert names(cache) == ["first.pth"]


def test_a_circle_of_redirects_ends(web):
    with pytest.raises(ls.IntegrityError, match="redirects more than 10 times"):
        fetch(web.url("loop/x.pth"), ONCE)
    assert len(web.asked) == 11


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "javascript:x"])
def test_a_redirect_out_of_the_web_is_refused(web, cache, target):
    with pytest.raises(ls.FormatError, match="address-refused"):
        fetch(web.url(f"redirect/x.pth?to={target}"))
    assert names(cache) == []


@pytest.mark.parametrize("name", ["model.pth", "model-deadbeef.pth"])
def test_a_page_in_place_of_the_file_is_named_and_not_kept(web, cache, name):
    (web.folder / name).write_text("<!DOCTYPE html><html><title>Sign in</title></html>", encoding="utf-8")
    with pytest.raises(ls.FormatError, match=r"not-a-checkpoint.*127\.0\.0\.1.*web page"):
        ls.open(web.url(f"files/{name}"))
    assert names(cache) == []


def test_one_name_at_two_addresses_is_two_files(web, other_web):
    data = serve(web)
    assert fetch(web.url("files/model.pth")) == data
    other = serve(other_web, seed=1)
    assert fetch(other_web.url("files/model.pth")) == other
    assert fetch(web.url("files/model.pth")) == data
    assert fetch(other_web.url("files/model.pth")) == other
    assert len(web.asked) == len(other_web.asked) == 1


def test_two_processes_download_once(web, cache):
    name, data = serve_hashed(web)
    web.pause_seconds = 0.1
    command = [sys.executable, "-c", OPEN, web.url(f"files/{name}")]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=30)[0].strip() for process in pair] == [str(cache / name)] * 2
    assert (cache / name).read_bytes() == data
    assert len(web.asked) == 1
    assert names(cache) == [name]


def test_a_killed_download_is_gone_on_from(web, cache):
    data = serve(web)
    web.cuts, web.is_silent_after = [100_000], True
    process = subprocess.Popen([sys.executable, "-c", OPEN, web.url("files/model.pth")])
    partial = cache / "model.pth.partial"
    until = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert fetch(web.url("files/model.pth")) == data
    assert web.ranges()[1] is not None
    assert names(cache) == ["model.pth"]


def test_a_silent_server_is_given_up(web):
    serve(web)
    web.cuts, web.is_silent_after = [100_000] * 2, True
    began = time.monotonic()
    with pytest.raises(ls.IntegrityError, match=r"download-failed.*the server is silent, 2 times in a row"):
        fetch(web.url("files/model.pth"))
    assert time.monotonic() - began < 5


def test_a_server_that_drips_is_given_up(web):
    serve(web)
    web.piece_nbytes, web.pause_seconds = 400, 0.1  # never silent for long
    with pytest.raises(ls.IntegrityError, match="less than 100000 bytes a second"):
        fetch(web.url("files/model.pth"), Patience(timeout_seconds=0.4, attempts=1, slowest=100_000))


def test_a_port_that_nobody_listens_at_is_said(web):
    web.port = 1
    with pytest.raises(ls.IntegrityError, match=r"download-failed.*connection refused"):
        fetch(web.url("files/model.pth"))


def test_a_file_that_does_not_fit_is_refused_before_a_byte_is_written(web, cache, tmp_path):
    free = shutil.disk_usage(tmp_path).free
    (web.folder / "model.pth").touch()
    os.truncate(web.folder / "model.pth", free + 10**10)  # a hole: it takes no space on the server
    web.cuts = [10_000]  # all that would be written, were the length not looked at
    with pytest.raises(ls.SaveError, match="no-space"):
        fetch(web.url("files/model.pth"), ONCE)
    assert names(cache) == []


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nPK", "does not say how long the file is"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nPK", "compressed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nPK", "2 times in a row"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "redirects to nowhere"),
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", r"999 \(unknown status\)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"", "closed the connection"),
    ],
)
def test_an_odd_answer_is_an_error_of_ours(web, cache, head, message):
    web.canned = [head] * 2
    with pytest.raises(ls.IntegrityError, match=f"download-failed.*{message}"):
        fetch(web.url("files/model.pth"))
    assert "model.pth" not in names(cache)


def test_a_file_in_chunks_is_whole_when_its_last_chunk_says_so(web):
    web.canned = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"]
    assert fetch(web.url("files/model.pth")) == b"abcde"


def test_a_password_is_sent_and_never_shown(web):
    data = serve(web)
    assert fetch(web.url("private/model.pth", "alice:s3cret@")) == data
    with pytest.raises(ls.IntegrityError) as raised:
        fetch(web.url("private/none.pth?token=t0ken", "alice:s3cret@"))
    assert "404" in str(raised.value)
    assert "s3cret" not in repr(raised.value)
    assert "t0ken" not in repr(raised.value)
    assert "alice" not in repr(raised.value)


@pytest.mark.parametrize("words", [["inspect"], ["inspect", "--json"], ["plan", "--json", "--into", "OTHER"]])
@pytest.mark.parametrize("name", ["model.pth", "none.pth"])
def test_a_command_shows_no_password(web, words, name):
    serve(web)
    words = [str(web.folder / "model.pth") if word == "OTHER" else word for word in words]
    url = web.url(f"private/{name}?token=t0ken", "alice:s3cret@")
    done = subprocess.run([sys.executable, "-m", "loadstone", *words, url], capture_output=True, text=True, timeout=30)
    assert done.returncode == (0 if name == "model.pth" else 2)
    assert "s3cret" not in done.stdout + done.stderr
    assert "t0ken" not in done.stdout + done.stderr


def test_a_target_may_be_an_address_too(web):
    serve(web)
    url = web.url("private/model.pth", "alice:s3cret@")
    words = ["plan", "--json", str(web.folder / "model.pth"), "--into", url]
    done = subprocess.run([sys.executable, "-m", "loadstone", *words], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "s3cret" not in done.stdout + done.stderr


def test_a_password_is_not_sent_to_another_server(web, other_web):
    data = serve(web)
    target = other_web.url("files/model.pth")
    assert fetch(web.url(f"redirect/model.pth?to={target}", "alice:s3cret@")) == data
    assert "Authorization: Basic" in web.asked[0]
    assert "Authorization" not in other_web.asked[0]


def test_a_name_that_climbs_stays_in_the_cache(web, cache):
    web.canned = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"]
    path = download(web.url("files/..%2f..%2fup.pth"), accept=lambda path, address: None)
    assert path == cache / "..%2f..%2fup.pth"


def test_a_name_that_the_server_wants_is_not_taken(web, cache, tmp_path):
    serve(web)
    fetch(web.url("files/model.pth"))
    assert names(cache) == ["model.pth"]
    assert list(tmp_path.rglob("evil.pth")) == []


def test_a_cache_that_cannot_be_written_to_is_said(web, tmp_path, monkeypatch):
    serve(web)
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(ls.SaveError, match=r"(?s)save-failed.*TORCH_HOME"):
        ls.open(web.url("files/model.pth"))
    assert web.asked == []


def test_nothing_is_said_about_progress_but_on_a_terminal(web):
    serve(web)
    command = [sys.executable, "-m", "loadstone", "inspect", "--json", web.url("files/model.pth")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""


def test_a_bar_is_shown_on_a_terminal(web):
    serve(web)
    web.pause_seconds = 0.05
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "loadstone", "inspect", web.url("files/model.pth")]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    ) as run:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 1 << 16):
                shown += piece
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert run.returncode == 0
    assert b"model.pth" in shown
    assert b"kB" in shown
