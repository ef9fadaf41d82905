package dhcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// The file of leases: a first line that says what it is, and then a line for
// each change, the newest last. docs/formats/leases.md describes it.
const (
	fileHeader  = "mobileops leases 1\n"
	maxFile     = 256 << 20
	compactSize = 256 << 10 // below that a file is not worth being rewritten
)

// CorruptError is the damage of a file of leases.
type CorruptError struct {
	File   string
	Offset int64 // of the line, bytes
	Reason string
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is damaged at byte %d: %s", e.File, e.Offset, e.Reason)
}

var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// record is a lease as it is written: short names, as every renewal is one.
type record struct {
	Address netip.Addr `json:"a"`
	State   State      `json:"s"`
	Client  string     `json:"c,omitempty"`
	MAC     MAC        `json:"m"`
	Port    string     `json:"p,omitempty"`
	Name    string     `json:"n,omitempty"`
	Since   int64      `json:"f"` // seconds since 1970
	Until   int64      `json:"u"`
}

func appendLine(b []byte, l *Lease) []byte {
	// Nothing in a record can fail to be encoded.
	data, _ := json.Marshal(record{l.Address, l.State, l.Client, l.MAC, l.Port, l.Name, l.Since.Unix(), l.Until.Unix()})
	b = fmt.Appendf(b, "%08x ", crc32.Checksum(data, castagnoli()))
	return append(append(b, data...), '\n')
}

func parseLine(line []byte) (Lease, error) {
	if len(line) < 10 || line[8] != ' ' {
		return Lease{}, errors.New("no checksum")
	}
	data := line[9:]
	if string(line[:8]) != fmt.Sprintf("%08x", crc32.Checksum(data, castagnoli())) {
		return Lease{}, errors.New("the checksum does not fit")
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return Lease{}, err
	}
	if !r.Address.IsValid() || r.State != Bound && r.State != Ended && r.State != Declined {
		return Lease{}, errors.New("no address or no state")
	}
	return Lease{Address: r.Address, State: r.State, Client: r.Client, MAC: r.MAC, Port: r.Port, Name: r.Name,
		Since: time.Unix(r.Since, 0), Until: time.Unix(r.Until, 0), place: -1}, nil
}

// parseFile reads the newest record of each address, in the order in which the
// addresses were first written. What follows the last whole line was never
// acknowledged: whole is where that begins.
func parseFile(name string, data []byte) (list []Lease, whole int64, err error) {
	if !bytes.HasPrefix(data, []byte(fileHeader)) {
		if bytes.HasPrefix([]byte(fileHeader), data) { // killed when it was made
			return nil, 0, nil
		}
		return nil, 0, &CorruptError{name, 0, "it does not begin as a file of leases, or is of a newer version"}
	}
	at := map[netip.Addr]int{}
	pos := len(fileHeader)
	for pos < len(data) {
		n := bytes.IndexByte(data[pos:], '\n')
		if n < 0 {
			break
		}
		l, err := parseLine(data[pos : pos+n])
		if err != nil {
			if tail := data[pos+n+1:]; bytes.IndexByte(tail, '\n') < 0 || len(bytes.Trim(tail, "\x00")) == 0 {
				break // the last one, torn when the power went
			}
			return nil, 0, &CorruptError{name, int64(pos), err.Error()}
		}
		if i, ok := at[l.Address]; ok {
			list[i] = l
		} else {
			at[l.Address] = len(list)
			list = append(list, l)
		}
		pos += n + 1
	}
	return list, int64(pos), nil
}

// ReadLeases returns what a file of leases says, also while a server writes it:
// the newest record of each address. A lease whose time has passed is Ended. A
// file that is not there has none. Damage is a CorruptError of kind
// failure.Untrustworthy.
func ReadLeases(name string, now time.Time) ([]Lease, error) {
	data, err := readFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, _, err := parseFile(name, data)
	if err != nil {
		return nil, untrustworthy(err)
	}
	for i := range list {
		if l := &list[i]; !now.Before(l.Until) {
			l.State = Ended
		}
	}
	slices.SortFunc(list, func(a, b Lease) int { return a.Address.Compare(b.Address) })
	return list, nil
}

func untrustworthy(err error) error {
	return failure.Hint(failure.Wrap(failure.Untrustworthy, err), "without it addresses could be given out twice; to begin anew, move it away")
}

func readFile(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, failure.Errorf(failure.Untrustworthy, "%s is no file of leases", name)
	}
	return os.ReadFile(name)
}

// journal is the file of leases while a server writes it.
type journal struct {
	name string
	file *os.File
	size int64
	base int64 // size after it was written anew
	buf  []byte
}

// openJournal opens the file, makes it when there is none, and returns what is
// in it.
func openJournal(name string) (*journal, []Lease, error) {
	if err := durable.Clean(name); err != nil {
		return nil, nil, err
	}
	data, err := readFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	list, whole, err := parseFile(name, data)
	if err != nil {
		return nil, nil, untrustworthy(err)
	}
	if whole == 0 {
		if err := durable.WriteFile(name, []byte(fileHeader), 0o600); err != nil {
			return nil, nil, err
		}
		whole = int64(len(fileHeader))
	}
	j := &journal{name: name, base: whole}
	if err := j.open(whole); err != nil {
		return nil, nil, err
	}
	return j, list, nil
}

// open opens the file for what comes after whole bytes.
func (j *journal) open(whole int64) error {
	f, err := os.OpenFile(j.name, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	if err := f.Truncate(whole); err != nil {
		f.Close()
		return err
	}
	if _, err := f.Seek(whole, 0); err != nil {
		f.Close()
		return err
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.size = f, whole
	return nil
}

// add appends leases to what commit writes.
func (j *journal) add(list []*Lease) {
	for _, l := range list {
		j.buf = appendLine(j.buf, l)
	}
}

// commit makes durable what was added. After an error the file is as it was, as
// far as it could be put back.
func (j *journal) commit() error {
	if len(j.buf) == 0 {
		return nil
	}
	b := j.buf
	j.buf = b[:0]
	n, err := j.file.Write(b)
	if err == nil {
		err = fdatasync(j.file)
	}
	if err != nil {
		if n > 0 {
			err = errors.Join(err, j.file.Truncate(j.size))
			_, serr := j.file.Seek(j.size, 0)
			err = errors.Join(err, serr)
		}
		return fmt.Errorf("write leases: %w", err)
	}
	j.size += int64(n)
	return nil
}

func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return err
		}
	}
}

// full reports whether most of the file is about leases that changed since.
func (j *journal) full() bool { return j.size > compactSize && j.size > 4*j.base }

// rewrite replaces the file by one with these leases alone.
func (j *journal) rewrite(list []*Lease) error {
	b := []byte(fileHeader)
	for _, l := range list {
		if l.State != Offered {
			b = appendLine(b, l)
		}
	}
	if err := durable.WriteFile(j.name, b, 0o600); err != nil {
		return fmt.Errorf("write leases anew: %w", err)
	}
	j.base = int64(len(b))
	return j.open(j.base)
}

func (j *journal) close() error { return j.file.Close() }
