"""A cluster whose machines do not share the store is refused before a run trains where nobody looks for it."""

import json
import re

import pytest

from orchestrator.running.machines.shared_store import answer_in

ASKING = """
import json, sys
from pathlib import Path
import ray
from cluster.spec import ClusterSpec
from orchestrator.running.machines.nodes_alike import check_alike
from orchestrator.running.machines.shared_store import check_shared
from orchestrator.store.folder import Store
from trainer.config import UserError

store = Store(Path(sys.argv[1]))
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
nodes = ray.nodes()
check_shared(store, nodes)
silent = {"NodeID": "ab" * 28, "NodeManagerAddress": "10.9.8.7"}
try:
    check_shared(store, [*nodes, silent])
except UserError as error:
    print(json.dumps(str(error)))

images = store.root / "images"
images.mkdir()
(images / "one.png").touch()
spec, said = ClusterSpec(data_roots={"camvid": str(images)}), []
check_alike(spec, store, nodes, said.append)
(images / "one.png").unlink()
check_alike(spec, store, nodes, said.append)  # within a day a machine is not asked again
(store.cache / "machines.json").unlink()
try:
    check_alike(spec, store, nodes, said.append)
except UserError as error:
    print(json.dumps([*said, str(error)]))
"""


@pytest.mark.slow
@pytest.mark.ray
def test_every_machine_is_asked_and_one_that_does_not_answer_is_named(driver):
    done = driver.script(ASKING, driver.store)
    assert done.code == 0, done.err
    shared, alike = map(json.loads, done.out.splitlines()[-2:])
    assert alike[:-1] == ["comparing the machines"] * 2
    assert re.fullmatch(rf"[0-9.]+: no file of camvid in {driver.store}/images; mount it there, or .*", alike[-1])
    assert shared == (
        f"all machines must see store {driver.store}, but 10.9.8.7 of 2 do not; "
        "name a folder that all of them mount with --store"
    )
    assert not list((driver.store / "seen").iterdir())


def test_an_answer_needs_the_drivers_word(tmp_path):
    answer_in(str(tmp_path), "node")
    assert not list(tmp_path.iterdir())
    (tmp_path / "driver").write_text("here")
    answer_in(str(tmp_path), "node")
    assert (tmp_path / "node").exists()
