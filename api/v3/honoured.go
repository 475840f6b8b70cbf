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
var honoured = map[string]string{
	"BGPConfiguration.spec.listenPort":            "internal/calc.TestMesh",
	"BGPConfiguration.spec.nodeToNodeMeshEnabled": "internal/calc.TestMesh",

	"BGPPeer.spec.asNumber":       "internal/calc.TestPeers",
	"BGPPeer.spec.keepaliveTime":  "internal/bgp.TestSessionOptions",
	"BGPPeer.spec.maxRestartTime": "internal/bgp.TestSessionOptions",
	"BGPPeer.spec.nextHopMode":    "internal/bgp.TestExternalPeer",
	"BGPPeer.spec.node":           "internal/calc.TestPeers",
	"BGPPeer.spec.nodeSelector":   "internal/calc.TestPeers",
	"BGPPeer.spec.peerIP":         "internal/calc.TestPeers",
	"BGPPeer.spec.peerSelector":   "internal/calc.TestPeers",
	"BGPPeer.spec.reachableBy":    "internal/calc.TestReachableBy",
	"BGPPeer.spec.reversePeering": "internal/calc.TestPeers",
	"BGPPeer.spec.sourceAddress":  "internal/bgp.TestSessionOptions",
	"BGPPeer.spec.ttlSecurity":    "internal/bgp.TestSessionOptions",

	"IPPool.spec.blockSize":        "internal/ipam.TestAssignAndRelease",
	"IPPool.spec.cidr":             "internal/ipam.TestAssignAndRelease",
	"IPPool.spec.disableBGPExport": "internal/calc.TestExport",

	"IPReservation.spec.reservedCIDRs": "internal/ipam.TestReservedAreSkipped",

	"Node.spec.bgp.asNumber":                "internal/calc.TestMesh",
	"Node.spec.bgp.ipv4Address":             "internal/calc.TestMesh",
	"Node.spec.bgp.ipv6Address":             "internal/calc.TestMesh",
	"Node.spec.bgp.routeReflectorClusterID": "internal/calc.TestPeers",

	"WorkloadEndpoint.spec.interfaceName": "internal/calc.TestLocalWorkload",
	"WorkloadEndpoint.spec.ipNetworks":    "internal/calc.TestLocalWorkload",
	"WorkloadEndpoint.spec.mac":           "internal/calc.TestLocalWorkload",
	"WorkloadEndpoint.spec.node":          "internal/calc.TestExport",
}
