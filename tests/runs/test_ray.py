"""Ray's own ways: machines that leave and join, clusters that are started here, and that nothing imports it unasked."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_workers import is_alive, search
from worker_cases import evaluator_in

from fairmend.errors import InputError, RunError
from fairmend.runs.workers import Task
from fairmend.runs.workers.crew import Crew
from fairmend.runs.workers.opening import open_workers

pytestmark = pytest.mark.xdist_group("ray")
Hire = Callable[..., Any]


def napping(seconds: float) -> str:
    """Where a worker is, after a nap."""
    import time

    import ray

    time.sleep(seconds)
    return str(ray.get_runtime_context().get_node_id())


def naps(count: int, seconds: float) -> Iterator[Task]:
    return (Task(napping, (seconds,), partial(str, "while napping")) for _ in range(count))


def test_a_machine_that_leaves_is_done_without_and_one_that_joins_is_used(
    tmp_path: Path, ray_cluster: Any, ray_hiring: Hire
) -> None:
    """Two machines, one of them removed in the middle, and the same store; then another one."""
    from fairmend.runs.workers.ray_actors import RayActors

    (tmp_path / "alone").mkdir()
    alone = search(tmp_path / "alone.sqlite", evaluator_in(tmp_path / "alone"))
    second = ray_cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    ray_cluster.wait_for_nodes()
    evaluator = evaluator_in(tmp_path, seconds=0.02)

    class Removes:
        """Takes a machine away once some masks are measured."""

        def __init__(self) -> None:
            self.node = second

        def start(self, total: int | None, title: str) -> None:
            pass

        def update(self, done: int, total: int | None, rate: float, eta_seconds: float | None, note: str) -> None:
            if self.node is not None and done >= 20:
                ray_cluster.remove_node(self.node, allow_graceful=False)
                self.node = None

        def close(self) -> None:
            pass

    removes = Removes()
    with Crew(RayActors(cpus=1.0)) as crew:
        assert search(tmp_path / "run.sqlite", evaluator, crew, removes) == alone
        assert removes.node is None
        third, where = None, set()
        for each in crew.do(naps(200, 0.1)):
            where.add(each.result)
            third = third or ray_cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
            if len(where) == 2:
                break
        assert len(where) == 2
        assert third is not None
        ray_cluster.remove_node(third)


def test_more_than_the_cluster_has_is_refused(ray_hiring: Hire) -> None:
    with pytest.raises(RunError, match=r"no room for a worker with 64 processors and 0 GPUs: .*--cpus-per-worker"):
        open_workers("ray", cpus=64)
    with pytest.raises(RunError, match="no room for a worker with 1 processors and 1 GPUs"):
        open_workers("ray", gpus=1)


OWN = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from worker_cases import place
from fairmend.runs.workers import Task
from fairmend.runs.workers.opening import open_workers

def told():
    return os.getpid(), place(), os.environ["OMP_NUM_THREADS"]

if __name__ == "__main__":
    workers = open_workers("ray", most=1, threads=1)
    import own_cluster, ray
    node = ray._private.worker._global_node
    (done,) = workers.do([Task(own_cluster.told, (), str)])
    try:
        print(json.dumps({
            "told": done.result,
            "mode": os.environ["RAY_AUTH_MODE"],
            "token": len(os.environ["RAY_AUTH_TOKEN"]),
            "usage": os.environ["RAY_USAGE_STATS_ENABLED"],
            "dashboard": node.address_info["webui_url"] or "",
            "address": node.gcs_address,
            "daemons": [each.process.pid for some in node.all_processes.values() for each in some],
        }), flush=True)
        sys.stdin.readline()
    except KeyboardInterrupt:
        workers.close()
    print("closed", flush=True)
"""


@pytest.mark.parametrize("ends", ["stopped by Ctrl-C", "killed"])
def test_a_cluster_of_our_own_is_closed_to_others_and_leaves_nothing(tmp_path: Path, ends: str) -> None:
    (tmp_path / "own_cluster.py").write_text(OWN)
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), "RAY_NUM_REDIS_GET_RETRIES": "1"}  # a stranger gives up at once
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(__file__).parent), *sys.path])
    command = [sys.executable, str(tmp_path / "own_cluster.py"), str(Path(__file__).parent)]
    quiet: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, stdin=subprocess.PIPE, **quiet, env=environment, start_new_session=True) as driver:
        assert driver.stdout is not None
        line = driver.stdout.readline()
        assert line, driver.communicate()
        said = json.loads(line)
        assert (said["mode"], said["token"], said["usage"], said["dashboard"]) == ("token", 64, "0", "")
        assert said["told"][1:] == [0, "1"]
        assert not (home / ".ray").exists()
        if ends == "killed":
            stranger = f"import ray; ray.init(address={said['address']!r}, logging_level='ERROR')"
            refused = subprocess.run(
                [sys.executable, "-c", stranger], check=False, **quiet, env=environment, timeout=60
            )
            assert "AuthenticationError" in refused.stderr
        # As a terminal does, to all of them.
        os.killpg(driver.pid, signal.SIGKILL if ends == "killed" else signal.SIGINT)
        out, errors = driver.communicate()
        assert out == ("" if ends == "killed" else "closed\n"), errors
    for pid in (said["told"][0], *said["daemons"]):
        ended(pid)


def ended(pid: int) -> None:
    """Wait for a process to end."""
    import time

    deadline = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < deadline, Path(f"/proc/{pid}/cmdline").read_text()
        time.sleep(0.1)


def test_nothing_imports_ray_unasked() -> None:
    source = Path(__file__).parents[2] / "src" / "fairmend"
    importing = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            importing |= {path.name for name in names if name.partition(".")[0] == "ray"}
            importing |= {path.name for name in names if name.endswith("ray_actors")}
    assert importing == {"ray_actors.py", "opening.py"}
    code = (
        "import sys, fairmend.runs.jobs, fairmend.cli.main\n"
        "from fairmend.runs.workers.opening import open_workers\n"
        "open_workers('1'), open_workers('2').close()\n"
        "assert 'ray' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"needs Ray 2\.52 or later.*pip install 'fairmend\[ray\]'"):
        open_workers("ray")


def test_a_cluster_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    def refused(**options: Any) -> None:
        raise ConnectionError("nobody answers\nfor a reason")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(RunError, match=r"a Ray cluster at ray://there:1 cannot be reached: nobody answers\. Check its"):
        open_workers("ray://there:1")
