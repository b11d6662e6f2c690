"""Parallel execution of independent calls, in processes of this machine or on the workers of a Dask cluster."""

import gc
import logging
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import contextmanager

from joblib import cpu_count as cores
from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor, process_executor

from irtuning.errors import InputError
from irtuning.training.record import versions

CONNECT_SECONDS, WORKER_SECONDS, LOOK_SECONDS = 5, 60, 5  # for a scheduler, its first worker, and new workers


def outcomes(function: Callable, items: Sequence[tuple], *, workers: int = 1,
             scheduler: str | None = None) -> Iterator[tuple[int, object]]:  # fmt: skip
    """Call `function(*item)` for every item and yield (index, result or exception) as the calls end.

    The caller may append items as long as outcomes are yielded. The calls are made in `workers` processes of this
    machine, which share its threads and GPUs, or by the workers of a Dask scheduler such as `tcp://host:8786`. If a
    process dies, its call is repeated once, then the outcome is an InputError; by Dask thrice, then a KilledWorker.
    InputError is raised if the scheduler does not answer, it has no worker, or a worker differs from this process.
    """
    with _cluster(scheduler) if scheduler else _processes(workers) as (free, submit, death):
        waiting, calls, repeated, known = deque(), {}, set(), 0
        while waiting or calls or known < len(items):
            waiting.extend(range(known, known := len(items)))
            for _ in range(min(len(waiting), free(len(calls)))):
                index = waiting.popleft()
                calls[submit(function, *items[index])] = index
            # futures are not kept, because Dask repeats a call if the worker with its result is lost
            ended = {calls.pop(f): f.exception() or f.result() for f in wait(calls, LOOK_SECONDS, FIRST_COMPLETED).done}
            for index, outcome in ended.items():
                if not isinstance(outcome, death):
                    yield index, outcome
                elif index in repeated:
                    yield index, InputError("its worker died twice, perhaps out of memory; run fewer at a time")
                else:
                    logging.getLogger(__name__).warning("a worker died and its call is repeated: %s", outcome)
                    repeated.add(index)
                    waiting.appendleft(index)


def gpus() -> list[str]:
    """Return the GPUs that this process may use, in the notation of CUDA_VISIBLE_DEVICES."""
    import torch
    visible, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(i) for i in range(count)]


@contextmanager
def _processes(count: int) -> Iterator[tuple]:
    """Yield functions for local processes to `outcomes`. Each is a pool of its own, so that no death breaks others."""
    threads, visible, death = max(1, cores() // count), gpus() or [""], (BrokenProcessPool, SystemExit)  # after SIGTERM
    idle, busy = [], {}  # (pool, GPU), and those of each call
    def begin() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for us
        process_executor._MAX_MEMORY_LEAK_SIZE = 3e9  # at 0.3 GB, loky would end a process with all that it compiled
    def free(running: int) -> int:
        """Return how many more calls may start. Pools of finished calls are idle again, unless they died."""
        for future in [future for future in busy if future.done()]:
            pool, gpu = busy.pop(future)
            if not isinstance(future.exception(), death):
                idle.append((pool, gpu))
        return count - running
    def submit(function: Callable, *item: object) -> Future:
        """Call a function in an idle pool, or in a new one on the GPU with the fewest calls."""
        if not idle:
            gpu = min(visible, key=[gpu for _, gpu in busy.values()].count)
            environment = {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": gpu}
            idle.append((ProcessPoolExecutor(1, env=environment, initializer=begin), gpu))
        pool, gpu = idle.pop()
        future = pool.submit(function, *item)
        busy[future] = pool, gpu
        return future
    try:
        yield free, submit, death
    finally:
        free(0)
        for pool, _ in (*idle, *busy.values()):  # some calls still run after an interruption
            pool.shutdown(wait=False, kill_workers=bool(busy))


@contextmanager
def _cluster(address: str) -> Iterator[tuple]:
    """Yield functions for a Dask cluster to `outcomes`. The workers that are there at the start are checked."""
    problem = None
    try:
        from distributed import Client
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except ImportError:
        raise InputError('a scheduler needs Dask; install it with pip install "irtuning[cluster]"') from None
    except (OSError, ValueError, MemoryError) as error:  # of another service it reads a length that no memory has
        problem = str(error)
    if problem is not None:
        gc.collect()  # a failed Client that is collected later, while another one starts, would wait for ever
        raise InputError(f"no Dask scheduler answers at {address!r}: {problem}; start one or correct it")
    def free(running: int) -> int:  # one call per worker, since Dask blames a death on all calls of the worker
        client.wait_for_workers(1, WORKER_SECONDS)
        if max((threads := client.nthreads()).values(), default=1) > 1:
            raise InputError("a worker has several threads, which share random numbers; use --nthreads 1")
        return len(threads) - running
    try:
        free(0)
        here = versions()
        for worker, has in client.run(versions, on_error="return").items():  # or the error, if it lacks irtuning
            if len({re.sub(r"\+[\w.]+", "", str(of)) for of in (has, here)}) > 1:  # builds for GPU and CPU are equal
                raise InputError(f"worker {worker} has {has!r}, this process has {here}; install the same there")
        yield free, client.get_executor(pure=False, retries=0).submit, ()  # Dask itself repeats calls of dead workers
    except TimeoutError:
        raise InputError(f"{address!r} has had no worker for {WORKER_SECONDS} s; start workers") from None
    except (CancelledError, OSError):  # the connection failed; the error of a call is an outcome
        raise InputError(f"the scheduler {address!r} is gone; start one and repeat; recorded runs are kept") from None
    finally:
        client.close()
