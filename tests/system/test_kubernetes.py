"""The Helm chart: accepted by Helm and Kubernetes, secure, and consistent with the exporter."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from system.servers import ROOT, RULES, run

from exporter.settings import load

CHART = ROOT / "deploy/kubernetes/thousandeyes-exporter"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
GENERATOR = runpy.run_path(str(ROOT / "deploy/__main__.py"))
VERSIONS = ("1.27", "1.37")
"""Oldest and newest supported version of Kubernetes."""
OPERATOR = "monitoring.coreos.com/v1"
CA_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt").read_text()

TOKEN: dict[str, Any] = {"token": {"secretName": "thousandeyes"}}
EVERYTHING: dict[str, Any] = yaml.safe_load(r"""
token: {secretName: thousandeyes, key: api-token}
agentNamesKey: {secretName: names}
authorities: {configMapName: authorities}
webConfig: {secretName: web, key: config.yml}
settings:
  api:
    url: https://api.eu1.thousandeyes.com
    account_groups: [1234567890, "5678"]
    proxy: http://proxy:3128
    requests_per_minute: 60
    allow_insecure: false
  poll: {interval: 2m, lookback: 1h30m, overlap: 10m}
  filter: {include_sites: [".*"], search: {platform: [mac]}}
  metrics:
    site_groups: [{pattern: '.*\.example', name: Example}]
    families: standard
    max_series: 1000000
    agent_names: hashed
  web: {telemetry_path: /probe}
  log: {level: debug, format: json}
extraEnv: [{name: X, valueFrom: {secretKeyRef: {name: x, key: x}}}]
image: {digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}
imagePullSecrets: [{name: registry}]
replicas: 2
podLabels: {team: network}
podAnnotations: {note: "1"}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: dedicated, operator: Exists}]
affinity: {nodeAffinity: {}}
priorityClassName: high
serviceAccount: {annotations: {note: "1"}}
service: {port: 80, annotations: {note: "1"}, labels: {note: "1"}}
networkPolicy: {from: [{podSelector: {}}], egressPorts: [443, 3128]}
serviceMonitor:
  enabled: true
  labels: {release: prometheus}
  scheme: https
  tlsConfig: {insecureSkipVerify: true}
  basicAuth: {username: {name: web, key: username}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboards: {enabled: true}
""")
SETTINGS = EVERYTHING["settings"]
BARE = {
    "networkPolicy": {"enabled": False},
    "serviceAccount": {"create": False},
    "resources": {"requests": None, "limits": None},
    "podSecurityContext": None,
}
CASES = {
    "demo": {"demo": True},
    "token": TOKEN,
    "everything": EVERYTHING,
    "bare": {**TOKEN, **BARE},
}
every_case = pytest.mark.parametrize("case", CASES)
Objects = dict[str, dict[str, Any]]


class Helm:
    """Runs Helm with values."""

    def __init__(self, folder: Path, release: str = "test") -> None:
        self.values = folder / "values.yaml"
        self.release = release

    async def run(
        self, command: str, values: dict[str, Any], *arguments: str, code: int = 0
    ) -> str:
        self.values.write_text(yaml.safe_dump(values))
        release = [] if command == "lint" else [self.release]
        command_line = (command, *release, str(CHART), "--values", str(self.values), *arguments)
        return await run("helm", *command_line, code=code)

    async def template(self, values: dict[str, Any], *arguments: str) -> list[dict[str, Any]]:
        documents = yaml.safe_load_all(await self.run("template", values, *arguments))
        return [document for document in documents if document]

    async def objects(self, values: dict[str, Any]) -> Objects:
        """Return the rendered objects by kind, without dashboards."""
        found = await self.template(values)
        return {each["kind"]: each for each in found if "grafana_dashboard" not in str(each)}


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    return Helm(tmp_path)


def pod(objects: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


def test_generated_files_are_up_to_date() -> None:
    generated = GENERATOR["generated_files"]()
    assert {path: path.read_text() for path in generated if path.exists()} == generated
    copies = {path for path in (CHART / "files").rglob("*") if path.is_file()}
    assert copies == {path for path in generated if path.is_relative_to(CHART / "files")}


@every_case
async def test_helm_and_kubernetes_accept_every_object(
    case: str, helm: Helm, tmp_path: Path
) -> None:
    assert "WARNING" not in await helm.run("lint", CASES[case], "--strict")
    path = tmp_path / "manifests.yaml"
    for version in VERSIONS:
        objects = await helm.template(CASES[case], "--kube-version", version)
        own = [each for each in objects if each["apiVersion"] != OPERATOR]
        path.write_text(yaml.safe_dump_all(own))
        await run("kubernetes-validate", "--strict", "-k", version, str(path))


@every_case
async def test_pod_meets_the_restricted_security_standard(case: str, helm: Helm) -> None:
    """See https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    objects = await helm.objects(CASES[case])
    spec = pod(objects)
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["securityContext"].get("runAsUser", 1) > 0
    (container,) = spec["containers"]
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
    for volume in spec["volumes"]:
        assert (volume.get("projected") or volume["secret"])["defaultMode"] == 0o440


async def test_probes_request_health_and_readiness(helm: Helm) -> None:
    (plain,) = pod(await helm.objects(TOKEN))["containers"]
    assert plain["livenessProbe"]["httpGet"] == {"path": "/-/healthy", "port": "metrics"}
    assert plain["readinessProbe"]["httpGet"] == {"path": "/-/ready", "port": "metrics"}
    (secured,) = pod(await helm.objects(EVERYTHING))["containers"]
    script = secured["livenessProbe"]["exec"]["command"][:-1]
    assert json.dumps(script) in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("case", ["token", "everything"])
async def test_selectors_and_ports_match(case: str, helm: Helm) -> None:
    objects = await helm.objects(CASES[case])
    template = objects["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert objects["Service"]["spec"]["selector"].items() <= labels
    policy = objects["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    egress = [port["port"] for rule in policy["egress"] for port in rule["ports"]]
    assert egress == [53, 53, 443] + ([3128] if case == "everything" else [])
    names = [port["name"] for port in template["spec"]["containers"][0]["ports"]]
    assert [port["targetPort"] for port in objects["Service"]["spec"]["ports"]] == names
    assert [port["port"] for port in policy["ingress"][0]["ports"]] == names


async def test_service_monitor_scrapes_the_service_in_the_job_of_the_rules(helm: Helm) -> None:
    objects = await helm.objects(EVERYTHING)
    monitor, service = objects["ServiceMonitor"]["spec"], objects["Service"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert endpoint["path"] == SETTINGS["web"]["telemetry_path"]
    job = endpoint["relabelings"][0]["replacement"]
    assert set(re.findall('job="([^"]+)"', RULES.read_text())) == {job}
    config = yaml.safe_load(RULES.with_name("prometheus.yml").read_text())
    assert [each["job_name"] for each in config["scrape_configs"]] == [job]


async def test_two_releases_do_not_share_names_or_pods(tmp_path: Path) -> None:
    both = [await Helm(tmp_path, release).template(EVERYTHING) for release in ("emea", "apac")]
    names = [{(each["kind"], each["metadata"]["name"]) for each in objects} for objects in both]
    assert not names[0] & names[1]
    services = [each["spec"] for objects in both for each in objects if each["kind"] == "Service"]
    assert services[0]["selector"] != services[1]["selector"]


@pytest.mark.parametrize("case", ["demo", "token", "everything"])
async def test_exporter_accepts_its_settings(case: str, helm: Helm, tmp_path: Path) -> None:
    objects = await helm.objects(CASES[case])
    spec = pod(objects)
    config, command = spec["containers"][0]["args"]
    settings = objects["ConfigMap"]["data"]["settings.yml"]
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    for name, path in sorted(mounts.items(), reverse=True):  # web before settings, its prefix
        (tmp_path / name).mkdir()
        settings = settings.replace(f"{path}/", f"{tmp_path / name}/")
        config = config.replace(f"{path}/", f"{tmp_path / name}/")
    (tmp_path / "settings/settings.yml").write_text(settings)
    for source in spec["volumes"][0]["projected"]["sources"]:
        for item in next(iter(source.values())).get("items", []):
            content = CA_CERTIFICATES if "ca" in item["path"] else "0123456789abcdef"
            (tmp_path / "settings" / item["path"]).write_text(content)
    if "web" in mounts:
        (tmp_path / "web/config.yml").write_text("{}")
    loaded = load([config, command], {})
    port = spec["containers"][0]["ports"][0]["containerPort"]
    assert loaded.settings.web.listen_address.port == port
    assert (loaded.settings.api.token_file is None) == (case == "demo")
    if case == "everything":
        given = {f"{group}.{field}" for group, fields in SETTINGS.items() for field in fields}
        assert given <= {name for name, origin in loaded.origins.items() if origin != "default"}


def test_schema_has_every_value_and_no_other() -> None:
    def compare(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        if "properties" in schema and path not in ("settings", "resources", "podSecurityContext"):
            assert schema["additionalProperties"] is False, path
            assert set(values) == set(schema["properties"]) - {"global"}, path
            for name, value in values.items():
                compare(value, schema["properties"][name], name)

    compare(VALUES, SCHEMA, "")


@pytest.mark.parametrize(
    ("values", "location"),
    [
        ({}, "token.secretName"),
        ({"tokn": {"secretName": "x"}}, "tokn"),
        ({"settings": {"api": {"token": "x"}}}, "/settings/api"),
        ({"settings": {"poll": {"interval": 60}}}, "/settings/poll/interval"),
        ({"settings": {"api": {"proxy": "http://me:secret@proxy:1"}}}, "/settings/api/proxy"),
        ({"settings": {"metrics": {"agent_names": False}}}, "/settings/metrics/agent_names"),
        ({"settings": {"metrics": {"agent_names": "hashed"}}}, "agentNamesKey.secretName"),
        ({"agentNamesKey": {"secretName": "x"}}, "agentNamesKey.secretName"),
        ({"podSecurityContext": {"runAsUser": 0}}, "/podSecurityContext/runAsUser"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
    ],
)
async def test_invalid_values_are_rejected(
    values: dict[str, Any], location: str, helm: Helm
) -> None:
    values = {**TOKEN, **values} if values else {}
    assert location in await helm.run("template", values, code=1)


async def test_rules_and_dashboards_are_those_of_the_project(helm: Helm) -> None:
    objects = await helm.template(EVERYTHING)
    rule = next(each for each in objects if each["kind"] == "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(RULES.read_text())
    dashboards: dict[str, Any] = {}
    for each in objects:
        if "grafana_dashboard" in each["metadata"]["labels"]:
            dashboards |= {name: json.loads(text) for name, text in each["data"].items()}
    files = (ROOT / "grafana/dashboards").glob("*.json")
    assert dashboards == {path.name: json.loads(path.read_text()) for path in files}


async def test_only_new_settings_restart_the_pod(helm: Helm) -> None:
    async def annotations(**values: Any) -> Any:
        objects = await helm.objects({**TOKEN, **values})
        return objects["Deployment"]["spec"]["template"]["metadata"]["annotations"]

    assert await annotations(settings={"log": {"level": "debug"}}) != await annotations()
    assert await annotations(service={"labels": {"a": "b"}}) == await annotations()
