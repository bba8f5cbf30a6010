"""Chaos: drivers, workers and the whole of Ray killed at random moments, until a study has ended all the same.

Its store is then compared with that of a study that nothing disturbed: tables, epochs, proposals, weights and MLflow.
Run: python benchmarks/chaos.py [--kills 50] [--seed 0] [--rounds arms,search,cohort,batch,group].
It works in a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from chaos_cases import CASES, write
from leftovers import differences, left

from trainer.config import UserError

ROOT = Path(__file__).parents[1]
END_S = 600.0
"""Longest wait for a study to end, or to get on."""
GIVE_UP_S = "5"
"""So long a driver hopes for the return of a Ray that died; Ray's own choice is 60."""
AGENTS_S = 120.0
"""Longest wait for what a dead driver leaves behind: Ray's agents, killed in their start, look for it for a minute."""
TRAINING_S = 30.0
"""Longest wait for the processes that write a run's folder."""
TARGETS = ("driver", "worker", "ray")
A_ROUND = 8
"""Kills of one study, at most: most of a round is the study itself."""
DAMAGE = 0.3
"""Share of kills after which a checkpoint of a run that was cut short is cut short too."""


class Chaos:
    """`transkd run` on one store, killed and started again until it ends by itself."""

    def __init__(self, store: Path, command: list[str], seed: int) -> None:
        self.store = store
        self.command = command
        self.random = random.Random(seed)
        self.said: list[str] = []
        self.kills: Counter[str] = Counter()
        self.damaged = 0

    def start(self, command: list[str] | None = None) -> subprocess.Popen[bytes]:
        """A driver, or another program with its environment; what it says is kept in a file beside the store."""
        self.store.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            return subprocess.Popen(
                command or self.command, env=self.env, cwd=self.store.parent, stdout=out, stderr=out
            )

    @property
    def env(self) -> dict[str, str]:
        """The environment of a driver, by which its processes are found."""
        unset = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        ours = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TRANSKD_STORE": str(self.store)}
        return {**kept, **ours, "RAY_gcs_rpc_server_reconnect_timeout_s": GIVE_UP_S}

    @property
    def log(self) -> Path:
        return self.store.parent / f"{self.store.name}.log"

    def undisturbed(self) -> int:
        """Run to the end; the driver's exit code."""
        return self._end(self.start())

    def disturbed(self, targets: list[str]) -> int:
        """Kill one after the other at random moments, starting again what died; the last driver's exit code."""
        driver = self.start()
        try:
            for target in targets:
                struck = ""
                while not struck and self._wait(driver):
                    struck = self._strike(driver, target)
                if not struck:
                    self.said.append(f"{target}: the study had ended")
                    break
                self.kills[target] += 1
                self.said.append(f"{target} at epoch {self._epochs()}: {struck}")
                if target != "worker":
                    died = time.monotonic()
                    self._end(driver)
                    self.said[-1] += f" (driver gone after {time.monotonic() - died:.0f} s)"
                    self._damage()
                    driver = self.start()
            return self._end(driver)
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()

    def processes(self) -> dict[int, str]:
        """Living processes of this store's drivers, with their command lines: they inherit the environment."""
        mark = f"TRANSKD_STORE={self.store}\0".encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes() + b"\0":
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        return found

    def clear(self) -> dict[int, str]:
        """End what is left two minutes after the last driver, and say what it was."""
        left = self._alone(AGENTS_S)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left

    def _alone(self, seconds: float) -> dict[int, str]:
        """Wait for what a dead driver leaves behind to end, so long at most; what is left then."""
        end = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.2)
        return left

    def _wait(self, driver: subprocess.Popen[bytes]) -> bool:
        """Let it work for a while: seconds of its start, or some epochs. False where it has ended by then."""
        early = self.random.random() < 0.2
        pause = self.random.uniform(0.5, 10.0) if early else self.random.uniform(0.0, 1.0)
        goal = self._epochs() + (0 if early else self.random.randint(1, 4))
        end = time.monotonic() + END_S
        while self._epochs() < goal and driver.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(timeout=pause)
        return driver.poll() is None

    def _strike(self, driver: subprocess.Popen[bytes], target: str) -> str:
        """SIGKILL the target; what it was, "" where there was none at that moment."""
        others = {pid: line for pid, line in self.processes().items() if pid != driver.pid}
        if target == "driver":
            victims = {driver.pid: "driver"}
        elif target == "worker":
            busy = training(others)
            trains = {pid: line for pid, line in busy.items() if "RayTrainWorker" in line}
            # of a group, half the time a worker, else any of the actors that hold it together
            chosen = trains if trains and self.random.random() < 0.5 else busy
            victims = dict([self.random.choice(sorted(chosen.items()))]) if busy else {}
        else:
            victims = others
        return kill(victims)

    def _end(self, driver: subprocess.Popen[bytes]) -> int:
        try:
            return driver.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            driver.kill()
            raise UserError(f"the driver did not end in {END_S:.0f} s; see {self.log}") from None

    def _damage(self) -> None:
        """Now and then, cut short the last checkpoint of a run, as a machine that loses its power may."""
        if self.random.random() >= DAMAGE:
            return
        self._alone(TRAINING_S)
        runs = sorted(self.store.glob("runs/*/last.pt"))
        open_ = [path for path in runs if not (path.parent / "result.json").exists()]
        if open_:
            path = self.random.choice(open_)
            length = int(path.stat().st_size * self.random.random() ** 3)  # often almost nothing is left
            path.write_bytes(path.read_bytes()[:length])
            self.damaged += 1
            self.said.append(f"{path.relative_to(self.store)} cut to {length} bytes")

    def _epochs(self) -> int:
        return sum(path.read_bytes().count(b"\n") for path in self.store.glob("runs/*/epochs.jsonl"))


def training(processes: dict[int, str]) -> dict[int, str]:
    """Those in which actors of Ray live."""
    of_ray = {pid: line for pid, line in processes.items() if "ray::" in line and "Agent" not in line}
    return {pid: line for pid, line in of_ray.items() if "IDLE" not in line}


def kill(victims: dict[int, str]) -> str:
    """SIGKILL processes, by id; what they were, by their command lines."""
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return ", ".join(sorted({line.split()[0].rpartition("/")[2] for line in victims.values()}))


def main() -> None:
    """Round after round, until there were as many kills as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", default=",".join(CASES), help="studies to take in turn")
    options = parser.parse_args()
    names = options.rounds.split(",")
    kills: Counter[str] = Counter()
    faults, damaged, number = 0, 0, 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        folder = Path(scratch)
        calm = {}
        for name in names:
            chaos = Chaos(folder / f"{name}_calm" / "store", write(CASES[name], name, folder, calm=True), 0)
            started = time.monotonic()
            assert chaos.undisturbed() == 0, chaos.log.read_text()
            calm[name] = left(chaos.store)
            print(f"{name}: undisturbed in {time.monotonic() - started:.0f} s", flush=True)
            chaos.clear()
        while sum(kills.values()) < options.kills:
            name, seed = names[number % len(names)], options.seed * 10_000 + number
            number += 1
            targets = random.Random(seed).choices(TARGETS, k=min(A_ROUND, options.kills - sum(kills.values())))
            chaos = Chaos(folder / f"{name}_{seed}" / "store", write(CASES[name], name, folder), seed)
            started = time.monotonic()
            code = chaos.disturbed(targets)
            kills += chaos.kills
            damaged += chaos.damaged
            wrong = [f"exit code {code}: {chaos.log.read_text()[-2000:]}"] if code else []
            try:
                wrong += differences(left(chaos.store), calm[name])
            except UserError as error:
                wrong.append(str(error))
            wrong += [f"still there: {line}" for line in chaos.clear().values()]
            faults += bool(wrong)
            print(f"{name}, seed {seed}: {time.monotonic() - started:.0f} s, {'; '.join(chaos.said)}", flush=True)
            for line in wrong:
                print(f"  WRONG: {line}", flush=True)
    parts = ", ".join(f"{count} of {target}" for target, count in sorted(kills.items()))
    print(f"{sum(kills.values())} kills ({parts}), {damaged} checkpoints cut short, {number} studies, {faults} wrong")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
