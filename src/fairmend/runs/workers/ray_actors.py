"""Workers that are actors of Ray (https://docs.ray.io): on a cluster that is there, or on one started on this machine.

Ray restarts an actor that ended, wherever there is room (`max_restarts`). The task that it had at hand is not left to
Ray's retries, which would wait for that very actor: whoever is free does it. Only the question whether an actor is
ready is retried, so that one that was restarted, or whose machine joined late, is heard of.

What goes to a worker is pickled, by Ray and by us: a cluster trusts whoever has its token.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from fairmend.errors import InputError, RunError, first_line
from fairmend.runs.workers.crew import WorkerLost
from fairmend.runs.workers.service import Answer, Service
from fairmend.threads import THREAD_VARIABLES

if TYPE_CHECKING:
    from types import ModuleType

_COUNT_EVERY = 2.0  # seconds between two looks at what the cluster has
_OBJECTS = 100_000_000  # bytes of the object store of a cluster of our own; Ray's least is 75 MB
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RayActors:
    """Hires actors of Ray, see `Hiring`.

    Args:
        address: of a cluster, as `ray.init` takes it; None takes RAY_ADDRESS, or starts a cluster on this machine, with
            token authentication and without dashboard and usage statistics, which `close` ends.
        cpus: processors that an actor takes up.
        gpus: GPUs that an actor takes up, such as 0.25 where four share one; None is one where the cluster has any.
        most: actors at most; as many as the cluster has room for when not given. So many are asked for even where there
            is no room yet, so that a cluster that grows by itself does.
        threads: of each.

    Raises:
        InputError: Ray is not installed.
        RunError: the cluster cannot be reached or started, or has no room for a single actor.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus: float = 1.0,
        gpus: float | None = 0.0,
        most: int | None = None,
        threads: int = 1,
    ) -> None:
        address = address or os.environ.get("RAY_ADDRESS")
        self._most = most
        self._ray = _imported(starts=address is None)
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            _begin(self._ray, address)
        self._counted, self._room = 0.0, 0
        self._sent: dict[str, Any] = {}
        has = self._ray.cluster_resources()
        self._gpus = float(has.get("GPU", 0) >= 1) if gpus is None else gpus
        self._cpus = cpus
        self._actor = _actor(self._ray).options(
            num_cpus=cpus,
            num_gpus=self._gpus,
            max_restarts=-1,
            max_task_retries=-1,
        )
        self._threads = threads
        if most is None and not self.places():
            self.close()
            raise RunError(
                f"the Ray cluster has no room for a worker with {cpus:g} processors and {self._gpus:g} GPUs: it has "
                f"{has.get('CPU', 0):g} and {has.get('GPU', 0):g}. Ask for less (--cpus-per-worker, --gpus-per-worker)"
                ", or say how many workers to wait for (--max-workers)"
            )

    def places(self) -> int:
        """See `Hiring`."""
        if self._most is not None:
            return self._most
        if time.monotonic() - self._counted > _COUNT_EVERY:
            has = self._ray.cluster_resources()
            shares = [has.get(name, 0) / each for name, each in (("CPU", self._cpus), ("GPU", self._gpus)) if each]
            self._room, self._counted = int(min(shares, default=1)), time.monotonic()
        return self._room

    def hire(self, number: int) -> RayActor:
        """See `Hiring`."""
        return RayActor(self._ray, self._actor.remote(number, self._threads), number, self._sent)

    def wait(self, hands: Sequence[RayActor], seconds: float) -> list[RayActor]:
        """See `Hiring`."""
        asked = {hand.asked: hand for hand in hands if hand.asked is not None}
        if not asked:
            return []
        ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0)
        return [asked[each] for each in ready]

    def close(self) -> None:
        """See `Hiring`."""
        if self._is_ours:
            self._ray.shutdown()


class RayActor:
    """An actor, see `Hand`.

    Attributes:
        asked: the answer that is waited for; None where there is none.
    """

    is_ready = False
    is_gone = False

    def __init__(self, ray: ModuleType, actor: Any, number: int, sent: dict[str, Any]) -> None:
        self._ray = ray
        self._actor = actor
        self._answer = actor.answer.options(max_task_retries=0)
        self._sent = sent
        self.name = f"actor {number + 1}"
        self.asked = actor.ready.remote()

    def give(self, key: str, work: bytes, arguments: tuple[Any, ...]) -> None:
        """See `Hand`."""
        if key not in self._sent:
            self._sent[key] = self._ray.put(work)
        self.asked = self._answer.remote(key, self._sent[key], arguments)

    def take(self) -> Answer | None:
        """See `Hand`."""
        asked, self.asked = self.asked, None
        errors = self._ray.exceptions
        try:
            answer: Answer | None = self._ray.get(asked)
        except errors.ActorDiedError as error:
            self.is_ready, self.is_gone = False, True
            raise WorkerLost(first_line(error)) from error
        except errors.RayTaskError:  # what happens to tasks comes as an answer
            raise
        except errors.RayError as error:
            self.is_ready = False
            self.asked = self._actor.ready.remote()
            raise WorkerLost(first_line(error)) from error
        self.is_ready = True
        return answer

    def end(self) -> None:
        """See `Hand`."""
        self.is_ready, self.is_gone, self.asked = False, True, None
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor, no_restart=True)


def _actor(ray: ModuleType) -> Any:
    class Actor:
        """A worker of fairmend."""

        def __init__(self, number: int, threads: int) -> None:
            # Not by Ray's runtime environments, for which it starts a process of its own each time.
            os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
            threadpool_limits(threads)  # of what is loaded already
            self._service = Service(number)

        def ready(self) -> None:
            """Answer at all."""

        def answer(self, key: str, work: bytes, arguments: tuple[Any, ...]) -> Answer:
            """Do one task."""
            return self._service.answer(key, work, arguments)

    return ray.remote(Actor)


def _imported(starts: bool) -> ModuleType:
    """Ray, told what it reads from the environment when it is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if starts and "ray" not in sys.modules:  # which turns it on by itself, from 2.60 on, where it was imported before
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if not any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # Ray would leave a file in the home folder
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"--workers ray needs Ray 2.52 or later ({error}): pip install 'fairmend[ray]', or give a number of workers"
        ) from error
    return ray


def _begin(ray: ModuleType, address: str | None) -> None:
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECTS} if address is None else {}
    try:
        ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **options)
    except Exception as error:  # as many kinds as there are reasons
        where = "cannot be started on this machine" if address is None else f"at {address} cannot be reached"
        raise RunError(
            f"a Ray cluster {where}: {first_line(error)}. Check its address, its version and RAY_AUTH_TOKEN, or give a "
            "number of workers"
        ) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray takes them for itself
