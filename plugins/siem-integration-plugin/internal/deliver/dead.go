package deliver

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/packed"
)

// A dead letter is an event that a receiver refused for what is in it. The
// dead letters of a destination are a file of JSON lines that people can read:
// time, reason, event. It is locked (flock) while somebody writes to it or
// takes it away, since that is done by the service and by commands.
//
// To send them again, a command renames NAME.jsonl to NAME.again; the service
// finds it, sends what is in it, and removes it.

// letter is one dead letter.
type letter struct {
	Time   time.Time        `json:"time"`
	Reason string           `json:"reason"`
	ID     string           `json:"id"`
	Event  *pluginsdk.Event `json:"event,omitempty"` // left out when it could not be read

	packed []byte
}

// Letter is a dead letter as others see it.
type Letter = letter

// ErrAgain says that dead letters are being sent again already.
var ErrAgain = errors.New("the ones before are still being sent again (see: mobileops siem-integration-plugin status)")

type deadLetters struct {
	path  string
	limit int64
	count uint64 // when it was opened
}

func againPath(path string) string { return strings.TrimSuffix(path, ".jsonl") + ".again" }

func openDeadLetters(path string, limit int64) (*deadLetters, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("dead letters: %w", err)
	}
	d := &deadLetters{path: path, limit: limit}
	var err error
	d.count, err = d.recount()
	return d, err
}

// recount counts the letters that are in the file, those to be sent again
// included.
func (d *deadLetters) recount() (uint64, error) {
	var n uint64
	for _, path := range []string{d.path, againPath(d.path)} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("dead letters: %w", err)
		}
		r := bufio.NewReaderSize(f, 64<<10)
		for {
			piece, err := r.ReadSlice('\n')
			n += uint64(bytes.Count(piece, []byte{'\n'}))
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		f.Close()
	}
	return n, nil
}

// append writes letters down and syncs them. It returns how many it took;
// fewer than all means that the file is full.
func (d *deadLetters) append(list []letter) (int, error) {
	f, err := lockLetters(d.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("dead letters: %w", err)
	}
	var b []byte
	var slot packed.Slot
	took := 0
	for ; took < len(list); took++ {
		l := list[took]
		if l.packed != nil {
			e, err := slot.Read(l.packed)
			if err != nil {
				return 0, err
			}
			l.ID, l.Event = e.ID, e
		}
		line, err := json.Marshal(&l)
		if err != nil {
			return 0, fmt.Errorf("dead letters: %w", err)
		}
		if st.Size()+int64(len(b)) > 0 && st.Size()+int64(len(b)+len(line)+1) > d.limit {
			break
		}
		b = append(append(b, line...), '\n')
	}
	if took == 0 {
		return 0, nil
	}
	if _, err = f.Write(b); err == nil {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if err != nil {
		_ = f.Truncate(st.Size())
		return 0, fmt.Errorf("dead letters: %w", err)
	}
	return took, nil
}

// lockLetters opens the file to append to it, and holds it until it is closed.
func lockLetters(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("dead letters: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			if err == unix.EINTR {
				continue
			}
			return nil, fmt.Errorf("dead letters: %w", err)
		}
		// It may have been taken away while we waited.
		mine, err := f.Stat()
		named, err2 := os.Stat(path)
		if err == nil && err2 == nil && os.SameFile(mine, named) {
			return f, nil
		}
		f.Close()
	}
}

// maxLetter bounds a line: an event and its reason.
const maxLetter = 4 << 20

// readLetters reads a file of dead letters. A last line without its end was
// cut short by a crash and is left out.
func readLetters(path string) ([]letter, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	var list []letter
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("dead letters: %w", err)
		}
		var l letter
		if len(line) > maxLetter {
			return nil, fmt.Errorf("dead letters: line %d of %s is too long", n, path)
		}
		if json.Unmarshal(line, &l) != nil {
			continue // two halves that a crash left
		}
		list = append(list, l)
	}
}

// Letters returns the dead letters of a destination, those that are about to
// be sent again included. Dir is the data directory.
func Letters(dir, name string) ([]Letter, error) {
	path := DeadLettersPath(dir, name)
	var all []Letter
	for _, p := range []string{againPath(path), path} {
		list, err := readLetters(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// Again asks the service to send the dead letters of a destination again, and
// returns how many they are.
func Again(dir, name string) (int, error) {
	path := DeadLettersPath(dir, name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	f, err := lockLetters(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	list, err := readLetters(path)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	switch err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, againPath(path), unix.RENAME_NOREPLACE); {
	case errors.Is(err, fs.ErrExist):
		return 0, ErrAgain
	case err != nil:
		return 0, fmt.Errorf("dead letters: %w", err)
	}
	return len(list), nil
}

// Drop throws the dead letters of a destination away, and returns how many
// they were. Those that are being sent again stay.
func Drop(dir, name string) (int, error) {
	path := DeadLettersPath(dir, name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	f, err := lockLetters(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	list, err := readLetters(path)
	if err != nil {
		return 0, err
	}
	if err := f.Truncate(0); err != nil {
		return 0, fmt.Errorf("dead letters: %w", err)
	}
	return len(list), nil
}
