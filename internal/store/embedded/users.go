package embedded

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/auth"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/brindle-net/brindle/internal/store"
)

// Kinds of users: what the common names of their certificates begin with.
const (
	HostUser   = "host"
	ClientUser = "client"
)

// rootUser may do everything. Nobody is root over TCP.
const rootUser = "root"

// ErrNoUser says that there is no such user.
var ErrNoUser = errors.New("no such user")

// User is somebody whom etcd lets in by a certificate.
type User struct {
	Kind string `json:"kind"` // "host" or "client"
	Name string `json:"name"`
}

// CN is the common name of the certificate that makes somebody this user.
func (u User) CN() string { return u.Kind + ":" + u.Name }

// userNames are names of hosts and clients, as Node names are.
var userNames = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// Check says what is wrong with a user.
func (u User) Check() error {
	switch {
	case u.Kind != HostUser && u.Kind != ClientUser:
		return fmt.Errorf("user %q: must be a host or a client", u.CN())
	case !userNames.MatchString(u.Name):
		return fmt.Errorf("%s %q: a name has lower-case letters, digits, dots and hyphens, at most 253, and begins and ends with a letter or digit", u.Kind, u.Name)
	}
	return nil
}

// parseUser reads a common name.
func parseUser(cn string) (User, bool) {
	kind, name, ok := strings.Cut(cn, ":")
	u := User{Kind: kind, Name: name}
	return u, ok && u.Check() == nil
}

// Grant is a range of keys that a role may read, or read and write.
type Grant struct {
	From, To string // [From, To); To empty: the one key From
	Write    bool
}

// Grants are what a user may reach, sorted. A host reads the resources and the
// state of address management; it writes its own Node and its own affinities,
// and answers those who wait until a change is enforced.
// Ranges of keys cannot say "the endpoints of this host in every namespace",
// nor "a profile that does not exist yet": there the guard does the rest.
// Blocks and handles belong to all hosts, since a host may borrow from the
// block of another: there, too, the guard looks into what is written.
func (u User) Grants() []Grant {
	if u.Kind == ClientUser {
		return []Grant{{From: "\x00", To: "\x00", Write: true}} // all there is
	}
	affinities := store.AffinityPrefix(false, u.Name)
	return []Grant{
		below(store.AskRoot, false),
		{From: store.AnswerKey(u.Name), Write: true},
		below(store.IPAMRoot, false),
		below(store.BlockRoot, true),
		below(store.HandleRoot, true),
		below(affinities, true),
		below(store.ResourceRoot, false),
		{From: store.ResourceID{Plural: "nodes", Name: u.Name}.Key(), Write: true},
		below(store.ResourcePrefix(profiles, ""), true),
		below(store.ResourcePrefix(endpoints, ""), true),
	}
}

// below is everything that begins with a prefix ending in a slash.
func below(prefix string, write bool) Grant {
	return Grant{From: prefix, To: prefix[:len(prefix)-1] + "0", Write: write}
}

func (g Grant) permission() *authpb.Permission {
	p := &authpb.Permission{Key: []byte(g.From), PermType: authpb.READ}
	if g.To != "" {
		p.RangeEnd = []byte(g.To)
	}
	if g.Write {
		p.PermType = authpb.READWRITE
	}
	return p
}

// asRoot is a context whose calls etcd takes for root's: auth goes by the
// certificate of a connection, and calls inside of this process have none.
func asRoot(ctx context.Context) context.Context {
	who := tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: rootUser}}}}}
	ctx = peer.NewContext(ctx, &peer.Peer{Addr: &net.UnixAddr{Net: "unix"}, AuthInfo: credentials.TLSInfo{State: who}})
	if _, ok := metadata.FromIncomingContext(ctx); !ok {
		ctx = metadata.NewIncomingContext(ctx, metadata.MD{})
	}
	return ctx
}

// enableUsers turns etcd's authentication on. Several members may try at once.
func (s *Server) enableUsers(ctx context.Context) error {
	if s.etcd.Server.AuthStore().IsAuthEnabled() {
		return s.refreshUsers(ctx)
	}
	ctx = asRoot(ctx)
	e := s.etcd.Server
	_, err := e.RoleAdd(ctx, &etcdserverpb.AuthRoleAddRequest{Name: rootUser})
	if err == nil || errors.Is(err, auth.ErrRoleAlreadyExist) {
		err = s.addUser(ctx, rootUser, rootUser)
	}
	if err == nil {
		_, err = e.AuthEnable(ctx, &etcdserverpb.AuthEnableRequest{})
	}
	if err != nil {
		return fmt.Errorf("turn on users: %w", err)
	}
	return nil
}

// refreshUsers gives users the rights that this release gives to new ones.
func (s *Server) refreshUsers(ctx context.Context) error {
	users, err := s.Users(ctx)
	if err != nil {
		return err
	}
	for _, u := range users {
		// The local answer costs no write; most have what they should.
		role, err := s.etcd.Server.AuthStore().RoleGet(&etcdserverpb.AuthRoleGetRequest{Role: u.CN()})
		if err == nil && sameGrants(role.Perm, u.Grants()) {
			continue
		}
		if err := s.AddUser(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

func sameGrants(has []*authpb.Permission, want []Grant) bool {
	for _, p := range has {
		if !slices.Contains(want, grantOf(p)) {
			return false
		}
	}
	return len(has) == len(want)
}

func grantOf(p *authpb.Permission) Grant {
	return Grant{From: string(p.Key), To: string(p.RangeEnd), Write: p.PermType != authpb.READ}
}

// addUser makes sure that there is a user without password who has a role.
func (s *Server) addUser(ctx context.Context, name, role string) error {
	_, err := s.etcd.Server.UserAdd(ctx, &etcdserverpb.AuthUserAddRequest{Name: name, Options: &authpb.UserAddOptions{NoPassword: true}})
	if err != nil && !errors.Is(err, auth.ErrUserAlreadyExist) {
		return err
	}
	_, err = s.etcd.Server.UserGrantRole(ctx, &etcdserverpb.AuthUserGrantRoleRequest{User: name, Role: role})
	return err
}

// AddUser lets a host or a client in. Again, it brings the rights of one who
// is in to what they should be.
func (s *Server) AddUser(ctx context.Context, u User) error {
	if err := u.Check(); err != nil {
		return err
	}
	ctx = asRoot(ctx)
	err := s.makeRole(ctx, u.CN(), u.Grants())
	if err == nil {
		err = s.addUser(ctx, u.CN(), u.CN())
	}
	if err != nil {
		return fmt.Errorf("add %s %s: %w", u.Kind, u.Name, err)
	}
	return nil
}

// makeRole makes a role that has exactly these rights. What it has to have it
// has at every moment: whoever works with it meanwhile, or after this was cut
// short, is not refused.
func (s *Server) makeRole(ctx context.Context, name string, grants []Grant) error {
	e := s.etcd.Server
	_, err := e.RoleAdd(ctx, &etcdserverpb.AuthRoleAddRequest{Name: name})
	if err != nil && !errors.Is(err, auth.ErrRoleAlreadyExist) {
		return err
	}
	role, err := e.RoleGet(ctx, &etcdserverpb.AuthRoleGetRequest{Role: name})
	if err != nil {
		return err
	}
	add, drop := changeOfRole(role.Perm, grants)
	for _, g := range add {
		if _, err := e.RoleGrantPermission(ctx, &etcdserverpb.AuthRoleGrantPermissionRequest{Name: name, Perm: g.permission()}); err != nil {
			return err
		}
	}
	for _, g := range drop {
		if _, err := e.RoleRevokePermission(ctx, &etcdserverpb.AuthRoleRevokePermissionRequest{Role: name, Key: []byte(g.From), RangeEnd: []byte(g.To)}); err != nil {
			return err
		}
	}
	return nil
}

// changeOfRole is what to grant and what to revoke afterwards. A range has one
// permission: granting another changes it, and revoking it takes both.
func changeOfRole(has []*authpb.Permission, want []Grant) (add, drop []Grant) {
	for _, g := range want {
		if !slices.ContainsFunc(has, func(p *authpb.Permission) bool { return grantOf(p) == g }) {
			add = append(add, g)
		}
	}
	for _, p := range has {
		old := grantOf(p)
		if !slices.ContainsFunc(want, func(g Grant) bool { return g.From == old.From && g.To == old.To }) {
			drop = append(drop, old)
		}
	}
	return add, drop
}

// RemoveUser shuts a host or a client out, at once. Without such a user the
// error is ErrNoUser.
func (s *Server) RemoveUser(ctx context.Context, u User) error {
	ctx = asRoot(ctx)
	_, err := s.etcd.Server.UserDelete(ctx, &etcdserverpb.AuthUserDeleteRequest{Name: u.CN()})
	if errors.Is(err, auth.ErrUserNotFound) {
		return fmt.Errorf("remove %s %s: %w", u.Kind, u.Name, ErrNoUser)
	}
	if err == nil {
		_, err = s.etcd.Server.RoleDelete(ctx, &etcdserverpb.AuthRoleDeleteRequest{Role: u.CN()})
	}
	if err != nil && !errors.Is(err, auth.ErrRoleNotFound) {
		return fmt.Errorf("remove %s %s: %w", u.Kind, u.Name, err)
	}
	return nil
}

// Users returns who is let in, sorted; users that Brindle did not make are
// left out.
func (s *Server) Users(ctx context.Context) ([]User, error) {
	list, err := s.etcd.Server.UserList(asRoot(ctx), &etcdserverpb.AuthUserListRequest{})
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	var out []User
	for _, cn := range list.Users {
		if u, ok := parseUser(cn); ok {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(a, b User) int { return strings.Compare(a.CN(), b.CN()) })
	return out, nil
}

// UsersOn reports whether everybody who comes over TCP must be a user.
func (s *Server) UsersOn() bool { return s.etcd.Server.AuthStore().IsAuthEnabled() }
