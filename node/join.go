package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/etherloom/etherloom/control/client"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node/statedir"
)

// Joined is what joining has brought.
type Joined struct {
	Membership statedir.Membership
	Pending    bool // an administrator must approve
	Locked     bool // a lock selects it already
}

// Join makes this machine a node: it makes keys, enrols them with the token, and writes the state directory. name may be
// empty for the host's own. A directory that holds a membership is left as it is.
func Join(ctx context.Context, path string, token identity.Token, name string) (*Joined, error) {
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("find this machine's name: %w; give one with --name", err)
		}
		name = defaultName(host)
	}
	if err := identity.CheckHostName(name); err != nil {
		return nil, fmt.Errorf("%w; give one with --name", err)
	}
	dir, err := statedir.Create(path)
	if err != nil {
		return nil, err
	}
	if err := notJoined(dir, path); err != nil { // a daemon may run and hold the lock
		return nil, err
	}
	release, err := dir.Lock()
	if err != nil {
		return nil, err
	}
	defer release()
	if err := notJoined(dir, path); err != nil {
		return nil, err
	}
	keys, err := joinKeys(dir)
	if err != nil {
		return nil, err
	}
	// The token may be good for one use only: whatever can fail on this machine must fail before.
	if err := dir.Reserve(); err != nil {
		return nil, err
	}
	e, err := client.Enrol(ctx, token, name, keys)
	if err != nil {
		return nil, err
	}
	m := statedir.Membership{
		Network: e.Certificate.Name.Network.String(), ID: e.Certificate.Name.ID, Name: name, Zone: e.Zone,
		Controllers: e.Controllers, Port: randomPort(),
	}
	if len(m.Controllers) == 0 {
		m.Controllers = token.URLs
	}
	// node.json comes last: with it the machine has joined.
	if err := errors.Join(dir.SaveCA(e.CA), dir.SaveCertificate(e.Leaf)); err != nil {
		return nil, err
	}
	if err := dir.SaveMembership(m); err != nil {
		return nil, err
	}
	return &Joined{m, e.Pending, e.Locked}, nil
}

func notJoined(dir *statedir.Dir, path string) error {
	if !dir.Joined() {
		return nil
	}
	m, err := dir.Membership()
	if err != nil {
		return err
	}
	return fmt.Errorf("this machine has joined network %s as %s already (%s): to join another, or again, stop the daemon and "+
		"move that directory away, or use another with --state-dir", m.Network, m.Name, path)
}

// joinKeys returns the keys of an attempt before, if there was one, or fresh ones. They are on disk before they are
// enrolled, so that a machine never forgets a key that the controller knows.
func joinKeys(dir *statedir.Dir) (identity.NodeKeys, error) {
	keys, err := dir.Keys()
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return keys, err
	}
	if keys, err = identity.NewNodeKeys(); err != nil {
		return keys, err
	}
	return keys, dir.SaveKeys(keys)
}
