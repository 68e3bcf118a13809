package policy

// Roles are what a station may be for others on a segment, beside a host: a set.
type Roles uint8

// The roles.
const (
	// DHCPServer may answer DHCP clients of either family, and pass their questions on as a relay agent.
	DHCPServer Roles = 1 << iota
	// Router may advertise itself, redirect, and send from addresses that lie beyond it.
	Router
	// Querier may ask for listeners to multicast groups, and speak the protocols of multicast routers.
	Querier
)

// RoleNamed returns the role that administrators call so; none for a name that is not known here: then the station may do
// less.
func RoleNamed(name string) Roles {
	switch name {
	case "dhcp-server":
		return DHCPServer
	case "router":
		return Router
	case "querier":
		return Querier
	default:
		return 0
	}
}

// Has reports whether all of r is among them.
func (have Roles) Has(r Roles) bool { return have&r == r }
