"""Independent calls, many at a time: in processes of this machine, or on the workers of a Dask cluster."""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AbstractContextManager

from irtuning.errors import InputError

logger = logging.getLogger(__name__)
CONNECT_SECONDS, WORKER_SECONDS = 10, 60  # how long a scheduler may take to answer, and a cluster to have a worker
LOOK_SECONDS = 5  # how often a cluster is asked for new workers
IDLE_SECONDS = 60  # after which a process of this machine ends
_IDLE: dict[tuple[int, str], list] = {}  # processes by threads and GPU: they import once and outlive a comparison


def outcomes(
    function: Callable, items: Sequence[tuple], *, jobs: int = 1, scheduler: str | None = None
) -> Iterator[tuple[int, object]]:
    """Call `function(*item)` for every item; yield its position and what it returned or raised, as they end.

    Args:
        function: importable where it runs; its arguments and its result travel as pickles.
        items: the arguments of each call.
        jobs: processes of this machine, each with its share of the threads and one GPU, the least busy; unless there is
            a `scheduler`.
        scheduler: address of a Dask scheduler, such as `tcp://host:8786`. Calls are handed to it as workers get free.

    A worker that dies costs its own call only, which is made once more; its outcome is an InputError after that.

    Raises:
        InputError: no such scheduler, no worker, or workers with other versions than this process.
    """
    with _Cluster(scheduler) if scheduler else _Processes(jobs) as workers:
        waiting, running, again = deque(range(len(items))), {}, set()
        while waiting or running:
            for _ in range(min(len(waiting), workers.free(len(running)))):
                position = waiting.popleft()
                running[workers.submit(function, *items[position])] = position
            ended = wait(running, LOOK_SECONDS, FIRST_COMPLETED).done
            ended = {running.pop(future): workers.outcome(future) for future in ended}  # Dask repeats what is still held
            for position, outcome in ended.items():
                if not isinstance(outcome, workers.death):
                    yield position, outcome
                    continue
                logger.warning("a worker died: %s", outcome)
                if position in again:
                    yield position, InputError("its worker died twice, perhaps for want of memory; run fewer at a time")
                else:
                    again.add(position)
                    waiting.appendleft(position)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(i) for i in range(count)]


def _outcome(future: Future) -> object:
    return future.exception() or future.result()


class _Processes(AbstractContextManager):
    """Processes of this machine, each a pool of its own: one that dies breaks no other."""

    def __init__(self, jobs: int):
        from joblib.externals.loky import BrokenProcessPool

        self.death = BrokenProcessPool, SystemExit  # killed, or told to end: a process that gets SIGTERM raises
        self.jobs, self.threads = jobs, max(1, cores() // jobs)
        self.busy: dict[Future, tuple[object, str]] = {}  # the pool and its GPU
        self.gpus = gpus() or [""]

    def free(self, running: int) -> int:
        return self.jobs - running

    def submit(self, function: Callable, *item: object) -> Future:
        from joblib.externals.loky import ProcessPoolExecutor

        taken = [gpu for _, gpu in self.busy.values()]
        gpu = min(self.gpus, key=taken.count)
        idle = _IDLE.setdefault((self.threads, gpu), [])
        process, since = idle.pop() if idle else (None, float("-inf"))
        if time.monotonic() - since > IDLE_SECONDS / 2:  # a pool whose process has ended may not notice the next one's death
            own = {"OMP_NUM_THREADS": str(self.threads), "CUDA_VISIBLE_DEVICES": gpu}
            process = ProcessPoolExecutor(1, timeout=IDLE_SECONDS, env=own)
        future = process.submit(function, *item)
        self.busy[future] = process, gpu
        return future

    def outcome(self, future: Future) -> object:
        (process, gpu), outcome = self.busy.pop(future), _outcome(future)
        if not isinstance(outcome, self.death):
            _IDLE[self.threads, gpu].append((process, time.monotonic()))
        return outcome

    def __exit__(self, *error: object) -> None:
        for process, _ in self.busy.values():  # none, unless we were interrupted
            process.shutdown(wait=False, kill_workers=True)


class _Cluster(AbstractContextManager):
    """The workers of a Dask cluster, checked as they join."""

    def __init__(self, address: str):
        try:
            from distributed import Client, KilledWorker
        except ImportError:
            raise InputError('a scheduler needs dask: pip install "irtuning[cluster]"') from None
        try:
            self.client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"no Dask scheduler answers at {address!r}: {error}; start one, or mend --scheduler") from None
        self.death, self.address, self.checked = KilledWorker, address, set()
        try:
            self.free(0)
        except InputError:
            self.client.close()
            raise
        self.tolerated = self.client.run_on_scheduler(_tolerance(0))  # the second try is ours, counted run by run
        self.pool = self.client.get_executor(pure=False, retries=0)

    def free(self, running: int) -> int:
        """One call for each worker: a second one, waiting there, would be blamed for the death of a worker too."""
        try:
            self.client.wait_for_workers(1, WORKER_SECONDS)
        except TimeoutError:
            raise InputError(
                f"the Dask scheduler at {self.address!r} has had no worker for {WORKER_SECONDS} s; start some, and see "
                "that their jobs run and reach it. Recorded runs are not run again"
            ) from None
        workers = self.client.nthreads()
        self._check(set(workers.items()) - self.checked)
        return len(workers) - running

    def submit(self, function: Callable, *item: object) -> Future:
        return self.pool.submit(function, *item)

    def outcome(self, future: Future) -> object:
        return _outcome(future)

    def __exit__(self, kind: object, error: object, where: object) -> None:
        gone = isinstance(error, (CancelledError, OSError))  # a run's own errors are outcomes: these are the connection's
        if not gone:
            self.pool.shutdown(wait=False)  # what still runs is forgotten
            self.client.run_on_scheduler(_tolerance(self.tolerated))
        self.client.close()
        if gone:
            raise InputError(
                f"the Dask scheduler at {self.address!r} is gone; recorded runs are kept: start one and repeat the command"
            ) from None

    def _check(self, joined: set[tuple[str, int]]) -> None:
        """Raise InputError for a worker that would train otherwise than this process."""
        from irtuning.training.provenance import provenance

        if not joined:
            return
        own, addresses = _versions(provenance("cpu")), [address for address, _ in joined]
        found = self.client.run(provenance, "cpu", workers=addresses, on_error="return")
        for address, threads in joined:
            if isinstance(found.get(address), (OSError, type(None))):  # gone meanwhile
                continue
            if isinstance(found[address], Exception):
                raise InputError(f"worker {address} cannot load irtuning: {found[address]!r}; install it there")
            if threads > 1:
                raise InputError(
                    f"worker {address} has {threads} threads, and runs in one process would share their random numbers; "
                    "start workers with one thread (nthreads=1, or cores equal to processes)"
                )
            theirs = _versions(found[address])
            for package in (name for name in own if own[name] != theirs.get(name)):
                raise InputError(
                    f"worker {address} has {package} {theirs.get(package)}, this process {own[package]}; install the same "
                    "there, or start it in the same environment"
                )
            self.checked.add((address, threads))


def _versions(provenance: dict) -> dict[str, str]:
    """Of each package, without the build: torch for a GPU and torch for the CPU are one version."""
    return {name: str(version).partition("+")[0] for name, version in provenance["versions"].items()}


def _tolerance(failures: int) -> Callable:
    """Set how often a scheduler repeats what its worker died of; the function travels whole, a scheduler needs no irtuning."""

    def exchange(dask_scheduler) -> int:
        before, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, failures
        return before

    return exchange
