# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`python -m tests.house`: the table of measures; `--why` with what was counted, `--lower` keeps better values.

Exit status 1 where a measure is worse than its bound.
"""

import argparse
import json
import sys
from dataclasses import asdict

from tests.house.measures import BOUNDS, bounds, lowered, measured, over, table


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    parser.add_argument("--why", action="store_true", help="list what was counted")
    parser.add_argument("--lower", action="store_true", help="write better values to bounds.json")
    parser.add_argument("--json", action="store_true", help="print the measures as JSON")
    options = parser.parse_args()
    now, limits = measured(), bounds()
    if options.json:
        sys.stdout.write(json.dumps([asdict(measure) for measure in now]))
        return 0
    sys.stdout.write(f"{table(limits, now)}\n")
    if options.why:
        counted = ("\n  ".join((f"\n{one.name}", *one.lines)) for one in now if one.lines)
        sys.stdout.write("\n".join(counted) + "\n")
    if options.lower:
        BOUNDS.write_text(json.dumps(lowered(limits, now), indent=2) + "\n", encoding="utf-8")
    worse = over(limits, now)
    sys.stdout.writelines(f"\nworse than before: {message}\n" for message in worse)
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
