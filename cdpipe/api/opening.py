"""A run of a configuration file, to call the other functions with."""

from collections.abc import Sequence
from pathlib import Path

from cdpipe.api.answer import without_labels
from cdpipe.config.load import load_config
from cdpipe.config.schema import Config
from cdpipe.runs.ensembles import adopt_options
from cdpipe.runs.run import Progress, Run, ignore


def open_run(
    config: str | Path | Config,
    *,
    overrides: Sequence[str] = (),
    progress: Progress = ignore,
    wait: bool = False,
) -> Run:
    """Open a run: nothing is read but its configuration, its catalog and the ensemble it may name, nothing written.

    Where no pair of the catalog has a label and no model is named, detectors that need no training predict.

    Args:
        config: A configuration file, or what was read from one.
        overrides: Keys to override, each as ``key=value``, such as ``predict.threshold=0.4``.
        progress: Called with how far the work is (:class:`cdpipe.runs.run.Step`), with remarks, and with pairs that
            failed. ``print`` will do.
        wait: Wait for another run to let go of the workspace instead of giving up.

    Raises:
        ConfigError: If the configuration has mistakes; all are listed.
        InputError: If it names an ensemble that cannot be read.
    """
    loaded = config if isinstance(config, Config) else load_config(Path(config), list(overrides))
    return Run(without_labels(adopt_options(loaded)), progress, wait=wait)
