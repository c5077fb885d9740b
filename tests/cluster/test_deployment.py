"""The files that start clusters, checked against schemas, since no test can run them."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from jobs.cli import app
from pipeline.config.loading import packaged_config

ROOT = Path(__file__).parents[2]
CLUSTER = packaged_config("cluster")
QUANTITY = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?$"}
# The fields of KubeRay's API (ray.io/v1) that are used here. KubeRay's own definition has 25,000
# lines and is not in any package.
CONTAINER: dict[str, Any] = {
    "type": "object",
    "required": ["name", "image", "resources"],
    "additionalProperties": False,
    "properties": {
        "name": {"enum": ["ray-head", "ray-worker"]},
        "image": {"type": "string"},
        "resources": {
            "type": "object",
            "required": ["requests", "limits"],
            "additionalProperties": {"type": "object", "additionalProperties": QUANTITY},
        },
        "volumeMounts": {
            "type": "array",
            "items": {"type": "object", "required": ["name", "mountPath"]},
        },
    },
}
TEMPLATE: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "additionalProperties": False,
    "properties": {
        "spec": {
            "type": "object",
            "required": ["containers"],
            "additionalProperties": False,
            "properties": {
                "containers": {"type": "array", "minItems": 1, "items": CONTAINER},
                "serviceAccountName": {"type": "string"},
                "securityContext": {"type": "object", "required": ["runAsNonRoot"]},
                "tolerations": {"type": "array"},
                "volumes": {"type": "array", "items": {"type": "object", "required": ["name"]}},
            },
        }
    },
}
START: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
RAY_JOB: dict[str, Any] = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["entrypoint", "rayClusterSpec"],
            "additionalProperties": False,
            "properties": {
                "entrypoint": {"type": "string"},
                "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "SidecarMode"]},
                "submitterConfig": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"backoffLimit": {"type": "integer", "minimum": 0}},
                },
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": {"type": "integer", "minimum": 0},
                "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
                "backoffLimit": {"type": "integer", "minimum": 0},
                "runtimeEnvYAML": {"type": "string"},
                "rayClusterSpec": {
                    "type": "object",
                    "required": ["rayVersion", "headGroupSpec"],
                    "additionalProperties": False,
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "authOptions": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {"mode": {"enum": ["disabled", "token"]}},
                        },
                        "enableInTreeAutoscaling": {"type": "boolean"},
                        "autoscalerOptions": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {"idleTimeoutSeconds": {"type": "integer"}},
                        },
                        "headGroupSpec": {
                            "type": "object",
                            "required": ["rayStartParams", "template"],
                            "additionalProperties": False,
                            "properties": {"rayStartParams": START, "template": TEMPLATE},
                        },
                        "workerGroupSpecs": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["groupName", "rayStartParams", "template"],
                                "additionalProperties": False,
                                "properties": {
                                    "groupName": {"type": "string"},
                                    "replicas": {"type": "integer", "minimum": 0},
                                    "minReplicas": {"type": "integer", "minimum": 0},
                                    "maxReplicas": {"type": "integer", "minimum": 0},
                                    "rayStartParams": START,
                                    "template": TEMPLATE,
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((CLUSTER / name).read_text())
    return data


def test_ray_takes_the_aws_cluster() -> None:
    config = load("ray-up-aws.yaml")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    workers = config["available_node_types"]["gpu"]
    assert workers["resources"] == {"CPU": 16, "GPU": 1}
    assert workers["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    for command in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in command[-1]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"max_workers": "many"}, schema)


def test_the_ray_job_has_the_documented_fields() -> None:
    job = load("rayjob.yaml")
    jsonschema.validate(job, RAY_JOB)
    broken = copy.deepcopy(job)
    broken["spec"]["shutdownAfterJob"] = True
    with pytest.raises(jsonschema.ValidationError, match="shutdownAfterJob"):
        jsonschema.validate(broken, RAY_JOB)
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={cluster['rayVersion']}" in pins
    assert cluster["authOptions"] == {"mode": "token"}
    assert spec["shutdownAfterJobFinishes"]
    assert spec["backoffLimit"] >= 1
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["OMP_WAIT_POLICY"] == "PASSIVE"
    (worker,) = cluster["workerGroupSpecs"]
    (container,) = worker["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    start = cluster["headGroupSpec"]["rayStartParams"]
    assert start["dashboard-host"] == "0.0.0.0"
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], worker)]
    assert all(pod["securityContext"]["runAsUser"] == 1000 for pod in pods)
    for pod in pods:
        (container,) = pod["containers"]
        assert "/dev/shm" in {m["mountPath"] for m in container["volumeMounts"]}
        mounted = {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", ())}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_their_commands_exist() -> None:
    import typer.testing

    command = load("rayjob.yaml")["spec"]["entrypoint"].split()
    assert command[:2] == ["legrad", "run"]
    shown = typer.testing.CliRunner().invoke(app, ["run", "--help"]).output
    assert all(word in shown for word in command if word.startswith("--"))


@pytest.mark.parametrize("name", ["iam-head.json", "iam-worker.json"])
def test_policies_ask_for_little(name: str) -> None:
    policy = json.loads((CLUSTER / name).read_text())
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        actions = statement["Action"]
        actions = [actions] if isinstance(actions, str) else actions
        assert all(re.fullmatch(r"(s3|ec2|iam):[A-Z]\w+", action) for action in actions)
        harmless = all(action.startswith("ec2:Describe") for action in actions)
        assert harmless or statement["Resource"] != "*" or "Condition" in statement


def test_the_image_is_pinned_and_has_no_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    (base,) = [line for line in lines if line.startswith("FROM")]
    assert re.fullmatch(r"FROM python:3\.11\.\d+-slim-bookworm", base)
    (user,) = [line for line in lines if line.startswith("USER")]
    assert user != "USER root"
    (install,) = [line for line in lines if line.startswith("RUN pip install")]
    assert "-c constraints.txt" in install
    assert "boto3" in install.split()  # the AWS autoscaler imports it on the head node
    for line in lines:
        if line.startswith("COPY"):
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "path", ["configs/cluster/ray-up-aws.yaml", "configs/cluster/rayjob.yaml", "Dockerfile"]
)
def test_what_could_not_be_run_says_so(path: str) -> None:
    head = (ROOT / path).read_text().splitlines()[:4]
    assert any(re.search(r"NOT (RUN|BUILT|TESTED) ", line) for line in head)
