"""A checkpoint behind `transformers serve`, on this machine and a port of its own."""

import socket
import subprocess
import sys
from contextlib import contextmanager


@contextmanager
def transformers_serve(folder, log):
    """Serve the checkpoint of a folder; yield the settings with which `endpoint` asks it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder), "--host", "127.0.0.1", "--port", port]
    with log.open("w") as file:
        process = subprocess.Popen([*command, "--device", "cpu"], stdout=file, stderr=file)
    try:
        yield {"model": str(folder), "address": f"http://127.0.0.1:{port}/v1", "tries": 9, "concurrency": 1}
    finally:
        process.terminate()
        process.wait()
