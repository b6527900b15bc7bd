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
  resources: [configmaps, services]
  verbs: [create, get, list, patch, watch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [create, get, list, patch, watch]
# Who names an owner that blocks its children's deletion must be allowed to set the owner's finalizers.
- apiGroups: [inferno.ai]
  resources: [infernomodels/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
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
