package bgp

import (
	"encoding/binary"
	"testing"

	wire "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// message puts a header before the body of a BGP message (RFC 4271, 4.1).
func message(kind byte, body []byte) []byte {
	out := make([]byte, 19, 19+len(body))
	for i := range 16 {
		out[i] = 0xff
	}
	binary.BigEndian.PutUint16(out[16:], uint16(19+len(body)))
	out[18] = kind
	return append(out, body...)
}

const (
	msgOpen         = 1
	msgUpdate       = 2
	msgNotification = 3
	msgKeepalive    = 4
	msgRefresh      = 5
)

// sampleUpdate announces 10.65.2.0/26 from 172.30.0.2 with most attributes that
// there are.
func sampleUpdate() []byte {
	attrs := []byte{
		0x40, 1, 1, 0, // origin
		0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0, // AS path
		0x40, 3, 4, 172, 30, 0, 2, // next hop
		0x80, 4, 4, 0, 0, 0, 1, // MED
		0x40, 5, 4, 0, 0, 0, 100, // local preference
		0xc0, 7, 8, 0, 0, 0xfc, 0, 1, 2, 3, 4, // aggregator
		0xc0, 8, 4, 0xfc, 0, 0, 7, // community
		0x80, 9, 4, 172, 30, 0, 9, // originator
		0x80, 10, 4, 1, 1, 1, 1, // cluster list
		0xc0, 16, 8, 0, 2, 0xfc, 0, 0, 0, 0, 1, // extended community
		0xc0, 32, 12, 0, 0, 0xfc, 0, 0, 0, 0, 1, 0, 0, 0, 2, // large community
	}
	body := []byte{0, 0, 0, byte(len(attrs))}
	body = append(body, attrs...)
	return append(body, 26, 10, 65, 2, 0)
}

// sampleUpdate6 announces fd65:0:0:2::/64 by multiprotocol attributes.
func sampleUpdate6() []byte {
	attrs := []byte{0x90, 14, 0, 30, 0, 2, 1, 16,
		0xfd, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0,
		64, 0xfd, 0x65, 0, 0, 0, 0, 0, 2,
		0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100,
		0x90, 15, 0, 3, 0, 2, 1}
	return append([]byte{0, 0, 0, byte(len(attrs))}, attrs...)
}

// sampleOpen is an OPEN from AS 64512 with the capabilities in use.
func sampleOpen(id [4]byte) []byte {
	caps := []byte{
		1, 4, 0, 1, 0, 1, // IPv4 unicast
		2, 0, // route refresh
		64, 6, 0, 120, 0, 1, 1, 0x80, // graceful restart
		65, 4, 0, 0, 0xfc, 0, // AS numbers of four octets
		6, 0, // extended messages
		69, 4, 0, 1, 1, 1, // add path, receive
		73, 6, 4, 'h', 'o', 's', 't', 0, // FQDN
		75, 2, 1, 'x', // software version
		5, 6, 0, 1, 0, 1, 0, 2, // extended next hop
	}
	body := []byte{4, 0xfc, 0, 0, 90, id[0], id[1], id[2], id[3], byte(len(caps) + 2), 2, byte(len(caps))}
	return append(body, caps...)
}

// FuzzParse looks for bytes on which the engine's parser panics, or fails with
// an error of a type that its state machine does not expect: both would end
// the process. It mirrors what the engine does with a message before anybody
// else sees it.
func FuzzParse(f *testing.F) {
	f.Add(byte(msgOpen), sampleOpen([4]byte{172, 30, 0, 2}), false)
	f.Add(byte(msgUpdate), sampleUpdate(), false)
	f.Add(byte(msgUpdate), sampleUpdate6(), true)
	f.Add(byte(msgUpdate), []byte{0, 0, 0, 0}, false)
	f.Add(byte(msgNotification), []byte{6, 2, 3, 'b', 'y', 'e'}, false)
	f.Add(byte(msgKeepalive), []byte{}, false)
	f.Add(byte(msgRefresh), []byte{0, 1, 0, 1}, false)
	f.Fuzz(func(t *testing.T, kind byte, body []byte, twoOctets bool) {
		if len(body) > 65535-19 {
			return
		}
		raw := message(kind, body)
		var header wire.BGPHeader
		if err := header.DecodeFromBytes(raw[:19]); err != nil {
			handled(t, err)
			return
		}
		families := map[wire.Family]wire.BGPAddPathMode{wire.RF_IPv4_UC: 0, wire.RF_IPv6_UC: 0}
		m, err := wire.ParseBGPBody(&header, raw[19:], &wire.MarshallingOption{
			AddPath: families, Use2ByteAS: twoOctets, ExtendedMessage: true,
		})
		if err != nil {
			handled(t, err)
			return
		}
		switch b := m.Body.(type) {
		case *wire.BGPUpdate:
			for _, external := range []bool{false, true} {
				if _, err := wire.ValidateUpdateMsg(b, families, external, false, false); err != nil {
					handled(t, err)
				}
			}
		case *wire.BGPOpen:
			if _, err := wire.ValidateOpenMsg(b, clusterAS, clusterAS, b.ID); err != nil {
				handled(t, err)
			}
		}
	})
}

func handled(t *testing.T, err error) {
	if _, ok := err.(*wire.MessageError); !ok {
		t.Errorf("an error of type %T: %v", err, err)
	}
}
