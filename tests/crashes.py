"""Applies and recoveries in processes of their own, which SIGKILL ends at a step or after some time.

One process imports everything and forks for each job, so that a job begins in a millisecond:

    async with Crasher() as crasher:
        ended = await crasher.run(bench, "apply", FIXTURES / "hosts/ten.xml", die=(3, "after"))
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import translator
import translator.live.apply
import translator.saga.recover
from translator.errors import HostError
from translator.live.performer import Performer
from translator.saga.state import State

if TYPE_CHECKING:
    from pathlib import Path

    from tests.test_apply import Bench
    from translator.planning.plan import Action

Way = Literal["apply", "rollback", "resume"]
When = Literal["before", "after"]  # an action, counted from 0, takes effect


class Ended(NamedTuple):
    """How a job ended: its exit code, or minus the signal's number; how long it looked and acted; what it said."""

    code: int
    looked_s: float
    acted_s: float
    said: str


class Crasher:
    """Runs jobs; an asynchronous context manager."""

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.crashes"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def run(
        self,
        bench: Bench,
        way: Way,
        document: Path | None = None,
        *,
        domid: int | None = 8,
        die: tuple[int, When] | None = None,
        after_s: float | None = None,
        acting: bool = False,
        prune: bool = False,
    ) -> Ended:
        """Run a job and return how it ended.

        Args:
            domid: whose domain the document is.
            die: at which of its actions it ends itself.
            after_s: seconds after which it is ended: from its beginning, or with `acting` from its first action.
            prune: whether an apply removes what the document does not name.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        host = {
            "xenstore": bench.xenstore,
            "qmp": bench.monitors,
            "sysfs": str(bench.sysfs),
            "state": str(bench.state),
        }
        job = {
            "way": way,
            "host": host,
            "document": str(document),
            "domid": domid,
            "die": die,
            "after_s": after_s,
            "acting": acting,
            "prune": prune,
        }
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        return Ended(**json.loads(await self._process.stdout.readline()))


class _Mortal(Performer):
    die: tuple[int, When] | None = None
    acts = -1  # where it is told that it acts
    count = 0

    async def perform(self, action: Action, device_model: str | None) -> None:
        number, _Mortal.count = _Mortal.count, _Mortal.count + 1
        os.write(self.acts, b".")
        if self.die == (number, "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        await super().perform(action, device_model)
        if self.die == (number, "after"):
            os.kill(os.getpid(), signal.SIGKILL)


async def _work(job: dict[str, Any]) -> None:
    _Mortal.die = job["die"] and (job["die"][0], job["die"][1])
    translator.live.apply.Performer = translator.saga.recover.Performer = _Mortal  # type: ignore[attr-defined]  # as imported
    if job["way"] == "apply":
        plan = translator.plan(translator.load(job["document"]), domid=job["domid"])
        async with translator.Host(**job["host"], timeout_s=5) as host:
            await host.apply(plan, prune=job["prune"])
        return
    state = job["host"]["state"]
    for found in State(state).journals():
        await translator.saga.recover.recover(state, found, resume=job["way"] == "resume")


def _child(job: dict[str, Any], said: int) -> None:
    code = 0
    try:
        asyncio.run(_work(job))
    except HostError as error:
        os.write(said, str(error).encode())
        code = 4
    except BaseException as error:
        os.write(said, repr(error).encode())
        code = 70
    finally:
        os._exit(code)


def _run(job: dict[str, Any]) -> Ended:
    reading, writing = os.pipe()
    acts, _Mortal.acts = os.pipe()
    began = acted = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(job, writing)
    os.close(writing)
    os.close(_Mortal.acts)
    if job["after_s"] is None or job["acting"]:
        os.read(acts, 1)  # or it has ended
        acted = time.monotonic()
    if job["after_s"] is not None:
        time.sleep(job["after_s"])
        os.kill(pid, signal.SIGKILL)  # not waited for yet, so the id is still its own
    _, status = os.waitpid(pid, 0)
    os.close(acts)
    ended = time.monotonic()
    with open(reading, "rb") as said:
        return Ended(os.waitstatus_to_exitcode(status), acted - began, ended - acted, said.read().decode())


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))._asdict()), flush=True)
