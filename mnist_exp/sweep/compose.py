"""Composes the config of each job in a millisecond instead of Hydra's 45.

Jobs that choose the same options of all groups differ only in values. So Hydra composes once for each set of
choices, and the values are put into a copy. Anything unusual goes to Hydra itself.
"""

import copy
from collections.abc import Sequence
from typing import Any, final

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


@final
class Composer:
    """Composes jobs of one sweep.

    Args:
        loader: Hydra's config loader.
        master: The config of the multirun itself.
    """

    def __init__(self, loader: Any, master: DictConfig) -> None:
        self.loader, self.master = loader, master
        self.parser = OverridesParser.create(config_loader=loader)
        self.bases: dict[tuple[str, ...], DictConfig] = {}

    def job(self, overrides: Sequence[str]) -> DictConfig:
        """The whole config of the job with *overrides*, as Hydra's `load_sweep_config` gives it.

        Raises:
            HydraException, OmegaConfBaseException: an override does not fit, in Hydra's words.
        """
        parsed = self.parser.parse_overrides(list(overrides))
        values = [o for o in parsed if self._sets_value(o)]
        if any(o not in values and not self._chooses(o) for o in parsed):
            return self._by_hydra(overrides)
        choices = tuple(str(o.input_line) for o in parsed if o not in values)
        if choices not in self.bases:
            self.bases[choices] = self._by_hydra(choices)
        job = copy.deepcopy(self.bases[choices])
        try:
            for override in values:
                OmegaConf.update(job, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            return self._by_hydra(overrides)  # for its message
        task = [o for o in parsed if not o.is_hydra_override()]
        job.hydra.overrides.task = [o.input_line for o in task]
        job.hydra.overrides.hydra += [o.input_line for o in values if o.is_hydra_override()]
        how = job.hydra.job.config.override_dirname
        job.hydra.job.override_dirname = get_overrides_dirname(task, how.exclude_keys, how.item_sep, how.kv_sep)
        return job

    def _by_hydra(self, overrides: Sequence[str]) -> DictConfig:
        job: DictConfig = self.loader.load_sweep_config(self.master, list(overrides))
        return job

    def _chooses(self, override: Override) -> bool:
        """Whether *override* chooses an option of a group, in the plain way."""
        return not self._unusual(override) and self.loader.repository.group_exists(override.key_or_group)

    def _sets_value(self, override: Override) -> bool:
        """Whether *override* changes the value of a key, in the plain way."""
        return not self._unusual(override) and not self.loader.repository.group_exists(override.key_or_group)

    def _unusual(self, override: Override) -> bool:
        o = override
        return bool(o.is_add() or o.is_delete() or o.is_force_add() or o.package or o.is_sweep_override())
