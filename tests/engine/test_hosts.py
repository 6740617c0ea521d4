"""Other hosts, as far as one machine can have them: namespaces of the network and of the file system."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dask_cluster import HERE, Cluster, Place
from toy_runs import dataset_hash, options, run
from toy_stages import gate, toy_plan

from facegraft.engine import EngineError, start_client

pytestmark = pytest.mark.slow
HANGS_S = 600.0
# Dask takes a silent connection for dead after 30 s; a test need not wait that long (Dask refuses less than about 12 s).
IMPATIENT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s"}


@dataclass(frozen=True)
class TwoHosts:
    """Network namespaces with a cable between them."""

    near: str
    far: str

    def cut(self) -> None:
        ip("-n", self.near, "link", "set", "cable", "down")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the program ip")
    two = TwoHosts(f"fg-near-{os.getpid()}", f"fg-far-{os.getpid()}")
    try:
        try:
            for name in (two.near, two.far):
                ip("netns", "add", name)
            ip("-n", two.near, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", two.far)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine allows no network namespaces: {error.stderr.decode().strip()}")
        for name, address in ((two.near, "10.77.0.1/24"), (two.far, "10.77.0.2/24")):
            ip("-n", name, "address", "add", address, "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield two
    finally:
        for name in (two.near, two.far):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_a_host_that_is_cut_off_in_mid_run_changes_nothing(tmp_path: Path, hosts: TwoHosts) -> None:
    plan = "toy_plan(60, 2, {9: 'refuse'})"
    # Items wait until the cable is cut, so that the run is in the middle when that happens; sooner here than there, so that the far
    # host has something to make, whichever is ready first.
    near = Place("10.77.0.1", ["ip", "netns", "exec", hosts.near], environment=IMPATIENT | gate(tmp_path / "gate", 4))
    far = Place("10.77.0.2", ["ip", "netns", "exec", hosts.far], environment=IMPATIENT | gate(tmp_path / "gate", 24))
    script = tmp_path / "client.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom toy_runs import run\nfrom toy_stages import toy_plan\n\n"
        f"run({plan}, Path({str(tmp_path / 'out')!r}), scheduler={str(tmp_path / 'scheduler.json')!r}, item_timeout_s={HANGS_S})\n"
    )
    cluster = Cluster(tmp_path, near)
    try:
        cluster.worker("near")
        cluster.worker("far", place=far)
        environment = {**os.environ, **IMPATIENT}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
        client = subprocess.Popen(
            [*near.prefix, sys.executable, str(script)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            while cluster.processes["far"].pid not in made_by(tmp_path / "out"):
                assert client.poll() is None, "the far host does nothing"
                time.sleep(0.05)
            hosts.cut()
            done = len(list((tmp_path / "out" / "shards").glob("*.json")))
            (tmp_path / "gate").touch()
            _, errors = client.communicate(timeout=HANGS_S)
        finally:
            if client.poll() is None:
                os.killpg(client.pid, signal.SIGKILL)
                client.communicate()
    finally:
        cluster.close()
    assert client.returncode == 0, errors
    assert done < 20, "the run was all but over when the host was cut off"
    run(toy_plan(60, 2, {9: "refuse"}), tmp_path / "undisturbed", scheduler="sync")
    assert dataset_hash(tmp_path / "out") == dataset_hash(tmp_path / "undisturbed")


def made_by(output: Path) -> set[int]:
    return {json.loads(path.read_text())["pid"] for path in (output / "logs").glob("*-of-*.json")}


def test_a_worker_that_does_not_see_the_output_folder_is_named(tmp_path: Path) -> None:
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("mount namespaces need root")
    share = tmp_path / "share"
    share.mkdir()
    blind = Place(prefix=["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {share} && exec "$@"', "sh"])
    cluster = Cluster(tmp_path)
    try:
        cluster.worker("blind", place=blind)
        with pytest.raises(EngineError) as failure:
            run(toy_plan(8, 2), share / "out", scheduler=cluster.address)
        assert re.search(
            r"none of the 1 Dask workers can make this run: blind at tcp://\S+: the worker on \S+ does not see "
            rf"{share / 'out'}; workers need the output folder on a file system that they share",
            str(failure.value),
        )
        cluster.worker("seeing")
        with start_client(options(scheduler=cluster.address)) as client:
            client._client.wait_for_workers(2, timeout=HANGS_S)  # type: ignore[attr-defined]
            run(toy_plan(8, 2), share / "out", client)
        assert made_by(share / "out") == {cluster.processes["seeing"].pid}
    finally:
        cluster.close()
