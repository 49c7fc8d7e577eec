"""SIGKILL to an apply or a recovery at random moments: the host is then as before, or as planned, never in between.

Real servers. `pytest --soak` kills 200 times on each xenstored; else it is six.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.crashes import Crasher
from tests.scenes import TEN, Scene, scene, split_scene
from tests.test_apply import SERVERS, bench, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.crashes import Way

__all__ = ["bench"]  # a fixture

_LOOKING = 0.1  # how often an apply is killed before its first action


@pytest.mark.parametrize("bench", SERVERS, indirect=True)
def test_one_qemu(bench: Any, tmp_path: Path, request: pytest.FixtureRequest, say: Callable[[str], None]) -> None:
    @asynccontextmanager
    async def ten() -> AsyncIterator[tuple[Scene, Path]]:
        async with scene(bench, tmp_path / "state") as host:
            yield host, TEN

    killed_at_random_moments(ten(), request, say)


@pytest.mark.parametrize("server", SERVERS)
def test_several_device_models(
    server: str, tmp_path: Path, request: pytest.FixtureRequest, say: Callable[[str], None]
) -> None:
    """Two QEMUs, which are worked on at once, and a xenstored."""

    @asynccontextmanager
    async def split() -> AsyncIterator[tuple[Scene, Path]]:
        async with split_scene(server, tmp_path) as (host, document, _):
            yield host, document

    killed_at_random_moments(split(), request, say)


def killed_at_random_moments(
    scene: AbstractAsyncContextManager[tuple[Scene, Path]], request: pytest.FixtureRequest, say: Callable[[str], None]
) -> None:
    """SIGKILL to an apply of a document, and to each second recovery from it."""
    kills = 200 if request.config.getoption("--soak") else 6
    chance = random.Random(request.node.name)
    what = ("killed", "killed while looking", "recoveries killed", "had finished", "as before", "as planned")
    counted = dict.fromkeys(what, 0)

    async def scenario() -> None:
        async with scene as (host, document), Crasher() as crasher:
            pace = await crasher.run(host.bench, "apply", document)
            assert pace.code == 0, pace
            await host.reset()
            while counted["killed"] < kills:
                looking = chance.random() < _LOOKING
                after_s = chance.random() * (pace.looked_s if looking else pace.acted_s)
                ended = await crasher.run(host.bench, "apply", document, after_s=after_s, acting=not looking)
                assert ended.code in (0, -9), ended
                counted["killed" if ended.code == -9 else "had finished"] += 1
                counted["killed while looking"] += ended.code == -9 and looking
                way: Way = chance.choice(("rollback", "resume"))
                if chance.random() < 0.5:
                    after_s = chance.uniform(0, 0.5) * pace.acted_s
                    again = await crasher.run(host.bench, way, after_s=after_s, acting=True)
                    counted["recoveries killed"] += again.code == -9
                    assert again.code in (0, -9), again
                recovered = await host.recover(resume=way == "resume")
                looks = await host.looks()
                assert looks in (host.old, host.new), (after_s, way, recovered)
                if recovered:  # a journal of which nothing was begun is as before, whatever was asked for
                    assert looks == (host.new if recovered[0].result == "finished" else host.old)
                counted["as planned" if looks == host.new else "as before"] += 1
                assert not [name for name in host.left() if name.endswith(".journal")]
                if looks == host.new:
                    await host.reset()
            assert (await crasher.run(host.bench, "apply", document)).code == 0
            assert host.left() == []  # nor the lock and the unfinished journal of one that was killed

    run(scenario())
    say(f"{request.node.name}: {', '.join(f'{number} {what}' for what, number in counted.items())}, 0 in between")
