/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Outer packets that a router has cut into fragments. The kernel puts
 * fragments together further up than these programs are, so they do it
 * themselves, for fragments that come in order; a packet whose fragments do
 * not is lost. Only fragments from known hosts come here. */
#ifndef BRINDLE_REASSEMBLE_H
#define BRINDLE_REASSEMBLE_H

#include "ipip.h"

#define SLOTS 64
#define PIECE_MAX 8192 /* what is kept, and what comes on top */
#define WHOLE_MAX 9216
#define STEP 512
#define PATIENCE (2ULL * 1000 * 1000 * 1000)

/* A number from 1 to a power of two, said so that the kernel sees it where it
 * is used. The compiler knows already, and would leave the mask out. */
static __always_inline __u32 at_most(__u32 n, __u32 most)
{
	n--;
	asm volatile("" : "+r"(n));
	return (n & (most - 1)) + 1;
}

/* A packet that is not whole yet. Two that want the same slot at a time spoil
 * each other. */
struct slot {
	__u64 since; /* when the first fragment came */
	__u32 busy;  /* somebody is at it */
	__u32 from;  /* the sender */
	__u32 have;  /* bytes, from the first on */
	__u16 id;
	__u8 congested; /* one of the fragments met congestion */
	__u8 unused;
	__u8 data[2 * PIECE_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* Adds a fragment to what there is. Returns the bytes of the whole packet
 * behind the outer header, or 0 when there is none yet. */
static __always_inline __u32 collect(struct __sk_buff *skb, struct arrival *a, struct slot *s)
{
	__u32 at = (bpf_ntohs(a->out.frag_off) & IP_OFFSET) * 8;
	__u32 more = a->out.frag_off & bpf_htons(IP_MF);
	__u32 size = a->size - a->outer, have;
	__u64 now = bpf_ktime_get_ns();

	if (size == 0 || size > PIECE_MAX || (more && size % 8))
		return 0;
	if (at == 0) {
		s->from = a->out.saddr;
		s->id = a->out.id;
		s->since = now;
		s->have = 0;
		s->congested = 0;
	} else if (s->from != a->out.saddr || s->id != a->out.id || s->have != at || now - s->since > PATIENCE) {
		return 0;
	}
	have = s->have;
	if (have >= PIECE_MAX || have + size > WHOLE_MAX)
		return 0;
	if (bpf_skb_load_bytes(skb, a->l2 + a->outer, &s->data[have & (PIECE_MAX - 1)], at_most(size, PIECE_MAX)))
		return 0;
	s->have = have + size;
	s->congested |= (a->out.tos & ECN_MASK) == ECN_CE;
	return more ? 0 : s->have;
}

/* Makes the last fragment the whole packet. */
static __always_inline int assemble(struct __sk_buff *skb, struct arrival *a, struct slot *s, __u32 whole)
{
	__u32 at, size;

	if (whole > WHOLE_MAX || bpf_skb_change_tail(skb, a->l2 + a->outer + whole, 0))
		return -1;
	for (at = 0; at < WHOLE_MAX && at < whole; at += STEP) {
		size = whole - at;
		if (size > STEP)
			size = STEP;
		if (bpf_skb_store_bytes(skb, a->l2 + a->outer + at, &s->data[at], at_most(size, STEP), BPF_F_RECOMPUTE_CSUM))
			return -1;
	}
	a->size = a->outer + whole;
	if (s->congested)
		a->out.tos |= ECN_CE;
	s->from = 0;
	return 0;
}

/* 0: the packet is whole now. Otherwise there is nothing more to do with it. */
static __always_inline int reassemble(struct __sk_buff *skb, struct arrival *a)
{
	__u32 from = bpf_ntohl(a->out.saddr), slot = (from ^ (from >> 8) ^ bpf_ntohs(a->out.id)) % SLOTS;
	struct slot *s = bpf_map_lookup_elem(&slots, &slot);
	__u32 whole;
	int err = -1;

	tally(skb, FRAGMENT);
	if (!s || __sync_val_compare_and_swap(&s->busy, 0, 1) != 0)
		return -1;
	whole = collect(skb, a, s);
	if (whole)
		err = assemble(skb, a, s, whole);
	s->busy = 0;
	if (!err)
		tally(skb, REASSEMBLED);
	return err;
}

#endif
