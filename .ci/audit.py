"""Fails if pip-audit (its JSON on standard input) has found a known vulnerability; says so if it could ask nobody."""

import json
import sys


def verdict(report: str) -> tuple[int, str]:
    """Exit code and sentence."""
    try:
        packages = json.loads(report)["dependencies"]
    except ValueError:
        packages = []
    asked = [package for package in packages if "vulns" in package]
    bad = [f"{p['name']} {p['version']}: {', '.join(v['id'] for v in p['vulns'])}" for p in asked if p["vulns"]]
    if bad:
        return 1, "\n".join(bad)
    if not asked:
        return 0, "The vulnerability service is not reachable: nothing was audited."
    return 0, f"{len(asked)} of {len(packages)} packages audited, no known vulnerability."


if __name__ == "__main__":
    code, sentence = verdict(sys.stdin.read())
    print(sentence)  # noqa: T201
    sys.exit(code)
