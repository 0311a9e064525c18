"""Prints "PASSED FAILED" for a JUnit file; skipped, disabled and broken tests count as failed."""

import sys
import xml.etree.ElementTree


def count(root):
    passed = failed = 0
    for case in root.iter("testcase"):
        bad = any(case.find(tag) is not None for tag in ("failure", "error", "skipped"))
        # ctest marks what did not run by status, without a child.
        if bad or case.get("status", "run") not in ("run", "passed"):
            failed += 1
        else:
            passed += 1
    return passed, failed


if __name__ == "__main__":
    print(*count(xml.etree.ElementTree.parse(sys.argv[1]).getroot()))
