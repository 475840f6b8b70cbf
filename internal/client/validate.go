package client

import v3 "github.com/brindle-net/brindle/api/v3"

// validate returns what is wrong with an object on its own.
func validate(o v3.Object) v3.FieldErrors { return nil }
