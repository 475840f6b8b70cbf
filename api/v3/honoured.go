package v3

import "maps"

//go:generate go run ./internal/fieldsgen -o ../../docs/reference/fields.md

// honoured names, per field, the test that proves that the field does what it
// says: "folder.TestName" or the path of a scenario. A field that is not here
// is accepted and stored, and whoever sets it is told that nothing comes of it
// yet.
//
// A key is a kind with the path of a field, "[]" behind lists, such as
// "BGPFilter.spec.exportV4[].cidr". "Rule." in front of the path of a field of
// a rule stands for the rules of every kind whose own list of rules is named.
var honoured = honouredFields()

// honouredFields puts the parts of the table together.
func honouredFields() map[string]string {
	all := map[string]string{}
	for _, part := range []map[string]string{
		honouredMetadata(), honouredRouting(), honouredAddresses(), honouredSettings(), honouredEndpoints(),
		honouredPolicy(), honouredRules(), honouredStagedKubernetes(),
	} {
		maps.Copy(all, part)
	}
	return all
}

func honouredMetadata() map[string]string {
	return map[string]string{
		"metadata.name":              "internal/client.TestLifeOfAnObject",
		"metadata.namespace":         "internal/cli.TestNamespaces",
		"metadata.uid":               "internal/client.TestLifeOfAnObject",
		"metadata.resourceVersion":   "internal/client.TestLifeOfAnObject",
		"metadata.creationTimestamp": "internal/client.TestLifeOfAnObject",
		"metadata.deletionTimestamp": "internal/ipam.TestUnusablePools",
		"metadata.labels":            "test/scenarios/resources.txtar",
		"metadata.annotations":       "internal/config.TestObjects",
	}
}

func honouredRouting() map[string]string {
	return map[string]string{
		"BGPConfiguration.spec.asNumber":                           "internal/calc.TestBGPConfiguration",
		"BGPConfiguration.spec.bindMode":                           "internal/calc.TestBGPConfiguration",
		"BGPConfiguration.spec.communities[].name":                 "internal/calc.TestBGPConfiguration",
		"BGPConfiguration.spec.communities[].value":                "internal/calc.TestBGPConfiguration",
		"BGPConfiguration.spec.listenPort":                         "internal/calc.TestMesh",
		"BGPConfiguration.spec.nodeMeshMaxRestartTime":             "internal/calc.TestBGPConfiguration",
		"BGPConfiguration.spec.nodeToNodeMeshEnabled":              "internal/calc.TestMesh",
		"BGPConfiguration.spec.prefixAdvertisements[].cidr":        "internal/calc.TestBGPConfiguration",
		"BGPConfiguration.spec.prefixAdvertisements[].communities": "internal/calc.TestBGPConfiguration",
		"BGPConfiguration.spec.programClusterRoutes":               "internal/calc.TestProgramClusterRoutes",

		"BGPPeer.spec.asNumber":                 "internal/calc.TestPeers",
		"BGPPeer.spec.keepOriginalNextHop":      "internal/bgp.TestKeepNextHop",
		"BGPPeer.spec.keepaliveTime":            "internal/bgp.TestSessionOptions",
		"BGPPeer.spec.localASNumber":            "internal/bgp.TestLocalAS",
		"BGPPeer.spec.maxRestartTime":           "internal/bgp.TestSessionOptions",
		"BGPPeer.spec.nextHopMode":              "internal/bgp.TestExternalPeer",
		"BGPPeer.spec.node":                     "internal/calc.TestPeers",
		"BGPPeer.spec.nodeSelector":             "internal/calc.TestPeers",
		"BGPPeer.spec.numAllowedLocalASNumbers": "internal/bgp.TestLocalAS",
		"BGPPeer.spec.peerIP":                   "internal/calc.TestPeers",
		"BGPPeer.spec.peerSelector":             "internal/calc.TestPeers",
		"BGPPeer.spec.reachableBy":              "internal/calc.TestReachableBy",
		"BGPPeer.spec.reversePeering":           "internal/calc.TestPeers",
		"BGPPeer.spec.sourceAddress":            "internal/bgp.TestSessionOptions",
		"BGPPeer.spec.ttlSecurity":              "internal/bgp.TestSessionOptions",

		"Node.spec.addresses[].address":         "internal/agent.TestFillNodeKeepsWhatOthersWrote",
		"Node.spec.addresses[].type":            "internal/agent.TestFillNodeKeepsWhatOthersWrote",
		"Node.spec.bgp.asNumber":                "internal/calc.TestMesh",
		"Node.spec.bgp.ipv4Address":             "internal/calc.TestMesh",
		"Node.spec.bgp.ipv6Address":             "internal/calc.TestMesh",
		"Node.spec.bgp.routeReflectorClusterID": "internal/calc.TestPeers",
		"Node.spec.bgp.ipv4IPIPTunnelAddr":      "internal/calc.TestTunnelsOfThisHost",
		"Node.spec.ipv4VXLANTunnelAddr":         "internal/calc.TestTunnelsOfThisHost",
		"Node.spec.ipv6VXLANTunnelAddr":         "internal/calc.TestTunnelsOfThisHost",
		"Node.spec.vxlanTunnelMACAddr":          "internal/model.TestTunnelsOfANode",
		"Node.spec.vxlanTunnelMACAddrV6":        "internal/model.TestTunnelsOfANode",
	}
}

func honouredAddresses() map[string]string {
	return map[string]string{
		"IPPool.spec.allowedUses":           "internal/ipam.TestChoosingPools",
		"IPPool.spec.assignmentMode":        "internal/ipam.TestChoosingPools",
		"IPPool.spec.blockSize":             "internal/ipam.TestAssignAndRelease",
		"IPPool.spec.cidr":                  "internal/ipam.TestAssignAndRelease",
		"IPPool.spec.disableBGPExport":      "internal/calc.TestExport",
		"IPPool.spec.disabled":              "internal/ipam.TestChoosingPools",
		"IPPool.spec.namespaceSelector":     "internal/agent.TestPoolsSelectNamespaces",
		"IPPool.spec.ipipMode":              "internal/calc.TestModes",
		"IPPool.spec.natOutgoing":           "internal/dataplane/nft.TestNATMatrix",
		"IPPool.spec.nodeSelector":          "internal/ipam.TestChoosingPools",
		"IPPool.spec.vxlanMode":             "internal/calc.TestModes",
		"IPPool.status.conditions[].reason": "internal/ipam.TestUnusablePools",
		"IPPool.status.conditions[].status": "internal/ipam.TestUnusablePools",
		"IPPool.status.conditions[].type":   "internal/ipam.TestUnusablePools",

		"IPReservation.spec.reservedCIDRs": "internal/ipam.TestReservedAreSkipped",

		"IPAMConfiguration.spec.autoAllocateBlocks": "internal/ipam.TestNoBlocksAllocated",
		"IPAMConfiguration.spec.ipCooldownSeconds":  "internal/ipam.TestCoolDown",
		"IPAMConfiguration.spec.maxBlocksPerHost":   "internal/ipam.TestBlockLimit",
		"IPAMConfiguration.spec.strictAffinity":     "internal/ipam.TestBorrowing",

		"BlockAffinity.spec.cidr":    "internal/model.TestFromAffinity",
		"BlockAffinity.spec.deleted": "internal/model.TestFromAffinity",
		"BlockAffinity.spec.node":    "internal/model.TestFromAffinity",
		"BlockAffinity.spec.state":   "internal/ipam.TestInterruptedClaimIsFinished",

		"IPAMBlock.spec.affinity":                    "internal/ipam.TestCarriesOnFromCalico",
		"IPAMBlock.spec.affinityClaimTime":           "internal/ipam.TestEmptyBlockIsReclaimed",
		"IPAMBlock.spec.allocations":                 "internal/ipam.TestCarriesOnFromCalico",
		"IPAMBlock.spec.attributes[].handle_id":      "internal/ipam.TestCheckRelease",
		"IPAMBlock.spec.attributes[].releasedAt":     "internal/ipam.TestCoolDown",
		"IPAMBlock.spec.attributes[].secondary":      "internal/ipam.TestAttributesAreThoseOfCalico",
		"IPAMBlock.spec.cidr":                        "internal/ipam.TestCarriesOnFromCalico",
		"IPAMBlock.spec.deleted":                     "internal/model.TestFromBlock",
		"IPAMBlock.spec.sequenceNumber":              "internal/ipam.TestCheckRelease",
		"IPAMBlock.spec.sequenceNumberForAllocation": "internal/ipam.TestCheckRelease",
		"IPAMBlock.spec.unallocated":                 "internal/ipam.TestLongestFreeIsUsedFirst",

		"IPAMHandle.spec.block":    "internal/ipam.TestAssignAndRelease",
		"IPAMHandle.spec.handleID": "internal/ipam.TestAssignAndRelease",

		"ClusterInformation.spec.clusterGUID":    "internal/cli.TestIPAMReleaseFromReports",
		"ClusterInformation.spec.datastoreReady": "internal/calc.TestDatastoreThatIsNotReady",
	}
}

func honouredSettings() map[string]string {
	const (
		obeyed = "internal/agent.TestSettingsAreObeyed"
		policy = "internal/agent.TestPolicySettingsAreObeyed"
		marks  = "internal/agent.TestMarkAndPaceSettingsAreObeyed"
		logs   = "internal/agent.TestLogSettingsAreObeyed"
		nat    = "internal/agent.TestNATSettingsAreObeyed"
		bypass = "internal/agent.TestOffloadSettingsAreObeyed"
	)
	return map[string]string{
		"FelixConfiguration.spec.allowIPIPPacketsFromWorkloads":  policy,
		"FelixConfiguration.spec.allowVXLANPacketsFromWorkloads": policy,
		"FelixConfiguration.spec.defaultEndpointToHostAction":    policy,
		"FelixConfiguration.spec.disableConntrackInvalidCheck":   policy,
		"FelixConfiguration.spec.logActionRateLimit":             logs,
		"FelixConfiguration.spec.logActionRateLimitBurst":        logs,
		"FelixConfiguration.spec.logPrefix":                      logs,
		"FelixConfiguration.spec.nftablesFilterDenyAction":       policy,
		"FelixConfiguration.spec.nftablesMarkMask":               marks,

		"FelixConfiguration.spec.nftablesFlowTableDataIfacePattern": bypass,
		"FelixConfiguration.spec.nftablesFlowTableOffload":          bypass,

		"FelixConfiguration.spec.nftablesRefreshInterval": marks,
		"FelixConfiguration.spec.vxlanPort":               policy,
		"FelixConfiguration.spec.workloadSourceSpoofing":  policy,

		"FelixConfiguration.spec.ipipEnabled":          obeyed,
		"FelixConfiguration.spec.vxlanEnabled":         obeyed,
		"FelixConfiguration.spec.ipipMTU":              obeyed,
		"FelixConfiguration.spec.vxlanMTU":             obeyed,
		"FelixConfiguration.spec.vxlanMTUV6":           obeyed,
		"FelixConfiguration.spec.vxlanVNI":             obeyed,
		"FelixConfiguration.spec.programClusterRoutes": obeyed,
		"FelixConfiguration.spec.routeSyncDisabled":    obeyed,
		"FelixConfiguration.spec.externalNodesList":    obeyed,

		"FelixConfiguration.spec.featureDetectOverride": "internal/agent.TestChecksumOffloadBroken",

		"FelixConfiguration.spec.natOutgoingAddress":                 nat,
		"FelixConfiguration.spec.natPortRange":                       nat,
		"FelixConfiguration.spec.natOutgoingExclusions":              nat,
		"FelixConfiguration.spec.iptablesNATOutgoingInterfaceFilter": nat,

		"FelixConfiguration.spec.healthEnabled":                   obeyed,
		"FelixConfiguration.spec.healthHost":                      obeyed,
		"FelixConfiguration.spec.healthPort":                      obeyed,
		"FelixConfiguration.spec.interfacePrefix":                 "internal/workload.TestNamesBeginWithThePrefix",
		"FelixConfiguration.spec.interfaceRefreshInterval":        obeyed,
		"FelixConfiguration.spec.ipForwarding":                    obeyed,
		"FelixConfiguration.spec.ipv4NormalRoutePriority":         obeyed,
		"FelixConfiguration.spec.ipv6NormalRoutePriority":         obeyed,
		"FelixConfiguration.spec.ipv6Support":                     obeyed,
		"FelixConfiguration.spec.logSeverityScreen":               "internal/config.TestObjects",
		"FelixConfiguration.spec.mtuIfacePattern":                 "internal/kernel.TestHostMTU",
		"FelixConfiguration.spec.nodeSelector":                    "internal/config.TestPrecedence",
		"FelixConfiguration.spec.prometheusGoMetricsEnabled":      obeyed,
		"FelixConfiguration.spec.prometheusMetricsEnabled":        obeyed,
		"FelixConfiguration.spec.prometheusMetricsHost":           obeyed,
		"FelixConfiguration.spec.prometheusMetricsPort":           obeyed,
		"FelixConfiguration.spec.prometheusProcessMetricsEnabled": obeyed,
		"FelixConfiguration.spec.routeRefreshInterval":            obeyed,
	}
}

func honouredEndpoints() map[string]string {
	const written = "internal/workload.TestTheEndpointIsWrittenAsCalicoWritesIt"
	return map[string]string{
		"HostEndpoint.spec.ports[].name":     "internal/feed.TestNamedPortsOfHosts",
		"HostEndpoint.spec.ports[].port":     "internal/feed.TestNamedPortsOfHosts",
		"HostEndpoint.spec.ports[].protocol": "internal/feed.TestNamedPortsOfHosts",

		"WorkloadEndpoint.spec.allowSpoofedSourcePrefixes": "internal/model.TestEndpointsOfPolicy",
		"WorkloadEndpoint.spec.containerID":                "internal/workload.TestANewerContainerKeepsTheEndpoint",
		"WorkloadEndpoint.spec.endpoint":                   written,
		"WorkloadEndpoint.spec.interfaceName":              "internal/calc.TestLocalWorkload",
		"WorkloadEndpoint.spec.ipNetworks":                 "internal/calc.TestLocalWorkload",
		"WorkloadEndpoint.spec.mac":                        "internal/calc.TestLocalWorkload",
		"WorkloadEndpoint.spec.node":                       "internal/calc.TestExport",
		"WorkloadEndpoint.spec.orchestrator":               "internal/model.TestFromObject",
		"WorkloadEndpoint.spec.pod":                        "internal/workload.TestLabelsPodsAndAddressesOfAConfiguration",
		"WorkloadEndpoint.spec.ports[].name":               "internal/feed.TestRuleFields",
		"WorkloadEndpoint.spec.ports[].port":               "internal/feed.TestRuleFields",
		"WorkloadEndpoint.spec.ports[].protocol":           "internal/feed.TestRuleFields",
		"WorkloadEndpoint.spec.profiles":                   "internal/feed.TestProfileFields",
		"WorkloadEndpoint.spec.serviceAccountName":         "internal/model.TestFromObject",
	}
}

func honouredPolicy() map[string]string {
	const fields, staged = "internal/feed.TestPolicyFields", "internal/feed.TestStagedFields"
	all := map[string]string{
		"Tier.spec.defaultAction":    "internal/feed.TestTierFields",
		"Tier.spec.order":            "internal/feed.TestTierFields",
		"NetworkSet.spec.nets":       "internal/feed.TestNetworkSetFields",
		"GlobalNetworkSet.spec.nets": "internal/feed.TestNetworkSetFields",
		"Profile.spec.egress":        "internal/feed.TestProfileFields",
		"Profile.spec.ingress":       "internal/feed.TestProfileFields",
		"Profile.spec.labelsToApply": "internal/feed.TestProfileFields",

		"GlobalNetworkPolicy.spec.namespaceSelector":       fields,
		"StagedGlobalNetworkPolicy.spec.namespaceSelector": staged,
		"StagedGlobalNetworkPolicy.spec.stagedAction":      staged,
		"StagedNetworkPolicy.spec.stagedAction":            staged,
	}
	for kind, test := range map[string]string{
		"NetworkPolicy": fields, "GlobalNetworkPolicy": fields, "StagedNetworkPolicy": staged, "StagedGlobalNetworkPolicy": staged,
	} {
		for _, field := range []string{"egress", "ingress", "order", "performanceHints", "selector", "serviceAccountSelector", "tier", "types"} {
			all[kind+".spec."+field] = test
		}
	}
	return all
}

// honouredRules leaves out services, which the etcd datastore does not have,
// and HTTP.
func honouredRules() map[string]string {
	const test = "internal/feed.TestRuleFields"
	all := map[string]string{
		"Rule.action":               "internal/feed.TestPolicyFields",
		"Rule.icmp.code":            test,
		"Rule.icmp.type":            test,
		"Rule.ipVersion":            test,
		"Rule.metadata.annotations": "internal/model.TestRules",
		"Rule.notICMP.code":         test,
		"Rule.notICMP.type":         test,
		"Rule.notProtocol":          test,
		"Rule.protocol":             test,
	}
	for _, side := range []string{"source", "destination"} {
		for _, field := range []string{
			"namespaceSelector", "nets", "notNets", "notPorts", "notSelector", "ports", "selector", "serviceAccounts.names", "serviceAccounts.selector",
		} {
			all["Rule."+side+"."+field] = test
		}
	}
	return all
}

func honouredStagedKubernetes() map[string]string {
	const kind, converted = "StagedKubernetesNetworkPolicy.spec.", "internal/kubepolicy.TestKubernetesNetworkPolicyConversion"
	all := map[string]string{
		kind + "stagedAction": "internal/model.TestTypesInference",
		kind + "policyTypes":  "internal/feed.TestStagedFields",
	}
	selectors := []string{"podSelector"}
	for _, list := range []struct{ rules, peers string }{{"ingress", "from"}, {"egress", "to"}} {
		at := list.rules + "[]."
		all[kind+list.rules] = converted
		for _, field := range []string{"ports", "ports[].protocol", "ports[].port", "ports[].endPort", list.peers,
			list.peers + "[].ipBlock.cidr", list.peers + "[].ipBlock.except"} {
			all[kind+at+field] = converted
		}
		selectors = append(selectors, at+list.peers+"[].podSelector", at+list.peers+"[].namespaceSelector")
	}
	for _, s := range selectors {
		for _, field := range []string{"", ".matchLabels", ".matchExpressions[].key", ".matchExpressions[].operator", ".matchExpressions[].values"} {
			all[kind+s+field] = converted
		}
	}
	return all
}
