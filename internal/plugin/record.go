package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
	"github.com/mobileops/mobileops/internal/state"
)

// Buckets of state.db.
const (
	bucket       = "plugin"        // name → Record, JSON
	bucketMemory = "plugin_memory" // name → memory, JSON
)

// maxRecord bounds a record in bytes.
const maxRecord = 64 << 10

// version is that of the stored form.
const version = 1

// Release is one version of a plugin that is on the disk.
type Release struct {
	Version   string    `json:"version"`
	Sequence  uint64    `json:"sequence"`
	Key       string    `json:"key"`      // public key that signed it, as minisign writes it
	KeyID     string    `json:"key_id"`   // by which people know it
	Bundled   bool      `json:"bundled"`  // it came with mobileops, whose key need not be trusted here
	Source    string    `json:"source"`   // where it came from
	Manifest  string    `json:"manifest"` // BLAKE3 digest of plugin.yaml
	Installed time.Time `json:"installed"`
	By        string    `json:"by"`
	// Accepted is the digest of what somebody let it do, and Without the layers
	// of the sandbox that somebody accepted to do without.
	Accepted string          `json:"accepted"`
	Without  []sandbox.Layer `json:"without,omitempty"`
}

// Record is what is known of an installed plugin.
type Record struct {
	Name string `json:"name"`
	Release
	Previous *Release `json:"previous,omitempty"` // what Rollback goes back to
	Enabled  bool     `json:"enabled"`
	Start    bool     `json:"start"` // its service runs whenever the supervisor does
	// Account is the number of its user and group; 0: that of who runs it.
	Account uint32 `json:"account,omitempty"`
}

type stored struct {
	Version int `json:"v"`
	*Record
}

func decode(name, data []byte) (*Record, error) {
	fail := func(format string, args ...any) (*Record, error) {
		return nil, failure.Errorf(failure.Untrustworthy, "the record of plugin %q: %s (restore the state: mobileops state restore)", name, fmt.Sprintf(format, args...))
	}
	if len(data) > maxRecord {
		return fail("%d bytes are more than it may have", len(data))
	}
	// Another mobileops may have written fields that are none here.
	var form struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(data, &form); err == nil && form.Version != version {
		return nil, failure.Errorf(failure.NotReady, "the record of plugin %q: format %d was written by another mobileops (use that one)", name, form.Version)
	}
	s := stored{Record: &Record{}}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return fail("%v", err)
	}
	switch {
	case s.Name != string(name):
		return fail("its name is %q", s.Name)
	case s.Release.Version == "" || s.Key == "" || s.Accepted == "":
		return fail("something is missing")
	}
	return s.Record, nil
}

// get returns a record, or ErrNone.
func get(tx *state.Tx, name string) (*Record, error) {
	if b := tx.Bucket([]byte(bucket)); b != nil {
		if data := b.Get([]byte(name)); data != nil {
			return decode([]byte(name), data)
		}
	}
	return nil, none(name)
}

// all returns all records, by name.
func all(tx *state.Tx) (list []*Record, err error) {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return nil, nil
	}
	err = b.ForEach(func(k, v []byte) error {
		r, err := decode(k, v)
		list = append(list, r)
		return err
	})
	return list, err
}

func put(tx *state.Tx, r *Record) error {
	b, err := tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return err
	}
	data, err := json.Marshal(stored{version, r})
	if err != nil {
		return err
	}
	if len(data) > maxRecord { // nobody could read it again
		return failure.Errorf(failure.Failed, "the record of plugin %s has %d bytes; %d are allowed (is the name of where it comes from that long?)", r.Name, len(data), maxRecord)
	}
	return b.Put([]byte(r.Name), data)
}

// memory is what stays known of a plugin that was removed.
type memory struct {
	Sequence uint64 `json:"sequence"`          // the highest that was ever installed
	Account  uint32 `json:"account,omitempty"` // whose its data is, as long as there is some
	// Discard is true while data that was to go with the plugin may be there.
	Discard bool `json:"discard,omitempty"`
}

func recall(tx *state.Tx, name string) (m memory, err error) {
	if b := tx.Bucket([]byte(bucketMemory)); b != nil {
		if data := b.Get([]byte(name)); data != nil {
			if err = json.Unmarshal(data, &m); err != nil {
				err = failure.Errorf(failure.Untrustworthy, "what is remembered of plugin %q: %v (restore the state: mobileops state restore)", name, err)
			}
		}
	}
	return m, err
}

// memorize writes down what stays known of a plugin.
func memorize(tx *state.Tx, name string, m memory) error {
	b, err := tx.CreateBucketIfNotExists([]byte(bucketMemory))
	if err != nil {
		return err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return b.Put([]byte(name), data)
}

// remember raises the highest sequence, and notes the account; 0 is none that
// would take the place of another.
func remember(tx *state.Tx, name string, sequence uint64, account uint32) error {
	m, err := recall(tx, name)
	if err != nil {
		return err
	}
	m.Sequence, m.Discard = max(m.Sequence, sequence), false
	if account != 0 {
		m.Account = account
	}
	return memorize(tx, name, m)
}

// condemn notes that the data of a plugin goes. Its account stays taken until
// it is gone.
func condemn(tx *state.Tx, name string) error {
	m, err := recall(tx, name)
	if err != nil {
		return err
	}
	m.Discard = true
	return memorize(tx, name, m)
}

// condemned returns the plugins that are not installed and whose data goes.
func condemned(tx *state.Tx) (names []string, err error) {
	b := tx.Bucket([]byte(bucketMemory))
	if b == nil {
		return nil, nil
	}
	err = b.ForEach(func(name, _ []byte) error {
		m, err := recall(tx, string(name))
		if m.Discard {
			names = append(names, string(name))
		}
		return err
	})
	return names, err
}
