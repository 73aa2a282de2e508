"""How many cases of each provider pass: `python -m tests.wire.summary [pytest's options]`."""

import re
import sys
from collections import Counter

import pytest

NAME = re.compile(r"::\w+\[(?P<provider>[^/\]]+)/")


class Tally:
    """A pytest plugin that counts tests by the provider in their id."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.total: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = NAME.search(report.nodeid)
        if found is not None and (report.when == "call" or report.failed):
            self.total[found["provider"]] += 1
            self.passed[found["provider"]] += report.passed

    def lines(self) -> list[str]:
        rows = [(name, self.passed[name], self.total[name]) for name in sorted(self.total)]
        rows.append(("all", self.passed.total(), self.total.total()))
        return [f"{name:16} {passed:5} / {total}" for name, passed, total in rows]


def main() -> int:
    tally = Tally()
    options = ["-q", "--tb=short", "--show-capture=no", *sys.argv[1:]]
    status = pytest.main(["tests/wire", *options], plugins=[tally])
    print("\n".join(tally.lines()))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
