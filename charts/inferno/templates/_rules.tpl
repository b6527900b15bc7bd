{{- /* What the operator may do to the models it looks after. Every verb here is one that it uses; a test holds them
against the operator's own list. */}}
{{- define "inferno.rules" -}}
- apiGroups: [inferno.ai]
  resources: [infernomodels]
  verbs: [get, list, watch]
- apiGroups: [inferno.ai]
  resources: [infernomodels/status]
  verbs: [patch]
# Server-side apply creates what is missing, so it needs create beside patch.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, get, list, patch, watch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [create, get, list, patch, watch]
# What a model may cease to ask for is deleted.
- apiGroups: [""]
  resources: [services]
  verbs: [create, delete, get, list, patch, watch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create, delete, get, list, patch, watch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [create, delete, get, list, patch, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses, networkpolicies]
  verbs: [create, delete, get, list, patch, watch]
# Where the cluster knows of them.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [create, delete, get, patch]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [create, delete, get, patch]
- apiGroups: [monitoring.coreos.com]
  resources: [prometheusrules, servicemonitors]
  verbs: [create, delete, get, patch]
# Who names an owner that blocks its children's deletion must be allowed to set the owner's finalizers.
- apiGroups: [inferno.ai]
  resources: [infernomodels/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [create, get, list, patch, watch]
# A pod that its node evicts is deleted, so that no more requests are sent to it; nodes tell of that in Events.
- apiGroups: [""]
  resources: [pods]
  verbs: [delete, list, watch]
# How far a fetch has come stands in its container's log.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# Pods are given other resources while they run; then their ReplicaSet is to make new ones with the same.
- apiGroups: [""]
  resources: [pods/resize]
  verbs: [patch]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, delete, get, list, patch, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, list, watch]
{{- end }}

{{- /* A request to create has no name, so only the others can be held to the one Lease. */}}
{{- define "inferno.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [inferno-operator]
  verbs: [get, update]
{{- end }}
