package v3

// ExtraKind is a kind that is not of this API and may still stand in a file
// beside those that are: a test, or an object of Kubernetes. A type that
// implements Partial knows only some of the fields of its kind.
type ExtraKind struct {
	Kind, APIVersion string
	New              func() Object
}

// Partial is implemented by structs of extra kinds that another program
// defines: keys that the struct has no field for are passed over.
type Partial interface{ Partial() }

// DecodeWith is DecodeAll for files in which objects of extra kinds may stand
// too. An extra kind is known by its name and apiVersion together, so that it
// may share its name with a kind of this API.
func DecodeWith(extra []ExtraKind, name string, data []byte) ([]Document, error) {
	return decode(&reader{file: name, extra: extra}, data)
}

// typeOf finds the kind of a document, an extra one first.
func (r *reader) typeOf(t *tree) (KindInfo, FieldErrors) {
	kind, version := t.get("kind"), t.get("apiVersion")
	versions := ""
	for _, k := range r.extra {
		switch {
		case kind == nil || kind.scalar != k.Kind:
		case version != nil && version.scalar == k.APIVersion:
			return KindInfo{Kind: k.Kind, New: k.New}, nil
		case versions == "":
			versions = k.APIVersion
		default:
			versions += " or " + k.APIVersion
		}
	}
	info, wrong := typeOf(t)
	if versions == "" {
		return info, wrong
	}
	if info.New != nil && len(wrong) > 0 { // of this API too, with another apiVersion
		wrong[0].Rule += " or " + versions
	}
	if info.New == nil {
		wrong = FieldErrors{{Path: "apiVersion", Rule: "must be " + versions}}
		if version != nil {
			wrong[0].Value = version.scalar
		}
	}
	return info, wrong
}
