package policytest

import (
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/kubepolicy"
)

// Kinds are the kinds that may stand in the files of a cluster beside those of
// the projectcalico.org/v3 API: PolicyTest, and of Kubernetes the policies, who
// is in a cluster, and what makes pods.
func Kinds() []v3.ExtraKind {
	out := append(kubepolicy.Kinds(), v3.ExtraKind{Kind: Kind, APIVersion: APIVersion, New: func() v3.Object { return &PolicyTest{} }})
	for _, k := range []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"} {
		out = append(out, v3.ExtraKind{Kind: k, APIVersion: "apps/v1", New: func() v3.Object { return &podMaker{} }})
	}
	return append(out,
		v3.ExtraKind{Kind: "Job", APIVersion: "batch/v1", New: func() v3.Object { return &podMaker{} }},
		v3.ExtraKind{Kind: "CronJob", APIVersion: "batch/v1", New: func() v3.Object { return &podMaker{} }},
	)
}

// Namespaced reports whether objects of a kind that Kinds adds are in a
// namespace.
func Namespaced(kind string) bool {
	return !slices.Contains([]string{Kind, "Namespace", "ClusterNetworkPolicy"}, kind)
}

// podMaker is an object of Kubernetes that makes pods of a template. In tests
// it stands for one of them, with its own name.
type podMaker struct {
	v3.TypeMeta         `json:",inline"`
	kubepolicy.Metadata `json:"metadata"`
	Spec                podMakerSpec `json:"spec"`
}

type podMakerSpec struct {
	Template    podTemplate `json:"template"`
	JobTemplate jobTemplate `json:"jobTemplate"` // of a CronJob
}

type jobTemplate struct {
	Spec struct {
		Template podTemplate `json:"template"`
		ignoring `json:",inline"`
	} `json:"spec"`
}

type podTemplate struct {
	Metadata kubepolicy.Metadata `json:"metadata"`
	Spec     kubepolicy.PodSpec  `json:"spec"`
}

// ignoring marks a struct that it is in as knowing only some fields.
type ignoring struct{}

func (*ignoring) Partial()     {}
func (*podMaker) Partial()     {}
func (*podMakerSpec) Partial() {}
func (*jobTemplate) Partial()  {}
func (*podTemplate) Partial()  {}

// pod is one of the pods that would be made.
func (m *podMaker) pod() *kubepolicy.Pod {
	t := m.Spec.Template
	if m.Type().Kind == "CronJob" {
		t = m.Spec.JobTemplate.Spec.Template
	}
	p := &kubepolicy.Pod{Metadata: t.Metadata, Spec: t.Spec}
	p.Name, p.Namespace = m.Name, m.Namespace
	return p
}
