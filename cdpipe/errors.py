"""The errors a user may cause, each with the exit code that tells a script what happened."""

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_CONFIG = 2
EXIT_INPUT = 3
EXIT_INTEGRITY = 4
EXIT_PARTIAL = 5
EXIT_LOCKED = 75
EXIT_INTERRUPTED = 130  # as shells report SIGINT


class CdpipeError(Exception):
    """A mistake outside the code: its message is for the user and needs no traceback."""

    exit_code = EXIT_BUG


class ConfigError(CdpipeError):
    """The configuration cannot be used as it is."""

    exit_code = EXIT_CONFIG


class InputError(CdpipeError):
    """A raster, label or table is missing, unreadable or does not fit its pair."""

    exit_code = EXIT_INPUT


class RefusedError(CdpipeError):
    """What was asked for would be of no use; it is left out with the reason, and all else goes on."""

    exit_code = EXIT_INPUT


class IntegrityError(CdpipeError):
    """Something stored by cdpipe is missing or is not what was written."""

    exit_code = EXIT_INTEGRITY


class ShortageError(CdpipeError):
    """Nodes that a cluster was asked for did not come in time; they may another time."""

    exit_code = EXIT_LOCKED


class LockedError(CdpipeError):
    """Another run is writing to the same workspace."""

    exit_code = EXIT_LOCKED
