"""Files that are no checkpoints are named for what they are, with a way out."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle

import pytest

from loadstone.errors import Diagnostic
from loadstone.formats.identify import identify, unknown_format
from loadstone.io.sources import MemorySource


def identified(data: bytes, path: str = "model.pt") -> Diagnostic | None:
    return identify(data[:4096], MemorySource(data, path), path)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 548105171\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(b"x"), "a gzip archive"),
        (bz2.compress(b"x"), "a bzip2 archive"),
        (lzma.compress(b"x"), "an xz archive"),
        (b"\x28\xb5\x2f\xfd" + bytes(30), "a Zstandard archive"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(30), "a 7-Zip archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "a PNG image"),
        (b"\xff\xd8\xff\xe0" + bytes(30), "a JPEG image"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "an HDF5 file"),
        (b"\x1c\0\0\0TFL3" + bytes(30), "a TensorFlow Lite model"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0:", "an ONNX model"),
        (b"\x08\x01\x12\xff\x01\x0a\x0ameta graph", "a TensorFlow SavedModel"),
        (b"\x08\x05\x12\xf0\x02\x0a\x10\x0a\x05image", "a Core ML model"),
        (b"\x7fELF" + bytes(30), "a Linux program"),
        (b"MZ\x90\0" + bytes(30), "a Windows program"),
        (b"PAR1" + bytes(30), "a Parquet file"),
        (b"lmgg\x01\0\0\0", "an old GGML model"),
        (b"#!/bin/sh\necho\n", "a script"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"\xef\xbb\xbf \n<HTML>\n<title>404 Not Found</title></HTML>", "a web page"),
        ("<!DOCTYPE html><p>".encode("utf-16") + "größe".encode("utf-16-le"), "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML text (the storage refused"),
        (b'{"error": "Repository not found"}', "a JSON error message of a server"),
        (json.dumps({"architectures": ["Bert"], "model_type": "bert"}).encode(), "the configuration of a Hugging Face"),
        (json.dumps({"metadata": {}, "weight_map": {"a": "b"}}).encode(), "the index of a checkpoint in several files"),
        (b"[1, 2, 3]", "JSON text"),
        (b"Invalid username or password.", "an error message of a server"),
        (b"Entry not found", "an error message of a server"),
        (b"Access to model meta/x is restricted. You must have access to it.", "an error message of a server"),
        (b"import torch\n\nclass Net(torch.nn.Module):\n    pass\n", "Python source text"),
        (b"A README that explains the model.\nIn two lines.\n", "text ('A README that explains the model.')"),
        (bytes(5000), "nothing but zeros (5,000 bytes)"),
    ],
)
def test_other_files_are_named(data: bytes, words: str) -> None:
    found = identified(data)
    assert found is not None
    assert found.code == "not-a-checkpoint"
    assert words in found.message
    assert "`model.pt`" in found.message


def test_archive_comes_with_the_command_that_opens_it() -> None:
    found = identified(gzip.compress(b"x"), "dir/model.pt.gz")
    assert found is not None
    assert [fix.paste for fix in found.fixes] == ["gunzip dir/model.pt.gz"]


def test_empty_file_has_a_code_of_its_own() -> None:
    found = identified(b"")
    assert found is not None
    assert (found.code, found.message) == ("empty-file", "`model.pt` has no bytes")


def test_lfs_pointer_tells_the_size_and_the_command() -> None:
    found = identified(LFS, "weights/model.pt")
    assert found is not None
    assert found.code == "lfs-pointer"
    assert "a file of 548,105,171 bytes" in found.message
    assert found.fixes[0].paste == 'git lfs pull --include "model.pt"'


def test_zeros_with_something_behind_them_are_not_called_zeros() -> None:
    assert identified(bytes(20_000) + b"data" + bytes(16_000)) is None
    assert identified(bytes(8192) + b"\x01" * 8192) is None


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], (1, "two"), "text", 3.5, {"w": [0.5] * 3000}, None, ["x" * 9000]])
@pytest.mark.parametrize("protocol", range(6))
def test_pickle_is_left_to_the_reader_of_pickles(value: object, protocol: int) -> None:
    assert identified(pickle.dumps(value, protocol)) is None


def test_pickle_of_a_call_in_text_is_left_to_the_reader_of_pickles() -> None:
    assert identified(b"cos\nsystem\n(S'echo'\ntR.") is None


def test_unknown_bytes_are_none() -> None:
    assert identified(b"\x93\x00\x01\xfe\xff\x81 some \x00 bytes") is None


def test_unknown_format_shows_the_first_bytes_in_both_ways() -> None:
    found = unknown_format(b"AB\x00\x1b[31m\xff", "x.bin")
    assert found.evidence[0] == ("first bytes", "41 42 00 1b 5b 33 31 6d ff  AB..[31m.")
    assert "safetensors" in dict(found.evidence)["formats tried"]


def test_text_that_is_cut_inside_a_character_is_still_text() -> None:
    data = ("ä" * 3000).encode()
    found = identify(data[:4095], MemorySource(data, "x"), "x")
    assert found is not None
    assert "is text" in found.message


def test_source_is_not_needed() -> None:
    assert identify(io.BytesIO(b"%PDF-1.7").read(), None, "x") is not None
