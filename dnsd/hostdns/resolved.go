package hostdns

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// bus is the system bus, on which systemd-resolved has its Manager object (org.freedesktop.resolve1(5)). A connection
// lasts for one operation: what is set stays without it.
type bus struct{ address string }

const (
	resolvedName  = "org.freedesktop.resolve1"
	resolvedPath  = dbus.ObjectPath("/org/freedesktop/resolve1")
	resolvedIface = resolvedName + ".Manager."
	busTimeout    = 5 * time.Second
)

// linkServer and linkServerPort are the structs (iay) of SetLinkDNS and (iayqs) of SetLinkDNSEx.
type linkServer struct {
	Family  int32 // AF_INET or AF_INET6
	Address []byte
}

type linkServerPort struct {
	Family  int32
	Address []byte
	Port    uint16
	Name    string // for DNS over TLS, which a socket on the host itself needs not
}

// linkDomain is the struct (sb) of SetLinkDomains.
type linkDomain struct {
	Domain      string
	RoutingOnly bool // queries for it go to the link, but short names are not completed with it
}

// on runs f with a connection.
func (b bus) on(ctx context.Context, f func(ctx context.Context, conn *dbus.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	conn, err := b.dial(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("connect to the system bus: %w", ctx.Err()) // there is one, but it does not answer
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errNoBus, err)
	}
	defer conn.Close() //nolint:errcheck // every call has had its reply
	return f(ctx, conn)
}

var errNoBus = errors.New("no system bus")

func (b bus) dial(ctx context.Context) (*dbus.Conn, error) {
	if b.address == "" {
		return dbus.ConnectSystemBus(dbus.WithContext(ctx))
	}
	return dbus.Connect(b.address, dbus.WithContext(ctx))
}

// present reports whether systemd-resolved is on the bus. It is called first, so that the bus starts it if the host
// has it and it was only not needed so far. A host without a bus has none.
func (b bus) present(ctx context.Context) (bool, error) {
	has := false
	err := b.on(ctx, func(ctx context.Context, conn *dbus.Conn) error {
		ping := conn.Object(resolvedName, resolvedPath).CallWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0)
		if ping.Err == nil {
			has = true
			return nil
		}
		// Whatever the reason for the error, the bus knows whether there is anybody of that name.
		return conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, resolvedName).Store(&has)
	})
	if errors.Is(err, errNoBus) {
		return false, nil
	}
	return has, err
}

// set points the link at our server. The server comes last: before it, the domains have nowhere to go, while a server
// without domains would get everybody's queries.
func (b bus) set(ctx context.Context, t Target) error {
	return b.on(ctx, func(ctx context.Context, conn *dbus.Conn) error {
		for _, c := range linkCalls(t) {
			err := call(ctx, conn, c.method, c.args...)
			if err != nil && (!c.optional || !isError(err, "org.freedesktop.DBus.Error.UnknownMethod")) {
				return errors.Join(fmt.Errorf("systemd-resolved %s: %w", c.method, err), revert(ctx, conn, t.Link))
			}
		}
		return nil
	})
}

// linkCall is one method of the Manager object. An optional one is not in every version.
type linkCall struct {
	method   string
	args     []any
	optional bool
}

func linkCalls(t Target) []linkCall {
	link := int32(t.Link)
	return []linkCall{
		{"SetLinkDefaultRoute", []any{link, false}, true},
		// Our zone is not signed. Where validation is on and the zone's name is not among resolved's negative trust
		// anchors (internal is), the signed root says that there is no such domain, and none of our names would be
		// believed.
		{"SetLinkDNSSEC", []any{link, "no"}, true},
		// With DNS over TLS switched on for all links, resolved would knock at port 853.
		{"SetLinkDNSOverTLS", []any{link, "no"}, true},
		{"SetLinkDomains", []any{link, linkDomains(t)}, false},
		linkServers(t),
	}
}

func linkDomains(t Target) []linkDomain {
	var out []linkDomain
	found := t.Search == ""
	for _, d := range t.Domains {
		out = append(out, linkDomain{d, d != t.Search})
		found = found || d == t.Search
	}
	if !found {
		out = append(out, linkDomain{t.Search, false})
	}
	return out
}

func linkServers(t Target) linkCall {
	family, addr := int32(unix.AF_INET6), t.Server.Addr().Unmap()
	if addr.Is4() {
		family = unix.AF_INET
	}
	if t.Server.Port() == 53 {
		return linkCall{"SetLinkDNS", []any{int32(t.Link), []linkServer{{family, addr.AsSlice()}}}, false}
	}
	servers := []linkServerPort{{family, addr.AsSlice(), t.Server.Port(), ""}}
	return linkCall{"SetLinkDNSEx", []any{int32(t.Link), servers}, false}
}

// revert makes resolved forget what was set on a link. A link or a resolved that is gone has forgotten.
func (b bus) revert(ctx context.Context, link int) error {
	err := b.on(ctx, func(ctx context.Context, conn *dbus.Conn) error { return revert(ctx, conn, link) })
	if errors.Is(err, errNoBus) {
		return nil
	}
	return err
}

func revert(ctx context.Context, conn *dbus.Conn, link int) error {
	err := call(ctx, conn, "RevertLink", int32(link))
	if err == nil || isError(err, resolvedName+".NoSuchLink", "org.freedesktop.DBus.Error.ServiceUnknown",
		"org.freedesktop.DBus.Error.NameHasNoOwner") {
		return nil
	}
	return fmt.Errorf("systemd-resolved RevertLink: %w", err)
}

func call(ctx context.Context, conn *dbus.Conn, method string, args ...any) error {
	return conn.Object(resolvedName, resolvedPath).CallWithContext(ctx, resolvedIface+method, 0, args...).Err
}

func isError(err error, names ...string) bool {
	var e dbus.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, name := range names {
		if strings.EqualFold(e.Name, name) {
			return true
		}
	}
	return false
}
