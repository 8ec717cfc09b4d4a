"""The Helm chart: accepted by Helm and Kubernetes, secure, and consistent with the exporter.

Objects of the Prometheus operator are not validated: no package has its schemas.
"""

import json
import re
import runpy
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from system.servers import ROOT, RULES, tool

from exporter.settings import load, reference

CHART = ROOT / "deploy/kubernetes/thousandeyes-exporter"
VERSIONS = ("1.27", "1.37")
"""Oldest and newest supported version of Kubernetes."""
EXAMPLES = {
    path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text())
    for path in sorted((CHART / "ci").iterdir())
}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt").read_text()
TOKEN = "account-groups"
"""The example with hardly more than a token."""
every_example = pytest.mark.parametrize("example", EXAMPLES)


@cache
def helm(command: str, example: str, *arguments: str, code: int = 0) -> str:
    """Run a command of Helm with the values of an example; return its output and errors."""
    values = f"--values={CHART}/ci/{example}-values.yaml"
    line = [tool("helm"), *command.split(), str(CHART), values, *arguments]
    done = subprocess.run(line, stdout=-1, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == code, done.stdout
    return done.stdout


def render(example: str, *arguments: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(helm("template test", example, *arguments)) if each]


def by_kind(example: str, *arguments: str) -> dict[str, dict[str, Any]]:
    """Return the objects of an example by kind, without dashboards."""
    objects = render(example, *arguments)
    return {each["kind"]: each for each in objects if "dashboard" not in str(each["metadata"])}


def pod(objects: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pod and its container."""
    spec = objects["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def test_generated_files_are_up_to_date() -> None:
    generated = runpy.run_path(str(ROOT / "deploy/__main__.py"))["generated_files"]()
    assert {path: path.read_text() for path in generated if path.exists()} == generated
    copies = {path for path in (CHART / "files").rglob("*") if path.is_file()}
    assert copies == {path for path in generated if path.is_relative_to(CHART / "files")}


@every_example
def test_helm_and_kubernetes_accept_every_object(example: str) -> None:
    assert "WARNING" not in helm("lint --strict", example)
    for version in VERSIONS:
        for each in render(example, "--kube-version", version):
            if each["apiVersion"] != "monitoring.coreos.com/v1":
                kubernetes_validate.validate(each, version, strict=True)


@every_example
def test_pod_meets_the_restricted_security_standard(example: str) -> None:
    """See https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    objects = by_kind(example)
    spec, container = pod(objects)
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["securityContext"].get("runAsUser", 1) > 0
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert all("hostPort" not in port for port in container["ports"])
    # Beyond the standard: no access to the Kubernetes API, and files for the group only.
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    assert not {"Secret", "Role", "ClusterRole", "RoleBinding"} & set(objects)
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    sources = [each.get("projected", each.get("secret", {})) for each in spec["volumes"][:2]]
    assert {each.get("defaultMode", 0o440) for each in sources} == {0o440}


@every_example
def test_objects_select_the_pod_and_its_port(example: str) -> None:
    specs = {kind: each["spec"] for kind, each in by_kind(example).items() if "spec" in each}
    labels = specs["Deployment"]["template"]["metadata"]["labels"].items()
    service, policy = specs["Service"], specs.get("NetworkPolicy")
    assert [each["targetPort"] for each in service["ports"]] == ["metrics"]
    selectors = [service["selector"]]
    for kind in {"Deployment", "PodDisruptionBudget", "PodMonitor"} & set(specs):
        selectors += [specs[kind]["selector"]["matchLabels"]]
    if policy:
        selectors += [policy["podSelector"]["matchLabels"]]
        assert [rule["ports"] for rule in policy["ingress"]] == [[{"port": "metrics"}]]
    assert all(selector and selector.items() <= labels for selector in selectors)


@pytest.mark.parametrize(
    ("example", "ports"), [(TOKEN, {443}), ("proxy", {3128}), ("all", {443, 3128, 8443})]
)
def test_network_policy_allows_dns_and_the_api(example: str, ports: set[int]) -> None:
    rules = by_kind(example)["NetworkPolicy"]["spec"]["egress"]
    assert [{port["port"] for port in rule["ports"]} for rule in rules] == [{53, 5353}, ports]


@pytest.mark.parametrize(
    ("example", "kind", "scheme", "path"),
    [
        ("operator", "ServiceMonitor", "http", "/metrics"),
        ("tls", "ServiceMonitor", "https", "/metrics"),
        ("all", "PodMonitor", "https", "/thousandeyes/metrics"),
    ],
)
def test_monitor_scrapes_the_metrics_in_the_job_of_the_rules(
    example: str, kind: str, scheme: str, path: str
) -> None:
    service, monitor = (by_kind(example)[each] for each in ("Service", kind))
    (endpoint,) = monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]
    selector = monitor["spec"]["selector"]["matchLabels"]
    assert selector.items() <= service["metadata"]["labels"].items()
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert (endpoint["scheme"], endpoint["path"]) == (scheme, path)
    jobs = set(re.findall('job="([^"]+)"', RULES.read_text()))
    assert jobs == {endpoint["relabelings"][0]["replacement"]}


def test_pods_are_probed_and_replaced_when_the_new_one_is_ready() -> None:
    objects = by_kind(TOKEN)
    update = {"maxSurge": 1, "maxUnavailable": 0}
    assert objects["Deployment"]["spec"]["strategy"]["rollingUpdate"] == update
    for probe, path in (("livenessProbe", "/-/healthy"), ("readinessProbe", "/-/ready")):
        assert pod(objects)[1][probe]["httpGet"] == {"path": path, "port": "metrics"}
        *script, requested = pod(by_kind("tls"))[1][probe]["exec"]["command"]
        assert requested == path
        assert json.dumps(script) in (ROOT / "Dockerfile").read_text()


@every_example
def test_exporter_accepts_its_settings(example: str, tmp_path: Path) -> None:
    objects = by_kind(example)
    spec, container = pod(objects)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    text = "\n".join([*container["args"], objects["ConfigMap"]["data"]["settings.yml"]])
    for name, path in sorted(mounts.items(), reverse=True):  # web before settings, its prefix
        (tmp_path / name).mkdir()
        text = text.replace(f"{path}/", f"{tmp_path / name}/")
    *arguments, settings = text.split("\n", len(container["args"]))
    (tmp_path / "settings/settings.yml").write_text(settings)
    for source in spec["volumes"][0]["projected"]["sources"]:
        for item in next(iter(source.values())).get("items", []):
            content = CERTIFICATES if "ca" in item["path"] else "0123456789abcdef"
            (tmp_path / "settings" / item["path"]).write_text(content)
    if "web" in mounts:
        (tmp_path / "web" / EXAMPLES[example]["webConfig"].get("key", "web-config.yml")).touch()
    variables = container.get("env", [])
    env = {each["name"]: each.get("value", "http://me:pw@proxy") for each in variables}
    loaded = load(arguments, env)
    assert loaded.settings.web.listen_address.port == container["ports"][0]["containerPort"]
    assert (loaded.settings.api.token_file is None) == (example == "demo")
    groups = EXAMPLES[example].get("settings", {}).items()
    given = {f"{group}.{field}" for group, fields in groups for field in fields}
    given |= {each.name for each in reference() if each.variable in env}
    assert given <= {name for name, origin in loaded.origins.items() if origin != "default"}


def test_every_value_has_an_example_and_is_rendered() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {name for each in EXAMPLES.values() for name in each} == values.keys()
    given = re.findall(
        r"[:-] ([\w./%-]+)$", (CHART / "ci/all-values.yaml").read_text(), re.MULTILINE
    )
    text = helm("template test", "all")
    assert len(given) > 60
    assert [value for value in given if value not in text] == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('token.secretName=""', "token.secretName"),
        ('settings.poll.intervall="1m"', "/settings/poll': additional properties 'intervall'"),
        ('settings.api.token="x"', "/settings/api': additional properties 'token'"),
        ('settings.api.proxy="http://me:secret@proxy:1"', "/settings/api/proxy"),
        ('settings.metrics.families=["latency"]', "/settings/metrics/families/0"),
        ('settings.metrics.agent_names="hashed"', "agentNamesKey.secretName"),
        ('agentNamesKey.secretName="x"', "agentNamesKey.secretName"),
        ('extraArgs=["--api.token=secret"]', "/extraArgs/0"),
        ('extraEnv=[{"name":"THOUSANDEYES_API_PROXY","value":"secret"}]', "'valueFrom'"),
        ('image.digest="latest"', "/image/digest"),
        ('{"podMonitor":{"enabled":true},"serviceMonitor":{"enabled":true}}', "podMonitor.enabled"),
    ],
)
def test_invalid_values_are_rejected(value: str, message: str) -> None:
    output = helm("template test", TOKEN, "--set-json", value, code=1)
    assert message in output.partition("Error: ")[2]
    assert "secret" not in output.replace("secretName", "")


def test_rules_and_dashboards_are_those_of_the_project() -> None:
    objects = render("operator")
    (rule,) = (each["spec"] for each in objects if each["kind"] == "PrometheusRule")
    assert rule == yaml.safe_load(RULES.read_text())
    maps = [each for each in objects if "grafana_dashboard" in each["metadata"]["labels"]]
    dashboards = {name: json.loads(text) for each in maps for name, text in each["data"].items()}
    files = (ROOT / "grafana/dashboards").glob("*.json")
    assert dashboards == {path.name: json.loads(path.read_text()) for path in files}


@pytest.mark.parametrize(
    ("value", "restarts"), [('settings.log.level="debug"', True), ("service.port=80", False)]
)
def test_only_new_settings_restart_the_pod(value: str, restarts: bool) -> None:
    old, new = by_kind(TOKEN), by_kind(TOKEN, "--set-json", value)
    assert (old["Deployment"]["spec"] != new["Deployment"]["spec"]) == restarts
