package logs

import (
	"bytes"
	"os"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/store"
	"github.com/mobileops/mobileops/internal/seal"
)

// Files that several commands touch, as their help says it.
const (
	storeFiles = "/var/lib/mobileops/logs/: segments, the write-ahead log and the Merkle log"
	stateFile  = "/var/lib/mobileops/state.db: the catalogue, cursors, holds and seals"
)

// maxOpen is how many bytes of records wait in the write-ahead log before they
// become segments: a search reads all of them, and making segments takes a few
// times as much memory.
const maxOpen = 16 << 20

// openStore returns the store of logs. It opens nothing but the keys.
func openStore(a *app.App) (*store.Store, *config.Config, error) {
	c, err := a.Config()
	if err != nil {
		return nil, nil, err
	}
	st, err := a.State()
	if err != nil {
		return nil, nil, err
	}
	chain, err := a.Audit()
	if err != nil {
		return nil, nil, err
	}
	opts := store.Options{
		Dir: filepath.Join(c.StateDir, "logs"), State: st, Signer: chain, Host: audit.HostID(),
		Reserve:   store.Reserve{Bytes: c.Logs.Reserve, Percent: c.Logs.ReservePercent},
		SealEvery: c.Logs.SealEvery, MaxOpen: maxOpen,
	}
	if c.Logs.Recipients != "" {
		if opts.Recipients, err = readRecipients(c.Logs.Recipients); err != nil {
			return nil, nil, err
		}
	}
	if c.Logs.Identities != "" {
		if opts.Identities, err = seal.IdentityFile(c.Logs.Identities); err != nil {
			return nil, nil, err
		}
	}
	s, err := store.Open(opts)
	return s, c, err
}

// readRecipients reads public keys of age, or a key file.
func readRecipients(path string) ([]seal.Recipient, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, failure.Hint(failure.Wrap(failure.NotReady, err), "name another file in logs.recipients, or make one: mobileops logs key generate")
	}
	if bytes.HasPrefix(bytes.TrimLeft(b, "# \t\n"), []byte("age1")) || bytes.HasPrefix(b, []byte("#")) {
		return seal.ParseRecipients(bytes.NewReader(b))
	}
	key, err := seal.KeyFile(path)
	if err != nil {
		return nil, err
	}
	return []seal.Recipient{key}, nil
}

// zoneOf returns the time zone of records that name none.
func zoneOf(c *config.Config) *time.Location {
	if c.Logs.Zone != "" {
		if zone, err := time.LoadLocation(c.Logs.Zone); err == nil {
			return zone
		}
	}
	return time.Local
}
