"""What an address is, and what of it may be seen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import loadstone as ls
from loadstone.io.addresses import is_address, parse_address, redirected, shown
from loadstone.io.hub_cache import hub_folder

HOST = "https://example.org/"


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("resnet18-f37072fd.pth", "f37072fd"),
        ("mnasnet0.5_top1_67.823-3ffadce67e.pth", "3ffadce67e"),
        ("alexnet-owt-7be5be79.pth", "7be5be79"),
        ("model-DEADBEEF.pth.tar", "deadbeef"),
        ("model-12345678.pth", "12345678"),
        ("model-20240115.pth", None),  # a date
        ("model-f37072f.pth", None),  # too short to say anything
        ("model-decoder01.pth", None),
        ("f37072fd.pth", None),
        ("model-f37072fd", None),
    ],
)
def test_the_hash_in_a_name(name, prefix):
    assert parse_address(HOST + name).sha256_prefix == prefix


def test_what_is_secret_is_asked_for_or_sent_but_not_shown():
    address = parse_address("https://ann:p%40ss@example.org:8443/a/b.pth?token=t0ken#part")
    assert address.url == "https://example.org:8443/a/b.pth?token=t0ken"
    assert address.shown == "https://example.org:8443/a/b.pth"
    assert address.authorization == "Basic YW5uOnBAc3M="  # ann:p@ss
    assert "t0ken" not in repr(address)
    assert "YW5u" not in repr(address)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://ann:pw@example.org/b.pth?token=t0ken", "https://example.org/b.pth"),
        ("https://ann:pw@example.org", "the address"),
        ("runs/a?b@c.pth", "runs/a?b@c.pth"),
    ],
)
def test_what_messages_call_a_file(text, said):
    assert shown(text) == said


def test_letters_outside_ascii_are_quoted_and_what_is_quoted_stays():
    address = parse_address("http://bücher.example/größe%20x.pth?q=ä")
    assert address.url == "http://xn--bcher-kva.example/gr%C3%B6%C3%9Fe%20x.pth?q=%C3%A4"
    assert address.name == "größe%20x.pth"


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd",
        "ftp://example.org/x.pth",
        "s3://bucket/x.pth",
        "https:///x.pth",
        "https://example.org",
        "https://example.org/models/",
        "https://example.org/models/..",
        "https://example.org:port/x.pth",
        "https://[::1/x.pth",
        "https://a..b/x.pth",
        "https://example.org/a\nHost: evil/x.pth",
        "https://example.org/..\\x.pth",
        "https://example.org/" + "x" * 300,
        "https://example.org/\udcff.pth",  # a byte of the command line that is no text
        "https://example.org/\x9b31m.pth",
    ],
)
def test_what_is_no_address_of_a_file_on_the_web_is_refused(text):
    with pytest.raises(ls.FormatError, match="address-refused"):
        parse_address(text)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_an_address_or_an_error_of_ours(host, path):
    try:
        address = parse_address(f"http://{host}/{path}")
    except ls.FormatError:
        return
    assert address.url.isascii()
    assert "/" not in address.name
    assert address.name not in ("", ".", "..")


@pytest.mark.parametrize("path", ["model.pth", "/a/b.pth", "C:/model.pth", "C://model.pth", "a:b", "https:/x"])
def test_a_path_is_no_address(path):
    assert not is_address(path)


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("http://a/x/y", "https://b/z", "https://b/z"),
        ("https://a/x/y", "/z", "https://a/z"),
        ("https://a/x/y", "z?q=1", "https://a/x/z?q=1"),
        ("http://a/x", "http://b/x", "http://b/x"),
        ("https://a/x", "/my model\r\n\xe9.pth", "https://a/my%20model%0D%0A%E9.pth"),
    ],
)
def test_a_redirect_leads_where_it_says(url, location, target):
    assert redirected(url, location) == target


@pytest.mark.parametrize("location", ["http://a/x", "HTTP://a/x", "file:///x", "http://[/"])
def test_a_redirect_that_is_less_safe_is_refused(location):
    with pytest.raises(ls.FormatError, match="address-refused"):
        redirected("https://a/x", location)


@pytest.mark.parametrize("variables", [{"TORCH_HOME": "/t"}, {"XDG_CACHE_HOME": "/c"}, {"TORCH_HOME": "~/t"}, {}])
def test_the_cache_folder_is_that_of_torch(monkeypatch, variables):
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(hub_folder()) == f"{torch.hub.get_dir()}/checkpoints"
