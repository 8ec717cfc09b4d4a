"""The chart: what Helm and Kubernetes say of it, what it allows, and whether what it renders fits together."""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploying import documents, done
from servers import ROOT

from exporter import __version__
from exporter.settings import load, reference

CHART = ROOT / "deploy/kubernetes/thousandeyes-exporter"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
MADE = runpy.run_path(str(ROOT / "deploy/__main__.py"))
OPERATOR = "monitoring.coreos.com/v1"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt").read_text()
OLDEST, NEWEST = "1.27", "1.37"
SETTINGS = {
    "api": {
        "url": "https://api.eu1.thousandeyes.com",
        "version": "v7",
        "account_groups": [1234567890, "5678"],
        "timeout": "20s",
        "proxy": "http://proxy:3128",
        "requests_per_minute": 60,
        "allow_insecure": False,
    },
    "poll": {"interval": "2m", "lookback": "1h30m", "overlap": "10m"},
    "filter": {"include_sites": [".*"], "exclude_agents": ["a{1,3}"], "search": {"platform": ["mac"]}},
    "metrics": {
        "site_groups": [{"pattern": r".*\.example", "name": "Example"}],
        "families": ["latency_seconds"],
        "max_series": 1000000,
        "agent_names": "hashed",
    },
    "web": {"telemetry_path": "/probe", "max_requests": 10},
    "log": {"level": "debug", "format": "json"},
    "simulator": {"agents": 1000000 // 100, "faults": []},
}
TOKEN = {"token": {"secretName": "thousandeyes"}}
EVERYTHING = {
    "token": {"secretName": "thousandeyes", "key": "api-token"},
    "agentNamesKey": {"secretName": "names"},
    "authorities": {"configMapName": "authorities"},
    "webConfig": {"secretName": "web", "key": "config.yml"},
    "settings": SETTINGS,
    "extraEnv": [
        {"name": "THOUSANDEYES_API_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}},
    ],
    "image": {"digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "replicas": 2,
    "podLabels": {"team": "network"},
    "podAnnotations": {"note": "1"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "serviceAccount": {"annotations": {"note": "1"}},
    "service": {"port": 80, "annotations": {"note": "1"}, "labels": {"note": "1"}},
    "networkPolicy": {
        "from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "egressPorts": [443, 3128],
    },
    "serviceMonitor": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "scheme": "https",
        "tlsConfig": {"insecureSkipVerify": True},
        "basicAuth": {"username": {"name": "web", "key": "username"}},
    },
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboards": {"enabled": True},
}
CASES: dict[str, dict[str, Any]] = {
    "demo": {"demo": True},
    "token": TOKEN,
    "everything": EVERYTHING,
    "openshift": {**TOKEN, "podSecurityContext": None},
    "bare": {
        **TOKEN,
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False},
        "resources": {"requests": None, "limits": None},
    },
}
Objects = dict[str, dict[str, Any]]


async def helm(*arguments: str, code: int = 0) -> str:
    """Run Helm; return what it wrote."""
    return await done("helm", *arguments, code=code)


async def rendered(
    values: dict[str, Any], folder: Path, *arguments: str, release: str = "test"
) -> list[dict[str, Any]]:
    """Return what the chart renders with these values."""
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    return documents(await helm("template", release, str(CHART), "--values", str(path), *arguments))


async def objects(values: dict[str, Any], folder: Path) -> Objects:
    """Return what the chart renders, by kind; of dashboards the last."""
    return {each["kind"]: each for each in await rendered(values, folder) if "grafana_dashboard" not in str(each)}


async def refusal(values: dict[str, Any], folder: Path) -> str:
    """Return what Helm says against these values."""
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    return await helm("template", "test", str(CHART), "--values", str(path), code=1)


def pod(found: Objects) -> dict[str, Any]:
    """Return the specification of the pod."""
    spec: dict[str, Any] = found["Deployment"]["spec"]["template"]["spec"]
    return spec


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value below another, with its path."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def test_what_is_made_from_elsewhere_is_up_to_date() -> None:
    """`make docs` would change nothing: versions, rules, dashboards, and the settings in the schema."""
    made = MADE["pages"]()
    assert {path: path.read_text() for path in made if path.exists()} == made
    kept = {path for path in (CHART / "files").rglob("*") if path.is_file()}
    assert kept == {path for path in made if path.is_relative_to(CHART / "files")}


def test_version_of_chart_and_exporter_are_one() -> None:
    """Who installs version X of the chart gets version X of the exporter."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


@pytest.mark.parametrize("case", CASES)
async def test_helm_has_nothing_to_say_against_the_chart(case: str, tmp_path: Path) -> None:
    """Not even as a warning."""
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(CASES[case]))
    said = await helm("lint", "--strict", str(CHART), "--values", str(path))
    assert "0 chart(s) failed" in said
    assert "WARNING" not in said


@pytest.mark.parametrize("case", CASES)
async def test_kubernetes_knows_every_field(case: str, tmp_path: Path) -> None:
    """The oldest version that is supported, and the newest; fields of the operator are not Kubernetes' own."""
    for version in (OLDEST, NEWEST):
        found = await rendered(CASES[case], tmp_path, "--kube-version", version)
        path = tmp_path / "manifests.yaml"
        path.write_text(yaml.safe_dump_all([each for each in found if each["apiVersion"] != OPERATOR]))
        await done("kubernetes-validate", "--strict", "-k", version, str(path))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.fault("X26")
async def test_the_pod_keeps_to_the_restricted_standard(case: str, tmp_path: Path) -> None:
    """Field by field: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    found = await objects(CASES[case], tmp_path)
    spec = pod(found)
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & set(spec)
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= allowed
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context.get("runAsUser", 1) > 0
    assert not {"sysctls", "seLinuxOptions", "appArmorProfile", "windowsOptions"} & set(context)
    (container,) = spec["containers"]
    # All that it has, so that nothing here takes back what the pod has.
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert all("hostPort" not in port for port in container["ports"])
    assert "lifecycle" not in container


@pytest.mark.parametrize("case", CASES)
@pytest.mark.fault("X26")
async def test_the_pod_is_given_nothing_that_it_does_not_need(case: str, tmp_path: Path) -> None:
    """No token of Kubernetes, no variables of other services, no file that it could write or others read."""
    found = await objects(CASES[case], tmp_path)
    spec = pod(found)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    if "ServiceAccount" in found:
        assert found["ServiceAccount"]["automountServiceAccountToken"] is False
        assert spec["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    assert all(mount["readOnly"] for mount in spec["containers"][0]["volumeMounts"])
    for volume in spec["volumes"]:
        assert (volume.get("projected") or volume.get("secret"))["defaultMode"] == 0o440
    assert not {"Secret", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} & set(found)


async def test_the_pod_is_asked_whether_it_is_healthy_and_ready(tmp_path: Path) -> None:
    """By the kubelet; where there may be TLS or a password, by what the image has for that."""
    for values, way in ((TOKEN, "httpGet"), (EVERYTHING, "exec")):
        (container,) = pod(await objects(values, tmp_path))["containers"]
        healthy, ready = container["livenessProbe"][way], container["readinessProbe"][way]
        if way == "httpGet":
            assert (healthy, ready) == (
                {"path": "/-/healthy", "port": "metrics"},
                {"path": "/-/ready", "port": "metrics"},
            )
        else:
            script = ["python", "/opt/exporter/healthy.py"]
            assert (healthy["command"], ready["command"]) == ([*script, "/-/healthy"], [*script, "/-/ready"])
    assert str(script)[1:-1].replace("'", '"') in (ROOT / "Dockerfile").read_text()


@pytest.mark.fault("X26")
@pytest.mark.parametrize("case", ["token", "everything"])
async def test_everything_finds_its_partner(case: str, tmp_path: Path) -> None:
    """Service, network policy and monitor select by labels and names of ports that are there."""
    found = await objects(CASES[case], tmp_path)
    template = found["Deployment"]["spec"]["template"]
    labels, port = template["metadata"]["labels"].items(), {"metrics"}
    assert found["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert found["Service"]["spec"]["selector"].items() <= labels
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels
    # Out go questions for names, and for the API: to no other port.
    leaving = [each["port"] for rule in found["NetworkPolicy"]["spec"]["egress"] for each in rule["ports"]]
    assert leaving == [53, 53, 443] + ([3128] if case == "everything" else [])
    assert found["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert {each["name"] for each in template["spec"]["containers"][0]["ports"]} == port
    assert {each["targetPort"] for each in found["Service"]["spec"]["ports"]} == port
    assert {each["port"] for each in found["NetworkPolicy"]["spec"]["ingress"][0]["ports"]} == port
    if case == "everything":
        monitor = found["ServiceMonitor"]["spec"]
        assert monitor["selector"]["matchLabels"].items() <= found["Service"]["metadata"]["labels"].items()
        assert {each["port"] for each in monitor["endpoints"]} == {
            each["name"] for each in found["Service"]["spec"]["ports"]
        }
        assert monitor["endpoints"][0]["path"] == SETTINGS["web"]["telemetry_path"]  # type: ignore[index]


async def test_two_releases_share_a_namespace(tmp_path: Path) -> None:
    """Each for its account groups: no name is there twice, and neither selects the pods of the other."""
    everything = {**EVERYTHING, "nameOverride": ""}
    both = [await rendered(everything, tmp_path, release=release) for release in ("emea", "apac")]
    names = [{(each["kind"], each["metadata"]["name"]) for each in found} for found in both]
    assert not names[0] & names[1]
    selectors = [next(each for each in found if each["kind"] == "Service")["spec"]["selector"] for found in both]
    assert selectors[0] != selectors[1]


@pytest.mark.parametrize("case", ["demo", "token", "everything"])
async def test_the_exporter_accepts_what_the_chart_gives_it(case: str, tmp_path: Path) -> None:
    """Its command line, its settings file, and every file in them, with the content that the volumes have."""
    found = await objects(CASES[case], tmp_path)
    spec = pod(found)
    folders = {mount["name"]: Path(mount["mountPath"]) for mount in spec["containers"][0]["volumeMounts"]}
    here = {name: tmp_path / f"{path.name}-mounted" for name, path in folders.items()}
    settings = found["ConfigMap"]["data"]["settings.yml"]
    for folder in here.values():
        folder.mkdir()
    for name, folder in sorted(folders.items(), key=lambda item: -len(str(item[1]))):
        settings = settings.replace(f"{folder}/", f"{here[name]}/")
    (here["settings"] / "settings.yml").write_text(settings)
    secret = "".join(sorted("not-a-secret-but-long-enough"))
    for source in spec["volumes"][0]["projected"]["sources"]:
        for item in next(iter(source.values())).get("items", []):
            certificate = item["path"] == "ca.crt"
            content = AUTHORITIES if certificate else secret
            (here["settings"] / item["path"]).write_text(content)
    if "web" in here:
        (here["web"] / "config.yml").write_text("rate_limit: {}")
    (argument, command) = spec["containers"][0]["args"]
    argument = argument.replace(str(folders["settings"]), str(here["settings"]))
    loaded = load([argument, command], {}, ["latency_seconds"])
    assert loaded.settings.web.listen_address.port == spec["containers"][0]["ports"][0]["containerPort"]
    assert (loaded.settings.api.token_file is None) == (case == "demo")
    if case == "everything":
        assert loaded.settings.api.account_groups == ("1234567890", "5678")
        assert loaded.settings.metrics.max_series == 1_000_000
        given = {f"{group}.{field}" for group, fields in SETTINGS.items() for field in fields}
        assert given <= {name for name, origin in loaded.origins.items() if origin != "default"}


def test_the_schema_knows_every_setting_that_is_not_a_matter_of_the_chart() -> None:
    """What the chart keeps to itself has a value of its own instead."""
    groups = SCHEMA["properties"]["settings"]["properties"]
    known = {f"{group}.{field}" for group, shape in groups.items() for field in shape["properties"]}
    elsewhere = MADE["ELSEWHERE"]
    assert known == {doc.name for doc in reference()} - set(elsewhere)
    assert {value for value in elsewhere.values() if value} <= {path for path, _ in leaves(VALUES)}


def test_the_schema_knows_every_value_and_no_other() -> None:
    """A value that the chart does not have can not be set."""

    def compare(values: dict[str, Any], shape: dict[str, Any], path: str) -> None:
        if "properties" in shape and path != "settings":
            assert shape["additionalProperties"] is False, path
            if path not in ("resources", "podSecurityContext"):
                assert set(values) == set(shape["properties"]) - {"global"}, path
            for name, value in values.items():
                if isinstance(value, dict):
                    compare(value, shape["properties"][name], name)

    compare(VALUES, SCHEMA, "")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "token.secretName: name the Secret that holds the API token, or try the chart without one: demo: true"),
        ({"tokn": {"secretName": "x"}}, "at '': additional properties 'tokn' not allowed"),
        ({"token": {"secret": "x"}}, "at '/token': additional properties 'secret' not allowed"),
        (
            {**TOKEN, "settings": {"api": {"token": "x"}}},
            "at '/settings/api': additional properties 'token' not allowed",
        ),
        ({**TOKEN, "settings": {"pol": {}}}, "at '/settings': additional properties 'pol' not allowed"),
        ({**TOKEN, "settings": {"poll": {"interval": 60}}}, "at '/settings/poll/interval': got number, want string"),
        (
            {**TOKEN, "settings": {"poll": {"interval": "60"}}},
            "at '/settings/poll/interval': '60' does not match pattern",
        ),
        ({**TOKEN, "settings": {"api": {"proxy": "http://me:secret@proxy:1"}}}, "at '/settings/api/proxy': "),
        ({**TOKEN, "settings": {"metrics": {"agent_names": False}}}, "value must be one of 'plain', 'hashed', 'off'"),
        ({**TOKEN, "settings": {"metrics": {"agent_names": "hashed"}}}, "hashed names need a key"),
        ({**TOKEN, "agentNamesKey": {"secretName": "x"}}, "a key needs hashed names"),
        (
            {**TOKEN, "podSecurityContext": {"runAsUser": 0}},
            "at '/podSecurityContext/runAsUser': minimum: got 0, want 1",
        ),
        ({**TOKEN, "podSecurityContext": {"runAsNonRoot": False}}, "additional properties 'runAsNonRoot' not allowed"),
        ({**TOKEN, "image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match pattern"),
        ({**TOKEN, "replicas": "2"}, "at '/replicas': got string, want integer"),
        (
            {**TOKEN, "serviceMonitor": {"enabled": "yes please"}},
            "at '/serviceMonitor/enabled': got string, want boolean",
        ),
    ],
)
async def test_what_is_wrong_in_the_values_is_refused_by_its_name(
    values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """Before anything is installed."""
    assert said in await refusal(values, tmp_path)


async def test_rules_and_dashboards_are_those_of_the_project(tmp_path: Path) -> None:
    """Unchanged by the templates, and accepted by Prometheus."""
    found = await rendered(EVERYTHING, tmp_path)
    rule = next(each for each in found if each["kind"] == "PrometheusRule")
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(rule["spec"]))
    await done("promtool", "check", "rules", str(path))
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/thousandeyes.rules.yml").read_text())
    dashboards: dict[str, str] = {}
    for each in found:
        if each["metadata"]["labels"].get("grafana_dashboard") == "1":
            assert each["metadata"]["annotations"] == {"grafana_folder": "ThousandEyes"}
            dashboards |= each["data"]
    assert dashboards == {path.name: path.read_text() for path in (ROOT / "grafana/dashboards").glob("*.json")}


async def test_the_job_is_called_as_the_rules_call_it(tmp_path: Path) -> None:
    """As in Prometheus' configuration file."""
    monitor = (await objects(EVERYTHING, tmp_path))["ServiceMonitor"]["spec"]
    (relabeling,) = monitor["endpoints"][0]["relabelings"]
    assert relabeling["targetLabel"] == "job"
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert [job["job_name"] for job in config["scrape_configs"]] == [relabeling["replacement"]]
    jobs = set(re.findall('job="([^"]+)"', (ROOT / "deploy/prometheus/thousandeyes.rules.yml").read_text()))
    assert jobs == {relabeling["replacement"]}


async def test_new_settings_start_a_new_pod_and_new_labels_do_not(tmp_path: Path) -> None:
    """The exporter reads its settings once."""

    async def checksum(**values: Any) -> str:
        found = await objects({**TOKEN, **values}, tmp_path)
        return str(found["Deployment"]["spec"]["template"]["metadata"]["annotations"]["checksum/settings"])

    assert await checksum(settings={"log": {"level": "debug"}}) != await checksum()
    assert await checksum(service={"labels": {"a": "b"}}) == await checksum()


async def test_the_page_shows_values_that_exist(tmp_path: Path) -> None:
    """Its example renders, and every value that it names in its table is one."""
    page = (ROOT / "docs/kubernetes.md").read_text()
    example, _ = (yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert "SharePoint" in (await objects(example, tmp_path))["ConfigMap"]["data"]["settings.yml"]
    known = {path for path, _ in leaves(VALUES)} | set(VALUES)
    known |= {path.rpartition(".")[0] for path in known}
    for first_cell in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE):
        named = re.findall("`([^`]+)`", first_cell)
        for name in named:
            full = named[0].partition(".")[0] + name if name.startswith(".") else name
            assert full in known, full
