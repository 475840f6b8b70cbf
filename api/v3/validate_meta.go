package v3

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/selector"
)

const (
	maxName        = 253
	maxLabel       = 63
	maxAnnotations = 256 << 10 // bytes of all keys and values
)

var (
	dnsLabelRegexp  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	labelTextRegexp = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
)

const (
	ruleSubdomain = "must be at most 253 lower-case letters, digits, - and ., and start and end each part between dots with a letter or digit"
	ruleDNSLabel  = "must be at most 63 lower-case letters, digits and -, and start and end with a letter or digit"
)

func isDNSLabel(s string) bool { return len(s) <= maxLabel && dnsLabelRegexp.MatchString(s) }

// isSubdomain holds a name to RFC 1123; the parts may be longer than a label,
// as Kubernetes has it.
func isSubdomain(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if !dnsLabelRegexp.MatchString(part) {
			return false
		}
	}
	return true
}

// subdomain wants the name of an object.
func (c *checker) subdomain(path, value string) {
	if value != "" && isSubdomain(value) {
		return
	}
	if c.required(path, value) {
		c.wrong(path, value, ruleSubdomain, nameHint(value, isSubdomain))
	}
}

// nameHint offers the lower-case form with - for _, if that would do.
func nameHint(value string, good func(string) bool) string {
	likely := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(value), "_", "-"))
	if likely != value && good(likely) {
		return didYouMean(likely)
	}
	return ""
}

// metadata checks what every object has.
func (c *checker) metadata(o Object, k KindInfo) {
	m := o.Meta()
	c.name(o, k)
	switch {
	case !k.Namespaced && m.Namespace != "":
		c.wrong("metadata.namespace", m.Namespace, "must not be set: kind "+k.Kind+" is in no namespace", "remove it")
	case k.Namespaced && m.Namespace == "":
		c.wrong("metadata.namespace", "", "must be set: kind "+k.Kind+" is in a namespace", "")
	case k.Namespaced && !isDNSLabel(m.Namespace):
		c.wrong("metadata.namespace", m.Namespace, ruleDNSLabel, nameHint(m.Namespace, isDNSLabel))
	}
	c.labels("metadata.labels", m.Labels)
	c.reservedLabels(o, m.Labels)
	c.annotations(m.Annotations)
	if h, ok := o.(*HostEndpoint); ok {
		if v, ok := h.Annotations[annotationDSCP]; ok {
			c.dscp(dotted("metadata.annotations", annotationDSCP), IntOrString{Str: v, Is: true})
		}
	}
}

// annotationDSCP marks the traffic of an endpoint.
const annotationDSCP = "qos.projectcalico.org/dscp"

// name checks metadata.name by the rule of the kind.
func (c *checker) name(o Object, k KindInfo) {
	const path = "metadata.name"
	m := o.Meta()
	if m.Name == "" {
		c.required(path, "")
		return
	}
	switch o.(type) {
	case *Tier:
		c.named(path, m.Name, isDNSLabel, ruleDNSLabel)
	case *NetworkPolicy, *StagedNetworkPolicy:
		c.named(path, m.Name, isPolicyName, rulePolicyName)
	case *GlobalNetworkPolicy, *StagedGlobalNetworkPolicy:
		c.named(path, m.Name, isGlobalPolicyName, rulePolicyName)
	case *IPAMConfiguration, *KubeControllersConfiguration, *ClusterInformation:
		c.must(m.Name == DefaultName, path, m.Name, "must be default: no other "+k.Kind+" counts")
	case *IPAMHandle:
		// A handle is named as whoever allocates likes.
	default:
		c.subdomain(path, m.Name)
	}
}

func (c *checker) named(path, value string, good func(string) bool, rule string) {
	if !good(value) {
		c.wrong(path, value, rule, nameHint(value, good))
	}
}

const rulePolicyName = "must be one or two parts with a dot between them, each at most 63 lower-case letters, digits and -, starting and ending with a letter or digit"

// isGlobalPolicyName accepts "name" and "tier.name".
func isGlobalPolicyName(s string) bool {
	first, second, two := strings.Cut(s, ".")
	return isDNSLabel(first) && (!two || isDNSLabel(second))
}

// isPolicyName also accepts the names that stand for Kubernetes policies and
// OpenStack security groups.
func isPolicyName(s string) bool {
	for _, p := range []string{"knp.default.", "ossg.default."} {
		if rest, ok := strings.CutPrefix(s, p); ok {
			return isSubdomain(rest)
		}
	}
	return isGlobalPolicyName(s)
}

// labels checks label keys and values as Kubernetes does.
func (c *checker) labels(path string, labels map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value := labels[key]
		at := dotted(path, key)
		if !isLabelKey(key) {
			c.wrong(at, key, "must be a label key: an optional DNS name and /, then at most 63 letters, digits, -, _ and ., starting and ending with a letter or digit", "")
			continue
		}
		longest := maxLabel
		if key == LabelServiceAccount {
			longest = maxName // written by components; account names are longer than labels
		}
		if value != "" && (len(value) > longest || !labelTextRegexp.MatchString(value)) {
			c.wrong(at, value, "must be empty or at most 63 letters, digits, -, _ and ., starting and ending with a letter or digit", "")
		}
	}
}

func isLabelKey(key string) bool {
	domain, name, ok := strings.Cut(key, "/")
	if !ok {
		domain, name = "", key
	}
	if ok && !isSubdomain(domain) {
		return false
	}
	return len(name) <= maxLabel && labelTextRegexp.MatchString(name)
}

// inheritedLabels checks labels that endpoints inherit: the prefix that says
// from what does not count towards the limits of a key.
func (c *checker) inheritedLabels(path string, labels map[string]string) {
	plain := make(map[string]string, len(labels))
	for key, value := range labels {
		for _, p := range []string{selector.NamespacePrefix, selector.ServiceAccountPrefix} {
			key = strings.TrimPrefix(key, p)
		}
		plain[key] = value
	}
	c.labels(path, plain)
}

// reservedLabels keeps users from giving endpoints and network sets labels
// that policy takes for those of a namespace or service account.
func (c *checker) reservedLabels(o Object, labels map[string]string) {
	set := false
	switch o.(type) {
	case *NetworkSet, *GlobalNetworkSet:
		set = true
	case *WorkloadEndpoint, *HostEndpoint:
	default:
		return
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		at := dotted("metadata.labels", key)
		if set && key == LabelNamespace {
			c.wrong(at, labels[key], "must not be set: the label says which namespace the set is in", "remove it")
		}
		for _, p := range []string{selector.NamespacePrefix, selector.ServiceAccountPrefix} {
			if strings.HasPrefix(key, p) {
				c.wrong(at, labels[key], "must not start with "+p+", which stands for inherited labels", "choose another key")
			}
		}
	}
}

func (c *checker) annotations(annotations map[string]string) {
	const path = "metadata.annotations"
	size := 0
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		size += len(key) + len(annotations[key])
		if !isLabelKey(strings.ToLower(key)) {
			c.wrong(dotted(path, key), key, "must be an annotation key: an optional DNS name and /, then at most 63 letters, digits, -, _ and ., starting and ending with a letter or digit", "")
		}
	}
	c.must(size <= maxAnnotations, path, strconv.Itoa(size)+" bytes", "must be at most 256 KiB together")
}
