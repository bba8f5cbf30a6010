"""Chaos on a cluster that three drivers share: drivers, workers and the cluster itself killed at random moments.

Three studies need one teacher, and the runs of the third are those of the other two. They run at once on one store and
one Ray head. The store is then compared with that of studies that nothing disturbed, as chaos.py does.
Run: python benchmarks/chaos_together.py [--kills 200] [--minutes 10] [--seed 0]. It works in a temporary folder.
"""

from __future__ import annotations

import argparse
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chaos import END_S, Chaos, kill, training
from chaos_cases import BASE, Case, write
from leftovers import differences, left

from trainer.config import UserError

TARGETS = ("driver", "driver", "worker", "worker", "cluster")
A_ROUND = 20
"""Kills of the studies of one store, at most."""
CPUS = 2
ALONE, BOTH, CSF, PEA = ({"distill": paths} for paths in ({}, {"csf": {}, "pea": {}}, {"csf": {}}, {"pea": {}}))
VARIANTS: dict[str, dict[str, Any]] = {
    "one": {"student alone": ALONE, "TransKD-Base": BOTH},
    "two": {"csf": CSF, "pea": PEA},
    "three": {"student alone": ALONE, "csf": CSF},
}


class Together(Chaos):
    """Three drivers and the Ray head that they share, each killed and started again until all have ended."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder / "store", [], seed)
        folder.mkdir()
        # Ray's sockets lie here, and a Unix socket's path ends at 107 characters
        self.ray_folder = Path(tempfile.mkdtemp(prefix="ray-"))
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            self.port = server.getsockname()[1]
        spec = {"address": f"127.0.0.1:{self.port}", "cohort": "off"}
        self.commands = {
            name: write(Case({"base": BASE, "variants": variants, "seeds": [0, 1]}, spec), name, folder)
            for name, variants in VARIANTS.items()
        }
        self.drivers: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def env(self) -> dict[str, str]:
        """The environment of the head too, which is of this store alone."""
        return {**super().env, "RAY_AUTH_MODE": "disabled"}

    def run(self, targets: list[str]) -> list[str]:
        """Kill one after the other, start again what died, and wait for the end; what went wrong."""
        try:
            self._start_all()
            for target in targets:
                if not self._wait_for_a_moment():
                    break
                self._kill(target)
            return [f"exit code {code} of {name}" for name, code in self._ends().items() if code]
        finally:
            kill(dict.fromkeys((each.pid for each in self.drivers.values() if each.poll() is None), "driver"))
            kill(self.processes())
            shutil.rmtree(self.ray_folder, ignore_errors=True)

    def _start_all(self) -> None:
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--num-cpus={CPUS}"),
            *("--node-ip-address=127.0.0.1", f"--port={self.port}", "--include-dashboard=false"),
            *(f"--object-store-memory={100 * 2**20}", f"--temp-dir={self.ray_folder}"),
        ]
        up = self._heads()
        head = self.start(command)
        end = time.monotonic() + END_S
        while self._heads() == up:
            if head.poll() is not None or time.monotonic() > end:
                raise UserError(f"Ray did not start; see {self.log}")
            time.sleep(0.2)
        for name, command in self.commands.items():
            if name not in self.drivers or self.drivers[name].returncode:
                self.drivers[name] = self.start(command)

    def _heads(self) -> int:
        """How many heads have said that they are up."""
        return self.log.read_bytes().count(b"Ray runtime started") if self.log.exists() else 0

    def _alive(self) -> dict[str, subprocess.Popen[bytes]]:
        return {name: driver for name, driver in self.drivers.items() if driver.poll() is None}

    def _wait_for_a_moment(self) -> bool:
        """Let them work for seconds, or for some epochs. False where all have ended by then."""
        early = self.random.random() < 0.3
        goal = self._epochs() + (0 if early else self.random.randint(1, 3))
        end = time.monotonic() + END_S
        while self._epochs() < goal and self._alive() and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(self.random.uniform(0.0, 6.0 if early else 1.0))
        return bool(self._alive())

    def _kill(self, target: str) -> None:
        drivers = self._alive()
        ours = {driver.pid for driver in self.drivers.values()}
        others = {pid: line for pid, line in self.processes().items() if pid not in ours}
        if target == "driver":
            name = self.random.choice(sorted(drivers))
            kill({drivers[name].pid: name})
            drivers[name].wait()
            self.drivers[name] = self.start(self.commands[name])
            self.said.append(f"driver of {name}")
        elif target == "worker":
            busy = sorted(training(others).items())
            if not busy:
                return
            self.said.append(kill(dict([self.random.choice(busy)])))
        else:
            kill(others)
            for driver in drivers.values():
                self._end(driver)
            self.said.append("cluster")
            self._start_all()
        self.kills[target] += 1

    def _ends(self) -> dict[str, int]:
        return {name: self._end(driver) for name, driver in self.drivers.items()}


def main() -> None:
    """Round after round, until there were as many kills as asked for, or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no round begins after so many")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun = time.monotonic()
    kills: Counter[str] = Counter()
    faults = number = 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        undisturbed = Together(Path(scratch) / "calm", 0)
        assert undisturbed.run([]) == [], undisturbed.log.read_text()
        calm = left(undisturbed.store)
        print(f"undisturbed in {time.monotonic() - begun:.0f} s, {len(calm.runs)} runs", flush=True)
        while sum(kills.values()) < options.kills and time.monotonic() - begun < 60 * options.minutes:
            seed, started = options.seed * 10_000 + number, time.monotonic()
            number += 1
            targets = random.Random(seed).choices(TARGETS, k=min(A_ROUND, options.kills - sum(kills.values())))
            together = Together(Path(scratch) / str(seed), seed)
            wrong = together.run(targets)
            if wrong:
                wrong.append(together.log.read_text(encoding="utf-8", errors="replace")[-3000:])
            try:
                wrong += differences(left(together.store), calm)
            except UserError as error:
                wrong.append(str(error))
            kills += together.kills
            faults += bool(wrong)
            print(f"seed {seed}: {time.monotonic() - started:.0f} s, {'; '.join(together.said)}", flush=True)
            for line in wrong:
                print(f"  WRONG: {line}", flush=True)
    parts = ", ".join(f"{count} of {target}" for target, count in sorted(kills.items()))
    minutes = (time.monotonic() - begun) / 60
    print(f"{sum(kills.values())} kills ({parts}), {number} rounds, {faults} wrong, {minutes:.0f} minutes")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
