"""Fails where a package that is installed here is known to be vulnerable; says so where nobody could be asked.

pip-audit asks the package index and its list of vulnerabilities, which is not there on every machine on which the
linters run. That is no reason to fail, and none to seem to have looked.
"""

from __future__ import annotations

import json
import re
import subprocess  # for pip-audit, of this same environment
import sys

ACCEPTED: dict[str, str] = {}
"""Vulnerabilities that do not concern us, by ID: why not."""

PATIENCE = 300.0
_UNREACHED = re.compile(
    r"connect|resolv|timed? ?out|unreachable|max retries|proxy|HTTP ?Error|\b50\d\b|\b40[34]\b", re.IGNORECASE
)


def main(command: list[str]) -> int:
    """Run pip-audit, and judge what it says. Returns the code to exit with."""
    try:
        done = subprocess.run(  # nosec B603  # the arguments are ours
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return _not_asked(f"no answer within {PATIENCE:g} s")
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        if _UNREACHED.search(done.stderr):
            return _not_asked(said[0])
        print(f"pip-audit failed: {done.stderr.strip() or said[0]}", file=sys.stderr)
        return 1
    bad = [
        (one["name"], one["version"], vulnerability)
        for one in found
        for vulnerability in one.get("vulns", ())
        if not {vulnerability["id"], *vulnerability.get("aliases", ())} & ACCEPTED.keys()
    ]
    for name, version, vulnerability in bad:
        fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
        print(f"{name} {version} is vulnerable: {vulnerability['id']}; fixed in {fixed}", file=sys.stderr)
    if bad:
        return 1
    # quixframes itself is in no index.
    skipped = [one["name"] for one in found if "skip_reason" in one and one["name"] != "quixframes"]
    asked = sum("skip_reason" not in one for one in found)
    if not asked:
        return _not_asked("the package index knows none of the packages")
    left = f"; not asked about, as the index does not know them: {', '.join(skipped)}" if skipped else ""
    print(f"No known vulnerabilities in {asked} packages{left}")
    return 0


def _not_asked(why: str) -> int:
    print(f"NOT AUDITED: known vulnerabilities could not be asked for here ({why})", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main([sys.executable, "-m", "pip_audit", "--local", "--format=json", "--progress-spinner=off"]))
