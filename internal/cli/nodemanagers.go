package cli

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/dataplane/nft"
)

// ownInterfaces are names that interfaces of ours have, as patterns.
func ownInterfaces() []string {
	return []string{"cali*", "tunl0", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali"}
}

// managers looks for programs that would undo or hinder what the agent does,
// by what runs and how it is set up. Those that are not there are not listed.
func managers(h host) []systemCheck {
	var out []systemCheck
	chains, err := h.chains()
	if err != nil {
		out = append(out, systemCheck{Name: "other packet filters", State: checkUnknown, Detail: err.Error()})
	}
	runs := h.running()
	for _, look := range []func(host, map[string]bool, []nft.Chain) []systemCheck{
		firewalld, ufw, docker, networkManager, networkd, otherAgents, otherFilters,
	} {
		out = append(out, look(h, runs, chains)...)
	}
	if len(out) == 0 {
		out = append(out, systemCheck{Name: "other managers of the network", State: checkFine, Detail: "none found"})
	}
	return out
}

// running are the names of the programs that run, of which the kernel keeps 15
// letters.
func (h host) running() map[string]bool {
	out := map[string]bool{}
	names, err := fs.Glob(h.files, "proc/[0-9]*/comm")
	if err != nil {
		return out
	}
	for _, name := range names {
		out[strings.TrimSpace(h.text(name))] = true // "" for one that has ended meanwhile
	}
	return out
}

func firewalld(_ host, runs map[string]bool, chains []nft.Chain) []systemCheck {
	table := slices.ContainsFunc(chains, func(c nft.Chain) bool { return c.Table == "firewalld" })
	if !runs["firewalld"] && !table {
		return nil
	}
	return []systemCheck{{Name: "firewalld", State: checkConflict,
		Detail: "it rejects forwarded packets of zones that do not allow them, workloads' too",
		Fix:    "switch it off (systemctl disable --now firewalld), or let it trust the addresses of each pool: firewall-cmd --permanent --zone=trusted --add-source=POOL && firewall-cmd --reload"}}
}

func ufw(h host, _ map[string]bool, _ []nft.Chain) []systemCheck {
	if settings(h.text("etc/ufw/ufw.conf"))[".ENABLED"] != "yes" {
		return nil
	}
	c := systemCheck{Name: "ufw", State: checkFine, Detail: "on, and lets forwarded packets pass"}
	if policy := strings.Trim(settings(h.text("etc/default/ufw"))[".DEFAULT_FORWARD_POLICY"], `"`); policy != "ACCEPT" {
		c.State, c.Detail = checkConflict, "it drops forwarded packets, workloads' too"
		c.Fix = "ufw default allow routed, or switch it off: ufw disable"
	}
	return []systemCheck{c}
}

func docker(_ host, runs map[string]bool, chains []nft.Chain) []systemCheck {
	if !runs["dockerd"] {
		return nil
	}
	if !slices.ContainsFunc(chains, func(c nft.Chain) bool { return filterForward(c) && c.Drops }) {
		return []systemCheck{{Name: "Docker", State: checkFine, Detail: "runs, and drops no forwarded packets in nftables"}}
	}
	return []systemCheck{{Name: "Docker", State: checkConflict,
		Detail: "it drops forwarded packets that are not its own (policy of FORWARD)",
		Fix: `set "ip-forward-no-drop": true in /etc/docker/daemon.json (Docker 28 or newer) and restart Docker, or let workloads through:` +
			"\niptables -I DOCKER-USER -i cali+ -j ACCEPT\niptables -I DOCKER-USER -o cali+ -j ACCEPT"}}
}

// filterForward reports whether a chain is iptables's FORWARD.
func filterForward(c nft.Chain) bool {
	return (c.Family == "ip" || c.Family == "ip6") && c.Table == "filter" && c.Name == "FORWARD"
}

func networkManager(h host, runs map[string]bool, _ []nft.Chain) []systemCheck {
	if !runs["NetworkManager"] {
		return nil
	}
	unmanaged := map[string]bool{}
	for _, text := range h.dropIns("NetworkManager/NetworkManager.conf", "NetworkManager/conf.d", ".conf") {
		for item := range strings.FieldsFuncSeq(settings(text)["keyfile.unmanaged-devices"], func(r rune) bool { return r == ';' || r == ',' }) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(item), "interface-name:"); ok {
				unmanaged[strings.TrimPrefix(name, "=")] = true
			}
		}
	}
	if missing := uncovered(slices.Sorted(maps.Keys(unmanaged))); len(missing) > 0 {
		return []systemCheck{{Name: "NetworkManager", State: checkConflict,
			Detail: "it may configure interfaces of the agent: " + strings.Join(missing, ", "),
			Fix: "write /etc/NetworkManager/conf.d/brindle.conf, then systemctl reload NetworkManager:\n[keyfile]\nunmanaged-devices=interface-name:" +
				strings.Join(ownInterfaces(), ";interface-name:")}}
	}
	return []systemCheck{{Name: "NetworkManager", State: checkFine, Detail: "runs, and leaves interfaces of the agent alone"}}
}

// uncovered are those of our interfaces that no pattern takes in.
func uncovered(patterns []string) []string {
	return slices.DeleteFunc(ownInterfaces(), func(name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			ok, err := path.Match(p, strings.ReplaceAll(name, "*", "0123456789a"))
			return err == nil && ok
		})
	})
}

func networkd(h host, runs map[string]bool, _ []nft.Chain) []systemCheck {
	if !runs["systemd-network"] { // systemd-networkd
		return nil
	}
	said := map[string]string{}
	for _, text := range h.dropIns("systemd/networkd.conf", "systemd/networkd.conf.d", ".conf") {
		maps.Copy(said, settings(text))
	}
	c := systemCheck{Name: "systemd-networkd", State: checkFine, Detail: "runs, and leaves routes, rules and interfaces of the agent alone"}
	var wrong, fixes []string
	for what, name := range map[string]string{"routes": "ManageForeignRoutes", "policy routing rules": "ManageForeignRoutingPolicyRules"} {
		if v := strings.ToLower(said["Network."+name]); !slices.Contains([]string{"no", "false", "0", "off", "n", "f"}, v) {
			wrong = append(wrong, "it removes "+what+" that are not its own when it starts")
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		fixes = append(fixes, "write /etc/systemd/networkd.conf.d/brindle.conf, then systemctl restart systemd-networkd:\n[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no")
	}
	if by := h.networkFile(); by != "" {
		wrong = append(wrong, by+" makes it configure interfaces of the agent")
		fixes = append(fixes, "write /etc/systemd/network/00-brindle.network, then networkctl reload:\n[Match]\nName="+strings.Join(ownInterfaces(), " ")+"\n[Link]\nUnmanaged=yes")
	}
	if len(wrong) > 0 {
		c.State, c.Detail, c.Fix = checkConflict, strings.Join(wrong, "; "), strings.Join(fixes, "\n")
	}
	return []systemCheck{c}
}

// networkFile is the first of systemd-networkd's files of networks that takes
// in an interface of ours and manages it; "" if there is none.
func (h host) networkFile() string {
	files := h.filesOf("systemd/network", ".network")
	for _, base := range slices.Sorted(maps.Keys(files)) {
		said := settings(h.text(files[base]))
		names := strings.Fields(said["Match.Name"])
		managed := strings.ToLower(said["Link.Unmanaged"]) != "yes"
		if len(names) == 0 || strings.HasPrefix(names[0], "!") || len(uncovered(names)) == len(ownInterfaces()) {
			continue
		}
		if managed {
			return "/" + files[base]
		}
		if len(uncovered(names)) == 0 {
			return "" // the first that matches is the one that holds
		}
	}
	return ""
}

func otherAgents(_ host, runs map[string]bool, _ []nft.Chain) []systemCheck {
	var out []systemCheck
	for _, name := range []string{"calico-node", "calico-felix", "cilium-agent", "flanneld", "kube-router", "antrea-agent"} {
		if runs[name] {
			out = append(out, systemCheck{Name: name, State: checkConflict,
				Detail: "another agent runs on this host: two undo each other's routes and policy",
				Fix:    "move the host over as a whole: stop that agent before this one starts"})
		}
	}
	return out
}

// otherFilters are chains that drop what they do not accept, wherever they
// come from, but for those that were explained already.
func otherFilters(h host, runs map[string]bool, chains []nft.Chain) []systemCheck {
	var out []systemCheck
	for _, c := range chains {
		explained := c.Table == "brindle" || c.Table == "firewalld" || filterForward(c) && runs["dockerd"] ||
			filterForward(c) && settings(h.text("etc/ufw/ufw.conf"))[".ENABLED"] == "yes"
		if c.Hook != "forward" || !c.Drops || explained {
			continue
		}
		out = append(out, systemCheck{Name: fmt.Sprintf("chain %s of table %s %s", c.Name, c.Family, c.Table), State: checkConflict,
			Detail: "it drops forwarded packets that it does not accept, workloads' too",
			Fix:    `accept those of workloads in it (iifname "cali*" and oifname "cali*"), or make its policy accept`})
	}
	if slices.Contains(strings.Fields(h.text("proc/net/ip_tables_names")), "filter") {
		out = append(out, systemCheck{Name: "iptables-legacy", State: checkUnknown,
			Detail: "the kernel has rules of the old iptables, which are not read here",
			Fix:    "see that iptables-legacy -S FORWARD drops nothing of workloads"})
	}
	return out
}

// settings reads a file of "name = value" lines below [section] headings, as
// section.name.
func settings(text string) map[string]string {
	out, section := map[string]string{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[' && line[len(line)-1] == ']':
			section = line[1 : len(line)-1]
		default:
			if name, value, ok := strings.Cut(line, "="); ok {
				out[section+"."+strings.TrimSuffix(strings.TrimSpace(name), "+")] = strings.TrimSpace(value)
			}
		}
	}
	return out
}

// configDirs are the folders of a program's files, the weakest first.
func configDirs() []string { return []string{"usr/lib", "usr/local/lib", "run", "etc"} }

// filesOf finds the files of a folder and an ending in all folders of
// configuration, by base name: of two with one name the stronger counts.
func (h host) filesOf(dir, ending string) map[string]string {
	out := map[string]string{}
	for _, top := range configDirs() {
		names, err := fs.Glob(h.files, path.Join(top, dir, "*"+ending))
		if err != nil {
			continue
		}
		for _, name := range names {
			out[path.Base(name)] = name
		}
	}
	return out
}

// dropIns are the texts of a main file and of those that add to it, the
// weakest first.
func (h host) dropIns(main, dir, ending string) []string {
	var out []string
	for _, top := range slices.Backward(configDirs()) {
		if text := h.text(path.Join(top, main)); text != "" {
			out = append(out, text)
			break
		}
	}
	files := h.filesOf(dir, ending)
	for _, base := range slices.Sorted(maps.Keys(files)) {
		out = append(out, h.text(files[base]))
	}
	return out
}
