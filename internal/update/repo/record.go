package repo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/state"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// bucket is where state.db keeps the records.
const bucket = "update-repository"

const recordSchema = "mobileops.update.repository/v1"

// record is what this host has accepted of one repository. It lies in
// state.db and not among the files of metadata: those can be torn, deleted or
// put back from a backup, and then fetched anew, but never below what stands
// here. state.db changes by transactions, knows when it is damaged, and is
// then refused instead of being made anew.
//
// A repository is known by the roots of its chain: who pins a newer root of
// the same chain has still the same record.
type record struct {
	Schema string `json:"schema"`
	// Roots are the SHA-256 of the roots that were accepted, by version.
	Roots map[int64]string `json:"roots"`
	// Versions are the highest ones that were accepted, by role.
	Versions map[string]int64 `json:"versions"`
	// Keys are those of the roles at that time, to tell when a new root
	// replaced them.
	Keys    map[string][]string `json:"keys"`
	Checked time.Time           `json:"checked"` // when it was last compared with the source
}

// version returns the lowest version of a role that may be accepted under a
// root. When the root took the keys of timestamp or snapshot away, what they
// signed counts no more: that is how a publisher comes back after somebody
// with a stolen key signed the highest version there is (TUF 5.3.11).
func (r *record) version(role string, root *metadata.Metadata[metadata.RootType]) int64 {
	if r == nil {
		return 0
	}
	if role != metadata.ROOT && (r.replaced(metadata.TIMESTAMP, root) || r.replaced(metadata.SNAPSHOT, root)) {
		return 0
	}
	return r.Versions[role]
}

// replaced reports whether the keys that a role had cannot sign for it under
// the root.
func (r *record) replaced(role string, root *metadata.Metadata[metadata.RootType]) bool {
	old, now := r.Keys[role], root.Signed.Roles[role]
	if len(old) == 0 || now == nil {
		return false
	}
	kept := 0
	for _, id := range now.KeyIDs {
		if slices.Contains(old, id) {
			kept++
		}
	}
	return kept < now.Threshold
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// records reads all records, by the key in the bucket.
func records(tx *state.Tx) (map[string]*record, error) {
	all := map[string]*record{}
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return all, nil
	}
	err := b.ForEach(func(k, v []byte) error {
		r := new(record)
		if err := json.Unmarshal(v, r); err != nil {
			return &Error{Code: CodeRecord, Msg: "the record of accepted updates cannot be read", Err: err, Hint: "mobileops state check"}
		}
		if r.Schema != recordSchema {
			return refuse(CodeRecord, "", "the record of accepted updates is a %.40q, which this mobileops does not know", r.Schema)
		}
		all[string(k)] = r
		return nil
	})
	return all, err
}

// find returns the record of the repository that has one of the roots, and its
// key. A host that pinned two roots of one chain before it knew that they are
// has two: then the greater version of each role counts.
func find(all map[string]*record, roots map[int64]string) (found *record, keys []string) {
	for k, r := range all {
		for v, sum := range roots {
			if r.Roots[v] == sum {
				keys = append(keys, k)
				break
			}
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if found == nil {
			found = all[k]
			continue
		}
		for role, v := range all[k].Versions {
			found.Versions[role] = max(found.Versions[role], v)
		}
	}
	return found, keys
}

// readRecord returns what was accepted of the repository with these roots, or
// nil when it is new here.
func (c *Client) readRecord(ctx context.Context, roots map[int64]string) (r *record, err error) {
	err = c.opts.State.View(ctx, func(tx *state.Tx) error {
		all, err := records(tx)
		r, _ = find(all, roots)
		return err
	})
	return r, err
}

// writeRecord enters what was accepted. Another process may have accepted more
// in the meantime: then it says so, and nothing is changed.
func (c *Client) writeRecord(ctx context.Context, s *verified) error {
	return c.opts.State.Update(ctx, func(tx *state.Tx) error {
		all, err := records(tx)
		if err != nil {
			return err
		}
		old, keys := find(all, s.digests)
		now := &record{Schema: recordSchema, Roots: map[int64]string{}, Versions: s.versions(), Keys: map[string][]string{}, Checked: c.opts.Now().UTC().Truncate(time.Second)}
		for role, v := range now.Versions {
			if least := old.version(role, s.set.Root); v < least {
				return rolledBack(role, v, least)
			}
		}
		if old != nil {
			for v, sum := range old.Roots {
				now.Roots[v] = sum
			}
		}
		for v, sum := range s.digests {
			now.Roots[v] = sum
		}
		for _, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
			now.Keys[role] = s.set.Root.Signed.Roles[role].KeyIDs
		}
		data, err := json.Marshal(now)
		if err != nil {
			return err
		}
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return fmt.Errorf("record of accepted updates: %w", err)
		}
		for _, k := range keys {
			if err := b.Delete([]byte(k)); err != nil {
				return err
			}
		}
		return b.Put([]byte(digestOf(c.opts.Root)), data)
	})
}

func rolledBack(role string, got, least int64) *Error {
	e := refuse(CodeRollback, role, "the %s of the repository has version %d, and version %d was accepted before", role, got, least)
	e.Hint = "an old copy of the repository, or somebody who wants old holes back; compare with: mobileops update repo show"
	return e
}
