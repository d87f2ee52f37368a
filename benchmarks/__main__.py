"""The command: `python -m benchmarks step grid`, `python -m benchmarks --quick`, `python -m benchmarks table`."""

import argparse
import sys

from benchmarks import measured, suite, table


def main() -> int:
    """Runs the named benchmarks, by default all; returns 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [*suite.ALL, "table"]
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(names)}; none: all. table: README.md")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs; keeps nothing")
    parser.add_argument("--repeats", type=int, help="rounds that count; default: each benchmark's own number")
    parser.add_argument("--ours", nargs="+", default=[], metavar="KEY=VALUE", help="added to our own sweeps")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in names]:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(names)}")
    if options.names == ["table"]:
        table.update_readme(table.kept())
        measured.update(table.kept())
        return 0
    failed = False
    with suite.scratch() as folder:
        bench = suite.Bench(folder, options.quick, options.repeats, options.ours)
        for name in options.names or suite.ALL:
            try:
                result = suite.ALL[name](bench)
            except RuntimeError as error:  # a command failed: the other benchmarks still run
                print(f"{name}: {error}", file=sys.stderr)  # noqa: T201
                failed = True
                continue
            table.finish(result, not options.quick)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
