package config

import (
	"strconv"
	"strings"
)

// Probes is how the ways through tunnels are measured.
type Probes struct {
	Port int // UDP and TCP, on tunnels' interfaces alone; 0: nothing is measured or answered
	// ChecksumBroken overrules what is known of kernels: true switches the
	// checksum offload of VXLAN off, false leaves it to measurement. nil: by
	// the kernel's version.
	ChecksumBroken *bool
}

func probeParams() []Param {
	return []Param{
		{Name: "pathProbePort", Default: "4797", Rule: "0 to 65535; 0 switches it off", Local: true,
			Doc: "UDP and TCP port by which agents measure the ways through tunnels. The same on all hosts. Only other hosts' ends of tunnels are answered, on the interfaces of tunnels.",
			Why: "The port may be taken, and paths be measured by other means.",
			set: integer(func(a *Agent) *int { return &a.Probes.Port }, 0, 65535)},
		{Name: "featureDetectOverride", Rule: "NAME=true or NAME=false, separated by commas; of the names ChecksumOffloadBroken is honoured",
			Doc: "What is known of the kernel. ChecksumOffloadBroken=true switches off the checksum offload of VXLAN, as on kernels before 5.8; false leaves it to measurement there too.",
			Why: "A distribution may have mended a kernel, or broken it.",
			set: checksumBroken},
	}
}

func checksumBroken(a *Agent, s string) error {
	a.Probes.ChecksumBroken = nil
	if s == "" {
		return nil
	}
	for item := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(item), "=")
		is, err := strconv.ParseBool(value)
		if !ok || name == "" || err != nil {
			return errRule
		}
		if name == "ChecksumOffloadBroken" {
			a.Probes.ChecksumBroken = &is
		}
	}
	return nil
}
