"""The exchange between a trial and its workers: all of them train the same runs and stop after the same epoch."""

import asyncio

import pytest

from orchestrator.running.exchange import Exchange

WORKERS = 2


def run(story):
    """What the story returns; it fails where it takes longer than four minutes."""
    return asyncio.run(asyncio.wait_for(story, 240.0))


async def worker(exchange, rank, epochs, lag_s=0.0):
    """A worker of the group: for each run it has trained, (its name, the epochs that it was let train)."""
    trained, done = [], 0
    while (given := await exchange.next(rank, done)) is not None:
        count = 0
        for epoch in range(1, epochs + 1):
            await asyncio.sleep(lag_s)
            count = epoch
            if not await exchange.report(rank, {"epoch": epoch, "rank": rank}):
                break
        trained.append((given.job["name"], count))
        done = given.number
    return trained


async def trial(exchange, name, stop_after=None):
    """The trial of a run; returns what it has heard."""
    assert await exchange.give({"name": name})
    heard = []
    while (metrics := await exchange.heard()) is not None:
        heard.append(metrics)
        if metrics["epoch"] == stop_after:
            await exchange.stop()
            break
    return heard


async def group(trials, idle_s=240.0, lags=(0.0, 0.01)):
    """Several trials in one group: what they have heard, and what each worker has trained."""
    exchange = Exchange(WORKERS, idle_s)
    workers = [asyncio.create_task(worker(exchange, rank, 4, lags[rank])) for rank in range(WORKERS)]
    heard = [await trial(exchange, *each) for each in trials]
    await exchange.end()
    return heard, [await each for each in workers]


@pytest.mark.parametrize("lags", [(0.0, 0.01), (0.01, 0.0)], ids=["worker 1 is slow", "worker 0 is slow"])
def test_every_report_is_heard_once_in_order_and_a_stop_ends_the_run_in_all_workers(lags):
    heard, trained = run(group([("a",), ("b", 2), ("c", 1), ("d",)], lags=lags))
    assert [[report["epoch"] for report in run] for run in heard] == [[1, 2, 3, 4], [1, 2], [1], [1, 2, 3, 4]]
    assert all(report["rank"] == 0 for run in heard for report in run)
    assert trained == [[("a", 4), ("b", 2), ("c", 1), ("d", 4)]] * WORKERS


def test_no_worker_goes_on_before_the_trial_has_judged_its_epoch():
    async def story():
        exchange = Exchange(1, 240.0)
        await exchange.give({"name": "a"})
        assert (await exchange.next(0, 0)).job == {"name": "a"}
        asked = asyncio.create_task(exchange.report(0, {"epoch": 1}))
        assert await exchange.heard() == {"epoch": 1}
        await asyncio.sleep(0.05)
        assert not asked.done()
        over = asyncio.create_task(exchange.heard())
        assert await asked
        assert not over.done()
        waits = asyncio.create_task(exchange.next(0, 1))
        assert await over is None
        await exchange.end()
        assert await waits is None

    run(story())


def test_a_group_ends_when_all_of_its_workers_have_waited_and_then_takes_no_run():
    async def story():
        exchange = Exchange(WORKERS, 0.05)
        await exchange.give({"name": "a"})
        slow = asyncio.create_task(worker(exchange, 1, 1, lag_s=0.3))
        fast = asyncio.create_task(worker(exchange, 0, 1))
        assert await exchange.heard() == {"epoch": 1, "rank": 0}
        assert await exchange.heard() is None
        assert await slow == await fast == [("a", 1)]
        assert not await exchange.give({"name": "b"})

    run(story())
