// Package nft enforces policy with nftables. It translates a rule program
// into the expressions of nf_tables and writes them through a netlink codec of
// its own, one transaction for each change; the program nft(8) is not needed.
// It owns the tables `inet brindle` and `arp brindle`: all that is in them is
// ours, and nothing outside of them is, but for the flowtable of established
// connections, which has a table of its own (FlowsName).
//
// The codec reads what it writes. What was read, from the kernel or from the
// bytes of a batch, is an image, which the driver compares with what it wants
// and through which the Machine sends packets in user space.
package nft

import "golang.org/x/sys/unix"

// TableName is the name of both tables of ours.
const TableName = "brindle"

var (
	inet = tableID{unix.NFPROTO_INET, TableName}
	arp  = tableID{unix.NFPROTO_ARP, TableName}
)

func (id tableID) ours() bool { return id == inet || id == arp }
