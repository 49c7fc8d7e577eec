"""Work on a cluster: whoever answers at a dask.distributed scheduler's address works as processes of one's own would.

What is sent is the name of a function and bytes, which a worker opens only if it is the same translator. A worker
that dies loses nothing: the scheduler gives what it had to another one, and each result comes once.
"""

from __future__ import annotations

import pickle
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from translator.errors import HostError
from translator.fleet.build import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor, Future

    from distributed import Client

TIMEOUT_S = 10.0  # for an answer of the scheduler
_ASK_AGAIN_S = 5.0  # workers come and go


class MissingExtraError(ImportError):
    """What is needed for a cluster is not installed; the message says what to install."""


class WorkersLostError(Exception):
    """One worker after the other has died of the same work; the message says which was the last."""


class Cluster:
    """The workers of one scheduler."""

    def __init__(self, client: Client, executor: Executor) -> None:
        self._client = client
        self._executor = executor
        self._most = 0
        self._ask = 0.0

    def most(self) -> int:
        """Return how many pieces of work keep all workers busy, those included that are on the way."""
        if time.monotonic() >= self._ask:
            self._most = 2 * sum(self._client.nthreads().values()) + 2
            self._ask = time.monotonic() + _ASK_AGAIN_S
        return self._most

    def has_workers(self) -> bool:
        """Tell whether there is a worker now."""
        return bool(self._client.nthreads())

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a worker call a function of a module, with arguments that can be pickled."""
        return self._executor.submit(_work, build(), pickle.dumps((function, args)))

    def result(self, future: Future[Any]) -> Any:
        """Return what the function returned, or raise what it raised.

        Raises:
            WorkersLostError: it takes workers with it.
            HostError: T521, a worker has another translator, or none; T523, the scheduler is gone.
        """
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            raise WorkersLostError(error.last_worker.address) from error
        except CancelledError as error:
            message = "the scheduler is gone, with what its workers were doing"
            raise HostError("T523", message, "with --since STATE, the next run goes on from here") from error
        except (ImportError, AttributeError) as error:
            raise HostError("T521", f"a worker has no translator that works: {error}", _SAME) from error


_SAME = "install the same translator for the scheduler, the workers and here"


@contextmanager
def cluster(address: str) -> Iterator[Cluster]:
    """Yield what a scheduler's workers are, for as long as they are needed.

    Args:
        address: as dask spells it, such as tcp://10.0.0.1:8786; for tls:// its configuration has the keys.

    Raises:
        MissingExtraError: dask.distributed is not installed.
        HostError: T520, no scheduler answers there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtraError("dask.distributed is missing: pip install 'translator[fleet]'") from error
    try:
        client = Client(address, timeout=TIMEOUT_S, set_as_default=False, name="translator")
    except (OSError, ValueError, TimeoutError) as error:
        message = f"no scheduler answers at {address}: {str(error).partition(chr(10))[0] or type(error).__name__}"
        raise HostError("T520", message, "it is what `dask scheduler` prints, such as tcp://10.0.0.1:8786") from error
    try:
        yield Cluster(client, client.get_executor(pure=False))
    finally:
        client.close()


def _work(sent_by: str, work: bytes) -> Any:
    """Do what was sent, on a worker."""
    if sent_by != build():
        message = f"a worker has another translator, {build()}, and this one is {sent_by}"
        raise HostError("T521", message, _SAME)
    function, args = pickle.loads(work)
    return function(*args)
