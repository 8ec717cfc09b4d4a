"""`python -m benchmarks` measures everything, prints the results and writes RESULTS.md.

`--quick` takes less than two minutes and writes nothing. The exit code is 1 if a target is missed.
"""

# ruff: noqa: T201

import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measures import Plan, measure
from benchmarks.programs import run

QUICK = Plan(2, 2, slow=(1_000, 10_000))
VERSIONS = f"""
echo "$(uname -sr),$(grep -m 1 'model name' /proc/cpuinfo | cut -d : -f 2), $(nproc) cores"
echo "$({sys.executable} --version), $(go version), $(nginx -v 2>&1)"
{sys.executable} -m pip freeze | grep -E '^(aiohttp|isal|msgspec|numpy|prom|pyd|pysim).*=' | xargs
dpkg-query -W golang-github-prometheus-client-golang-dev wrk | xargs
"""
PAGE = """# Results

Written by `make bench` on {date}. The exporter and each reference took turns in the same run, and
the values are medians; only ratios are comparable between runs. Polls are at steady state: a fifth
of the sessions is new. They start with JSON in files and end with a compressed exposition. Each
session is alone in its round of a series, so the references need not aggregate.

| | measure | ours | reference | against | ratio | target | |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

```text
{versions}
```
"""

if __name__ == "__main__":
    plan, measures = QUICK if "--quick" in sys.argv else Plan(), []
    with TemporaryDirectory() as folder:
        for each in measure(plan, Path(folder)):
            print(each, flush=True)
            measures.append(each)
    if plan != QUICK:
        rows, versions = "\n".join(map(str, measures)), run("sh", "-c", VERSIONS).strip()
        page = PAGE.format(date=datetime.now(UTC).date(), rows=rows, versions=versions)
        Path(__file__).with_name("RESULTS.md").write_text(page)
    sys.exit(not all(each.met for each in measures))
