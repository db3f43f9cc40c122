"""``cdpipe completion``: what shells need to complete verbs, options, their values and files."""

import argparse
import sys
from collections.abc import Iterator

from cdpipe.cli.verb import Verb
from cdpipe.errors import EXIT_DONE

SHELLS = ("bash", "zsh", "fish")
BASH = """\
_cdpipe() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} verb=${{COMP_WORDS[1]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{verbs}"
    else
        case "$verb $before" in
{values}
        *) case "$verb" in
{options}
        esac ;;
        esac
        if [ "${{word#-}}" = "$word" ] && [ "${{words#-}}" != "$words" ]; then words=; fi
    fi
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    else
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -F _cdpipe cdpipe
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the shell."""
    parser.add_argument("shell", choices=SHELLS)


def run(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    verbs = {name: list(_options(parser)) for name, parser in _commands(options.parser).items()}
    if options.shell == "fish":
        sys.stdout.write("\n".join(_fish(verbs)) + "\n")
        return EXIT_DONE
    if options.shell == "zsh":
        sys.stdout.write("autoload -U +X bashcompinit && bashcompinit\n")
    known = "\n".join(
        f'        {verb}) words="{" ".join(name for option in own for name in option.option_strings)}" ;;'
        for verb, own in verbs.items()
    )
    values = "\n".join(
        f'        "{verb} {name}") words="{" ".join(map(str, option.choices or ()))}" ;;'
        for verb, own in verbs.items()
        for option in own
        for name in (option.option_strings or [verb])
        if option.choices
    )
    sys.stdout.write(BASH.format(verbs=" ".join(verbs), values=values, options=known))
    return EXIT_DONE


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Parsers of what follows a command, by name; none where nothing does."""
    for action in parser._actions:  # noqa: SLF001 (there is no other way to ask for them)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 (likewise)
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options of a verb and of what may follow it, each name once."""
    seen: set[str] = set()
    for each in (parser, *_commands(parser).values()):
        for action in each._actions:  # noqa: SLF001 (likewise)
            names = set(action.option_strings) or {action.dest}
            if not names <= seen:
                seen |= names
                yield action


def _fish(verbs: dict[str, list[argparse.Action]]) -> Iterator[str]:
    yield f"complete -c cdpipe -n __fish_use_subcommand -f -a '{' '.join(verbs)}'"
    for verb, own in verbs.items():
        for option in own:
            long = next((name[2:] for name in option.option_strings if name.startswith("--")), None)
            where = f"complete -c cdpipe -n '__fish_seen_subcommand_from {verb}'"
            choices = f"-x -a '{' '.join(map(str, option.choices))}'" if option.choices else ""
            if long:
                yield f"{where} -l {long} {choices}".rstrip()
            elif choices:
                yield f"{where} {choices}"


COMPLETION = Verb("completion", "print what a shell needs to complete commands", add_options, run, None)
