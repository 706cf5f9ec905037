"""Look through ``deploy/``: schemas, linters, and that what one of its files names is in another.

Containers and clusters are not here; what can be run without them is run by ``tests/host/test_deployment.py``.
"""

import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Set, Tuple, Union

import workflows
import yaml

DEPLOY = workflows.PROJECT / "deploy"
KUBERNETES = ("1.30", "1.34", "1.37")
"""Versions whose schemas the manifests must fit: an old one that is still run, and newer ones."""

Found = Iterator[str]


def tools() -> Found:
    """Let the schemas and the linters have their say."""
    compose = sorted((DEPLOY / "compose").glob("*.yml"))
    manifests = sorted((DEPLOY / "kubernetes").glob("*.yml"))
    gitlab, github = DEPLOY / "ci" / "gitlab-ci.yml", DEPLOY / "ci" / "github-actions.yml"
    schema = ["check-jsonschema", "--builtin-schema"]
    commands: List[Sequence[Union[str, Path]]] = [
        [*schema, "vendor.compose-spec", *compose],
        [*schema, "vendor.gitlab-ci", gitlab],
        [*schema, "vendor.github-workflows", github],
        [*workflows.ZIZMOR, github],
        [*workflows.YAMLLINT, *DEPLOY.rglob("*.yml")],
        ["hadolint", *DEPLOY.rglob("Dockerfile")],
    ]
    commands += [["kubernetes-validate", "--strict", "--quiet", "-k", version, *manifests] for version in KUBERNETES]
    yield from workflows.refused(commands, "deploy/")
    yield from workflows.unpinned(github)
    others = "".join(path.read_text(encoding="utf-8") for path in workflows.WORKFLOWS.glob("*.yml"))
    for line in github.read_text(encoding="utf-8").splitlines():
        if " uses: " in line and line.partition("uses: ")[2] not in others:
            yield f"{github.name}: {line.strip()} is not the version that .github/workflows has"


def in_compose(stack: Dict[str, Any], folder: Path) -> Found:
    """Yield what a stack of Compose should not be like. ``folder``: where its file is."""
    networks, secrets = stack["networks"], stack["secrets"]
    for name, service in stack["services"].items():
        for needed in ("healthcheck", "restart", "cap_drop", "security_opt", "logging"):
            if needed not in service:
                yield f"{name} has no {needed}"
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        if set(limits) != {"cpus", "memory", "pids"}:
            yield f"{name} has no limits of its resources"
        if not service.get("read_only") and name != "duckling":
            yield f"{name} may write to its file system"
        if "ports" in service and name != "nginx":
            yield f"{name} publishes ports"
        if name != "nginx" and any(not (networks[network] or {}).get("internal") for network in service["networks"]):
            yield f"{name} is on a network that leads out"
        yield from (f"{name}: no secret {secret}" for secret in service.get("secrets", []) if secret not in secrets)
        yield from (
            f"{name} waits for {other}" for other in service.get("depends_on", {}) if other not in stack["services"]
        )
        for source in [volume.split(":")[0] for volume in service.get("volumes", [])]:
            if source not in stack["volumes"] and not (folder / source).exists():
                yield f"{name}: no file {source}"
        for variable, value in service.get("environment", {}).items():
            if variable.endswith(("PASSWORD", "TOKEN")) or re.search(r"://[^/@]*:[^/@]+@", str(value)):
                yield f"{name}: {variable} is a secret in the environment"


def _pods(documents: List[Dict[str, Any]]) -> Iterator[Tuple[str, Dict[str, Any], Dict[str, Any]]]:
    for document in documents:
        template = document.get("spec", {}).get("template")
        if template:
            yield f"{document['kind']} {document['metadata']['name']}", template, document


def in_kubernetes(documents: List[Dict[str, Any]], secrets: Set[str]) -> Found:
    """Yield what manifests should not be like. ``secrets``: those that the documentation lets people make."""
    there = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    labels = {each["spec"]["template"]["metadata"]["labels"]["app"] for _, _, each in _pods(documents)}
    namespaces = {each["metadata"].get("namespace") for each in documents if each["kind"] != "Namespace"}
    if namespaces != {"tea-room"}:
        yield f"namespaces: {namespaces}"
    text = yaml.safe_dump_all(documents)
    for label in re.findall(r"(?:selector|matchLabels|podSelector):\s+app: (\S+)", text):
        if label not in labels:
            yield f"no pod has the label app: {label}"
    for name, template, document in _pods(documents):
        pod = template["spec"]
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name}: its pods get a token of the cluster"
        selector = document["spec"].get("selector")
        if selector and selector["matchLabels"] != template["metadata"]["labels"]:
            yield f"{name}: does not select its own pods"
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for volume in volumes.values():
            if "configMap" in volume and ("ConfigMap", volume["configMap"]["name"]) not in there:
                yield f"{name}: no ConfigMap {volume['configMap']['name']}"
        wanted = [volume["secret"]["secretName"] for volume in volumes.values() if "secret" in volume]
        claims = {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])}
        for container in pod["containers"]:
            where = f"{name}: {container['name']}"
            wanted += [
                entry["valueFrom"]["secretKeyRef"]["name"]
                for entry in container.get("env", [])
                if "secretKeyRef" in entry.get("valueFrom", {})
            ]
            own = {**pod["securityContext"], **container.get("securityContext", {})}
            safe = {"runAsNonRoot": True, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False}
            if any(own.get(key) != value for key, value in safe.items()) or own.get("capabilities") != {
                "drop": ["ALL"]
            }:
                yield f"{where} has rights that it does not need"
            if set(container.get("resources", {})) != {"requests", "limits"}:
                yield f"{where} has no resources"
            if document["kind"] != "Job" and not {"readinessProbe", "livenessProbe"} <= set(container):
                yield f"{where} has no probes"
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in {*volumes, *claims}:
                    yield f"{where} mounts {mount['name']}, which is not there"
        yield from (f"{name}: no secret {secret}" for secret in wanted if secret not in secrets)
        replicated = document["kind"] == "StatefulSet" or document["spec"].get("replicas", 1) > 1
        if replicated and ("PodDisruptionBudget", document["metadata"]["name"]) not in there:
            yield f"{name} has no PodDisruptionBudget"
        if ("NetworkPolicy", template["metadata"]["labels"]["app"]) not in there:
            yield f"{name} has no NetworkPolicy"


def alike() -> Found:
    """Yield where two files of ``deploy/`` that should say the same do not."""
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yml").read_text(encoding="utf-8"))
    unbuilt = yaml.safe_load((DEPLOY / "compose" / "no-build.yml").read_text(encoding="utf-8"))
    mounted = {volume.split(":")[1] for volume in unbuilt["services"]["rasa-1"]["volumes"]} - {"/app/site"}
    recipe = (DEPLOY / "rasa" / "Dockerfile").read_text(encoding="utf-8")
    copied = set()
    for sources, target in re.findall(r"^COPY (.+) (/\S+)$", recipe, re.MULTILINE):
        for source in sources.split():
            copied.add(f"{target}{Path(source).name}" if target.endswith("/") else target)
    if copied - {"/tmp/requirements.txt"} != mounted:
        yield f"the Dockerfile copies {sorted(copied)}, no-build.yml mounts {sorted(mounted)}"
    if unbuilt["services"]["rasa-1"]["image"] != re.findall(r"^FROM (\S+)$", recipe, re.MULTILINE)[0]:
        yield "no-build.yml has another image than the Dockerfile"
    manifests = "".join(path.read_text(encoding="utf-8") for path in (DEPLOY / "kubernetes").glob("*.yml"))
    for service in compose["services"].values():
        name = service["image"].partition(":")[0]
        for image in re.findall(rf"image: ({re.escape(name)}:\S+)", manifests):
            if image != service["image"]:
                yield f"Kubernetes has {image}, Compose {service['image']}"
    proxy = (DEPLOY / "actions" / "proxy.conf").read_text(encoding="utf-8").replace("action-server:", "127.0.0.1:")
    if "".join(f"    {line}\n" if line else "\n" for line in proxy.splitlines()) not in manifests:
        yield "kubernetes/actions.yml has another proxy.conf than actions/"
    version = re.findall(r'VERSION = "(.+)"', (workflows.PROJECT / "extras" / "_version.py").read_text())[0]
    if f"rasa-extras=={version}" not in (DEPLOY / "rasa" / "requirements.txt").read_text():
        yield "rasa/requirements.txt has another version of rasa-extras"


PLANTED_IN_COMPOSE: Dict[str, Callable[[Dict[str, Any]], object]] = {
    "a port": lambda stack: stack["services"]["redis"].update(ports=["6379:6379"]),
    "no health check": lambda stack: stack["services"]["events"].pop("healthcheck"),
    "no limits": lambda stack: stack["services"]["rasa-1"].pop("deploy"),
    "a way out": lambda stack: stack["services"]["action-server"]["networks"].update(outside=None),
    "no such secret": lambda stack: stack["secrets"].pop("tls_key"),
    "no such file": lambda stack: stack["services"]["redis"]["volumes"].append("./no.conf:/no.conf"),
    "a password": lambda stack: stack["services"]["events"]["environment"].update(URL="amqp://events:x@rabbitmq"),
    "a file system": lambda stack: stack["services"]["nginx"].update(read_only=False),
}
PLANTED_IN_KUBERNETES: Dict[str, Callable[[Dict[str, Any]], object]] = {
    "no probe": lambda pod: pod["spec"]["containers"][0].pop("livenessProbe"),
    "no limits": lambda pod: pod["spec"]["containers"][0].pop("resources"),
    "another label": lambda pod: pod["metadata"]["labels"].update(app="other"),
    "root": lambda pod: pod["spec"]["securityContext"].pop("runAsNonRoot"),
    "no volume": lambda pod: pod["spec"]["volumes"].pop(),
    "no secret": lambda pod: pod["spec"]["volumes"].append({"name": "x", "secret": {"secretName": "other"}}),
    "no map": lambda pod: pod["spec"]["volumes"].append({"name": "x", "configMap": {"name": "other"}}),
}


def overlooked(stack: Dict[str, Any], folder: Path, documents: List[Dict[str, Any]], secrets: Set[str]) -> Found:
    """Yield the faults, planted one at a time, that are not found."""
    for fault, plant in PLANTED_IN_COMPOSE.items():
        changed = deepcopy(stack)
        plant(changed)
        if not list(in_compose(changed, folder)):
            yield f"in_compose() overlooks {fault}"
    for fault, plant in PLANTED_IN_KUBERNETES.items():
        several = deepcopy(documents)
        plant(next(pod for name, pod, _ in _pods(several) if name == "Deployment rasa"))
        if not list(in_kubernetes(several, secrets)):
            yield f"in_kubernetes() overlooks {fault}"


def main() -> List[str]:
    """Return what is wrong."""
    compose = DEPLOY / "compose" / "compose.yml"
    documents = [
        document
        for path in sorted((DEPLOY / "kubernetes").glob("*.yml"))
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]
    page = (workflows.PROJECT / "docs" / "how-to" / "deployment.md").read_text(encoding="utf-8")
    made = set(re.findall(r"create secret \w+ (\w+)", page))
    stack = yaml.safe_load(compose.read_text(encoding="utf-8"))
    return [
        *tools(),
        *in_compose(stack, compose.parent),
        *in_kubernetes(documents, made),
        *alike(),
        *overlooked(stack, compose.parent, documents, made),
    ]


if __name__ == "__main__":
    sys.exit("\n".join(main()) or 0)
