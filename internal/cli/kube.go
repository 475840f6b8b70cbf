package cli

import (
	"context"
	"fmt"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/kubepolicy"
	"github.com/brindle-net/brindle/internal/policytest"
)

// decode reads a file of resources. Policies of Kubernetes come out as the
// policies that they are stored as, unless the command takes objects of
// Kubernetes as they are.
func (f *fileFlags) decode(name string, data []byte) ([]v3.Document, error) {
	if f.cluster {
		return v3.DecodeWith(policytest.Kinds(), name, data)
	}
	kinds := kubepolicy.PolicyKinds()
	if f.old {
		kinds = append(kinds, v1Kinds()...)
	}
	docs, err := v3.DecodeWith(kinds, name, data)
	if err == nil {
		docs, err = converted3(docs)
	}
	if err != nil {
		return nil, err
	}
	namespace := f.namespace
	if namespace == "" {
		namespace = "default"
	}
	return kubepolicy.Policies(docs, namespace)
}

// converted reports whether an object was made of a policy of Kubernetes.
func converted(o v3.Object) bool { return o.Meta().Annotations[kubepolicy.SourceAnnotation] != "" }

// tellStored says what became of a policy of Kubernetes.
func tellStored(e *Env, o v3.Object) {
	if m := o.Meta(); converted(o) {
		fmt.Fprintf(e.Stdout, "%s: stored as %s\n", word(m.Annotations[kubepolicy.SourceAnnotation]), titled(kindOf(o), m.Namespace, m.Name))
	}
}

// as runs a change with a client that may write the object. Names of converted
// policies are not for users to write, unless what is there, and what is to
// be there, was converted.
func (s *session) as(ctx context.Context, o v3.Object, change func(*client.Client) error) error {
	kind, m := kindOf(o), o.Meta()
	if !kubepolicy.Reserved(kind.Kind, m.Name) {
		return change(s.Client)
	}
	old, err := s.Get(ctx, kind, m.Namespace, m.Name)
	switch {
	case err != nil && !client.IsNotFound(err):
		return err
	case err == nil && !converted(old):
		return fmt.Errorf("%w: it mirrors a policy of Kubernetes, or somebody else gave it this name", client.ErrReadOnly)
	}
	return change(client.New(s.driver, client.Config{Component: true}))
}
