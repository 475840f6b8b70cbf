package v3

//go:generate go run ./internal/fieldsgen -o ../../docs/reference/fields.md

// honoured names, per field, the test that proves that the field does what it
// says: "folder.TestName" or the path of a scenario. A field that is not here
// is accepted and stored, and whoever sets it is told that nothing comes of it
// yet.
//
// A key is a kind with the path of a field, "[]" behind lists, such as
// "BGPFilter.spec.exportV4[].cidr". "Rule." in front of the path of a field of
// a rule stands for the rules of every kind whose own list of rules is named.
var honoured = map[string]string{}
