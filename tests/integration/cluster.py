"""A Ray cluster of several nodes on one machine: one raylet for each node."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_PATIENCE = 180.0
_STORE = 150_000_000


def _free_port() -> int:
    return free_ports(1)[0]


@dataclass
class Cluster:
    """The head node and the workers.

    Attributes:
        folder: home folder of all processes; its path is short, as paths of sockets are limited.
        token: authentication token of the cluster; None for a cluster without one.
    """

    folder: Path
    token: str | None
    port: int = field(default_factory=_free_port)
    dashboard: int = field(default_factory=_free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    exporters: list[int] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Address of the job server."""
        return f"http://127.0.0.1:{self.dashboard}"

    def environment(self, token: str | None = None) -> dict[str, str]:
        """Environment variables without any settings of Ray on this machine."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {"HOME": str(self.folder), "OMP_WAIT_POLICY": "PASSIVE", "RAY_AUTH_MODE": "disabled"}
        env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
        if token is not None:
            file = self.folder / f"token-{token[:4]}"
            file.write_text(token)
            env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
        return env

    def start(self, *arguments: str, cpus: int) -> subprocess.Popen[bytes]:
        """Start a raylet in which a foreign package named ``pipeline`` comes first on the path."""
        decoy = self.folder / "decoy" / "pipeline"
        decoy.mkdir(parents=True, exist_ok=True)
        (decoy / "__init__.py").write_text("raise RuntimeError('a foreign package')")
        command = ["nice", str(BIN / "ray"), "start", *arguments, f"--num-cpus={cpus}"]
        command += [f"--object-store-memory={_STORE}", "--block", "--disable-usage-stats"]
        command += [f"--dashboard-agent-listen-port={_free_port()}"]  # others may run Ray
        self.exporters.append(_free_port())
        command.append(f"--metrics-export-port={self.exporters[-1]}")
        with self.log(len(self.processes)).open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=self.environment(self.token) | {"PYTHONPATH": str(decoy.parent)},
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def head(self, cpus: int) -> None:
        where = [f"--port={self.port}", f"--temp-dir={self.folder}/r"]
        where += ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}"]
        where += [f"--ray-client-server-port={_free_port()}"]
        self.start("--head", "--node-ip-address=127.0.0.1", *where, cpus=cpus)
        self._wait()

    def worker(self, cpus: int) -> subprocess.Popen[bytes]:
        """A worker that has joined; on a busy machine Ray may give up the first attempt."""
        for _ in range(3):
            process = self.start(f"--address=127.0.0.1:{self.port}", cpus=cpus)
            log = self.log(len(self.processes) - 1)
            while process.poll() is None:
                if b"block forever" in log.read_bytes():
                    return process
                time.sleep(0.2)
        raise RuntimeError(log.read_text()[-3000:])

    def log(self, number: int) -> Path:
        return self.folder / f"ray-{number}.log"

    def metrics(self) -> str:
        """Metrics that all nodes export."""
        found = []
        for port in self.exporters:
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer,
            ):
                found.append(answer.read().decode())
        return "\n".join(found)

    def _wait(self) -> None:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self.processes[0].poll() is None:
            try:
                urllib.request.urlopen(f"{self.address}/api/version", timeout=5).close()
            except urllib.error.HTTPError:
                return  # it wants a token
            except OSError:
                time.sleep(0.5)
            else:
                return
        raise RuntimeError(self.log(0).read_text()[-3000:])

    def legrad(
        self, *arguments: str, cwd: Path, token: str | None = "", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the installed command, with the cluster's token unless another one is passed."""
        env = self.environment(self.token if token == "" else token) | more
        env |= {"PYTHONPATH": str(ROOT), "RAY_API_SERVER_ADDRESS": self.address}
        command = [str(BIN / "legrad"), *arguments]
        return subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=900
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a node's process and all its children at once, as when a machine is lost."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for child in family:
        with suppress(psutil.NoSuchProcess):  # it ended with its parent
            child.send_signal(signal.SIGKILL)
    process.kill()
    process.wait()


@contextmanager
def ray_cluster(*, workers: Sequence[int], head: int = 2, token: str | None = None) -> Iterator[
    tuple[Cluster, list[subprocess.Popen[bytes]]]
]:  # fmt: skip
    """Start a head and workers with these CPUs; yields the cluster and the workers' processes."""
    folder = Path(tempfile.mkdtemp(prefix="lg", dir="/tmp"))
    cluster = Cluster(folder, token)
    try:
        cluster.head(head)
        yield cluster, [cluster.worker(cpus) for cpus in workers]
    finally:
        for process in reversed(cluster.processes):
            kill(process)
        shutil.rmtree(folder, ignore_errors=True)
