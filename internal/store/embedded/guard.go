package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/auth"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/brindle-net/brindle/internal/store"
)

// Resources of which a host writes some.
const (
	endpoints = "workloadendpoints"
	profiles  = "profiles"
)

// hostCalls are what an agent needs of etcd. Leases, the list of members,
// locks and the rest are not for hosts.
var hostCalls = map[string]bool{
	"/etcdserverpb.KV/Range": true, "/etcdserverpb.KV/Put": true, "/etcdserverpb.KV/DeleteRange": true,
	"/etcdserverpb.KV/Txn": true, "/etcdserverpb.Watch/Watch": true,
	"/grpc.health.v1.Health/Check": true, "/grpc.health.v1.Health/Watch": true,
}

// guard stands before etcd and knows who calls. Whoever opened the socket is
// root. A host is held to what roles cannot express; that comes on top of its
// role, never instead of it. Nobody comes in over TCP before it is open: until
// users are on, every certificate could do everything.
type guard struct {
	open  atomic.Pointer[embed.Etcd]
	check func(store.HostWrite) error // of blocks and handles; nil refuses all
}

// expelEvery is how often streams are ended whose user is one no more.
const expelEvery = time.Second

func (g *guard) options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(g.unary), grpc.ChainStreamInterceptor(g.stream)}
}

// admit says who calls, and lets nobody but the calls of its kind pass.
func (g *guard) admit(ctx context.Context, method string) (context.Context, User, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, User{}, nil
	}
	t, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		if p.Addr != nil && p.Addr.Network() == "unix" {
			return asRoot(ctx), User{}, nil
		}
		return ctx, User{}, nil
	}
	if len(t.State.VerifiedChains) == 0 {
		return ctx, User{}, nil // etcd asks for a certificate by itself
	}
	if g.open.Load() == nil {
		return ctx, User{}, status.Error(codes.Unavailable, "this member is starting")
	}
	cn := t.State.VerifiedChains[0][0].Subject.CommonName
	if cn == rootUser {
		return ctx, User{}, status.Error(codes.PermissionDenied, "nobody is root over the network; use the socket of a member")
	}
	u, ok := parseUser(cn)
	if !ok {
		return ctx, User{}, nil // none of ours: etcd knows its rights
	}
	if u.Kind == HostUser && !hostCalls[method] {
		return ctx, u, status.Errorf(codes.PermissionDenied, "%s is not for hosts", method)
	}
	return ctx, u, nil
}

func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, serve grpc.UnaryHandler) (any, error) {
	ctx, who, err := g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if who.Kind == HostUser && strings.HasPrefix(info.FullMethod, "/etcdserverpb.") {
		err := checkHost(who.Name, req)
		if err == nil {
			err = g.checkShared(ctx, who.Name, req)
		}
		if err != nil {
			return nil, status.Errorf(codes.PermissionDenied, "host %s: %v", who.Name, err)
		}
	}
	resp, err := serve(ctx, req)
	return resp, g.explain(who, err)
}

func (g *guard) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, serve grpc.StreamHandler) error {
	ctx, who, err := g.admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	if who.Kind == "" {
		return serve(srv, endedStream{ServerStream: stream, ctx: ctx})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go g.expel(ctx, cancel, who)
	return g.explain(who, serve(srv, endedStream{ServerStream: stream, ctx: ctx}))
}

// expel ends a stream when its user was removed: etcd asks for rights only
// when a watch begins. It ends with the stream.
func (g *guard) expel(ctx context.Context, end func(), who User) {
	users := g.open.Load().Server.AuthStore()
	tick := time.NewTicker(expelEvery)
	defer tick.Stop()
	for seen := uint64(0); ; {
		if now := users.Revision(); now != seen && users.IsAuthEnabled() {
			if g.missing(who) {
				end()
				return
			}
			seen = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// missing reports whether somebody is no user.
func (g *guard) missing(who User) bool {
	_, err := g.open.Load().Server.AuthStore().UserGet(&etcdserverpb.AuthUserGetRequest{Name: who.CN()})
	return errors.Is(err, auth.ErrUserNotFound)
}

// explain says what to do where etcd only says no.
func (g *guard) explain(who User, err error) error {
	if who.Kind == "" || status.Code(err) != codes.PermissionDenied {
		return err
	}
	if !g.missing(who) {
		return err
	}
	return status.Errorf(codes.PermissionDenied, "%s %s is no user of this datastore, or no more; `brindle server users add %s %s` on a member makes it one", who.Kind, who.Name, who.Kind, who.Name)
}

// checkHost says why a host may not ask for this. What it does not know is
// refused.
func checkHost(host string, req any) error {
	switch r := req.(type) {
	case *etcdserverpb.RangeRequest:
		return nil
	case *etcdserverpb.PutRequest:
		return checkPut(host, r, false)
	case *etcdserverpb.DeleteRangeRequest:
		return checkDelete(host, r)
	case *etcdserverpb.TxnRequest:
		return checkTxn(host, r)
	}
	return fmt.Errorf("request %T is not for hosts", req)
}

func checkTxn(host string, txn *etcdserverpb.TxnRequest) error {
	fresh := map[string]bool{}
	for _, c := range txn.Compare {
		zero := c.GetCreateRevision() == 0 && c.Target == etcdserverpb.Compare_CREATE || c.GetModRevision() == 0 && c.Target == etcdserverpb.Compare_MOD
		if zero && c.Result == etcdserverpb.Compare_EQUAL && len(c.RangeEnd) == 0 {
			fresh[string(c.Key)] = true
		}
	}
	for i, ops := range [][]*etcdserverpb.RequestOp{txn.Success, txn.Failure} {
		for _, op := range ops {
			var err error
			switch {
			case op.GetRequestPut() != nil:
				put := op.GetRequestPut()
				err = checkPut(host, put, i == 0 && fresh[string(put.Key)])
			case op.GetRequestDeleteRange() != nil:
				err = checkDelete(host, op.GetRequestDeleteRange())
			case op.GetRequestRange() == nil:
				err = errors.New("a transaction within a transaction is not for hosts")
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPut judges a write; fresh says that it is made only if the key does not
// exist.
func checkPut(host string, put *etcdserverpb.PutRequest, fresh bool) error {
	if put.Lease != 0 || put.IgnoreValue || put.IgnoreLease {
		return errors.New("leases are not for hosts")
	}
	if len(put.Key) > maxKey {
		return fmt.Errorf("a key of %d bytes is longer than any of ours", len(put.Key))
	}
	id, ok := store.ParseResourceKey(string(put.Key))
	if !ok {
		return checkOther(put.Key)
	}
	switch {
	case id.Plural == profiles && !fresh:
		return fmt.Errorf("it may make a profile that does not exist, and not change %s", id.Name)
	case id.Plural == endpoints:
		return checkEndpoint(host, id, put.Value)
	}
	return nil
}

func checkDelete(host string, del *etcdserverpb.DeleteRangeRequest) error {
	if len(del.RangeEnd) > 0 {
		return errors.New("deleting ranges is not for hosts")
	}
	id, ok := store.ParseResourceKey(string(del.Key))
	switch {
	case !ok:
		return checkOther(del.Key)
	case id.Plural == profiles:
		return fmt.Errorf("it may not delete profile %s", id.Name)
	case id.Plural == endpoints:
		return ownEndpoint(host, id)
	}
	return nil
}

// maxKey is more than a key of a host's has, in bytes: three names of 253.
const maxKey = 1024

// checkOther refuses keys among those of resources that are none's name. Of
// what lies elsewhere a host's role decides.
func checkOther(key []byte) error {
	if strings.HasPrefix(string(key), store.ResourceRoot) {
		return fmt.Errorf("key %q is that of no resource", key)
	}
	return nil
}

// ownEndpoint holds a host to its own endpoints, by their name.
func ownEndpoint(host string, id store.ResourceID) error {
	rest, ok := strings.CutPrefix(id.Name, strings.ReplaceAll(host, "-", "--")+"-")
	if !ok || rest == "" || rest[0] == '-' {
		return fmt.Errorf("endpoint %s/%s is not its own", id.Namespace, id.Name)
	}
	return nil
}

// checkEndpoint holds a host to endpoints that are on it by what is in them,
// too: other hosts go by that.
func checkEndpoint(host string, id store.ResourceID, value []byte) error {
	if err := ownEndpoint(host, id); err != nil {
		return err
	}
	var node string
	spec, err := member(value, "spec")
	if err == nil {
		spec, err = member(spec, "node")
	}
	if err == nil {
		err = json.Unmarshal(spec, &node)
	}
	if err != nil {
		return fmt.Errorf("endpoint %s/%s cannot be read: %w", id.Namespace, id.Name, err)
	}
	if node != host {
		return fmt.Errorf("endpoint %s/%s says that it is on host %q", id.Namespace, id.Name, node)
	}
	return nil
}

// member returns the one member of a JSON object with a name. Two that differ
// in case only are refused: readers disagree about which counts.
func member(object []byte, name string) (json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(object))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is no JSON object")
	}
	var found json.RawMessage
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		switch text, _ := key.(string); {
		case !strings.EqualFold(text, name):
		case text != name || found != nil:
			return nil, fmt.Errorf("%q is in it twice, or in another case", name)
		default:
			found = value
		}
	}
	if found == nil {
		return nil, fmt.Errorf("it has no %q", name)
	}
	return found, nil
}
