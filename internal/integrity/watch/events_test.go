package watch

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// rawEvent builds an event as the kernel writes it.
func rawEvent(mask uint64, pid int32, infos ...[]byte) []byte {
	b := make([]byte, metadataSize)
	for _, i := range infos {
		b = append(b, i...)
	}
	n := binary.NativeEndian
	n.PutUint32(b, uint32(len(b)))
	b[4] = unix.FANOTIFY_METADATA_VERSION
	n.PutUint16(b[6:], metadataSize)
	n.PutUint64(b[8:], mask)
	n.PutUint32(b[16:], ^uint32(0))
	n.PutUint32(b[20:], uint32(pid))
	return b
}

func rawInfo(kind byte, body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	b := []byte{kind, 0, 0, 0}
	binary.NativeEndian.PutUint16(b[2:], uint16(len(body)+infoSize))
	return append(b, body...)
}

func rawHandle(id byte, name string) []byte {
	b := []byte{id, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, id, 1, 2, 3, 4, 5, 6, 7}
	return append(append(b, name...), 0)
}

func TestParseEvents(t *testing.T) {
	pidfd := []byte{9, 0, 0, 0}
	b := rawEvent(unix.FAN_CREATE, 7, rawInfo(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, rawHandle(1, "name")), rawInfo(unix.FAN_EVENT_INFO_TYPE_FID, rawHandle(2, "")), rawInfo(unix.FAN_EVENT_INFO_TYPE_PIDFD, pidfd), rawInfo(99, []byte("of a newer kernel")))
	b = append(b, rawEvent(unix.FAN_RENAME, 8, rawInfo(unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, rawHandle(1, "from")), rawInfo(unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, rawHandle(3, "to")), rawInfo(unix.FAN_EVENT_INFO_TYPE_PIDFD, []byte{255, 255, 255, 255}))...)
	var got []event
	if err := parseEvents(b, func(e *event) { got = append(got, *e) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("%d events", len(got))
	}
	if e := got[0]; e.mask != unix.FAN_CREATE || e.pid != 7 || e.pidfd != 9 || string(e.name) != "name" || e.dir[0] != 1 || e.self[0] != 2 || e.fd != -1 {
		t.Errorf("%+v", e)
	}
	if e := got[1]; e.pidfd != -1 || string(e.name) != "from" || string(e.new) != "to" || e.dir[0] != 1 || e.to[0] != 3 {
		t.Errorf("%+v", e)
	}
	for cut := 1; cut < len(b); cut++ {
		err := parseEvents(b[:cut], func(*event) {})
		var bad *EventError
		if first := binary.NativeEndian.Uint32(b); cut == int(first) {
			if err != nil {
				t.Errorf("a whole event: %v", err)
			}
		} else if !errors.As(err, &bad) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add(rawEvent(unix.FAN_CREATE, 7, rawInfo(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, rawHandle(1, "name"))))
	f.Add(rawEvent(unix.FAN_RENAME, 8, rawInfo(unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, rawHandle(1, "from")), rawInfo(unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, rawHandle(3, "to"))))
	f.Add(rawEvent(unix.FAN_Q_OVERFLOW, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseEvents(b, func(e *event) {
			for _, h := range []handle{e.dir, e.to, e.self} {
				if h != nil && len(h) < fsidSize+handleHead {
					t.Errorf("a handle of %d bytes", len(h))
				}
			}
		})
		parseInotify(b, func(int32, uint32, uint32, []byte) {})
		parseStarts(b, func(int32) {})
	})
}
