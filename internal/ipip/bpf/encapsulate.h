/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The way out: a packet that the kernel has routed out of the tunnel's
 * interface gets an outer header and goes on to the interface below. */
#ifndef BRINDLE_ENCAPSULATE_H
#define BRINDLE_ENCAPSULATE_H

#include "ipip.h"

/* QUOTE is what a message about a packet says of it: the largest IP header
 * and the first eight bytes behind it (RFC 792). BEHIND is more than lies
 * before any place at which a checksum is still to be filled in. */
#define QUOTE 68
#define BEHIND 76

struct too_big {
	struct iphdr ip;
	struct icmp icmp;
	__u8 quote[QUOTE];
};

/* Nobody is told of errors about errors, about fragments behind the first,
 * and about packets whose source is not one host (RFC 1122, 3.2.2). */
static __always_inline int may_be_told(struct __sk_buff *skb, struct iphdr *in)
{
	__u32 from = bpf_ntohl(in->saddr);
	__u8 type = 0;

	if (in->frag_off & bpf_htons(IP_OFFSET))
		return 0;
	if ((from >> 28) >= 14 || (from >> 24) == 0 || (from >> 24) == 127)
		return 0;
	if (in->protocol != IPPROTO_ICMP)
		return 1;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + in->ihl * 4, &type, 1))
		return 0;
	return type != ICMP_DEST_UNREACH && type != ICMP_SOURCE_QUENCH && type != ICMP_REDIRECT &&
	       type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETERPROB;
}

/* The packet turns into the message that it is too big for a path of mtu
 * bytes, which arrives from the tunnel as if the other end had sent it: so
 * it passes reverse-path filters, and belongs to the connection. */
static __always_inline int answer_too_big(struct __sk_buff *skb, struct iphdr *in, __u32 mtu)
{
	struct too_big m = {};
	__u8 mac[ETH_ALEN];

	tally(skb, TOO_BIG);
	if (!may_be_told(skb, in) || bpf_skb_load_bytes(skb, ETH_HLEN, m.quote, QUOTE))
		return TC_ACT_SHOT;
	m.icmp.type = ICMP_DEST_UNREACH;
	m.icmp.code = ICMP_FRAG_NEEDED;
	m.icmp.mtu = bpf_htons(mtu);
	m.icmp.check = fold(bpf_csum_diff(0, 0, (__be32 *)&m.icmp, sizeof(m.icmp) + QUOTE, 0));
	m.ip.version = 4;
	m.ip.ihl = 5;
	m.ip.tos = 0xc0; /* internetwork control, as the kernel's own */
	m.ip.tot_len = bpf_htons(sizeof(m));
	m.ip.ttl = 64;
	m.ip.protocol = IPPROTO_ICMP;
	m.ip.saddr = in->daddr;
	m.ip.daddr = in->saddr;
	m.ip.check = header_sum(&m.ip);
	/* Cutting the tail ends offloaded segmentation. Cutting the head beyond
	 * the place of a checksum that is to be filled in ends that. */
	if (bpf_skb_change_tail(skb, ETH_HLEN + BEHIND + sizeof(m), 0) ||
	    bpf_skb_adjust_room(skb, -BEHIND, BPF_ADJ_ROOM_MAC, 0))
		return TC_ACT_SHOT;
	address_of_tunnel(mac);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &m, sizeof(m), 0) ||
	    bpf_skb_store_bytes(skb, 0, mac, ETH_ALEN, 0))
		return TC_ACT_SHOT;
	return bpf_redirect(tunnel_index, BPF_F_INGRESS);
}

/* How long the longest packet is that the wire will see of this one, which
 * may be cut into segments further down. */
static __always_inline __u32 longest(struct __sk_buff *skb, struct iphdr *in)
{
	__u32 size = skb->len - ETH_HLEN;
	__u8 offset = 0;

	if (skb->gso_size == 0)
		return size;
	if (in->protocol == IPPROTO_UDP)
		return in->ihl * 4 + 8 + skb->gso_size;
	if (in->protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, ETH_HLEN + in->ihl * 4 + 12, &offset, 1))
		return 0; /* not known */
	return in->ihl * 4 + (offset >> 4) * 4 + skb->gso_size;
}

/* Where the destination's packets went a moment ago, if that is a host still. */
static __always_inline __u32 last_peer(struct __sk_buff *skb, __u32 to)
{
	struct hop *h = bpf_map_lookup_elem(&hops, &to);
	__u32 peer;

	if (!h || h->until < bpf_ktime_get_ns())
		return 0;
	peer = h->peer;
	if (!bpf_map_lookup_elem(&hosts, &peer))
		return 0;
	tally(skb, LATE);
	return peer;
}

static __always_inline void remember_peer(__u32 to, __u32 peer)
{
	struct hop *h = bpf_map_lookup_elem(&hops, &to), new = {.peer = peer};

	new.until = bpf_ktime_get_ns() + HOP_LIFE;
	if (h && h->peer == peer && h->until + HOP_STEP > new.until)
		return; /* processors that send to one host do not fight for the row */
	if (h && h->peer == peer)
		h->until = new.until;
	else
		bpf_map_update_elem(&hops, &to, &new, BPF_ANY);
}

/* The next hop of the packet's route is the host to send it to: what the
 * kernel's own device does. That one has the route with the packet; here it is
 * looked up once more, and may have moved to another interface since the packet
 * was given to this one. Then the packet follows those before it: to take the
 * new way it would have to pass netfilter again, and where the tunnel's route
 * has just gone it would leave bare. Returns 0 when there is no next hop. */
static __always_inline __u32 peer_of(struct __sk_buff *skb, struct iphdr *in)
{
	struct bpf_fib_lookup q = {
		.family = INET,
		.l4_protocol = in->protocol,
		.tos = in->tos,
		.ipv4_src = in->saddr,
		.ipv4_dst = in->daddr,
		.ifindex = tunnel_index,
	};
	long err = bpf_fib_lookup(skb, &q, sizeof(q), BPF_FIB_LOOKUP_OUTPUT);

	if (!found_route(err))
		return last_peer(skb, in->daddr);
	if (q.family != INET || q.ifindex != tunnel_index || q.ipv4_dst == in->daddr || q.ipv4_dst == local_address)
		return 0;
	remember_peer(in->daddr, q.ipv4_dst);
	return q.ipv4_dst;
}

/* The outer header, as the kernel's tunl0 makes it: time to live and DF of
 * the packet, its ECN (congestion is not repeated), no DSCP. */
static __always_inline void outer_header(struct __sk_buff *skb, struct iphdr *in, __u32 peer, struct iphdr *out)
{
	__u32 size = skb->len - ETH_HLEN + sizeof(*out);
	__u8 ecn = in->tos & ECN_MASK;

	out->version = 4;
	out->ihl = 5;
	out->tos = ecn == ECN_CE ? ECN_ECT0 : ecn;
	out->tot_len = size > 65535 ? 0 : bpf_htons(size);
	out->id = (__u16)bpf_get_prandom_u32();
	out->frag_off = in->frag_off & bpf_htons(IP_DF);
	out->ttl = in->ttl;
	out->protocol = IPPROTO_IPIP;
	out->saddr = local_address;
	out->daddr = peer;
	out->check = header_sum(out);
}

static __always_inline int push(struct __sk_buff *skb, struct iphdr *in, struct iphdr *out)
{
	__u64 fixed = BPF_F_ADJ_ROOM_FIXED_GSO;
	long err = bpf_skb_adjust_room(skb, sizeof(*out), BPF_ADJ_ROOM_MAC, fixed | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);

	/* The packet has been through a tunnel already: one of its own, or this
	 * one before it turned back. It stays marked as it is, which is right
	 * unless it is also to be cut into segments by another tunnel's rules. */
	if (err == ALREADY && (skb->gso_size == 0 || in->protocol == IPPROTO_TCP))
		err = bpf_skb_adjust_room(skb, sizeof(*out), BPF_ADJ_ROOM_MAC, fixed);
	return err || bpf_skb_store_bytes(skb, ETH_HLEN, out, sizeof(*out), 0);
}

/* Sends the packet to the next hop of the outer route. Where the next hop's
 * own address is not known yet, the packet has to wait for it, and must have
 * that route while it waits, not the inner one: then the kernel looks again. */
static __always_inline int hand_down(struct bpf_fib_lookup *q, long found)
{
	struct bpf_redir_neigh next = {.nh_family = q->family};

	if (found != BPF_FIB_LKUP_RET_SUCCESS)
		return bpf_redirect_neigh(q->ifindex, 0, 0, 0);
	if (q->family == INET6)
		__builtin_memcpy(next.ipv6_nh, q->ipv6_dst, sizeof(next.ipv6_nh));
	else
		next.ipv4_nh = q->ipv4_dst;
	return bpf_redirect_neigh(q->ifindex, &next, sizeof(next), 0);
}

static __always_inline __u32 learned_path(__u32 peer)
{
	struct path *p = bpf_map_lookup_elem(&paths, &peer);

	return p && p->until > bpf_ktime_get_ns() ? p->mtu : 65535;
}

static __always_inline int encapsulate_packet(struct __sk_buff *skb)
{
	struct bpf_fib_lookup q = {.family = INET, .l4_protocol = IPPROTO_IPIP, .ifindex = tunnel_index};
	struct iphdr in, out = {};
	__u32 peer, size, mtu;
	long err;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return TC_ACT_SHOT; /* this tunnel carries IPv4 */
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &in, sizeof(in)) || in.version != 4 || in.ihl < 5)
		return drop(skb, MALFORMED);
	peer = peer_of(skb, &in);
	if (!peer)
		return drop(skb, NO_PEER);
	outer_header(skb, &in, peer, &out);
	size = longest(skb, &in);
	if (!size)
		return drop(skb, UNSUPPORTED);
	size += sizeof(out);
	q.tos = out.tos;
	q.tot_len = size > 65535 ? 65535 : size;
	q.ipv4_src = out.saddr;
	q.ipv4_dst = out.daddr;
	err = bpf_fib_lookup(skb, &q, sizeof(q), 0);
	if (!found_route(err))
		return drop(skb, NO_PATH);
	mtu = q.mtu_result;
	if (out.frag_off || skb->gso_size) {
		__u32 learned = learned_path(peer);

		mtu = learned < mtu ? learned : mtu;
	}
	if (size > mtu)
		return answer_too_big(skb, &in, mtu - sizeof(out));
	if (q.ifindex == tunnel_index)
		return drop(skb, NO_PATH); /* it would come back here */
	if (push(skb, &in, &out))
		return drop(skb, UNSUPPORTED);
	tally(skb, ENCAPSULATED);
	return hand_down(&q, err);
}

#endif
