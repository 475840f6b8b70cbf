package v3

// ListMeta is the metadata of a list.
type ListMeta struct {
	ResourceVersion string `json:"resourceVersion,omitempty"`
	Continue        string `json:"continue,omitempty"`
}

// List is several objects of one kind, as they are printed and read back. Its
// kind is the kind of the objects with "List" behind it.
type List[T Object] struct {
	TypeMeta `json:",inline"`
	Metadata ListMeta `json:"metadata"`
	Items    []T      `json:"items"`
}

// NewList returns items of the given kind as a list read at a revision.
func NewList[T Object](kind, revision string, items []T) *List[T] {
	if items == nil {
		items = []T{}
	}
	return &List[T]{
		TypeMeta: TypeMeta{Kind: kind + "List", APIVersion: Group},
		Metadata: ListMeta{ResourceVersion: revision},
		Items:    items,
	}
}
