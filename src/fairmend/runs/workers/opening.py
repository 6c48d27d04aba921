"""Workers by the name that the command line gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairmend.runs.workers.crew import Crew
from fairmend.runs.workers.processes import LocalProcesses
from fairmend.runs.workers.tasks import InProcess, Throughput, Workers

_SHOWN = 4  # workers, one by one


def open_workers(
    name: str = "1",
    *,
    cpus: float = 1.0,
    gpus: float | None = 0.0,
    most: int | None = None,
    threads: int = 1,
    say: Callable[[str], None] = lambda note: None,
) -> Workers:
    """The workers of this name; whoever opens them closes them.

    Args:
        name: a number of processes of this machine, 1 being this one; "ray" for the cluster at RAY_ADDRESS, or one
            started here; or "ray://HOST:PORT".
        cpus, gpus, most: of Ray's, see `RayActors`.
        threads: of each.
        say: called with each remark.

    Raises:
        InputError: Ray is not installed.
        ValueError: another name.
        RunError: a cluster that cannot be reached or started, or has no room.
    """
    if name == "ray" or name.startswith("ray://"):
        from fairmend.runs.workers.ray_actors import RayActors

        address = None if name == "ray" else name
        return Crew(RayActors(address, cpus=cpus, gpus=gpus, most=most, threads=threads), say=say)
    return InProcess() if int(name) == 1 else Crew(LocalProcesses(int(name), threads), say=say)


def throughput_in_words(counted: Sequence[Throughput]) -> str:
    """What each worker did in a line; of many, what they did together."""
    speeds = sorted(each.done / each.seconds for each in counted if each.seconds > 0)
    if not speeds:
        return ""
    if len(counted) <= _SHOWN:
        return f"Done by {'; '.join(f'{one.worker}: {one.done:,} in {one.seconds:.1f} s' for one in counted)}."
    done = sum(each.done for each in counted)
    return f"Done by {len(counted)} workers: {done:,}, each {speeds[0]:.3g} to {speeds[-1]:.3g} a second."
