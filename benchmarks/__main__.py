"""Compares Inferno with its peers: `make bench`, or `python -m benchmarks [--quick] [--loads chat8,…] [--rounds 3]`."""

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import machine, report
from benchmarks.build import ROOT, BuildError, build
from benchmarks.loads import LOADS, QUICK
from benchmarks.runner import Plan, Results, run
from benchmarks.targets import BEST, EXAMPLE, HIGH_LEVEL, INFERNO, LLAMA_SERVER, PLAIN, RAW

_NAMES = (INFERNO, LLAMA_SERVER, BEST, EXAMPLE, HIGH_LEVEL, PLAIN, RAW)


def plan_of(options: argparse.Namespace) -> Plan:
    """What the command line asks for."""
    loads = options.loads or (QUICK if options.quick else tuple(LOADS))
    names = options.servers or ((INFERNO, LLAMA_SERVER, BEST) if options.quick else ())
    return Plan(
        loads=tuple(loads),
        servers=tuple(names),
        rounds=options.rounds or (1 if options.quick else 3),
        share=options.share or (0.5 if options.quick else 1.0),
        tune=not options.quick and not options.no_tune,
        # A load takes less than a minute on a machine that is not busy with something else.
        seconds=240.0 if options.quick else math.inf,
    )


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""

    def names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
        def split(text: str) -> tuple[str, ...]:
            wanted = tuple(text.split(","))
            for name in wanted:
                if name not in known:
                    raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
            return wanted

        return split

    root = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    root.add_argument(
        "--quick",
        action="store_true",
        help="a part that takes five minutes at most, once the peers are built; writes no report",
    )
    root.add_argument("--loads", type=names(tuple(LOADS)), metavar="A,B", help=f"only these of {', '.join(LOADS)}")
    root.add_argument("--servers", type=names(_NAMES), metavar="A,B", help=f"only these of {', '.join(_NAMES)}")
    root.add_argument("--rounds", type=int, metavar="N", help="times that everything is run (default: 3)")
    root.add_argument("--share", type=float, metavar="X", help="how much of each load to run (default: 1)")
    root.add_argument("--no-tune", action="store_true", help="do not look for llama-server's best flags for each load")
    root.add_argument("--write", type=Path, metavar="FOLDER", help="write the report to this folder, also of a part")
    root.add_argument("--again", type=Path, metavar="JSON", help="write the report of results that were saved")
    root.add_argument("--build-only", action="store_true", help="build the peers and the model, and measure nothing")
    return root


def main(argv: list[str] | None = None) -> int:
    """Build, run, report; 1 when the peers cannot be built."""
    options = parser().parse_args(argv)
    if options.again:
        results, facts = report.read(options.again)
        for path in report.write(results, facts, options.write or ROOT / "docs"):
            _say(f"wrote {path}")
        return 0
    plan = plan_of(options)
    try:
        built = build()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.build_only:
        return 0
    before = machine.load_average()
    if before > 0.7:
        _say(f"The machine is not idle (load average {before:.1f}): what follows will not mean much.")
    began = time.monotonic()
    whole = not (options.quick or options.loads or options.servers or options.share)
    folder = options.write or (ROOT / "docs" if whole else None)

    def save(results: Results) -> None:
        if folder is not None:
            facts = machine.describe(built) | {
                "rounds": str(plan.rounds),
                "load average before": f"{before:.1f}",
                "duration": f"{(time.monotonic() - began) / 60:.0f} minutes",
            }
            for path in report.write(results, facts, folder):
                _say(f"wrote {path}")

    print(report.text(run(plan, built, _say, save)))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
