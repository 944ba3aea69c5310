"""Fetch and check the data sets of the full benchmark.

    python -m data_scripts list                            the data sets, their sizes and terms
    python -m data_scripts prepare sketch dtd --root /data   fetch some ("all": everything but ImageNet)
    python -m data_scripts check --root /data              which are there, and what to do about the others
"""
from __future__ import annotations

import argparse
import difflib
import os
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

from .sources import SOURCES

ROOT = "MINIPSYNC_ROOT"                            # as minipsync/data/full.py
OTHERS = """\
The other modules here made what comes with the package; each explains itself in its first lines:
    python -m data_scripts.make_mini            the drawings of the mini benchmark
    python -m data_scripts.make_hard            its hard scenes, data set "a"
    python -m data_scripts.make_wordnet         the WordNet words of its class names
    python -m data_scripts.train_mini_clip      its CLIP
    python -m data_scripts.train_mini_prompts   its prompts
"""


def names_of(given: list[str]) -> list[str]:
    """Data sets for what the user said: names, "pug" for its ten, "all" for everything but ImageNet.

    Raises ValueError for an unknown name, with the list of good ones.
    """
    every = [name for key, source in SOURCES.items() for name in source.names or (key,)]
    groups = {key: list(source.names) for key, source in SOURCES.items() if source.names}
    groups["all"] = [name for name in every if name != "imagenet"]
    good = [*every, *groups]
    chosen = []
    for name in given:
        if name not in good:
            close = difflib.get_close_matches(name, good, 1)
            raise ValueError(f"unknown data set {name!r}{f', did you mean {close[0]!r}?' if close else ''}; "
                             f"expected any of: {', '.join(good)}")
        chosen += groups.get(name, [name])
    return list(dict.fromkeys(chosen))


def show() -> None:
    """The table of SOURCES."""
    print(f"{'name':15} {'GB':>5}  licence and terms")
    for key, source in SOURCES.items():
        hand = " (by hand)" if not source.pieces else " (one file by hand)" if source.by_hand else ""
        print(f"{key:15} {source.gb:5g}  {source.terms}{hand}")
        if source.names:
            print(textwrap.fill(", ".join(source.names), 100, initial_indent=" " * 23,
                                subsequent_indent=" " * 23))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m data_scripts", description=__doc__, epilog=OTHERS,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = p.add_subparsers(dest="verb")
    verbs.add_parser("list", help="the data sets, their sizes and terms")
    for verb, what, count in (("prepare", "fetch data sets and put them in place", "+"),
                              ("check", "tell which data sets are there and good", "*")):
        v = verbs.add_parser(verb, help=what, description=what)
        v.add_argument("names", metavar="NAME", nargs=count,
                       help='as `list` says; "pug" is its ten sets, "all" everything but imagenet')
        v.add_argument("--root", type=Path, default=os.environ.get(ROOT) or None,
                       help=f"the folder that holds the data sets (default: what {ROOT} says)")
        if verb == "prepare":
            v.add_argument("--again", action="store_true", help="fetch what is there, too, and replace it")
            v.add_argument("--keep", action="store_true", help="keep the archives, in ROOT/.downloads")
    return p


def main(arguments: list[str] | None = None) -> int:
    """-> the exit status: 0, 1 if a named data set is not good, 2 for a mistake, 130 if stopped."""
    p = parser()
    args = p.parse_args(arguments)
    if args.verb is None:
        p.print_help()
        return 0
    if args.verb == "list":
        show()
        return 0
    if args.root is None:
        p.error(f"which folder holds the data sets? Say --root FOLDER, or set {ROOT}")
    root = Path(args.root).expanduser().resolve()
    if args.verb == "check" and not root.is_dir():
        p.error(f"there is no folder {str(root)!r}; expected the one that holds 'imagenet', 'caltech-101' "
                "and so on (`prepare` makes it)")
    try:
        names = names_of(args.names or ["imagenet", "all"])
    except ValueError as error:
        p.error(str(error))
    if args.verb == "prepare" and not find_spec("pooch"):
        p.error('downloads need pooch and requests: pip install -e ".[data]"')
    from .prepare import check, prepare  # here: it loads torch, and a typing mistake should not wait for that
    try:
        if args.verb == "prepare":
            return prepare(names, root, args.again, args.keep)
        bad = check(names, root)
        return bad if args.names else 0            # asked for all, a missing one is no failure
    except OSError as error:                       # of the root itself; those of a data set are told with it
        print(f"{root} cannot be used ({error.strerror or error}): name a folder that you may write to "
              "with --root", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. What has come is kept: the same command goes on from there.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
