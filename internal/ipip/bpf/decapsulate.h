/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The way in: a packet of protocol 4 from a known host to this host's address
 * loses its outer header and arrives again from the tunnel's interface. */
#ifndef BRINDLE_DECAPSULATE_H
#define BRINDLE_DECAPSULATE_H

#include "ipip.h"
#include "reassemble.h"

#define HEADER_MAX 60

/* An address that is no host's sent to us, or a host's by the wrong interface. */
static __always_inline int stranger(struct __sk_buff *skb, __u32 from, __u32 cause)
{
	__u64 one = 1, *n = bpf_map_lookup_elem(&strangers, &from);

	if (n)
		__sync_fetch_and_add(n, 1);
	else
		bpf_map_update_elem(&strangers, &from, &one, BPF_ANY);
	return drop(skb, cause);
}

static __always_inline int known(__u32 from)
{
	struct network key = {.bits = 32, .address = from};

	return bpf_map_lookup_elem(&hosts, &from) || bpf_map_lookup_elem(&networks, &key);
}

/* Whether a look-up says that there is no route, not that it cannot tell. */
static __always_inline int nowhere(long err)
{
	return err > 0 && !found_route(err) && err != BPF_FIB_LKUP_RET_FWD_DISABLED && err != BPF_FIB_LKUP_RET_UNSUPP_LWT;
}

/* Whether packets to the sender cannot leave by the interface that this one
 * came by, where that matters. The way to the sender is the one that our
 * packets to it take. Where that has several next hops only one is to be seen:
 * then any route by the interface will do, also a wider one. */
static __always_inline int astray(struct __sk_buff *skb, __u32 from)
{
	struct bpf_fib_lookup q = {.family = INET, .l4_protocol = IPPROTO_IPIP, .ifindex = tunnel_index};
	__u32 at = skb->ifindex;
	long err;

	if (!bpf_map_lookup_elem(&strict, &at))
		return 0;
	q.ipv4_src = local_address;
	q.ipv4_dst = from;
	err = bpf_fib_lookup(skb, &q, sizeof(q), 0);
	if (!found_route(err))
		return nowhere(err);
	if (q.ifindex == at)
		return 0;
	if (q.family == INET && q.ipv4_dst == from)
		return 1; /* it is on another link */
	__builtin_memset(&q, 0, sizeof(q));
	q.family = INET;
	q.l4_protocol = IPPROTO_IPIP;
	q.ipv4_src = local_address;
	q.ipv4_dst = from;
	q.ifindex = at;
	return nowhere(bpf_fib_lookup(skb, &q, sizeof(q), BPF_FIB_LOOKUP_OUTPUT));
}

static __always_inline int outer_is_sound(struct __sk_buff *skb, struct arrival *a)
{
	__u8 header[HEADER_MAX] = {};
	__u32 have = skb->len - a->l2;

	if (a->out.version != 4 || a->out.ihl < 5)
		return 0;
	a->outer = a->out.ihl * 4;
	a->size = bpf_ntohs(a->out.tot_len);
	if (a->size == 0 && skb->gso_size)
		a->size = have;
	if (a->size > have || a->size < a->outer)
		return 0;
	if (a->outer == sizeof(a->out))
		return header_sum(&a->out) == 0;
	if (a->outer > HEADER_MAX || bpf_skb_load_bytes(skb, a->l2, header, a->outer & 63))
		return 0;
	return fold(bpf_csum_diff(0, 0, (__be32 *)header, HEADER_MAX, 0)) == 0;
}

static __always_inline int inner_is_sound(struct __sk_buff *skb, struct arrival *a)
{
	__u32 size, most = a->size - a->outer;

	if (most < sizeof(a->in))
		return 0;
	if (bpf_skb_load_bytes(skb, a->l2 + a->outer, &a->in, sizeof(a->in)) || a->in.version != 4 || a->in.ihl < 5)
		return 0;
	size = bpf_ntohs(a->in.tot_len);
	if (size == 0 && skb->gso_size)
		return 1;
	return size <= most && size >= a->in.ihl * 4;
}

/* Carries congestion that the outer packet met over to the inner one, as RFC
 * 6040 and the kernel do. 0: nothing to do, 1: the header changed, -1: drop. */
static __always_inline int carry_congestion(struct arrival *a)
{
	__u8 outer = a->out.tos & ECN_MASK, inner = a->in.tos & ECN_MASK;
	__u8 want = inner;

	if (outer == ECN_CE && inner == ECN_NONE)
		return -1;
	if (outer == ECN_CE)
		want = ECN_CE;
	else if (outer == ECN_ECT1 && inner == ECN_ECT0)
		want = ECN_ECT1;
	if (want == inner)
		return 0;
	__u32 sum = (__u16)~bpf_ntohs(a->in.check);
	sum += (__u16)~(__u16)inner;
	sum += want;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	a->in.check = bpf_htons((__u16)~sum);
	a->in.tos = (a->in.tos & ~ECN_MASK) | want;
	return 1;
}

/* A router says that a packet of ours to another host was too big. What it
 * quotes must be one that we could have sent. */
static __always_inline void learn_path(struct __sk_buff *skb, struct arrival *a)
{
	__u32 at = a->l2 + a->out.ihl * 4, to, mtu;
	struct path *old, new = {};
	struct icmp icmp;
	struct iphdr sent;

	if (a->out.ihl < 5 || a->out.frag_off & bpf_htons(IP_MF | IP_OFFSET))
		return;
	if (bpf_skb_load_bytes(skb, at, &icmp, sizeof(icmp)) || icmp.type != ICMP_DEST_UNREACH || icmp.code != ICMP_FRAG_NEEDED)
		return;
	if (bpf_skb_load_bytes(skb, at + sizeof(icmp), &sent, sizeof(sent)) || sent.version != 4 ||
	    sent.protocol != IPPROTO_IPIP || sent.saddr != local_address || !(sent.frag_off & bpf_htons(IP_DF)))
		return;
	to = sent.daddr;
	mtu = bpf_ntohs(icmp.mtu);
	if (!bpf_map_lookup_elem(&hosts, &to) || mtu >= bpf_ntohs(sent.tot_len))
		return;
	new.mtu = mtu < MIN_PATH ? MIN_PATH : mtu;
	new.until = bpf_ktime_get_ns();
	old = bpf_map_lookup_elem(&paths, &to);
	if (old && old->until > new.until && old->mtu < new.mtu)
		return; /* a message that was long under way */
	new.until += PATH_LIFE;
	bpf_map_update_elem(&paths, &to, &new, BPF_ANY);
	tally(skb, PATH_LEARNED);
}

/* Takes the outer header off and lets the packet arrive from the tunnel. */
static __always_inline int hand_up(struct __sk_buff *skb, struct arrival *a, int changed)
{
	struct ethhdr eth = {.h_proto = bpf_htons(ETH_P_IP)};

	if (bpf_skb_adjust_room(skb, -(__s32)a->outer, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return drop(skb, UNSUPPORTED);
	if (changed && bpf_skb_store_bytes(skb, a->l2, &a->in, sizeof(a->in), 0))
		return drop(skb, MALFORMED);
	if (a->l2 == 0 && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return drop(skb, UNSUPPORTED);
	address_of_tunnel(eth.h_dest);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
		return drop(skb, MALFORMED);
	tally(skb, DECAPSULATED);
	return bpf_redirect(tunnel_index, BPF_F_INGRESS);
}

static __always_inline int decapsulate_packet(struct __sk_buff *skb, __u32 l2)
{
	struct arrival a = {.l2 = l2};
	int changed;

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->pkt_type != 0 || skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, l2, &a.out, sizeof(a.out)) || a.out.daddr != local_address)
		return TC_ACT_UNSPEC;
	if (a.out.protocol == IPPROTO_ICMP)
		learn_path(skb, &a);
	if (a.out.protocol != IPPROTO_IPIP)
		return TC_ACT_UNSPEC;
	if (!known(a.out.saddr))
		return stranger(skb, a.out.saddr, UNKNOWN_SENDER);
	if (astray(skb, a.out.saddr))
		return stranger(skb, a.out.saddr, WRONG_WAY);
	if (!outer_is_sound(skb, &a))
		return drop(skb, MALFORMED);
	if (a.out.frag_off & bpf_htons(IP_MF | IP_OFFSET) && reassemble(skb, &a))
		return TC_ACT_SHOT;
	if (!inner_is_sound(skb, &a))
		return drop(skb, MALFORMED);
	changed = carry_congestion(&a);
	if (changed < 0)
		return drop(skb, CONGESTED);
	return hand_up(skb, &a, changed);
}

#endif
