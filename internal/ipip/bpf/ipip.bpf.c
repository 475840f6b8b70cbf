/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* IP in IP (RFC 2003) for kernels without the device. */
#include "decapsulate.h"
#include "encapsulate.h"

/* At the way out of the tunnel's interface. */
SEC("tc")
int encapsulate(struct __sk_buff *skb)
{
	return encapsulate_packet(skb);
}

/* At the way into an interface with Ethernet headers. */
SEC("tc")
int decapsulate_ethernet(struct __sk_buff *skb)
{
	return decapsulate_packet(skb, ETH_HLEN);
}

/* At the way into an interface without headers of its own. */
SEC("tc")
int decapsulate_plain(struct __sk_buff *skb)
{
	return decapsulate_packet(skb, 0);
}

/* Look-ups in the kernel's tables are for programs under the GPL. */
char license_of_programs[] SEC("license") = "GPL";
