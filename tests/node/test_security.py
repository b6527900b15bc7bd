"""What a model's pods and the operator may do, and that what is secret stays so."""

import json
import secrets

from tests.cluster.sandbox import REPOSITORY
from tests.node import images
from tests.node.connect import NodeCluster
from tests.node.place import UNLIMITED, Place

SOURCE = f"pvc://models/{images.GGUF}"
RIGHTS = REPOSITORY / "tests" / "data" / "operator-can-i.txt"
ACCOUNT = "system:serviceaccount:inferno-system:inferno"
LIST_TOKENS = "import os; print([path for path, _, files in os.walk('/var/run/secrets') for file in files])"
# Asks with the key in each of the places where one may be shown, and with one that is wrong.
ASK = """
import sys, httpx
url, key = sys.argv[1:]
body = {"model": "secretive", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}
for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}, {"Authorization": f"Bearer wrong-{key}"}):
    print(httpx.post(url + "/chat/completions", json=body, headers=headers, timeout=60).status_code)
query = {"model": "secretive", "prompt": "Hello", "max_tokens": 4, "api_key": key}
print(httpx.get(url + "/stream/sse", params=query, timeout=60).status_code)
"""


def test_the_restricted_profile_is_enforced_where_the_operator_runs(cluster: NodeCluster, release: None) -> None:
    # The API server names the pods that would not be let in.
    enforce = ("pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    assert "Warning" not in cluster.kubectl("label", "namespace", "inferno-system", *enforce)
    pods = cluster.get("pods", "--namespace=inferno-system")["items"]
    assert pods
    cluster.kubectl("delete", "pods", "--all", "--namespace=inferno-system")
    cluster.kubectl(
        "rollout", "status", "deployment/inferno", "--namespace=inferno-system", "--timeout=300s", timeout=310
    )


def test_a_models_pods_have_no_token(place: Place) -> None:
    place.serve_model("tiny", SOURCE)
    (pod,) = place.pods()
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert not any("projected" in volume for volume in pod["spec"]["volumes"])
    name = pod["metadata"]["name"]
    run = ("exec", name, f"--namespace={place.name}", "--container=runtime", "--", "python3", "-c", LIST_TOKENS)
    assert place.cluster.kubectl(*run).strip() == "[]"


def test_the_operators_rights_are_those_that_are_known(place: Place) -> None:
    # What anybody may is the cluster's business.
    anybody = rights(place, f"system:serviceaccount:{place.name}:default")
    assert sorted(rights(place, ACCOUNT) - anybody) == RIGHTS.read_text().splitlines()


def rights(place: Place, account: str) -> set[str]:
    """What an account may do in the namespace: kinds and verbs."""
    listed = place.kubectl("auth", "can-i", "--list", "--no-headers", f"--as={account}").splitlines()
    return {" ".join(line.split()) for line in listed if not line.startswith(" ")}


def test_what_is_secret_is_told_nobody(place: Place, cluster: NodeCluster) -> None:
    key, token = (f"planted-{secrets.token_hex(8)}" for _ in range(2))
    keys = json.dumps([{"name": "somebody", "key": key}])
    place.kubectl("create", "secret", "generic", "keys", f"--from-literal=keys.yaml={keys}")
    place.kubectl(
        "create",
        "secret",
        "generic",
        "bucket",
        f"--from-literal=AWS_ACCESS_KEY_ID=id-{token}",
        f"--from-literal=AWS_SECRET_ACCESS_KEY={token}",
    )
    with place.bucket() as endpoint:
        model = {"source": f"s3://models/{images.GGUF}", "endpoint": endpoint, "credentials": {"name": "bucket"}}
        place.model("secretive", model=model, keysSecret={"name": "keys"}, **UNLIMITED)
        place.until_ready("secretive")
        assert place.run_client(["-c", ASK, place.url("secretive"), key]).split() == ["200", "200", "401", "200"]
        model["source"] = "s3://models/missing.gguf"
        place.model("failing", model=model)
        place.until_condition("Ready", "False", "NotFound", "failing", 300)
    said = everything_said(place, cluster)
    assert key not in said
    assert token not in said.replace(f"id-{token}", "")


def everything_said(place: Place, cluster: NodeCluster) -> str:
    """All logs, events, resources and metrics of the namespace's models, and of the operator."""
    here = f"--namespace={place.name}"
    kinds = "infernomodels,configmaps,events,events.events.k8s.io,deployments,services,pods,replicasets"
    said = [cluster.kubectl("get", kinds, here, "--output=yaml")]
    selectors = {
        "app.kubernetes.io/managed-by=inferno-operator": here,
        "app.kubernetes.io/name=inferno-operator": "--namespace=inferno-system",
    }
    for selector, namespace in selectors.items():
        logs = cluster.kubectl(
            "logs", f"--selector={selector}", namespace, "--all-containers", "--tail=-1", "--prefix", "--ignore-errors"
        )
        assert logs.strip(), selector
        said.append(logs)
    for pod in place.pods("secretive"):
        path = f"/api/v1/namespaces/{place.name}/pods/{pod['metadata']['name']}:8000/proxy/metrics"
        said.append(cluster.kubectl("get", "--raw", path))
    return "\n".join(said)
