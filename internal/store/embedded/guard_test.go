package embedded

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/brindle-net/brindle/internal/store"
)

// ops of a transaction, in short.
func putOp(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

func absent(key string) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{}}
}

func TestGuardOfAHost(t *testing.T) {
	end := func(name string) string {
		return store.ResourceID{Plural: endpoints, Namespace: "n", Name: name}.Key()
	}
	profile := store.ResourceID{Plural: profiles, Name: "p"}.Key()
	own, of := end("h--1-cni-x-eth0"), func(host string) string { return `{"spec":{"node":"` + host + `"}}` }
	for _, tt := range []struct {
		name string
		in   any
		want string // "": allowed
	}{
		{"a read", &pb.RangeRequest{Key: []byte("/")}, ""},
		{"own endpoint", &pb.TxnRequest{Success: []*pb.RequestOp{putOp(own, of("h-1"))}}, ""},
		{"own endpoint goes", &pb.DeleteRangeRequest{Key: []byte(own)}, ""},
		{"what its role decides", &pb.PutRequest{Key: []byte("/calico/ipam/v2/handle/x")}, ""},
		{"endpoint on another host", &pb.TxnRequest{Success: []*pb.RequestOp{putOp(own, of("h-2"))}}, "says that it is on host"},
		{"spec twice", &pb.PutRequest{Key: []byte(own), Value: []byte(`{"spec":{"node":"h-2"},"spec":{"node":"h-1"}}`)}, "twice"},
		{"spec in another case", &pb.PutRequest{Key: []byte(own), Value: []byte(`{"spec":{"node":"h-2"},"Spec":{"node":"h-1"}}`)}, "twice"},
		{"node in another case", &pb.PutRequest{Key: []byte(own), Value: []byte(`{"spec":{"node":"h-1","ſpec":1,"NODE":"h-2"}}`)}, "twice"},
		{"no node", &pb.PutRequest{Key: []byte(own), Value: []byte(`{"spec":{}}`)}, `no "node"`},
		{"node is no text", &pb.PutRequest{Key: []byte(own), Value: []byte(`{"spec":{"node":["h-1"]}}`)}, "cannot be read"},
		{"no JSON", &pb.PutRequest{Key: []byte(own), Value: []byte("x")}, "cannot be read"},
		{"half", &pb.PutRequest{Key: []byte(own), Value: []byte(`{"spec":{"node":"h-1"`)}, "cannot be read"},
		{"empty", &pb.PutRequest{Key: []byte(own)}, "cannot be read"},
		{"other endpoint", &pb.PutRequest{Key: []byte(end("h-cni-x-eth0")), Value: []byte(of("h-1"))}, "not its own"},
		{"host whose name goes on", &pb.PutRequest{Key: []byte(end("h--1--2-cni-x-eth0")), Value: []byte(of("h-1"))}, "not its own"},
		{"its prefix alone", &pb.PutRequest{Key: []byte(end("h--1-")), Value: []byte(of("h-1"))}, "not its own"},
		{"in the failing part", &pb.TxnRequest{Failure: []*pb.RequestOp{putOp(end("h--2-cni-x-eth0"), of("h-1"))}}, "not its own"},
		{"a range of endpoints", &pb.DeleteRangeRequest{Key: []byte(own), RangeEnd: []byte(own + "z")}, "deleting ranges"},
		{"a range in a transaction", &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}}}}}}, "deleting ranges"},
		{"transaction in a transaction", &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{}}}}}, "within a transaction"},
		{"nothing in a transaction", &pb.TxnRequest{Success: []*pb.RequestOp{{}}}, "within a transaction"},
		{"a lease", &pb.PutRequest{Key: []byte(own), Value: []byte(of("h-1")), Lease: 1}, "leases"},
		{"the value as it was", &pb.PutRequest{Key: []byte(own), IgnoreValue: true}, "leases"},
		{"new profile", &pb.TxnRequest{Compare: []*pb.Compare{absent(profile)}, Success: []*pb.RequestOp{putOp(profile, "{}")}}, ""},
		{"profile", &pb.PutRequest{Key: []byte(profile)}, "may make a profile that does not exist"},
		{"profile, another one new", &pb.TxnRequest{Compare: []*pb.Compare{absent(profile + "2")}, Success: []*pb.RequestOp{putOp(profile, "{}")}}, "may make a profile"},
		{"profile if it is there", &pb.TxnRequest{Compare: []*pb.Compare{absent(profile)}, Failure: []*pb.RequestOp{putOp(profile, "{}")}}, "may make a profile"},
		{"profile by version", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte(profile), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER}}, Success: []*pb.RequestOp{putOp(profile, "{}")}}, "may make a profile"},
		{"profile goes", &pb.DeleteRangeRequest{Key: []byte(profile)}, "may not delete profile"},
		{"a key among resources that is none's", &pb.PutRequest{Key: []byte(own + "%2f"), Value: []byte(of("h-1"))}, "no resource"},
		{"one that goes", &pb.DeleteRangeRequest{Key: []byte(own + "/more")}, "no resource"},
		{"a very long key", &pb.PutRequest{Key: []byte(profile + strings.Repeat("x", 2000))}, "longer than any"},
		{"compaction", &pb.CompactionRequest{}, "not for hosts"},
		{"a lease of its own", &pb.LeaseGrantRequest{}, "not for hosts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := checkHost("h-1", tt.in)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestGrants has no range of a host reach what is another host's.
func TestGrants(t *testing.T) {
	for _, g := range (User{Kind: HostUser, Name: "h-1"}).Grants() {
		if !g.Write {
			continue
		}
		for _, key := range []string{
			store.ResourceID{Plural: "nodes", Name: "h-10"}.Key(), store.ResourceID{Plural: "nodes", Name: "h"}.Key(),
			store.AffinityPrefix(false, "h-10"), store.AffinityPrefix(false, "h"), store.AffinityPrefix(true, "h-1"),
			store.ResourceID{Plural: "ippools", Name: "p"}.Key(), store.IPAMConfigKey, "/brindle/leader",
			store.ResourceID{Plural: "globalnetworkpolicies", Name: "default.p"}.Key(),
			store.ResourceID{Plural: "profilesx", Name: "p"}.Key(),
		} {
			if key == g.From || g.To != "" && key >= g.From && key < g.To {
				t.Errorf("host h-1 may write %s, by %q to %q", key, g.From, g.To)
			}
		}
	}
}

// TestRightsFollowTheRelease: users made by an older release get what the
// newer one gives, when it starts.
func TestRightsFollowTheRelease(t *testing.T) {
	dir, err := os.MkdirTemp("", "be") // short, as the path of a socket must be
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg := Config{Dir: filepath.Join(dir, "d"), Users: true, UnsafeNoFsync: true}
	host := User{Kind: HostUser, Name: "h"}
	for round, change := range []func(s *Server) error{
		func(s *Server) error {
			if err := s.AddUser(t.Context(), host); err != nil {
				return err
			}
			return s.makeRole(asRoot(t.Context()), host.CN(), []Grant{below("/calico/", true), host.Grants()[0]})
		},
		func(*Server) error { return nil },
		func(*Server) error { return nil },
	} {
		s, err := Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if round > 0 {
			role, err := s.etcd.Server.AuthStore().RoleGet(&pb.AuthRoleGetRequest{Role: host.CN()})
			if err != nil || !sameGrants(role.Perm, host.Grants()) {
				t.Errorf("start %d: rights %v, %v", round, role, err)
			}
		}
		if err := errors.Join(change(s), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGuardAtTheDoor is about who calls, whatever they ask.
func TestGuardAtTheDoor(t *testing.T) {
	by := func(cn string) context.Context {
		chains := [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: cn}}}}
		return peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{}, AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: chains}}})
	}
	socket := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.UnixAddr{Net: "unix"}})
	const read, lease = "/etcdserverpb.KV/Range", "/etcdserverpb.Lease/LeaseGrant"
	open := &guard{}
	open.open.Store(&embed.Etcd{})
	for _, tt := range []struct {
		name   string
		guard  *guard
		ctx    context.Context
		method string
		want   codes.Code
		who    string
	}{
		{"a host before users are on", &guard{}, by("host:h"), read, codes.Unavailable, ":"},
		{"a client before users are on", &guard{}, by("client:c"), read, codes.Unavailable, ":"},
		{"anybody before users are on", &guard{}, by("x"), read, codes.Unavailable, ":"},
		{"the socket", &guard{}, socket, lease, codes.OK, ":"},
		{"a host", open, by("host:h"), read, codes.OK, "host:h"},
		{"a host that wants a lease", open, by("host:h"), lease, codes.PermissionDenied, "host:h"},
		{"a host that wants to be another", open, by("host:h"), "/etcdserverpb.Auth/Authenticate", codes.PermissionDenied, "host:h"},
		{"a host that wants a member", open, by("host:h"), "/etcdserverpb.Cluster/MemberAdd", codes.PermissionDenied, "host:h"},
		{"a host that wants a lock", open, by("host:h"), "/v3lockpb.Lock/Lock", codes.PermissionDenied, "host:h"},
		{"a client", open, by("client:c"), lease, codes.OK, "client:c"},
		{"root by certificate", open, by("root"), read, codes.PermissionDenied, ":"},
		{"one of another kind", open, by("x:y"), read, codes.OK, ":"},
		{"no kind", open, by("host"), lease, codes.OK, ":"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, who, err := tt.guard.admit(tt.ctx, tt.method)
			if status.Code(err) != tt.want || err == nil && who.CN() != tt.who {
				t.Errorf("got %v, %v", who, err)
			}
			p, _ := peer.FromContext(ctx)
			info, ok := p.AuthInfo.(credentials.TLSInfo)
			if asked := ok && info.State.VerifiedChains[0][0].Subject.CommonName == rootUser; asked != (tt.ctx == socket || tt.name == "root by certificate") {
				t.Errorf("taken for root: %v", asked)
			}
		})
	}
}

// TestChangeOfRole has rights of an earlier release become those of this one
// without a moment in between that has less than both.
func TestChangeOfRole(t *testing.T) {
	read, write := Grant{From: "a", To: "b"}, Grant{From: "a", To: "b", Write: true}
	other, gone := Grant{From: "c"}, Grant{From: "d", To: "e", Write: true}
	for _, tt := range []struct {
		name            string
		has             []Grant
		add, drop, want []Grant
	}{
		{"new", nil, []Grant{write, other}, nil, []Grant{write, other}},
		{"nothing to do", []Grant{other, write}, nil, nil, []Grant{write, other}},
		{"more, and one less", []Grant{gone, other}, []Grant{write}, []Grant{gone}, []Grant{write, other}},
		{"the same range to write", []Grant{read}, []Grant{write}, nil, []Grant{write}},
		{"the same range to read only", []Grant{write}, []Grant{read}, nil, []Grant{read}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var has []*authpb.Permission
			for _, g := range tt.has {
				has = append(has, g.permission())
			}
			add, drop := changeOfRole(has, tt.want)
			if !slices.Equal(add, tt.add) || !slices.Equal(drop, tt.drop) {
				t.Errorf("grants %v, then revokes %v", add, drop)
			}
		})
	}
}

// TestGuardOfWhatIsShared has a host say what its write of a block replaces,
// and no write judged by anything but that.
func TestGuardOfWhatIsShared(t *testing.T) {
	var judged []string
	cfg := Config{Dir: filepath.Join(t.TempDir(), "d"), UnsafeNoFsync: true, CheckHost: func(w store.HostWrite) error {
		judged = append(judged, w.Host+": "+string(w.Old)+" to "+string(w.New))
		list, err := w.List("/calico/ipam/v2/assignment/x")
		if err != nil || len(list) != 2 {
			t.Errorf("listed %v, %v", list, err)
		}
		return nil
	}}
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const block = store.BlockRoot + "x"
	var revs []int64
	for _, key := range []string{block, block + "y", block, store.BlockRoot + "y"} {
		resp, err := s.etcd.Server.Put(t.Context(), &pb.PutRequest{Key: []byte(key), Value: fmt.Appendf(nil, "v%d", len(revs))})
		if err != nil {
			t.Fatal(err)
		}
		revs = append(revs, resp.Header.Revision)
	}
	del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(block)}}}
	at := func(rev int64) []*pb.Compare {
		return []*pb.Compare{{Key: []byte(block), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}}
	}
	put := []*pb.RequestOp{putOp(block, "new")}
	for _, tt := range []struct {
		name   string
		in     any
		judged string // "": not at all
		want   string
	}{
		{"at its revision", &pb.TxnRequest{Compare: at(revs[2]), Success: put}, "h: v2 to new", ""},
		{"it goes", &pb.TxnRequest{Compare: at(revs[2]), Success: []*pb.RequestOp{del}}, "h: v2 to ", ""},
		{"a new one", &pb.TxnRequest{Compare: at(0), Success: put}, "h:  to new", ""},
		{"at an earlier revision, which etcd refuses", &pb.TxnRequest{Compare: at(revs[0]), Success: put}, "", ""},
		{"at a later one", &pb.TxnRequest{Compare: at(revs[3]), Success: put}, "", "never been at revision"},
		{"at none", &pb.TxnRequest{Success: put}, "", "at a revision only"},
		{"by version", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte(block), Target: pb.Compare_VERSION}}, Success: put}, "", "at a revision only"},
		{"if it is there", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte(block), Target: pb.Compare_CREATE, Result: pb.Compare_GREATER}}, Success: put}, "", "at a revision only"},
		{"at any but one", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte(block), Target: pb.Compare_MOD, Result: pb.Compare_NOT_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: revs[2]}}}, Success: put}, "", "at a revision only"},
		{"at the revision of another", &pb.TxnRequest{Compare: []*pb.Compare{absent(block + "z")}, Success: put}, "", "at a revision only"},
		{"at the revision of a range", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte(block), RangeEnd: []byte{0}, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: revs[2]}}}, Success: put}, "", "at a revision only"},
		{"otherwise", &pb.TxnRequest{Compare: at(revs[2]), Failure: put}, "", "at a revision only"},
		{"outright", &pb.PutRequest{Key: []byte(block)}, "", "at a revision only"},
		{"gone outright", &pb.DeleteRangeRequest{Key: []byte(store.HandleRoot + "h")}, "", "at a revision only"},
		{"something else", &pb.PutRequest{Key: []byte("/calico/ipam/v2/host/h/x")}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			judged = nil
			s.guard.open.Store(s.etcd)
			err := s.guard.checkShared(t.Context(), "h", tt.in)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
			if got := strings.Join(judged, "; "); got != tt.judged {
				t.Errorf("judged %q, want %q", got, tt.judged)
			}
		})
	}
	strict := &guard{}
	strict.open.Store(s.etcd)
	if err := strict.checkShared(t.Context(), "h", &pb.TxnRequest{Compare: at(0), Success: put}); err == nil {
		t.Error("one without a judge lets all pass")
	}
}

// TestGuardAsksTheMembers: a member that lags behind does not decide by pools and
// settings of a moment ago.
func TestGuardAsksTheMembers(t *testing.T) {
	for prefix, alone := range map[string]bool{
		store.ResourcePrefix("ippools", ""): false, store.IPAMConfigKey: false, store.BlockRoot + "ipv4/": true,
	} {
		if r := listing(prefix); r.Serializable != alone || string(r.Key) != prefix || len(r.RangeEnd) == 0 {
			t.Errorf("%s: %v", prefix, r)
		}
	}
}
