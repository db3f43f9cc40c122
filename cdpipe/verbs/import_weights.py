"""``cdpipe import-weights``: weights that others trained, as a model folder."""

import argparse
import sys

from pydantic import ValidationError

from cdpipe.config.load import describe_mistakes, parse_overrides
from cdpipe.config.schema import Model, Normalisation
from cdpipe.errors import EXIT_DONE, ConfigError
from cdpipe.models.foreign import Import, import_weights


def run(options: argparse.Namespace) -> int:
    """Import a file and say what was loaded, replaced and found beside it.

    Raises:
        ConfigError: If ``--set`` names what no model has.
    """
    try:
        model = Model.model_validate(parse_overrides(options.set))
        normalisation = Normalisation(statistics=options.statistics, bands=options.bands)
    except ValidationError as error:
        raise ConfigError("\n".join(["import-weights --set:", *describe_mistakes(error, Model)])) from None
    found = import_weights(options.file, options.out.resolve(), options.model, model, (normalisation, options.patch))
    sys.stdout.write("\n".join(_describe(options, found)) + "\n")
    return EXIT_DONE


def _describe(options: argparse.Namespace, found: Import) -> list[str]:
    lines = [f"{options.file}: {found.loaded} entries loaded into {found.card.architecture}, none left over"]
    if found.beside:
        lines.append("  beside them: " + ", ".join(f"{name} {value:g}" for name, value in found.beside.items()))
    if found.card.fresh:
        lines.append(
            f"  replaced by a fresh layer of one class: {', '.join(found.card.fresh)}; train it before predicting:"
        )
        lines.append(f"    train: {{models: {{{found.card.architecture}: {{init_from: {options.out}}}}}}}")
    else:
        lines.append(f"  ready to predict: predict: {{models: [{options.out}]}}")
        kind = f"{found.card.statistics} statistics, bands {'together' if found.card.together else 'each'}"
        lines.append(f"  input as it was trained with: patch {found.card.patch}, {kind} (see --help if it was not)")
    lines.append(f"wrote {options.out}")
    return lines
