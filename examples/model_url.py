"""Load pretrained weights from a model URL, with a progress bar and a hash check, like load_state_dict_from_url.

    RuntimeError: invalid hash value (expected "f37072fd", got "5c106cde386e87d4033832f2996f5493238eda96ccf5...")

An address will do where a path does.  The file is kept in torch.hub's folder, a download that breaks off is resumed,
and a name that ends in digits of the file's SHA-256 is checked against it.
"""

import hashlib
import os
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import torch
from torchvision.models import squeezenet1_1

import loadstone as ls


class Folder(SimpleHTTPRequestHandler):
    """Serves the folder below, on this machine only: it stands for download.pytorch.org."""

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=folder)

    def log_message(self, *_):
        """Keep the screen for the example."""


with (
    tempfile.TemporaryDirectory() as folder,
    mock.patch.dict(os.environ, {"TORCH_HOME": f"{folder}/cache", "no_proxy": "127.0.0.1"}),
    ThreadingHTTPServer(("127.0.0.1", 0), Folder) as server,
):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    trained = squeezenet1_1()
    path = Path(folder) / "squeezenet.pth"
    torch.save(trained.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for digits in (digest[:8], "0badc0de"):
        (Path(folder) / f"squeezenet-{digits}.pth").write_bytes(path.read_bytes())

    url = f"http://127.0.0.1:{server.server_port}"
    model = squeezenet1_1()
    ls.load(model, f"{url}/squeezenet-{digest[:8]}.pth")
    try:
        ls.open(f"{url}/squeezenet-0badc0de.pth")
    except ls.IntegrityError as error:
        print("wrong hash:", error.code)
    server.shutdown()

    kept = [file.name for file in Path(folder).glob("cache/hub/checkpoints/*.pth")]
    assert kept == [f"squeezenet-{digest[:8]}.pth"]
assert all(map(torch.equal, model.parameters(), trained.parameters()))
