"""Makes the toys importable, also in worker processes, which inherit this path; and a Ray cluster for those who ask."""

import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# Here and not beside the cluster: Ray reads them once, when a test first imports it.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Ray's own simulation of a cluster: two machines of two processors each, the first one the head."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 2, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=options)
    yield cluster
    cluster.shutdown()
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ |= before


@pytest.fixture(scope="session")
def ray_hiring(ray_cluster: Any) -> Iterator[Callable[[int], Any]]:
    """Hires a number of actors of the cluster."""
    import ray

    from fairmend.runs.workers.ray_actors import RayActors

    ray.init(address=ray_cluster.address, log_to_driver=False, configure_logging=False)
    yield lambda count: RayActors(cpus=0.5, most=count)
    ray.shutdown()
