"""The configuration files of a node's components, and what runs in each cluster: pure functions of where things are."""

import json
from pathlib import Path
from typing import Any, Final

from tests.cluster.controlplane import PODS

NODE: Final = "inferno-node"
ADDRESS: Final = "10.250.0.1"
"""The node's own, on an interface that nothing outside its network namespace sees."""
DNS_ADDRESS: Final = "10.96.0.10"
DOMAIN: Final = "cluster.local"
CONTAINERD_SOCKET: Final = "/run/containerd/containerd.sock"
PAUSE_IMAGE: Final = "localhost/pause:1"
VOLUMES: Final = "/var/lib/volumes"
VOLUME_COUNT: Final = 64
_VOLUME_SIZE: Final = "64Gi"


def containerd(runc: str, plugins: str, networks: Path) -> str:
    """containerd's configuration: ``plugins`` is the folder of the CNI programs, ``networks`` that of ``network``."""
    return f"""\
version = 3

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"

[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE, which containers and virtual machines often lack, no process may be spared more than we are.
  restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{networks}"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "{runc}"
"""


def network() -> str:
    """The CNI configuration. Each pod has a link of its own to the node, so all that it sends meets kube-proxy's rules.

    Behind a bridge, what one pod answers another would go past them, unless the kernel has br_netfilter.
    """
    pods = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": pods}]})


def kubelet(client_authority: Path, resolv: Path) -> str:
    """The kubelet's configuration."""
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"x509": {"clientCAFile": str(client_authority)}, "anonymous": {"enabled": False}},
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": DOMAIN,
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            # It shares the disk with whatever else is on this machine, which is not its business.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "evictionPressureTransitionPeriod": "1s",
            "failCgroupV1": False,
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,
            "resolvConf": str(resolv),
        }
    )


def addons(coredns_image: str) -> list[dict[str, Any]]:
    """What a cluster has besides its components: names, and volumes to claim."""
    return [*_dns(coredns_image), *_volumes()]


def _dns(image: str) -> list[dict[str, Any]]:
    name = {"name": "coredns", "namespace": "kube-system"}
    labels = {"k8s-app": "kube-dns"}
    rbac = "rbac.authorization.k8s.io"
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    # No forward: this cluster knows no names but its own.
    corefile = f".:53 {{\n  errors\n  ready\n  kubernetes {DOMAIN} in-addr.arpa {{\n    ttl 5\n  }}\n}}\n"
    container = {
        "name": "coredns",
        "image": image,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"kind": "ServiceAccount", **name}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": {"Corefile": corefile}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": DNS_ADDRESS, "selector": labels, "ports": ports},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": name,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "serviceAccountName": "coredns",
                        "dnsPolicy": "Default",
                        "priorityClassName": "system-cluster-critical",
                        "containers": [container],
                        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
                    },
                },
            },
        },
    ]


def _volumes() -> list[dict[str, Any]]:
    """A default StorageClass, and folders of the node that wait to be claimed. A folder serves one claim, once."""
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "node", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
    }
    volumes = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"node-{number}"},
            "spec": {
                "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"],
                "capacity": {"storage": _VOLUME_SIZE},
                "storageClassName": "node",
                "hostPath": {"path": f"{VOLUMES}/{number}", "type": "Directory"},
            },
        }
        for number in range(VOLUME_COUNT)
    ]
    return [storage, *volumes]
