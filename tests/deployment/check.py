"""Checks the rendered manifests, the alerts and the dashboard.

Usage: check.py RENDERED PROMTOOL. RENDERED is the folder with the manifests that
.ci/check-deployment rendered, PROMTOOL the path of promtool. Needs PyYAML.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = "CONVERSATION_MEMORY_TARGET"
SOCKET = "unix:/run/conversation-memory/memory.sock"


def rendered(folder, name):
    """Returns the manifests by kind and name, without the hash suffix of generated names."""
    documents = yaml.safe_load_all((folder / f"{name}.yaml").read_text())
    return {(one["kind"], re.sub(r"-[a-z0-9]{10}$", "", one["metadata"]["name"])): one for one in documents}


def pod_of(manifest):
    return manifest["spec"]["template"]["spec"]


def environment(container):
    return {variable["name"]: variable.get("value") for variable in container.get("env", [])}


def mounts(container):
    return {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])}


def check_workloads(manifests, address):
    full = pod_of(manifests["Deployment", "full"])
    stateful = pod_of(manifests["StatefulSet", "stateful"])
    unlabelled = pod_of(manifests["Deployment", "unlabelled"])
    assert "initContainers" not in unlabelled and "volumes" not in unlabelled
    assert environment(unlabelled["containers"][0]) == {}

    for pod in (full, stateful):
        sidecar, agent = pod["initContainers"][0], pod["containers"][0]
        assert sidecar["name"] == "conversation-memory", "the sidecar starts before the agent's init containers"
        assert sidecar["restartPolicy"] == "Always", "the sidecar is a native one"
        check_restricted(sidecar)
        assert environment(agent)[TARGET] == address, "the agent has the sidecar's address"
        assert mounts(agent)["conversation-memory"] == mounts(sidecar)["conversation-memory"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["initContainers"] + pod["containers"]:
            assert mounts(container).keys() <= volumes, "every mount has a volume"
    assert pod_of(manifests["Deployment", "full"])["securityContext"] == {"runAsUser": 1234, "fsGroup": 65532}
    assert [container["name"] for container in full["initContainers"]] == ["conversation-memory", "warm-up"]
    assert environment(full["containers"][0])["MODEL"] == "small", "the agent keeps its own variables"
    assert mounts(full["containers"][0])["models"] == "/models"
    assert mounts(full["containers"][1]) == {}, "other containers do not mount the socket"

    settings = manifests["ConfigMap", "conversation-memory-defaults"]
    assert settings["data"]["LISTEN_ADDR"] == address
    sources = [source["configMapRef"]["name"] for source in full["initContainers"][0]["envFrom"]]
    assert sources == [settings["metadata"]["name"], "conversation-memory"], "the user's settings take precedence"
    check_job(manifests, full["initContainers"][0], settings["data"])


def check_job(manifests, sidecar, settings):
    pod = pod_of(manifests["Job", "conversation-memory-migrate"])
    job = pod["containers"][0]
    assert job["image"] == sidecar["image"], "the migration has the sidecar's version"
    assert "configMap" not in json.dumps(pod), "a change of the settings does not change the Job, which is immutable"
    assert environment(job) == {"DATABASE_URL_FILE": settings["DATABASE_URL_FILE"]}, "the Job migrates the sidecar's database"
    assert settings["DATABASE_URL_FILE"].startswith(mounts(job)["secret"] + "/")
    assert [volume["secret"]["secretName"] for volume in pod["volumes"]] == ["conversation-memory"]


def check_network_policy(manifests):
    """Requires named ports to belong to containers, because several network plugins do not resolve
    the names of ports of init containers, which native sidecars are."""
    pod = pod_of(manifests["Deployment", "agent"])
    names = {port.get("name") for container in pod["containers"] for port in container.get("ports", [])}
    policy = manifests["NetworkPolicy", "agent"]["spec"]
    ports = [port["port"] for rule in policy["ingress"] + policy["egress"] for port in rule["ports"]]
    assert {port for port in ports if isinstance(port, str)} <= names
    assert pod["initContainers"][0]["ports"][0]["containerPort"] in ports, "the policy admits scrapes of the metrics"


def check_operations_policy(manifests):
    """Requires that the policy admits only Prometheus to the operations port of the pods that it
    selects, and everyone to each other port."""
    policy = manifests["NetworkPolicy", "conversation-memory-ops"]["spec"]
    template = manifests["Deployment", "full"]["spec"]["template"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    operations = template["spec"]["initContainers"][0]["ports"][0]["containerPort"]
    open_to = {True: set(), False: set()}
    for rule in policy["ingress"]:
        for port in rule["ports"]:
            if port.get("protocol", "TCP") == "TCP":
                open_to["from" in rule].update(range(port["port"], port.get("endPort", port["port"]) + 1))
    assert open_to[True] == {operations}
    assert open_to[False] == set(range(1, 65536)) - {operations}


def check_service_account_tokens(*renderings):
    """Requires that no pod mounts the token of its service account."""
    for manifests in renderings:
        for (kind, name), manifest in manifests.items():
            has_sidecar = "initContainers" in str(manifest) and name != "unlabelled"
            if kind in ("Job", "Pod") or (kind in ("Deployment", "StatefulSet") and has_sidecar):
                pod = manifest["spec"] if kind == "Pod" else pod_of(manifest)
                assert pod["automountServiceAccountToken"] is False, f"{kind} {name} mounts a token"


def check_restricted(container):
    """Requires the restricted pod security standard and a read-only root. Checkov does not check
    init containers, which native sidecars are."""
    context = container["securityContext"]
    assert context["runAsNonRoot"] is True and context["runAsUser"] == 65532
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]


def check_monitor(manifests):
    """Requires that the monitor scrapes a port of the pods that it selects."""
    monitor = manifests["PodMonitor", "conversation-memory"]["spec"]
    template = manifests["Deployment", "full"]["spec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["initContainers"][0]["ports"]}
    assert ports[monitor["podMetricsEndpoints"][0]["port"]] == 9464


def check_maintenance(sidecar):
    """Requires the Secret at the same path as in the sidecar, because its URLs contain paths."""
    pod = yaml.safe_load((REPOSITORY / "deploy/kubernetes/maintenance.yaml").read_text())["spec"]
    for container in pod["containers"]:
        check_restricted({**container, "securityContext": {**pod["securityContext"], **container["securityContext"]}})
        assert mounts(container)["secret"] == mounts(sidecar)["conversation-memory-secret"]


def expressions_of_dashboard():
    dashboard = json.loads((REPOSITORY / "deploy/grafana/dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$namespace", ".*")


def check_metrics(expressions):
    """Requires that the program records every metric in the expressions."""
    source = "\n".join(path.read_text() for path in sorted((REPOSITORY / "src").rglob("*.rs")))
    recorded = {name.replace(".", "_") for name in re.findall(r'"((?:conversation_memory|rpc|db)\.[a-z_.]+)"', source)}
    recorded |= set(re.findall(r'"(process_[a-z_]+)"', source))
    unit = r"(_seconds)?(_total|_bucket|_count|_sum)?"
    for expression in expressions:
        # Labels and their values are not metric names.
        bare = re.sub(r"\{[^}]*\}|\b(by|on) \([^)]*\)", "", expression)
        for name in re.findall(r"\b(?:conversation_memory|rpc|db|process)_[a-z_]+\b", bare):
            known = any(re.fullmatch(re.escape(metric) + unit, name) for metric in recorded)
            assert known, f"the program does not record the metric {name}"


def check_runbook(rules):
    """Requires a heading in the guide for every alert, and the alert's link to it."""
    headings = re.findall(r"^#+ (\w+)$", (REPOSITORY / "docs/OPERATIONS.md").read_text(), re.MULTILINE)
    for rule in rules:
        assert rule["alert"] in headings, f"docs/OPERATIONS.md does not describe {rule['alert']}"
        assert rule["annotations"]["runbook"] == f"docs/OPERATIONS.md#{rule['alert'].lower()}"
    unknown = {name for name in headings if name.startswith("ConversationMemory")} - {rule["alert"] for rule in rules}
    assert not unknown, f"docs/OPERATIONS.md describes alerts that do not exist: {unknown}"


def check_tests(rules):
    """Requires a test in which it fires for every alert."""
    tests = yaml.safe_load((REPOSITORY / "deploy/prometheus/alerts_test.yaml").read_text())["tests"]
    fire = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fire == {rule["alert"] for rule in rules}


def check_syntax(promtool, expressions):
    rules = [{"record": f"panel_{number}", "expr": expression} for number, expression in enumerate(expressions)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        file.flush()
        subprocess.run([promtool, "check", "rules", file.name], check=True, stdout=subprocess.DEVNULL)


def main():
    folder, promtool = pathlib.Path(sys.argv[1]), sys.argv[2]
    check_workloads(rendered(folder, "workloads"), SOCKET)
    check_workloads(rendered(folder, "loopback"), "127.0.0.1:50051")
    check_monitor(rendered(folder, "workloads"))
    check_operations_policy(rendered(folder, "workloads"))
    example = rendered(folder, "example")
    maintenance = yaml.safe_load((REPOSITORY / "deploy/kubernetes/maintenance.yaml").read_text())
    check_service_account_tokens(
        example, rendered(folder, "workloads"), rendered(folder, "loopback"), {("Pod", "maintenance"): maintenance}
    )
    check_network_policy(example)
    check_maintenance(pod_of(example["Deployment", "agent"])["initContainers"][0])

    groups = yaml.safe_load((REPOSITORY / "deploy/prometheus/alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    panels = list(expressions_of_dashboard())
    check_metrics([rule["expr"] for rule in rules] + panels)
    check_tests(rules)
    check_runbook(rules)
    check_syntax(promtool, panels)


if __name__ == "__main__":
    main()
