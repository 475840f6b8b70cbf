/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the programs share: what they are told, what they remember and count. */
#ifndef BRINDLE_IPIP_H
#define BRINDLE_IPIP_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define INET 2   /* AF_INET */
#define INET6 10 /* AF_INET6 */

#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

#define ECN_MASK 3
#define ECN_NONE 0
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3

#define ALREADY -114 /* EALREADY: the packet is marked as encapsulated */

/* ICMP (RFC 792, RFC 1191). The kernel's header for it needs a C library. */
#define ICMP_DEST_UNREACH 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_REDIRECT 5
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMP_FRAG_NEEDED 4

struct icmp {
	__u8 type, code;
	__u16 check, unused, mtu;
};

/* A path is never believed to be narrower than this (net.ipv4.route.min_pmtu),
 * and what was learned of it holds for ten minutes (net.ipv4.route.mtu_expires). */
#define MIN_PATH 552
#define PATH_LIFE (600ULL * 1000 * 1000 * 1000)

/* Set before the programs are loaded. Addresses are in network order. */
const volatile __u32 local_address;
const volatile __u32 tunnel_index;
const volatile __u8 tunnel_mac[ETH_ALEN];

/* What became of a packet. ipip.go knows the order. */
enum cause {
	ENCAPSULATED,   /* sent to another host */
	DECAPSULATED,   /* taken from another host */
	UNKNOWN_SENDER, /* dropped: the outer source is no host of ours */
	MALFORMED,      /* dropped: headers that contradict each other or the packet */
	TOO_BIG,        /* dropped: larger than the path; the sender is told where that is allowed */
	NO_PEER,        /* dropped: no route by the tunnel, or one without a next hop */
	NO_PATH,        /* dropped: no route to the other host */
	CONGESTED,      /* dropped: congestion that cannot be told to the ends (RFC 6040) */
	FRAGMENT,       /* kept or dropped: a fragment of an outer packet */
	REASSEMBLED,    /* outer packets put together from fragments */
	UNSUPPORTED,    /* dropped: a segmentation offload that cannot be carried */
	PATH_LEARNED,   /* messages that a path is narrower than its first link */
	WRONG_WAY,      /* dropped: a host's address, by an interface where that host is not */
	LATE,           /* of those sent: the route had moved away meanwhile */
	CAUSES
};

/* What is read of an arriving packet before anything is changed. */
struct arrival {
	struct iphdr out, in;
	__u32 l2;    /* bytes before the outer header */
	__u32 outer; /* bytes of the outer header */
	__u32 size;  /* bytes of the outer packet, without what Ethernet fills up */
};

struct count {
	__u64 packets, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CAUSES);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

/* The hosts that may send to us. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} hosts SEC(".maps");

/* Networks all of whose addresses may. */
struct network {
	__u32 bits, address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network);
	__type(value, __u32);
} networks SEC(".maps");

/* The interfaces by which a host is believed only if packets to it may leave
 * there (strict reverse paths, RFC 3704), by number. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} strict SEC(".maps");

/* Who else sent to us, and how often; hosts too, whose address came by the
 * wrong interface. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} strangers SEC(".maps");

/* How large an outer packet to a host may be, where a router has said so. */
struct path {
	__u64 until; /* on the clock of bpf_ktime_get_ns */
	__u32 mtu;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct path);
} paths SEC(".maps");

/* To which host a destination's packets went last. A packet that was routed to
 * the tunnel goes there also when the route moves away before it comes here. */
#define HOP_LIFE (10ULL * 1000 * 1000 * 1000)
#define HOP_STEP (1ULL * 1000 * 1000 * 1000) /* how often that is written */

struct hop {
	__u64 until; /* on the clock of bpf_ktime_get_ns */
	__u32 peer;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct hop);
} hops SEC(".maps");

/* What is set later has to be read byte by byte: to the compiler, a copy by
 * another way is one of zeros. */
static __always_inline void address_of_tunnel(__u8 *to)
{
	int i;

#pragma unroll
	for (i = 0; i < ETH_ALEN; i++)
		to[i] = tunnel_mac[i];
}

static __always_inline void tally(struct __sk_buff *skb, __u32 cause)
{
	struct count *c = bpf_map_lookup_elem(&counts, &cause);

	if (c) {
		c->packets++;
		c->bytes += skb->len;
	}
}

/* What a look-up of a route answers when it found one: a neighbour is not
 * needed, and the size is another matter. */
static __always_inline int found_route(long err)
{
	return err == BPF_FIB_LKUP_RET_SUCCESS || err == BPF_FIB_LKUP_RET_NO_NEIGH || err == BPF_FIB_LKUP_RET_FRAG_NEEDED;
}

static __always_inline int drop(struct __sk_buff *skb, __u32 cause)
{
	tally(skb, cause);
	return TC_ACT_SHOT;
}

static __always_inline __u16 fold(__s64 sum)
{
	__u64 s = (__u64)sum;

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return (__u16)~s;
}

static __always_inline __u16 header_sum(struct iphdr *ip)
{
	return fold(bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0));
}

#endif
