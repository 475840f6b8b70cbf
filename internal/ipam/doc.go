// Package ipam gives addresses to workloads and tunnels, and takes them back.
//
// Addresses come in blocks, which hosts claim from the cluster's pools. A
// block is one value in the datastore and is only ever changed by
// compare-and-swap: that, and nothing else, is why an address never has two
// owners. Three kinds of record take part, all in Calico's shape, so that
// hosts of both kinds share one datastore:
//
//   - a block lists which of its addresses are used, and by which handle;
//   - an affinity says that a block belongs to a host;
//   - a handle says in which blocks one owner has addresses.
//
// The order of writes makes a crash between any two of them harmless: a handle
// is written before the block that it points to and removed after, so that a
// handle may name too much, never too little; an affinity is pending while its
// block is being claimed. A Collector removes what crashes leave behind.
package ipam
