package watch

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// event is one event of a fanotify group that reports directory handles and
// names. What it refers to lies in the buffer that was read.
type event struct {
	mask  uint64
	fd    int // of the file, in a group that reports no handles; else -1
	pid   int32
	pidfd int // -1: the process had ended before the event was read

	dir  handle // of the directory that the name is in; of a rename: the former one
	name []byte // "." stands for the directory itself
	to   handle // of a rename: the new directory
	new  []byte // of a rename: the new name
	self handle // of the file or directory itself; nil where the kernel does not say
}

// handle identifies a file or directory for as long as it exists: 8 bytes of
// filesystem id, then a struct file_handle (name_to_handle_at(2)).
type handle []byte

const (
	metadataSize = 24 // struct fanotify_event_metadata
	infoSize     = 4  // struct fanotify_event_info_header
	fsidSize     = 8
	handleHead   = 8 // handle_bytes and handle_type of struct file_handle
)

// EventError says where an event of the kernel is not what fanotify(7) says.
type EventError struct {
	Offset int // in what was read
	Reason string
}

func (e *EventError) Error() string {
	return fmt.Sprintf("fanotify: offset %d: %s", e.Offset, e.Reason)
}

// parseEvents calls fn with each event in b. What is not understood within an
// event is passed over, as newer kernels may add to it. Descriptors in the
// events are the caller's to close; those of events behind an error are lost.
func parseEvents(b []byte, fn func(*event)) error {
	for off := 0; off < len(b); {
		rest := b[off:]
		if len(rest) < metadataSize {
			return &EventError{off, "cut short"}
		}
		size := int(binary.NativeEndian.Uint32(rest))
		head := int(binary.NativeEndian.Uint16(rest[6:]))
		if rest[4] != unix.FANOTIFY_METADATA_VERSION {
			return &EventError{off, fmt.Sprintf("version %d of events, not %d", rest[4], unix.FANOTIFY_METADATA_VERSION)}
		}
		if size < metadataSize || size > len(rest) || head < metadataSize || head > size {
			return &EventError{off, fmt.Sprintf("an event of %d bytes, of which %d are its head, in %d", size, head, len(rest))}
		}
		ev := event{
			mask: binary.NativeEndian.Uint64(rest[8:]), fd: int(int32(binary.NativeEndian.Uint32(rest[16:]))),
			pid: int32(binary.NativeEndian.Uint32(rest[20:])), pidfd: -1,
		}
		ev.infos(rest[head:size])
		fn(&ev)
		off += size
	}
	return nil
}

// infos reads the records behind the head of an event.
func (ev *event) infos(b []byte) {
	for len(b) >= infoSize {
		size := int(binary.NativeEndian.Uint16(b[2:]))
		if size < infoSize || size > len(b) {
			return
		}
		body := b[infoSize:size]
		switch b[0] {
		case unix.FAN_EVENT_INFO_TYPE_PIDFD:
			if len(body) >= 4 {
				ev.pidfd = max(-1, int(int32(binary.NativeEndian.Uint32(body))))
			}
		case unix.FAN_EVENT_INFO_TYPE_DFID_NAME, unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME:
			ev.dir, ev.name = splitHandle(body)
		case unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME:
			ev.to, ev.new = splitHandle(body)
		case unix.FAN_EVENT_INFO_TYPE_DFID:
			ev.dir, _ = splitHandle(body)
			ev.name = []byte(".")
		case unix.FAN_EVENT_INFO_TYPE_FID:
			ev.self, _ = splitHandle(body)
		}
		b = b[size:]
	}
}

// splitHandle cuts what follows the head of a record into handle and name.
func splitHandle(b []byte) (handle, []byte) {
	if len(b) < fsidSize+handleHead {
		return nil, nil
	}
	end := fsidSize + handleHead + int(binary.NativeEndian.Uint32(b[fsidSize:]))
	if end > len(b) || end < 0 {
		return nil, nil
	}
	name := b[end:]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return b[:end], name
}

// open opens what the handle stands for, given any descriptor on a mount of its
// filesystem. ESTALE: it is gone.
func (h handle) open(mount, flags int) (int, error) {
	typ := int32(binary.NativeEndian.Uint32(h[fsidSize+4:]))
	return unix.OpenByHandleAt(mount, unix.NewFileHandle(typ, h[fsidSize+handleHead:]), flags|unix.O_CLOEXEC)
}

// fsid returns the filesystem's id as statfs(2) gives it.
func (h handle) fsid() (id [fsidSize]byte) {
	copy(id[:], h)
	return id
}
