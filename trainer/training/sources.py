"""SourceReader: the content of what runs read, data and weights, each opened once, and the run ids that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from trainer.config import NUMERICS_VERSION, RunIds, Sources, TrainConfig, data_key, digest, weight_names
from trainer.data import silent
from trainer.files.file_digest import file_digest
from trainer.place import Place
from trainer.training.build import open_data
from trainer.training.networks import teacher_source


class SourceReader:
    """Reads the sources of configs, as they come. `place_of` says where the data of a config lies.

    A data section is opened and verified once for each global batch and list of protocols, whatever the number of runs.
    """

    def __init__(self, place_of: Callable[[TrainConfig], Place]) -> None:
        self.place_of = place_of
        self.sources = Sources(NUMERICS_VERSION)
        self._ids = RunIds(self.sources)
        self._opened: set[str] = set()
        self._seen: dict[tuple[int, ...], TrainConfig] = {}  # by the identity of parts that runs of an arm share

    def read(self, configs: Iterable[TrainConfig], say: Callable[[str], None] = silent) -> Sources:
        """The sources of these configs, and of all before them; `say` is told how far packing the data is. Raises
        UserError naming the first file that is wrong, and where the data cannot fill a batch."""
        for config in configs:
            parts = (id(config.data), id(config.optim), id(config.student), id(config.teacher))
            if parts not in self._seen:
                self._seen[parts] = config
                self._read(config, say)
        return self.sources

    def run_id(self, config: TrainConfig, key: str = "", teacher: TrainConfig | str | None = None) -> str:
        """The id of a config's run; `key` and `teacher` as of `RunIds.of`. Raises UserError as `read`."""
        given = isinstance(teacher, str)  # then the run does not read the files that the config names for its teacher
        self.read([config.model_copy(update={"teacher": None}) if given else config])
        found = self._ids.of(config, key, teacher)
        assert found is not None, "sources that were read leave nothing open"
        return found

    def _read(self, config: TrainConfig, say: Callable[[str], None]) -> None:
        data, weights = dict(self.sources.data), dict(self.sources.weights)
        section = digest(
            [config.data.model_dump(mode="json"), config.optim.global_batch, config.eval.protocols, config.eval.splits]
        )
        if section not in self._opened:
            found = open_data(config, self.place_of(config), say)
            data[data_key(config.data, config.eval.splits)] = tuple(found.fingerprints.values())
            self._opened.add(section)
        for name in weight_names(config):
            weights[name] = weights.get(name) or file_digest(Path(name))
        if (data, weights) != (self.sources.data, self.sources.weights):
            self.sources = Sources(NUMERICS_VERSION, data, weights)
            self._ids = RunIds(self.sources)


def run_id(config: TrainConfig, place: Place) -> str:
    """The id of a config's run on the data, weights and teacher of `place`. Packs the data unless it already is."""
    return SourceReader(lambda _: place).run_id(config, teacher=teacher_source(config, place))
