package supervise

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// recordSchema is the version of a record.
const recordSchema = "mobileops.supervise.process/v1"

const (
	recordSuffix = ".process"
	maxRecord    = 16 << 10 // bytes
	maxRecords   = 10000
)

// markName is the variable by which the descendants of a service are known.
const markName = "MOBILEOPS_SUPERVISED"

// record is what is known of the process of a service, kept beside the socket
// for the case that the supervisor is killed: the next one ends what it finds
// there before it starts anything. It is there before the process is.
type record struct {
	Schema string    `json:"schema"`
	Name   string    `json:"name"`
	PID    int       `json:"pid,omitempty"`    // 0: was about to be started
	Start  uint64    `json:"start,omitempty"`  // field 22 of /proc/PID/stat
	Boot   string    `json:"boot"`             // /proc/sys/kernel/random/boot_id
	Mark   string    `json:"mark"`             // NAME=VALUE
	Cgroup string    `json:"cgroup,omitempty"` // directory
	StopMS int64     `json:"stop_timeout_ms"`  // between SIGTERM and SIGKILL
	Since  time.Time `json:"since"`
}

func newMark() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read
	return markName + "=" + hex.EncodeToString(b[:])
}

func (r record) path(dir string) string { return filepath.Join(dir, r.Name+recordSuffix) }

// write replaces the record. It does not wait for the disk: after a power cut
// there is no process that it could be about.
func (r record) write(dir string) error {
	r.Schema = recordSchema
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+r.Name+recordSuffix)
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, r.path(dir))
}

func (r record) remove(dir string) { _ = os.Remove(r.path(dir)) }

// readRecords reads the records of a directory. What is none is said, and left
// where it is.
func readRecords(dir string) ([]record, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []record
	var errs []error
	for _, e := range entries {
		name, ours := strings.CutSuffix(e.Name(), recordSuffix)
		if !ours || strings.HasPrefix(name, ".") || len(list) >= maxRecords {
			continue
		}
		r, err := readRecord(filepath.Join(dir, e.Name()))
		if err == nil && r.Name != name {
			err = fmt.Errorf("it is about %q", r.Name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("record of a process %s: %w", e.Name(), err))
			continue
		}
		list = append(list, r)
	}
	return list, errors.Join(errs...)
}

func readRecord(path string) (record, error) {
	var r record
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return r, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() > maxRecord) {
		err = fs.ErrInvalid
	}
	if err != nil {
		return r, err
	}
	if err := json.NewDecoder(f).Decode(&r); err != nil {
		return r, err
	}
	return r, r.check()
}

func (r record) check() error {
	if r.Schema != recordSchema {
		return fmt.Errorf("schema %q is not %s", r.Schema, recordSchema)
	}
	if err := checkName(r.Name); err != nil {
		return err
	}
	if r.PID < 0 || r.PID == 1 || !strings.HasPrefix(r.Mark, markName+"=") || r.StopMS < 0 || r.StopMS > int64(24*time.Hour/time.Millisecond) {
		return errors.New("a value is out of its range")
	}
	return nil
}
