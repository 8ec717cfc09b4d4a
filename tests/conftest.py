"""Rules for all tests: no secret in any output.

Secrets that tests use start with `canary-`. A test fails if one appears in what it prints or logs.
"""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

SECRET_PREFIX = "canary-"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Fail a test whose captured output contains a secret."""
    report = yield
    for name, text in report.sections:
        if report.when == "teardown" and SECRET_PREFIX in text:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: secret in {name}"
    return report
